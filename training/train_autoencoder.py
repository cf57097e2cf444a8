"""Train the small autoencoder whose latents the small retouching UNet denoises.

accelerate launch training/train_autoencoder.py --train_data_dir PHOTOS --output_dir runs/autoencoder
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from diffusers import AutoencoderKL
from tqdm.auto import tqdm

from diffretouch.training.checkpoints import (
    check_output_dir,
    leave_signals_to_the_loop,
    resume,
    save_checkpoint,
    stop_signals,
)
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.pairs import add_pair_arguments, training_pairs, verify_if_asked

# 128 px -> 32x32x4 latents; no attention, so that it costs little beside the UNet.
SMALL_AUTOENCODER = dict(
    sample_size=128,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(16, 32, 48),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=8,
    mid_block_add_attention=False,
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pair_arguments(parser)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--resolution", type=int, default=64, help="side of the training crops")
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--max_train_steps", type=int, default=3000)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--lr_warmup_steps", type=int, default=100)
    parser.add_argument("--kl_weight", type=float, default=1e-4)
    parser.add_argument("--checkpointing_steps", type=int, default=1000)
    parser.add_argument("--checkpoints_total_limit", type=int, default=1)
    parser.add_argument("--resume_from_checkpoint", help='"latest" or a checkpoint directory')
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    set_seed(args.seed)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if accelerator.num_processes > 1:
        raise SystemExit(
            f"This autoencoder trains in minutes: launch it in one process, not {accelerator.num_processes}."
        )
    output_dir = Path(args.output_dir)
    check_output_dir(output_dir, args.resume_from_checkpoint)

    # 1. Model, optimizer and schedule
    autoencoder = AutoencoderKL(**SMALL_AUTOENCODER)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), args.learning_rate)
    share = scheduled_share("cosine", args.lr_warmup_steps, args.max_train_steps)
    autoencoder, optimizer = accelerator.prepare(autoencoder, optimizer)
    going_on, settings = args.resume_from_checkpoint, vars(args)
    first_step = resume(going_on, output_dir, accelerator, None, settings) if going_on else 0

    # 2. Data: sample k is the same whatever was read before
    size, workers = args.train_batch_size, args.dataloader_num_workers
    steps = range(first_step, args.max_train_steps)
    photos = training_pairs(args, args.resolution, start=first_step * size, batch_size=size)
    streamed = isinstance(photos, torch.utils.data.IterableDataset)
    sampler = (range(step * size, (step + 1) * size) for step in steps)
    how = {"batch_size": size} if streamed else {"batch_sampler": sampler}
    loader = torch.utils.data.DataLoader(photos, num_workers=workers, worker_init_fn=leave_signals_to_the_loop, **how)

    # 3. The loop
    stopping, loader = stop_signals(), iter(loader)
    bar = tqdm(steps, disable=not accelerator.is_local_main_process)
    for step in bar:
        target = send_to_device(next(loader)["target"], accelerator.device) * 2 - 1
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((args.seed, 7, step)).generate_state(1)[0])
        )
        with accelerator.autocast():
            posterior = autoencoder.encode(target).latent_dist
            reconstruction = autoencoder.decode(posterior.sample(generator)).sample
        error = F.l1_loss(reconstruction.float(), target) + F.mse_loss(reconstruction.float(), target)
        loss = error + args.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
        if not loss.isfinite():
            raise SystemExit(f"step {step}: the loss is {loss.item()}.")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(autoencoder.parameters(), 1.0)
        set_rates(optimizer, [args.learning_rate], share(step))
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            bar.set_postfix(psnr=f"{-10 * F.mse_loss(reconstruction.float(), target).div(4).log10().item():.2f}")
        done = step + 1
        if done % args.checkpointing_steps == 0 or done == args.max_train_steps or stopping:
            save_checkpoint(output_dir, done, accelerator, None, args.checkpoints_total_limit, settings)
        if stopping:
            break

    # 4. Latents are scaled to unit variance, which is what the noise schedule assumes
    autoencoder = accelerator.unwrap_model(autoencoder).eval()
    photos = training_pairs(args, args.resolution)
    samples = iter(photos) if streamed else (photos[k] for k in range(64))
    targets = torch.stack([next(samples)["target"] for _ in range(64)]).to(accelerator.device)
    with torch.no_grad():
        latents = autoencoder.encode(targets * 2 - 1).latent_dist.mean
    autoencoder.register_to_config(scaling_factor=1 / latents.float().std().item())
    autoencoder.save_pretrained(output_dir)


if __name__ == "__main__":
    main()
