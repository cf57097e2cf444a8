"""Train the small autoencoder whose latents the small retouching UNet denoises.

accelerate launch training/train_autoencoder.py --train_data_dir PHOTOS --output_dir runs/autoencoder
"""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKL
from diffusers.optimization import get_scheduler
from tqdm.auto import tqdm

from diffretouch.data.unpaired import UnpairedPhotos

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
    parser.add_argument("--train_data_dir", required=True, help="folder of finished photos, searched recursively")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--resolution", type=int, default=64, help="side of the training crops")
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--max_train_steps", type=int, default=3000)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--kl_weight", type=float, default=1e-4)
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    set_seed(args.seed)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if accelerator.num_processes > 1:
        raise SystemExit(
            f"This autoencoder trains in minutes: launch it in one process, not {accelerator.num_processes}."
        )
    autoencoder = AutoencoderKL(**SMALL_AUTOENCODER)
    photos = UnpairedPhotos(args.train_data_dir, args.resolution, seed=args.seed + 1)
    photos.length = args.max_train_steps * args.train_batch_size
    loader = torch.utils.data.DataLoader(
        photos, args.train_batch_size, num_workers=args.dataloader_num_workers, shuffle=False
    )
    optimizer = torch.optim.AdamW(autoencoder.parameters(), args.learning_rate)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=args.max_train_steps)
    autoencoder, optimizer, loader = accelerator.prepare(autoencoder, optimizer, loader)
    bar = tqdm(loader, total=args.max_train_steps, disable=not accelerator.is_local_main_process)
    latents = []
    for step, batch in enumerate(bar):
        target = batch["target"] * 2 - 1
        posterior = autoencoder.encode(target).latent_dist
        reconstruction = autoencoder.decode(posterior.sample()).sample
        error = F.l1_loss(reconstruction, target) + F.mse_loss(reconstruction, target)
        loss = error + args.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step >= args.max_train_steps - 50:
            latents.append(posterior.mean.detach())
        if step % 50 == 0:
            bar.set_postfix(psnr=f"{-10 * F.mse_loss(reconstruction, target).div(4).log10().item():.2f}")
    if accelerator.is_main_process:
        autoencoder = accelerator.unwrap_model(autoencoder)
        # Latents are scaled to unit variance, which is what the noise schedule assumes.
        autoencoder.register_to_config(scaling_factor=1 / torch.cat(latents).std().item())
        autoencoder.save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
