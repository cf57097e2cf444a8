"""HDR gain maps (ISO 21496-1 in JPEG, HEIC and AVIF; Apple's): read beside a photo, written behind it in a JPEG.

The map is kept as it is. A display of high range shows (photo + offset) 2^gain - offset in linear light, so what the
retouch does to the photo's light it does to the HDR rendition by the same factor, place by place. Fitting the map anew
would need an HDR retouch to fit it to, which models that know photos of standard range alone do not give.
"""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from . import boxes, jpeg_segments, xmp
from .exif import MAKER_NOTE, parse_exif, read_directory
from .orientation import turn

if TYPE_CHECKING:
    from . import Photo

APPLE = "urn:com:apple:photo:2020:aux:hdrgainmap"
_ISO = b"urn:iso:std:iso:ts:21496:-1\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_HDRGM, _APPLE_XMP = "http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.apple.com/HDRGainMap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MOST_PICTURES = 16
_QUALITY = 97  # of a map that has to be encoded anew


@dataclass(frozen=True, eq=False, kw_only=True)
class GainMap:
    """A gain map and what its values mean, as ISO 21496-1 names it. Tuples hold one number, or three for R, G, B.

    Attributes:
        jpeg: the map, upright, as a JPEG of one or three channels without metadata. A value v in [0,1] is the gain
            gain_min + (gain_max - gain_min) v^(1/gamma), in stops.
        photo_size: height and width of the photo that it belongs to; the map may be smaller.
        photo_profile: ICC profile of that photo in its file, or None.
        gain_min, gain_max, gamma, base_offset, alternate_offset: see `jpeg` and the module.
        base_headroom, alternate_headroom: brightest white of photo and HDR rendition over the photo's white, in stops.
        in_base_colours: the gain is applied in the photo's colours, not in those of the map's own profile.
    """

    jpeg: bytes = field(repr=False)
    photo_size: tuple[int, int]
    photo_profile: bytes | None = field(default=None, repr=False)
    gain_max: tuple[float, ...]
    alternate_headroom: float
    gain_min: tuple[float, ...] = (0.0,)
    gamma: tuple[float, ...] = (1.0,)
    base_offset: tuple[float, ...] = (1 / 64,)
    alternate_offset: tuple[float, ...] = (1 / 64,)
    base_headroom: float = 0.0
    in_base_colours: bool = True

    def __post_init__(self):
        numbers = (*self.gain_min, *self.gain_max, *self.gamma, *self.base_offset, *self.alternate_offset,
                   self.base_headroom, self.alternate_headroom)  # fmt: skip
        if not all(math.isfinite(number) and abs(number) < 2048 for number in numbers):
            raise ValueError("its metadata hold numbers out of range")
        if self.alternate_headroom < self.base_headroom:
            raise ValueError("the photo itself is its HDR rendition")
        if min(self.gamma) < 1e-3 or any(
            high < low for high, low in zip(*_even(self.gain_max, self.gain_min), strict=True)
        ):
            raise ValueError("its metadata contradict themselves")

    @property
    def has_colours(self) -> bool:
        """Whether the gain of red, green and blue may differ."""
        return _open(self.jpeg).mode == "RGB" or len(set(self.gain_max)) > 1 or len(set(self.gain_min)) > 1

    def turned(self, orientation: int) -> "GainMap":
        """The map of a photo that was stored in that orientation and is now upright."""
        if orientation == 1:
            return self
        height, width = self.photo_size
        size = (width, height) if orientation >= 5 else (height, width)
        image = _open(self.jpeg)
        jpeg = encoded(turn(np.asarray(image), orientation), image.info.get("icc_profile"))
        return replace(self, jpeg=jpeg, photo_size=size)

    def tobytes(self) -> bytes:
        """The map with its metadata, as it stands behind the photo."""
        packet = _XMP + xmp.with_description(None, f' xmlns:hdrgm="{_HDRGM}"{self._xmp()}')
        return self.jpeg[:2] + _segment(0xE2, _ISO + self._iso()) + _segment(0xE1, packet) + self.jpeg[2:]

    def _channels(self):
        """(minimum, maximum, gamma, offsets) of one channel, or of each of three."""
        rows = _even(self.gain_min, self.gain_max, self.gamma, self.base_offset, self.alternate_offset)
        columns = list(zip(*rows, strict=True))
        return columns[:1] if len(set(columns)) == 1 else columns

    def _iso(self):
        channels = self._channels()
        numbers = [self.base_headroom, self.alternate_headroom, *(value for channel in channels for value in channel)]
        fractions = [Fraction(number).limit_denominator(1 << 20) for number in numbers]
        flags = 0x80 * (len(channels) == 3) + 0x40 * self.in_base_colours
        return struct.pack(">2HB", 0, 0, flags) + b"".join(struct.pack(">iL", f.numerator, f.denominator)
                                                           for f in fractions)  # fmt: skip

    def _xmp(self):
        names = ("GainMapMin", "GainMapMax", "Gamma", "OffsetSDR", "OffsetHDR")
        channels = self._channels()
        scalars = {"Version": "1.0", "BaseRenditionIsHDR": "False",
                   "HDRCapacityMin": format(self.base_headroom, ".9g"),
                   "HDRCapacityMax": format(self.alternate_headroom, ".9g")}  # fmt: skip
        rows = dict(zip(names, zip(*channels, strict=True), strict=True))
        if len(channels) == 1:
            scalars |= {name: format(value, ".9g") for name, (value,) in rows.items()}
            rows = {}
        elements = "".join(
            f"<hdrgm:{name}><rdf:Seq>{''.join(f'<rdf:li>{value:.9g}</rdf:li>' for value in values)}</rdf:Seq>"
            f"</hdrgm:{name}>" for name, values in rows.items())  # fmt: skip
        attributes = "".join(f' hdrgm:{name}="{value}"' for name, value in scalars.items())
        return f"{attributes}>{elements}</rdf:Description>"


def _even(*rows):
    """Tuples of one or three numbers -> all of three."""
    return [tuple(row) * (3 // len(row)) for row in rows]


def _segment(marker, payload):
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def encoded(samples: np.ndarray, profile: bytes | None = None) -> bytes:
    """(h,w) or (h,w,3) uint8 -> a JPEG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG", quality=_QUALITY, subsampling=0, icc_profile=profile)
    return file.getvalue()


def _open(jpeg):
    from PIL.JpegImagePlugin import JpegImageFile

    return JpegImageFile(io.BytesIO(jpeg))


def check_size(size: tuple[int, int], photo_size: tuple[int, int]) -> None:
    """Raises ValueError where a map of that width and height cannot belong to the photo."""
    (width, height), (whole_width, whole_height) = size, photo_size
    if width > whole_width or height > whole_height:
        raise ValueError(f"{width} x {height} pixels are more than the photo's {whole_width} x {whole_height}")
    if abs(width * whole_height - height * whole_width) > 2 * max(photo_size):  # two pixels of the map
        raise ValueError(f"{width} x {height} pixels are not of the photo's shape, {whole_width} x {whole_height}")


def of_jpeg(data: bytes, photo: "Photo", size: tuple[int, int]) -> tuple[GainMap | None, int]:
    """-> the gain map of a JPEG, as it is stored, and where it ends in the file; None if there is none.

    Args:
        data: the file.
        photo (`diffretouch.photo.Photo`): with the EXIF, XMP and profile of the file.
        size: width and height as stored.

    Raises:
        ValueError: the file says that it has a map, but there is none that can be used.
    """
    found, end = jpeg_segments.segments(data)
    said = _HDRGM.encode() in (photo.xmp or b"") or _payload(data, found, 0xE2, _ISO) is not None
    starts = [picture.start for picture in jpeg_segments.pictures(data, found)[1 : _MOST_PICTURES + 1]]
    if said and end is not None:  # the index may be wrong or missing
        starts.append(data.find(b"\xff\xd8\xff", end))
    cut_off = False
    for start in dict.fromkeys(starts):
        if start < (end or len(data)) or data[start : start + 3] != b"\xff\xd8\xff":
            continue
        inner, stop = jpeg_segments.segments(data, start)
        meaning = _meaning(data, inner, photo)
        if meaning is None or stop is None:
            cut_off |= stop is None
            continue
        jpeg = _bare(data, inner, start, stop)
        block = _payload(data, inner, 0xE1, b"Exif\0\0")
        if block and _orientation(block) != _orientation(photo.exif):
            raise ValueError("it lies in another orientation than the photo")
        image = _open(jpeg)
        check_size(image.size, size)
        image.load()  # raises where it is damaged
        if image.mode not in ("L", "RGB"):
            raise ValueError("it is neither grey nor RGB")
        if "headroom" in meaning:
            jpeg, meaning = of_apple(np.asarray(image.convert("L")), **meaning)
        return GainMap(jpeg=jpeg, photo_size=size[::-1], photo_profile=photo.icc_profile, **meaning), stop
    if said:
        raise ValueError("it is cut off" if cut_off else "there is none behind the photo, whose metadata speak of one")
    return None, 0


def _payload(data, found, marker, head):
    """What the first segment of that kind holds behind `head`, or None."""
    return next((data[s + len(head) : e] for m, s, e in found if m == marker and data.startswith(head, s)), None)


def _orientation(block):
    try:
        return parse_exif(block).orientation if block else 1
    except ValueError:
        return 1


def _bare(data, found, start, stop):
    """The picture without comments, and of the application segments only those that its colours need."""
    parts, place = [], start
    for marker, begin, end in found:
        kept = marker < 0xE0 or marker in (0xE0, 0xEE) or data.startswith(b"ICC_PROFILE\0", begin)
        if not kept:
            parts.append(data[place : begin - 4])
            place = end
    return b"".join([*parts, data[place:stop]])


def _meaning(data, found, photo):
    """The fields of a [`GainMap`] that a picture's metadata give, the headroom of Apple's, or None for no map."""
    block, packet = _payload(data, found, 0xE2, _ISO), _payload(data, found, 0xE1, _XMP)
    if block is not None and len(block) > 4:
        return _of_iso(block)
    if packet is not None and _HDRGM.encode() in packet:
        return _of_xmp(packet)
    if packet is not None and _APPLE_XMP.encode() in packet:
        return {"headroom": headroom(packet, photo.exif)}
    return None


def _of_iso(block):
    try:
        least, _, flags = struct.unpack_from(">2HB", block)
        if least > 0:
            raise ValueError(f"it needs readers of version {least} of ISO 21496-1")
        channels = 3 if flags & 0x80 else 1
        count, place = 2 + 5 * channels, 5
        if flags & 8:  # one denominator for all
            (below,), above = struct.unpack_from(">L", block, 5), struct.unpack_from(f">{count}i", block, 9)
            pairs = [(number, below) for number in above]
        else:
            pairs = [struct.unpack_from(">iL", block, place + 8 * n) for n in range(count)]
        base, alternate, *rest = (above / below for above, below in pairs)
    except (struct.error, ZeroDivisionError) as error:
        raise ValueError(f"its metadata are damaged: {error}") from error
    if flags & 4:
        raise ValueError("the photo itself is its HDR rendition")
    rows = [tuple(rest[n::5]) for n in range(5)]
    names = ("gain_min", "gain_max", "gamma", "base_offset", "alternate_offset")
    return {"base_headroom": base, "alternate_headroom": alternate, "in_base_colours": bool(flags & 0x40),
            **dict(zip(names, rows, strict=True))}  # fmt: skip


_XMP_NAMES = {"GainMapMin": "gain_min", "GainMapMax": "gain_max", "Gamma": "gamma", "OffsetSDR": "base_offset",
              "OffsetHDR": "alternate_offset", "HDRCapacityMin": "base_headroom",
              "HDRCapacityMax": "alternate_headroom"}  # fmt: skip


def _of_xmp(data):
    packet = xmp.Packet(data, frozenset({_HDRGM}), frozenset((_HDRGM, name) for name in _XMP_NAMES))
    is_hdr = packet.tops((_HDRGM, "BaseRenditionIsHDR"))
    if any((packet.text(node) or "").strip().lower() == "true" for node in is_hdr):
        raise ValueError("the photo itself is its HDR rendition")
    meaning = {}
    for name, ours in _XMP_NAMES.items():
        for node in packet.tops((_HDRGM, name)):
            parts = [part for part in packet.nodes if part.top is node and part.name == (_RDF, "li")] or [node]
            values = tuple(float(packet.text(part) or "nan") for part in parts)
            if len(values) not in (1, 3):
                raise ValueError(f"its {name} holds {len(values)} numbers")
            meaning[ours] = values[0] if ours.endswith("headroom") else values
    if not {"gain_max", "alternate_headroom"} <= meaning.keys():
        raise ValueError("its metadata lack GainMapMax or HDRCapacityMax")
    return meaning


# Apple's own maps: photo (1 + (headroom - 1) linear(v)), as "Applying Apple HDR effect to your photos" has it.


def headroom(packet: bytes | None, exif: bytes | None) -> float:
    """By the XMP of an Apple gain map, or by the maker note of the photo; over the photo's white, not in stops.

    Raises:
        ValueError: neither says.
    """
    if packet:
        parsed = xmp.Packet(packet, frozenset({_APPLE_XMP}))
        for node in parsed.tops((_APPLE_XMP, "HDRGainMapHeadroom")):
            return float(parsed.text(node) or "nan")
    note = parse_exif(exif).photo.get(MAKER_NOTE, (0, b""))[1] if exif else b""
    try:
        if not note.startswith(b"Apple iOS\0"):
            raise ValueError("no maker note of Apple's")
        entries = read_directory(io.BytesIO(note), 14, ">")[0]
        overall, local = (above / below for above, below in (struct.unpack(">2i", entries[n][1]) for n in (33, 48)))
    except (KeyError, ValueError, struct.error, ZeroDivisionError) as error:
        raise ValueError("neither its XMP nor Apple's maker note tells its headroom") from error
    near, far = ((-20.0, 1.8), (-0.101, 1.601)) if overall < 1 else ((-70.0, 3.0), (-0.303, 2.303))
    slope, at = near if local <= 0.01 else far
    return 2.0 ** max(slope * local + at, 0.0)


def of_apple(samples: np.ndarray, headroom: float) -> tuple[bytes, dict]:
    """Apple's map (h,w) uint8 -> the JPEG of one in stops, and the fields of its [`GainMap`]."""
    if not 1 < headroom <= 64:
        raise ValueError(f"its headroom is {headroom:g}")
    v = np.arange(256) / 255
    linear = np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))  # ITU-R BT.709
    stops = math.log2(headroom)
    table = np.rint(255 * np.log2(1 + (headroom - 1) * linear) / stops).astype(np.uint8)
    return encoded(table[samples]), {"gain_max": (stops,), "alternate_headroom": stops, "base_offset": (0.0,),
                                     "alternate_offset": (0.0,)}  # fmt: skip


def of_heic(data: bytes, found: boxes.Items, photo: "Photo", file: Any) -> GainMap | None:
    """Apple's map in a HEIC, upright as pillow-heif's `file`, or None if there is none.

    Raises:
        ValueError: it cannot be used.
        Exception: what the decoder raises.
    """
    for number in file.info.get("aux", {}).get(APPLE, ())[:1]:
        _check_orientation(data, found, number)
        picture = file.get_aux_image(number)
        check_size(picture.size, file.size)
        samples = np.asarray(picture)
        jpeg, meaning = of_apple(samples if samples.ndim == 2 else samples[..., 0],
                                 headroom(boxes.description(data, found, number), photo.exif))  # fmt: skip
        return GainMap(jpeg=jpeg, photo_size=file.size[::-1], photo_profile=photo.icc_profile, **meaning)
    return None


def _check_orientation(data, found, number):
    if boxes.orientation(data, found, number) != boxes.orientation(data, found):
        raise ValueError("it lies in another orientation than the photo")


def of_items(
    data: bytes, found: boxes.Items, photo: "Photo", size: tuple[int, int], decode: Callable[[bytes], np.ndarray]
) -> GainMap | None:
    """The map that a HEIC's or AVIF's item `tmap` (ISO 23008-12) joins with the main picture, or None without one.

    Args:
        data, found: the file and its items.
        photo (`diffretouch.photo.Photo`): with the profile of the file.
        size: width and height of the photo, upright.
        decode: a file -> its main picture (h,w) or (h,w,3), uint8, upright.

    Raises:
        ValueError: it cannot be used.
        Exception: what `decode` raises.
    """
    joined_by = next((number for number, kind in found.kinds.items() if kind == b"tmap"), None)
    if joined_by is None:
        return None
    parts = [to for kind, origin, to in found.references if kind == b"dimg" and origin == joined_by]
    if len(parts) != 2 or parts[0] != found.primary or parts[1] not in found.said:
        raise ValueError("it does not belong to the main picture")
    block = boxes.content(data, found, joined_by)
    if not block or block[0] != 0:
        raise ValueError("its metadata are missing or of a version that is not known")
    meaning = _of_iso(block[1:])
    _check_orientation(data, found, parts[1])
    samples = decode(boxes.with_primary(data, found, parts[1]))
    if samples.ndim == 3 and samples.shape[2] != 3:
        samples = samples[..., 0] if samples.shape[2] < 3 else samples[..., :3]
    check_size(samples.shape[1::-1], size)
    profile = None if meaning["in_base_colours"] else boxes.profile(data, found, joined_by)
    jpeg = encoded(np.ascontiguousarray(samples), profile if samples.ndim == 3 else None)
    return GainMap(jpeg=jpeg, photo_size=size[::-1], photo_profile=photo.icc_profile, **meaning)


# In the file to be: XMP of the photo, its segments, and the map behind it


def announced(packet: bytes | None, length: int) -> bytes:
    """The photo's XMP that says that a map of so many bytes is the next picture in the file."""
    item = '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{}" Item:Mime="image/jpeg"{}/></rdf:li>'
    items = item.format("Primary", "") + item.format("GainMap", f' Item:Length="{length}"')
    container = "http://ns.google.com/photos/1.0/container/"
    names = f'xmlns:hdrgm="{_HDRGM}" xmlns:Container="{container}" xmlns:Item="{container}item/"'
    directory = f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"
    return xmp.with_description(packet, f' {names} hdrgm:Version="1.0">{directory}</rdf:Description>')


def joined(photo: bytes, behind: bytes) -> list[bytes]:
    """The parts of a file of two JPEGs, which names both in its index (CIPA DC-007)."""
    place = next(start - 4 for marker, start, _ in jpeg_segments.segments(photo)[0] if not 0xE0 <= marker <= 0xEF)
    said = _segment(0xE2, _ISO + bytes(4))
    header = place + len(said) + 8  # of the index, from which its offset counts
    whole = len(photo) + len(said) + 90
    entries = struct.pack(">3L2H3L2H", 0x30000, whole, 0, 0, 0, 0, len(behind), whole - header, 0, 0)
    index = b"MM\0*" + struct.pack(">LH", 8, 3) + struct.pack(">2HL4s", 0xB000, 7, 4, b"0100")
    index += struct.pack(">2H2L", 0xB001, 4, 1, 2) + struct.pack(">2H2L", 0xB002, 7, len(entries), 50) + bytes(4)
    return [photo[:place], said, _segment(0xE2, b"MPF\0" + index + entries), photo[place:], behind]
