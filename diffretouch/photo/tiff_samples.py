"""The samples of a TIFF's page as grey, RGB or CMYK with at most one alpha, whatever kind it is stored as."""

from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.colour import linear_to_srgb, srgb_to_linear

from . import apart, embedded, icc
from .exif import Exif

if TYPE_CHECKING:
    from . import Photo

_PALETTE, _YCBCR, _CIELAB, _ICCLAB = 3, 6, 8, 9
_COLOURS = {0: 1, 1: 1, 2: 3, _PALETTE: 1, 5: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3}
_REFUSED = {4: "a mask", 10: "ITU L*a*b* of faxes", 32803: "a sensor's mosaic", 32844: "LogL (high dynamic range)",
            32845: "LogLuv (high dynamic range)", 34892: "a sensor's linear values", 51177: "a depth map",
            52527: "a semantic mask"}  # fmt: skip
_JPEGS = (7, 34892)
_EMBEDDED = {6, *_JPEGS, 22610, *range(33003, 33008), 34712, 34933, 34934, 50001, 50002, 52546}  # whole pictures
_SCIENCE = {48124, 65000, 65001, 65002}  # Jetraw, EER


def check(page: Any, max_pixels: int) -> None:
    """Raises ValueError for what is no photo, or takes more memory than photos of `max_pixels` pixels may."""
    kind, channels = int(page.photometric), page.samplesperpixel
    if kind in _REFUSED or kind not in _COLOURS:
        raise ValueError(f"it holds {_REFUSED.get(kind, 'colours of an unknown kind')} (TIFF photometric {kind})")
    if page.dtype is None or page.dtype.kind not in "buf" and kind not in (_CIELAB, _ICCLAB):
        stored = page.dtype or f"{page.bitspersample} bits, sample format {page.sampleformat}"
        raise ValueError(f"its values are stored as {stored}, which is no photo's")
    if page.imagedepth != 1 or not _COLOURS[kind] <= channels <= 8:
        raise ValueError(f"{channels} channels and depth {page.imagedepth} are no photo of its kind")
    if kind == 5 and "InkSet" in page.tags and page.tags["InkSet"].value != 1:
        raise ValueError("its inks are other than cyan, magenta, yellow and black")
    area = page.imagewidth * page.imagelength
    if page.tilewidth * page.tilelength > max(4 * area, 1 << 22):
        raise ValueError(f"its tiles of {page.tilewidth} x {page.tilelength} pixels are far larger than the picture")
    if page.compression in _EMBEDDED:
        _check_embedded(page)
    if page.compression in _SCIENCE:
        raise ValueError(f"its compression {int(page.compression)} is no photo's")
    size = area * channels * page.dtype.itemsize
    if size > 12 * max_pixels:
        raise ValueError(
            f"it takes {size / 1e9:.1f} GB decoded, more than `max_pixels` = {max_pixels} of RGB in float"
        )


def _check_embedded(page):
    """Pictures that are larger than the strip or tile that they are for would be decoded whole."""
    most = max(
        page.tilewidth * page.tilelength, page.imagewidth * page.imagelength if not page.is_tiled else 0, 1 << 16
    )
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        width, height = embedded.largest(file.read(min(count, 1 << 16)))
        if width * height > 2 * most:
            raise ValueError(f"it holds a picture of {width} x {height} pixels, larger than itself")


def take_chromaticities(photo: "Photo", exif: Exif) -> None:
    """The profile by the tags WhitePoint and PrimaryChromaticities of a TIFF that has none; its curve is sRGB's."""
    white, primaries, curve = (exif.image.get(tag, (0, b""))[1] for tag in (318, 319, 301))
    if white or primaries:
        try:
            points = [
                [one / other for one, other in np.frombuffer(payload, exif.order + "u4").reshape(count, 2).tolist()]
                if payload
                else default
                for payload, count, default in ((white, 2, (0.3127, 0.3290)), (primaries, 6, icc.PRIMARIES[1]))
            ]
            photo.icc_profile = icc.tiff_profile(*points)
        except (ValueError, ArithmeticError) as error:
            photo.note(f"Its white point and primaries were not used ({error}); its colours are taken as sRGB.")
    if photo.icc_profile:
        photo.note("Its colours are those of its white point and primaries; it is saved with a profile of them.")
    if curve and not _is_usual(curve, exif.order):
        photo.note("Its transfer function was not used; its tones are taken as sRGB's.")


def _is_usual(curve, order):
    """Whether a TransferFunction is near sRGB's."""
    size = len(curve) // 2
    tables = np.frombuffer(curve[: 2 * size], order + "u2").reshape(3 if size % 3 == 0 else 1, -1) / 65535
    return bool(np.abs(tables - srgb_to_linear(np.linspace(0, 1, tables.shape[1]))).max() < 0.02)


def read(photo: "Photo", page: Any) -> tuple[np.ndarray, float, int]:
    """-> samples (H,W,C), the value of full intensity, number of colours."""
    kind = int(page.photometric)
    if kind == _YCBCR and page.compression not in _JPEGS:
        return _by_libtiff(photo, page)
    colours = _COLOURS[kind]
    channels, premultiplied = _channels(page, colours)
    if page.samplesperpixel > len(channels):
        photo.note("Further channels that are no alpha were not carried.")
    samples = _decoded(page, channels)
    if kind == _PALETTE:
        return _from_palette(page, samples), 255, 3
    if kind in (_CIELAB, _ICCLAB):
        return _from_lab(photo, samples, kind)
    peak = 1.0 if page.dtype.kind in "bf" else float(2**page.bitspersample - 1)
    if page.dtype.kind == "f" and photo.icc_profile is None:
        photo.note("A float file without a profile: its values are taken as sRGB, not as linear light.")
    if peak > 65535:
        photo.note("32-bit whole numbers became float.")
    if page.dtype.kind == "f" or peak > 65535:
        samples = samples.astype(np.float32)
    if premultiplied:
        photo.note("Its colours were multiplied by alpha; they no longer are.")
        samples = divided_by_alpha(samples, peak)
    if kind == 0:  # white is zero
        inverted = samples[..., :1]
        inverted = ~inverted if samples.dtype.kind == "b" else (peak - inverted).astype(samples.dtype)
        samples = np.concatenate([inverted, samples[..., 1:]], 2)
    return samples, peak, colours


def _channels(page, colours):
    """The colours and the first of the further channels that is alpha -> their numbers, whether multiplied by it."""
    further = [int(kind) for kind in page.extrasamples]
    found = next((place for place, kind in enumerate(further) if kind in (1, 2)), None)
    if found is None:
        return [*range(colours)], False
    return [*range(colours), colours + found], further[found] == 1


def _decoded(page, channels):
    """(H,W,C) of these channels; strip by strip where there are others, or doubles, for the sake of memory."""
    if page.samplesperpixel == len(channels) and page.dtype.itemsize < 8:
        samples = page.asarray()
        return np.moveaxis(samples, 0, 2) if page.axes == "SYX" else np.atleast_3d(samples)
    kind = np.float32 if page.dtype == np.float64 else page.dtype
    samples = np.zeros((page.imagelength, page.imagewidth, len(channels)), kind)
    for part, (plane, _, top, left, _), shape in page.segments(maxworkers=1):
        planes = channels if page.planarconfig == 1 else [plane] if plane in channels else []
        if part is None or not planes:
            continue
        rows, columns = min(shape[1], len(samples) - top), min(shape[2], samples.shape[1] - left)
        part = part[0, :rows, :columns]
        for n in planes:
            samples[top : top + rows, left : left + columns, channels.index(n)] = part[
                ..., n if part.shape[2] > 1 else 0
            ]
    return samples


def divided_by_alpha(samples: np.ndarray, peak: float) -> np.ndarray:
    """Samples whose colours were multiplied by the last channel, as they were before."""
    alpha = samples[..., -1:].astype(np.float32)
    plain = np.divide(samples[..., :-1] * np.float32(peak), alpha, where=alpha > 0,
                      out=np.zeros((*samples.shape[:2], samples.shape[2] - 1), np.float32))  # fmt: skip
    plain = plain if samples.dtype.kind == "f" else np.rint(plain).clip(0, peak)
    return np.concatenate([plain, alpha], 2).astype(samples.dtype)


def _from_palette(page, samples):
    """The colours that the samples count, 8 bits."""
    colours = np.asarray(page.colormap, np.uint16).T
    if colours.max() >= 256:  # else a program wrote 8 bits, as libtiff also understands
        colours = colours >> 8
    index = samples[..., 0].astype(np.intp)
    if index.max(initial=0) >= len(colours):
        raise ValueError("it counts colours that its palette lacks")
    pixels = colours.astype(np.uint8)[index]
    if samples.shape[2] == 1:
        return pixels
    alpha = samples[..., 1:].astype(np.float32) * (255 / (2**page.bitspersample - 1))
    return np.concatenate([pixels, np.rint(alpha).astype(np.uint8)], 2)


_LAB_TO_XYZ_D50 = np.array([0.96422, 1.0, 0.82521], np.float32)
_XYZ_D50_TO_SRGB = np.array([[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540],
                             [0.0719453, -0.2289914, 1.4052427]], np.float32)  # Bradford; Lindbloom  # fmt: skip


def _from_lab(photo, samples, kind):
    """CIE L*a*b* of TIFF 6.0 (a and b have signs) or of ICC (a and b count from -128) -> sRGB of as many bits."""
    bits = 8 * samples.dtype.itemsize
    if bits not in (8, 16) or samples.dtype.kind == "f":
        raise ValueError(f"L*a*b* of {bits} bits is not read")
    photo.icc_profile = None
    photo.note("Converted from L*a*b*; it is saved as sRGB.")
    unsigned = samples.view(f"u{bits // 8}")
    out = unsigned.copy()
    step, peak = 2 ** (bits - 8), float(2**bits - 1)
    for n, rows in enumerate(unsigned):
        lightness = rows[:, 0] / np.float32(652.8 if kind == _ICCLAB and bits == 16 else peak / 100)
        chroma = rows[:, 1:3] if kind == _ICCLAB else rows[:, 1:3].view(f"i{bits // 8}")
        chroma = chroma.astype(np.float32) / step - (128 if kind == _ICCLAB else 0)
        y = (lightness + 16) / 116
        f = np.stack([y + chroma[:, 0] / 500, y, y - chroma[:, 1] / 200], 1)
        xyz = np.where(f > 6 / 29, f**3, (116 * f - 16) * (27 / 24389)) * _LAB_TO_XYZ_D50
        out[n, :, :3] = np.rint(linear_to_srgb(xyz @ _XYZ_D50_TO_SRGB.T).clip(0, 1) * peak)
    return out, peak, 3


def _by_libtiff(photo, page):
    """YCbCr, whose colours may be stored for blocks of pixels, as libtiff shows it: 8 bits."""
    samples = apart.decode("tiff_decode", photo.path, index=page.index, asrgb=True)
    if samples.shape[:2] != (page.imagelength, page.imagewidth):
        raise ValueError(f"libtiff cannot decode its YCbCr to {page.imagewidth} x {page.imagelength} pixels")
    return samples[..., :3], 255, 3
