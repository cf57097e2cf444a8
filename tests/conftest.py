import os
import shutil
import sys

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processor: a thread each, set before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

# The same examples everywhere, however slow the machine is
hypothesis.settings.register_profile(
    "any machine", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test may ask the network for a model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _painter(seed):
    import numpy as np  # numpy and torch, not before a worker's threads are set

    from .tiny import save_pattern

    return save_pattern, np.random.default_rng(seed)


@pytest.fixture
def folders(tmp_path):
    """Inputs and targets, two photos each."""
    save_pattern, rng = _painter(0)
    for side in ("input", "target"):
        for name in ("b", "a"):
            save_pattern(tmp_path / side / f"{name}.png", rng)
    return tmp_path / "input", tmp_path / "target"


@pytest.fixture
def experts(tmp_path):
    """Inputs, and the folders of three experts, two photos each."""
    save_pattern, rng = _painter(1)
    for folder in ("photos", "experts/expertA", "experts/expertB", "experts/expertC"):
        for name in ("a0001", "a0002"):
            save_pattern(tmp_path / folder / f"{name}-kme_01.png", rng)
    return tmp_path / "photos", tmp_path / "experts"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line in this process -> (exit code, standard output, standard error)."""
    from diffretouch import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["diffretouch", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return code, output.out, output.err

    return run


@pytest.fixture
def photo(tmp_path):
    """A photo's file."""
    from .photo_files import PHOTO

    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO.read_bytes())
    return path


@pytest.fixture
def shoot(tmp_path):
    """Four photos in two folders, one of them empty."""
    from .photo_files import PHOTOS

    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for n, path in enumerate(sorted(PHOTOS.glob("gb82_*.jpg"))[:4]):
        (source / ("sub" if n % 2 else "") / f"{n}.jpg").write_bytes(path.read_bytes()[: 0 if n == 2 else None])
    return source


@pytest.fixture
def folder(tmp_path):
    """Six photos in two folders, of several kinds."""
    import numpy as np
    import tifffile
    from PIL import Image

    from .batches import PHOTOS

    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for photo in PHOTOS[:3]:
        shutil.copy(photo, source)
    shutil.copy(PHOTOS[3], source / "sub" / "a.jpg")
    random = np.random.default_rng(0)
    tifffile.imwrite(source / "deep.tif", random.integers(0, 65536, (33, 51, 3), np.uint16), photometric="rgb")
    Image.fromarray(random.integers(0, 256, (9, 7, 4), np.uint8)).save(source / "sub" / "alpha.png")
    return source


@pytest.fixture(scope="module")
def pipe():
    from .tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a tiny pipeline."""
    from .tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """The folder of a tiny autoencoder."""
    import torch
    from diffusers import AutoencoderKL

    from diffretouch.training.train_autoencoder import SMALL_AUTOENCODER

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(**{**SMALL_AUTOENCODER, "block_out_channels": (8, 8, 8)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A report with all that can be asked for, of two photos, two experts' versions each."""
    from diffretouch import CSRNetPipeline, evaluation
    from diffretouch.models.csrnet import CSRNet

    from . import tiny

    folder, (save_pattern, rng) = tmp_path_factory.mktemp("whole"), _painter(2)
    for side in ("input", "experts/A", "experts/B"):
        for name in ("s1_0", "s1_1"):
            save_pattern(folder / side / f"{name}.png", rng)
    found = evaluation.expert_labels(evaluation.expert_pairs(folder / "input", folder / "experts"))
    masked, pipe = evaluation.with_masks(found, folder / "input"), tiny.one_step_pipeline()
    peers, _ = evaluation.peer_methods(["autocontrast", "curve"])
    peers.append(evaluation.pipeline_method("odd|_name", CSRNetPipeline(CSRNet()), "CSRNet, other weights"))
    asked = {"best_of": 2, "csrnet_lab": True, "groups": "s1", "cost": True, "interval": "bootstrap"}
    report = evaluation.evaluate_pairs({"tiny": pipe}, masked, peers=peers, **asked)
    sliders, photos = {"values": 3, "samples": 2, "size": 32}, sorted((folder / "input").iterdir())
    return report | {
        "diversity": {"tiny": evaluation.diversity(pipe, masked, samples=2, steps=1)},
        "controllability": {"tiny": evaluation.controllability(pipe, photos, **sliders)},
        "step_table": evaluation.step_table({"tiny": pipe}, photos, (1, 2), **sliders),
    }
