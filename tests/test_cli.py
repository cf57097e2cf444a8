"""The program as a whole, and its commands that make no photo."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffretouch import cli

from .photo_files import PHOTO, pixels

ROOT = Path(__file__).parents[1]


def test_help_answers_at_once():
    command = [sys.executable, "-m", "diffretouch.cli", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    commands = re.findall(r"^\W*([a-z]+)  ", out[out.index("Commands") :], re.M)
    wanted = ["retouch", "batch", "sweep", "lut", "measure", "learn", "evaluate", "convert", "export", "demo"]
    assert commands == wanted
    code = "import sys, diffretouch.cli; print({'torch', 'diffusers', 'starlette'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_version(run):
    from diffretouch import __version__

    assert run("--version") == (0, f"diffretouch {__version__}\n", "")


def _broken(folder, kind):
    path = folder / "in.jpg"
    whole = PHOTO.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"not a photo", "truncated": whole[: len(whole) // 2]}[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "missing", "folder"])
def test_broken_photos_end_in_one_sentence(run, model, tmp_path, kind):
    source = _broken(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    for command in (
        ("retouch", source, "-o", tmp_path / "out.jpg", "--model", model),
        ("sweep", source, "-o", tmp_path / "out.png", "--model", model),
        ("measure", source),
    ):
        code, _, err = run(*command)
        assert code == 1, command
        assert len(err.strip().splitlines()) == 1 and err.startswith("Error: ") and "in.jpg" in err
    assert sorted(tmp_path.iterdir()) == before


def test_sweep(run, photo, model):
    code, printed, _ = run("sweep", photo, "--model", model, "--columns", 3, "--size", 64)
    sheet = photo.with_name("photo_sweep.png")
    assert code == 0 and printed.strip() == str(sheet)
    width, height = Image.open(sheet).size
    assert width > 3 * 64 and height > 4 * 64


def test_measure(run, photo, tmp_path):
    code, out, _ = run("measure", photo, photo)
    header, *rows = out.splitlines()
    assert code == 0 and header.split()[:4] == ["colorfulness", "contrast", "temperature", "brightness"]
    assert len(rows) == 2 and rows[0].endswith(str(photo))
    code, out, _ = run("measure", "--json", photo)
    luma = (pixels(photo) @ [0.299, 0.587, 0.114]).mean() / 255
    assert abs(json.loads(out)["brightness"] - luma) < 2e-3
    (tmp_path / "bad.jpg").write_bytes(b"x")
    code, out, err = run("measure", "--json", tmp_path / "bad.jpg", photo)
    assert code == 1 and "bad.jpg" in err and len(out.splitlines()) == 1  # one bad photo does not stop the rest


def test_convert_refuses_what_is_no_checkpoint(run, photo, tmp_path):
    code, _, err = run("convert", photo, tmp_path / "out")
    assert code == 1 and err.strip().splitlines()[-1].startswith("Error: ") and not (tmp_path / "out").exists()


def test_names_cannot_steer_the_terminal(capsys):
    cli.say("Note: '\x1b]0;title\x07\x9b2J\nname': it is é")
    assert capsys.readouterr().err == r"Note: '\x1b]0;title\x07\x9b2J\nname': it is é" + "\n"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_out_of_memory_is_one_sentence(run, monkeypatch, device):
    import torch

    def full(*_, **__):
        if device == "cpu":
            torch.empty(2**58)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(cli, "app", full)
    code, _, err = run("retouch", "x.jpg")
    assert code == 1 and "not enough memory" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words, offered", [("diffretouch ret", "retouch"), ("diffretouch retouch --bri", "--brightness")]
)
def test_shells_complete(words, offered):
    environment = {**os.environ, "_DIFFRETOUCH_COMPLETE": "complete_bash", "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
    code = "from diffretouch.cli import app; app(prog_name='diffretouch')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [offered], done.stderr
