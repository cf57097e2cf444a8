"""The c, and the strength, that come closest to finished photos: of a photographer's pairs, of one reference."""

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes, quantile_labels
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.metrics import gradient_correlation
from diffretouch.photo import load_photo
from diffretouch.pixels import as_tensor, shrink
from diffretouch.settings import Settings, seed_of

if TYPE_CHECKING:
    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

LIMIT = 1.5  # c beyond the trained [-1,1]
_STEP = 0.1  # of c and strength, for differences
_FOLDS = 5
_NEUTRAL = np.array([0.0, 0, 0, 0, 1])  # c and strength
_SPREAD = np.array([0.5, 0.5, 0.5, 0.5, 0.25])  # of c and strength among looks, around c = 0 and strength 1
_LOW, _HIGH = np.array([-LIMIT] * 4 + [0.0]), np.full(5, LIMIT)
_FACTORS = (1.0, 4.0, 16.0, 64.0, math.inf)
_SPREAD_OF_ONE = np.array([3.0, 3.0, 3.0, 3.0, 1e-3])  # of a single photo's c: wherever it may lie; strength stays 1


@dataclass
class Fit:
    """What `fit_preset` found. Errors are mean CIE 1976 colour differences to the finished photos.

    Attributes:
        settings: c, strength, seed and steps.
        shrink: how many times the prior weighed, see `shrink_factor`; infinite where nothing was learned.
        untouched: error of the photos as they are.
        automatic: error of the model without the preset (c = 0, strength 1).
        fitted: error with the preset, on the very pairs that it was fitted to.
        held_out: error on pairs left out in turn, with what was fitted to the others; None for a single pair.
        photos: a row for each pair: `photo`, `untouched`, `automatic`, `fitted`, `held_out`.
    """

    settings: Settings
    shrink: float
    untouched: float
    automatic: float
    fitted: float
    held_out: float | None
    photos: list[dict]

    @property
    def gain(self) -> tuple[float, float]:
        """By how much the preset lowers the error on pairs left out, and its standard error; of one pair 0 and inf."""
        if self.held_out is None:
            return 0.0, math.inf
        gains = [row["automatic"] - row["held_out"] for row in self.photos]
        return float(np.mean(gains)), float(np.std(gains, ddof=1)) / math.sqrt(len(gains))

    @property
    def pays(self) -> bool:
        """Whether the preset does better than none on pairs left out, by more than the standard error."""
        gain, error = self.gain
        return gain > error


@dataclass
class _Pair:
    name: str
    photo: torch.Tensor  # (1,3,h,w)
    lab: torch.Tensor  # (1,3,h,w) of the finished photo
    retouch: Callable  # c (K,4) -> the photo retouched with each, at strength 1 and from one noise, (K,3,h,w)


@torch.no_grad()
def fit_preset(
    pipe: "DiffRetouchPipeline",
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int = 256,
    iterations: int = 8,
) -> Fit:
    """Find the c and the strength with which the model comes closest to finished photos.

    Gauss-Newton with Levenberg's damping on the CIELAB pixels of small copies; the model's derivatives are finite
    differences. Every pair weighs the same and has the noise that a batch with this seed gives its photo. A prior
    holds c near 0 and strength near 1 as far as the pairs leave them open.

    Args:
        pipe ([`DiffRetouchPipeline`]).
        pairs: (untouched path, finished path), see `evaluation.pair_names`.
        seed (`int`): see `retouch_batch`.
        steps (`int`, *optional*): of the sampler; the model's own by default.
        size (`int`): long side of the copies, px.
        iterations (`int`): the most Gauss-Newton steps.

    Returns:
        [`Fit`]

    Raises:
        ValueError: no pairs, a pair of different shapes, a pipeline without sliders.
    """
    if not getattr(pipe, "has_sliders", False):
        raise ValueError(
            f"`pipe` must be a pipeline with sliders, got {type(pipe).__name__}: it has nothing to learn."
        )
    if not pairs:
        raise ValueError("`pairs` must hold at least one pair, got none.")
    steps = steps or pipe.config.default_steps
    examples = [_load_pair(pipe, source, target, size, seed, steps) for source, target in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about extrapolation, within LIMIT
        return _fit_and_judge(examples, seed, steps, iterations)


def _fit_and_judge(examples, seed, steps, iterations, factors=_FACTORS):
    known = _normal_equations(examples, _NEUTRAL)

    def learned(numbers):
        """-> c and strength from some of the pairs, and how far they were shrunk."""
        theirs = tuple(rows[numbers] for rows in known)
        shrink = shrink_factor(*theirs, factors)
        return _fit([examples[n] for n in numbers], _NEUTRAL, iterations, shrink=shrink, known=theirs), shrink

    everyone = np.arange(len(examples))
    found, shrink = learned(everyone)
    photos, held_out = [], None
    for one in examples:
        errors = {name: _error(one, values) for name, values in
                  (("untouched", _NEUTRAL * 0), ("automatic", _NEUTRAL), ("fitted", found))}  # fmt: skip
        photos.append({"photo": one.name, **errors, "held_out": None})
    if len(examples) > 1:
        folds = min(len(examples), _FOLDS)
        for fold in range(folds):
            values, _ = learned(everyone[everyone % folds != fold])
            for n in everyone[fold::folds]:
                photos[n]["held_out"] = _error(examples[n], values)
        held_out = sum(row["held_out"] for row in photos) / len(photos)
    mean = {name: sum(row[name] for row in photos) / len(photos) for name in ("untouched", "automatic", "fitted")}
    c = {name: round(float(value), 3) for name, value in zip(ATTRIBUTES, found, strict=False)}
    settings = Settings(c=c, strength=round(float(found[4]), 3), seed=seed, steps=steps)
    return Fit(settings, shrink, **mean, held_out=held_out, photos=photos)


@torch.no_grad()
def nearest_c(
    retouch: Callable[[torch.Tensor], torch.Tensor], photo: torch.Tensor, reference: torch.Tensor,
    scales: Sequence[float], statistics: Mapping[str, Any] | None = None, *, iterations: int = 8, limit: float = 2.0,
) -> torch.Tensor:  # fmt: skip
    """The c whose retouch has the attributes of a reference, and its look where that shows the same picture.

    Args:
        retouch: c (K,4) -> the photo retouched with each, (K,3,h,w), the same for the same c.
        photo: (1,3,h,w) the small copy that `retouch` works on, in [0,1].
        reference: (1,3,H,W) in [0,1].
        scales: one unit of c in each attribute, see `attribute_labels`.
        statistics (`dict`, *optional*): of a model whose c are quantiles, see `quantile_labels`.
        iterations (`int`): see `DiffRetouchPipeline.attributes_of`.
        limit (`float`): c stays in [-limit, limit].

    Returns:
        `torch.Tensor`: (4,) float32.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about extrapolation, which `limit` allows
        c = _matched_scores(retouch, measure_attributes(reference), scales, statistics, iterations, limit)
        if is_same_picture(photo, reference):
            c = nearest_attributes(retouch, photo, reference, c, limit=limit, iterations=iterations)
    return c


def _matched_scores(retouch, wanted, scales, statistics, iterations, limit):
    """c (4,) whose result's scores come closest to the `wanted` ones (1,4)."""
    c, gain, before, best = torch.zeros(4), torch.ones(4), torch.zeros(4), (math.inf, None)
    if statistics is not None:
        c = quantile_labels(wanted, statistics)[0].clamp(-limit, limit)
    for _ in range(iterations):
        scores = measure_attributes(retouch(c[None]))
        if statistics is None:
            missing = attribute_labels(wanted[:, None], scores, scales=scales, limit=3.0)[0, 0]
        else:
            reached, asked = (quantile_labels(s, statistics, limit=3.0)[0] for s in (scores, wanted))
            missing = asked - reached
        distance = missing.square().sum().item()
        if distance < best[0]:
            best = distance, c
        gain[missing * before < 0] *= 0.5  # what overshot takes half a step from now on
        c, before = (c + gain * missing).clamp(-limit, limit), missing
    return best[1]


def is_same_picture(photo: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether (1,3,H,W) and (1,3,h,w) show the same picture, however finished: shape and the course of light agree."""
    if not _same_shape(photo.shape[-2:], other.shape[-2:]):
        return False
    small = shrink(photo, 128)
    return gradient_correlation(_resized(other, small.shape[-2:]), small).item() > 0.5


def nearest_attributes(
    retouch: Callable[[torch.Tensor], torch.Tensor],
    photo: torch.Tensor,
    reference: torch.Tensor,
    c: torch.Tensor,
    *,
    limit: float,
    iterations: int = 8,
) -> torch.Tensor:
    """The c near which a retouched photo comes closest to another version of it, at strength 1.

    As `fit_preset`, for one photo: the mean squared CIE 1976 difference of small copies is minimised.

    Args:
        retouch: c (K,4) float32 -> the photo retouched with each, (K,3,h,w), the same for the same c.
        photo: (1,3,h,w) the small copy that `retouch` works on, in [0,1].
        reference: (1,3,H,W) in [0,1], the same picture in any size.
        c (`torch.Tensor`): (4,) where the search begins.
        limit (`float`): c stays in [-limit, limit].
        iterations (`int`): the most Gauss-Newton steps, each of five c.

    Returns:
        `torch.Tensor`: (4,) float32.
    """
    one = _Pair("", photo, srgb_to_lab(_resized(reference, photo.shape[-2:])), retouch)
    start = np.append(c.numpy().astype(np.float64), 1.0)
    found = _fit([one], start, iterations, spread=_SPREAD_OF_ONE, limit=limit)
    return torch.tensor(found[:4], dtype=torch.float32)


def _same_shape(a, b):
    """Whether (H,W) and (h,w) are sides of the same picture, up to the rounding of small exports."""
    return abs(math.log(a[1] * b[0] / (a[0] * b[1]))) <= 0.02


def _resized(photo, size):
    return torch.nn.functional.interpolate(photo, size, mode="bilinear", antialias=True).clamp(0, 1)


def _load_pair(pipe, source, target, size, seed, steps):
    photo, finished = (load_photo(path).pixels for path in (source, target))
    if not _same_shape(photo.shape[:2], finished.shape[:2]):
        raise ValueError(
            f"{str(source)!r} and {str(target)!r} must show the same picture: their sides are {photo.shape[:2]} and "
            f"{finished.shape[:2]}. A cropped photo cannot be learned from."
        )
    small = shrink(as_tensor(photo), size).clamp(0, 1)
    lab = srgb_to_lab(_resized(as_tensor(finished), small.shape[-2:]))

    def retouch(c):
        noise = [torch.Generator().manual_seed(seed_of(source.name, seed)) for _ in c]
        grids = pipe.predict_grid(small, c, num_inference_steps=steps, generator=noise)
        return torch.cat([pipe.apply_grid(small, grid).cpu() for grid in grids])

    return _Pair(source.name, small, lab, retouch)


def _residual(one, retouched, strength):
    """CIELAB differences to the finished photo, (K,3,h,w)."""
    return srgb_to_lab(torch.lerp(one.photo, retouched, float(strength)).clamp(0, 1)) - one.lab


def _error(one, values):
    residual = _residual(one, one.retouch(torch.as_tensor(values[None, :4], dtype=torch.float32)), values[4])
    return residual.square().sum(1).sqrt().mean().item()


def _normal_equations(examples, values):
    """-> of each pair cost (n,), gradient (n,5), Gauss-Newton matrix (n,5,5) at c and strength: means over pixels."""
    costs, gradients, matrices = [], [], []
    signs = np.where(values > 0, -1.0, 1.0)  # towards the middle: within the limits
    for one in examples:
        c = np.repeat(values[None, :4], 5, 0)
        c[range(1, 5), range(4)] += _STEP * signs[:4]
        retouched = one.retouch(torch.as_tensor(c, dtype=torch.float32))
        residuals = _residual(one, retouched, values[4])
        stronger = _residual(one, retouched[:1], values[4] + _STEP * signs[4])
        base = residuals[0].flatten().double()
        moved = torch.cat([residuals[1:], stronger]).flatten(1).double()
        jacobian = ((moved - base) / (_STEP * torch.as_tensor(signs)[:, None])).numpy()  # (5,3hw)
        base, pixels = base.numpy(), base.numel() / 3
        costs.append(float(base @ base) / pixels)
        gradients.append(jacobian @ base / pixels)
        matrices.append(jacobian @ jacobian.T / pixels)
    return np.array(costs), np.array(gradients), np.array(matrices)


def shrink_factor(
    costs: np.ndarray, gradients: np.ndarray, matrices: np.ndarray, factors: Sequence[float] = _FACTORS
) -> float:
    """How many times the prior weighs so that each pair is predicted best from the others.

    Leave-one-out over quadratic models of the pairs' costs, by the root of each pair's mean squared difference.

    Args:
        costs (n,), gradients (n,5), matrices (n,5,5): of every pair's squared colour difference at c = 0, strength 1.
        factors: to choose from; infinity leaves c at 0.

    Returns:
        `float`: the factor; of a single pair the first.
    """
    n = len(costs)
    if n < 2 or len(factors) < 2:
        return factors[0]
    cost, gradient, matrix = (total.sum(0) - total for total in (costs, gradients, matrices))  # of the others
    errors = []
    for factor in factors:
        move = np.zeros((n, 5))
        if math.isfinite(factor):
            prior = factor * cost[:, None] / (n - 1) / _SPREAD**2 + 1e-9
            solved = np.linalg.solve(matrix + prior[:, None] * np.eye(5), gradient[..., None])[..., 0]
            move = np.clip(-solved, _LOW - _NEUTRAL, _HIGH - _NEUTRAL)
        squared = costs + 2 * (gradients * move).sum(1) + np.einsum("ni,nij,nj->n", move, matrices, move)
        errors.append(np.sqrt(np.maximum(squared, 0)).mean())
    return factors[int(np.argmin(errors))]


def _fit(examples, start, iterations, spread=_SPREAD, limit=LIMIT, shrink=1.0, known=None):
    """-> (5,): c and strength. `known`: the pairs' normal equations at `start`."""
    if math.isinf(shrink):
        return _NEUTRAL
    low, high = np.array([-limit] * 4 + [0.0]), np.array([limit] * 4 + [LIMIT])
    values, damping = start, 0.01
    cost, gradient, matrix = (total.sum(0) for total in known or _normal_equations(examples, values))
    for _ in range(iterations):
        # A Gaussian prior: what no setting explains of a pair is noise in what the pair says of the settings.
        prior = shrink * cost / len(examples) / spread**2
        full = matrix + np.diag(prior + 1e-9)
        move = -np.linalg.solve(full + damping * np.diag(np.diag(full)), gradient + prior * (values - _NEUTRAL))
        tried = np.clip(values + move, low, high)
        if np.abs(tried - values).max() < 0.01:
            break
        found = [total.sum(0) for total in _normal_equations(examples, tried)]
        if found[0] + prior @ (tried - _NEUTRAL) ** 2 < cost + prior @ (values - _NEUTRAL) ** 2:
            values, (cost, gradient, matrix), damping = tried, found, damping / 4
        else:
            damping *= 8
    return values
