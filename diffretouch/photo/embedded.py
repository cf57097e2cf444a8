"""Whole pictures that are coded within a TIFF's strips and tiles: how large their own headers say they are."""

import io
import struct

from . import jpeg_segments
from .exif import read_directory, tiff_header

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that say a JPEG's size
_JPEG_2000 = b"\xff\x4f\xff\x51"


def largest(data: bytes) -> tuple[int, int]:
    """The largest width and height that JPEG, JPEG 2000, JPEG XL, JPEG XR, PNG or WebP data say; (0, 0) for none.

    Args:
        data: its beginning, of 64 kB or so.
    """
    try:
        return max(_sizes(data), key=lambda size: size[0] * size[1], default=(0, 0))
    except (struct.error, IndexError, ValueError, KeyError):  # damaged: its decoder will say so
        return 0, 0


def _sizes(data):
    from . import jpeg_xl  # which reads samples as TIFF's

    if data.startswith(b"\xff\xd8"):
        for marker, start, _ in jpeg_segments.segments(data)[0]:
            if marker in _FRAMES:
                yield struct.unpack_from(">HH", data, start + 1)[::-1]
    elif data.startswith(b"\x89PNG"):
        yield struct.unpack_from(">LL", data, 16)
    elif data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        yield tuple(int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    elif data[:4] == b"RIFF" and data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<L", data, 21)
        yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif data[:4] == b"RIFF":
        yield tuple(side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif data[:3] == b"II\xbc":
        order, first, _ = tiff_header(file := io.BytesIO(data))
        entries = read_directory(file, first, order)[0]
        yield tuple(int.from_bytes(entries[tag][1], "little") for tag in (0xBC80, 0xBC81))
    elif jpeg_xl.is_jpeg_xl(data):
        found = jpeg_xl.header(jpeg_xl.codestream(data))
        yield found.width, found.height
    elif (place := data.find(_JPEG_2000)) >= 0:
        across, down, left, top = struct.unpack_from(">4L", data, place + 8)
        yield across - left, down - top
