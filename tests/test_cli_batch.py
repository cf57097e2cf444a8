"""`diffretouch batch`: folders in one process and in two, stopped and gone on with."""

import json
import os
import signal
import threading

import numpy as np
from PIL import Image

from diffretouch.batch import report_paths
from diffretouch.photo import icc, load_photo
from diffretouch.settings import seed_of, settings_of

from .photo_files import PHOTO, pixels
from .ranks import run_ranks


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
