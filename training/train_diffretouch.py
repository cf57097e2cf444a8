"""Train DiffRetouch: from a folder of finished photos, by simulated experts, or from experts' pairs.

accelerate launch training/train_diffretouch.py --train_data_dir PHOTOS --vae AUTOENCODER --output_dir runs/small
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.losses.perceptual import Lpips
from diffretouch.training.latents import cached_latents, check_cacheable
from diffretouch.training.launch import add_launch_arguments, build_optimizer, check_launch_arguments, start
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.moving_average import MovingAverage
from diffretouch.training.pairs import add_pair_arguments, batches, epoch_samples, statistics_for, verify_if_asked
from diffretouch.training.retouch_losses import branched, training_losses
from diffretouch.training.retouch_model import build_models, build_pipeline, load_teacher
from diffretouch.training.sharding import shardable
from diffretouch.training.steps import begin, finish, go_on, keep_step, stop_if_not_finite


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pair_arguments(parser)
    add(
        "--vae",
        help="autoencoder that makes the latents: a directory or Hub id; default: the Stable Diffusion's own; --init "
        "small goes on without one: in its first step, which sees but noise, and in no other",
    )
    add(
        "--pretrained_model_name_or_path",
        help="Stable Diffusion to start from; without it, the small UNet from scratch",
    )
    add("--revision", help="of that Stable Diffusion on the Hub")
    add("--variant", help="of its files, such as fp16")
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
    add("--noise_offset", type=float, help="how much larger its mean is, see `with_offset`; default: --init's, else 0")
    add("--no_grid", action="store_true", help="ablation: the photo is the decoded latent, no grid is predicted")
    add("--cache_latents", action="store_true", help="encode targets once; needs targets that stay: --whole_photos")
    add("--train_batch_size", type=int, default=16, help="of each process")
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--gradient_checkpointing", action="store_true")
    add("--learning_rate", type=float, help="default: 1e-3; from a Stable Diffusion 1e-5, of its adapters 1e-4")
    add("--lr_scheduler", default="cosine")
    add("--lr_warmup_steps", type=int, default=200)
    add("--max_grad_norm", type=float, default=1.0)
    add("--lora_rank", type=int, default=0, help="adapters on a Stable Diffusion's attention; new layers whole")
    add("--lora_save", choices=["merged", "adapter"], default="merged", help="whole weights, or what was trained")
    add("--use_8bit_adam", action="store_true", help="moments in 8 bits, by bitsandbytes")
    add("--latent_weight", type=float, help="default: 1, without an autoencoder 0")
    add("--snr_gamma", type=float, help="min-SNR weighting of the latent loss; 5 is usual")
    add("--pixel_weight", type=float, default=8.0, help="beta: 0.04 and 4 here are the paper's 0.01, the code's 1")
    add("--pixel_l1_weight", type=float, default=0.5)
    add("--mask_weight", type=float, default=1.0, help="with --use_masks: people's pixels weigh so much (PPR10K: 5)")
    add("--lpips_weight", type=float, default=0.0)
    add("--lpips_weights", help="safetensors file of LPIPS, see diffretouch.losses.perceptual.Lpips")
    add("--clipping_weight", type=float, default=0.0, help="of light lost at black and white that the target keeps")
    add("--clipping_limit", type=float, help="of the saved model, see DiffRetouchPipeline; training has no limit")
    add("--shoulder", type=float, help="of the saved model, see DiffRetouchPipeline; training has none")
    add("--grid_smoothness_weight", type=float, default=0.0)
    add("--attribute_weight", type=float, default=0.2)
    add("--obedience_weight", type=float, default=4.0)
    add(
        "--daylight_weight", type=float, default=0.0, help="of whites that turn green or pink where c and -c move them"
    )
    add("--contrastive_weight", type=float, default=0.02, help="1 in the paper, 0 leaves the contrastive loss out")
    add("--branch_fraction", type=float, default=0.5, help="share of the samples that is run again for the last three")
    add(
        "--contrastive_anchor",
        choices=["target", "output"],
        default="target",
        help="whose scores the loss starts from; the output's leave the direction of an attribute open",
    )
    add("--contrastive_tau", type=float, default=0.1)
    add(
        "--first_timestep_fraction",
        type=float,
        help="share of samples at the noisiest timestep; default: 0.5, without an autoencoder 1",
    )
    add("--ema_decay", type=float, default=0.998, help="of the weights that are saved; 0: no average")
    add("--ema_on_cpu", action="store_true", help="keep the average in the processor's memory")
    add("--dataloader_num_workers", type=int, default=1)
    add_launch_arguments(parser, steps=3600, weight_decay=1e-2)
    args = parser.parse_args(argv)
    if args.learning_rate is None:  # trained weights are moved gently
        args.learning_rate = (1e-4 if args.lora_rank else 1e-5) if args.pretrained_model_name_or_path else 1e-3
    check_launch_arguments(parser, args)
    for name in ("gradient_accumulation_steps", "pixel_stride", "resolution"):
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
    if args.shoulder is not None and not 0 < args.shoulder < 1:
        parser.error(f"--shoulder must lie in (0, 1), got {args.shoulder}")
    if args.noise_offset is not None and not 0 <= args.noise_offset <= 1000:
        parser.error(f"--noise_offset must lie in [0, 1000], got {args.noise_offset}")
    if args.mask_weight != 1 and not args.use_masks:
        parser.error("--mask_weight is for --use_masks")
    if args.lpips_weight and not args.lpips_weights:
        parser.error("--lpips_weight needs --lpips_weights: a file that diffretouch.losses.perceptual.Lpips describes")
    if not (args.vae or args.pretrained_model_name_or_path or args.init or args.verify):
        parser.error("--vae is needed for a training from scratch: training/train_autoencoder.py makes one")
    alone = not (args.vae or args.pretrained_model_name_or_path)  # without latents: what is seen is noise
    for name, lone, usual in (("latent_weight", 0.0, 1.0), ("first_timestep_fraction", 1.0, 0.5)):
        if getattr(args, name) is None:
            setattr(args, name, lone if alone else usual)
        elif alone and getattr(args, name) != lone and not args.verify:
            parser.error(f"--{name} must be {lone:g} without --vae, got {getattr(args, name)}")
    if alone and args.cache_latents and not args.verify:
        parser.error("--cache_latents needs the --vae that makes them")
    if args.lora_rank < 0 or args.lora_rank and not args.pretrained_model_name_or_path:
        parser.error("--lora_rank is at least 1, with --pretrained_model_name_or_path: it adapts a Stable Diffusion")
    if args.init and args.pretrained_model_name_or_path:
        parser.error("--init and --pretrained_model_name_or_path are two starts, only one can be had")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    accumulation = args.gradient_accumulation_steps
    accelerator, repository = start(args, accumulation=accumulation, epoch=lambda: epoch_samples(args))
    output_dir = Path(args.output_dir)

    # 1. Models
    model, vae, scheduler = build_models(args)
    if vae is not None:
        vae.to(accelerator.device)
    perceptual = Lpips(args.lpips_weights).to(accelerator.device) if args.lpips_weight else None
    teacher = load_teacher(args.teacher).to(accelerator.device) if args.teacher else None
    form = shardable(model, accelerator)
    parameters = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)

    # 2. Optimizer and schedule
    share = scheduled_share(args.lr_scheduler, args.lr_warmup_steps, args.max_train_steps)
    model, optimizer = accelerator.prepare(model, build_optimizer(args, model.parameters()))
    # Of a model with adapters only what is trained: the rest stays what it is
    moving = (p for p in accelerator.unwrap_model(model).parameters() if p.requires_grad or not args.lora_rank)
    ema = MovingAverage(moving, args.ema_decay, on_cpu=args.ema_on_cpu)

    # 3. Resume, and data from there on
    settings = vars(args) | {"frozen_parameters": frozen}
    first_step = go_on(args, accelerator, optimizer, ema, settings)
    with accelerator.main_process_first():
        statistics = statistics_for(args, args.resolution, output_dir)
    how = {"accumulation": accumulation, "statistics": statistics, "branch_fraction": branched(args)}
    photos, loader = batches(args, accelerator, first_step, **how)
    cache = None
    if args.cache_latents:
        check_cacheable(photos)
        with accelerator.main_process_first():
            cache = cached_latents(photos, vae, output_dir, accelerator.device)

    # 4. The loop
    pipeline = lambda trained: build_pipeline(trained, vae, scheduler, args, statistics)  # noqa: E731
    card = {"data": photos.describe(), "parameters": parameters, "frozen": frozen}
    how = {"repository": repository, "settings": settings, "card": card, "form": form}
    run = begin(args, accelerator, model, ema, first_step, pipeline, **how)
    for step in range(first_step, args.max_train_steps):
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        for _ in range(accumulation):
            batch = run.log.next_batch(loader)
            with accelerator.accumulate(model), accelerator.autocast():
                losses = training_losses(model, vae, scheduler, batch, args, perceptual, statistics, cache, teacher)
                accelerator.backward(stop_if_not_finite(step, losses, batch["name"]))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            run.log.add(losses)
        ema.step()
        if keep_step(run, step + 1, rate):
            break
    finish(run)


if __name__ == "__main__":
    main()
