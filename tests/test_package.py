"""The package as a whole: what an import costs, and that it can be found in every way it is run."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffretouch

ROOT = Path(__file__).parents[1]


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options).stdout


def test_import_is_light():
    code = "import sys, diffretouch; print([m for m in ('torch', 'diffusers', 'numpy', 'numba') if m in sys.modules])"
    assert run(code, cwd=ROOT) == "[]\n"
    code = "import sys, diffretouch.cli; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    assert run(code, cwd=ROOT) == "[]\n"


def test_import_needs_no_torchvision_nor_network():
    code = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("network on import")
socket.socket.connect = socket.getaddrinfo = refuse
import diffretouch
for name in diffretouch.__all__: getattr(diffretouch, name)
print([m for m in ("torchvision", "lpips", "kornia") if m in sys.modules])
"""
    assert run(code, cwd=ROOT) == "[]\n"


def test_public_names():
    for name in diffretouch.__all__:
        value = getattr(diffretouch, name)
        assert value.__doc__ or not callable(value), name
    assert set(diffretouch.__all__) <= set(dir(diffretouch))
    with pytest.raises(AttributeError, match="'no_such_name'"):
        diffretouch.no_such_name  # noqa: B018


@pytest.mark.parametrize("module", ["diffretouch.pipelines.pipeline_diffretouch", "diffretouch.training.convert"])
def test_found_from_the_checkout_root(module):
    assert run(f"import {module}; print({module}.__name__)", cwd=ROOT) == f"{module}\n"


@pytest.mark.parametrize("script", ["train_diffretouch", "train_autoencoder"])
def test_training_scripts_start(script):
    for command in (["-m", f"diffretouch.training.{script}"], [f"training/{script}.py"]):
        result = subprocess.run(
            [sys.executable, *command, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
        )
        assert result.returncode == 0 and "--train_data_dir" in result.stdout, result.stderr


def test_pickles_and_spawned_workers():
    from diffretouch.data.unpaired import UnpairedPhotos

    photos = UnpairedPhotos(Path(__file__).parent / "photos", 16)
    assert torch.equal(pickle.loads(pickle.dumps(photos))[3]["target"], photos[3]["target"])
    loader = torch.utils.data.DataLoader(photos, 2, sampler=range(4), num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))["target"][1], photos[1]["target"])


def test_only_the_converter_loads_pickles():
    words = ("torch." + "load(", "pickle." + "load(", "weights_only=" + "False", " ev" + "al(")
    for folder in ("diffretouch", "pipelines", "training", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "convert.py":
                assert not any(word in path.read_text() for word in words), path
