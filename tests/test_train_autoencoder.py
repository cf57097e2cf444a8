"""The autoencoder's training as users start it, in this process."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.training import train_autoencoder
from diffretouch.training.checkpoints import checkpoints

from .tiny import run_here

PHOTOS = Path(__file__).parent / "photos"


def train(monkeypatch, output_dir, *more):
    small = {**train_autoencoder.SMALL_AUTOENCODER, "block_out_channels": (8, 8, 8)}
    monkeypatch.setattr(train_autoencoder, "SMALL_AUTOENCODER", small)
    arguments = ("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir), "--resolution", "32")
    few = ("--train_batch_size", "3", "--max_train_steps", "4", "--checkpointing_steps", "2")
    run_here(train_autoencoder.main, [*arguments, *few, *more])


def test_trains_and_resumes(tmp_path, monkeypatch):
    keep = ("--checkpoints_total_limit", "3")
    train(monkeypatch, tmp_path / "straight", *keep)
    train(monkeypatch, tmp_path / "resumed", *keep, "--max_train_steps", "2")
    assert [p.name for p in checkpoints(tmp_path / "resumed")] == ["checkpoint-2"]
    # the schedule's length is a setting of the whole training, so it is begun again with that
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-4")
    train(monkeypatch, tmp_path / "again", *keep, "--resume_from_checkpoint", "latest")
    straight, again = (AutoencoderKL.from_pretrained(tmp_path / name) for name in ("straight", "again"))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert straight.config.scaling_factor == again.config.scaling_factor
    targets = torch.stack([UnpairedPhotos(PHOTOS, 32)[k]["target"] for k in range(64)])
    with torch.no_grad():
        latents = straight.encode(targets * 2 - 1).latent_dist.mean * straight.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=1e-4)


def test_refuses_a_folder_that_is_not_empty(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        train(monkeypatch, tmp_path)
