"""What all training scripts share: kill -9 and going on, the best model, validation, epochs, a part of the data."""

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import CSRNetPipeline
from diffretouch.evaluation.pairs import photo_tensor
from diffretouch.metrics import delta_e76, psnr
from diffretouch.training import train_autoencoder, train_baselines, train_csrnet, train_sa_adjustnet
from diffretouch.training.checkpoints import best_so_far, checkpoints

from .ranks import FORKS
from .tiny import recipes_toy, run_here

PHOTOS = Path(__file__).parent / "photos"
COMMON = ("--train_data_dir", str(PHOTOS), "--train_batch_size", "2", "--checkpointing_steps", "2")
SCRIPTS = {  # DiffRetouch's own test kills, too
    "csrnet": (train_csrnet, ("--resolution", "16")),
    "hdrnet": (train_baselines, ("--network", "hdrnet", "--resolution", "16")),
    "autoencoder": (train_autoencoder, ("--resolution", "16")),
    "sa_adjustnet": (train_sa_adjustnet, ("--size", "small", "--pixels", "32", "--dataloader_num_workers", "0")),
}


def train(name, output_dir, *more):
    script, own = SCRIPTS[name]
    workers = ("--dataloader_num_workers", "0")
    run_here(script.main, [*COMMON, *own, *workers, "--output_dir", output_dir, "--max_train_steps", "4", *more])


def killed_at_the_second_checkpoint(name, output_dir):
    """Train in this process until kill -9, sent when `checkpoint-4` is whole but has no name yet."""

    def die(event, arguments):
        if event == "os.rename" and os.fspath(arguments[1]).endswith("checkpoint-4"):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    sys.addaudithook(die)
    train(name, output_dir)


@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_training_comes_back_bit_exact(name, tmp_path):
    process = FORKS.Process(target=killed_at_the_second_checkpoint, args=(name, str(tmp_path / "killed")))
    process.start()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(name, tmp_path / "straight")
    process.join(600)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path / "killed")] == ["checkpoint-2"]
    train(name, tmp_path / "killed", "--resume_from_checkpoint", "latest")
    torch.set_num_threads(threads)
    straight, killed = (tmp_path / side / "checkpoint-4" for side in ("straight", "killed"))
    files = sorted(path.name for path in straight.glob("*.safetensors")) + ["optimizer.bin"]
    assert len(files) == (2 if name in ("autoencoder", "sa_adjustnet") else 3)  # the average of the others
    for file in files:
        assert (straight / file).read_bytes() == (killed / file).read_bytes(), file
    lines = [(folder.parent / "log.jsonl").read_text() for folder in (straight, killed)]
    assert lines[0] == lines[1] and lines[0].count("\n") == 4


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two held-out pairs, their targets much brighter."""
    toy, folder = recipes_toy(), tmp_path_factory.mktemp("pairs")
    for n in range(2):
        toy.save_png(folder / "input" / f"{n}.png", toy.photo(n))
        toy.save_png(folder / "target" / f"{n}.png", toy.photo(n, 0.5))
    return folder


def measured(pipe, pairs):
    rows = []
    for n in range(2):
        source, target = (photo_tensor(pairs / side / f"{n}.png") for side in ("input", "target"))
        made = pipe(source, output_type="pt").images
        rows.append([psnr(made, target).item(), delta_e76(made, target).item()])
    return np.mean(rows, 0)


def test_the_best_model_is_the_one_that_evaluates_best(tmp_path, pairs):
    more = ("--validation_pairs", pairs, "--validation_steps", "1", "--learning_rate", "0.03", "--ema_decay", "0")
    train("csrnet", tmp_path, *more, "--max_train_steps", "6", "--halvings", "0", "--checkpoints_total_limit", "9")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    judged = {row["step"]: row["validation"] for row in rows if "validation" in row}
    assert list(judged) == [1, 2, 3, 4, 5, 6]
    best = max(judged, key=lambda step: judged[step]["psnr"])
    kept = best_so_far(tmp_path)
    assert len(kept.pop("pairs")) == 16 and kept == {"step": best, **judged[best]}
    figures = measured(CSRNetPipeline.from_pretrained(tmp_path / "best"), pairs)
    assert figures == pytest.approx(list(judged[best].values()), abs=1e-3)
    last = measured(CSRNetPipeline.from_pretrained(tmp_path), pairs)
    assert last == pytest.approx(list(judged[6].values()), abs=1e-3) and last[0] <= figures[0]
    assert "| psnr |" in (tmp_path / "README.md").read_text()
    # a kill while the best was replaced: the one before is put back
    (tmp_path / "best").rename(tmp_path / "best.old")
    assert best_so_far(tmp_path)["step"] == best and (tmp_path / "best" / "model_index.json").is_file()


@pytest.mark.parametrize("name", ["csrnet", "autoencoder", "sa_adjustnet"])
def test_sheets_show_the_input_beside_what_is_made_of_it(name, tmp_path, pairs):
    more = ("--validation_dir", pairs / "input", "--validation_pairs", pairs, "--max_train_steps", "1")
    train(name, tmp_path, *more)
    sheet = np.asarray(Image.open(tmp_path / "validation" / "step-1-sheet-0.png"))
    source = np.asarray(Image.open(pairs / "input" / "0.png"))
    height, width = source.shape[:2]
    places = (sheet[y : y + height, 6 : 6 + width] for y in range(sheet.shape[0] - height + 1))
    assert any(np.array_equal(place, source) for place in places)
    assert sheet.shape[1] >= 2 * width
    assert json.loads((tmp_path / "best" / "validation.json").read_text())["psnr"] > 0


def test_epochs_and_a_part_of_the_data_set(tmp_path, capsys):
    """9 photos, 5 of them, twice, in batches of 2: 5 steps; which 5 is the seed's affair."""
    more = ("--num_train_epochs", "2", "--max_train_samples", "5")
    args = train_csrnet.parse_args([*COMMON, "--output_dir", str(tmp_path / "out"), *more, "--resolution", "16"])
    assert args.max_train_steps is None
    run_here(train_csrnet.main, [*COMMON, "--output_dir", tmp_path / "out", *more, "--resolution", "16"])
    rows = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert len(rows) == 5 and 'samples_per_epoch": 5' in (tmp_path / "out" / "README.md").read_text()
    given = [*COMMON, "--output_dir", str(tmp_path), "--num_train_epochs", "2"]
    assert train_csrnet.parse_args([*given, "--max_train_steps", "7"]).max_train_steps == 7
    counts = ("validation_steps", "max_train_samples", "checkpointing_steps", "checkpoints_total_limit")
    zeros = [(f"--{name}", "0") for name in ("num_train_epochs", "train_batch_size", *counts)]
    for wrong in (*zeros, ("--adam_beta1", "1")):
        with pytest.raises(SystemExit, match="2"):
            train_csrnet.parse_args([*given, *wrong])
    assert "--validation_steps must be at least 1" in capsys.readouterr().err


def test_the_optimizer_is_the_one_that_was_asked_for(tmp_path):
    asked = ("--adam_beta1", "0.5", "--adam_beta2", "0.7", "--adam_weight_decay", "0.1", "--adam_epsilon", "1e-6")
    train("csrnet", tmp_path)
    train("csrnet", tmp_path, "--max_train_steps", "6", "--resume_from_checkpoint", "latest", *asked)
    groups = torch.load(tmp_path / "checkpoint-6" / "optimizer.bin", weights_only=True)["param_groups"]
    for group in groups:
        assert (tuple(group["betas"]), group["weight_decay"], group["eps"]) == ((0.5, 0.7), 0.1, 1e-6)


def test_pairs_that_do_not_fit(tmp_path, pairs):
    shutil.copytree(pairs, tmp_path / "pairs")
    (tmp_path / "pairs" / "target" / "1.png").unlink()
    with pytest.raises(SystemExit, match="`--validation_pairs`.*unpaired: 1"):
        train("csrnet", tmp_path / "out", "--validation_pairs", tmp_path / "pairs")


def test_the_best_of_other_pairs_or_of_no_number_is_not_kept(tmp_path, pairs, caplog, monkeypatch):
    more = ("--validation_pairs", pairs, "--validation_steps", "1", "--resume_from_checkpoint", "latest")
    train("csrnet", tmp_path / "out", *more)
    place = tmp_path / "out" / "best" / "validation.json"
    first = json.loads(place.read_text())
    place.write_text(json.dumps(first | {"psnr": 99.0}))
    shutil.copytree(pairs, tmp_path / "moved")
    train("csrnet", tmp_path / "out", *more, "--max_train_steps", "5", "--validation_pairs", tmp_path / "moved")
    assert json.loads(place.read_text())["psnr"] == 99.0 and "other pairs" not in caplog.text  # the same elsewhere
    shutil.copy(pairs / "input" / "0.png", tmp_path / "moved" / "target" / "0.png")
    more += ("--validation_pairs", tmp_path / "moved")
    with monkeypatch.context() as broken:
        broken.setattr("diffretouch.training.steps.judged", lambda *_: {"psnr": math.nan, "delta_e76": math.nan})
        train("csrnet", tmp_path / "out", *more, "--max_train_steps", "6")
    assert json.loads(place.read_text())["step"] == first["step"] and "judged by other pairs" in caplog.text
    train("csrnet", tmp_path / "out", *more, "--max_train_steps", "7")
    assert json.loads(place.read_text())["step"] == 7


def test_weights_that_are_no_numbers_replace_nothing(tmp_path, monkeypatch):
    """A finite loss whose gradient is not: the step is not noticed by the next loss before a checkpoint is due."""
    train("csrnet", tmp_path)
    before = (tmp_path / "network" / "diffusion_pytorch_model.safetensors").read_bytes()
    go_on = ("--resume_from_checkpoint", "latest", "--max_train_steps", "6")
    with monkeypatch.context() as broken:
        spoiled = "diffretouch.training.on_pairs.set_rates"
        broken.setattr(spoiled, lambda optimizer, *_: optimizer.param_groups[0].update(lr=math.nan))
        with pytest.raises(SystemExit, match="step 5: weights are NaN or infinite"):
            train("csrnet", tmp_path, *go_on, "--checkpointing_steps", "1")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    assert (tmp_path / "network" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    train("csrnet", tmp_path, *go_on)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-6"]


def test_a_disk_too_full_for_sheets_stops_nothing(tmp_path, pairs, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "validation").write_text("in the way")
    more = ("--validation_dir", pairs / "input", "--validation_pairs", pairs, "--resume_from_checkpoint", "latest")
    train("csrnet", tmp_path / "out", *more)
    assert "sheets of step 4 cannot be written" in caplog.text
    assert (tmp_path / "out" / "best").is_dir() and len(checkpoints(tmp_path / "out")) == 2


def test_going_back_leaves_later_checkpoints_aside(tmp_path, caplog):
    """Else the oldest, which is the new one, would be removed first, and the next start go on from those left."""
    train("csrnet", tmp_path, "--checkpoints_total_limit", "9", "--checkpointing_steps", "1")
    (tmp_path / "checkpoint-3.tmp").mkdir()
    back = ("--resume_from_checkpoint", tmp_path / "checkpoint-1", "--learning_rate", "0.01", "--max_train_steps", "2")
    train("csrnet", tmp_path, *back, "--checkpoints_total_limit", "1", "--checkpointing_steps", "1")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]
    left = sorted(path.name for path in tmp_path.glob("checkpoint-*.*"))
    assert left == ["checkpoint-2.left", "checkpoint-3.left", "checkpoint-4.left"]
    assert "checkpoint-4 is of a later step than 1" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and rows[1]["lr"] == 0.01 * 0.5**3
