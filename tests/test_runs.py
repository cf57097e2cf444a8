"""Runs over many photos: results that are kept, photos that fail, several processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch import evaluation as ev
from diffretouch.evaluation import runs

from . import tiny
from .test_perceptual import write_weights

ROOT = Path(__file__).parents[1]


def test_results_are_kept_by_the_weights_of_lpips(folders, tmp_path):
    found, cache = ev.pair_names(*folders), ev.Cache(tmp_path / "cache")
    files = [write_weights(tmp_path / f"{seed}.safetensors", seed)[0] for seed in (0, 1)]
    own = [
        ev.evaluate_methods([ev.untouched()], found, lpips_weights=file)["mean"]["input"]["lpips"] for file in files
    ]
    kept = [
        ev.evaluate_methods([ev.untouched()], found, lpips_weights=file, cache=cache)["mean"]["input"]["lpips"]
        for file in (*files, *files)
    ]
    assert kept == own + own and own[0] != own[1] and len(list((tmp_path / "cache").iterdir())) == 2 * 2


def test_a_photo_that_fails_is_left_out_everywhere(tmp_path):
    """For all methods and experts, and said: in size, unreadable, or by a method; with the cache as without."""
    rng = np.random.default_rng(0)
    for side in ("photos", "experts/A", "experts/B"):
        for n in range(8):
            tiny.save_pattern(tmp_path / side / f"p{n}.png", rng)
    tiny.save_pattern(tmp_path / "experts/B/p1.png", rng, size=(24, 30))
    (tmp_path / "photos/p0.png").write_bytes(b"no photo")

    def moody(source, target, pair):
        if pair.source.stem == "p4" and pair.expert == "B":
            raise KeyError("mood")
        return source * 0.9, {}

    methods = [ev.untouched(), ev.Method("moody", "fails at times", moody)]
    found = ev.expert_pairs(tmp_path / "photos", tmp_path / "experts")
    report = ev.evaluate_methods(methods, found, groups="p", cost=True)
    again = ev.evaluate_methods(methods, found, groups="p", cache=ev.Cache(tmp_path / "cache"))
    assert again["mean"] == report["mean"] and again["left_out"] == report["left_out"]
    assert report["left_out"] == {
        "p0.png": "'photos/p0.png' cannot be read: it is no JPEG, PNG, TIFF, WebP, AVIF, JPEG XL, HEIC or RAW file.",
        "p1.png": "photos/p1.png and B/p1.png differ in size: 30x24 and 24x30.",
        "p4.png": "moody: KeyError: 'mood'",
    }
    kept = [pair for pair in found if pair.source.stem not in ("p0", "p1", "p4")]
    alone = ev.evaluate_methods(methods, kept, groups="p")
    assert alone["left_out"] == {} and {**report, "left_out": {}} == alone | {"left_out": {}, "cost": report["cost"]}
    assert report["uncertainty"]["mean"]["moody"]["psnr"]["n"] == report["data"]["photos"] == 5
    for name, write in ev.FORMATS.items():
        text = write(report).replace("\\", "")
        assert "p4.png" not in text if name == "csv" else "Left out of all figures: 3 photos: p0.png: 'photos" in text
    assert not any(str(tmp_path) in write(report) for write in ev.FORMATS.values())
    with pytest.raises(ValueError, match="no photo could be measured; p1.png: photos.p1.png and B.p1.png differ"):
        ev.evaluate_methods(methods, [pair for pair in found if pair.source.stem == "p1"])


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text here")
def test_names_that_are_no_utf8(folders, tmp_path):
    for folder in folders:
        os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    report = ev.evaluate_methods([ev.untouched()], ev.pair_names(*folders), pictures=2, groups=".")
    ev.write_text(tmp_path / "rows.csv", ev.report_csv(report))
    assert b"\n\xff.png," in (tmp_path / "rows.csv").read_bytes()
    ev.write_page(tmp_path / "page.html", ev.report_sections(report))
    assert ev.evaluate_methods([ev.untouched()], ev.simulated_pairs(folders[0], experts=1))["data"]["photos"] == 2


def test_two_names_of_one_photo_keep_their_own_results(folders, tmp_path):
    """The name seeds the simulated camera: the same bytes under another name are another input."""
    first = folders[0] / "a.png"
    shutil.copyfile(first, folders[0] / "b.png")
    found = ev.simulated_pairs(folders[0], seed=0)
    cache = ev.Cache(tmp_path / "cache")
    fresh = ev.evaluate_methods([ev.untouched()], found)
    kept = [ev.evaluate_methods([ev.untouched()], found, cache=cache)["photos"] for _ in range(2)]
    assert kept == [fresh["photos"]] * 2
    by_name = {(row["photo"], row["expert"]): row["input"]["psnr"] for row in fresh["photos"]}
    experts = {expert for _, expert in by_name}
    assert all(by_name["a.png", expert] != by_name["b.png", expert] for expert in experts)


def test_cache_goes_on_where_a_run_was_stopped(folders, tmp_path):
    found = [ev.Pair(*pair) for pair in ev.pair_names(*folders)]
    cache, calls = ev.Cache(tmp_path / "cache"), []

    def method(setting, stop_at=None):
        def retouch(source, target, pair):
            if pair.source.stem == stop_at:
                raise KeyboardInterrupt
            calls.append(pair.source.stem)
            return source * 0.9, {}

        return ev.Method("m", "a method", retouch, identity=lambda: ["m", setting])

    with pytest.raises(KeyboardInterrupt):
        ev.evaluate_methods([method(1, stop_at="b")], found, cache=cache)
    report = ev.evaluate_methods([method(1)], found, cache=cache)
    assert calls == ["a", "b"]
    assert ev.evaluate_methods([method(1)], found, cache=cache) == report and calls == ["a", "b"]
    ev.evaluate_methods([method(2)], found, cache=cache)  # another setting
    assert calls == ["a", "b"] * 2
    tiny.save_pattern(found[0].target, np.random.default_rng(9))  # another photo under the same name
    assert ev.evaluate_methods([method(2)], found, cache=cache) != report and calls == ["a", "b", "a", "b", "a"]
    for path in (tmp_path / "cache").iterdir():
        path.write_text(path.read_text()[:-9])  # damaged
    ev.evaluate_methods([method(2)], found, cache=cache)
    assert len(calls) == 7
    ev.evaluate_methods([method(2)], found, cache=cache, device="cuda")  # another device
    assert len(calls) == 9
    with pytest.raises(ValueError, match="`cache` must be a folder"):
        ev.Cache(found[0].source)


def test_model_digest_sees_every_weight():
    pipe = tiny.one_step_pipeline()
    digest = runs.model_digest(pipe)
    assert digest == runs.model_digest(tiny.one_step_pipeline())
    with torch.no_grad():
        pipe.grid_head.prediction2.weight[0, 0] += 1e-6
    assert runs.model_digest(pipe) != digest
    assert runs.model_digest(tiny.one_step_pipeline(attribute_signs=(1, 1, -1, 1))) != digest
    assert runs.model_digest(tiny.one_step_pipeline().to(torch.bfloat16)) != digest


def test_two_processes_share_the_work(folders, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import os, sys, json, pathlib\n"
        "from diffretouch.evaluation import runs\n"
        "done = []\n"
        "def work(item):\n"
        "    done.append(item)\n"
        "    return item * 10\n"
        "results = runs.for_each(work, range(5), description='x')\n"
        "out = dict(results=results, own=done, size=runs.process_state().num_processes, main=runs.is_main_process())\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(json.dumps(out))\n"
    )
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, script, tmp_path / "out"], check=True, env=environment, capture_output=True)
    first, second = (json.loads((tmp_path / "out" / rank).read_text()) for rank in "01")
    assert first["size"] == second["size"] == 2 and (first["main"], second["main"]) == (True, False)
    assert first["results"] == second["results"] == [0, 10, 20, 30, 40]
    assert first["own"] == [0, 2, 4] and second["own"] == [1, 3]
