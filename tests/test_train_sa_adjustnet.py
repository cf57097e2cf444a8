"""The training script as users start it, on tiny networks: every variant of the paper's table, and exact resume."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetModel

from diffretouch import SAAdjustNetPipeline
from diffretouch.data.yan import yan_ids
from diffretouch.losses.adjustment import moved_usage
from diffretouch.metrics import delta_e76
from diffretouch.training import simulate_local_effects, train_sa_adjustnet
from diffretouch.training.checkpoints import checkpoints

from .test_sa_adjustnet import TINY

PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch):
    monkeypatch.setattr(train_sa_adjustnet, "SMALL_ADJUSTNET", TINY)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train(output_dir, *more):
    train_sa_adjustnet.main(
        [
            *("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir), "--size", "small"),
            *("--pixels", "64", "--train_batch_size", "2", "--max_train_steps", "4", "--checkpointing_steps", "2"),
            *("--learning_rate", "1e-3", *map(str, more)),
        ]
    )


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def scenes(folder, count=3):
    rng = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (folder / part / "training").mkdir(parents=True)
    for n in range(count):
        annotation = rng.integers(0, 151, (24, 32), dtype=np.uint8)
        Image.fromarray(annotation).save(folder / "annotations/training" / f"{n}.png")
        Image.fromarray(np.repeat(annotation[..., None], 3, 2)).save(folder / "images/training" / f"{n}.png")
    return folder


@pytest.mark.parametrize(
    "more, terms, presets, classes",
    [
        (("--loss", "mse"), {"regression"}, 0, 0),
        ((), {"regression"}, 0, 0),
        (("--scene_weight", 0.01), {"regression", "scene"}, 0, 4),
        (("--scene_weight", 0.01, "--presets", 4, "--effect", "local_xpro"), {"regression", "scene"}, 4, 4),
        (("--presets", 2, "--preset_mixture", 1), {"regression"}, 2, 0),
    ],
)
def test_every_variant_of_the_table(tmp_path, more, terms, presets, classes):
    train(tmp_path / "out", *more)
    rows = log(tmp_path / "out")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    shares = [f"usage_{k}" for k in range(presets)]
    assert set(rows[0]) == {"step", "lr", *terms, *shares}
    pipe = SAAdjustNetPipeline.from_pretrained(tmp_path / "out")
    assert pipe.network.config.presets == presets and pipe.network.config.scene_classes == classes
    assert pipe.network.config.soft_edges == ("--preset_mixture" in more)
    assert pipe(torch.rand(3, 20, 30), output_type="pt").images.shape == (1, 3, 20, 30)
    if presets:
        usage = [rows[-1][name] for name in shares]
        assert usage == pipe.network.usage.tolist()
        assert sum(usage) == pytest.approx(1) and len(set(usage)) > 1


def test_scene_parsing_by_its_own_data(tmp_path):
    train(tmp_path / "out", "--scene_weight", 0.01, "--scene_data_dir", scenes(tmp_path / "ade"))
    assert SAAdjustNetPipeline.from_pretrained(tmp_path / "out").network.config.scene_classes == 150
    assert log(tmp_path / "out")[0]["scene"] == pytest.approx(0.01 * np.log(150), rel=0.2)  # untrained: a guess of 150


def test_photos_of_yan(tmp_path):
    for name, count in (("train", 70), ("test", 45)):
        ids = "\n".join(f"{name}{n:02}_z" for n in range(count))
        (tmp_path / f"uniform_set_{name}_id.txt").write_text(ids)
    rng = np.random.default_rng(0)
    for side in ("in", "out"):
        (tmp_path / side).mkdir()
        for id in yan_ids(tmp_path, "train"):
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(tmp_path / side / f"{id}.tif")
    yan = ("--dataset", "yan", "--target_dir", tmp_path / "out", "--split_dir", tmp_path)
    train(tmp_path / "run", *yan, "--train_data_dir", tmp_path / "in")
    assert len(log(tmp_path / "run")) == 4


@pytest.mark.parametrize("more", [(), ("--scene_weight", 0.01, "--presets", 2)])
def test_resume_is_bit_exact(tmp_path, more):
    train(tmp_path / "straight", *more)
    train(tmp_path / "resumed", *more)
    last = tmp_path / "resumed" / "checkpoint-4"
    for path in sorted(last.rglob("*")):
        path.unlink()
    last.rmdir()
    train(tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    straight, resumed = (
        load_file(tmp_path / name / "checkpoint-4/model.safetensors") for name in ("straight", "resumed")
    )
    assert straight.keys() == resumed.keys()
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name
    assert log(tmp_path / "straight")[-2:] == log(tmp_path / "resumed")[-2:]


def test_a_stop_writes_a_checkpoint_first(tmp_path, monkeypatch):
    def stopping(usage, *more):
        if len(log(tmp_path / "out")) == 2:  # in the third step
            os.kill(os.getpid(), signal.SIGTERM)
        return moved_usage(usage, *more)

    monkeypatch.setattr(train_sa_adjustnet, "moved_usage", stopping)
    more = ("--presets", 2, "--checkpointing_steps", 100, "--max_train_steps", 100)
    train(tmp_path / "out", *more)
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3"]
    assert json.loads((tmp_path / "out/timing.json").read_text())["steps"] == len(log(tmp_path / "out")) == 3
    SAAdjustNetPipeline.from_pretrained(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:passed by")
def test_bad_files(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("gb82_dog-lossless.jpg", "gb82_haze-lossless.jpg"):
        (tmp_path / "photos" / name).write_bytes((PHOTOS / name).read_bytes())
    (tmp_path / "photos/broken.jpg").write_bytes(b"no photo")
    folder = ("--train_data_dir", tmp_path / "photos")
    with pytest.raises(SystemExit, match="the data set failed: .*broken.jpg"):
        train(tmp_path / "stopped", *folder)
    train(tmp_path / "out", *folder, "--on_bad_file", "skip")
    (sentence,) = json.loads((tmp_path / "out/timing.json").read_text())["bad_files"]
    assert "broken.jpg" in sentence and "1 bad files" in capsys.readouterr().err
    assert log(tmp_path / "out")[-1]["bad_files"] == 1


def test_backbone_learns_more_slowly(tmp_path):
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8], depths=[1, 1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    saved = load_file(tmp_path / "resnet/model.safetensors")
    train(tmp_path / "out", "--backbone_weights", tmp_path / "resnet", "--backbone_lr_scale", 0)
    weights = SAAdjustNetPipeline.from_pretrained(tmp_path / "out").network.resnet.state_dict()
    trainable = [name for name in saved if "running" not in name and "num_batches" not in name]
    assert trainable and all(torch.equal(weights[name], saved[name]) for name in trainable)
    with pytest.raises(ValueError, match="the backbone .* cannot be loaded"):
        train(tmp_path / "other", "--backbone_weights", tmp_path / "none")


@pytest.mark.parametrize(
    "more",
    [
        ("--presets", 1),
        ("--presets", 2, "--preset_influence", -0.1),
        ("--preset_mixture", 1),
        ("--presets", 2, "--preset_mixture", 1.5),
        ("--dataset", "yan"),
        ("--scene_data_dir", "ade"),
        ("--effect", "sepia"),
        ("--split_dir", "lists"),
        ("--dataset", "yan", "--target_dir", "x", "--split_dir", "y", "--exclude", "list.txt"),
        ("--dataset", "yan", "--target_dir", "x", "--split_dir", "y", "--scene_weight", 0.01),
    ],
)
def test_wrong_usage(tmp_path, more, capsys):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "out", *more)
    assert stop.value.code == 2 and "--" in capsys.readouterr().err


def test_a_folder_with_another_training_is_left_alone(tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        train(tmp_path)


def test_simulated_pairs_as_files(tmp_path):
    (tmp_path / "names.txt").write_text("gb82_dog-lossless.jpg\ngb82_haze-lossless.jpg\n")
    arguments = [str(PHOTOS), str(tmp_path / "pairs"), "--only", str(tmp_path / "names.txt"), "--size", "64"]
    simulate_local_effects.main(arguments)
    for name in ("gb82_dog-lossless", "gb82_haze-lossless"):
        sides = [Image.open(tmp_path / "pairs" / side / f"{name}.png") for side in ("input", "target")]
        assert sides[0].size == sides[1].size and max(sides[0].size) == 64
        a, b = (torch.from_numpy(np.asarray(side)).permute(2, 0, 1)[None] / 255 for side in sides)
        assert delta_e76(a, b) > 5
    assert len(list((tmp_path / "pairs/input").iterdir())) == 2
    with pytest.raises(SystemExit, match="not empty"):
        simulate_local_effects.main(arguments)
