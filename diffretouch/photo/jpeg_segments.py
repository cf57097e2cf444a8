"""The segments of a JPEG and what lies behind its picture: one walk from marker to marker."""

import io
import re
import struct
from typing import NamedTuple

from .exif import read_directory, tiff_header

_AFTER_SCAN = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
_IDENTIFIER = re.compile(rb"[ -~]{2,40}")


class Segment(NamedTuple):
    """`data[start:end]` is what it holds, without marker and length."""

    marker: int
    start: int
    end: int


def segments(data: bytes, place: int = 0) -> tuple[list[Segment], int | None]:
    """-> the segments of the picture that begins at `place`, and where it ends (None: it is cut off)."""
    found, place = [], place + 2
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1 : place + 2]
        if marker == b"\xd9":
            return found, place + 2
        if marker == b"\xff":  # any number of these may stand before a marker
            place += 1
            continue
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if not marker or size < 2:
            break
        found.append(Segment(marker[0], place + 4, min(place + 2 + size, len(data))))
        place += 2 + size
        if marker == b"\xda":
            after = _AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
    return found, None


_MOST_WORK = 2_000_000_000  # pixels times scans, where there are more than a hundred


def check_scans(data: bytes, size: tuple[int, int]) -> None:
    """Raises ValueError for a picture of so many scans that it would decode for minutes: each goes over all pixels."""
    scans = sum(found.marker == 0xDA for found in segments(data)[0])
    if scans > 100 and scans * size[0] * size[1] > _MOST_WORK:
        raise ValueError(f"it has {scans} scans, which no photo has")


class Picture(NamedTuple):
    """One entry of an MPF index: `attributes` as in CIPA DC-007, `start` counted from the file's first byte."""

    attributes: int
    start: int
    size: int


def pictures(data: bytes, found: list[Segment]) -> list[Picture]:
    """The pictures that a Multi-Picture Format index names, the main one first; none if there is no sound index."""
    for marker, start, end in found:
        if marker == 0xE2 and data.startswith(b"MPF\0", start):
            file = io.BytesIO(data[start + 4 : end])
            try:
                order, first, _ = tiff_header(file)
                entries = read_directory(file, first, order)[0][0xB002][1]
            except (ValueError, KeyError, struct.error):
                return []
            index = [struct.unpack_from(order + "3L", entries, n) for n in range(0, len(entries) - 15, 16)]
            return [Picture(attributes, place + start + 4 if place else 0, size) for attributes, size, place in index]
    return []


_CARRIED = {0xE0: (b"JFIF\0",),
            0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"),
            0xE2: (b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"),
            0xED: (b"Photoshop 3.0\0",)}  # fmt: skip
# How a program stored the picture: it says nothing about the photo
_NOTHING = {0xEC: (b"Ducky",), 0xED: (b"Adobe_CM",), 0xEE: (b"Adobe",), 0xEF: (b"Q ",)}
_NAMES = ((0xE0, b"JFXX\0", "a preview (JFXX)"),
          (0xE2, b"FPXR\0", "FlashPix"), (0xEC, b"[picture info]", "the camera's picture info"))  # fmt: skip


def not_carried(data: bytes, found: list[Segment]) -> list[str]:
    """The names of the segments that a new file will not hold."""
    names = set()
    for marker, start, end in found:
        if not 0xE0 <= marker <= 0xEF or data.startswith(_CARRIED.get(marker, ()) + _NOTHING.get(marker, ()), start):
            continue
        names.add(_name(marker, data[start : min(start + 64, end)]))
    return sorted(names)


def _name(marker, head):
    application = f"APP{marker - 0xE0}"
    if marker == 0xE0 and head[6:10] == b"HEAP":
        return f"{application} (Canon's camera data, CIFF)"
    for known, start, name in _NAMES:
        if marker == known and head.startswith(start):
            return f"{application} ({name})"
    if marker == 0xEB and head[:2] == b"JP":
        return f"{application} (content credentials, C2PA, which no longer hold for a changed picture)"
    identifier = _IDENTIFIER.match(head)
    return f"{application} ({identifier[0].decode('ascii').strip()})" if identifier else application


def behind(data: bytes, end: int) -> str | None:
    """What lies behind the picture, in words; None for nothing or filling."""
    rest = data[end:]
    if not rest.strip(b"\0\n\r \xff"):
        return None
    if _holds_video(rest):
        return f"The video of a motion photo ({len(rest)} bytes behind the picture)"
    if rest.endswith(b"SEFT"):
        return f"What Samsung's camera put behind the picture ({len(rest)} bytes)"
    if rest.startswith(b"\xff\xd8\xff"):
        return f"A further picture behind the main one ({len(rest)} bytes)"
    if rest.startswith(b"CANON OPTIONAL DATA"):
        return "Canon's recipe for the raw converter (VRD)"
    return f"Data of {len(rest)} bytes behind the picture"


def _holds_video(rest):
    """Whether an MP4 begins at once, behind filling, or where Samsung marks it."""
    marked = rest.find(b"MotionPhoto_Data")
    begin = marked + 16 if marked >= 0 else max(0, len(rest) - len(rest.lstrip(b"\0")) - 3)
    return b"ftyp" in (rest[begin + 4 : begin + 8], rest[4:8])
