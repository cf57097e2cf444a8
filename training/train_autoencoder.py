"""Train the small autoencoder whose latents the small retouching UNet denoises.

accelerate launch training/train_autoencoder.py --train_data_dir PHOTOS --output_dir runs/autoencoder
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.training.launch import add_launch_arguments, build_optimizer, check_launch_arguments, start
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.pairs import add_pair_arguments, batches, epoch_samples, training_pairs, verify_if_asked
from diffretouch.training.steps import begin, finish, go_on, keep_step, stop_if_not_finite

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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pair_arguments(parser)
    add_launch_arguments(parser, steps=3000, checkpointing_steps=1000, weight_decay=0.01)
    parser.add_argument("--resolution", type=int, default=64, help="side of the training crops")
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--lr_warmup_steps", type=int, default=100)
    parser.add_argument("--kl_weight", type=float, default=1e-4)
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    return args


@torch.no_grad()
def scaled(autoencoder: AutoencoderKL, args: argparse.Namespace) -> AutoencoderKL:
    """The autoencoder with its latents scaled to unit variance, which is what the noise schedule assumes."""
    photos = training_pairs(args, args.resolution)
    streamed = isinstance(photos, torch.utils.data.IterableDataset)
    samples = islice(photos, 64) if streamed else (photos[k] for k in range(64))
    targets = torch.stack([sample["target"] for sample in samples]).to(autoencoder.device)
    latents = autoencoder.encode(targets * 2 - 1).latent_dist.mean
    autoencoder.register_to_config(scaling_factor=1 / latents.float().std().item())
    return autoencoder


def rebuilt(autoencoder: AutoencoderKL, photo: torch.Tensor) -> torch.Tensor:
    """A photo (1,3,H,W) in [0,1], encoded and decoded; its edges are repeated to a size that latents can have."""
    height, width = photo.shape[2:]
    padded = F.pad(photo, (0, -width % 4, 0, -height % 4), mode="replicate").to(autoencoder.device) * 2 - 1
    latents = autoencoder.encode(padded).latent_dist.mean
    return autoencoder.decode(latents).sample[..., :height, :width] / 2 + 0.5


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    accelerator, repository = start(args, epoch=lambda: epoch_samples(args))
    if accelerator.num_processes > 1:
        raise SystemExit(
            f"This autoencoder trains in minutes: launch it in one process, not {accelerator.num_processes}."
        )

    # 1. Model, optimizer and schedule
    autoencoder = AutoencoderKL(**SMALL_AUTOENCODER)
    share = scheduled_share("cosine", args.lr_warmup_steps, args.max_train_steps)
    autoencoder, optimizer = accelerator.prepare(autoencoder, build_optimizer(args, autoencoder.parameters()))

    # 2. Resume, and data from there on
    first_step = go_on(args, accelerator, optimizer)
    photos, loader = batches(args, accelerator, first_step)

    # 3. The loop
    made = {"of": "AutoencoderKL", "script": "train_autoencoder.py", "call": "pipe.encode(image * 2 - 1)"}
    how = {"repository": repository, "card": {"data": photos.describe(), **made}, "retouch": rebuilt}
    run = begin(args, accelerator, autoencoder, None, first_step, lambda trained: scaled(trained, args), **how)
    for step in range(first_step, args.max_train_steps):
        batch = run.log.next_batch(loader)
        target = batch["target"] * 2 - 1
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
        accelerator.backward(stop_if_not_finite(step, losses, batch["name"]))
        accelerator.clip_grad_norm_(autoencoder.parameters(), 1.0)
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        optimizer.step()
        optimizer.zero_grad()
        run.log.add(losses)
        if keep_step(run, step + 1, rate):
            break
    finish(run)


if __name__ == "__main__":
    main()
