"""Tiny real components for the tests."""

import importlib.util
import signal
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from diffretouch import AffineGridHead, DiffRetouchPipeline

TINY_UNET = dict(
    sample_size=8,
    in_channels=7,
    out_channels=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=2,
    cross_attention_dim=4,
    use_linear_projection=True,
)


def tiny_unet(**config):
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**TINY_UNET, **config})


def tiny_pipeline(tokens=8, fold=1, scheduler=None, **config):
    unet = tiny_unet(in_channels=4 + 3 * fold**2, cross_attention_dim=tokens)
    head = AffineGridHead(splat_strides=(2, 1), depth=4, residual=True)
    torch.nn.init.normal_(head.prediction2.weight, std=0.05)
    pipe = DiffRetouchPipeline(unet, head, scheduler or DDIMScheduler(clip_sample=False), default_steps=2, **config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def one_step_pipeline(**config):
    """With trailing timesteps, which also one step may take."""
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    return tiny_pipeline(scheduler=scheduler, **config)


def save_pattern(path, rng, size=(30, 24)):
    """A photo of soft random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    low = rng.integers(20, 200, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(path)


def run_here(main, arguments):
    """A training script's `main` in this process, of which it leaves no handler and no precision behind."""
    AcceleratorState._reset_state(reset_partial_state=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        main([str(word) for word in arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def recipes_toy():
    """The program that makes toy data and a toy Stable Diffusion for the recipes, as a module."""
    path = Path(__file__).parents[1] / "training" / "recipes" / "toy.py"
    spec = importlib.util.spec_from_file_location("recipes_toy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
