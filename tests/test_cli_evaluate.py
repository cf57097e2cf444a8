"""`diffretouch evaluate`: what it prints and writes, and what it refuses."""

import json
import os

import pytest
from PIL import Image

from .photo_files import PHOTO


def same_photo(folder, *sides):
    """A small photo, the same in each folder."""
    for side in sides:
        (folder / side).mkdir()
        Image.open(PHOTO).resize((60, 48)).save(folder / side / "a.png")


def test_evaluate(run, model, tmp_path):
    same_photo(tmp_path, "input", "target")
    report = tmp_path / "report.json"
    code, out, err = run("evaluate", tmp_path / "input", tmp_path / "target", "--model", model, "-o", report)
    assert code == 0, err
    assert "automatic" in out and json.loads(report.read_text())["mean"]["input"]["psnr"] == pytest.approx(120)


def test_evaluate_formats(run, model, tmp_path):
    """--format writes to -o what it says, the terminal shows the table; every measure can be asked for."""
    same_photo(tmp_path, "input", "target", "masks")
    folders, file = [tmp_path / "input", tmp_path / "target"], tmp_path / "rows.csv"
    measures = ["--masks", tmp_path / "masks", "--groups", ".*", "--cost", "--diversity", 2, "--against", "input"]
    told = ["--format", "csv", "-o", file, "--interval", "bootstrap"]
    code, out, err = run("evaluate", *folders, "--model", model, *measures, *told)
    assert code == 0, err
    assert "from input" in out and "cost at 512 px" in out and "PSNR-HC" in out and "the best of, c unknown" in out
    rows = file.read_text().splitlines()
    assert rows[0].startswith("photo,expert,method,oracle") and len(rows) == 1 + 3
    both = ["--controllability", tmp_path / "input", "--steps", "2,3", "--limit", 1, "--cache", tmp_path / "cache"]
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


def test_what_cannot_be_written_is_told_before_all_else(run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode, **options: not mode & os.W_OK)
    for given in (["-o", tmp_path / "a.json"], ["--page", tmp_path / "a.html"]):
        code, _, err = run("evaluate", tmp_path, tmp_path, "--model", "nowhere", *given)
        assert code == 2 and "Loading" not in err
        assert "nothing can be written into the folder" in " ".join(err.replace("│", " ").split())


def test_evaluate_goes_on_where_a_photo_fails(run, model, tmp_path):
    """One bad photo stops nothing: all is written without it, and the exit code tells."""
    for side in ("input", "target"):
        (tmp_path / side).mkdir()
        for name in ("a", "b"):
            (tmp_path / side / f"{name}.jpg").write_bytes(PHOTO.read_bytes())
    (tmp_path / "input" / "a.jpg").write_bytes(b"no photo")
    folders, page, report = [tmp_path / "input", tmp_path / "target"], tmp_path / "page.html", tmp_path / "report.json"
    both = ["--controllability", tmp_path / "input", "--diversity", 2, "--page", page, "-o", report]
    code, out, err = run("evaluate", *folders, "--model", f"x={model}", *both)
    assert code == 1 and "Error: 1 photo could not be measured and left out" in err
    assert out.count("Left out of all figures: 1 photo: a.jpg: ") == 2 and page.stat().st_size > 1000
    found = json.loads(report.read_text())
    assert [row["photo"] for row in found["photos"]] == ["b.jpg"] and found["diversity"]["x"]["photos"] == 1
    assert list(found["left_out"]) == list(found["controllability"]["x"]["left_out"]) == ["a.jpg"]
    (tmp_path / "input" / "b.jpg").write_bytes(b"no photo")
    code, out, err = run("evaluate", *folders, "--model", model, "-o", tmp_path / "none.json")
    assert code == 1 and "no photo could be measured; a.jpg" in err and not (tmp_path / "none.json").exists()


def test_evaluate_writes_tables_page_and_card(run, model, tmp_path):
    same_photo(tmp_path, "input", "target")
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
    from diffretouch.cli.peers import open_peers
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
        ([".", ".", "--figure", "magic", "--page", "x.html"], 2, "attributes, grid or experts, got 'magic'"),
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
        (["--simulated", "photos", "--split", "none.txt"], 2, "--split: must be a file, got none.txt"),
        (["--simulated", "photos", "--labels", "none.json"], 2, "is for pairs"),
        (["photos", "photos", "--labels", "none.json"], 2, "--labels: must be a file, got none.json"),
        (["photos", "photos", "--lpips-weights", "photos"], 2, "--lpips-weights: must be a file, got photos"),
        (["photos", "photos", "--fid-weights", "none.pt"], 2, "--fid-weights: must be a file, got none.pt"),
        (["photos", "photos", "--masks", "none"], 2, "--masks: must be a folder, got none"),
        (["--simulated", "none"], 2, "--simulated: must be a folder, got none"),
        (["--controllability", "photos/a.jpg"], 2, "--controllability: must be a folder, got photos/a.jpg"),
        (["--controllability", "empty"], 2, "--controllability: must hold photos, empty holds none"),
        (["photos", "photos", "--format", "doc"], 2, "--format: must be table, markdown, latex or csv, got 'doc'"),
        (["photos", "photos", "--interval", "z"], 2, "--interval: must be t or bootstrap, got 'z'"),
        (["photos", "photos", "--peer", "curve", "--peer", "curve"], 2, "two methods are called curve: NAME=..."),
        (["photos", "photos", "--peer", "mine=curve"], 2, "--peer: curve goes by its own name, got 'mine=curve'"),
        (["--simulated", "photos", "--cache", "photos/a.jpg"], 1, "`cache` must be a folder"),
        (["--simulated", "photos", "--protocol", "magic"], 1, "`protocol` must be one of"),
    ],
)
def test_evaluate_refuses(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(PHOTO.read_bytes())
    got, _, err = run("evaluate", *arguments)
    assert got == code and message in " ".join(err.replace("│", " ").split())
