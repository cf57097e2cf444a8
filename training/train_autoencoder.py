"""Train the small autoencoder whose latents the small retouching UNet denoises.

accelerate launch training/train_autoencoder.py --train_data_dir PHOTOS --output_dir runs/autoencoder
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from diffusers import AutoencoderKL

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.training.checkpoints import (
    leave_signals_to_the_loop,
    resume,
    save_checkpoint,
    stop_signals,
)
from diffretouch.training.launch import add_launch_arguments, check_launch_arguments, start
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.log import Log
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
    add_launch_arguments(parser, steps=3000, checkpointing_steps=1000)
    parser.add_argument("--resolution", type=int, default=64, help="side of the training crops")
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--lr_warmup_steps", type=int, default=100)
    parser.add_argument("--kl_weight", type=float, default=1e-4)
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    return args


def main(argv=None):
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    accelerator = start(args)
    if accelerator.num_processes > 1:
        raise SystemExit(
            f"This autoencoder trains in minutes: launch it in one process, not {accelerator.num_processes}."
        )
    output_dir = Path(args.output_dir)

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
    stopping, loader, log = stop_signals(), iter(loader), Log(accelerator, args, first_step)
    for step in steps:
        target = send_to_device(log.next_batch(loader)["target"], accelerator.device) * 2 - 1
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((args.seed, 7, step)).generate_state(1)[0])
        )
        with accelerator.autocast():
            posterior = autoencoder.encode(target).latent_dist
            reconstruction = autoencoder.decode(posterior.sample(generator)).sample
        reconstruction = reconstruction.float()
        losses = {
            "l1": F.l1_loss(reconstruction, target),
            "mse": F.mse_loss(reconstruction, target),  # on [-1,1]: PSNR is 6.02 - 10 log10 of it
            "kl": args.kl_weight * posterior.kl().mean() / posterior.mean[0].numel(),
        }
        loss = sum(losses.values())
        if not loss.isfinite():
            raise SystemExit(f"step {step}: the loss is {loss.item()}.")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(autoencoder.parameters(), 1.0)
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        optimizer.step()
        optimizer.zero_grad()
        log.add(losses)
        done = step + 1
        log.step(done, rate)
        if done % args.checkpointing_steps == 0 or done == args.max_train_steps or stopping:
            save_checkpoint(output_dir, done, accelerator, None, args.checkpoints_total_limit, settings)
        if stopping:
            break

    log.close()

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
