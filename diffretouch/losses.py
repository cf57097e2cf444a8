"""The losses that train a retouching UNet and its grid head."""

import torch.nn.functional as F

from diffretouch.attributes import ATTRIBUTE_SCALES, attribute_coordinates, attribute_labels, measure_attributes


def latent_target(scheduler, latents, noise, timesteps):
    """What the scheduler's half of the UNet's output must be: noise, velocity or sample, by `prediction_type`."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f'`prediction_type` must be "epsilon", "v_prediction" or "sample", got {kind!r}.')


def latent_loss(prediction, target):
    """||prediction - target||^2, mean: the first term of DiffRetouch's L_rec."""
    return F.mse_loss(prediction.float(), target.float())


def pixel_loss(retouched, target, l1_weight=0.0):
    """||D_t - X_0||^2, mean, photos in [0,1]: the second term of DiffRetouch's L_rec.

    Its weight beta is 0.01 in the paper and 1 in the released code, there on [-1,1], which makes each value 4x ours.
    `l1_weight` adds a mean absolute error, which an outlier pulls less.
    """
    loss = F.mse_loss(retouched.float(), target.float())
    return loss + l1_weight * F.l1_loss(retouched.float(), target.float()) if l1_weight else loss


def attribute_loss(retouched, target, scales=ATTRIBUTE_SCALES):
    """How far the retouched photo's attributes lie from the target's, in units of c: mean smooth L1. Ours."""
    wanted = measure_attributes(target.float())
    missing = attribute_labels(measure_attributes(retouched.float())[:, None], wanted, scales=scales, limit=4.0)
    return F.smooth_l1_loss(missing, missing.new_zeros(missing.shape), beta=0.5)


def obedience_loss(own, opposite, c, scales=ATTRIBUTE_SCALES):
    """Whether the outputs for c and for -c lie 2c apart in their attributes: mean smooth L1, in units of c. Ours.

    Both come from the same photo, so how it should be finished cancels out, and what is left is whether the sliders
    move what they name, as far as they say, and nothing else. It teaches them much faster than targets do.

    Args:
        own, opposite: (B,3,H,W) outputs for c and for -c, in [0,1].
        c: (B,4) in the order of `ATTRIBUTES`.
    """
    scores = measure_attributes(own.float()), measure_attributes(opposite.float())
    moved = attribute_labels(scores[1][:, None], scores[0], scales=scales, limit=8.0)[:, 0]
    return F.smooth_l1_loss(moved, -2 * c, beta=0.5)


def contrastive_loss(anchor, positive, negative, c, *, tau=0.1, scales=ATTRIBUTE_SCALES):
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
