"""Toy trainings of the training script, in this process or as ranks."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from diffretouch import AffineGridHead
from diffretouch.training import retouch_model, train_diffretouch

from .ranks import run_ranks
from .tiny import TINY_UNET, run_here

PHOTOS = Path(__file__).parent / "photos"


TINY_UNET = {**TINY_UNET, "in_channels": 16, "cross_attention_dim": 8}


def arguments(autoencoder, output_dir, *more):
    return [
        *("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir)),
        *(("--vae", str(autoencoder), "--resolution", "32") if autoencoder else ()),
        *("--train_batch_size", "3", "--lr_warmup_steps", "2", "--max_train_steps", "6"),
        *("--checkpointing_steps", "2", "--checkpoints_total_limit", "3", "--dataloader_num_workers", "0"),
        *more,
    ]


def train(monkeypatch, *args):
    monkeypatch.setattr(retouch_model, "SMALL_UNET", TINY_UNET)
    run_here(train_diffretouch.main, arguments(*args))


def state(checkpoint):
    """Weights and EMA of a checkpoint as tensors, and the file of the Adam moments as its bytes."""
    weights, ema = (load_file(checkpoint / name) for name in ("model.safetensors", "ema.safetensors"))
    moments = torch.frombuffer(bytearray((checkpoint / "optimizer.bin").read_bytes()), dtype=torch.uint8)
    return {**weights, **{f"ema.{name}": value for name, value in ema.items()}, "moments": moments}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


PROGRAM = """
import json, sys
from accelerate import PartialState
from diffretouch.training import retouch_model, train_diffretouch as t
retouch_model.SMALL_UNET = json.loads(sys.argv[1])
t.main(sys.argv[2:])
print(f"processes: {PartialState().num_processes}")
"""


def ranks(folder, *arguments, before="", machines=False):
    """The script once for each rank's arguments: (exit code, what it said) of each, see `run_ranks`."""
    own = [[json.dumps(TINY_UNET), *one] for one in arguments]
    return run_ranks(before + PROGRAM, folder, *own, threads=torch.get_num_threads(), machines=machines)


def fresh():
    torch.manual_seed(0)
    return UNet2DConditionModel(**TINY_UNET), AffineGridHead(splat_strides=(2, 1), residual=True)


ALL = {"latent", "pixel", "attribute", "contrastive", "obedience"}
