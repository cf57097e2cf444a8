"""Photos in PQ or HLG (ITU-R BT.2100), of a range that no sRGB file holds: brought into it by the ITU's own rules.

Light is display light, of HLG that of a display of 1000 cd/m². BT.2408's reference white, 203 cd/m², becomes sRGB's
white; what is brighter is compressed by the EETF of BT.2390, up to the brightest value of the photo, which ends at
white. The curve works on the largest of red, green and blue, and all three are scaled alike, so hues stay.
"""

from typing import TYPE_CHECKING

import numpy as np

from diffretouch.colour import linear_to_srgb

from . import icc

if TYPE_CHECKING:
    from . import Photo

PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
WHITE = 203.0  # cd/m²
_PEAK = 1000.0  # of the display for which HLG is rendered
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_STRIP = 1 << 20  # values at a time


def pq_to_light(values: np.ndarray) -> np.ndarray:
    """PQ's EOTF: [0,1] -> cd/m² (BT.2100, table 4)."""
    power = np.maximum(values, 0) ** (1 / _M2)
    return 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    power = (np.maximum(light, 0) / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_scene(values: np.ndarray) -> np.ndarray:
    """HLG's inverse OETF: [0,1] -> light of the scene in [0,1] (BT.2100, table 5)."""
    low = np.maximum(values, 0) ** 2 / 3
    return np.where(values <= 0.5, low, (np.exp((np.maximum(values, 0.5) - _C) / _A) + _B) / 12)


def scene_to_light(scene: np.ndarray) -> np.ndarray:
    """HLG's OOTF (..,3): light of the scene -> cd/m² of a display of 1000 cd/m² and black of 0."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], scene.dtype)
    return _PEAK * scene * (np.maximum(luminance, 0) ** 0.2)[..., None]


def compressed(light: np.ndarray, peak: float, white: float = WHITE) -> np.ndarray:
    """The EETF of BT.2390, 5.4.1: cd/m² up to `peak` -> cd/m² up to `white`; black stays 0."""
    whole, most = light_to_pq(np.array([peak, white], np.float64))
    most /= whole
    knee = 1.5 * most - 0.5
    if knee > 1 - 1e-6:
        return light
    signal = np.minimum(light_to_pq(light) / whole, 1)
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_to_light(np.where(signal < knee, signal, spline) * whole)


def take_code_points(photo: "Photo", primaries: int, transfer: int) -> None:
    """A photo's colours by code points of ITU-T H.273: a profile, or what its reader will tone-map."""
    if transfer in (PQ, HLG):
        photo.high_range = primaries, transfer
    else:
        photo.icc_profile = icc.cicp_profile(primaries, transfer)


def to_srgb(values: np.ndarray, transfer: int, to_linear_srgb: np.ndarray) -> np.ndarray:
    """Photo (H,W,3) in [0,1] of the file -> sRGB float32; colours outside its gamut leave [0,1].

    Args:
        values: floats.
        transfer: `PQ` or `HLG`.
        to_linear_srgb: (3,3), from linear light in the file's primaries.
    """
    table = (pq_to_light if transfer == PQ else hlg_to_scene)(np.linspace(0, 1, 65536)).astype(np.float32)

    def to_light(strip):
        light = table[np.rint(strip.clip(0, 1) * 65535).astype(np.uint16)]
        return light if transfer == PQ else scene_to_light(light)

    rows = max(1, _STRIP // max(values.shape[1], 1))
    strips = [slice(start, start + rows) for start in range(0, len(values), rows)]
    peak = max(float(to_light(values[strip]).max()) for strip in strips)
    nodes = np.maximum(peak * np.linspace(0, 1, 8192) ** 4, 1e-9)
    scales = compressed(nodes, peak) / nodes / WHITE
    pixels = np.empty(values.shape, np.float32)
    for strip in strips:
        light = to_light(values[strip])
        scale = np.interp(light.max(-1), nodes, scales).astype(np.float32)[..., None]
        pixels[strip] = linear_to_srgb((light * scale) @ to_linear_srgb.T.astype(np.float32))
    return pixels
