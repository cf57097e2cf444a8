"""Makes what the recipes of the papers read, at toy size: to try a recipe on a CPU before it takes GPUs for a week.

python training/recipes/toy.py toys
BASE=toys/stable-diffusion ACCELERATE="--cpu --num_processes 1" training/recipes/paper_fivek.sh toys/fivek toys/out \\
    --resolution 32 --max_train_steps 2 --gradient_accumulation_steps 1 --dataloader_num_workers 0

The folder then holds `stable-diffusion` (the layout of 2.1-base, random weights), `fivek`, `ppr10k` and `csrnet`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tifffile
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout need not be installed

from diffretouch.colour.prophoto import srgb_to_prophoto
from diffretouch.photo.icc import chromatic_profile

SIZE = 48, 32  # width, height
PHOTOS = 4


def stable_diffusion(folder: str | Path, *, prediction_type: str = "epsilon", sample_size: int = 64) -> None:
    """A tiny random checkpoint in the layout of Stable Diffusion 2.1: UNet, autoencoder of factor 8, scheduler."""
    torch.manual_seed(0)
    folder = Path(folder)
    UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=(1, 2),
        cross_attention_dim=24,
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=8 * sample_size,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")


def photo(n: int, power: float = 1.0) -> np.ndarray:
    """A made-up photo (H,W,3) float32 in [0,1]: soft colours with some grain; `power` is an expert's taste."""
    rng = np.random.default_rng(n)
    small = Image.fromarray(rng.integers(30, 225, (3, 4, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    pixels = np.asarray(small, np.float32) / 255 + rng.normal(0, 0.02, (SIZE[1], SIZE[0], 3)).astype(np.float32)
    return np.clip(pixels, 0, 1) ** np.float32(power)


def save_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)


def save_prophoto(path: Path, pixels: np.ndarray) -> None:
    """sRGB pixels as TIFF of 16 bits in ProPhoto RGB, with its profile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wide = srgb_to_prophoto(torch.from_numpy(pixels.transpose(2, 0, 1).copy())).numpy().transpose(1, 2, 0)
    primaries, white = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585)
    codes = np.round(wide.clip(0, 1) * 65535).astype(np.uint16)
    tifffile.imwrite(path, codes, photometric="rgb", iccprofile=chromatic_profile(primaries, white, 1.8))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder, made if it does not exist")
    output = parser.parse_args(argv).output
    stable_diffusion(output / "stable-diffusion")
    for n in range(PHOTOS):
        fivek, ppr10k = f"a{n + 1:04d}.png", f"{n}_0.png"
        save_png(output / "fivek" / "input" / fivek, photo(n))
        save_png(output / "ppr10k" / "source" / ppr10k, photo(n))
        for k, letter in enumerate("ABCDE"):
            save_png(output / "fivek" / f"expert{letter}" / fivek, photo(n, 0.6 + 0.2 * k))
        for k, letter in enumerate("abc"):
            save_png(output / "ppr10k" / f"target_{letter}" / ppr10k, photo(n, 0.7 + 0.2 * k))
        save_prophoto(output / "csrnet" / "raw_input_train" / f"a{n + 1:04d}.tif", photo(n))
        save_png(output / "csrnet" / "expert_C_train" / f"a{n + 1:04d}.png", photo(n, 0.7))


if __name__ == "__main__":
    main()
