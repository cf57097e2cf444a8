"""The losses of DiffRetouch: what is drawn for each sample, its labels and targets, and the branches with -c."""

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from diffusers import AutoencoderKL

from diffretouch.attributes import attribute_labels, measure_attributes
from diffretouch.data.unpaired import is_styled
from diffretouch.losses import (
    attribute_loss,
    clipping_loss,
    contrastive_loss,
    daylight_loss,
    grid_smoothness_loss,
    latent_loss,
    latent_target,
    obedience_loss,
    pixel_loss,
    predicted_latents,
    snr_weights,
)
from diffretouch.losses.perceptual import Lpips
from diffretouch.models.csrnet import CSRNet
from diffretouch.models.unet import LATENT_CHANNELS, with_offset
from diffretouch.pixels import shrink
from diffretouch.training.retouch_model import latent_side
from diffretouch.training.sharding import all_must_run


def draw_noise(
    ks: list[int], seed: int, shape: tuple[int, ...], last: int, first_fraction: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Timesteps (B,) and two noises (B,*shape): each sample's by (seed, k) alone, whatever process runs it."""
    timesteps, noise = [], []
    for k in ks:
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 6, k)).generate_state(1)[0]))
        timestep = torch.randint(0, last + 1, (), generator=generator)
        noisiest = torch.rand((), generator=generator) < first_fraction
        timesteps.append(torch.where(noisiest, last, timestep))
        noise.append(torch.randn((2, *shape), generator=generator))
    return torch.stack(timesteps), *torch.stack(noise).unbind(1)


def seen(photo: torch.Tensor, ks: Iterable[int], seed: int, spread: float) -> torch.Tensor:
    """The photos (B,3,H,W) as the UNet sees them in training: tones and white balance a little off.

    Simulated cameras leave clues, such as the very level of black, that tell how to undo them and that camera
    originals do not have. Each sample's gains, gamma and shift come from (seed, k) alone.
    """
    if not spread:
        return photo
    rngs = [np.random.default_rng([seed, 7, k]) for k in ks]
    drawn = photo.new_tensor(np.array([rng.normal(0, spread, 7) for rng in rngs]))[..., None, None]
    gains, gamma, shift = 2 ** drawn[:, :3], 2 ** drawn[:, 3:4], 0.2 * drawn[:, 4:7]
    return (photo**gamma * gains + shift).clamp(0, 1)


def retouch(
    model: torch.nn.Module,
    vae: AutoencoderKL | None,
    scheduler: Any,
    noisy: torch.Tensor,
    view: torch.Tensor,
    photo: torch.Tensor,
    timesteps: torch.Tensor,
    c: torch.Tensor,
    args: argparse.Namespace,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """-> model output, every n-th pixel of the retouched photo (without a grid, the decoded latent), the grid."""
    output, retouched, grid = model(noisy, view, photo, timesteps, c, args.pixel_stride)
    if args.no_grid:
        clean = predicted_latents(scheduler, output.float(), noisy, timesteps)
        retouched = vae.decode(clean / vae.config.scaling_factor).sample.float() / 2 + 0.5
        retouched = retouched[..., :: args.pixel_stride, :: args.pixel_stride]
    return output, retouched, grid


def automatic_labels(
    model: torch.nn.Module,
    vae: AutoencoderKL | None,
    scheduler: Any,
    view: torch.Tensor,
    photo: torch.Tensor,
    target: torch.Tensor,
    c: torch.Tensor,
    ks: list[int],
    noise: torch.Tensor,
    args: argparse.Namespace,
) -> torch.Tensor:
    """c (B,4) as the distance from what the model itself makes of the photo with c = 0 to the target's attributes.

    How a photo should be finished is uncertain, and labels relative to its photographer's finish leave that in the
    target: the model then learns an average. These labels name the target's attributes whatever the model thinks of
    the photo. What c = 0 means is taught by 3 of 4 samples whose target is the photographer's own finish.
    """
    own = [bool(row.any()) or int((k + 1) * 0.75) == int(k * 0.75) for k, row in zip(ks, c, strict=True)]
    known = ~c.isnan().any(1)
    rows = (torch.tensor(own, device=c.device) & known).nonzero()[:, 0]
    labels = torch.where(known[:, None], 0.0, c)
    shown = rows if len(rows) or not all_must_run(model) else rows.new_zeros(1)
    if len(shown):
        last = torch.full((len(shown),), scheduler.config.num_train_timesteps - 1, device=c.device)
        with torch.no_grad():
            some = noise[shown], view[shown], photo[shown], last, torch.zeros_like(c[shown])
            automatic = retouch(model, vae, scheduler, *some, args)[1].clamp(0, 1)
    if len(rows):
        scores = measure_attributes(target[rows])[:, None], measure_attributes(automatic)
        labels[rows] = attribute_labels(*scores, limit=2.5)[:, 0]
    return labels


def taught(target: torch.Tensor, photo: torch.Tensor, c: torch.Tensor, teacher: CSRNet, weight: float) -> torch.Tensor:
    """Targets (B,3,H,W) of which those for c = 0 are moved by `weight` towards the teacher's retouch of the photo.

    A photographer's finish is one of many that the photo allows. A small network without c makes about their mean, by
    few clues, and holds better on camera originals than a UNet, which finds clues that only simulated cameras leave.
    Photos that need nothing keep their target.
    """
    rows = (~c.any(1) & (photo != target).flatten(1).any(1)).nonzero()[:, 0]
    if not len(rows):
        return target
    with torch.no_grad():
        retouched = teacher(photo[rows], shrink(photo[rows], teacher.config.condition_size)).float().clamp(0, 1)
    return target.index_copy(0, rows, torch.lerp(target[rows], retouched, weight))


def branched(args: argparse.Namespace) -> float:
    """The share of the samples that is run again with -c: none where no loss asks for it."""
    asked = args.contrastive_weight or args.obedience_weight or args.daylight_weight
    return args.branch_fraction if asked else 0.0


def training_losses(
    model: torch.nn.Module,
    vae: AutoencoderKL | None,
    scheduler: Any,
    batch: dict[str, Any],
    args: argparse.Namespace,
    perceptual: Lpips | None = None,
    statistics: dict | None = None,
    cache: torch.Tensor | None = None,
    teacher: CSRNet | None = None,
) -> dict[str, torch.Tensor]:
    """The weighted losses of one batch, as a dict. The branches of the last two run in the same forward.

    Args:
        model: a `RetouchModel`, as it was prepared.
        vae, scheduler: as of `build_models`.
        batch (`dict`): of the data set, on the model's device.
        args: of `parse_args`.
        perceptual (`Lpips`, *optional*)
        statistics (`dict`, *optional*): of quantile labels.
        cache (`torch.Tensor`, *optional*): of `cached_latents`.
        teacher (`CSRNet`, *optional*): see `taught`.
    """
    stride = args.pixel_stride
    photo, whole_target, c = batch["input"], batch["target"], batch["c"]
    size, ks = len(photo), batch["k"].tolist()
    unknown = [is_styled(k, args.unknown_share) for k in ks]
    c = torch.where(torch.tensor(unknown, device=c.device)[:, None], torch.nan, c)
    view = seen(photo, ks, args.seed, args.view_spread)
    last = scheduler.config.num_train_timesteps - 1
    side = latent_side(args, vae)
    drawn = draw_noise(ks, args.seed, (LATENT_CHANNELS, side, side), last, args.first_timestep_fraction)
    timesteps, *white = (x.to(photo.device) for x in drawn)
    offset = extract_model_from_parallel(model).settings["noise_offset"]
    noise, other_noise = (with_offset(x, offset) for x in white)
    if args.labels == "automatic":
        shown = whole_target[..., ::stride, ::stride]
        c = automatic_labels(model, vae, scheduler, view, photo, shown, c, ks, other_noise, args)
    if teacher is not None:
        whole_target = taught(whole_target, photo, c, teacher, args.teacher_weight)
    if cache is not None:
        latents = cache[batch["item"].cpu()].to(photo.device)
    elif vae is None:
        latents = torch.zeros_like(noise)  # nothing of them is left at the noisiest timestep
    else:
        with torch.no_grad():
            latents = vae.encode(whole_target * 2 - 1).latent_dist.mean.float() * vae.config.scaling_factor
    target = whole_target[..., ::stride, ::stride]

    # In one forward: the batch; some photos again with -c; and, for an anchor on the output, with other noise. Which
    # photos those are depends on k alone, and their losses are scaled as if every batch had its share of them.
    fraction = branched(args)
    some = [i for i, k in enumerate(ks) if int((k + 1) * fraction) > int(k * fraction) and not unknown[i]]
    more = 2 if args.contrastive_anchor == "output" else 1
    repeat = lambda x: torch.cat([x] + [x[some]] * more)  # noqa: E731
    all_c = torch.cat([c, -c[some], c[some]][: 1 + more])
    all_noise = torch.cat([noise, noise[some], other_noise[some]][: 1 + more])
    all_timesteps = repeat(timesteps)
    noisy = scheduler.add_noise(repeat(latents), all_noise, all_timesteps)
    views = repeat(view), repeat(photo)
    output, retouched, grid = retouch(model, vae, scheduler, noisy, *views, all_timesteps, all_c, args)

    mask = 1 + (args.mask_weight - 1) * batch["mask"][..., ::stride, ::stride] if "mask" in batch else None
    losses = {}
    if vae is not None:
        wanted = latent_target(scheduler, latents, noise, timesteps)
        weights = snr_weights(scheduler, timesteps, args.snr_gamma) if args.snr_gamma else None
        losses["latent"] = args.latent_weight * latent_loss(output[:size], wanted, weights)
    losses |= {
        "pixel": args.pixel_weight * pixel_loss(retouched[:size], target, args.pixel_l1_weight, mask),
        "attribute": args.attribute_weight * attribute_loss(retouched[:size], target, statistics=statistics),
    }
    if perceptual is not None:
        losses["lpips"] = args.lpips_weight * perceptual(retouched[:size].float(), target).mean()
    if args.clipping_weight:
        losses["clipping"] = args.clipping_weight * clipping_loss(retouched[:size], target)
    if args.grid_smoothness_weight and grid is not None:
        losses["smoothness"] = args.grid_smoothness_weight * grid_smoothness_loss(grid[:size])
    if fraction:
        losses |= dict.fromkeys(("contrastive", "obedience"), retouched.new_zeros(()))
        losses |= {"daylight": retouched.new_zeros(())} if args.daylight_weight else {}
    if some:
        own, opposite = retouched[some], retouched[size : size + len(some)]
        anchor, positive = (target[some], own) if more == 1 else (own, retouched[size + len(some) :])
        share = len(some) / (size * fraction)
        contrast = contrastive_loss(anchor, positive, opposite, c[some], tau=args.contrastive_tau)
        obedience = obedience_loss(own, opposite, c[some], statistics=statistics)
        losses["contrastive"] = args.contrastive_weight * share * contrast
        losses["obedience"] = args.obedience_weight * share * obedience
        if args.daylight_weight:
            losses["daylight"] = args.daylight_weight * share * daylight_loss(own, opposite, target[some])
    return losses
