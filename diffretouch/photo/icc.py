"""ICC profiles: the colours of a file as sRGB and back, in float, through LittleCMS.

sRGB values may leave [0,1]: that is how colours outside its gamut are kept. The curve is mirrored for negative values
(as in CSS Color 4 and scRGB), so that they stay small. Relative colorimetric; black point compensation for CMYK.

A trip to sRGB and back is exact for 8 bits. For 16 bits, a channel near 0 beside a bright one may move by up to about
40 of 65535 (float32 cannot tell such colours apart), and dark tones by up to 15 where a profile's curves are tables.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from diffretouch.colour import linear_to_srgb, srgb_to_linear

_CHANNELS = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}
_PHOTO_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_D65 = [0.3127, 0.3290, 1.0]
_SRGB_PRIMARIES = [0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0]
_ROWS = 1 << 20  # pixels that are converted at a time


def _undated(profile):
    """The profile without its time of creation and identifier, so that equal photos make equal files."""
    return profile[:24] + bytes(12) + profile[36:84] + bytes(16) + profile[100:]


@cache
def srgb_profile() -> bytes:
    from imagecodecs import cms_profile

    return _undated(cms_profile("srgb"))


@cache
def adobe_rgb_profile() -> bytes:
    from imagecodecs import cms_profile

    return _undated(cms_profile("adobergb"))


@cache
def _linear_srgb():
    from imagecodecs import cms_profile

    return cms_profile("rgb", whitepoint=_D65, primaries=_SRGB_PRIMARIES, gamma=1.0)


# ITU-T H.273: chromaticities of red, green, blue; white is D65 where none follows
PRIMARIES = {1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
              5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06), 6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
              8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
              9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046), 11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
              12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06), 22: (0.63, 0.34, 0.295, 0.605, 0.155, 0.077)}  # fmt: skip
PRIMARIES |= {2: PRIMARIES[1], 7: PRIMARIES[6]}
_TELEVISION = (1, 2, 5, 6, 7)  # primaries that viewers show as sRGB's
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_LIKE_SRGB = (1, 2, 6, 7, 11, 12, 13, 14, 15)  # sRGB, and the television curves, which viewers show as that


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile for the colour code points of AVIF, HEIC and PNG (ITU-T H.273), None for sRGB and what is near it.

    Raises:
        ValueError: a high dynamic range, which has no place in [0,1], or code points that are not known here.
    """
    if transfer in (16, 18):
        raise ValueError(f"its tones are {'PQ' if transfer == 16 else 'HLG'} (high dynamic range)")
    if primaries not in PRIMARIES:
        raise ValueError(f"colour primaries {primaries} (ITU-T H.273) are not supported")
    if transfer not in _GAMMAS and transfer not in _LIKE_SRGB:
        raise ValueError(f"transfer characteristics {transfer} (ITU-T H.273) are not supported")
    if transfer in _LIKE_SRGB and primaries in _TELEVISION:
        return None
    points = PRIMARIES[1 if primaries in _TELEVISION else primaries]
    return chromatic_profile(points[:6], points[6:] or (0.3127, 0.3290), _GAMMAS.get(transfer))


def primaries_to_srgb(primaries: int) -> np.ndarray:
    """(3,3): linear light of an H.273 code point of primaries with the white D65 -> linear sRGB.

    Raises:
        ValueError: it is not known here, or has another white.
    """

    def matrix(points):
        x, y = np.reshape(points, (3, 2)).T
        columns = np.stack([x / y, np.ones(3), (1 - x - y) / y])
        white = np.array([_D65[0] / _D65[1], 1, (1 - _D65[0] - _D65[1]) / _D65[1]])
        return columns * np.linalg.solve(columns, white)

    if len(PRIMARIES.get(primaries, ())) != 6:
        raise ValueError(f"colour primaries {primaries} (ITU-T H.273) are not supported")
    return np.linalg.solve(matrix(PRIMARIES[1]), matrix(PRIMARIES[primaries]))


def chromatic_profile(
    primaries: Sequence[float] | np.ndarray, white: Sequence[float] | np.ndarray, gamma: float | None
) -> bytes:
    """A profile from chromaticities (x and y of red, green, blue; of white) and a gamma; None is sRGB's curve.

    Raises:
        ValueError: no colours can have these numbers.
    """
    from imagecodecs import CmsError, cms_profile

    x, y = np.reshape(np.asarray(primaries, np.float64), (3, 2)).T
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    if abs(area) < 1e-3 or min(white) <= 0 or max(map(abs, (*primaries, *white))) > 2 or not 0.1 <= (gamma or 1) <= 10:
        raise ValueError("no colours can have these chromaticities or this gamma")
    table = srgb_to_linear(np.linspace(0, 1, 1024)).astype(np.float32)
    curve = {"gamma": gamma} if gamma else {"transferfunction": table}
    triples = [value for pair in zip(x, y, strict=True) for value in (*pair, 1.0)]
    try:
        return _undated(cms_profile("rgb", whitepoint=[*white, 1.0], primaries=triples, **curve))
    except CmsError as error:
        raise ValueError(f"LittleCMS cannot use them ({error})") from error


def tiff_profile(white: Sequence[float], primaries: Sequence[float]) -> bytes | None:
    """The profile of a TIFF's tags WhitePoint and PrimaryChromaticities with sRGB's curve, None for sRGB.

    Raises:
        ValueError: no colours can have these numbers.
    """
    return None if _is_near_srgb(white, primaries) else chromatic_profile(primaries, white, None)


def _is_near_srgb(white, primaries):
    return np.abs(np.array([*white, *primaries]) - [*_D65[:2], *PRIMARIES[1]]).max() < 0.002


def png_profile(gama: bytes | None, chrm: bytes | None) -> bytes | None:
    """The profile that a PNG's chunks gAMA and cHRM describe, None for sRGB (to 0.01 in gamma, 0.002 in points).

    Raises:
        ValueError: no colours can have these numbers.
    """
    gamma = int.from_bytes(gama, "big") / 1e5 if gama else None
    points = np.frombuffer(chrm, ">u4") / 1e5 if chrm else np.array([*_D65[:2], *PRIMARIES[1]])
    if gama and (len(gama) != 4 or not gamma) or len(points) != 8:
        raise ValueError("they are damaged")
    usual = gamma is None or abs(gamma - 1 / 2.2) < 0.01
    if usual and _is_near_srgb(points[:2], points[2:]):
        return None
    if usual and gamma is not None and chrm is None:
        return None
    return chromatic_profile(points[2:], points[:2], 1 / gamma if gamma else None)


def profile_channels(profile: bytes) -> int:
    """1 for a grey profile, 3 for RGB, 4 for CMYK. Raises ValueError for any other and for bytes that are none."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise ValueError("no ICC profile")
    if profile[12:16] not in _PHOTO_CLASSES or profile[16:20] not in _CHANNELS:
        raise ValueError(f"of class {_text(profile[12:16])} for {_text(profile[16:20])} data")
    return _CHANNELS[profile[16:20]]


def _text(signature):
    return signature.decode("ascii", "replace").strip()


def _transform(pixels, source, target, from_channels, to_channels):
    """(H,W,C) float32 -> (H,W,C') float32, in strips."""
    from imagecodecs import CMS, CmsError, cms_transform

    spaces = {1: "gray", 3: "rgb", 4: "cmyk"}
    if from_channels == 4:  # LittleCMS counts float inks up to 100
        pixels = np.rint(pixels * 65535).astype(np.uint16)
    try:
        return cms_transform(
            pixels[..., 0] if from_channels == 1 else pixels,
            source,
            target,
            colorspace=spaces[from_channels],
            outcolorspace=spaces[to_channels],
            outdtype="float32",
            intent=CMS.INTENT.RELATIVE_COLORIMETRIC,
            flags=CMS.FLAGS.BLACKPOINTCOMPENSATION if from_channels == 4 else None,
        ).reshape(*pixels.shape[:2], to_channels)
    except CmsError as error:
        raise ValueError(f"LittleCMS cannot use it ({error})") from error


def _in_strips(function, pixels, channels, dtype=np.float32):
    rows = max(1, _ROWS // pixels.shape[1])
    out = np.empty((*pixels.shape[:2], channels), dtype)
    for start in range(0, len(pixels), rows):
        out[start : start + rows] = function(pixels[start : start + rows])
    return out


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """(H,W,C) in the profile's encoding, [0,1] -> (H,W,3) sRGB float32, not clipped.

    Raises:
        ValueError: the profile is damaged or for another number of channels.
    """
    channels = profile_channels(profile)
    if channels != pixels.shape[2]:
        raise ValueError(f"for {channels} channels, not {pixels.shape[2]}")

    def strip(rows):
        linear = _transform(rows, profile, _linear_srgb(), channels, 3)
        # Rounded white points tint greys by 1e-5: a grey photo stays exactly grey.
        return linear_to_srgb(np.repeat(linear[..., 1:2], 3, 2) if channels == 1 else linear)

    return _in_strips(strip, pixels, 3)


def as_shown(samples: np.ndarray, profile: bytes) -> np.ndarray:
    """(H,W,3) uint8 in the profile's encoding -> (H,W,3) uint8 sRGB: level for level what viewers show.

    For profiles that do not lead back: what is beyond sRGB is lost anyway, and LittleCMS's way for 8 bits, which all
    viewers take, differs near the gamut's edge by up to 8 levels from its way for floats.

    Raises:
        ValueError: the profile is damaged.
    """
    from imagecodecs import CMS, CmsError, cms_transform

    intent = CMS.INTENT.RELATIVE_COLORIMETRIC
    spaces: dict[str, Any] = {"colorspace": "rgb", "outcolorspace": "rgb", "outdtype": "uint8", "intent": intent}
    try:
        return _in_strips(lambda rows: cms_transform(rows, profile, srgb_profile(), **spaces), samples, 3, np.uint8)
    except CmsError as error:
        raise ValueError(f"LittleCMS cannot use it ({error})") from error


def from_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """(H,W,3) sRGB -> (H,W,C) float32 in the profile's encoding, not clipped unless the profile `is_bounded`.

    Raises:
        ValueError: the profile is damaged or only for reading.
    """
    channels = profile_channels(profile)

    def strip(rows):
        return _transform(srgb_to_linear(rows).astype(np.float32), _linear_srgb(), profile, 3, channels)

    return _in_strips(strip, pixels, channels)


def _lattice():
    steps = np.linspace(0, 1, 9, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(9, -1, 3)


@lru_cache(maxsize=16)
def is_srgb(profile: bytes) -> bool:
    """Whether a profile is one of the sRGBs (RGB, to 0.001 in linear light): its values need no conversion.

    Raises:
        ValueError: the profile is damaged.
    """
    if profile_channels(profile) != 3:
        return False
    lattice = _lattice()
    return bool(np.abs(srgb_to_linear(to_srgb(lattice, profile)) - srgb_to_linear(lattice)).max() < 1e-3)


def same_colours(one: bytes | None, other: bytes | None) -> bool:
    """Whether two RGB profiles (None: sRGB) mean the same colours (to 0.001 of sRGB's values)."""
    lattice = _lattice()
    try:
        seen = [to_srgb(lattice, profile) if profile else lattice for profile in (one, other)]
    except ValueError:
        return False
    return one == other or bool(np.abs(seen[0] - seen[1]).max() < 1e-3)


def is_bounded(profile: bytes) -> bool:
    """Whether the profile clips values outside [0,1], as tables do."""
    high = np.full((1, 1, profile_channels(profile)), 1.25, np.float32)
    return bool(to_srgb(high, profile).max() < 1.1)


def leads_back(profile: bytes) -> bool:
    """Whether colours brought into the profile look (to 3 of 255) as they did before: of a grid of its own colours.

    Scanners' and cameras' tables only go one way, and the way back of some is another's, or none.
    """
    steps = np.linspace(0, 1, 13, dtype=np.float32)
    channels = profile_channels(profile)
    lattice = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), -1).reshape(13, -1, channels)
    try:
        seen = to_srgb(lattice, profile)
        again = to_srgb(from_srgb(seen, profile).clip(0, 1), profile)
    except ValueError:
        return False
    return bool(np.abs(again.clip(0, 1) - seen.clip(0, 1)).max() <= 3 / 255)
