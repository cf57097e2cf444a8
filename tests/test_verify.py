import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch.colour import linear_to_srgb, srgb_to_linear
from diffretouch.data.paired import PairedPhotos
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.data.verify import verify

from .test_paired import make

NAMES = list("abcdefgh")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "input", NAMES)
    make(tmp_path / "target", NAMES, lambda x: 0.02 + 0.96 * x**0.85)
    return tmp_path


def look(folder):
    return verify(PairedPhotos(folder / "input", folder / "target", 16, strict=False))


def said(report, kind):
    return "\n".join(report[kind])


def test_a_good_set(folder):
    report = look(folder)
    assert not report["errors"] and not report["warnings"]
    assert report["figures"]["pairs_compared"] == 8 and report["figures"]["median"]["psnr"] > 20
    assert report["description"]["photos"] == 8


def test_names_sizes_and_files(folder):
    (folder / "input" / "h.png").unlink()
    make(folder / "target", ["a"], size=(40, 30))
    (folder / "target" / "b.png").write_bytes(b"no photo")
    shutil.copy(folder / "input" / "c.png", folder / "target" / "c.png")  # forgotten to be retouched
    errors = said(report := look(folder), "errors")
    assert "inputs: lacks 1 of the other folders' photos: h" in errors
    assert "sizes differ" in errors and "a.png 40x30" in errors and "b.png" in errors
    assert len(report["errors"]) == 3 and "the same: " in said(report, "warnings")


def stops(by):
    return lambda x: linear_to_srgb(srgb_to_linear(x) * np.float32(2**by))


MISMATCHES = [  # what one side went through, and what is said of it
    ("input", lambda x: x**2.2, "the inputs look linear"),
    ("target", lambda x: x**2.2, "the targets look linear"),
    ("input", lambda x: x ** (1 / 2.2), "or the inputs encoded twice"),
    ("input", stops(-1.6), "brightness: the targets are +"),
    ("target", stops(-1), "brightness: the targets are -"),
    ("input", stops(1), "brightness: the targets are -"),
    ("input", lambda x: 0.25 + 0.5 * x, "contrast: the targets have x"),
]


REAL = [row for row in MISMATCHES if row[2] != "contrast: the targets have x"] + [
    ("input", stops(-1), "brightness: the targets are +"),
    ("input", lambda x: 0.15 + 0.7 * x, "contrast: the targets have x"),
]


@pytest.mark.parametrize("side, change, sentence", MISMATCHES)
def test_one_side_was_exported_otherwise(folder, side, change, sentence):
    make(folder / side, NAMES, change)
    assert "mismatch of the whole set: " in said(report := look(folder), "warnings")
    assert sentence in said(report, "warnings")


def test_names_of_other_pictures(folder):
    files = sorted((folder / "target").iterdir())
    for file in files:
        shutil.move(file, file.with_suffix(".tmp"))
    for n, file in enumerate(files):
        shutil.move(file.with_suffix(".tmp"), files[(n + 1) % len(files)])
    assert said(look(folder), "warnings").count("other pictures?") >= 5


def test_nothing_left(tmp_path):
    make(tmp_path / "input", ["a"])
    make(tmp_path / "target", ["b"])
    assert "no photo is left" in said(look(tmp_path), "errors")


def test_finished_photos(tmp_path):
    make(tmp_path, NAMES)
    report = verify(UnpairedPhotos(tmp_path, 16))
    assert not report["errors"] and report["description"]["photos"] == 8
    (tmp_path / "c.png").write_bytes(b"")
    report = verify(UnpairedPhotos(tmp_path, 40))
    assert "c.png" in said(report, "errors") and "less than samples of 40" in said(report, "warnings")


def test_looks_at_no_more_than_it_was_told(folder):
    photos = PairedPhotos(folder / "input", folder / "target", 16, strict=False)
    assert verify(photos, limit=3)["figures"]["photos_opened"] == 3


@pytest.mark.skipif(not (SHARED / "fivek_pairs").is_dir(), reason="needs photos that may not be copied")
@pytest.mark.parametrize("side, change, sentence", [(None, None, ""), ("swapped", None, "swapped folders?")] + REAL)
def test_real_pairs(tmp_path, side, change, sentence):
    folders = {name: SHARED / "fivek_pairs" / name for name in ("input", "target")}
    if side == "swapped":
        folders = {"input": folders["target"], "target": folders["input"]}
    elif side:
        for path in folders[side].iterdir():
            small = Image.open(path).reduce(4)
            changed = change(np.asarray(small, np.float32) / 255).clip(0, 1)
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(np.round(changed * 255).astype(np.uint8)).save(tmp_path / side / f"{path.stem}.png")
        other = "target" if side == "input" else "input"
        (tmp_path / other).mkdir()
        for path in folders[other].iterdir():
            Image.open(path).reduce(4).save(tmp_path / other / f"{path.stem}.png")
        folders = {name: tmp_path / name for name in folders}
    report = verify(PairedPhotos(folders["input"], folders["target"], 64, strict=False))
    assert not report["errors"]
    if not sentence:
        assert not report["warnings"] and np.isclose(report["figures"]["median"]["psnr"], 21.6, atol=1)
    assert sentence in said(report, "warnings")
