import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch import cli
from diffretouch.batch import report_paths
from diffretouch.photo import icc, load_photo, save_photo
from diffretouch.settings import read_preset, seed_of, settings_of, sidecar_path

from .ranks import run_ranks
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
             "no sliders": ("--model", "csrnet")}  # fmt: skip
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


def test_evaluate_formats(run, model, tmp_path):
    """--format writes to -o what it says, the terminal shows the table; every measure can be asked for."""
    for side in ("input", "target", "masks"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.jpg").write_bytes(PHOTO.read_bytes())
    folders, file = [tmp_path / "input", tmp_path / "target"], tmp_path / "rows.csv"
    measures = ["--masks", tmp_path / "masks", "--groups", ".*", "--cost", "--diversity", 2, "--against", "input"]
    told = ["--format", "csv", "-o", file, "--interval", "bootstrap"]
    code, out, err = run("evaluate", *folders, "--model", model, *measures, *told)
    assert code == 0, err
    assert "from input" in out and "cost at 512 px" in out and "PSNR-HC" in out and "the best of, c unknown" in out
    rows = file.read_text().splitlines()
    assert rows[0].startswith("photo,expert,method,oracle") and len(rows) == 1 + 3
    both = ["--controllability", tmp_path / "input", "--steps", "2,3", "--limit", 1]
    for told, wanted in (("latex", "\\begin{tabular}"), ("markdown", "| detour |")):
        file = tmp_path / told
        code, out, err = run("evaluate", *folders, "--model", f"x={model}", *both, "--format", told, "-o", file)
        assert code == 0 and wanted in file.read_text() and "cross-talk" in file.read_text(), err
        assert "detour" in out and "\\begin" not in out
    code, out, err = run("evaluate", *both, "--model", f"x={model}", "--format", "latex")
    assert code == 0 and out.count("\\begin{tabular}") == 2, err
    for bad in (["--format", "doc"], ["--interval", "z"]):
        code, _, err = run("evaluate", *folders, *bad)
        assert code == 2 and "must be" in err


def test_evaluate_writes_tables_page_and_card(run, model, tmp_path):
    for side in ("input", "target"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.jpg").write_bytes(PHOTO.read_bytes())
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    both = ["evaluate", tmp_path / "input", tmp_path / "target", "--controllability", tmp_path / "input"]
    named = ["--model", f"x={model}", "--peer", "autocontrast", "--peer", "y=csrnet", "--steps", "2,3"]
    kept = ["--card", "--page", page, "-o", report, "--cache", tmp_path / "cache"]
    code, out, err = run(*both, *named, *kept)
    assert code == 0, err
    assert "| autocontrast |" in out and "| matched 2 steps |" in out and "| Spearman, mean |" in out
    assert "picture" not in report.read_text() and page.read_text().count("<img") > 10
    code, again, err = run(*both, *named, *kept, "--overwrite")  # from the cache
    assert code == 0 and again == out, err
    code, _, err = run(*both, *named, *kept)
    assert code == 2 and "exists" in err
    figure = tmp_path / "figure.html"
    shown = ["--figure", "attributes", "--page", figure, "--page-photos", 1]
    code, out, err = run("evaluate", tmp_path / "input", "--model", model, *shown)
    assert code == 0 and "c of growing size" in figure.read_text(), err


def test_evaluate_opens_released_weights_as_peers(tmp_path):
    import torch

    from diffretouch import CSRNetPipeline
    from diffretouch.cli.evaluate import open_peers
    from diffretouch.models.csrnet import CSRNet
    from diffretouch.training.released_names import csrnet_keymap

    network = CSRNet()
    keymap = csrnet_keymap(network)
    released = {keymap[name]: weight for name, weight in network.state_dict().items()}
    torch.save(released, tmp_path / "csrnet.pth")
    photo = torch.rand(1, 3, 20, 24)
    methods, missing = open_peers([f"theirs={tmp_path / 'csrnet.pth'}", "autocontrast"], "cpu")
    assert [method.name for method in methods] == ["autocontrast", "theirs"] and not missing
    image, _ = methods[1].retouch(photo, None, None)
    assert image.shape == photo.shape and image.isfinite().all() and not torch.equal(image, photo)
    CSRNetPipeline(network).save_pretrained(tmp_path / "saved" / "hard")
    (method,), _ = open_peers([f"hard={tmp_path / 'saved' / 'hard'}"], "cpu")
    assert (method.name, method.meaning) == ("hard", "CSRNet, other weights")  # a name, no folder
    with pytest.raises(ValueError, match="holds no model|is no released CSRNet|cannot be loaded|damaged"):
        open_peers([str(tmp_path)], "cpu")


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "INPUTS and TARGETS"),
        (["."], 2, "INPUTS need TARGETS"),
        ([".", ".", "--simulated", "."], 2, "INPUTS and TARGETS"),
        ([".", ".", "--figure", "magic", "--page", "x.html"], 2, "attributes, grid or experts"),
        ([".", ".", "--figure", "grid"], 2, "give --page"),
        ([".", ".", "--steps", "1,none"], 2, "different numbers in 1..1000"),
        ([".", ".", "--page", "no/such/folder.html"], 2, "does not exist"),
        (["none", "none"], 1, "must be a folder"),
        ([".", ".", "--steps", "2,2"], 2, "different numbers in 1..1000"),
        ([".", ".", "--figure", "grid", "--page", "x.html"], 2, "give --model twice or more"),
        ([".", ".", "--page", "x", "-o", "./x"], 2, "x is also the --output"),
        ([".", ".", "--as-they-are"], 2, "is for --controllability PHOTOS"),
        (["--controllability", ".", "--peer", "all"], 2, "needs pairs to be measured"),
        (["--controllability", ".", "--split", "x"], 2, "needs pairs"),
        ([".", ".", "--figure", "experts", "--page", "x.html", "--best-of", "2"], 2, "does not go with --figure"),
        ([".", ".", "--figure", "experts", "--page", "x.html", "-o", "x.json"], 2, "does not go with --figure"),
        ([".", ".", "--card", "--format", "latex"], 2, "both say what is printed"),
        ([".", ".", "--diversity", "2", "--format", "csv"], 2, "has no rows of photos and methods"),
        (["--controllability", ".", "--format", "csv", "-o", "x.csv"], 2, "needs pairs: a row is a photo"),
        ([".", ".", "--page-photos", "3"], 2, "is for --page"),
        ([".", ".", "--released-glc"], 2, "needs series: --groups or ppr10k"),
        ([".", ".", "--figure", "experts", "--page", "x.html", "--cache", "x"], 2, "does not go with --figure"),
        (["--simulated", "photos", "--labels", "experts"], 2, "is for pairs: --simulated has its own"),
        (["--simulated", "photos", "--protocol", "yan"], 1, "must say what the pairs are, got 'yan'"),
        (["--simulated", "photos", "--peer", "magic"], 2, "must be autocontrast"),
        (["--simulated", "photos", "--peer", "small"], 2, "give it as --model"),
        (["--simulated", "photos", "--split", "none.txt"], 1, "none.txt cannot be read"),
        (["--simulated", "photos", "--cache", "photos/a.jpg"], 1, "`cache` must be a folder"),
        (["--simulated", "photos", "--protocol", "magic"], 1, "`protocol` must be one of"),
    ],
)
def test_evaluate_refuses(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(PHOTO.read_bytes())
    got, _, err = run("evaluate", *arguments)
    assert got == code and message in " ".join(err.replace("│", " ").split())


def test_convert_refuses_what_is_no_checkpoint(run, photo, tmp_path):
    code, _, err = run("convert", photo, tmp_path / "out")
    assert code == 1 and err.strip().splitlines()[-1].startswith("Error: ") and not (tmp_path / "out").exists()


# Settings that go from file to file


def test_like_repeats_what_a_photo_tells(run, photo, model, tmp_path):
    first, other = tmp_path / "first.png", tmp_path / "other.png"
    options = ("--brightness", 0.4, "--contrast", -0.2, "--strength", 0.8, "--seed", 9, "--steps", 3)
    assert run("retouch", photo, "-o", first, "--model", model, *options)[0] == 0
    assert run("retouch", photo, "-o", other, "--model", model, "--like", first)[0] == 0
    assert (pixels(first) == pixels(other)).all()
    said = settings_of(load_photo(other))
    assert said == settings_of(load_photo(first)) and (said.seed, said.steps, said.strength) == (9, 3, 0.8)
    assert said.c == {"colorfulness": 0, "contrast": -0.2, "temperature": 0, "brightness": 0.4}
    command = ("retouch", photo, "-o", other, "--overwrite", "--like", first)
    assert run(*command, "--model", model, "--brightness", 0, "--seed", 1)[0] == 0  # options count more
    said = settings_of(load_photo(other))
    assert said.c["brightness"] == 0 and said.c["contrast"] == -0.2 and said.seed == 1
    code, _, err = run(*command)  # a model that a photo names is not fetched
    assert code == 1 and "--model" in err and "Loading" not in err
    code, _, err = run(*command, "--model", "small")
    assert code == 0 and "from another model" in err
    code, _, err = run("retouch", photo, "--like", photo)
    assert code == 1 and "does not say how it was retouched" in err


def test_presets_and_sidecars(run, photo, model, tmp_path):
    preset, out = tmp_path / "mine.json", tmp_path / "out.png"
    options = ("--temperature", 0.3, "--save-preset", preset, "--sidecar", "--samples", 2)
    code, printed, _ = run("retouch", photo, "-o", out, "--model", model, *options)
    outs = [tmp_path / "out-1.png", tmp_path / "out-2.png"]
    assert code == 0 and printed.split() == [*map(str, outs), str(preset)]
    sidecars = [read_preset(sidecar_path(path)) for path in outs]
    assert [sidecar.seed for sidecar in sidecars] == [0, 1] and sidecars[0].photo == "photo.jpg"
    assert sidecars[1].c == read_preset(preset).c and read_preset(preset).photo is None
    again = tmp_path / "again.png"
    assert run("retouch", photo, "-o", again, "--model", model, "--preset", sidecar_path(outs[1]))[0] == 0
    assert np.abs(pixels(again) - pixels(outs[1])).max() <= 1
    assert settings_of(load_photo(again)).photo is None
    for arguments in (("--save-preset", preset), ("-o", again, "--sidecar"), ("--like", again, "--preset", preset)):
        kept = preset.read_text()
        sidecar_path(again).write_text("{}")
        code, _, err = run("retouch", photo, "--model", model, *arguments)
        assert code == 2 and err and preset.read_text() == kept and sidecar_path(again).read_text() == "{}"
    preset.write_text('{"format": 2}')
    code, _, err = run("retouch", photo, "--model", model, "--preset", preset)
    assert code == 1 and "a newer diffretouch wrote them" in err


def test_a_mask_that_a_photo_names_is_not_opened(run, photo, model, tmp_path):
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    out, region = tmp_path / "out.png", f"{tmp_path / 'mask.png'}:brightness=0.5"
    assert run("retouch", photo, "-o", out, "--model", model, "--region", region)[0] == 0
    command = ("retouch", photo, "-o", tmp_path / "again.png", "--model", model, "--like", out)
    code, _, err = run(*command)
    assert code == 1 and "mask of its own" in err and "--region" in err
    assert run(*command, "--region", "luminosity=0-0.5:brightness=0.5")[0] == 0
    assert settings_of(load_photo(tmp_path / "again.png")).regions == ("luminosity=0-0.5:brightness=0.5",)


def test_reference(run, photo, tmp_path):
    finished, out = tmp_path / "finished.png", tmp_path / "out.png"
    c = ("--brightness", 0.6, "--temperature", -0.4)
    assert run("retouch", photo, "-o", finished, *c)[0] == 0
    code, _, err = run("retouch", photo, "-o", out, "--reference", finished, "--contrast", 0.25)
    assert code == 0 and "As the reference: " in err
    said = settings_of(load_photo(out)).c
    assert said["contrast"] == 0.25 and said["brightness"] > 0.3 and said["temperature"] < -0.2
    (tmp_path / "bad.jpg").write_bytes(b"")
    code, _, err = run("retouch", photo, "-o", out, "--overwrite", "--reference", tmp_path / "bad.jpg")
    assert code == 1 and "bad.jpg" in err and "Loading" not in err


# Folders


@pytest.fixture
def shoot(tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for n, path in enumerate(sorted(PHOTO.parent.glob("gb82_*.jpg"))[:4]):
        (source / ("sub" if n % 2 else "") / f"{n}.jpg").write_bytes(path.read_bytes()[: 0 if n == 2 else None])
    return source


def test_batch(run, shoot, model, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    command = ("batch", shoot, out, "--model", model, "--report", report)
    code, printed, err = run(*command, "--suffix", "_x", "--brightness", 0.3, "--sidecar", "--jobs", 2)
    assert code == 1 and not printed and "3 retouched" in err and "0 skipped, 1 failed." in err
    assert "Error: '2.jpg': " in err and "it is empty" in err
    results = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
    assert results == ["0_x.jpg", "sub/1_x.jpg", "sub/3_x.jpg"] and len(list(out.rglob("*.json"))) == 3
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert {row["photo"]: row["status"] for row in rows} == {
        "0.jpg": "done", "2.jpg": "failed", "sub/1.jpg": "done", "sub/3.jpg": "done"}  # fmt: skip
    said = settings_of(load_photo(out / "sub" / "1_x.jpg"))
    assert said.seed == seed_of("sub/1.jpg") and said.c["brightness"] == 0.3

    # A batch's photo is what `retouch --like` makes of it
    one = tmp_path / "one.jpg"
    assert run("retouch", shoot / "0.jpg", "-o", one, "--model", model, "--like", out / "0_x.jpg")[0] == 0
    difference = np.abs(pixels(one) - pixels(out / "0_x.jpg"))
    # Photos are sampled with whichever are read by then: a value at a rounding's edge may turn one JPEG coefficient
    assert difference.max() <= 8 and (difference > 0).mean() < 0.02

    code, _, err = run(*command, "--suffix", "_x")
    assert code == 2 and "3 of 4 results exist" in err and "--skip-existing" in err
    code, _, err = run("batch", shoot, tmp_path / "other", "--model", model, "--report", report)
    assert code == 2 and "--report" in err and "Loading" not in err
    (out / "sub" / "1_x.jpg").unlink()
    (shoot / "2.jpg").write_bytes(PHOTO.read_bytes())
    code, _, err = run(*command, "--suffix", "_x", "--brightness", 0.3, "--skip-existing")
    assert code == 0 and "2 retouched" in err and "2 skipped, 0 failed" in err
    rows = [json.loads(line)["photo"] for line in report.read_text().splitlines()]
    assert sorted(rows) == ["0.jpg", "2.jpg", "2.jpg", "sub/1.jpg", "sub/1.jpg", "sub/3.jpg"]
    code, _, err = run(*command, "--suffix", "_x", "--brightness", 0.3, "--skip-existing")
    assert code == 0 and "0 retouched; 4 skipped, 0 failed." in err


def test_batch_tells_what_was_not_carried(run, shoot, model, tmp_path):
    """Once for all photos that it is about, also without a report."""
    for name in ("grey.png", "more.png"):
        Image.open(PHOTO).convert("L").save(shoot / name)
    Image.open(PHOTO).save(shoot / "wide.png", icc_profile=icc.adobe_rgb_profile(), dpi=(300, 300))
    out, report = tmp_path / "out", tmp_path / "out" / "report.jsonl"
    options = ("--model", model, "--format", "webp", "--srgb", "--strip-metadata", "--max-pixels", 300_000)
    code, _, err = run("batch", shoot, out, *options, "--report", report)
    assert code == 1 and len(report.read_text().splitlines()) == 7
    told = [line for line in err.splitlines() if line.startswith("Note: ")]
    assert len(told) == 1 and told[0].startswith("Note: 'grey.png' and 1 more: Grey became RGB")
    assert load_photo(out / "wide.webp").icc_profile == icc.srgb_profile()
    code, _, err = run("batch", shoot, out, *options, "--skip-existing", "--sidecar")
    assert code == 1 and "Note: 6 results that exist have no sidecar" in err
    other = tmp_path / "other"
    code, _, err = run("batch", shoot, other, "--model", model, "--report", tmp_path / "missing" / "report.jsonl")
    assert code == 2 and "--report" in err and "Loading" not in err
    code, _, err = run("batch", shoot / "sub", other, "--model", model, "--max-pixels", 1000)
    assert code == 1 and "`max_pixels` = 1000" in err and "0 retouched; 0 skipped, 2 failed." in err


def test_a_stopped_batch_says_how_to_go_on(run, shoot, model, tmp_path):
    for n in range(40):
        (shoot / "sub" / f"copy{n}.jpg").write_bytes(PHOTO.read_bytes())
    out, report = tmp_path / "out", tmp_path / "report"
    os.mkfifo(report)

    def stop():
        with open(report, "rb") as rows:
            rows.readline()
            os.kill(os.getpid(), signal.SIGTERM)
            rows.read()

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # should the batch be over before
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        code, _, err = run("batch", shoot, out, "--model", model, "--report", report, "--overwrite", "--jobs", 1)
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert code == 130 and "Stopped." in err and "--skip-existing" in err
    results = [path for path in out.rglob("*") if path.is_file()]
    assert len(results) < 43 and all(load_photo(path).pixels.size for path in results)
    code, _, err = run("batch", shoot, out, "--model", model, "--skip-existing")
    assert code == 1 and f"{43 - len(results)} retouched" in err and f"{len(results)} skipped, 1 failed." in err


def test_batch_of_a_series(run, shoot, model, tmp_path):
    (shoot / "2.jpg").unlink()
    out = tmp_path / "out"
    assert run("batch", shoot, out, "--model", model, "--consistent", "--seed", 4, "--format", "png")[0] == 0
    said = [settings_of(load_photo(path)) for path in out.rglob("*.png")]
    assert len(said) == 3 and {settings.seed for settings in said} == {4}
    exposures = sorted(settings.exposure for settings in said)
    assert exposures[0] < -0.02 < 0.02 < exposures[2] and abs(exposures[1]) < 0.1  # the middle one nearly stays


def test_batch_refuses_before_it_loads(run, shoot, model, tmp_path):
    out, missing = tmp_path / "out", tmp_path / "missing"
    wrong = [(shoot, shoot), (missing, out), (shoot / "sub", PHOTO)]
    for arguments in (*wrong, (shoot, out, "--format", "gif"), (shoot, out, "--suffix", "../x")):
        code, _, err = run("batch", *arguments, "--model", model)
        assert code == 1 and err.startswith("Error: `") and len(err.splitlines()) == 1
    assert not out.exists()
    photo = next(path for path in shoot.iterdir() if path.is_file())
    before = photo.read_bytes()
    code, _, err = run("batch", shoot, out, "--report", photo, "--overwrite", "--model", model)
    assert code == 2 and "a photo's result" in err and photo.read_bytes() == before


def test_names_cannot_steer_the_terminal(capsys):
    cli.say("Note: '\x1b]0;title\x07\x9b2J\nname': it is é")
    assert capsys.readouterr().err == r"Note: '\x1b]0;title\x07\x9b2J\nname': it is é" + "\n"


def test_batch_over_two_processes(shoot, model, tmp_path):
    """Two real processes: every photo once, by one of them, and as one process does it."""
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    command = ["batch", shoot, out, "--model", model, "--report", report, "--consistent"]
    (first, said), (second, _) = run_ranks("from diffretouch import cli; cli.main()", tmp_path, command, command)
    assert "3 retouched by 2 processes" in said and "1 failed" in said, said
    assert first or second  # for the broken photo
    rows = [[json.loads(line) for line in (tmp_path / f"report.{n}.jsonl").read_text().splitlines()] for n in (0, 1)]
    assert [[(row["process"], row["processes"]) for row in part] for part in rows] == [[(0, 2)] * 2, [(1, 2)] * 2]
    assert sorted(row["photo"] for row in sum(rows, [])) == ["0.jpg", "2.jpg", "sub/1.jpg", "sub/3.jpg"]
    exposures = {row["exposure"] for row in sum(rows, []) if row["status"] == "done"}
    assert min(map(abs, exposures)) < 0.1 and len(exposures) == 3  # matched over both
    assert sorted(tmp_path.glob("report*")) == report_paths(report, 2)  # those that another run finds and refuses


def test_learn(run, shoot, model, tmp_path):
    (shoot / "2.jpg").unlink()
    finished, preset = tmp_path / "finished", tmp_path / "me.json"
    assert run("batch", shoot / "sub", finished, "--model", model, "--strength", 0.5)[0] == 0
    code, printed, err = run("learn", shoot / "sub", finished, "-o", preset, "--model", model)
    assert code == 0, err
    assert "without the preset (automatic)" in printed and "from other pairs only" in printed
    assert read_preset(preset).strength < 0.95 and read_preset(preset).revision
    assert "not written" not in err
    assert run("batch", shoot / "sub", finished, "--model", model, "--overwrite")[0] == 0
    for path, gain in zip(sorted(finished.iterdir()), (0.8, 1.25), strict=True):  # looks that contradict each other
        save_photo(load_photo(path).pixels * gain, path, overwrite=True)
    code, printed, err = run("learn", shoot / "sub", finished, "-o", tmp_path / "none.json", "--model", model)
    assert code == 1 and not (tmp_path / "none.json").exists(), printed
    held_out = next(line for line in printed.splitlines() if "from other pairs only" in line).split()[0]
    assert f"the error is {held_out} with it" in err and "--init small --dataset pairs" in " ".join(err.split())
    forced = run("learn", shoot / "sub", finished, "-o", tmp_path / "none.json", "--model", model, "--force")
    assert forced[0] == 0 and (tmp_path / "none.json").exists() and "not written" not in forced[2]
    code, _, err = run("learn", shoot / "sub", finished, "-o", preset, "--model", model)
    assert code == 2 and "--overwrite" in err
    (finished / "4.jpg").write_bytes(b"")
    code, _, err = run("learn", shoot / "sub", finished, "-o", tmp_path / "x.json", "--model", model)
    assert code == 1 and "unpaired" in err


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


def test_lut(run, photo, model, tmp_path):
    from diffretouch import Lut3D

    code, printed, err = run("lut", photo, "--model", "csrnet")
    look = photo.with_suffix(".cube")
    assert code == 0 and printed.strip() == str(look) and "levels of 255" in err and Lut3D.load(look).size == 33
    assert run("lut", photo, "--model", "csrnet")[0] == 2  # it exists
    applied, retouched = tmp_path / "applied.png", tmp_path / "retouched.png"
    assert run("lut", photo, "--apply", look, "-o", applied)[0] == 0
    assert run("retouch", photo, "-o", retouched, "--model", "csrnet")[0] == 0
    assert np.abs(pixels(applied) - pixels(retouched)).max() <= 10
    assert run("lut", photo, "--apply", look, "-o", tmp_path / "none.png", "--strength", 0)[0] == 0
    assert (pixels(tmp_path / "none.png") == pixels(photo)).all()

    hald = tmp_path / "hald.png"
    assert run("lut", photo, "--model", "csrnet", "--size", 36, "-o", hald)[0] == 0
    assert Image.open(hald).size == (216, 216)
    assert run("lut", photo, "--apply", hald, "-o", tmp_path / "by_hald.png")[0] == 0
    assert np.abs(pixels(tmp_path / "by_hald.png") - pixels(retouched)).max() <= 10

    code, _, err = run("lut", photo, "-o", tmp_path / "grid.cube", "--model", model, "--brightness", 0.5, "--size", 9)
    assert code == 0 and "no table can hold" in err
    nodes = [("-o", tmp_path / name, "--size", 33) for name in ("h.png", "h.xmp")]
    for wrong in (*nodes, ("--model", "csrnet", "--brightness", 1), ("--size", 300)):
        assert run("lut", photo, "-o", tmp_path / "w.cube", *wrong)[0] == 2, wrong
    (tmp_path / "bad.cube").write_text("LUT_3D_SIZE 2\n0 0 0\n")
    code, _, err = run("lut", photo, "--apply", tmp_path / "bad.cube", "-o", tmp_path / "w.png")
    assert code == 1 and "8 lines" in err


def test_looks_for_other_software(run, photo, model, tmp_path):
    other, where = tmp_path / "other.jpg", tmp_path / "where.png"
    Image.fromarray(255 - pixels(photo).astype(np.uint8)).save(other)
    profile = tmp_path / "look.xmp"
    code, printed, err = run("lut", photo, other, "--model", "csrnet", "-o", profile, "--error-picture", where)
    assert code == 0 and printed.split() == [str(profile), str(where)]
    assert "On these 2 photos the table differs" in err and "no table can hold" in err
    assert "after the raw converter's tone curve" in err and "no local part" in err
    assert Image.open(where).size == Image.open(photo).size
    assert run("lut", other, "--apply", profile, "-o", tmp_path / "by_profile.png")[0] == 0
    code, printed, _ = run("lut", photo, "--model", "csrnet", "-o", tmp_path / "look.pp3", "--strength", 0.5)
    assert code == 0 and printed.split() == [str(tmp_path / "look.pp3"), str(tmp_path / "look.png")]
    assert "Strength=50" in (tmp_path / "look.pp3").read_text()
    (tmp_path / "look.pp3").unlink()
    code, _, err = run("lut", photo, "--model", "csrnet", "-o", tmp_path / "look.pp3")
    assert code == 2 and "exists" in err and "Loading" not in err  # the image beside
    for wrong in (("-o", tmp_path / "x.gif"), ("-o", tmp_path / "x.clf", "--photo-domain"),
                  ("--error-picture", tmp_path / "x.jpg", "-o", tmp_path / "x.cube")):  # fmt: skip
        code, _, err = run("lut", photo, "--model", "csrnet", *wrong)
        assert code in (1, 2) and "Loading" not in err, wrong


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


def test_going_on_does_not_mix_looks(run, photo, model, tmp_path):
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    shoot.mkdir()
    for n in range(3):
        (shoot / f"{n}.jpg").write_bytes(photo.read_bytes())
    command = ["batch", shoot, out, "--model", model, "--strength", 0.5]
    assert run(*command, "--brightness", 0.8)[0] == 0
    (out / "1.jpg").unlink()
    code, _, err = run(*command, "--brightness", -0.8, "--skip-existing")
    assert code == 1 and "brightness +0.8, now brightness -0.8" in err and not (out / "1.jpg").exists()
    code, _, err = run(*command, "--brightness", -0.8, "--skip-existing", "--overwrite")
    assert code == 2 and "one of both" in " ".join(err.replace("│", " ").split())
    assert run(*command, "--brightness", 0.8, "--skip-existing")[0] == 0 and (out / "1.jpg").exists()


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


@pytest.mark.parametrize(
    "words, offered", [("diffretouch ret", "retouch"), ("diffretouch retouch --bri", "--brightness")]
)
def test_shells_complete(words, offered):
    environment = {**os.environ, "_DIFFRETOUCH_COMPLETE": "complete_bash", "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
    code = "from diffretouch.cli import app; app(prog_name='diffretouch')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [offered], done.stderr
