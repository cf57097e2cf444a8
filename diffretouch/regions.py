"""Retouching by region: masks from pictures, brightness and colour, edges that follow the photo, and blending.

A region is a pair (mask, c). Regions lie over each other as sheets do: the photo is retouched with the plain `c`, and
every region is laid over what is there so far, as thick as its mask. Where masks overlap, the later region is on top.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import PIL.Image

from diffretouch.attributes import ATTRIBUTES, Attributes, attribute_rows
from diffretouch.colour import LUMA
from diffretouch.outside import outside
from diffretouch.photo.upright import upright
from diffretouch.pixels import (
    ArrayOrTensor,
    OnePhoto,
    as_float,
    as_tensor,
    is_number,
    is_tensor,
    one_photo,
    resized,
    shrink,
)

if TYPE_CHECKING:
    import torch

# What callers give as `regions`: pairs (mask, c), see `as_regions`
Regions: TypeAlias = Sequence[tuple[OnePhoto, Attributes]]

_STRIP = 1 << 16  # pixels that are worked on at once: few enough to stay in the processor's cache


def as_mask(mask: OnePhoto, size: Sequence[int] | None = None, *, name: str = "mask") -> np.ndarray:
    """What a caller gave as a mask -> (H,W) float32 array in [0,1]: 1 inside, 0 outside, soft between.

    Args:
        mask: a grey PIL image (8 or 16 bits; colour only where all channels are equal); an (H,W) or (H,W,1) array or a
            (H,W), (1,H,W) or (1,1,H,W) tensor: bool, uint8, uint16, or float in [0,1]. A picture with transparency is
            taken by its grey where it is opaque everywhere, by its transparency where it is of one grey.
        size (pair of `int`, *optional*): height and width to bring the mask to (antialiased, the aspect ratio is not
            kept). A mask of that size is not touched, and 0 and 1 stay exactly that.
        name (`str`): what errors call the mask.

    Raises:
        TypeError: not a mask, or of another type of numbers.
        ValueError: no pixels, another shape, not in [0,1], coloured, or a picture that is a mask in two ways.
    """
    if isinstance(mask, PIL.Image.Image):
        mask = _picture_mask(upright(mask), name)
    elif is_tensor(mask):
        mask = mask.detach().cpu()
        mask = (mask.float() if mask.is_floating_point() else mask).numpy()
        mask = mask[0] if mask.ndim in (3, 4) and mask.shape[0] == 1 else mask
        mask = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
    elif isinstance(mask, np.ndarray):
        mask = mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask
    else:
        raise TypeError(f"`{name}` must be a PIL image, an array or a tensor, got {type(mask).__name__}.")
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"`{name}` must be (H,W) with no empty side, got shape {mask.shape}.")
    mask = _unit_mask(mask, name)
    if size is None or mask.shape == tuple(size):
        return mask
    check_aspect(mask.shape, size, name)
    return resized_mask(mask, size)


def resized_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A mask of `as_mask` brought to a height and width, in whatever proportions: a model's thumbnail is square."""
    mask = resized(mask, size).copy()
    mask[mask < 1e-6] = 0  # where the weights of the interpolation do not sum to 1 in the last digit
    mask[mask > 1 - 1e-6] = 1
    return mask


def _picture_mask(picture, name):
    if picture.mode == "F" or picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.float32 if picture.mode == "F" else np.uint16)
    if picture.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK"):
        raise ValueError(f"`{name}` must be a grey picture of 8 or 16 bits, got PIL mode {picture.mode}.")
    bands = np.asarray(picture.convert("RGBA"))
    colours, alpha = bands[..., :3], bands[..., 3]
    if colours.size and np.ptp(colours, axis=2).max() > 2:  # JPEG may leave a level or two
        raise ValueError(f"`{name}` must be grey, got a picture with colours: white is inside, black outside.")
    grey = colours[..., 1]
    if not alpha.size or alpha.min() == 255:
        return grey
    if np.ptp(grey[alpha > 0]) > 0 if alpha.any() else np.ptp(grey) > 0:
        raise ValueError(
            f"`{name}` is a mask in two ways, by its grey and by its transparency: keep one (in Pillow "
            '`mask.getchannel("A")` or `mask.convert("L")`).'
        )
    return alpha


def _unit_mask(mask, name):
    if mask.dtype == bool:
        return mask.astype(np.float32)
    if mask.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        if mask.max() == 1:
            raise ValueError(f"`{name}` of {mask.dtype} must use its whole range; for 0 and 1 give bool or float.")
        return mask.astype(np.float32) / np.float32(np.iinfo(mask.dtype).max)
    if not np.issubdtype(mask.dtype, np.floating):
        raise TypeError(f"`{name}` must be bool, uint8, uint16 or float, got {mask.dtype}.")
    low, high = float(mask.min()), float(mask.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # written so that NaN fails
        raise ValueError(f"`{name}` floats must be in [0,1], got values from {low:g} to {high:g}.")
    return np.clip(mask.astype(np.float32), 0, 1)


def check_aspect(shape: Sequence[int], size: Sequence[int], name: str) -> None:
    """Warn where a mask of a (H,W) shape does not have about the proportions of a photo of a (H,W) size."""
    ratio = (shape[0] / shape[1]) / (size[0] / size[1])
    if min(*shape, *size) > 3 and not 0.8 < ratio < 1.25:
        warnings.warn(
            f"`{name}` of {shape[1]}x{shape[0]} is stretched to a photo of {size[1]}x{size[0]}: is it turned?",
            stacklevel=outside(),
        )


def as_regions(regions: Regions) -> "tuple[torch.Tensor | None, list[tuple[np.ndarray, torch.Tensor]]]":
    """Check what a caller gave as `regions` and leave out what nobody would see.

    A region under a full mask is hidden, and so is the plain retouch: both are neither sampled nor applied, so a full
    mask gives what the plain call with its c gives, bit for bit. An empty mask is left out with a warning.

    Args:
        regions: a sequence of pairs (mask, c); masks as for `as_mask`, c one row, see `as_attributes`; `None` is
            unknown, a row of NaN.

    Returns:
        The c of the retouch below all regions, (1,4), or `None` where that is the plain one; and the visible regions,
        a list of (mask (H,W) float32 at its own size, c (1,4)).
    """
    import torch

    below, visible = visible_regions(regions)
    as_rows = lambda c: None if c is None else torch.from_numpy(c)  # noqa: E731
    return as_rows(below), [(mask, as_rows(c)) for mask, c in visible]


def visible_regions(regions: Regions) -> tuple[np.ndarray | None, list[tuple[np.ndarray, np.ndarray]]]:
    """`as_regions` with arrays, without torch."""
    if isinstance(regions, (str, bytes)) or not hasattr(regions, "__iter__"):
        raise TypeError(f"`regions` must be a list of pairs (mask, c), got {regions!r:.80}.")
    below, visible = None, []
    for number, region in enumerate(regions):
        name = f"regions[{number}]"
        if not isinstance(region, (tuple, list)) or len(region) != 2:
            raise TypeError(f"`{name}` must be a pair (mask, c), got {type(region).__name__}.")
        mask = as_mask(region[0], name=name)
        c = np.full((1, len(ATTRIBUTES)), np.nan, np.float32) if region[1] is None else attribute_rows(region[1])
        if len(c) != 1:
            raise ValueError(f"`{name}`: c must be one row, got {len(c)}.")
        if mask.min() == 1:
            below, visible = c, []
        elif mask.max() == 0:
            warnings.warn(f"`{name}` has a mask that is zero everywhere: it changes nothing.", stacklevel=outside())
        else:
            visible.append((mask, c))
    return below, visible


def blend(below: ArrayOrTensor, above: ArrayOrTensor, mask: np.ndarray) -> ArrayOrTensor:
    """Lay `above` over `below` through a mask, in place and in strips: 0 keeps `below` and 1 takes `above`, exactly.

    Args:
        below: (H,W,3) array of uint8, uint16 or float32, which receives the result; or a (3,H,W) float tensor.
        above: the same kind and shape.
        mask: (H,W) float32 array in [0,1]. Integers are rounded to the nearest level.
    """
    if is_tensor(below):
        import torch

        return below.copy_(torch.lerp(below, above, torch.from_numpy(mask).to(below)))
    rows = max(_STRIP // below.shape[1], 1)
    for start in range(0, len(below), rows):
        strip = slice(start, start + rows)
        a, b = below[strip].astype(np.float32), above[strip].astype(np.float32)
        m = mask[strip, :, None]
        if below.dtype.kind == "u":  # float32 holds their differences, so that either end is met exactly
            b -= a
            b *= m
            b += a
            below[strip] = np.rint(b, out=b)
        else:
            below[strip] = np.where(m < 0.5, a + m * (b - a), b - (1 - m) * (b - a))
    return below


def luminosity_mask(image: OnePhoto, low: float, high: float, *, softness: float = 0.15) -> np.ndarray:
    """The tones from `low` to `high`: 1 there, falling smoothly to 0 over `softness` on either side.

    Args:
        image: one photo in any form that the pipelines take.
        low, high (`float`): luma (ITU-R BT.601, of the sRGB pixels) in [0,1], low < high.
        softness (`float`): width of either edge, in luma; 0 makes a hard mask.

    Returns:
        `numpy.ndarray`: (H,W) float32 in [0,1].
    """
    if not (is_number(low) and is_number(high)) or not 0 <= low < high <= 1:
        raise ValueError(f"`low` and `high` must be 0 <= low < high <= 1, got {low!r} and {high!r}.")
    if not is_number(softness) or not 0 <= softness <= 1:
        raise ValueError(f"`softness` must lie in [0, 1], got {softness!r}.")

    def tones(rgb):
        luma = np.clip(rgb @ np.float32(LUMA), 0, 1)  # what is over white is white
        return _ramp(np.maximum(low - luma, luma - high), softness)

    return _by_strips(image, tones)


def colour_mask(image: OnePhoto, low: float, high: float, *, softness: float = 20.0) -> np.ndarray:
    """The hues from `low` to `high` degrees, counted upwards: (330, 30) are the reds, (200, 260) the blues.

    Greys have no hue: the mask fades out where the chroma max(R,G,B) - min(R,G,B) falls from 0.12 to 0.04.

    Args:
        image: one photo in any form that the pipelines take.
        low, high (`float`): HSV hue in [0, 360]: 0 red, 60 yellow, 120 green, 180 cyan, 240 blue, 300 magenta.
        softness (`float`): width of either edge in degrees; 0 makes it hard.

    Returns:
        `numpy.ndarray`: (H,W) float32 in [0,1].
    """
    numbers = is_number(low) and is_number(high)
    if not numbers or not (0 <= low <= 360 and 0 <= high <= 360) or low == high:
        raise ValueError(f"`low` and `high` must be two different hues in [0, 360], got {low!r} and {high!r}.")
    if not is_number(softness) or not 0 <= softness <= 180:
        raise ValueError(f"`softness` must lie in [0, 180] degrees, got {softness!r}.")
    half = ((high - low) % 360 or 360) / 2
    centre = low + half

    def hues(rgb):
        chroma = np.ptp(rgb, axis=-1)
        distance = np.abs((_hue(rgb, chroma) - centre + 180) % 360 - 180) - half
        return _ramp(distance, softness) * _ramp(0.12 - chroma, 0.08)

    return _by_strips(image, hues)


def _hue(rgb, chroma):
    red, green, blue = np.moveaxis(rgb, -1, 0)
    scale = 60 / np.maximum(chroma, 1e-6)
    largest = rgb.argmax(-1)
    return np.choose(
        largest, [(green - blue) * scale, 120 + (blue - red) * scale, 240 + (red - green) * scale]
    ) % 360  # fmt: skip


def _ramp(distance, width):
    """1 up to distance 0, 0 from `width` on, a smoothstep between."""
    if width == 0:
        return (distance <= 0).astype(np.float32)
    t = np.clip(1 - distance / width, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _by_strips(image, function):
    photo, _ = one_photo(image)
    if is_tensor(photo):
        photo = photo.detach().float().permute(1, 2, 0).cpu().numpy()
    mask = np.empty(photo.shape[:2], np.float32)
    rows = max(_STRIP // photo.shape[1], 1)
    for start in range(0, len(photo), rows):
        strip = slice(start, start + rows)
        mask[strip] = function(as_float(np.asarray(photo[strip])))
    return mask


def guided_filter(guide: "torch.Tensor", values: "torch.Tensor", radius: int, epsilon: float = 1e-3) -> "torch.Tensor":
    """Smooth `values` so that their edges fall on those of `guide` (He et al., TPAMI 2013, equations 5, 6 and 8).

    In every window of the side 2 radius + 1, values are fitted by an affine function of the guide's channels; each
    pixel gets the mean of the fits of the windows it lies in. Windows are cut at the border.

    Args:
        guide (`torch.Tensor`): (B,3,H,W) or (B,1,H,W) in [0,1].
        values (`torch.Tensor`): (B,K,H,W).
        radius (`int`): of the window, in pixels.
        epsilon (`float`): guide variance below which an edge is smoothed over.

    Returns:
        `torch.Tensor`: (B,K,H,W), at least float32. The K channels keep their sum; values may leave their range a
        little.
    """
    slope, offset = guided_fit(guide, values, radius, epsilon)
    return (slope * guide[:, :, None]).sum(1) + offset


def guided_fit(
    guide: "torch.Tensor", values: "torch.Tensor", radius: int, epsilon: float = 1e-3
) -> "tuple[torch.Tensor, torch.Tensor]":
    """`guided_filter` before its last step: slope (B,C,K,H,W) and offset (B,K,H,W), values = slope guide + offset.

    Both vary smoothly: enlarged, they make the values for a larger version of the guide.
    """
    if isinstance(radius, bool) or not isinstance(radius, int) or radius < 1:
        raise ValueError(f"`radius` must be an integer of at least 1, got {radius!r}.")
    if not is_number(epsilon) or not epsilon > 0:
        raise ValueError(f"`epsilon` must be positive, got {epsilon!r}.")
    if guide.ndim != 4 or values.ndim != 4 or guide.shape[2:] != values.shape[2:] or len(guide) != len(values):
        raise ValueError(
            f"`values` must be (B,K,H,W) over `guide` {tuple(guide.shape)}, got {tuple(values.shape)}."
        )  # fmt: skip
    import torch

    given, device = values.dtype if values.dtype == torch.float64 else torch.float32, values.device
    if device.type == "mps":  # which has no float64
        guide, values = guide.cpu(), values.cpu()
    guide, values = guide.double(), values.double()  # variances are differences of large sums
    count = _box_sum(torch.ones_like(guide[:, :1]), radius)
    mean = lambda x: _box_sum(x, radius) / count  # noqa: E731
    channels, wanted = guide.shape[1], values.shape[1]
    guide_mean, values_mean = mean(guide), mean(values)
    products = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
    covariance = mean(products).unflatten(1, (channels, channels)) - guide_mean[:, :, None] * guide_mean[:, None]
    crossed = (guide[:, :, None] * values[:, None]).flatten(1, 2)
    crossed = mean(crossed).unflatten(1, (channels, wanted)) - guide_mean[:, :, None] * values_mean[:, None]
    eye = torch.eye(channels, dtype=guide.dtype, device=guide.device)
    slope = torch.linalg.solve(covariance.permute(0, 3, 4, 1, 2) + epsilon * eye, crossed.permute(0, 3, 4, 1, 2))
    slope = slope.permute(0, 3, 4, 1, 2)  # (B,channels,K,H,W)
    offset = values_mean - (slope * guide_mean[:, :, None]).sum(1)
    slope = mean(slope.flatten(1, 2)).unflatten(1, (channels, wanted))
    return slope.to(device, given), mean(offset).to(device, given)


def _box_sum(x, radius):
    """(B,C,H,W) -> the sum over a window of the side 2 radius + 1 that is cut at the border, by running sums."""
    import torch

    for axis in (-2, -1):
        size = x.shape[axis]
        sums = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.cumsum(axis)], axis)
        place = torch.arange(size, device=x.device)
        last, first = (place + radius + 1).clamp(max=size), (place - radius).clamp(min=0)
        x = sums.index_select(axis, last) - sums.index_select(axis, first)
    return x


def refine_mask(
    mask: OnePhoto, image: OnePhoto, *, radius: float = 0.02, epsilon: float = 1e-3, size: int = 1024
) -> np.ndarray:
    """A mask whose edges follow the photo's, by the guided filter: for masks that were drawn or segmented roughly.

    Args:
        mask: as for `as_mask`, of any size.
        image: one photo in any form that the pipelines take.
        radius (`float`): how far an edge may move, as a share of the photo's long side.
        epsilon (`float`): see `guided_filter`.
        size (`int`): the filter works on a copy with at most this long side, so large photos cost no more.

    Returns:
        `numpy.ndarray`: (h,w) float32 in [0,1], of the photo's size or that of the copy; regions take any size.
    """
    import torch

    photo, _ = one_photo(image)
    if not is_number(radius) or not 0 < radius <= 0.5:
        raise ValueError(f"`radius` must lie in (0, 0.5], got {radius!r}.")
    if not is_number(size) or not size >= 1:
        raise ValueError(f"`size` must be a number of pixels, at least 1, got {size!r}.")
    guide = shrink(as_tensor(photo).cpu(), size).clamp(0, 1)
    height, width = guide.shape[2:]
    values = torch.from_numpy(as_mask(mask, (height, width)))[None, None]
    reach = max(round(radius * max(height, width)), 1)
    return guided_filter(guide, values, reach, epsilon)[0, 0].clamp(0, 1).numpy()
