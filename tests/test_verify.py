import shutil
from pathlib import Path

import numpy as np
import pytest

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
    assert "inputs: 1 photos of the other folders are missing: h" in errors
    assert "sizes differ" in errors and "a.png 40x30" in errors and "b.png" in errors
    assert len(report["errors"]) == 3 and "the same: " in said(report, "warnings")


def test_linear_inputs(folder):
    make(folder / "input", NAMES, lambda x: x**2.2)
    assert "the inputs look linear" in said(look(folder), "warnings")


def test_dark_export(folder):
    make(folder / "input", NAMES, lambda x: 0.35 * x)
    warnings = said(look(folder), "warnings")
    assert "brightness mismatch of the whole set: targets are +" in warnings


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
def test_real_pairs_raise_no_alarm():
    photos = PairedPhotos(SHARED / "fivek_pairs" / "input", SHARED / "fivek_pairs" / "target", 128, strict=False)
    report = verify(photos)
    assert not report["errors"] and not report["warnings"]
    assert np.isclose(report["figures"]["median"]["psnr"], 21.6, atol=1)
