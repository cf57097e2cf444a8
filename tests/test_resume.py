"""Trainings that go on from a checkpoint, to the bit."""

import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file

from diffretouch import DiffRetouchPipeline
from diffretouch.training import launch as launching
from diffretouch.training import steps
from diffretouch.training.checkpoints import checkpoints
from diffretouch.training.model_card import Repository

from .toy_training import assert_same, log, state, train


@pytest.mark.parametrize("broken, accumulation", [(False, "1"), (False, "2"), (True, "2")])
def test_resume_is_bit_exact(autoencoder, tmp_path, monkeypatch, accumulation, broken):
    more = ("--gradient_accumulation_steps", accumulation)
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    # back to step 4: 9 photos in batches of 3, so this is inside an epoch; or, with step 4 damaged, to step 2
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    if broken:
        damaged = tmp_path / "resumed" / "checkpoint-4" / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:100])
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))
    assert log(tmp_path / "straight") == log(tmp_path / "resumed")  # no line twice


def test_resume_at_the_end_of_an_epoch(autoencoder, tmp_path, monkeypatch):
    more = ("--checkpointing_steps", "3")  # 9 photos in batches of 3
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))


def test_only_what_is_complete_is_pushed(autoencoder, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(launching, "open_repository", lambda args: Repository("someone/mine", args.hub_token))
    monkeypatch.setattr(steps, "push", lambda *of: pushed.append(of))
    with monkeypatch.context() as stopped:
        stopped.setattr(steps, "stop_agreed", lambda *_: True)
        train(monkeypatch, autoencoder, tmp_path / "out")
    assert not pushed and [p.name for p in checkpoints(tmp_path / "out")] == ["checkpoint-1"]
    for _ in range(2):  # the second time nothing is left to do
        more = ("--resume_from_checkpoint", "latest", "--hub_token", "hf_secret")
        train(monkeypatch, autoencoder, tmp_path / "out", *more)
    assert [(repository.token, done) for repository, _, done in pushed] == [("hf_secret", 6)] * 2
    written = (path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not any(b"hf_secret" in content for content in written)


def test_nothing_to_resume_from(autoencoder, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no checkpoint"):
        train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", str(tmp_path / "checkpoint-7"))


def test_streamed_shards_resume(autoencoder, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    from .test_shards import encoded, write_shard

    for shard in range(2):
        write_shard(tmp_path / f"set-{shard}.tar", [(f"p{shard}{n}.jpg", encoded(shard + n)) for n in range(4)])
    more = ("--train_data_dir", str(tmp_path), "--dataset", "shards", "--max_train_steps", "4")
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-4"), state(tmp_path / "resumed" / "checkpoint-4"))


def test_a_full_disk_leaves_the_checkpoint_before(autoencoder, tmp_path, monkeypatch, caplog):
    """Files may not grow beyond 16 kB, as on a full disk: nothing is lost, and the failure is said."""
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2")
    before = state(tmp_path / "checkpoint-2"), load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(SystemExit, match="could not be written"):
            train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", "latest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not list(tmp_path.glob("*.tmp"))
    assert_same(before[0], state(tmp_path / "checkpoint-2"))
    assert_same(before[1], load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors"))
    assert "checkpoint-4 cannot be written" in caplog.text
    train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", "latest")
    assert log(tmp_path)[-1]["step"] == 6


def test_resumed_with_other_arguments(autoencoder, tmp_path, monkeypatch, caplog):
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2")
    path = tmp_path / "checkpoint-2" / "step.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "settings": {**kept["settings"], "processes": 4}}))
    more = ("--learning_rate", "0.01", "--pixel_weight", "2", "--resume_from_checkpoint", "latest")
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "3", *more)
    said = [record.message for record in caplog.records if "resumed with another" in record.message]
    changed = ["learning_rate", "max_train_steps", "pixel_weight", "processes"]
    assert sorted(sentence.split("`")[1] for sentence in said) == changed
    assert "2.0, the checkpoint has 8.0" in "".join(said)


def test_without_an_average(autoencoder, tmp_path, monkeypatch):
    more = ("--ema_decay", "0", "--max_train_steps", "4")
    train(monkeypatch, autoencoder, tmp_path / "out", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    last = tmp_path / "out" / "checkpoint-4"
    assert torch.equal(pipe.unet.conv_in.weight, load_file(last / "model.safetensors")["unet.conv_in.weight"])
    assert not (last / "ema.safetensors").exists()
    shutil.copytree(tmp_path / "out", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert log(tmp_path / "out") == log(tmp_path / "resumed")
    with pytest.raises(SystemExit, match="no checkpoint"):  # there is no average to go on with
        train(monkeypatch, autoencoder, tmp_path / "out", "--resume_from_checkpoint", "latest")
