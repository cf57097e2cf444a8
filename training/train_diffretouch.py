"""Train DiffRetouch from a folder of finished photos; simulated experts make the pairs.

accelerate launch training/train_diffretouch.py --train_data_dir PHOTOS --vae AUTOENCODER --output_dir runs/small
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from diffretouch.losses import (
    attribute_loss,
    contrastive_loss,
    latent_loss,
    latent_target,
    obedience_loss,
    pixel_loss,
)
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.models.unet import SMALL_UNET, build_retouch_unet, denoise, unet_thumbnail
from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.training.checkpoints import leave_signals_to_the_loop, resume, save_checkpoint, stop_signals
from diffretouch.training.pairs import add_pair_arguments, training_pairs

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
    add("--vae", required=True, help="autoencoder that makes the latents: a directory or Hub id")
    add(
        "--pretrained_model_name_or_path",
        help="Stable Diffusion to start from; without it, the small UNet from scratch",
    )
    add("--output_dir", required=True)
    add("--resolution", type=int, default=128, help="side of the training crops: 4x (small) or 8x the latents'")
    add("--pixel_stride", type=int, default=1, help="pixel and attribute losses see every n-th row and column")
    add("--train_batch_size", type=int, default=16)
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--gradient_checkpointing", action="store_true")
    add("--max_train_steps", type=int, default=3600)
    add("--learning_rate", type=float, default=1e-3)
    add("--lr_scheduler", default="cosine")
    add("--lr_warmup_steps", type=int, default=200)
    add("--max_grad_norm", type=float, default=1.0)
    add("--weight_decay", type=float, default=1e-2)
    add("--latent_weight", type=float, default=1.0)
    add("--pixel_weight", type=float, default=8.0)
    add("--pixel_l1_weight", type=float, default=0.5)
    add("--attribute_weight", type=float, default=0.2)
    add("--obedience_weight", type=float, default=4.0)
    add("--contrastive_weight", type=float, default=0.02, help="1 in the paper, 0 leaves the contrastive loss out")
    add("--branch_fraction", type=float, default=0.5, help="share of each batch that is run again for the last two")
    add(
        "--contrastive_anchor",
        choices=["target", "output"],
        default="target",
        help="whose scores the loss starts from; the output's leave the direction of an attribute open",
    )
    add("--contrastive_tau", type=float, default=0.1)
    add("--first_timestep_fraction", type=float, default=0.5, help="share of samples at the noisiest timestep")
    add("--ema_decay", type=float, default=0.998)
    add("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    add("--dataloader_num_workers", type=int, default=1)
    add("--checkpointing_steps", type=int, default=500)
    add("--checkpoints_total_limit", type=int, default=2)
    add("--resume_from_checkpoint", help='"latest" or a checkpoint directory')
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


class RetouchModel(torch.nn.Module):
    """UNet and grid head as one module, so that data-parallel training sees all gradients in one forward."""

    def __init__(self, unet, grid_head):
        super().__init__()
        self.unet, self.grid_head = unet, grid_head

    def forward(self, latents, photo, timesteps, c, stride=1):
        """-> model output for the scheduler (B,4,h,w) and every n-th pixel of the retouched photo, not clamped."""
        thumbnail = unet_thumbnail(photo, self.unet.config)
        output, affine_latent = denoise(self.unet, latents, thumbnail, timesteps, c)
        photo = photo[..., ::stride, ::stride]
        return output, self.grid_head.apply_reference(self.grid_head(affine_latent), photo)


def training_losses(model, scheduler, batch, latents, generator, args):
    """The weighted losses of one batch, as a dict. The branches of the last two run in the same forward."""
    photo, target, c = batch["input"], batch["target"][..., :: args.pixel_stride, :: args.pixel_stride], batch["c"]
    size, last = len(photo), scheduler.config.num_train_timesteps - 1
    branches = args.contrastive_weight or args.obedience_weight
    extra = min(math.ceil(size * args.branch_fraction), size) if branches else 0
    timesteps = torch.randint(0, last + 1, (size,), generator=generator)
    timesteps[torch.rand(size, generator=generator) < args.first_timestep_fraction] = last
    noise = torch.randn((size + extra, *latents.shape[1:]), generator=generator)
    timesteps, noise = timesteps.to(photo.device), noise.to(photo.device)

    # In one forward: the batch; its first photos again with -c; and, for an anchor on the output, with other noise
    some = slice(extra)
    more = 2 if args.contrastive_anchor == "output" else 1
    repeat = lambda x: torch.cat([x] + [x[some]] * more)  # noqa: E731
    all_c = torch.cat([c, -c[some], c[some]][: 1 + more])
    all_noise = torch.cat([noise[:size], noise[some], noise[size:]][: 1 + more])
    all_timesteps = repeat(timesteps)
    noisy = scheduler.add_noise(repeat(latents), all_noise, all_timesteps)
    output, retouched = model(noisy, repeat(photo), all_timesteps, all_c, args.pixel_stride)

    wanted = latent_target(scheduler, latents, noise[:size], timesteps)
    losses = {
        "latent": args.latent_weight * latent_loss(output[:size], wanted),
        "pixel": args.pixel_weight * pixel_loss(retouched[:size], target, args.pixel_l1_weight),
        "attribute": args.attribute_weight * attribute_loss(retouched[:size], target),
    }
    if extra:
        own, opposite = retouched[some], retouched[size : size + extra]
        anchor, positive = (target[some], own) if more == 1 else (own, retouched[size + extra :])
        contrast = contrastive_loss(anchor, positive, opposite, c[some], tau=args.contrastive_tau)
        losses["contrastive"] = args.contrastive_weight * contrast
        losses["obedience"] = args.obedience_weight * obedience_loss(own, opposite, c[some])
    return losses


def main(argv=None):
    args = parse_args(argv)
    set_seed(args.seed)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision, gradient_accumulation_steps=args.gradient_accumulation_steps
    )
    output_dir = Path(args.output_dir)

    # 1. Models
    vae = AutoencoderKL.from_pretrained(args.vae, use_safetensors=True).requires_grad_(False).to(accelerator.device)
    scheduler = DDIMScheduler(**SCHEDULER)
    if args.pretrained_model_name_or_path:
        name = args.pretrained_model_name_or_path
        base = UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True)
        scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler")  # what its UNet was trained to predict
        model = RetouchModel(build_retouch_unet(base), AffineGridHead(residual=True))
    else:
        head = AffineGridHead(splat_strides=(2, 1), residual=True)
        model = RetouchModel(UNet2DConditionModel(**SMALL_UNET), head)
    if args.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    ema = EMAModel(model.parameters(), decay=args.ema_decay, use_ema_warmup=True, power=3 / 4)

    # 2. Optimizer and schedule
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=args.weight_decay)
    lr_schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    model, optimizer, lr_schedule = accelerator.prepare(model, optimizer, lr_schedule)
    ema.to(accelerator.device)

    # 3. Resume
    first_step = (
        resume(args.resume_from_checkpoint, output_dir, accelerator, ema) if args.resume_from_checkpoint else 0
    )

    # 4. Data: sample k is the same whatever was read before, so a training goes on at any step
    photos = training_pairs(args, args.resolution)
    per_step = args.train_batch_size * accelerator.num_processes * args.gradient_accumulation_steps
    loader = torch.utils.data.DataLoader(
        photos,
        args.train_batch_size,
        sampler=range(first_step * per_step, args.max_train_steps * per_step),
        num_workers=args.dataloader_num_workers,
        worker_init_fn=leave_signals_to_the_loop,
    )
    loader = iter(accelerator.prepare(loader))

    # 5. The loop
    stopping = stop_signals()
    bar = tqdm(range(first_step, args.max_train_steps), disable=not accelerator.is_local_main_process)
    log = None
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        log = open(output_dir / "log.jsonl", "a")
    for step in bar:
        for micro in range(args.gradient_accumulation_steps):
            batch = next(loader)
            seed = (args.seed, step, micro, accelerator.process_index)
            generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            with accelerator.accumulate(model), accelerator.autocast():
                with torch.no_grad():
                    posterior = vae.encode(batch["target"] * 2 - 1).latent_dist
                latents = posterior.mean.float() * vae.config.scaling_factor
                losses = training_losses(model, scheduler, batch, latents, generator, args)
                loss = sum(losses.values())
                if not loss.isfinite():
                    raise SystemExit(
                        f"step {step}: the loss is {loss.item()} ({ {k: v.item() for k, v in losses.items()} })."
                    )
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                lr_schedule.step()
                optimizer.zero_grad()
        ema.step(accelerator.unwrap_model(model).parameters())
        if log is not None:
            row = {"step": step + 1, "lr": lr_schedule.get_last_lr()[0], **{k: v.item() for k, v in losses.items()}}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in ("step", "lr")})
        done = step + 1
        if done % args.checkpointing_steps == 0 or done == args.max_train_steps or stopping:
            save_checkpoint(output_dir, done, accelerator, ema, args.checkpoints_total_limit)
            if accelerator.is_main_process:
                save_pipeline(output_dir, accelerator.unwrap_model(model), ema, scheduler)
        if stopping:
            break
    accelerator.end_training()


def save_pipeline(output_dir, model, ema, scheduler):
    """The EMA weights as a pipeline in `output_dir`, ready for `DiffRetouchPipeline.from_pretrained`."""
    ema.store(model.parameters())
    ema.copy_to(model.parameters())
    DiffRetouchPipeline(model.unet, model.grid_head, scheduler, default_steps=1).save_pretrained(output_dir)
    ema.restore(model.parameters())


if __name__ == "__main__":
    main()
