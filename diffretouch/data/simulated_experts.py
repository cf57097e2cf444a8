"""Training pairs from finished photos alone: what the camera had left, and what experts would have made of it.

A finished photo (sRGB, (H,W,3) float32 in [0,1]) is the start of both: `camera_input` takes its finish away,
`expert_version` re-finishes it so that its attributes are an asked c away from the photographer's own (c = 0).
All randomness comes from the generator that is passed in.
"""

from collections.abc import Sequence

import numpy as np
import torch

from diffretouch import colour
from diffretouch.attributes import attribute_labels, measure_attributes
from diffretouch.colour import linear_to_srgb, srgb_to_linear

LUMA = np.float32(colour.LUMA)

MARGIN = np.float32(0.012)  # what targets keep from black and white: three levels of 255


def with_black_point(crop: np.ndarray, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop of a finished photo with the black point that most retouchers would have set, and nothing clipped.

    Many finished photos on the web have a lifted, matte black: a look of its own, not the usual finish of c = 0. All
    of it then moves a little away from black and white: a model learns to clip from targets that clip.

    Args:
        crop: (h,w,3) float32 in [0,1].
        photo: the whole photo, (H,W,3) in [0,1]: its darkest 0.5 % go to a luma of 0 to 0.07, not those of the crop.
            At most 2 % of its pixels lose a channel by that.
        rng (`numpy.random.Generator`): draws where black ends up.
    """
    black = np.quantile(photo @ LUMA, 0.005) - rng.uniform(0, 0.07)
    black = min(black, np.quantile(photo.min(-1), 0.02) - 0.002)
    black = np.float32(np.clip(black, 0, 0.15))  # fog stays fog
    return MARGIN + (1 - 2 * MARGIN) * np.clip((crop - black) / (1 - black), 0, 1)


def camera_input(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A finished photo as a camera would have left it: underexposed, off in white balance, flat, dull, a little hazy.

    In linear light: exposure (`metered_stops`), white balance (one photo in seven in lamplight), uneven light. Then in
    sRGB: a tone curve of random bends; middle tones sink, in four photos of ten in place of a part of the exposure, so
    that highlights keep theirs; low saturation, a lifted black, noise and 8-bit rounding.

    The ranges are chosen so that inputs differ from finished photos in percentiles, spread and colour, in mean and
    from photo to photo, about as camera originals do from an expert's versions, and keep their light's correlation
    with the finish (0.81 here, 0.84 in the 13 pairs at hand), also on originals 0.4 stops darker (training/README.md).
    """
    height, width = photo.shape[:2]
    exposure, sinking = metered_stops(photo, rng), rng.normal(0.3, 0.1)
    if rng.random() < 0.4:  # highlights are kept: part of the darkness is the middle tones' alone
        kept = rng.uniform(0, 1)
        exposure, sinking = exposure * (1 - kept), sinking - 0.65 * kept * min(exposure, 0)
    gains = rng.normal(0, 1, 3) * (0.09, 0.03, 0.12)
    if rng.random() < 0.15:
        gains += rng.uniform(0.2, 1.3) * np.array([0.9, 0, -1])
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    slope_y, slope_x, vignette = rng.uniform(-0.12, 0.12), rng.uniform(-0.08, 0.08), rng.uniform(0, 0.15)
    light = 2.0 ** (exposure + slope_y * y + slope_x * x - vignette * (x * x + y * y) / 2)
    image = linear_to_srgb(np.clip(srgb_to_linear(photo) * light[..., None] * (2.0**gains).astype(np.float32), 0, 1))

    image = _bent(image, rng.normal(0, 0.2, 5)) ** np.float32(2.0 ** max(sinking, 0))
    pivot = float((image @ LUMA).mean())
    image = pivot + (image - pivot) * rng.uniform(0.88, 1.15)
    luma = (image @ LUMA)[..., None]
    image = luma + (image - luma) * rng.uniform(0.52, 0.98)
    floor = max(rng.normal(0.08, 0.04), 0)
    white = 1 - rng.uniform(0, 0.06)
    image = floor + image * (white - floor)
    image = image + rng.normal(0, rng.uniform(0, 0.012), image.shape)
    return (np.round(np.clip(image, 0, 1) * 255) / 255).astype(np.float32)


def metered_stops(photo: np.ndarray, rng: np.random.Generator) -> float:
    """Stops by which a camera's meter leaves a finished photo (H,W,3) darker (below 0) or brighter than its finish.

    Half a stop of reserve, and three tenths of the way to a meter's middle grey: centre-weighted, in six photos of ten
    one that also keeps the brightest hundredth below white. Meters err by a tenth of a stop; one in twenty is far off.
    """
    height, width = photo.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    weight, light = np.exp(-(x * x + y * y)), srgb_to_linear(photo) @ LUMA
    stops = np.log2(0.16 / max((light * weight).sum() / weight.sum(), 1e-3))
    if rng.random() < 0.6:
        stops = min(stops, np.log2(0.85 / max(np.quantile(light, 0.99), 1e-2)))
    stops = 0.3 * stops - 0.5 + rng.normal(0, 0.1)
    if rng.random() < 0.05:
        stops += rng.uniform(-1, 0.3)
    return float(np.clip(stops, -2.2, 0.5))


def _bent(image, log_slopes):
    """A smooth rising tone curve from (0,0) to (1,1), by the logarithms of its slopes at evenly spaced tones."""
    tones = np.linspace(0, 1, 257)
    slopes = np.exp(np.interp(tones, np.linspace(0, 1, len(log_slopes)), log_slopes))
    curve = np.concatenate([[0], np.cumsum(slopes[1:] + slopes[:-1])])
    return np.interp(image, tones, curve / curve[-1]).astype(np.float32)


def finish(
    photo: np.ndarray, saturation: float, contrast: float, warmth: float, brightness: float, split: np.ndarray | None
) -> np.ndarray:
    """One set of darkroom controls: all zeros, and no split tone, leave the photo as it is.

    Args:
        photo: (H,W,3) float32, clipped to [0,1].
        saturation, contrast, warmth, brightness (`float`): powers of two, + is more.
        split (*optional*): what is added to the (R,G,B) of shadows and of highlights, (2,3).

    Returns:
        (H,W,3) float32 in [0,1].
    """
    if warmth:
        # Along daylight: in linear sRGB, log2 G lies 0.12 log2(R/B) above the mean of red's and blue's on Planck's
        # line from 4,000 to 10,000 K, so that whites grow neither green nor pink
        gains = np.float32([2.0**warmth, 2.0 ** (0.24 * warmth), 2.0**-warmth])
        # The power of the encoding curve turns gains in linear light into gains in sRGB; luma is kept.
        warmed = photo * gains ** np.float32(1 / 2.2)
        photo = warmed * ((photo @ LUMA).mean() + 1e-4) / ((warmed @ LUMA).mean() + 1e-4)
        photo = photo / np.maximum(photo.max(-1, keepdims=True), 1)  # a clipped channel alone turns whites green
    photo = np.clip(photo, 0, 1)
    if brightness:
        photo = photo ** np.float32(2.0**-brightness)
    luma = (photo @ LUMA)[..., None]
    if contrast:
        # An S-curve around the photo's own mean, which keeps black, white and the mean in place.
        pivot = float(np.clip(luma.mean(), 0.1, 0.9))
        slope = np.float32(2.0**contrast)
        below = pivot * np.power(np.minimum(luma, pivot) / pivot, slope)
        above = 1 - (1 - pivot) * np.power((1 - np.maximum(luma, pivot)) / (1 - pivot), slope)
        toned = np.where(luma < pivot, below, above)
        photo = photo - luma + toned
        luma = toned
    photo = luma + (photo - luma) * np.float32(2.0**saturation)
    if split is not None:
        shadows, highlights = split
        photo = photo + (1 - luma) ** 2 * shadows + luma**2 * highlights
    return np.clip(photo, 0, 1)


# How far one unit of c moves each control of `finish`, roughly: the first guess of the search below.
_CONTROL_STEPS = np.float32([0.5, 0.4, 0.5, 0.5])
_CONTROL_LIMITS = np.float32([2.5, 1.6, 1.6, 1.8])


def expert_version(
    photo: np.ndarray, c: Sequence[float] | np.ndarray, rng: np.random.Generator, style: float = 0.0
) -> np.ndarray:
    """The finished photo, finished again so that its attributes lie `c` from the photographer's own.

    The controls for colour, contrast, warmth and brightness are searched on a small copy until the measured labels
    reach `c` or the controls their limits: one attribute moves, the other three stay.

    Args:
        photo: (H,W,3) float32 in [0,1].
        c: four numbers in the order of `ATTRIBUTES`; all zeros return the photo (with the expert's style, if any).
        rng (`numpy.random.Generator`): draws the style.
        style (`float`): strength of a random split tone, the part of a taste that the attributes do not name.
    """
    c = np.float32(c)
    split = rng.normal(0, 0.015 * style, (2, 3)).astype(np.float32) if style else None
    if not c.any() and split is None:
        return photo
    small = photo[:: max(photo.shape[0] // 64, 1), :: max(photo.shape[1] // 64, 1)]
    start = _scores(small)
    controls = c * _CONTROL_STEPS
    for _ in range(5):
        reached = attribute_labels(_scores(finish(small, *controls, split))[None], start, limit=4.0)[0].numpy()
        controls = np.clip(controls + 0.8 * (c - reached) * _CONTROL_STEPS, -_CONTROL_LIMITS, _CONTROL_LIMITS)
    return finish(photo, *controls, split)


def _scores(photo):
    return measure_attributes(torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None])[0]


def version_label(version: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """c (4,) float32 of a version relative to the finished photo, limited to [-2.5, 2.5]."""
    return attribute_labels(_scores(version)[None], _scores(photo), limit=2.5)[0].numpy()
