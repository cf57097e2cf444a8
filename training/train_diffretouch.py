"""Train DiffRetouch: from a folder of finished photos, by simulated experts, or from experts' pairs.

accelerate launch training/train_diffretouch.py --train_data_dir PHOTOS --vae AUTOENCODER --output_dir runs/small
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from accelerate.logging import get_logger
from diffusers.training_utils import EMAModel

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.losses.perceptual import Lpips
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
from diffretouch.training.retouch_losses import training_losses
from diffretouch.training.retouch_model import build_models, build_pipeline, load_teacher
from diffretouch.training.validation import validate

logger = get_logger(__name__)


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
    add("--grid_head", choices=["handles", "released"], default="handles", help="released: its form and start")
    add("--thumbnail", choices=["antialias", "nearest"], default="antialias", help="nearest is the released code's")
    add(
        "--timestep_range",
        type=int,
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="sample as the released code does, by DDPM over these timesteps alone: 200 999 there",
    )
    add("--sampler_variance", choices=["small", "large"], default="small", help="of --timestep_range's sampler")
    add(
        "--default_steps",
        type=int,
        help="of the saved model: 20 from Stable Diffusion or over a range, else 1",
    )
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
    if args.timestep_range and not 0 <= args.timestep_range[0] < args.timestep_range[1] < 1000:
        parser.error(f"--timestep_range must be two rising numbers in 0..999, got {args.timestep_range}")
    if args.default_steps is not None and not 1 <= args.default_steps <= 1000:
        parser.error(f"--default_steps must lie in 1..1000, got {args.default_steps}")
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


def build_optimizer(args, parameters):
    """AdamW, with moments in 8 bits where that was asked for."""
    adam = torch.optim.AdamW
    if args.use_8bit_adam:
        try:
            from bitsandbytes.optim import AdamW8bit as adam
        except (ImportError, RuntimeError) as error:
            raise SystemExit(f"`--use_8bit_adam` needs bitsandbytes and a GPU that it supports: {error}") from error
    return adam(parameters, args.learning_rate, weight_decay=args.weight_decay)


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
