"""The losses that train a retouching UNet and its grid head."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from diffretouch.attributes import (
    ATTRIBUTE_SCALES,
    attribute_coordinates,
    attribute_labels,
    measure_attributes,
    quantile_labels,
)

if TYPE_CHECKING:
    from diffusers import SchedulerMixin


def latent_target(
    scheduler: "SchedulerMixin", latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What the scheduler's half of the UNet's output must be: noise, velocity or sample, by `prediction_type`."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f'`prediction_type` must be "epsilon", "v_prediction" or "sample", got {kind!r}.')


def predicted_latents(
    scheduler: "SchedulerMixin", output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The clean latents that a model output stands for: `latent_target` turned round.

    At zero SNR the noise alone says nothing of them: "epsilon" needs a schedule that ends above it.
    """
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return output
    alpha = scheduler.alphas_cumprod.to(noisy.device, noisy.dtype)[timesteps][:, None, None, None]
    if kind == "epsilon":
        return (noisy - (1 - alpha).sqrt() * output) / alpha.sqrt()
    if kind == "v_prediction":
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * output
    raise ValueError(f'`prediction_type` must be "epsilon", "v_prediction" or "sample", got {kind!r}.')


def snr_weights(scheduler: "SchedulerMixin", timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights (B,) of the latent loss (Hang et al., ICCV 2023): min(SNR, gamma) for a prediction of x_0.

    For the noise that is min(SNR, gamma) / SNR, for velocity min(SNR, gamma) / (SNR + 1). The noisiest timestep of a
    schedule with zero terminal SNR weighs 0 for velocity and 1 for the noise.
    """
    if not gamma > 0:
        raise ValueError(f"`gamma` must be above 0, got {gamma!r}.")
    alpha = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha / (1 - alpha)
    divisor = {"epsilon": snr.clamp(min=1e-12), "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    kind = scheduler.config.prediction_type
    return (snr.clamp(max=gamma).clamp(min=1e-12) if kind == "epsilon" else snr.clamp(max=gamma)) / divisor[kind]


def latent_loss(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """||prediction - target||^2, mean: the first term of DiffRetouch's L_rec.

    `weights` (B,) weigh the samples, see `snr_weights`.
    """
    if weights is None:
        return F.mse_loss(prediction.float(), target.float())
    errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return (weights.to(errors) * errors).mean()


def pixel_loss(
    retouched: torch.Tensor, target: torch.Tensor, l1_weight: float = 0.0, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """||D_t - X_0||^2, mean, photos in [0,1]: the second term of DiffRetouch's L_rec.

    Its weight beta is 0.01 in the paper and 1 in the released code, there on [-1,1], which makes each value 4x ours.
    `l1_weight` adds a mean absolute error, which an outlier pulls less. `weights` (B,1,H,W) weigh the pixels, e.g.
    those of people more; they are not normalised.
    """
    difference = retouched.float() - target.float()
    loss = difference.square() + l1_weight * difference.abs() if l1_weight else difference.square()
    return (loss if weights is None else loss * weights.to(loss)).mean()


def clipping_loss(retouched: torch.Tensor, target: torch.Tensor, margin: float = 1.5 / 255) -> torch.Tensor:
    """How far a retouched photo leaves [margin, 1 - margin] where its target does not, mean over all values. Ours.

    The pixel loss takes light lost at black or white for an error like any other; the eye does not.
    """
    target, retouched = target.float(), retouched.float()
    below = (margin - retouched).clamp(min=0) * (target > margin)
    above = (retouched - 1 + margin).clamp(min=0) * (target < 1 - margin)
    return (below + above).mean()


def grid_smoothness_loss(grid: torch.Tensor) -> torch.Tensor:
    """Mean squared step between neighbouring cells of a grid (B,12,D,gh,gw), summed over its three directions. Ours.

    A smooth grid makes no halos at its cells' borders; the UNet rarely needs to be told so.
    """
    steps = (grid.float().diff(dim=dim) for dim in (2, 3, 4) if grid.shape[dim] > 1)
    return sum((step.square().mean() for step in steps), grid.new_zeros(()).float())


def _moved(scores, reference, scales, statistics, limit):
    """How far scores (B,4) lie from others (B,4), in units of c, by the kind of labels."""
    if statistics is None:
        return attribute_labels(scores[:, None], reference, scales=scales, limit=limit)[:, 0]
    labels = (quantile_labels(x, statistics, limit=limit) for x in (scores, reference))
    return next(labels) - next(labels)


def attribute_loss(
    retouched: torch.Tensor,
    target: torch.Tensor,
    scales: Sequence[float] = ATTRIBUTE_SCALES,
    statistics: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """How far the retouched photo's attributes lie from the target's, in units of c: mean smooth L1. Ours.

    `statistics` are those of quantile labels, see `quantile_labels`.
    """
    scores = measure_attributes(retouched.float()), measure_attributes(target.float())
    missing = _moved(*scores, scales, statistics, 4.0)
    return F.smooth_l1_loss(missing, missing.new_zeros(missing.shape), beta=0.5)


def obedience_loss(
    own: torch.Tensor,
    opposite: torch.Tensor,
    c: torch.Tensor,
    scales: Sequence[float] = ATTRIBUTE_SCALES,
    statistics: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Whether the outputs for c and for -c lie 2c apart in their attributes: mean smooth L1, in units of c. Ours.

    Both come from the same photo, so how it should be finished cancels out, and what is left is whether the sliders
    move what they name, as far as they say, and nothing else. It teaches them much faster than targets do.

    Args:
        own, opposite: (B,3,H,W) outputs for c and for -c, in [0,1].
        c: (B,4) in the order of `ATTRIBUTES`.
        statistics (*optional*): those of quantile labels, see `quantile_labels`.
    """
    scores = measure_attributes(opposite.float()), measure_attributes(own.float())
    return F.smooth_l1_loss(_moved(*scores, scales, statistics, 8.0), -2 * c, beta=0.5)


def daylight_loss(own: torch.Tensor, opposite: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Whether whites stay between green and pink in the outputs for c and for -c: mean smooth L1, per 0.1 stops. Ours.

    The four attributes leave that open: the score of temperature asks for red and blue alone. On Planck's line from
    4,000 to 10,000 K, log2 G of linear sRGB lies 0.12 log2(R/B) above the mean of red's and blue's; what a white has
    beside that is its tint, and no c changes it. Whites are pixels that are near grey in the mean of both outputs.

    Args:
        own, opposite, target: (B,3,H,W) outputs for c and for -c, and the target for c, in [0,1].
    """
    grey = ((own + opposite) / 2).detach().float().clamp(0, 1)
    chroma = grey.amax(1, keepdim=True) - grey.amin(1, keepdim=True)
    white = grey.mean(1, keepdim=True) * torch.exp(-((chroma / 0.08) ** 2))

    def tint(photo):
        mean = (photo.float().clamp(0, 1) * white).sum((2, 3)) / (white.sum((2, 3)) + 1e-6)
        red, green, blue = (2.2 * (mean + 0.02).log2()).unbind(1)
        return 10 * (green - (red + blue) / 2 - 0.12 * (red - blue))

    wanted, there = tint(target), (white.mean((1, 2, 3)) / 0.02).clamp(max=1)
    away = [F.smooth_l1_loss(tint(photo), wanted, beta=0.5, reduction="none") for photo in (own, opposite)]
    return (there * sum(away)).mean()


def contrastive_loss(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    c: torch.Tensor,
    *,
    tau: float = 0.1,
    scales: Sequence[float] = ATTRIBUTE_SCALES,
) -> torch.Tensor:
    """The contrastive loss of DiffRetouch, which makes the attributes obey c.

    L_cl = sum over attributes i with c_i != 0 of -log( e^(-|s-s+|/tau) / (e^(-|s-s+|/tau) + e^(-|s-s-|/tau)) )
         = softplus((|s_i - s_i+| - |s_i - s_i-|) / tau), mean over the batch,

    with s the scores of the anchor, s+ of an output for c, s- of the output for -c. In the paper's text the anchor is
    the output for c under other noise, in its figure the target. Only the target says which way an attribute has to
    move: with the output as anchor, a slider that runs backwards satisfies the loss as well. The paper does not say
    how scores are normalised: here they are `attribute_coordinates` in units of c.

    Args:
        anchor, positive, negative: (B,3,H,W) photos in [0,1].
        c: (B,4) in the order of `ATTRIBUTES`.
    """
    s, s_positive, s_negative = (
        attribute_coordinates(measure_attributes(photo.float())) / c.new_tensor(scales)
        for photo in (anchor, positive, negative)
    )
    per_attribute = F.softplus(((s - s_positive).abs() - (s - s_negative).abs()) / tau)
    return (per_attribute * (c != 0)).sum(1).mean()
