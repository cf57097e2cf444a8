"""A preset fitted to a photographer's own pairs of untouched and finished photos."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.metrics import srgb_to_lab
from diffretouch.photo import load_photo
from diffretouch.pixels import as_tensor, shrink
from diffretouch.settings import Settings, seed_of

LIMIT = 1.5  # c beyond the trained [-1,1], as in `attributes_of`
_STEP = 0.1  # of c and strength, for differences
_FOLDS = 5
_SPREAD = np.array([0.5, 0.5, 0.5, 0.5, 0.25])  # of c and strength among looks, around c = 0 and strength 1


@dataclass
class Fit:
    """What `fit_preset` found. Errors are mean CIE 1976 colour differences to the finished photos.

    Attributes:
        settings: c, strength, seed and steps.
        untouched: error of the photos as they are.
        automatic: error of the model without the preset (c = 0, strength 1).
        fitted: error with the preset, on the very pairs that it was fitted to.
        held_out: error on pairs left out in turn, with what was fitted to the others; None for a single pair.
        photos: a row for each pair: `photo`, `untouched`, `automatic`, `fitted`.
    """

    settings: Settings
    untouched: float
    automatic: float
    fitted: float
    held_out: float | None
    photos: list[dict]


@dataclass
class _Pair:
    name: str
    photo: torch.Tensor  # (1,3,h,w)
    lab: torch.Tensor  # (1,3,h,w) of the finished photo
    seed: int


@torch.no_grad()
def fit_preset(pipe, pairs, *, seed=0, steps=None, size=256, iterations=8):
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
    if not hasattr(pipe, "predict_grid"):
        raise ValueError(
            f"`pipe` must be a pipeline with sliders, got {type(pipe).__name__}: it has nothing to learn."
        )
    if not pairs:
        raise ValueError("`pairs` must hold at least one pair, got none.")
    steps = steps or pipe.config.default_steps
    examples = [_load_pair(source, target, size, seed) for source, target in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about extrapolation, within LIMIT
        return _fit_and_judge(pipe, examples, seed, steps, iterations)


def _fit_and_judge(pipe, examples, seed, steps, iterations):
    neutral = np.array([0.0, 0, 0, 0, 1])
    found = _fit(pipe, examples, neutral, steps, iterations)
    photos, held_out = [], None
    for one in examples:
        errors = {name: _error(pipe, one, values, steps) for name, values in
                  (("untouched", neutral * 0), ("automatic", neutral), ("fitted", found))}  # fmt: skip
        photos.append({"photo": one.name, **errors})
    if len(examples) > 1:
        folds, errors = min(len(examples), _FOLDS), []
        for fold in range(folds):
            others = [one for n, one in enumerate(examples) if n % folds != fold]
            values = _fit(pipe, others, neutral, steps, iterations)
            errors += [_error(pipe, one, values, steps) for one in examples[fold::folds]]
        held_out = sum(errors) / len(errors)
    mean = {name: sum(row[name] for row in photos) / len(photos) for name in ("untouched", "automatic", "fitted")}
    c = {name: round(float(value), 3) for name, value in zip(ATTRIBUTES, found, strict=False)}
    settings = Settings(c=c, strength=round(float(found[4]), 3), seed=seed, steps=steps)
    return Fit(settings, **mean, held_out=held_out, photos=photos)


def _load_pair(source, target, size, seed):
    photo, finished = (load_photo(path).pixels for path in (source, target))
    ratio = math.log(photo.shape[1] * finished.shape[0] / (photo.shape[0] * finished.shape[1]))
    if abs(ratio) > 0.02:
        raise ValueError(
            f"{str(source)!r} and {str(target)!r} must show the same picture: their sides are {photo.shape[:2]} and "
            f"{finished.shape[:2]}. A cropped photo cannot be learned from."
        )
    small = shrink(as_tensor(photo), size).clamp(0, 1)
    lab = srgb_to_lab(torch.nn.functional.interpolate(
        as_tensor(finished), small.shape[-2:], mode="bilinear", antialias=True).clamp(0, 1))  # fmt: skip
    return _Pair(source.name, small, lab, seed_of(source.name, seed))


def _retouches(pipe, one, c, steps):
    """(K,4) -> (K,3,h,w): a pair's photo at strength 1 with each c, all from its noise."""
    generators = [torch.Generator().manual_seed(one.seed) for _ in c]
    grids = pipe.predict_grid(one.photo, torch.as_tensor(c, dtype=torch.float32), num_inference_steps=steps,
                              generator=generators)  # fmt: skip
    return torch.cat([pipe.apply_grid(one.photo, grid).cpu() for grid in grids])


def _residual(one, retouched, strength):
    """CIELAB differences to the finished photo, (K,3,h,w)."""
    return srgb_to_lab(torch.lerp(one.photo, retouched, float(strength)).clamp(0, 1)) - one.lab


def _error(pipe, one, values, steps):
    residual = _residual(one, _retouches(pipe, one, values[None, :4], steps), values[4])
    return residual.square().sum(1).sqrt().mean().item()


def _normal_equations(pipe, examples, values, steps):
    """-> cost, gradient (5,) and Gauss-Newton matrix (5,5) at c and strength, each pair's mean over its pixels."""
    cost, gradient, matrix = 0.0, np.zeros(5), np.zeros((5, 5))
    signs = np.where(values > 0, -1.0, 1.0)  # towards the middle: within the limits
    for one in examples:
        c = np.repeat(values[None, :4], 5, 0)
        c[range(1, 5), range(4)] += _STEP * signs[:4]
        retouched = _retouches(pipe, one, c, steps)
        residuals = _residual(one, retouched, values[4])
        stronger = _residual(one, retouched[:1], values[4] + _STEP * signs[4])
        base = residuals[0].flatten().double()
        moved = torch.cat([residuals[1:], stronger]).flatten(1).double()
        jacobian = ((moved - base) / (_STEP * torch.as_tensor(signs)[:, None])).numpy()  # (5,3hw)
        base, pixels = base.numpy(), base.numel() / 3
        cost += float(base @ base) / pixels
        gradient += jacobian @ base / pixels
        matrix += jacobian @ jacobian.T / pixels
    return cost, gradient, matrix


def _fit(pipe, examples, neutral, steps, iterations):
    """-> (5,): c and strength."""
    low, high = np.array([-LIMIT] * 4 + [0.0]), np.array([LIMIT] * 4 + [LIMIT])
    values, damping = neutral, 0.01
    cost, gradient, matrix = _normal_equations(pipe, examples, values, steps)
    for _ in range(iterations):
        # A Gaussian prior: what no setting explains of a pair is noise in what the pair says of the settings.
        prior = cost / len(examples) / _SPREAD**2
        full = matrix + np.diag(prior + 1e-9)
        move = -np.linalg.solve(full + damping * np.diag(np.diag(full)), gradient + prior * (values - neutral))
        tried = np.clip(values + move, low, high)
        if np.abs(tried - values).max() < 0.01:
            break
        found = _normal_equations(pipe, examples, tried, steps)
        if found[0] + prior @ (tried - neutral) ** 2 < cost + prior @ (values - neutral) ** 2:
            values, (cost, gradient, matrix), damping = tried, found, damping / 4
        else:
            damping *= 8
    return values
