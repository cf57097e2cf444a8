"""Photo files in and out (JPEG, PNG, TIFF, WebP, AVIF, JPEG XL; HEIC and RAW in): nothing is lost in silence."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import decoders, encoders, high_range, icc, metadata, xmp
from .gain_map import GainMap
from .orientation import turn


class PhotoError(ValueError):
    """A photo file cannot be read: one sentence with its path and the reason."""


@dataclass(eq=False)
class Photo:
    """A photo and what its file carried.

    Attributes:
        pixels: (H,W,3) float32, sRGB in [0,1], upright. Colours outside the sRGB gamut and the values of float files
            may leave [0,1]; `save_photo` brings them back into the file's own profile.
        alpha: (H,W) float32 in [0,1], or None. The pixels are not multiplied by it.
        bit_depth: 8, 16 (also for 10 to 14 bits) or 32 (float).
        grey: the file had one channel; `pixels` repeats it three times.
        format: "JPEG", "PNG", "TIFF", "WebP", "AVIF", "JPEG XL", "HEIC" or "RAW": what the file is, whatever its
            suffix says.
        exif: EXIF block (a TIFF header and directories), of an upright photo and without thumbnail, or None.
        icc_profile: the profile that `save_photo` converts back to; None means sRGB.
        codes: (H,W,C) the file's own values, kept where `pixels` do not lead back to them exactly (16 bits in another
            profile than sRGB): `save_photo` writes them where the pixels did not change. Or None.
        xmp, iptc: XMP packet and IPTC-IIM records, or None.
        xmp_extension: of a JPEG, the rest of XMP that is too long for one segment, or None.
        photoshop: Photoshop's image resources (copyright mark, URL, paths, ...) except IPTC, or None.
        text: text chunks of a PNG, comment of a JPEG; several of one name are joined by a line's end.
        time: when a PNG was changed, as its chunk tIME says, or None.
        dpi: horizontal and vertical, or None.
        lossless: a WebP or JPEG XL without loss: `save_photo` writes these so again.
        jpeg: quantisation tables, subsampling and progression of a JPEG as Pillow's `save` takes them, or None.
        gain_map: the `gain_map.GainMap` that makes the photo brighter on displays of high range, or None. `save_photo`
            writes it into a JPEG as it is, so that the HDR rendition follows the retouch.
        high_range: code points (ITU-T H.273) of primaries and transfer of a file in PQ or HLG, whose pixels were
            tone-mapped; else None.
        decoded_upright: how the file stored a picture that its decoder has turned (HEIC, RAW): 1 to 8; else None.
        notes: sentences on what was changed or not carried.
    """

    pixels: np.ndarray = field(repr=False)
    alpha: np.ndarray | None = field(default=None, repr=False)
    bit_depth: int = 8
    grey: bool = False
    path: Path | None = None
    format: str | None = None
    exif: bytes | None = field(default=None, repr=False)
    icc_profile: bytes | None = field(default=None, repr=False)
    codes: np.ndarray | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)
    xmp_extension: bytes | None = field(default=None, repr=False)
    iptc: bytes | None = field(default=None, repr=False)
    photoshop: bytes | None = field(default=None, repr=False)
    text: dict[str, str] = field(default_factory=dict, repr=False)
    time: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    lossless: bool = False
    jpeg: dict | None = field(default=None, repr=False)
    gain_map: GainMap | None = field(default=None, repr=False)
    high_range: tuple[int, int] | None = None
    decoded_upright: int | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str | None:
        """What `save_photo` wrote into the file as `description`, or None."""
        return xmp.description(self.xmp)

    def note(self, sentence: str) -> None:
        self.notes += (sentence,)


def load_photo(path: str | os.PathLike[str], *, max_pixels: int = 300_000_000) -> Photo:
    """Read a photo file.

    The photo is turned upright, its colours are converted to sRGB by its ICC profile (in float, not clipped), and what
    stands beside the pixels is kept for `save_photo`. `notes` says what was changed or not carried: of several frames
    the first is used, grey becomes RGB, CMYK is converted for good, PQ and HLG are tone-mapped.

    Args:
        path (`str` or `os.PathLike`): JPEG, PNG, TIFF, WebP, AVIF, JPEG XL; HEIC with the extra `heic`, RAW with
            `raw`.
        max_pixels (`int`): larger files are refused before they are decoded.

    Raises:
        PhotoError: the file cannot be read, or not without guessing: it is missing, broken, too large, of another
            kind, or has values that are not finite.
    """
    return read_photo(path, max_pixels)


def read_photo(path: str | os.PathLike[str], max_pixels: int = 300_000_000, *, keep_8_bits: bool = False) -> Photo:
    """`load_photo` that, if `keep_8_bits`, leaves 8 bits in sRGB as they are: `pixels` are uint8 then, and writeable.

    For what takes integers: floats are four times as large. All else becomes float32 in [0,1] in any case.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise ValueError(f"`max_pixels` must be a whole number of at least 1, got {max_pixels!r}.")
    photo = Photo(pixels=np.empty((0, 0, 3), np.float32), path=Path(path))
    try:
        samples, peak, colours = decoders.read(photo, max_pixels)
        photo.bit_depth, photo.grey = {1: 8, 2: 16, 4: 32}[samples.dtype.itemsize], colours == 1
        stored = metadata.clean(photo, samples.shape[1::-1])
        samples = turn(samples, stored)
        photo.gain_map = photo.gain_map and photo.gain_map.turned(stored)
        if photo.bit_depth == 32 and not np.isfinite(samples).all():
            raise ValueError("it holds values that are not finite (NaN or infinite)")
        if samples.shape[2] > colours:
            photo.alpha = np.divide(samples[..., colours], peak, dtype=np.float32)
        photo.pixels = _to_srgb(photo, samples[..., :colours], peak, keep_8_bits)
        if photo.icc_profile and photo.bit_depth == 16 and peak == 65535 and not icc.is_srgb(photo.icc_profile):
            photo.codes = np.ascontiguousarray(samples[..., :colours])
    except MemoryError as error:
        raise PhotoError(f"{str(path)!r} cannot be read: there is not enough memory for it.") from error
    except Exception as error:  # decoders raise whatever they like on broken files
        kind = f" as {photo.format}" if photo.format else ""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if not isinstance(error, (ValueError, OSError, RuntimeError)):  # as "index out of range"
            reason = f"its structure is damaged ({reason})"
        raise PhotoError(f"{str(path)!r} cannot be read{kind}: {reason.rstrip('.')}.") from error
    return photo


def _tone_mapped(photo, samples, peak):
    """(H,W,1|3) of a file in PQ or HLG -> (H,W,3) sRGB."""
    primaries, transfer = photo.high_range
    values = np.divide(np.repeat(samples, 3, 2) if samples.shape[2] == 1 else samples, peak, dtype=np.float32)
    name = "PQ" if transfer == high_range.PQ else "HLG"
    photo.note(f"Its high dynamic range ({name}) was tone-mapped to sRGB by ITU-R BT.2390, with white at 203 cd/m² "
               "(BT.2408); it is saved so.")  # fmt: skip
    return high_range.to_srgb(values, transfer, icc.primaries_to_srgb(primaries))


def _to_srgb(photo, samples, peak, keep_8_bits):
    """(H,W,1|3|4) in the file's colours -> (H,W,3) sRGB; keeps the profile only where it leads back."""
    if photo.high_range and not photo.icc_profile:
        return _tone_mapped(photo, samples, peak)
    profile, photo.icc_profile = photo.icc_profile, None
    channels = samples.shape[2]
    if channels == 1:
        photo.note("Grey became RGB; JPEG, PNG and TIFF are saved as grey again if it stays neutral.")
    if profile:
        try:
            if channels == 1 and icc.profile_channels(profile) == 3:
                samples, channels = np.repeat(samples, 3, 2), 3
            if icc.is_srgb(profile):
                photo.icc_profile = None if photo.grey else profile
                return _unconverted(samples, peak, keep_8_bits)
            back = channels < 4 and icc.leads_back(profile)
            if channels == 3 and not back and samples.dtype == np.uint8 and peak == 255:
                _halve_tables(photo)
                photo.note("Converted from a profile whose way back leads elsewhere; it is saved as sRGB.")
                return _unconverted(icc.as_shown(samples, profile), peak, keep_8_bits)
            pixels = np.divide(samples, peak, dtype=np.float32)
            converted = icc.to_srgb(pixels, profile)
            if photo.grey and np.ptp(converted, axis=2).max() < 1e-3:  # rounded white points tint greys
                converted = np.repeat(converted[..., 1:2], 3, 2)
            if back:
                photo.icc_profile = profile
            else:
                _halve_tables(photo)
                kind = "CMYK" if channels == 4 else "a profile whose way back leads elsewhere"
                photo.note(f"Converted from {kind}; it is saved as sRGB.")
            if photo.bit_depth == 32 and (pixels.min() < 0 or pixels.max() > 1) and icc.is_bounded(profile):
                photo.note("Its profile knows no values outside [0,1]: they were clipped.")
            return converted
        except ValueError as error:
            photo.note(f"Its ICC profile was not used ({error}); its colours are taken as they are.")
    if channels == 4:
        photo.note("CMYK without a usable profile was converted by the plain formula; it is saved as sRGB.")
        pixels = np.divide(samples, peak, dtype=np.float32)
        return (1 - pixels[..., :3]) * (1 - pixels[..., 3:])
    return _unconverted(np.repeat(samples, 3, 2) if channels == 1 else samples, peak, keep_8_bits)


def _halve_tables(photo):
    """Other colours fall between the levels that a JPEG was rounded to: the same tables would round as much again."""
    if photo.jpeg:
        photo.jpeg["qtables"] = [[(level + 1) // 2 for level in table] for table in photo.jpeg["qtables"]]


def _unconverted(samples, peak, keep_8_bits):
    """(H,W,3) sRGB samples -> themselves, contiguous and writeable, if 8 bits are kept; else float32."""
    if keep_8_bits and samples.dtype == np.uint8 and peak == 255:
        return np.require(samples, requirements="CW")
    return np.divide(samples, peak, dtype=np.float32)


def save_photo(
    photo: Photo | np.ndarray, path: str | os.PathLike[str], *, like: Photo | None = None, overwrite: bool = False,
    bit_depth: int | None = None, quality: int | None = None, dither: bool = False,
    background: Sequence[float] | None = None, keep_profile: bool = True, keep_metadata: bool = True,
    description: str | None = None,
) -> None:  # fmt: skip
    """Write a photo file, whole or not at all.

    Values are rounded; those outside [0,1] of the file's colours end at 0 and 1 (float TIFF keeps them). A grey photo
    that stayed neutral is written as grey again. What the format cannot hold is named in a warning.

    Args:
        photo (`Photo` or array): an array is (H,W,3) sRGB: floats in [0,1], uint8 or uint16. So is a PIL image in RGB.
        path (`str` or `os.PathLike`): ends in .jpg, .png, .tif, .webp, .avif or .jxl.
        like (`Photo`, *optional*): whose alpha, bit depth, profile, metadata and JPEG settings are used; by default
            those of `photo` itself.
        overwrite (`bool`): replace an existing file.
        bit_depth (8, 16 or 32, *optional*): by default that of `like` (without: 16 for uint16, else 8). TIFF holds all
            three (32 is float), PNG and JPEG XL 8 and 16, the others 8.
        quality (1 to 100, *optional*): of JPEG (default: tables and subsampling of the source JPEG, else 95 and
            4:4:4), WebP and JPEG XL (default 90, or as the source; 100 is lossless) and AVIF (default 90; from 90
            on 4:4:4).
        dither (`bool`): noise of one level before rounding, against banding; always the same noise.
        background (three numbers in [0,1], *optional*): sRGB colour to lay transparent parts on. JPEG has no alpha and
            needs it.
        keep_profile (`bool`): convert back into the colours of the source file; False writes sRGB.
        keep_metadata (`bool`): carry EXIF, XMP, IPTC, text and dpi, and name diffretouch in the EXIF tag Software.
        description (`str`, *optional*): what was done; goes into XMP and comes back as `load_photo(path).description`.

    Raises:
        ValueError: an argument does not fit the photo, the format or the file that is there.
        OSError: the file cannot be written. Nothing is left behind.
    """
    path = Path(path)
    lost = write_photo(
        photo, path, like=like, overwrite=overwrite, bit_depth=bit_depth, quality=quality, dither=dither,
        background=background, keep_profile=keep_profile, keep_metadata=keep_metadata, description=description,
    )  # fmt: skip
    if lost:
        kind = encoders.SUFFIXES[path.suffix.lower()]
        warnings.warn(f"{str(path)!r}: {kind} could not hold {', '.join(lost)}.", stacklevel=2)


def write_photo(
    photo: Photo | np.ndarray, path: str | os.PathLike[str], *, like: Photo | None = None, overwrite: bool = False,
    bit_depth: int | None = None, quality: int | None = None, dither: bool = False,
    background: Sequence[float] | None = None, keep_profile: bool = True, keep_metadata: bool = True,
    description: str | None = None,
) -> list[str]:  # fmt: skip
    """`save_photo` that returns the names of what the format could not hold instead of warning: for threads."""
    path = Path(path)
    pixels, source = _pixels_and_source(photo, like)
    bit_depth = source.bit_depth if bit_depth is None else bit_depth
    kind = check_write(path, pixels.shape, source, overwrite=overwrite, bit_depth=bit_depth, quality=quality,
                       background=background)  # fmt: skip
    alpha = source.alpha
    if alpha is not None and alpha.shape != pixels.shape[:2]:
        raise ValueError(f"`photo` must be as large as the alpha of its source {alpha.shape}, got {pixels.shape[:2]}.")
    if dither or background is not None or 8 * pixels.itemsize != bit_depth:
        pixels = _as_float(pixels)  # else integers are the codes already, if no profile changes them
    if background is not None:
        pixels, alpha = _on_background(pixels, alpha, background), None
    if kind == "JPEG":
        alpha = None
    values, profile = _to_file_colours(pixels, source, kind, bit_depth, keep_profile)
    if alpha is not None:
        values = np.concatenate([_as_float(values), alpha[..., None]], 2)
    codes = encoders.quantise(values, bit_depth, dither)
    if source.codes is not None and bit_depth == 16 and profile is source.icc_profile:
        _restore_unchanged(codes, pixels, source)
    if quality is None and kind in ("WebP", "JPEG XL") and source.lossless:
        quality = 100
    carried = metadata.carried(source if keep_metadata else None, pixels.shape, profile, description)
    with encoders.new_file(path, overwrite) as file:
        lost = encoders.write(kind, file, codes, carried, quality=quality, jpeg=source.jpeg,
                              gain_map=source.gain_map)  # fmt: skip
    return lost


def check_write(
    path: str | os.PathLike[str], shape: Sequence[int], source: Photo, *, overwrite: bool = False,
    bit_depth: int | None = 8, quality: int | None = None, background: Sequence[float] | None = None,
) -> str:  # fmt: skip
    """What `write_photo` asks of a file to be, before there are pixels for it -> its format.

    Args:
        path (`str` or `os.PathLike`), overwrite, bit_depth, quality, background: see `save_photo`.
        shape: height and width of what will be written.
        source ([`Photo`]): whose alpha is carried.

    Raises:
        ValueError: the file cannot be written so.
    """
    path = Path(path)
    kind = encoders.SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"`path` must end in {', '.join(encoders.SUFFIXES)}, got {str(path)!r}.")
    if not overwrite and os.path.lexists(path):
        raise ValueError(f"`overwrite` is False and {str(path)!r} exists.")
    if bit_depth not in encoders.DEPTHS[kind]:
        depths = " or ".join(map(str, encoders.DEPTHS[kind]))
        raise ValueError(f"`bit_depth` must be {depths} for {kind}, got {bit_depth!r}: name it, or save as PNG "
                         "or JPEG XL (8, 16) or TIFF (8, 16, 32).")  # fmt: skip
    longest = encoders.LONGEST_SIDE.get(kind)
    if longest and max(shape[:2]) > longest:
        raise ValueError(f"`path`: {kind} holds at most {longest} pixels a side, got {tuple(shape[:2])}.")
    if quality is not None and kind in ("PNG", "TIFF"):
        raise ValueError(
            f"`quality` is for JPEG, WebP, AVIF and JPEG XL, got {quality!r} for {kind}, which is lossless."
        )
    if quality is not None and (isinstance(quality, bool) or quality not in range(1, 101)):
        raise ValueError(f"`quality` must be a whole number from 1 to 100, got {quality!r}.")
    if kind == "JPEG" and background is None and source.alpha is not None and source.alpha.min() < 1:
        raise ValueError("`background` must name a colour, such as (1, 1, 1), because JPEG cannot hold the photo's "
                         "alpha. PNG, TIFF, WebP, AVIF and JPEG XL can.")  # fmt: skip
    return kind


def _restore_unchanged(codes, pixels, source):
    """The file's own values where the pixels are (to a quarter of a level of 16 bits) what they were read as."""
    colours, channels = source.codes.shape[2], icc.profile_channels(source.icc_profile)
    if source.codes.shape != (*pixels.shape[:2], colours) or codes.shape[2] not in (colours, colours + 1):
        return
    rows = max(1, (1 << 20) // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        strip = slice(start, start + rows)
        read = np.divide(source.codes[strip], 65535, dtype=np.float32)
        read = icc.to_srgb(read if colours == channels else np.repeat(read, channels, 2), source.icc_profile)
        same = (np.abs(read - _as_float(pixels[strip])) < 4e-6).all(2, keepdims=True)
        np.copyto(codes[strip, :, :colours], source.codes[strip], where=same)


def _pixels_and_source(photo, like):
    """-> pixels (H,W,3) float32, uint8 or uint16, and the photo whose metadata is used."""
    if like is not None and not isinstance(like, Photo):
        raise TypeError(f"`like` must be a Photo, got {type(like).__name__}.")
    pixels = np.asarray(photo.pixels if isinstance(photo, Photo) else photo)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"`photo` must be (H,W,3), got {pixels.shape}.")
    if pixels.dtype.kind != "f" and pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"`photo` must hold floats, uint8 or uint16, got {pixels.dtype}.")
    source = like or photo
    if not isinstance(source, Photo):
        source = Photo(pixels, bit_depth=16 if pixels.dtype == np.uint16 else 8)
    if pixels.dtype.kind == "u":
        return pixels, source
    if not np.isfinite(pixels).all():
        raise ValueError("`photo` must be finite, got NaN or infinite values.")
    return pixels.astype(np.float32, copy=False), source


def _as_float(pixels):
    """Integers or float32 -> float32 in [0,1]."""
    return pixels if pixels.dtype.kind == "f" else np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=np.float32)


def _on_background(pixels, alpha, background):
    colour = np.asarray(background, np.float32)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 1)).all():
        raise ValueError(f"`background` must be three numbers in [0,1], got {background!r}.")
    return pixels if alpha is None else pixels * alpha[..., None] + colour * (1 - alpha[..., None])


def _to_file_colours(pixels, source, kind, bit_depth, keep_profile):
    """-> values (H,W,1 or 3) in the colours of the file to be, and the profile to embed (None for untagged grey).

    Values that need no conversion stay integers where they are.
    """
    profile = source.icc_profile if keep_profile else None
    channels = icc.profile_channels(profile) if profile else 3
    half_level = 0.5 / (2 ** min(bit_depth, 16) - 1)
    grey = source.grey and kind in ("JPEG", "PNG", "TIFF", "JPEG XL") and np.ptp(pixels, axis=2).max() < half_level
    if grey and profile and channels == 3 and kind in ("JPEG", "TIFF"):  # as it came; others want grey profiles
        values = pixels if icc.is_srgb(profile) else icc.from_srgb(_as_float(pixels), profile)
        return values[..., 1:2], profile
    if grey:
        return (icc.from_srgb(_as_float(pixels), profile), profile) if channels == 1 else (pixels[..., 1:2], None)
    if profile is None or channels == 1:
        return pixels, icc.srgb_profile()
    return pixels if icc.is_srgb(profile) else icc.from_srgb(_as_float(pixels), profile), profile
