"""Train DiffRetouch: from a folder of finished photos, by simulated experts, or from experts' pairs.

accelerate launch training/train_diffretouch.py --train_data_dir PHOTOS --vae AUTOENCODER --output_dir runs/small
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.logging import get_logger
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes
from diffretouch.data.unpaired import is_styled
from diffretouch.losses import (
    attribute_loss,
    clipping_loss,
    contrastive_loss,
    grid_smoothness_loss,
    latent_loss,
    latent_target,
    obedience_loss,
    pixel_loss,
    predicted_latents,
    snr_weights,
)
from diffretouch.losses.perceptual import Lpips
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    SMALL_UNET,
    build_retouch_unet,
    denoise,
    freeze_dead_attention,
    knows_the_unknown,
    unet_thumbnail,
)
from diffretouch.pipelines.pipeline_csrnet import CSRNetPipeline
from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.pixels import shrink
from diffretouch.training.checkpoints import (
    WRITE_ERRORS,
    ema_weights,
    resume,
    save_checkpoint,
    stop_agreed,
    stop_signals,
    write_model,
)
from diffretouch.training.latents import cached_latents, check_cacheable
from diffretouch.training.launch import add_launch_arguments, check_launch_arguments, start
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.log import TRACKERS, Log, check_trackers
from diffretouch.training.model_card import model_card, open_repository, push
from diffretouch.training.pairs import add_pair_arguments, batches, statistics_for, verify_if_asked
from diffretouch.training.validation import validate

logger = get_logger(__name__)

# Zero terminal SNR (Lin et al., WACV 2024): the first step of a sampler then sees pure noise, as in training, and the
# brightness of the result does not lean towards that of the noise.
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pair_arguments(parser)
    add("--vae", help="autoencoder that makes the latents: a directory or Hub id; default: the Stable Diffusion's own")
    add(
        "--pretrained_model_name_or_path",
        help="Stable Diffusion to start from; without it, the small UNet from scratch",
    )
    add("--init", help="DiffRetouchPipeline to go on from, such as small, with its own schedule, tokens and head")
    add("--resolution", type=int, default=128, help="side of the training crops: 4x (small) or 8x the latents'")
    add("--pixel_stride", type=int, default=1, help="pixel and attribute losses see every n-th row and column")
    add("--view_spread", type=float, default=0.0, help="how far off in tone the UNet sees photos; 0.1 is much")
    add("--teacher", help="a trained CSRNet: part of what the retouch for c = 0 is to be, see `taught`")
    add("--teacher_weight", type=float, default=0.5, help="which part of it, in (0, 1]")
    add("--attribute_tokens", type=int, choices=[1, 4], default=1, help="1 is the paper's: c; 4: one per attribute")
    add("--sampling_steps", type=int, help="of the saved model, for several samples of unknown attributes")
    add("--unknown_share", type=float, default=0.25, help="of the samples: c unknown, so that the noise means style")
    add("--no_grid", action="store_true", help="ablation: the photo is the decoded latent, no grid is predicted")
    add("--cache_latents", action="store_true", help="encode targets once; needs targets that stay: --whole_photos")
    add("--train_batch_size", type=int, default=16, help="of each process")
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--gradient_checkpointing", action="store_true")
    add("--learning_rate", type=float, default=1e-3)
    add("--lr_scheduler", default="cosine")
    add("--lr_warmup_steps", type=int, default=200)
    add("--max_grad_norm", type=float, default=1.0)
    add("--weight_decay", type=float, default=1e-2)
    add("--use_8bit_adam", action="store_true", help="moments in 8 bits, by bitsandbytes")
    add("--latent_weight", type=float, default=1.0)
    add("--snr_gamma", type=float, help="min-SNR weighting of the latent loss; 5 is usual")
    add("--pixel_weight", type=float, default=8.0, help="beta: 0.04 and 4 here are the paper's 0.01, the code's 1")
    add("--pixel_l1_weight", type=float, default=0.5)
    add("--mask_weight", type=float, default=1.0, help="with --use_masks: people's pixels weigh so much (PPR10K: 5)")
    add("--lpips_weight", type=float, default=0.0)
    add("--lpips_weights", help="safetensors file of LPIPS, see diffretouch.losses.perceptual.Lpips")
    add("--clipping_weight", type=float, default=0.0, help="of light lost at black and white that the target keeps")
    add("--clipping_limit", type=float, help="of the saved model, see DiffRetouchPipeline; training has no limit")
    add("--grid_smoothness_weight", type=float, default=0.0)
    add("--attribute_weight", type=float, default=0.2)
    add("--obedience_weight", type=float, default=4.0)
    add("--contrastive_weight", type=float, default=0.02, help="1 in the paper, 0 leaves the contrastive loss out")
    add("--branch_fraction", type=float, default=0.5, help="share of the samples that is run again for the last two")
    add(
        "--contrastive_anchor",
        choices=["target", "output"],
        default="target",
        help="whose scores the loss starts from; the output's leave the direction of an attribute open",
    )
    add("--contrastive_tau", type=float, default=0.1)
    add("--first_timestep_fraction", type=float, default=0.5, help="share of samples at the noisiest timestep")
    add("--ema_decay", type=float, default=0.998)
    add("--dataloader_num_workers", type=int, default=1)
    add("--report_to", nargs="+", choices=TRACKERS, default=[], help="beside log.jsonl, which is always written")
    add("--validation_dir", help="photos on which the model is shown while it learns")
    add("--validation_steps", type=int, default=500)
    add("--push_to_hub", action="store_true")
    add("--hub_model_id", help="default: the name of the output folder")
    add("--hub_private", action="store_true")
    add_launch_arguments(parser, steps=3600)
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    for name in ("train_batch_size", "gradient_accumulation_steps", "pixel_stride", "resolution"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 0 < args.branch_fraction <= 1:
        parser.error(f"--branch_fraction must lie in (0, 1], got {args.branch_fraction}")
    if not 0 <= args.unknown_share < 1:
        parser.error(f"--unknown_share must lie in [0, 1), got {args.unknown_share}")
    if not 0 < args.teacher_weight <= 1:
        parser.error(f"--teacher_weight must lie in (0, 1], got {args.teacher_weight}")
    if args.teacher and args.cache_latents:
        parser.error("--cache_latents is for targets that stay, which those of --teacher do not")
    if args.clipping_limit is not None and not 0 <= args.clipping_limit < 1:
        parser.error(f"--clipping_limit must lie in [0, 1), got {args.clipping_limit}")
    if args.mask_weight != 1 and not args.use_masks:
        parser.error("--mask_weight is for --use_masks")
    if args.lpips_weight and not args.lpips_weights:
        parser.error("--lpips_weight needs --lpips_weights: a file that diffretouch.losses.perceptual.Lpips describes")
    if not (args.vae or args.pretrained_model_name_or_path or args.verify):
        parser.error("--vae is needed for a training from scratch: training/train_autoencoder.py makes one")
    if args.init and args.pretrained_model_name_or_path:
        parser.error("--init and --pretrained_model_name_or_path are two starts, only one can be had")
    return args


class RetouchModel(torch.nn.Module):
    """UNet and grid head as one module, so that data-parallel training sees all gradients in one forward."""

    def __init__(self, unet, grid_head=None):
        super().__init__()
        self.unet, self.grid_head = unet, grid_head
        freeze_dead_attention(unet)

    def forward(self, latents, view, photo, timesteps, c, stride=1):
        """-> model output for the scheduler (B,4,h,w), every n-th pixel of the retouched photo, not clamped, the grid.

        `view` is the photo as the UNet's thumbnail shows it, see `seen`. Without a grid head the last two are `None`.
        """
        thumbnail = unet_thumbnail(view, self.unet.config)
        output, affine_latent = denoise(self.unet, latents, thumbnail, timesteps, c)
        if self.grid_head is None:
            return output, None, None
        grid = self.grid_head(affine_latent)
        return output, self.grid_head.apply_reference(grid, photo[..., ::stride, ::stride]), grid


def build_models(args):
    """-> model to train, frozen autoencoder, noise schedule."""
    name = args.pretrained_model_name_or_path
    vae = AutoencoderKL.from_pretrained(args.vae or name, subfolder=None if args.vae else "vae", use_safetensors=True)
    side = latent_side(args, vae)
    strides, token_width = (2, 2) if side >= 64 else (2, 1), 5 if args.unknown_share else 4  # 4 is the paper's
    if args.attribute_tokens == 4:
        token_width = 8
    if args.init:
        pipe = load_start(args.init, args.no_grid)
        unet, scheduler = pipe.unet, pipe.scheduler
        if args.clipping_limit is None:
            args.clipping_limit = pipe.config.clipping_limit  # the model keeps its own
    elif name:
        base = UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True)
        # What its UNet was trained to predict; from pure noise, which "leading" spacing does not begin with
        scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler", timestep_spacing="trailing")
        unet = build_retouch_unet(base, cross_attention_dim=token_width)
    else:
        scheduler = DDIMScheduler(**SCHEDULER)
        unet = UNet2DConditionModel(**SMALL_UNET | {"cross_attention_dim": token_width, "sample_size": side})
    if unet.config.sample_size != side:
        raise SystemExit(
            f"`--resolution` {args.resolution} makes latents of {side} px by this autoencoder, the UNet takes "
            f"{unet.config.sample_size} px."
        )
    if args.unknown_share and not knows_the_unknown(unet.config):
        raise SystemExit(f"`--init` {args.init} has no token for unknown attributes: use `--unknown_share 0`.")
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if args.no_grid:
        head = None
    elif args.init:
        head = pipe.grid_head
    else:
        affine_channels = unet.config.out_channels - LATENT_CHANNELS
        head = AffineGridHead(latent_channels=affine_channels, splat_strides=strides, residual=True)
    return RetouchModel(unet, head), vae.requires_grad_(False), scheduler


def latent_side(args, vae):
    """Pixels along the side of the latents of a training crop."""
    return args.resolution // 2 ** (len(vae.config.block_out_channels) - 1)


def load_start(name, no_grid):
    """A pipeline to go on from: c must mean there what it means in training."""
    pipe = DiffRetouchPipeline.from_pretrained(name)
    config = pipe.config
    if list(config.attribute_order) != list(ATTRIBUTES) or set(config.attribute_signs) != {1}:
        raise SystemExit(f"`--init` {name} has attributes of another order or sign than training.")
    if (pipe.grid_head is None) != no_grid:
        raise SystemExit(f"`--init` {name} has {'no' if pipe.grid_head is None else 'a'} grid head: see `--no_grid`.")
    return pipe


def load_teacher(name):
    """A frozen CSRNet that reads sRGB, as training does."""
    network = CSRNetPipeline.from_pretrained(name).network.requires_grad_(False)
    if network.config.input_space != "srgb":
        raise SystemExit(f"`--teacher` must read sRGB, {name} reads {network.config.input_space}.")
    return network


def build_optimizer(args, parameters):
    """AdamW, with moments in 8 bits where that was asked for."""
    adam = torch.optim.AdamW
    if args.use_8bit_adam:
        try:
            from bitsandbytes.optim import AdamW8bit as adam
        except (ImportError, RuntimeError) as error:
            raise SystemExit(f"`--use_8bit_adam` needs bitsandbytes and a GPU that it supports: {error}") from error
    return adam(parameters, args.learning_rate, weight_decay=args.weight_decay)


def draw_noise(ks, seed, shape, last, first_fraction):
    """Timesteps (B,) and two noises (B,*shape): each sample's by (seed, k) alone, whatever process runs it."""
    timesteps, noise = [], []
    for k in ks:
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 6, k)).generate_state(1)[0]))
        timestep = torch.randint(0, last + 1, (), generator=generator)
        noisiest = torch.rand((), generator=generator) < first_fraction
        timesteps.append(torch.where(noisiest, last, timestep))
        noise.append(torch.randn((2, *shape), generator=generator))
    return torch.stack(timesteps), *torch.stack(noise).unbind(1)


def seen(photo, ks, seed, spread):
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


def retouch(model, vae, scheduler, noisy, view, photo, timesteps, c, args):
    """-> model output, every n-th pixel of the retouched photo (without a grid, the decoded latent), the grid."""
    output, retouched, grid = model(noisy, view, photo, timesteps, c, args.pixel_stride)
    if args.no_grid:
        clean = predicted_latents(scheduler, output.float(), noisy, timesteps)
        retouched = vae.decode(clean / vae.config.scaling_factor).sample.float() / 2 + 0.5
        retouched = retouched[..., :: args.pixel_stride, :: args.pixel_stride]
    return output, retouched, grid


def automatic_labels(model, vae, scheduler, view, photo, target, c, ks, noise, args):
    """c (B,4) as the distance from what the model itself makes of the photo with c = 0 to the target's attributes.

    How a photo should be finished is uncertain, and labels relative to its photographer's finish leave that in the
    target: the model then learns an average. These labels name the target's attributes whatever the model thinks of
    the photo. What c = 0 means is taught by 3 of 4 samples whose target is the photographer's own finish.
    """
    own = [bool(row.any()) or int((k + 1) * 0.75) == int(k * 0.75) for k, row in zip(ks, c, strict=True)]
    known = ~c.isnan().any(1)
    rows = (torch.tensor(own, device=c.device) & known).nonzero()[:, 0]
    labels = torch.where(known[:, None], 0.0, c)
    if len(rows):
        last = torch.full((len(rows),), scheduler.config.num_train_timesteps - 1, device=c.device)
        with torch.no_grad():
            some = noise[rows], view[rows], photo[rows], last, torch.zeros_like(c[rows])
            automatic = retouch(model, vae, scheduler, *some, args)[1].clamp(0, 1)
        scores = measure_attributes(target[rows])[:, None], measure_attributes(automatic)
        labels[rows] = attribute_labels(*scores, limit=2.5)[:, 0]
    return labels


def taught(target, photo, c, teacher, weight):
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


def training_losses(model, vae, scheduler, batch, args, perceptual=None, statistics=None, cache=None, teacher=None):
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
    timesteps, noise, other_noise = (x.to(photo.device) for x in drawn)
    if args.labels == "automatic":
        shown = whole_target[..., ::stride, ::stride]
        c = automatic_labels(model, vae, scheduler, view, photo, shown, c, ks, other_noise, args)
    if teacher is not None:
        whole_target = taught(whole_target, photo, c, teacher, args.teacher_weight)
    if cache is not None:
        latents = cache[batch["item"].cpu()].to(photo.device)
    else:
        with torch.no_grad():
            latents = vae.encode(whole_target * 2 - 1).latent_dist.mean.float() * vae.config.scaling_factor
    target = whole_target[..., ::stride, ::stride]

    # In one forward: the batch; some photos again with -c; and, for an anchor on the output, with other noise. Which
    # photos those are depends on k alone, and their losses are scaled as if every batch had its share of them.
    fraction = args.branch_fraction if args.contrastive_weight or args.obedience_weight else 0.0
    some = [i for i, k in enumerate(ks) if int((k + 1) * fraction) > int(k * fraction) and not unknown[i]]
    more = 2 if args.contrastive_anchor == "output" else 1
    repeat = lambda x: torch.cat([x] + [x[some]] * more)  # noqa: E731
    all_c = torch.cat([c, -c[some], c[some]][: 1 + more])
    all_noise = torch.cat([noise, noise[some], other_noise[some]][: 1 + more])
    all_timesteps = repeat(timesteps)
    noisy = scheduler.add_noise(repeat(latents), all_noise, all_timesteps)
    views = repeat(view), repeat(photo)
    output, retouched, grid = retouch(model, vae, scheduler, noisy, *views, all_timesteps, all_c, args)

    wanted = latent_target(scheduler, latents, noise, timesteps)
    weights = snr_weights(scheduler, timesteps, args.snr_gamma) if args.snr_gamma else None
    mask = 1 + (args.mask_weight - 1) * batch["mask"][..., ::stride, ::stride] if "mask" in batch else None
    losses = {
        "latent": args.latent_weight * latent_loss(output[:size], wanted, weights),
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
        losses["contrastive"] = losses["obedience"] = retouched.new_zeros(())
    if some:
        own, opposite = retouched[some], retouched[size : size + len(some)]
        anchor, positive = (target[some], own) if more == 1 else (own, retouched[size + len(some) :])
        share = len(some) / (size * fraction)
        contrast = contrastive_loss(anchor, positive, opposite, c[some], tau=args.contrastive_tau)
        obedience = obedience_loss(own, opposite, c[some], statistics=statistics)
        losses["contrastive"] = args.contrastive_weight * share * contrast
        losses["obedience"] = args.obedience_weight * share * obedience
    return losses


def main(argv=None):
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    check_trackers(args.report_to)
    output_dir = Path(args.output_dir)
    accelerator = start(args, accumulation=args.gradient_accumulation_steps, log_with=args.report_to)
    repository = open_repository(args) if accelerator.is_main_process else None

    # 1. Models
    model, vae, scheduler = build_models(args)
    vae.to(accelerator.device)
    perceptual = Lpips(args.lpips_weights).to(accelerator.device) if args.lpips_weight else None
    teacher = load_teacher(args.teacher).to(accelerator.device) if args.teacher else None
    ema = EMAModel(model.parameters(), decay=args.ema_decay, use_ema_warmup=True, power=3 / 4)
    parameters = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)

    # 2. Optimizer and schedule
    share = scheduled_share(args.lr_scheduler, args.lr_warmup_steps, args.max_train_steps)
    model, optimizer = accelerator.prepare(model, build_optimizer(args, model.parameters()))
    ema.to(accelerator.device)

    # 3. Resume, and data from there on
    settings = vars(args) | {"frozen_parameters": frozen}
    going_on = args.resume_from_checkpoint
    first_step = resume(going_on, output_dir, accelerator, ema, settings) if going_on else 0
    with accelerator.main_process_first():
        statistics = statistics_for(args, args.resolution, output_dir)
    accumulation = args.gradient_accumulation_steps
    photos, loader = batches(args, accelerator, first_step, accumulation=accumulation, statistics=statistics)
    cache = None
    if args.cache_latents:
        check_cacheable(photos)
        with accelerator.main_process_first():
            cache = cached_latents(photos, vae, output_dir, accelerator.device)

    # 4. The loop
    stopping, log, figures, done, written = stop_signals(), Log(accelerator, args, first_step), None, first_step, True
    for step in range(first_step, args.max_train_steps):
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        for _ in range(accumulation):
            batch = log.next_batch(loader)
            with accelerator.accumulate(model), accelerator.autocast():
                losses = training_losses(model, vae, scheduler, batch, args, perceptual, statistics, cache, teacher)
                loss = sum(losses.values())
                stop_if_not_finite(step, loss, losses, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            log.add(losses)
        ema.step(accelerator.unwrap_model(model).parameters())
        done = step + 1
        means = log.step(done, rate)
        last = done == args.max_train_steps or stop_agreed(stopping, accelerator)
        if args.validation_dir and (done % args.validation_steps == 0 or last) and accelerator.is_main_process:
            with ema_weights(accelerator.unwrap_model(model), ema) as trained:
                pipe = build_pipeline(trained, vae, scheduler, args, statistics)
                figures = show(pipe, args, output_dir, done, log)
        if done % args.checkpointing_steps == 0 or last:
            written = save_checkpoint(output_dir, done, accelerator, ema, args.checkpoints_total_limit, settings)
            if accelerator.is_main_process:
                card = model_card(args, steps=done, data=photos.describe(), losses=means, figures=figures,
                                  processes=accelerator.num_processes, parameters=parameters,
                                  frozen=frozen)  # fmt: skip
                with ema_weights(accelerator.unwrap_model(model), ema) as trained:
                    pipe = build_pipeline(trained, vae, scheduler, args, statistics)
                    written = save_pipeline(pipe, output_dir, card) and written
        if last:
            break
    log.close()
    if not written:
        raise SystemExit(f"{output_dir}: the last checkpoint or model could not be written, see the warnings.")
    if repository and done == args.max_train_steps:  # what was stopped half-way stays here
        push(repository, output_dir, done)


def stop_if_not_finite(step, loss, losses, batch):
    """A loss that is NaN or infinite ends the training, and names what was seen."""
    if not loss.isfinite():
        parts = {name: value.item() for name, value in losses.items()}
        raise SystemExit(f"step {step}: the loss is {loss.item()} {parts}, on these files: {', '.join(batch['name'])}")


def build_pipeline(model, vae, scheduler, args, statistics):
    """The model as a pipeline; without a grid the autoencoder belongs to it."""
    extra = {"vae": vae} if args.no_grid else {"clipping_limit": args.clipping_limit}
    return DiffRetouchPipeline(
        model.unet,
        model.grid_head,
        scheduler,
        default_steps=20 if args.pretrained_model_name_or_path else 1,
        sampling_steps=args.sampling_steps,
        label_statistics=statistics,
        **extra,
    )


def save_pipeline(pipe, output_dir, card):
    """Write a pipeline and its card; `False` where the disk is full."""
    try:
        write_model(pipe, output_dir, card)
    except WRITE_ERRORS as error:
        logger.warning(f"the model cannot be written to {output_dir}: {error}")
        return False
    return True


def show(pipe, args, output_dir, step, log):
    """Validate, keep the pictures under `validation/`, hand them and the figures to the trackers."""
    pictures, figures = validate(pipe, args.validation_dir)
    folder = output_dir / "validation"
    for name, picture in pictures.items():
        path = folder / f"step-{step}-{name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    (folder / f"step-{step}.json").write_text(json.dumps(figures, indent=1) + "\n")
    log.images(pictures, step)
    log.accelerator.log(figures, step=step)
    return figures


if __name__ == "__main__":
    main()
