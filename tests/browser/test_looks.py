"""Looks: copied, presets, tables, other software's."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from .hands import PHOTO, drop, number, open_photo, picture, press, rest, told


def test_looks_go_from_photo_to_photo(visitor, tmp_path):
    Image.new("RGB", (300, 200), (120, 80, 60)).save(tmp_path / "one.png")
    Image.new("RGB", (200, 300), (60, 80, 120)).save(tmp_path / "two.png")
    page = visitor()
    page.set_input_files("#files", [PHOTO, tmp_path / "one.png", tmp_path / "two.png"])
    page.wait_for_selector('#stage[data-state="photo"]')
    rest(page)
    assert page.locator("#strip button").count() == 3
    press(page, "temperature", "End")
    page.keyboard.press("Control+c")
    page.click("#strip button:nth-child(2)")
    page.wait_for_function("() => document.querySelector('#name').innerText.startsWith('one')")
    assert number(page, "temperature") == 0
    page.keyboard.press("Control+v")
    assert number(page, "temperature") == 1
    press(page, "contrast", "End")
    page.click("#looks summary")
    page.click("#apply-all")
    page.click("#strip button:nth-child(3)")
    page.wait_for_function("() => document.querySelector('#name').innerText.startsWith('two')")
    assert (number(page, "temperature"), number(page, "contrast")) == (1, 1)
    shown = rest(page)
    with page.expect_download() as download:
        page.click("#save-preset")
    preset = tmp_path / "liked.json"
    download.value.save_as(preset)
    page.click("#reset")
    rest(page, shown)
    page.set_input_files("#files", preset)
    told(page, "Preset loaded")
    assert (number(page, "temperature"), number(page, "contrast")) == (1, 1)
    said = json.loads(preset.read_text())
    preset.write_text(json.dumps(said | {"format": 99}))
    page.set_input_files("#files", preset)
    told(page, "format 99, this version knows .*newer")
    from diffretouch.settings import read_preset

    preset.write_text(json.dumps(said))
    assert read_preset(preset).c["contrast"] == 1 and read_preset(preset).model == "small"


def test_tables_are_looks_too(visitor, tmp_path):
    from diffretouch.lut import Lut3D

    page = visitor()
    open_photo(page)
    press(page, "brightness", "End")
    page.click("#looks summary")
    with page.expect_download() as download:
        page.click("#save-table")
    assert download.value.suggested_filename == "gb82_dog-lossless.cube"
    download.value.save_as(tmp_path / "mine.cube")
    page.click("#reset")
    shown = rest(page)
    page.set_input_files("#files", tmp_path / "mine.cube")
    told(page, "mine.cube is applied")
    rest(page, shown - 1)
    wanted = Lut3D.load(tmp_path / "mine.cube").apply(np.asarray(Image.open(PHOTO)), interpolation="trilinear")
    assert np.abs(picture(page).astype(int) - wanted).max() <= 1
    page.select_option("#format", ".png")
    with page.expect_download() as download:
        page.click("#save")
    assert np.abs(np.asarray(Image.open(download.value.path())).astype(int) - wanted).max() <= 1
    (tmp_path / "bad.cube").write_text("LUT_3D_SIZE 9\n0 0 0\n")
    page.set_input_files("#files", tmp_path / "bad.cube")
    told(page, "bad.cube is no colour table")


@pytest.mark.parametrize("suffix", [".xmp", ".png", ".clf"])
def test_looks_of_other_software(visitor, tmp_path, suffix):
    from diffretouch.lut import Lut3D, lut_nodes

    if suffix == ".clf":
        pytest.importorskip("PyOpenColorIO", reason="OpenColorIO is not installed")
    nodes = lut_nodes(17).reshape(17, 17, 17, 3).astype(np.float32)
    Lut3D(nodes**1.4, title="dusk").save(tmp_path / "wanted.cube")
    wanted = Lut3D.load(tmp_path / "wanted.cube")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a Hald image has 16 nodes
        wanted.save(tmp_path / f"dusk{suffix}")
    page = visitor()
    shown = open_photo(page)
    page.click("#looks summary")
    if suffix == ".png":  # which is a photo when it is dropped
        page.set_input_files("#look-file", tmp_path / "dusk.png")
    else:
        drop(page, tmp_path / f"dusk{suffix}")
    told(page, f"dusk{suffix} is applied")
    rest(page, shown)
    pixels = np.asarray(Image.open(PHOTO))
    own = Lut3D.load(tmp_path / f"dusk{suffix}").apply(pixels, interpolation="trilinear").astype(int)
    assert np.abs(picture(page).astype(int) - own).max() <= 1
    page.select_option("#table-kind", suffix)
    press(page, "strength", "PageDown")
    with page.expect_download() as download:
        page.click("#save-table")
    assert download.value.suggested_filename.endswith(suffix)
    again = tmp_path / f"again{suffix}"
    download.value.save_as(again)
    half = Lut3D.load(again).apply(pixels, interpolation="trilinear").astype(int)
    assert np.abs(half - picture(page).astype(int)).max() <= 2
    (tmp_path / f"bad{suffix}").write_bytes(b"<nothing/>")
    page.set_input_files("#look-file", tmp_path / f"bad{suffix}")
    assert "diffretouch-" not in told(page, f"bad{suffix}"), "the name alone, not where the program keeps it"
