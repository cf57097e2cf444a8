"""JPEG XL (ISO 18181) through imagecodecs: its header says the colours, which that decoder does not tell."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffretouch.colour import srgb_to_linear

from . import boxes, high_range, icc, tiff_samples

if TYPE_CHECKING:
    from . import Photo

_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (None, (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_PRIMARIES = {1: 1, 9: 9, 11: 12}  # -> ITU-T H.273
_SRGB, _D65, _CUSTOM = 1, 1, 2
_CARRIED = {b"JXL ", b"ftyp", b"jxll", b"jxlc", b"jxlp", b"jxli", b"jbrd", b"Exif", b"xml ", b"free", b"skip"}
_NAMES = {
    b"jhgm": "an HDR gain map",
    b"jumb": "content credentials (C2PA), which no longer hold for a changed picture",
}
_MOST_TEXT = 1 << 24  # bytes of metadata that are unpacked


def is_jpeg_xl(head: bytes) -> bool:
    return head.startswith((b"\xff\x0a", _SIGNATURE))


@dataclass
class Header:
    """What a file says before its first frame."""

    width: int
    height: int
    orientation: int = 1
    animated: bool = False
    lossy: bool = True
    grey: bool = False
    extra: tuple[int, ...] = ()  # kinds of the channels beside the colours; 0 is alpha
    multiplied: bool = False  # the colours by alpha
    icc: bool = False  # the colours are those of a profile within the coded picture
    primaries: int | tuple[float, ...] = _SRGB
    white: int | tuple[float, ...] = _D65
    transfer: int | None = 13
    gamma: float | None = None
    bits: int = 8
    transfer_place: int = 0  # in bits from the header's start, of the four bits that say the transfer


class _Bits:
    """Whole numbers from bits, the least significant first."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def number(self, size):
        first, last = self.place // 8, (self.place + size + 7) // 8
        if last > len(self.data):
            raise ValueError("its header is cut off")
        value = int.from_bytes(self.data[first:last], "little") >> self.place % 8
        self.place += size
        return value & ((1 << size) - 1)

    def flag(self):
        return bool(self.number(1))

    def choice(self, *ways):
        """One of four ways: (a number, bits to add)."""
        base, size = ways[self.number(2)]
        return base + self.number(size)

    def kind(self):
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def point(self):
        values = [self.choice((0, 19), (1 << 19, 19), (1 << 20, 20), (1 << 21, 21)) for _ in range(2)]
        return tuple((value >> 1 ^ -(value & 1)) / 1e6 for value in values)


def codestream(data: bytes) -> bytes:
    """The start of the coded picture, with its header; the file may wrap it in boxes."""
    if not data.startswith(_SIGNATURE):
        return data[:4096]
    for kind, start, end in boxes.boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            start += 4 * (kind == b"jxlp")
            return data[start : min(end, start + 4096)]
    raise ValueError("it holds no picture")


def header(data: bytes) -> Header:
    """Raises ValueError for what is damaged or has a preview."""
    code = codestream(data)
    if not code.startswith(b"\xff\x0a"):
        raise ValueError("it holds no picture")
    bits = _Bits(code[2:])
    found = Header(*_size(bits))
    if bits.flag():  # all as usual
        return found
    if bits.flag():
        found.orientation = bits.number(3) + 1
        if bits.flag():
            _size(bits)
        if bits.flag():
            raise ValueError("it has a preview, which is not supported")
        found.animated = bits.flag()
        if found.animated:
            return found
    found.bits = _depth(bits)
    bits.flag()
    found.extra = tuple(_extra(bits, found) for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))))
    found.lossy = bits.flag()
    if not bits.flag():
        _colours(bits, found)
    return found


def _size(bits):
    small = bits.flag()
    ways = (1, 9), (1, 13), (1, 18), (1, 30)

    def side():
        return (bits.number(5) + 1) * 8 if small else bits.choice(*ways)

    height = side()
    ratio = _RATIOS[bits.number(3)]
    return (height * ratio[0] // ratio[1] if ratio else side()), height


def _depth(bits):
    if not bits.flag():
        return bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    count = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
    bits.number(4)
    return count


def _extra(bits, found):
    if bits.flag():
        return 0
    kind = bits.kind()
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    bits.number(8 * bits.choice((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == 0:
        found.multiplied = bits.flag()
    elif kind == 2:
        bits.number(64)
    elif kind == 5:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return kind


def _colours(bits, found):
    found.icc, space = bits.flag(), bits.kind()
    found.grey = space == 1
    if found.icc:
        return
    if space > 1:
        raise ValueError("its colours are neither grey nor RGB")
    found.white = bits.kind()
    if found.white == _CUSTOM:
        found.white = bits.point()
    if not found.grey:
        found.primaries = bits.kind()
        if found.primaries == _CUSTOM:
            found.primaries = bits.point() + bits.point() + bits.point()
    found.gamma = bits.number(24) / 1e7 if bits.flag() else None
    found.transfer_place = bits.place + 2
    found.transfer = None if found.gamma else bits.kind()


def _profile(found):
    """The profile of its colours, None for sRGB."""
    if found.icc:
        raise ValueError("its ICC profile lies within the coded picture, where it is not read; "
                         "djxl of libjxl turns the file into a PNG")  # fmt: skip
    known = isinstance(found.primaries, int) and found.white == _D65
    if known and found.primaries in _PRIMARIES and found.gamma is None:
        profile = icc.cicp_profile(_PRIMARIES[found.primaries], found.transfer)
        if profile and found.grey:
            raise ValueError("its grey has another tone curve than sRGB's, which is not supported")
        return profile
    if found.grey or found.transfer not in (None, 1, 8, 13):
        raise ValueError("its colours are not supported")
    white = {_D65: (0.3127, 0.3290), 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}.get(found.white, found.white)
    points = {1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
              11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}.get(found.primaries, found.primaries)  # fmt: skip
    if isinstance(points, int) or isinstance(white, int):
        raise ValueError("its colours are not supported")
    gamma = 1 / found.gamma if found.gamma else 1.0 if found.transfer == 8 else None
    return icc.chromatic_profile(points, white, gamma)


def read(photo: "Photo", max_pixels: int) -> tuple[np.ndarray, float, int]:
    """A reader as in `decoders`."""
    from imagecodecs import jpegxl_decode

    data = photo.path.read_bytes()
    found = header(data)
    if found.width * found.height > max_pixels:
        raise ValueError(f"{found.width} x {found.height} pixels are more than `max_pixels` = {max_pixels}")
    if found.animated:
        raise ValueError("it is an animation; export one of its frames as a picture")
    if found.transfer in (high_range.PQ, high_range.HLG) and found.primaries in _PRIMARIES and found.white == _D65:
        photo.high_range = _PRIMARIES[found.primaries], found.transfer
    else:
        photo.icc_profile = _profile(found)
    photo.lossless, photo.decoded_upright = not found.lossy, found.orientation
    _metadata(photo, data)
    samples = jpegxl_decode(data)
    colours = 1 if found.grey else 3
    samples = samples[..., None] if samples.ndim == 2 else samples
    alpha = found.extra[:1] == (0,)
    if samples.ndim != 3 or samples.shape[2] < colours + alpha:
        raise ValueError(f"its decoder returned the shape {samples.shape}")
    if len(found.extra) > alpha:
        photo.note("Its channels beside colours and alpha were not carried.")
    samples = samples[..., : colours + alpha]
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32)
    if found.bits > 8 * samples.dtype.itemsize:
        raise ValueError(f"{found.bits} bits per channel are not supported")
    peak = 1 if samples.dtype.kind == "f" else 2**found.bits - 1  # the decoder does not stretch them
    if alpha and found.multiplied:
        photo.note("Its colours were multiplied by alpha; they no longer are.")
        samples = tiff_samples.divided_by_alpha(samples, peak)
    return samples, peak, colours


def _metadata(photo, data):
    if not data.startswith(_SIGNATURE):
        return
    lost = set()
    for kind, start, end in boxes.boxes(data):
        content = data[start:end]
        if kind == b"brob":
            kind, content = content[:4], _unpacked(content[4:])
            if content is None:
                photo.note("Some of its packed metadata are damaged or too long and were not carried.")
                continue
        if kind == b"Exif" and photo.exif is None and len(content) > 4:
            photo.exif = b"Exif\0\0" + content[4 + int.from_bytes(content[:4], "big") :]
        elif kind == b"xml " and photo.xmp is None:
            photo.xmp = content
        elif kind not in _CARRIED:
            lost.add(_NAMES.get(kind, kind.decode("latin-1").strip()))
    if lost:
        photo.note(f"Beside the picture the file holds what was not carried: {', '.join(sorted(lost))}.")


def _unpacked(content):
    from imagecodecs import BrotliError, brotli_decode

    try:
        return bytes(brotli_decode(content, out=_MOST_TEXT))
    except (BrotliError, ValueError, MemoryError):
        return None


def _said_srgb(data, start):
    """imagecodecs says of 16 bits that they are linear light: the four bits of that become those of sRGB's curve.

    Values without loss are what they are called; lossy ones are decoded from light into what is called for.
    """
    found = header(data)
    if found.transfer != 8:
        raise ValueError(f"imagecodecs wrote the transfer {found.transfer}")
    place = 8 * (start + 2) + found.transfer_place
    whole = int.from_bytes(data[place // 8 : place // 8 + 2], "little")
    whole = whole & ~(15 << place % 8) | 13 - 2 << place % 8
    return data[: place // 8] + whole.to_bytes(2, "little") + data[place // 8 + 2 :]


def encoded(codes: np.ndarray, quality: int, exif: bytes | None, xmp: bytes | None) -> bytes:
    """A file of sRGB codes (H,W,1 to 4), uint8 or uint16; a quality of 100 is lossless."""
    from imagecodecs import jpegxl_encode

    codes = np.ascontiguousarray(codes.squeeze(2) if codes.shape[2] == 1 else codes)
    options = {"lossless": True} if quality == 100 else {"level": quality, "lossless": False}
    deep = codes.dtype == np.uint16
    if deep and quality < 100:
        colours = 3 if codes.ndim == 3 and codes.shape[2] > 2 else 1
        codes = np.atleast_3d(codes).copy()
        light = srgb_to_linear(np.divide(codes[..., :colours], 65535, dtype=np.float32))
        codes[..., :colours] = np.rint(light * 65535)
        codes = codes.squeeze(2) if codes.shape[2] == 1 else codes
    data = bytes(jpegxl_encode(codes, usecontainer=True, **options))
    place = next(start - 8 for kind, start, _ in boxes.boxes(data) if kind in (b"jxlc", b"jxlp"))
    if deep:
        data = _said_srgb(data, place + 8)
    aside = [(b"Exif", exif and bytes(4) + exif), (b"xml ", xmp)]
    parts = [struct.pack(">L4s", len(content) + 8, kind) + content for kind, content in aside if content]
    return b"".join([data[:place], *parts, data[place:]])
