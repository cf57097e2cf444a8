"""The training script as users start it: real processes, real checkpoints, a real kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from diffretouch import AffineGridHead, DiffRetouchPipeline
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.metrics import psnr
from diffretouch.training import train_diffretouch
from diffretouch.training.train_autoencoder import SMALL_AUTOENCODER

from .tiny import TINY_UNET, tiny_unet

PHOTOS = Path(__file__).parent / "photos"
TINY_UNET = {**TINY_UNET, "in_channels": 16, "cross_attention_dim": 8}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(**{**SMALL_AUTOENCODER, "block_out_channels": (8, 8, 8)}).save_pretrained(folder)
    return folder


def arguments(autoencoder, output_dir, *more):
    return [
        *("--train_data_dir", str(PHOTOS), "--vae", str(autoencoder), "--output_dir", str(output_dir)),
        *("--resolution", "32", "--train_batch_size", "3", "--lr_warmup_steps", "2", "--max_train_steps", "6"),
        *("--checkpointing_steps", "2", "--checkpoints_total_limit", "3", "--dataloader_num_workers", "0"),
        *more,
    ]


def train(monkeypatch, *args):
    monkeypatch.setattr(train_diffretouch, "SMALL_UNET", TINY_UNET)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        train_diffretouch.main(arguments(*args))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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


def test_trains_and_saves_a_pipeline(autoencoder, tmp_path, monkeypatch):
    train(monkeypatch, autoencoder, tmp_path / "out")
    rows = log(tmp_path / "out")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert set(rows[0]) == {"step", "lr", "latent", "pixel", "attribute", "contrastive", "obedience"}
    assert [p.name for p in train_diffretouch.checkpoints(tmp_path / "out")] == [f"checkpoint-{n}" for n in (2, 4, 6)]
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)
    # what is saved is the EMA, not the raw weights
    raw = load_file(tmp_path / "out" / "checkpoint-6" / "model.safetensors")["unet.conv_in.weight"]
    assert not torch.equal(pipe.unet.conv_in.weight, raw)


@pytest.mark.parametrize(
    "more, terms",
    [
        (("--contrastive_anchor", "output"), {"latent", "pixel", "attribute", "contrastive", "obedience"}),
        (("--contrastive_weight", "0", "--obedience_weight", "0"), {"latent", "pixel", "attribute"}),
        (
            ("--branch_fraction", "1", "--pixel_stride", "3"),
            {"latent", "pixel", "attribute", "contrastive", "obedience"},
        ),
    ],
)
def test_other_losses(autoencoder, tmp_path, monkeypatch, more, terms):
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2", *more)
    assert set(log(tmp_path)[-1]) == {"step", "lr"} | terms


def test_from_stable_diffusion(autoencoder, tmp_path, monkeypatch):
    base = tiny_unet(in_channels=4, out_channels=4, cross_attention_dim=24)
    base.save_pretrained(tmp_path / "base" / "unet")
    DDPMScheduler(prediction_type="epsilon").save_pretrained(tmp_path / "base" / "scheduler")
    more = ("--pretrained_model_name_or_path", str(tmp_path / "base"), "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "out", "--max_train_steps", "2", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    assert pipe.scheduler.config.prediction_type == "epsilon" and pipe.unet.config.in_channels == 7
    assert torch.equal(pipe.unet.conv_in.weight[:, :4], base.conv_in.weight)
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)


@pytest.mark.parametrize("accumulation", ["1", "2"])
@pytest.mark.parametrize("broken", [False, True])
def test_resume_is_bit_exact(autoencoder, tmp_path, monkeypatch, accumulation, broken):
    more = ("--gradient_accumulation_steps", accumulation)
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more)
    # back to step 4: 9 photos in batches of 3, so this is inside an epoch; or, with step 4 damaged, to step 2
    last = tmp_path / "resumed" / "checkpoint-6"
    for path in sorted(last.rglob("*")):
        path.unlink()
    last.rmdir()
    if broken:
        damaged = tmp_path / "resumed" / "checkpoint-4" / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:100])
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))
    assert log(tmp_path / "straight")[-2:] == log(tmp_path / "resumed")[-2:]
    assert log(tmp_path / "resumed")[6]["step"] == (3 if broken else 5)


def launch(autoencoder, output_dir, *more):
    """The script in a process of its own, with the tiny UNet."""
    program = (
        "import json, sys; from diffretouch.training import train_diffretouch as t; "
        "t.SMALL_UNET = json.loads(sys.argv[1]); t.main(sys.argv[2:])"
    )
    command = [sys.executable, "-c", program, json.dumps(TINY_UNET), *arguments(autoencoder, output_dir, *more)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_killed_training_comes_back_bit_exact(autoencoder, tmp_path):
    straight = launch(autoencoder, tmp_path / "straight")
    killed = launch(autoencoder, tmp_path / "killed", "--max_train_steps", "6")
    wait_for(lambda: (tmp_path / "killed" / "checkpoint-2").exists() or killed.poll() is not None)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    resumed = launch(autoencoder, tmp_path / "killed", "--resume_from_checkpoint", "latest")
    for process in (straight, resumed):
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-2000:]
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "killed" / "checkpoint-6"))


def test_sigterm_stops_with_a_checkpoint(autoencoder, tmp_path):
    endless = ("--max_train_steps", "100000", "--checkpointing_steps", "100000", "--dataloader_num_workers", "2")
    process = launch(autoencoder, tmp_path, *endless)
    wait_for(lambda: (tmp_path / "log.jsonl").exists() and len(log(tmp_path)) > 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a scheduler does: the data workers get it too
    process.communicate(timeout=120)
    assert process.returncode == 0
    (checkpoint,) = train_diffretouch.checkpoints(tmp_path)
    assert json.loads((checkpoint / "step.json").read_text())["step"] == len(log(tmp_path))
    DiffRetouchPipeline.from_pretrained(tmp_path)


def test_nothing_to_resume_from(autoencoder, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no checkpoint"):
        train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", str(tmp_path / "checkpoint-7"))


def test_overfits_one_pair():
    """The pixel branch alone must be able to learn a retouch: above 40 dB on one pair."""
    torch.manual_seed(0)
    head = AffineGridHead(splat_strides=(2, 1), residual=True)
    model = train_diffretouch.RetouchModel(UNet2DConditionModel(**TINY_UNET), head)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    photo = UnpairedPhotos(PHOTOS, 32)[0]["input"][None]
    target = (0.1 + 0.85 * photo**1.5 * torch.tensor([1.0, 0.9, 0.8])[:, None, None]).clamp(0, 1)
    latents, t, c = torch.randn(1, 4, 8, 8), torch.tensor([999]), torch.zeros(1, 4)
    for _ in range(500):
        retouched = model(latents, photo, t, c)[1]
        loss = (retouched - target).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert psnr(photo, target) < 25
    assert psnr(retouched, target) > 40
