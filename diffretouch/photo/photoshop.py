"""Photoshop's image resources, of which IPTC-IIM is one: in JPEG segments, a TIFF tag, or a PNG's hexadecimal text."""

import struct
from collections.abc import Iterable

IPTC = 0x0404
# What stands elsewhere in the files that are written, or shows the photo as it was (profile, EXIF, XMP, thumbnails)
_APART = {IPTC, 0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424}
_PLACES = {0x0408, 0x041A, *range(2000, 2999)}  # guides, slices, paths: as the picture was stored
_HEAD = b"Photoshop 3.0\0"
_LONGEST = 65533  # bytes in a segment of a JPEG


def resources(blob: bytes) -> tuple[list[tuple[int, bytes, bytes]], bool]:
    """-> (number, name, data) of each resource, and whether all could be read."""
    found, place = [], 0
    while place + 12 <= len(blob) and blob[place : place + 4] in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR"):
        number, length = struct.unpack_from(">HB", blob, place + 4)
        name = blob[place + 7 : place + 7 + length]
        place += 7 + length + (length + 1) % 2
        size = int.from_bytes(blob[place : place + 4], "big")
        data = blob[place + 4 : place + 4 + size]
        if len(data) < size:
            return found, False
        found.append((number, name, data))
        place += 4 + size + size % 2
    return found, not blob[place:].strip(b"\0")


def pack(found: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The other way round."""
    parts = []
    for number, name, data in found:
        name = bytes([len(name)]) + name + bytes((len(name) + 1) % 2)
        parts.append(b"8BIM" + struct.pack(">H", number) + name + struct.pack(">L", len(data)) + data)
        parts.append(bytes(len(data) % 2))
    return b"".join(parts)


def iptc_and_others(blob: bytes) -> tuple[bytes | None, bytes | None, bool]:
    """-> IPTC, the resources that have no other place in a file, and whether all could be read."""
    found, whole = resources(blob)
    parts = list(dict.fromkeys(data for number, _, data in found if number == IPTC and data))  # also one part twice
    iptc = b"".join(map(_whole_records, parts[:-1])) + parts[-1] if parts else None
    return iptc, pack(entry for entry in found if entry[0] not in _APART) or None, whole


def _whole_records(iptc):
    """IPTC without what fills it up at its end, so that more can follow."""
    place = 0
    while iptc[place : place + 1] == b"\x1c" and place + 5 <= len(iptc):
        size = int.from_bytes(iptc[place + 3 : place + 5], "big")
        if size & 0x8000:  # so many bytes say the length
            size = int.from_bytes(iptc[place + 5 : place + 5 + (size & 0x7FFF)], "big") + (size & 0x7FFF)
        if place + 5 + size > len(iptc):
            break
        place += 5 + size
    return iptc[:place]


def without_places(blob: bytes) -> bytes | None:
    """The resources of a photo that was turned."""
    return pack(entry for entry in resources(blob)[0] if entry[0] not in _PLACES) or None


def segments(iptc: bytes | None, others: bytes | None) -> tuple[bytes, list[str]]:
    """APP13 segments of a JPEG, and the names of what is too long for one."""
    parts, lost = [], []
    for number, name, data in [*([(IPTC, b"", iptc)] if iptc else []), *resources(others or b"")[0]]:
        payload = _HEAD + pack([(number, name, data)])
        if len(payload) <= _LONGEST:
            parts.append(b"\xff\xed" + struct.pack(">H", len(payload) + 2) + payload)
        elif number == IPTC:
            lost.append(f"IPTC of {len(data)} bytes")
        else:
            lost.append(f"Photoshop's resource {number} of {len(data)} bytes")
    return b"".join(parts), lost


def of_segments(payloads: Iterable[bytes]) -> bytes:
    """The resources in a JPEG's APP13 segments; a long one may go on in the next."""
    return b"".join(payload.removeprefix(_HEAD) for payload in payloads if payload.startswith(_HEAD))


# PNG holds other files' metadata as text: `Raw profile type ...`.


def profile_text(kind: str, data: bytes) -> str:
    """The text of PNG's `Raw profile type {kind}`."""
    digits = data.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return f"\n{kind}\n{len(data):8d}\n{lines}\n"


def profile_bytes(text: str) -> bytes:
    """The bytes of such a text: name, length and hexadecimal digits in lines."""
    try:
        return bytes.fromhex("".join(text.split()[2:])) or b"damaged"
    except ValueError:
        return b"damaged"
