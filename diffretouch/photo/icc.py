"""ICC profiles: the colours of a file as sRGB and back, in float, through LittleCMS.

sRGB values may leave [0,1]: that is how colours outside its gamut are kept. The curve is mirrored for negative values
(as in CSS Color 4 and scRGB), so that they stay small. Relative colorimetric; black point compensation for CMYK.

A trip to sRGB and back is exact for 8 bits. For 16 bits, a channel near 0 beside a bright one may move by up to about
40 of 65535 (float32 cannot tell such colours apart), and dark tones by up to 15 where a profile's curves are tables.
"""

from functools import cache

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
def srgb_profile():
    from imagecodecs import cms_profile

    return _undated(cms_profile("srgb"))


@cache
def adobe_rgb_profile():
    from imagecodecs import cms_profile

    return _undated(cms_profile("adobergb"))


@cache
def _linear_srgb():
    from imagecodecs import cms_profile

    return cms_profile("rgb", whitepoint=_D65, primaries=_SRGB_PRIMARIES, gamma=1.0)


def cicp_profile(primaries, transfer):
    """The profile for the colour code points of AVIF, HEIC and PNG (ITU-T H.273), None for sRGB and what is near it.

    Raises:
        ValueError: a high dynamic range, which has no place in [0,1], or primaries that are not known here.
    """
    from imagecodecs import cms_profile

    if transfer in (16, 18):
        raise ValueError(f"its tones are {'PQ' if transfer == 16 else 'HLG'} (high dynamic range)")
    chromaticities = {9: [0.708, 0.292, 1.0, 0.170, 0.797, 1.0, 0.131, 0.046, 1.0],  # BT.2020
                      12: [0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0]}  # Display P3  # fmt: skip
    if primaries in (1, 2, 5, 6, 7):  # BT.709, unspecified and the television systems, which viewers show as sRGB
        return None
    if primaries not in chromaticities:
        raise ValueError(f"colour primaries {primaries} (ITU-T H.273) are not supported")
    curve = srgb_to_linear(np.linspace(0, 1, 1024)).astype(np.float32)
    return _undated(cms_profile("rgb", whitepoint=_D65, primaries=chromaticities[primaries], transferfunction=curve))


def profile_channels(profile):
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


def _in_strips(function, pixels, channels):
    rows = max(1, _ROWS // pixels.shape[1])
    out = np.empty((*pixels.shape[:2], channels), np.float32)
    for start in range(0, len(pixels), rows):
        out[start : start + rows] = function(pixels[start : start + rows])
    return out


def to_srgb(pixels, profile):
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


def from_srgb(pixels, profile):
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


def is_srgb(profile):
    """Whether an RGB profile is one of the sRGBs (to 0.001 in linear light): its values need no conversion."""
    lattice = _lattice()
    return bool(np.abs(srgb_to_linear(to_srgb(lattice, profile)) - srgb_to_linear(lattice)).max() < 1e-3)


def is_bounded(profile):
    """Whether the profile clips values outside [0,1], as tables do."""
    high = np.full((1, 1, profile_channels(profile)), 1.25, np.float32)
    return bool(to_srgb(high, profile).max() < 1.1)


def can_write(profile):
    """Whether colours can be brought back into the profile: scanners' and cameras' tables only go one way."""
    try:
        from_srgb(np.full((1, 1, 3), 0.5, np.float32), profile)
    except ValueError:
        return False
    return True
