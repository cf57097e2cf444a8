"""The chunks of a PNG, one after the other, and its texts."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

_LONGEST = 1 << 24  # bytes of a text, unpacked
_MOST = 1 << 26  # of all texts


class Chunk(NamedTuple):
    """`data[start:end]` is what it holds, without length, name and checksum."""

    name: bytes
    start: int
    end: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to IEND, or up to one that is cut off."""
    place = 8
    while place + 12 <= len(data):
        size, name = struct.unpack_from(">L4s", data, place)
        if place + 12 + size > len(data):
            return
        yield Chunk(name, place + 8, place + 8 + size)
        if name == b"IEND":
            return
        place += 12 + size


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))


def first(data: bytes, name: bytes) -> bytes | None:
    """What the first chunk of that name before the pixels holds."""
    for found in chunks(data):
        if found.name == name:
            return data[found.start : found.end]
        if found.name == b"IDAT":
            break
    return None


def without(data: bytes, names: tuple[bytes, ...]) -> bytes:
    """The file without the chunks of these names."""
    parts, place = [], 0
    for name, start, end in chunks(data):
        if name in names:
            parts.append(data[place : start - 8])
            place = end + 4
    return b"".join([*parts, data[place:]]) if parts else data


def profile(iccp: bytes) -> bytes | None:
    """The ICC profile in a chunk iCCP, None for a damaged one."""
    try:
        return _inflated(iccp[iccp.index(b"\0") + 2 :]) or None
    except (ValueError, zlib.error):
        return None


def texts(data: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    """-> (keyword, text) of each text chunk, and what could not be read or kept of them."""
    found, lost, room = [], [], _MOST
    for name, start, end in chunks(data):
        if name not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        keyword, _, rest = data[start:end].partition(b"\0")
        key = keyword.decode("latin-1")
        try:
            if name == b"tEXt":
                text = rest.decode("latin-1")
            elif name == b"zTXt":
                text = _inflated(rest[1:], room).decode("latin-1")
            else:
                packed, (language, translated, text) = rest[0], rest[2:].split(b"\0", 2)
                text = (_inflated(text, room) if packed else text).decode("utf-8")
                if (language or translated) and key != "XML:com.adobe.xmp":
                    lost.append(f"the language of the text {key!r}")
        except (ValueError, IndexError, zlib.error):
            lost.append(f"the text {key!r}, which is damaged or too long")
            continue
        room -= len(text)
        found.append((key, text))
    return found, lost


def _inflated(packed, room=_LONGEST):
    unpack = zlib.decompressobj()
    plain = unpack.decompress(packed, max(min(_LONGEST, room), 1))
    if unpack.unconsumed_tail or not unpack.eof:
        raise ValueError("too long, or cut off")
    return plain


# The picture and its colours, which are read; what is carried; how the pixels were stored or are best shown
_KNOWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"tEXt",
          b"zTXt", b"iTXt", b"eXIf", b"tIME", b"acTL", b"fcTL", b"fdAT", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"iDOT",
          b"CgBI"}  # fmt: skip
_NAMES = {b"caBX": "caBX (content credentials, C2PA, which no longer hold for a changed picture)",
          b"oFFs": "oFFs (place on a page)", b"sCAL": "sCAL (physical scale)", b"pCAL": "pCAL (meaning of values)",
          b"sTER": "sTER (stereo)", b"mDCV": "mDCV (mastering display)", b"cLLI": "cLLI (light level)"}  # fmt: skip


def not_carried(data: bytes) -> list[str]:
    """The names of the chunks, and of what lies behind the last, that a new file will not hold."""
    names, end = set(), len(data)
    for name, _, place in chunks(data):
        if name not in _KNOWN:
            names.add(_NAMES.get(name, name.decode("ascii", "backslashreplace")))
        if name == b"IEND":
            end = place + 4
    behind = len(data[end:].rstrip(b"\0\r\n "))
    return [*sorted(names), *([f"{behind} bytes behind the picture"] if behind else [])]
