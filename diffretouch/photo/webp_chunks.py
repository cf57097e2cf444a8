"""The chunks of WebP files (RIFF): a walk within bounds, nothing decoded."""

_KNOWN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")


def not_carried(data: bytes) -> list[str]:
    """The names of the chunks, and of what lies behind the file's own length, that a new file will not hold."""
    names, place, end = set(), 12, 8 + int.from_bytes(data[4:8], "little")
    while place + 8 <= min(end, len(data)):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name == b"C2PA":
            names.add("C2PA (content credentials, which no longer hold for a changed picture)")
        elif name not in _KNOWN:
            names.add(name.decode("ascii", "backslashreplace").strip())
        place += 8 + size + size % 2
    behind = len(data[end:].rstrip(b"\0\r\n "))
    return [*sorted(names), *([f"{behind} bytes behind the picture"] if behind else [])]


def coding(data: bytes) -> bytes:
    """The name of the chunk that holds a WebP's first picture: `VP8 ` or, without loss, `VP8L`."""
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name
        place += 24 if name == b"ANMF" else 8 + size + size % 2  # a frame's chunks stand behind its measures
    return b""
