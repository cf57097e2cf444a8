import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch import cli

from .tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO.read_bytes())
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line in this process -> (exit code, standard output, standard error)."""

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


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_help_answers_at_once():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        command = [sys.executable, "-m", "diffretouch.cli", "--help"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        times.append(time.perf_counter() - start)
    assert all(name in out for name in ("retouch", "sweep", "measure", "evaluate", "convert"))
    code = "import sys, diffretouch.cli; print('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"


def test_retouch(run, photo, model, tmp_path):
    out = tmp_path / "out.png"
    code, printed, _ = run("retouch", photo, "-o", out, "--model", model, "--brightness", 0.5, "--seed", 3)
    assert code == 0 and printed.strip() == str(out)
    result = pixels(out)
    assert result.shape == pixels(photo).shape and (result != pixels(photo)).any()
    again = tmp_path / "again.png"
    run("retouch", photo, "-o", again, "--model", model, "--brightness", 0.5, "--seed", 3)
    assert (pixels(again) == result).all()
    run("retouch", photo, "-o", again, "--model", model, "--brightness", 0.5, "--seed", 4, "--overwrite")
    assert (pixels(again) != result).any()


def test_strength_zero_returns_the_photo(run, photo, model, tmp_path):
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--strength", 0)[0] == 0
    assert (pixels(tmp_path / "out.png") == pixels(photo)).all()


def test_samples_are_numbered_and_seeded_one_by_one(run, photo, model, tmp_path):
    out = tmp_path / "out.png"
    code, printed, _ = run("retouch", photo, "-o", out, "--model", model, "--samples", 2, "--seed", 7)
    assert code == 0 and printed.split() == [str(tmp_path / "out-1.png"), str(tmp_path / "out-2.png")]
    run("retouch", photo, "-o", out, "--model", model, "--seed", 8)
    assert np.abs(pixels(out) - pixels(tmp_path / "out-2.png")).max() <= 1
    assert (pixels(tmp_path / "out-1.png") != pixels(tmp_path / "out-2.png")).any()


def test_default_name_and_no_overwriting(run, photo, model):
    before = photo.read_bytes()
    assert run("retouch", photo, "--model", model)[0] == 0
    default = photo.with_name("photo_retouched.jpg")
    assert default.exists()
    for output in (default, photo):
        kept = output.read_bytes()
        code, _, err = run("retouch", photo, "-o", output, "--model", model)
        assert code == 2 and "--overwrite" in err and output.read_bytes() == kept
    assert run("retouch", photo, "-o", photo, "--model", model, "--overwrite")[0] == 0
    assert photo.read_bytes() != before


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_other_kinds_of_pictures(run, model, tmp_path, mode):
    source = tmp_path / ("in.tif" if mode == "CMYK" else "in.png")
    Image.open(PHOTO).convert("RGB").convert(mode).save(source)
    code, _, err = run("retouch", source, "-o", tmp_path / "out.png", "--model", model)
    assert code == 0, err
    with Image.open(tmp_path / "out.png") as out:
        assert out.size == (256, 256) and ("A" in out.getbands()) == (mode == "RGBA")


def test_formats_that_hold_less_say_so(run, model, tmp_path):
    import tifffile

    deep = np.random.default_rng(0).integers(0, 65535, (30, 40, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    code, _, err = run("retouch", tmp_path / "deep.tif", "-o", tmp_path / "out.jpg", "--model", model)
    assert code == 0 and "8 bits" in err
    assert run("retouch", tmp_path / "deep.tif", "--model", model, "--strength", 0)[0] == 0
    assert np.array_equal(tifffile.imread(tmp_path / "deep_retouched.tif"), deep)


def test_transparency_needs_a_background_in_jpeg(run, model, tmp_path):
    Image.new("RGBA", (20, 20), (200, 0, 0, 0)).save(tmp_path / "in.png")
    command = ("retouch", tmp_path / "in.png", "-o", tmp_path / "out.jpg", "--model", model)
    code, _, err = run(*command)
    assert code == 1 and "background" in err and not (tmp_path / "out.jpg").exists()
    assert run(*command, "--background", "nocolour")[0] == 2
    assert run(*command, "--background", "white")[0] == 0
    assert pixels(tmp_path / "out.jpg").min() > 250


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (333, 517)])
def test_odd_sizes(run, model, tmp_path, size):
    Image.new("RGB", size, (90, 100, 110)).save(tmp_path / "in.png")
    assert run("retouch", tmp_path / "in.png", "-o", tmp_path / "out.png", "--model", model)[0] == 0
    assert Image.open(tmp_path / "out.png").size == size


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("--brightness", "3.5"),
        ("--brightness", "bright"),
        ("--strength", "-1"),
        ("--steps", "0"),
        ("--samples", "0"),
        ("--seed", "-1"),
        ("--quality", "101"),
        ("--exposure", "1"),
        ("-o", "no-such-folder/out.jpg"),
    ],
)
def test_wrong_usage(run, photo, model, arguments):
    code, out, err = run("retouch", photo, "--model", model, *arguments)
    assert code == 2 and not out and err
    assert not photo.with_name("photo_retouched.jpg").exists()


@pytest.mark.parametrize("option", ["--brightness", "--strength"])
def test_nan_is_refused(run, photo, model, option):
    code, out, err = run("retouch", photo, "--model", model, option, "nan")
    assert code == 2 and not out and option in err


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "."])
def test_wrong_models(run, photo, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = run("retouch", photo, "--model", name)
    assert code == 1 and err.strip().splitlines()[-1].startswith("Error: `name`")


def test_unknown_device(run, photo, model):
    code, _, err = run("retouch", photo, "--model", model, "--device", "cuda:99")
    assert code == 1 and "cuda:99" in err.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(run, photo, model, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run("retouch", photo, "-o", tmp_path / "locked" / "out.jpg", "--model", model)[0] == 1


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


def test_evaluate(run, model, tmp_path):
    for side in ("input", "target"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.jpg").write_bytes(PHOTO.read_bytes())
    report = tmp_path / "report.json"
    code, out, err = run("evaluate", tmp_path / "input", tmp_path / "target", "--model", model, "-o", report)
    assert code == 0, err
    assert "automatic" in out and json.loads(report.read_text())["mean"]["input"]["psnr"] == pytest.approx(120)


def test_convert_refuses_what_is_no_checkpoint(run, photo, tmp_path):
    code, _, err = run("convert", photo, tmp_path / "out")
    assert code == 1 and err.strip().splitlines()[-1].startswith("Error: ") and not (tmp_path / "out").exists()
