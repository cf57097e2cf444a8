"""Folders: every photo once and as by itself, whatever the order; what cannot be used is named."""

import json
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from diffretouch.batch import (
    Plan,
    SeriesLook,
    Task,
    existing_results,
    plan_batch,
    retouch_batch,
    run_batch,
    series_looks,
)
from diffretouch.photo import icc, load_photo, save_photo
from diffretouch.photo.write_options import WriteOptions
from diffretouch.settings import Settings, read_preset, resolved, seed_of, settings_of, sidecar_path
from diffretouch.settings.region_texts import named_regions

from .bad_inputs import BAD_INPUTS, make
from .batches import PHOTOS, run, settings_for, tree
from .test_metadata import camera_exif

LOOK = SeriesLook(0.5, 0.0, 0.0)


def test_results_are_those_of_single_calls_whatever_the_order(pipe, folder, tmp_path):
    settings = settings_for(pipe, c={"brightness": 0.5}, strength=0.8, seed=5)
    plan = plan_batch(folder, tmp_path / "out")
    rows = run(pipe, plan, settings, jobs=2, batch_size=3)
    assert {row["status"] for row in rows.values()} == {"done"} and len(rows) == 6
    for task in plan.tasks:
        photo, result = load_photo(task.source), load_photo(task.target)
        seed = seed_of(task.name, 5)
        noise = torch.Generator().manual_seed(seed)
        grid = pipe.predict_grid(photo.pixels, settings.c, generator=noise)
        pixels = pipe.apply_grid(photo.pixels, grid, strength=0.8)
        save_photo(pixels, tmp_path / f"one{task.target.suffix}", like=photo, overwrite=True)
        alone = load_photo(tmp_path / f"one{task.target.suffix}")
        level = 1 / 255 if result.bit_depth == 8 else 3 / 65535
        assert np.abs(result.pixels - alone.pixels).max() <= 1.01 * level * (3 if photo.format == "JPEG" else 1)
        assert result.bit_depth == photo.bit_depth and (result.alpha is None) == (photo.alpha is None)
        said = settings_of(result)
        assert said.seed == seed == rows[task.name]["seed"] and said.c == settings.c and said.strength == 0.8

    backwards = plan_batch(folder, tmp_path / "again")
    for _ in retouch_batch(pipe, backwards.tasks[::-1], settings, jobs=1, batch_size=1):
        pass
    for task in plan.tasks:
        a, b = (load_photo(root / task.target.relative_to(tmp_path / "out")).pixels
                for root in (tmp_path / "out", tmp_path / "again"))  # fmt: skip
        assert np.abs(a - b).max() <= 4 / 255 and (a != b).mean() < 0.01


def test_strength_zero_keeps_every_value(pipe, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    random = np.random.default_rng(1)
    deep = random.integers(0, 65536, (40, 50, 3), np.uint16)
    tifffile.imwrite(source / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(source / "wide.tif", deep, photometric="rgb", iccprofile=icc.adobe_rgb_profile())
    flat = random.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(flat).save(source / "flat.png", icc_profile=icc.cicp_profile(12, 13))
    Image.fromarray(flat).save(source / "plain.png")
    run(pipe, plan_batch(source, tmp_path / "out"), settings_for(pipe, strength=0.0))
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "deep.tif"), deep)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "wide.tif"), deep)
    for name in ("flat.png", "plain.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert np.array_equal(np.asarray(image), flat)


class Darker:
    """A pipeline that retouches integers too, and remembers what it was given."""

    has_sliders = False

    def __init__(self):
        self.given = {}

    def retouch(self, image, *, strength=1.0):
        self.given[image.shape] = image.dtype.name
        return image // 2 if image.dtype.kind == "u" else image * np.float32(0.5)


@pytest.mark.parametrize("exposure, options, dtype", [
    (None, {}, "uint8"), (0.5, {}, "float32"), (None, {"dither": True}, "float32"),
    (None, {"series": LOOK}, "float32"), (None, {"background": (1, 1, 1)}, "float32"),
])  # fmt: skip
def test_8_bits_stay_8_bits_where_they_are_rounded_but_once(exposure, options, dtype, folder, tmp_path):
    pipe = Darker()
    settings = resolved(Settings(exposure=exposure), pipe, "mine")
    rows = run(pipe, plan_batch(folder, tmp_path / "out"), settings, **options)
    assert {row["status"] for row in rows.values()} == {"done"}
    deep = (33, 51, 3)
    assert pipe.given.pop(deep) == "float32" and set(pipe.given.values()) == {dtype} and (9, 7, 3) in pipe.given


def test_8_bits_make_what_floats_make(pipe, tmp_path):
    """Of each value, the float result is what is rounded: only within 1e-5 of an edge may it fall to the other side.

    The two ways round differently on the way (integers are scaled inside the colour matrix), and how the processor
    contracts products and sums decides which of such values lie on an edge: how many do is nobody's promise.
    """
    source = tmp_path / "in"
    source.mkdir()
    Image.open(PHOTOS[0]).save(source / "a.png")
    for regions in (None, ("luminosity=0.6-1:brightness=1",)):
        settings = settings_for(pipe, c={"brightness": 0.5}, regions=regions)
        run(pipe, plan_batch(source, tmp_path / "out"), settings, overwrite=True)
        photo, noise = load_photo(source / "a.png"), torch.Generator().manual_seed(seed_of("a.png"))
        masks = regions and named_regions(regions, photo.pixels, settings.c)
        grid = pipe.predict_grid(photo.pixels, settings.c, regions=masks, generator=noise)
        result = pipe.apply_grid(photo.pixels, grid, regions=masks)
        with Image.open(tmp_path / "out" / "a.png") as image:
            off = np.abs(np.asarray(image) - result.clip(0, 1).astype(np.float64) * 255)
        assert off.max() <= 0.5 + 255e-5


def test_bad_files_are_named_and_passed_by(pipe, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    refused = {}
    for _, name, content, message in BAD_INPUTS:
        make(source / name, content)
        refused[name] = message
    plan = plan_batch(source, tmp_path / "out")
    names = {task.name for task in plan.tasks}
    assert names ^ refused.keys() == {"folder.jpg", "drawing.svg", "moving.gif"}
    rows = run(pipe, plan, settings_for(pipe))
    assert rows.keys() == names
    for name, row in rows.items():
        json.dumps(row)
        if name == "n" * 251 + ".png":  # a name as long as it may be
            assert row["status"] == "done" and row["result"].endswith("n.png")
        elif refused[name]:
            assert row["status"] == "failed" and name.encode("unicode_escape").decode() in row["error"], row
        else:
            assert row["status"] == "done" and load_photo(row["result"]).pixels.size, row
    done = sum(row["status"] == "done" for row in rows.values())
    assert len(tree(tmp_path / "out")) == done > 40


def test_what_cannot_be_written_is_named(pipe, folder, tmp_path):
    plan, settings = plan_batch(folder, tmp_path / "out"), settings_for(pipe)
    assert existing_results(plan.tasks) == []
    run(pipe, plan, settings)
    assert existing_results(plan.tasks) == list(plan.tasks)
    before = {task.name: task.target.read_bytes() for task in plan.tasks}
    rows = run(pipe, plan, settings_for(pipe, strength=0.5))
    assert all(row["status"] == "failed" and "exists" in row["error"] for row in rows.values())
    assert before == {task.name: task.target.read_bytes() for task in plan.tasks}
    rows = run(pipe, plan, settings_for(pipe, strength=0.5), overwrite=True)
    assert {row["status"] for row in rows.values()} == {"done"}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))  # a full disk, for files of more than that
    try:
        rows = run(pipe, plan_batch(folder, tmp_path / "full"), settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    failed = {name for name, row in rows.items() if row["status"] == "failed"}
    assert {"deep.tif", "sub/a.jpg"} <= failed and "sub/alpha.png" not in failed
    assert all("File too large" in rows[name]["error"] for name in failed)
    assert tree(tmp_path / "full") == sorted(rows.keys() - failed)

    rows = run(pipe, plan_batch(folder, tmp_path / "jpg", format="jpg"), settings)
    assert "`background`" in rows["sub/alpha.png"]["error"]
    assert rows["deep.tif"]["notes"] == ["JPEG holds 8 bits a channel, the photo has 16."]


def test_a_disk_that_fills_up_ends_nothing(pipe, folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        rows = run(pipe, plan_batch(folder, disk / "out", format="tif"), settings_for(pipe))
        done = {Path(row["result"]).name for row in rows.values() if row["status"] == "done"}
        failed = [row["error"] for row in rows.values() if row["status"] == "failed"]
        assert done and failed and all("No space left on device" in error and ".tmp" not in error for error in failed)
        assert {Path(name).name for name in tree(disk)} == done  # and nothing unfinished
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_photos_that_the_model_cannot_take_fail_alone(pipe, folder, tmp_path):
    tifffile.imwrite(folder / "bright.tif", np.full((8, 8, 3), 9, np.float32), photometric="rgb")
    rows = run(pipe, plan_batch(folder, tmp_path / "out"), settings_for(pipe), batch_size=8, jobs=4)
    assert [name for name, row in rows.items() if row["status"] == "failed"] == ["bright.tif"]
    assert "`image` floats must be in [0,1], got values from 9" in rows["bright.tif"]["error"]


def test_a_file_larger_than_the_room_comes_in_alone(pipe, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffretouch.batch.stream._PIXELS_INSIDE", 1000)
    rows = run(pipe, plan_batch(folder, tmp_path / "out"), settings_for(pipe), jobs=3)
    assert {row["status"] for row in rows.values()} == {"done"} and len(rows) == 6


def test_sidecars_are_each_photos_own(pipe, folder, tmp_path):
    plan = plan_batch(folder, tmp_path / "out")
    run(pipe, plan, settings_for(pipe, c={"contrast": 0.3}), sidecars=True)
    assert len(tree(tmp_path / "out")) == 12
    for task in plan.tasks:
        said = read_preset(sidecar_path(task.target))
        assert said.photo == task.source.name and said.seed == seed_of(task.name)
        assert said.to_json() == Settings(photo=said.photo).over(settings_of(load_photo(task.target))).to_json()


def test_a_sidecar_and_its_result_appear_together(pipe, folder, tmp_path):
    """Also where one was deleted, or could not be written."""
    plan, settings = plan_batch(folder, tmp_path / "out"), settings_for(pipe)
    run(pipe, plan, settings, sidecars=True)
    gone, mine = plan.tasks[0].target, sidecar_path(plan.tasks[1].target)
    gone.unlink(), plan.tasks[1].target.unlink()
    mine.write_text("{}")  # is no sidecar
    rows = run(pipe, Plan(plan.tasks[:2], (), ()), settings_for(pipe, strength=0.5), sidecars=True)
    assert [rows[task.name]["status"] for task in plan.tasks[:2]] == ["done", "failed"]
    assert read_preset(sidecar_path(gone)).strength == 0.5 and gone.exists()
    assert mine.read_text() == "{}" and repr(str(mine)) in rows[plan.tasks[1].name]["error"]

    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, limits[1]))  # sidecars can be written, photos cannot
    try:
        rows = run(pipe, plan, settings_for(pipe, strength=0.9), sidecars=True, overwrite=True)
        assert {row["error"].partition(":")[0] for row in rows.values()} == {"File too large"}
        run(pipe, plan_batch(folder, tmp_path / "none"), settings, sidecars=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert tree(tmp_path / "none") == []


def test_what_is_carried_and_what_is_read_can_be_limited(pipe, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    image = Image.open(PHOTOS[0]).convert("RGB")
    image.save(source / "wide.jpg", icc_profile=icc.adobe_rgb_profile(), exif=b"Exif\0\0" + camera_exif().tobytes())
    Image.new("RGB", (300, 300)).save(source / "large.png")
    options = {"keep_profile": False, "keep_metadata": False, "max_pixels": 80_000}
    rows = run(pipe, plan_batch(source, tmp_path / "out"), settings_for(pipe, strength=0.5), **options)
    assert "`max_pixels` = 80000" in rows["large.png"]["error"]
    result = load_photo(tmp_path / "out" / "wide.jpg")
    assert result.exif is None and result.icc_profile == icc.srgb_profile()
    assert settings_of(result).strength == 0.5
    values = list(series_looks(pipe, plan_batch(source, tmp_path / "out").tasks, settings_for(pipe),
                                    max_pixels=80_000))  # fmt: skip
    assert len(values) == 1


def test_regions_are_made_of_each_photo(pipe, folder, tmp_path):
    regions = ("luminosity=0.6-1:brightness=1",)
    plan = plan_batch(folder, tmp_path / "out")
    run(pipe, plan, settings_for(pipe, regions=regions))
    run(pipe, plan_batch(folder, tmp_path / "plain"), settings_for(pipe))
    with_region, plain = (load_photo(tmp_path / name / PHOTOS[0].name).pixels for name in ("out", "plain"))
    luma = load_photo(PHOTOS[0]).pixels @ [0.299, 0.587, 0.114]
    moved = np.abs(with_region - plain).mean(2)
    assert settings_of(load_photo(tmp_path / "out" / PHOTOS[0].name)).regions == regions
    assert moved[luma < 0.4].mean() < 0.5 * moved[luma > 0.6].mean()  # JPEG's blocks carry a little over


class Brighter:
    """A pipeline without noise and grids, with the verb that all pipelines have."""

    has_sliders = False

    def retouch(self, image, *, strength=1.0):
        top = 1 if image.dtype == np.float32 else np.iinfo(image.dtype).max
        return np.clip(image * np.float32(1 + 0.1 * strength), 0, top).astype(image.dtype)


def test_any_pipeline(folder, tmp_path):
    plan = plan_batch(folder, tmp_path / "out")
    rows = run(Brighter(), plan, resolved(Settings(strength=0.5), Brighter(), "mine"))
    assert {row["status"] for row in rows.values()} == {"done"}
    before, after = (tifffile.imread(path / "deep.tif").astype(int) for path in (folder, tmp_path / "out"))
    assert np.abs(after - np.minimum(before * 1.05, 65535)).max() <= 1
    said = settings_of(load_photo(tmp_path / "out" / "deep.tif"))
    assert (said.c, said.seed, said.strength, said.model) == (None, None, 0.5, "mine")


def test_a_whole_batch_is_one_call_and_is_gone_on_with(pipe, folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"")
    report, told, bars = tmp_path / "out" / "report.jsonl", [], []

    def progress(photos, description, total):
        bars.append((description, total))
        return photos

    def again(**options):
        plan = plan_batch(folder, tmp_path / "out")
        return run_batch(pipe, plan, settings_for(pipe), report=report, tell=told.append, progress=progress, **options)

    summary = again(consistent=True, options=WriteOptions(keep_metadata=False))
    assert bars == [("Measuring", 7), ("Retouching", 7)]
    assert all("exposure" in row for row in told if "error" not in row)
    assert {"deep.tif", "sub/alpha.png"} <= {row["photo"] for row in told}
    (tmp_path / "out" / "deep.tif").unlink()
    with pytest.raises(ValueError, match="mix two looks.*exposure"):
        again(skip_existing=True)
    summary = again(skip_existing=True, consistent=True)
    assert (summary.done, summary.failed, summary.skipped) == (1, 1, 5)
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [row["status"] for row in rows].count("done") == 7 and len(rows) == 9  # those of before are told already
    summary = again()
    assert (summary.done, summary.failed) == (0, 7) and len(report.read_text().splitlines()) == 7


@pytest.mark.parametrize("options, message", [({"jobs": -1}, "`jobs`"), ({"jobs": 2.0}, "`jobs`"),
                                              ({"batch_size": 0}, "`batch_size`")])  # fmt: skip
def test_bad_arguments(options, message, pipe, tmp_path):
    task = Task("a.jpg", tmp_path / "a.jpg", tmp_path / "b.jpg")
    with pytest.raises(ValueError, match=message):
        list(retouch_batch(pipe, [task], settings_for(pipe), **options))


def test_room_by_the_header(tmp_path):
    import tifffile

    from diffretouch.photo.headers import pixels_decoded

    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((30, 40, 8), np.float64), photometric="rgb", compression="zlib")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    assert pixels_decoded(tmp_path / "a.jpg") == 1200
    assert pixels_decoded(tmp_path / "deep.tif") == 1200 * 64 // 12
