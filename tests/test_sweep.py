import numpy as np
import torch
from diffusers import AutoencoderKL

from diffretouch import ATTRIBUTES, DiffRetouchPipeline
from diffretouch.sweep import sweep

from .tiny import tiny_pipeline


def test_sheet():
    pipe = tiny_pipeline()
    photo = np.random.default_rng(0).uniform(0.2, 0.8, (60, 90, 3)).astype(np.float32)
    sheet = sweep(pipe, photo, values=(-1.0, 0.0, 1.0), cell=45)
    pixels = np.asarray(sheet).astype(int)
    rows, columns = len(ATTRIBUTES), 3
    width, height, gap = 45, 30, 6
    left, top = sheet.width - columns * (width + gap), sheet.height - rows * (height + gap)
    cells = [
        [pixels[top + i * (height + gap) :, left + j * (width + gap) :][:height, :width] for j in range(columns)]
        for i in range(rows)
    ]
    # c = 0 is the same picture in every row, from the same noise; the ends of a row differ from it
    for row in cells:
        assert np.array_equal(row[1], cells[0][1])
        assert not np.array_equal(row[0], row[1]) and not np.array_equal(row[2], row[1])
    # and it is what the pipeline makes of the same thumbnail
    small = torch.nn.functional.interpolate(
        torch.from_numpy(photo).permute(2, 0, 1)[None], (30, 45), mode="bilinear", antialias=True
    )
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = np.asarray(pipe(small, [0.0] * 4, latents=latents).images[0]).astype(int)
    assert np.abs(cells[0][1] - expected).max() <= 1


def test_a_photo_smaller_than_its_cell_is_not_enlarged():
    sheet = sweep(tiny_pipeline(), np.full((8, 9, 3), 0.5, np.float32), values=(-1.0, 1.0), cell=256)
    assert sheet.height < 100


def test_a_model_without_a_grid_has_a_sheet():
    vae = AutoencoderKL(block_out_channels=(32, 32, 32, 32), down_block_types=["DownEncoderBlock2D"] * 4,
                        up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=4)  # fmt: skip
    tiny = tiny_pipeline()
    pipe = DiffRetouchPipeline(tiny.unet, None, tiny.scheduler, vae=vae, default_steps=2)
    pipe.set_progress_bar_config(disable=True)
    photo = np.random.default_rng(0).uniform(0.2, 0.8, (32, 48, 3)).astype(np.float32)
    sheet = sweep(pipe, photo, values=(-1.0, 1.0), cell=48)
    assert sheet.height > len(ATTRIBUTES) * 32
