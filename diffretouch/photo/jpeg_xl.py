"""JPEG XL (ISO 18181) through imagecodecs, which neither tells colours nor takes them: its header does, read here."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffretouch.colour import srgb_to_linear

from . import boxes, high_range, icc, tiff_samples
from .bits import BitReader, BitWriter
from .jpeg_xl_profile import read_profile, write_profile

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
    depth_place: tuple[int, int] = (0, 0)  # where its bits per channel are said, in bits from the start; its colours:
    colours_place: tuple[int, int] = (0, 0)
    end: int = 0  # where a profile may follow, in bits


class _Bits(BitReader):
    def kind(self):
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def point(self):
        values = [self.choice((0, 19), (1 << 19, 19), (1 << 20, 20), (1 << 21, 21)) for _ in range(2)]
        return tuple((value >> 1 ^ -(value & 1)) / 1e6 for value in values)


def codestream(data: bytes) -> bytes:
    """The coded picture; the file may wrap it in boxes.

    Raises:
        ValueError: there is none.
    """
    code = data
    if data.startswith(_SIGNATURE):
        code = b"".join(data[start + 4 * (kind == b"jxlp") : end] for kind, start, end in boxes.boxes(data)
                        if kind in (b"jxlc", b"jxlp"))  # fmt: skip
    if not code.startswith(b"\xff\x0a"):
        raise ValueError("it holds no picture")
    return code


def header(code: bytes) -> Header:
    """What a coded picture says of itself. Raises ValueError where it is damaged or has a preview."""
    bits = _Bits(code)
    bits.place = 16
    found = Header(*_size(bits))
    if bits.flag():  # all as usual
        bits.flag()
        found.end = bits.place
        return found
    more = bits.flag()
    if more:
        found.orientation = bits.number(3) + 1
        if bits.flag():
            _size(bits)
        if bits.flag():
            raise ValueError("it has a preview, which is not supported")
        found.animated = bits.flag()
        if found.animated:
            return found
    start = bits.place
    found.bits = _depth(bits)
    found.depth_place = start, bits.place
    bits.flag()
    found.extra = tuple(_extra(bits, found) for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))))
    found.lossy = bits.flag()
    start = bits.place
    if not bits.flag():
        _colours(bits, found)
    found.colours_place = start, bits.place
    _rest(bits, found, more)
    return found


def _rest(bits, found, more):
    """Tones, extensions and the inverse transform: of no use here but for their length."""
    if more and not bits.flag():
        bits.place += 49
    kinds = bits.long_number()
    bits.place += sum(bits.long_number() for n in range(64) if kinds >> n & 1)
    if not bits.flag():
        if found.lossy and not bits.flag():
            bits.place += 16 * 16
        weights = bits.number(3)
        bits.place += 16 * sum(size for n, size in enumerate((15, 55, 210)) if weights >> n & 1)
    found.end = bits.place


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
    found.transfer = None if found.gamma else bits.kind()
    bits.kind()  # how colours out of range are brought in


def _profile(code, found):
    """The profile of its colours, None for sRGB."""
    if found.icc:
        bits = BitReader(code)
        bits.place = found.end
        profile = read_profile(bits)
        if icc.profile_channels(profile) != (1 if found.grey else 3):
            raise ValueError("its colours are CMYK, or not those of its ICC profile, which is not supported")
        return profile
    known = isinstance(found.primaries, int) and found.white == _D65
    if known and found.primaries in _PRIMARIES and found.gamma is None:
        profile = icc.cicp_profile(_PRIMARIES[found.primaries], found.transfer)
        if profile and found.grey:
            raise ValueError("its grey has another tone curve than sRGB's, which is not supported")
        return profile
    if found.grey or found.transfer not in (None, 1, 8, 13):
        raise ValueError("its colours are not supported")
    white = {_D65: (0.3127, 0.3290), 10: (1 / 3, 1 / 3), 11: icc.PRIMARIES[11][6:]}.get(found.white, found.white)
    points = found.primaries
    if points in _PRIMARIES:
        points = icc.PRIMARIES[_PRIMARIES[points]][:6]
    if isinstance(points, int) or isinstance(white, int):
        raise ValueError("its colours are not supported")
    gamma = 1 / found.gamma if found.gamma else 1.0 if found.transfer == 8 else None
    return icc.chromatic_profile(points, white, gamma)


def read(photo: "Photo", max_pixels: int) -> tuple[np.ndarray, float, int]:
    """A reader as in `decoders`."""
    from imagecodecs import jpegxl_decode

    data = photo.path.read_bytes()
    code = codestream(data)
    found = header(code)
    if found.width * found.height > max_pixels:
        raise ValueError(f"{found.width} x {found.height} pixels are more than `max_pixels` = {max_pixels}")
    depth, channels = (found.bits + 7) // 8, 3 + len(found.extra)
    if depth * channels * found.width * found.height > 12 * max_pixels:
        raise ValueError(f"its {channels} channels take more memory than `max_pixels` = {max_pixels} of RGB in float")
    if found.animated:
        raise ValueError("it is an animation; export one of its frames as a picture")
    if found.transfer in (high_range.PQ, high_range.HLG) and found.primaries in _PRIMARIES and found.white == _D65:
        photo.high_range = _PRIMARIES[found.primaries], found.transfer
    else:
        photo.icc_profile = _profile(code, found)
    packed_jpeg = data.startswith(_SIGNATURE) and any(kind == b"jbrd" for kind, *_ in boxes.boxes(data))
    photo.lossless, photo.decoded_upright = not (found.lossy or packed_jpeg), found.orientation
    _metadata(photo, data)
    colours = 1 if found.grey else 3
    through_srgb = found.icc and found.lossy  # else the decoder makes linear sRGB of it, cut off at its gamut
    samples = jpegxl_decode(_as_float_srgb(code, found) if through_srgb else data)
    samples = samples[..., None] if samples.ndim == 2 else samples
    alpha = found.extra[:1] == (0,)
    if samples.ndim != 3 or samples.shape[2] < colours + alpha:
        raise ValueError(f"its decoder returned the shape {samples.shape}")
    if len(found.extra) > alpha:
        photo.note("Its channels beside colours and alpha were not carried.")
    samples = samples[..., : colours + alpha]
    if through_srgb:
        samples = _in_profile(photo, samples, colours, min(found.bits, 16))
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32)
    if found.bits > 8 * samples.dtype.itemsize:
        raise ValueError(f"{found.bits} bits per channel are not supported")
    peak = 1 if samples.dtype.kind == "f" else 2**found.bits - 1  # the decoder does not stretch them
    if alpha and found.multiplied:
        photo.note("Its colours were multiplied by alpha; they no longer are.")
        samples = tiff_samples.divided_by_alpha(samples, peak)
    return samples, peak, colours


def _in_profile(photo, samples, colours, bits):
    """sRGB floats (H,W,C), alpha behind the colours -> codes in the photo's profile."""
    values = np.repeat(samples[..., :1], 3, 2) if colours == 1 else samples[..., :3]
    try:
        values = icc.from_srgb(values.astype(np.float32), photo.icc_profile)
    except ValueError:
        photo.icc_profile, values = None, values[..., :colours]
        photo.note("Its profile is only for reading; it is saved as sRGB.")
    codes = np.concatenate([values, samples[..., colours:]], 2).clip(0, 1) * (2**bits - 1)
    return np.rint(codes).astype(np.uint8 if bits <= 8 else np.uint16)


def _metadata(photo, data):
    if not data.startswith(_SIGNATURE):
        return
    lost = set()
    for kind, start, end in boxes.boxes(data):
        content = data[start:end]
        if kind == b"brob":
            kind, wanted = content[:4], {b"Exif": photo.exif is None, b"xml ": photo.xmp is None}
            content = _unpacked(content[4:]) if wanted.get(kind) else b""
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


# (value, bits) of a header's colours: sRGB in colour and in grey, those of a profile
_SRGB_COLOURS = {3: ((1, 1),), 1: ((0, 2), (1, 2), (1, 2), (0, 1), (2 | 11 << 2, 6), (1, 2))}
_PROFILE_COLOURS = {3: ((0b10, 2), (0, 2)), 1: ((0b10, 2), (1, 2))}
_FLOAT = ((1, 1), (0, 2), (7, 4))


def _retold(code, found, colours, depth=None, profile=None):
    """The coded picture with another header: its samples stay, what they are called changes."""
    old, new = BitReader(code), BitWriter()

    def keep(until):
        while old.place < until:
            size = min(until - old.place, 32)
            new.number(old.number(size), size)

    for (start, end), said in ((found.depth_place, depth), (found.colours_place, colours)):
        keep(start if said else end)
        for value, size in said or ():
            new.number(value, size)
        old.place = end
    keep(found.end)
    if found.icc:
        read_profile(old)
    if profile:
        write_profile(new, profile)
    return new.tobytes() + code[-(-old.place // 8) :]


def _as_float_srgb(code, found):
    """The coded picture as one of sRGB floats, which are not cut off; lossy ones are coded in colours of their own."""
    return _retold(code, found, _SRGB_COLOURS[1 if found.grey else 3], _FLOAT)


def encoded(
    codes: np.ndarray, quality: int, exif: bytes | None, xmp: bytes | None, profile: bytes | None = None
) -> bytes:
    """A file of codes (H,W,1 to 4), uint8 or uint16, in a profile (None: sRGB); a quality of 100 is lossless.

    imagecodecs says of 8 bits that they are sRGB and of 16 and floats that they are linear light. Values without loss
    are what they are called afterwards; lossy ones are decoded from light into what is called for.
    """
    from imagecodecs import jpegxl_encode

    colours, deep = 1 if codes.shape[2] < 3 else 3, codes.dtype == np.uint16
    options = {"lossless": True} if quality == 100 else {"level": quality, "lossless": False}
    samples = codes
    if quality < 100 and (deep or profile):
        samples = np.divide(codes, np.iinfo(codes.dtype).max, dtype=np.float32)
        seen = icc.to_srgb(samples[..., :colours], profile) if profile else samples[..., :colours]
        samples[..., :colours] = srgb_to_linear(seen[..., :colours])
        if not profile:
            samples = np.rint(samples * 65535).astype(np.uint16)
    samples = np.ascontiguousarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    data = bytes(jpegxl_encode(samples, usecontainer=True, **options))
    code = codestream(data)
    if profile or deep:
        said = (_PROFILE_COLOURS if profile else _SRGB_COLOURS)[colours]
        depth = ((0, 1), (3 | 15 << 2, 8)) if deep else ((0, 3),)
        code = _retold(code, header(code), said, depth, profile)
    place = next(start - 8 for kind, start, _ in boxes.boxes(data) if kind in (b"jxlc", b"jxlp"))
    parts = [(b"Exif", exif and bytes(4) + exif), (b"xml ", xmp), (b"jxlc", code)]
    heads = [(struct.pack(">L4s", len(content) + 8, kind), content) for kind, content in parts if content]
    return b"".join([data[:place], *(part for head in heads for part in head)])
