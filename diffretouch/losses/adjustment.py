"""The losses of SA-AdjustNet. Lab colours in units of 100, in which the paper's Huber delta of 0.04 makes sense."""

import torch
import torch.nn.functional as F

HUBER_DELTA = 0.04


def colour_error(
    estimate: torch.Tensor, target: torch.Tensor, kind: str = "huber", delta: float = HUBER_DELTA
) -> torch.Tensor:
    """Per-pixel error (...): the sum over L, a and b of squares ("mse") or of Huber's function ("huber")."""
    if kind not in ("mse", "huber"):
        raise ValueError(f'`kind` must be "mse" or "huber", got {kind!r}.')
    target = target.expand_as(estimate)
    if kind == "mse":
        return F.mse_loss(estimate, target, reduction="none").sum(-1)
    return F.huber_loss(estimate, target, reduction="none", delta=delta).sum(-1)


def preset_weights(usage: torch.Tensor, influence: float = 0.8) -> torch.Tensor:
    """Class weights (K,): 1 - influence + influence * K * usage, so that presets in rare use cost less.

    The paper says that low-frequency classes get smaller weights, so that small classes can appear, and gives 0.8
    for the coefficient of their influence; the form, with mean 1 over equal use, is ours.
    """
    return 1 - influence + influence * len(usage) * usage


def moved_usage(usage: torch.Tensor, probabilities: torch.Tensor, momentum: float = 0.99) -> torch.Tensor:
    """The moving average of how often each preset is chosen, (K,), after a batch of probabilities (...,K)."""
    now = probabilities.detach().flatten(0, -2).mean(0)
    return momentum * usage + (1 - momentum) * now / now.sum()


def adjustment_loss(
    estimates: torch.Tensor, probabilities: torch.Tensor | None, target: torch.Tensor, *, kind: str = "huber",
    delta: float = HUBER_DELTA, usage: torch.Tensor | None = None, influence: float = 0.8, mixture: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """The regression loss, a scalar: the mean over pixels, and with presets the exact expectation over the choice.

    mean of sum_k w_k p_k error(estimate_k, target): an upper bound of the negative log likelihood (ours, from the
    text). No gradient flows through the class weights. `mixture` puts as much of another loss in its place,

        mean of error(sum_k p_k estimate_k, target)

    for a map that is used softly: between two regions it may say both, where the expectation drives it to one.

    Args:
        estimates: (B,P,3), or (B,P,K,3) with presets.
        probabilities: (B,P,K) or `None`.
        target: (B,P,3).
        usage: (K,), see `moved_usage`; `None` weighs all presets alike.
        mixture (`float`): in [0,1]; 0 is the paper's loss.
    """
    if probabilities is None:
        return colour_error(estimates, target, kind, delta).mean()
    weights = preset_weights(usage.detach(), influence) if usage is not None else 1
    errors = weights * probabilities * colour_error(estimates, target[..., None, :], kind, delta)
    loss = errors.sum(-1).mean()
    if not mixture:
        return loss
    mixed = (probabilities[..., None] * estimates).sum(-2)
    return torch.lerp(loss, colour_error(mixed, target, kind, delta).mean(), mixture)


def scene_loss(logits: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of scene parsing, (B,P,classes) against (B,P) int64; -1 is unknown. 0 where nothing is known."""
    known = scene >= 0
    if not known.any():
        return logits.sum() * 0
    return F.cross_entropy(logits[known], scene[known])
