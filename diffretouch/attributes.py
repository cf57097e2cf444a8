"""The four attributes that steer a retouch: how they are measured, named, checked and turned into labels c."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from diffretouch.colour import LUMA
from diffretouch.outside import outside
from diffretouch.pixels import ArrayOrTensor, is_tensor, shrink

if TYPE_CHECKING:
    import torch

ATTRIBUTES = ("colorfulness", "contrast", "temperature", "brightness")

# What callers give as c, see `as_attributes`
Attributes: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float] | ArrayOrTensor | None

# One unit of c, in the units of `attribute_coordinates`: moving a slider from -1 to 1 multiplies colorfulness by
# e^0.6 and local contrast by e^0.9, and moves temperature by 0.26 and a middle brightness by 0.29.
ATTRIBUTE_SCALES = (0.3, 0.45, 0.13, 0.6)

# Longer photos are measured on a copy with this long side, so that scores do not depend on the photo's resolution.
MEASURE_SIZE = 128

_LIMIT = 3.0


def _colorfulness(image):
    """Colorfulness of Hasler and Süsstrunk (2003), with absolute opponent signals as in the released DiffRetouch."""
    import torch

    red, green, blue = image.unbind(1)
    opponents = torch.stack([(red - green).abs(), (0.5 * (red + green) - blue).abs()], 1).flatten(2)  # (B,2,HW)
    pixels = opponents.shape[-1]
    mean = opponents.mean(-1)
    variance = (opponents - mean[..., None]).square().sum(-1) / max(pixels - 1, 1)
    # The epsilon keeps the gradient finite on grey photos, where both roots are taken of zero.
    root = lambda x: (x.sum(-1) + 1e-12).sqrt()  # noqa: E731
    return root(variance) + 0.3 * root(mean.square())


def _contrast(image):
    """Mean squared RGB distance between neighbouring pixels, over all directed pairs of 4-neighbours."""
    height, width = image.shape[-2:]
    vertical = (image[..., 1:, :] - image[..., :-1, :]).square().sum((1, 2, 3))
    horizontal = (image[..., 1:] - image[..., :-1]).square().sum((1, 2, 3))
    pairs = (height - 1) * width + height * (width - 1)  # each counted in both directions in sum and number
    return (vertical + horizontal) / max(pairs, 1)


def _temperature(image):
    """Chromaticity balance (R - B) / (R + B) of the mean colour: bounded by +-1, + is warmer, 0 on grey and black."""
    red, _, blue = image.mean((2, 3)).unbind(1)
    return (red - blue) / (red.abs() + blue.abs() + 0.02)


def _brightness(image):
    """Mean luma (ITU-R BT.601) of the sRGB-encoded photo."""
    return (image.mean((2, 3)) * image.new_tensor(LUMA)).sum(1)


def measure_attributes(image: "torch.Tensor") -> "torch.Tensor":
    """Scores of the four attributes, in the order of `ATTRIBUTES`.

    A photo whose long side exceeds 128 px is measured on an area-averaged copy of that size, so the scores do not
    depend on its resolution; a smaller one is measured as it is. All scores are differentiable everywhere and finite
    on grey, black and white photos and on single pixels.

    * colorfulness, >= 0: `std(|R-G|, |(R+G)/2-B|) + 0.3 mean(...)`, the released DiffRetouch formula (a variant of
      Hasler and Süsstrunk 2003) on pixels in [0,1]. The released code measures on [-1,1]: its value is 2x ours.
    * contrast, >= 0: mean squared RGB distance of neighbouring pixels, the released formula; its value is 4x ours.
    * temperature in [-1,1]: `(R-B) / (R+B+0.02)` of the mean colour, + is warmer. Re-defined: the released score is
      a correlated colour temperature that is 0 below about 18 % grey, jumps by thousands there and fails on batches.
    * brightness in [0,1]: mean BT.601 luma. Re-defined: the released score is a root of squared channel means on
      [-1,1], which gives 0.4 and -0.4 the same value.

    Args:
        image (`torch.Tensor`): (B,3,H,W), floating point, in [0,1].

    Returns:
        `torch.Tensor`: (B,4), at least float32.
    """
    if not is_tensor(image) or not image.is_floating_point():
        raise TypeError(f"`image` must be a floating-point tensor, got {_describe(image)}.")
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ValueError(f"`image` must have shape (B,3,H,W) with no empty side, got {tuple(image.shape)}.")
    import torch

    if image.dtype in (torch.float16, torch.bfloat16):
        image = image.float()
    with torch.autocast(image.device.type, enabled=False):
        image = shrink(image, MEASURE_SIZE)
        return torch.stack([_colorfulness(image), _contrast(image), _temperature(image), _brightness(image)], 1)


def attribute_coordinates(scores: "torch.Tensor") -> "torch.Tensor":
    """Scores (...,4) -> coordinates (...,4) in which equal steps look about equal.

    Colorfulness and contrast span orders of magnitude between photos, so they are compared by ratio (logarithms with
    a floor against noise on grey and flat photos); brightness by its logit, so that a step neither drowns a dark
    photo nor burns a bright one; temperature by difference.
    """
    import torch

    colorfulness, contrast, temperature, brightness = scores.unbind(-1)
    return torch.stack(
        [
            (colorfulness.clamp(min=0) + 0.01).log(),
            (contrast.clamp(min=0) + 1e-5).log(),
            temperature,
            brightness.clamp(0.02, 0.98).logit(),
        ],
        -1,
    )


def attribute_labels(
    scores: "torch.Tensor",
    reference: "torch.Tensor | None" = None,
    *,
    scales: Sequence[float] = ATTRIBUTE_SCALES,
    limit: float = 1.0,
) -> "torch.Tensor":
    """Labels c of the versions of one photo, relative to each other.

    The paper conditions on attribute labels in [-1,1] but its derivation was not released. Here a label says how far
    a version's score lies from the photo's centre, in units of `scales` (see `ATTRIBUTE_SCALES`): 0 is the usual
    finish of this photo, +1 is clearly more of the attribute.

    Args:
        scores (`torch.Tensor`): (...,K,4), `measure_attributes` of K versions of each photo.
        reference (`torch.Tensor`, *optional*): (...,4), scores of the version that is c = 0. Defaults to the mean of
            the K versions' coordinates.
        scales (sequence of 4 floats): one unit of c in each attribute.
        limit (`float`): labels are limited to [-limit, limit].

    Returns:
        `torch.Tensor`: (...,K,4) in [-limit, limit].
    """
    if not is_tensor(scores) or scores.ndim < 2 or scores.shape[-1] != len(ATTRIBUTES):
        raise ValueError(f"`scores` must have shape (...,K,4), got {_describe(scores)}.")
    import torch

    coordinates = attribute_coordinates(scores)
    centre = (coordinates.mean(-2) if reference is None else attribute_coordinates(reference)).unsqueeze(-2)
    # More colour makes a warm photo measure warmer. Half of that belongs to the colour, or else asking for more
    # colour at the same temperature would mean to cool the whites.
    more_colour = (coordinates[..., 0] - centre[..., 0]).clamp(-1, 1)
    temperature = coordinates[..., 2] * (-0.5 * more_colour).exp()
    coordinates = torch.stack([*coordinates[..., :2].unbind(-1), temperature, coordinates[..., 3]], -1)
    return ((coordinates - centre) / coordinates.new_tensor(scales)).clamp(-limit, limit)


def label_statistics(scores: "torch.Tensor", knots: int = 33) -> dict[str, Any]:
    """The spread of a data set's scores, from which `quantile_labels` makes labels: kept with the model, JSON-able.

    Args:
        scores (`torch.Tensor`): (N,4), `measure_attributes` of the data set's finished versions; N >= 2.
        knots (`int`): how many quantiles are kept.

    Returns:
        `dict`: `count`, and `quantiles`: for each attribute by name, `knots` values of `attribute_coordinates`.
    """
    if not is_tensor(scores) or scores.ndim != 2 or scores.shape[1] != len(ATTRIBUTES) or len(scores) < 2:
        raise ValueError(f"`scores` must have shape (N,4) with N >= 2, got {_describe(scores)}.")
    if not scores.isfinite().all():
        raise ValueError("`scores` must be finite, got NaN or infinite values.")
    import torch

    levels = torch.linspace(0, 1, knots, dtype=torch.float64)
    quantiles = torch.quantile(attribute_coordinates(scores.double()), levels, dim=0)  # (knots,4)
    # Ties would make steps of no width: the least width is far below what can be seen.
    quantiles = torch.cummax(quantiles + 1e-6 * torch.arange(knots)[:, None], 0).values
    columns = zip(ATTRIBUTES, quantiles.unbind(1), strict=True)
    return {"count": len(scores), "quantiles": {name: [round(v, 7) for v in q.tolist()] for name, q in columns}}


def quantile_labels(scores: "torch.Tensor", statistics: Mapping[str, Any], *, limit: float = 1.0) -> "torch.Tensor":
    """Labels c by a photo's place in the whole data set: 2 q - 1, with q the quantile of its score.

    The derivation of PerTouch, the successor of DiffRetouch: -1 is the least colourful photo of all, 0 the median.
    Unlike those of `attribute_labels` they need no other version of the photo. Beyond the outermost quantiles they go
    on in a straight line, so that gradients stay.

    Args:
        scores (`torch.Tensor`): (...,4), of `measure_attributes`.
        statistics (`dict`): of `label_statistics`.
        limit (`float`): labels are limited to [-limit, limit].

    Returns:
        `torch.Tensor`: (...,4), differentiable.
    """
    import torch

    check_statistics(statistics)
    labels = []
    for name, x in zip(ATTRIBUTES, attribute_coordinates(scores).unbind(-1), strict=True):
        knots = x.new_tensor(statistics["quantiles"][name])
        last = len(knots) - 1
        cell = torch.searchsorted(knots, x.detach().contiguous()).clamp(
            1, last
        )  # (...): between knots cell-1 and cell
        low, high = knots[cell - 1], knots[cell]
        inside = (cell - 1 + (x - low) / (high - low)) * (2 / last) - 1
        # The outermost quantiles are single photos: the slope beyond them is that of the middle nine tenths.
        edge = max(round(last / 20), 1)
        slope = 2 * (1 - 2 * edge / last) / (knots[last - edge] - knots[edge])
        below, above = -1 + (x - knots[0]) * slope, 1 + (x - knots[last]) * slope
        labels.append(torch.where(x < knots[0], below, torch.where(x > knots[last], above, inside)))
    return torch.stack(labels, -1).clamp(-limit, limit)


def check_statistics(statistics: Mapping[str, Any]) -> None:
    """Raise unless `statistics` are those of `label_statistics`, e.g. as a model's config keeps them."""
    quantiles = statistics.get("quantiles") if isinstance(statistics, Mapping) else None
    if not isinstance(quantiles, Mapping) or set(quantiles) != set(ATTRIBUTES):
        raise ValueError(f"`statistics` must hold the quantiles of {', '.join(ATTRIBUTES)}: see label_statistics.")
    for name, knots in quantiles.items():
        numbers = isinstance(knots, (list, tuple)) and all(isinstance(v, (int, float)) for v in knots)
        if not numbers or len(knots) < 2 or not all(a < b for a, b in zip(knots, knots[1:], strict=False)):
            raise ValueError(f"`statistics`: the quantiles of {name} must be at least two numbers that rise.")


def as_attributes(c: Attributes, batch_size: int | None = None) -> "torch.Tensor":
    """Check what a caller gave as `c` and bring it into one form.

    Args:
        c: four numbers in the order of `ATTRIBUTES`; a (4,) or (B,4) array or tensor; a dict from attribute names to
            numbers (missing names are 0); or `None` (all zeros). |c| <= 1 is the trained range; up to 3 extrapolates,
            with a warning.
        batch_size (`int`, *optional*): the number of rows that must come out; one row is repeated.

    Returns:
        `torch.Tensor`: (B,4) float32 on the CPU.

    Raises:
        ValueError: wrong length, unknown name, NaN or infinite, larger than 3, or the wrong number of rows.
        TypeError: not numbers.
    """
    import torch

    return torch.from_numpy(attribute_rows(c, batch_size))


def attribute_rows(c: Attributes, batch_size: int | None = None) -> np.ndarray:
    """`as_attributes` as an array, without torch."""
    if c is None:
        c = [0.0] * len(ATTRIBUTES)
    elif isinstance(c, Mapping):
        unknown = [name for name in c if name not in ATTRIBUTES]
        if unknown:
            raise ValueError(f"`c` may name {', '.join(ATTRIBUTES)}; got {', '.join(map(repr, unknown))}.")
        c = [c.get(name, 0.0) for name in ATTRIBUTES]
    if isinstance(c, (str, bytes)):
        raise TypeError(f"`c` must be four numbers, (B,4), a dict or None, got {c!r}.")
    try:
        given = np.asarray((c.detach().double() if c.is_floating_point() else c).cpu() if is_tensor(c) else c)
        if given.dtype.kind not in "iuf":
            raise TypeError(str(given.dtype))
        with np.errstate(over="ignore"):  # becomes infinite, which is told below
            rows = given.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`c` must be four numbers, (B,4), a dict or None, got {c!r}.") from error
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != len(ATTRIBUTES) or rows.shape[0] == 0:
        raise ValueError(
            f"`c` must hold {len(ATTRIBUTES)} numbers ({', '.join(ATTRIBUTES)}) or be (B,4), got shape {given.shape}."
        )
    for name, column in zip(ATTRIBUTES, rows.T, strict=True):
        if not np.isfinite(column).all():
            raise ValueError(f"`c`: {name} must be finite, got {column.tolist()}.")
        largest = column[abs(column).argmax()].item()
        if abs(largest) > _LIMIT:
            raise ValueError(f"`c`: {name} must lie in [-3, 3] (trained on [-1, 1]), got {largest:g}.")
        if abs(largest) > 1 and not math.isclose(abs(largest), 1, rel_tol=1e-6):
            warnings.warn(f"`c`: {name} = {largest:g} extrapolates beyond the trained [-1, 1].", stacklevel=outside())
    if batch_size is not None and rows.shape[0] != batch_size:
        if rows.shape[0] != 1:
            raise ValueError(f"`c` must have 1 or {batch_size} rows, got {rows.shape[0]}.")
        rows = rows.repeat(batch_size, 0)
    return rows


def _describe(value):
    return f"{tuple(value.shape)} {value.dtype}" if is_tensor(value) else type(value).__name__


def in_weights_order(c: "torch.Tensor", order: list[str], signs: list[int]) -> "torch.Tensor":
    """c (B,4) in the public order -> in the order and with the signs in which a model's weights know the attributes.

    Args:
        order: a permutation of `ATTRIBUTES`.
        signs: 1, or -1 where the weights' attribute runs the other way; in the weights' order.
    """
    return c[:, [ATTRIBUTES.index(name) for name in order]] * c.new_tensor(signs)
