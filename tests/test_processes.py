"""Trainings in processes of their own, one or several, a real kill. A recipe's starts by `accelerate launch`."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from diffretouch import DiffRetouchPipeline
from diffretouch.training import retouch_model
from diffretouch.training.checkpoints import checkpoints

from .ranks import started
from .toy_training import PROGRAM, TINY_UNET, arguments, assert_same, fresh, log, ranks, state, train

# As on a loaded machine: the last call is done, and its thread still owns the tensors when the group ends
CALLS_LEFT = """
import accelerate, torch
end = accelerate.Accelerator.end_training
def with_calls_left(accelerator):
    for _ in range(2):
        torch.distributed.all_reduce(torch.zeros(20_000_000), async_op=True)
    end(accelerator)
accelerate.Accelerator.end_training = with_calls_left
"""


def wait_for(condition, seconds=600):
    """A bound for what hangs; how long a condition may take, no test says."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


KILLED = """
import os, signal, sys
def die(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]).endswith("checkpoint-4"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
"""


def test_killed_training_comes_back_bit_exact(autoencoder, tmp_path, monkeypatch):
    """Killed when the second checkpoint is written but has no name yet: whatever the load, at that place."""
    ((code, _),) = ranks(tmp_path, arguments(autoencoder, tmp_path / "killed"), before=KILLED)
    assert code == -signal.SIGKILL
    train(monkeypatch, autoencoder, tmp_path / "straight")
    assert [path.name for path in checkpoints(tmp_path / "killed")] == ["checkpoint-2"]
    assert (tmp_path / "killed" / "checkpoint-4.tmp" / "step.json").exists()
    train(monkeypatch, autoencoder, tmp_path / "killed", "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "killed" / "checkpoint-6"))
    assert [row["step"] for row in log(tmp_path / "killed")] == [1, 2, 3, 4, 5, 6]


def test_sigterm_stops_with_a_checkpoint(autoencoder, tmp_path):
    endless = ("--max_train_steps", "100000", "--checkpointing_steps", "100000", "--dataloader_num_workers", "2")
    own = [json.dumps(TINY_UNET), *arguments(autoencoder, tmp_path / "out", *endless)]
    lines = tmp_path / "out" / "log.jsonl"
    with started(PROGRAM, tmp_path, own, threads=torch.get_num_threads()) as ((process, said),):
        wait_for(lambda: lines.exists() and len(log(tmp_path / "out")) > 2 or not process.is_alive())
        os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a scheduler does: the data workers get it too
        process.join(600)
        assert process.exitcode == 0, said.read_text()[-2000:]
    (checkpoint,) = checkpoints(tmp_path / "out")
    assert json.loads((checkpoint / "step.json").read_text())["step"] == len(log(tmp_path / "out"))
    DiffRetouchPipeline.from_pretrained(tmp_path / "out")


def test_two_processes_make_the_weights_of_one(autoencoder, tmp_path, monkeypatch):
    """The same batches of 4 in one process and in two, with accumulation, and only some samples branched.

    And two end, though threads of their group are not done: they stood for ever, each waiting for the other.
    """
    labels = ("--labels", "automatic")
    more = (*labels, "--max_train_steps", "3", "--checkpointing_steps", "3", "--gradient_accumulation_steps", "2")
    half = arguments(autoencoder, tmp_path / "two", *more, "--train_batch_size", "2")
    ends = ranks(tmp_path, half, half, before=CALLS_LEFT)
    assert [code for code, _ in ends] == [0, 0], ends[0][1][-3000:]
    assert all("processes: 2" in said for _, said in ends)
    train(monkeypatch, autoencoder, tmp_path / "one", *more, "--train_batch_size", "4")
    weights, other = (load_file(tmp_path / n / "checkpoint-3" / "model.safetensors") for n in ("one", "two"))
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, atol=1e-5, rtol=0, msg=name)
    start = retouch_model.RetouchModel(*fresh()).state_dict()
    assert any((weights[name] - value).abs().max() > 1e-4 for name, value in start.items())  # something was learned
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_two_processes_then_one_then_two(autoencoder, tmp_path, monkeypatch):
    """A training that moves to another number of processes, and back, with the same batch keeps its losses."""
    more = ("--labels", "automatic", "--lr_scheduler", "cosine", "--checkpoints_total_limit", "9")
    latest = ("--resume_from_checkpoint", "latest")

    def of_two(name, *flags):
        own = arguments(autoencoder, tmp_path / name, *more, "--train_batch_size", "2", *flags)
        ends = ranks(tmp_path, own, own)
        assert [code for code, _ in ends] == [0, 0], ends[0][1][-3000:]

    of_two("unbroken")
    shutil.copytree(tmp_path / "unbroken", tmp_path / "one")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "one" / f"checkpoint-{step}")
    train(monkeypatch, autoencoder, tmp_path / "one", *more, "--train_batch_size", "4", *latest)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoint-6")
    of_two("two", *latest)
    unbroken = log(tmp_path / "unbroken")
    for moved in (log(tmp_path / "one"), log(tmp_path / "two")):
        assert [row["step"] for row in moved] == [1, 2, 3, 4, 5, 6]
        for a, b in zip(unbroken, moved, strict=True):
            assert a == pytest.approx(b, abs=1e-4)


def test_machines_without_a_common_disk(autoencoder, tmp_path, monkeypatch):
    """Each keeps its own checkpoints; the first chooses which to go on from, and a machine that lacks it is told."""
    batch = ("--train_batch_size", "2", "--max_train_steps", "4")
    resumed = (*batch, "--resume_from_checkpoint", "latest")
    folders = [tmp_path / "machine0" / "out", tmp_path / "machine1" / "out"]

    def run(*more):
        return ranks(tmp_path, *(arguments(autoencoder, folder, *more) for folder in folders), machines=True)

    ends = run(*batch)
    assert [code for code, _ in ends] == [0, 0], ends[0][1][-2000:]
    names = [[path.name for path in checkpoints(folder)] for folder in folders]
    assert names == [["checkpoint-2", "checkpoint-4"]] * 2
    first = state(folders[0] / "checkpoint-4")
    assert_same(first, state(folders[1] / "checkpoint-4"))

    shutil.rmtree(folders[1] / "checkpoint-4")  # lost on one machine: both go back to step 2
    ends = run(*resumed)
    assert [code for code, _ in ends] == [0, 0] and "trying the one before" in ends[0][1]
    assert_same(first, state(folders[0] / "checkpoint-4"))
    assert_same(first, state(folders[1] / "checkpoint-4"))
