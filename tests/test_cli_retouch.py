"""`diffretouch retouch`: photos of every kind in, results out; what cannot be done is one sentence."""

import io
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from diffretouch import cli
from diffretouch.photo import load_photo
from diffretouch.settings import settings_of

from .photo_files import PHOTO, pixels
from .tiny import tiny_pipeline


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


def test_any_style_is_told_and_repeated(run, photo, tmp_path):
    """Unknown attributes: samples differ, a result's file says so, and `--like` makes it again."""
    out, again, usual = (tmp_path / name for name in ("out.png", "again.png", "usual.png"))
    assert run("retouch", photo, "-o", out, "--any-style", "--samples", 2, "--seed", 7, "--steps", 2)[0] == 0
    assert run("retouch", photo, "-o", usual, "--seed", 7, "--steps", 2)[0] == 0
    first, second = (load_photo(tmp_path / f"out-{n}.png") for n in (1, 2))
    said = settings_of(second)
    assert said.any_style and said.c is None and (said.seed, said.steps) == (8, 2)
    assert np.abs(first.pixels - second.pixels).mean() > 3 * 1 / 255
    assert np.abs(first.pixels - load_photo(usual).pixels).mean() > 1 / 255
    assert run("retouch", photo, "-o", again, "--like", tmp_path / "out-2.png")[0] == 0
    np.testing.assert_allclose(load_photo(again).pixels, second.pixels, atol=1.01 / 255)  # alone, not as one of two
    assert run("retouch", photo, "-o", usual, "--like", again, "--contrast", 0.5, "--overwrite")[0] == 0
    assert settings_of(load_photo(usual)).c["contrast"] == 0.5 and not settings_of(load_photo(usual)).any_style
    tiny_pipeline(tokens=4).save_pretrained(tmp_path / "paper")  # the paper's token has no word for unknown
    wrong = {"not trained with unknown": ("--model", tmp_path / "paper"), "`any_style` leaves": ("--contrast", 1),
             "no sliders": ("--model", "csrnet"), "`any_style` needs more than one step": ("--steps", 1)}  # fmt: skip
    for why, options in wrong.items():
        code, _, err = run("retouch", photo, "-o", tmp_path / "no.png", "--any-style", *options)
        assert code == 1 and why in err and not (tmp_path / "no.png").exists()


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


def test_retouch_with_csrnet(run, photo, tmp_path):
    from diffretouch import CSRNetPipeline

    for name, bundled in (("csrnet", "small"), ("csrnet-l", "small-l")):
        out = tmp_path / f"{name}.png"
        code, _, err = run("retouch", photo, "-o", out, "--model", name, "--strength", 0.7)
        wanted = CSRNetPipeline.from_pretrained(bundled).retouch(pixels(photo).astype(np.uint8), strength=0.7)
        assert code == 0 and np.abs(pixels(out) - wanted).max() <= 1, err
    CSRNetPipeline.from_pretrained("small").save_pretrained(tmp_path / "mine")
    assert run("retouch", photo, "-o", tmp_path / "mine.png", "--model", tmp_path / "mine", "--strength", 0.7)[0] == 0
    # the bundled one may have run by its graph, the folder without one by torch
    assert np.abs(pixels(tmp_path / "mine.png") - pixels(tmp_path / "csrnet.png")).max() <= 1


def test_what_can_be_known_is_told_before_the_model_is_loaded(run, photo, tmp_path):
    deep = tmp_path / "alpha.png"
    Image.new("RGBA", (40, 30), (200, 100, 50, 128)).save(deep)
    wide = tmp_path / "wide.png"
    Image.new("RGB", (17000, 12)).save(wide)
    for arguments, said in (
        ((photo, "-o", tmp_path / "out.heic"), "must end in"),
        ((photo, "-o", tmp_path), "is a folder"),
        ((photo, "-o", tmp_path / "none" / "out.jpg"), "does not exist"),
        ((photo, "-o", tmp_path / "o.jpg", "--save-preset", tmp_path / "none" / "x.json"), "does not exist"),
        ((deep, "-o", tmp_path / "o.jpg"), "background"),
        ((wide, "-o", tmp_path / "o.webp"), "16383"),
        ((photo, "-o", tmp_path / "o.png", "--quality", 80), "lossless"),
    ):
        code, _, err = run("retouch", *arguments)
        assert code and said in " ".join(re.sub("[│╭╮╰╯─]", " ", err).split()) and "Loading the model" not in err, err
    code, _, err = run("sweep", photo, "-o", tmp_path / "sheet.heic")
    assert code == 1 and "must end in" in err and "Loading the model" not in err


@pytest.mark.parametrize("name, result", [("photo.jfif", "photo_retouched.jpg"), ("photo.mpo", "photo_retouched.jpg")])
def test_a_photo_of_another_suffix_gets_a_result_that_can_be_written(run, photo, model, name, result):
    source = photo.rename(photo.with_name(name))
    code, out, err = run("retouch", source, "--model", model)
    assert code == 0 and out.strip() == str(photo.with_name(result)), err


def test_names_that_are_no_utf8(run, photo, model, monkeypatch):
    """As Python hands them to a program, to a terminal that takes UTF-8 alone."""
    name = photo.rename(photo.with_name(os.fsdecode(b"caf\xe9.jpg")))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    code, _, err = run("retouch", name, "--model", model, "--strength", 0)
    assert code == 0 and b"caf\xe9_retouched.jpg" in terminal.buffer.getvalue(), err


def test_several_photos_and_those_that_are_broken(run, photo, model, tmp_path):
    broken, other, out = tmp_path / "broken.jpg", tmp_path / "other.png", tmp_path / "out"
    broken.write_bytes(photo.read_bytes()[:400])
    Image.fromarray(pixels(photo).astype(np.uint8)).save(other)
    out.mkdir()
    code, printed, err = run("retouch", broken, photo, other, "-o", out, "--model", model, "--strength", 0)
    assert code == 1 and printed.split() == [str(out / "photo.jpg"), str(out / "other.png")]
    assert "broken.jpg" in err and "1 of 3 photos failed" in err and err.count("Loading") == 1
    assert (pixels(out / "other.png") == pixels(photo)).all()
    code, printed, _ = run("retouch", photo, other, "--model", model, "--samples", 2)
    assert code == 0 and len(printed.split()) == 4 and (tmp_path / "other_retouched-2.png").exists()
    code, printed, err = run("retouch", broken, broken.rename(tmp_path / "2.jpg"), "-o", out)
    assert code == 1 and not printed and "2 of 2" in err and "Loading" not in err
    twin = tmp_path / "twin" / "photo.jpg"
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    for arguments in ((photo, twin, "-o", out, "--overwrite"), (photo, other, "-o", tmp_path / "new"), (photo, "-"),
                      (photo, photo), (photo, other, "-o", "-"), (photo, other, "--reference", photo)):  # fmt: skip
        code, _, err = run("retouch", *arguments, "--model", model)
        assert code == 2 and "Loading" not in err, arguments


def test_standard_input_and_output(photo, model, tmp_path, monkeypatch, capsysbinary):
    def piped(content, *arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        monkeypatch.setattr(sys, "argv", ["diffretouch", "retouch", *map(str, arguments), "--model", model])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, *capsysbinary.readouterr()

    code, out, err = piped(photo.read_bytes(), "-", "--strength", 0)
    assert code == 0 and out.startswith(b"\xff\xd8\xff"), err
    with Image.open(io.BytesIO(out)) as image:
        assert np.abs(np.asarray(image).astype(int) - pixels(photo)).mean() < 1
    code, out, _ = piped(photo.read_bytes(), "-", "-o", tmp_path / "in.png", "--strength", 0)
    assert code == 0 and out.decode().split() == [str(tmp_path / "in.png")]
    assert (pixels(tmp_path / "in.png") == pixels(photo)).all()
    code, out, err = piped(b"", tmp_path / "in.png", "-o", "-", "--save-preset", tmp_path / "p.json")
    assert code == 0 and out.startswith(b"\x89PNG") and b"p.json" in err, err
    for content in (b"no photo", b"", photo.read_bytes()[:500]):
        code, out, err = piped(content, "-", "-o", "-")
        assert code == 1 and not out and err.count(b"Error") == 1 and b"'standard input" in err, err
        assert b"Loading" not in err
    for wrong in (("--samples", 2), ("--sidecar",)):
        code, out, err = piped(photo.read_bytes(), "-", *wrong)
        assert code == 2 and not out and b"one file" in err
