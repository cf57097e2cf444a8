"""The page without Python behind it: a static server, a strict policy, ONNX Runtime in the browser."""

import contextlib
import http.server
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from diffretouch import CSRNetPipeline, DiffRetouchPipeline
from diffretouch.demo.models import Models
from diffretouch.lut import Lut3D, bake_lut
from diffretouch.sweep import sweep

from ..tiny import tiny_pipeline
from .hands import PHOTO, drop, edited, expected, number, open_photo, picture, press, rest, told

V = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)


@contextlib.contextmanager
def static(folder):
    """Any static server, but for the policy, which is as strict as the page allows; -> address, what was asked for."""
    from diffretouch.demo.guard import POLICY

    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Content-Security-Policy", POLICY)
            super().end_headers()

        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A model of three steps, whose order and signs are its own."""
    folder = tmp_path_factory.mktemp("models") / "several steps"
    order = ["brightness", "contrast", "colorfulness", "temperature"]
    pipe = tiny_pipeline(5, 2, DDIMScheduler(**V), attribute_signs=[1, -1, 1, 1], attribute_order=order)
    pipe.register_to_config(default_steps=3)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dist(npm, several, tmp_path_factory):
    pytest.importorskip("starlette", reason="starlette is not installed")
    from diffretouch.demo.build import build

    runtime = npm("onnxruntime-web", "package.json").parent
    return build(tmp_path_factory.mktemp("alone") / "dist", [several], onnxruntime_web=runtime)


@pytest.fixture(scope="module")
def alone(dist):
    with static(dist) as (address, asked):
        yield address, asked


@pytest.fixture
def page(visitor, alone):
    page = visitor(at=alone[0])
    page.select_option("#model", "DiffRetouch")
    return page


@pytest.fixture
def quick(visitor, alone):
    """With the tiny model, for what is not about a model: the bundled one takes seconds of the processor."""
    page = visitor(at=alone[0])
    page.select_option("#model", "several steps")
    return page


def test_the_picture_is_the_librarys(page):
    wanted = edited(page)
    off = np.abs(picture(page).astype(int) - wanted)
    assert off.max() <= 1 and off.mean() < 0.1
    offered = page.locator("#format option").all_inner_texts()
    assert offered == ["JPEG", "PNG", "WebP"], "what a browser can write"
    for suffix, most in ((".png", 1), (".webp", 40), (".jpg", 40)):
        page.select_option("#format", suffix)
        if suffix != ".png":
            page.fill("#quality", "100")
        with page.expect_download() as download:
            page.click("#save")
        assert download.value.suggested_filename == f"gb82_dog-lossless_retouched{suffix}"
        off = np.abs(np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int) - wanted)
        assert off.max() <= most and off.mean() < 2
    page.click("#show-four")
    page.wait_for_selector("#four [data-seed]:visible")
    seed = page.get_attribute("#four [data-seed] >> nth=1", "data-seed")
    shown = int(page.get_attribute("#stage", "data-shown"))
    page.click(f"#four [data-seed='{seed}']")
    rest(page, shown)
    wanted = expected({"brightness": 1, "temperature": -1}, seed=int(seed), strength=0.7).astype(int)
    assert np.abs(picture(page).astype(int) - wanted).max() <= 1


def test_the_model_without_sliders(page, tmp_path):
    """CSRNet as a table of its colour function: its picture, of photos of all shapes, and its file."""
    rng = np.random.default_rng(0)
    # The large one takes several textures each way
    shapes = {"wide": (90, 1700, 3), "large": (2060, 2100, 3), "grey": (80, 120, 1)}
    pipe = CSRNetPipeline.from_pretrained("small")
    page.select_option("#model", "CSRNet (automatic)")
    for name, (height, width, channels) in shapes.items():
        pixels = rng.integers(0, 256, (-(-height // 20), -(-width // 20), channels), np.uint8)
        pixels = np.broadcast_to(np.kron(pixels, np.ones((20, 20, 1), np.uint8))[:height, :width], (height, width, 3))
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png", compress_level=1)
        open_photo(page, tmp_path / f"{name}.png")
        press(page, "strength", *["PageDown"] * 2)
        strength = number(page, "strength")
        off = np.abs(picture(page).astype(int) - pipe.retouch(np.array(pixels), strength=strength))
        assert off.max() <= 1, name
        assert page.is_disabled("#range-brightness") and page.is_disabled("#show-four")
    page.click("#looks summary")
    with page.expect_download() as download:
        page.click("#save-table")
    wanted = bake_lut(pipe, np.array(pixels), strength=strength).table
    download.value.save_as(tmp_path / "look.cube")
    np.testing.assert_allclose(Lut3D.load(tmp_path / "look.cube").table, wanted, atol=2e-4)


def test_tables_and_sheets(page, tmp_path):
    """Made by the browser, as near to the picture as the library's."""
    edited(page)
    pixels = np.asarray(Image.open(PHOTO))
    page.click("#looks summary")
    with page.expect_download() as download:
        page.click("#save-table")
    told(page, "off by [0-9.]+ levels in the mean")
    download.value.save_as(tmp_path / "look.cube")
    own, shown = Lut3D.load(tmp_path / "look.cube"), picture(page).astype(int)
    pipe = DiffRetouchPipeline.from_pretrained("small")
    noise = torch.Generator().manual_seed(0)
    lut = bake_lut(pipe, pixels, c={"brightness": 1, "temperature": -1}, strength=0.7, generator=noise)
    errors = [np.abs(one.apply(pixels).astype(int) - shown).mean() for one in (own, lut)]
    assert errors[0] < errors[1] + 0.1, "no worse than the library's"
    with page.expect_download() as download:
        page.click("#save-sheet")
    assert download.value.suggested_filename == "gb82_dog-lossless_sweep.png"
    sheet, wanted = Image.open(download.value.path()).convert("RGB"), sweep(pipe, pixels.astype(np.float32) / 255)
    assert abs(np.subtract(sheet.size, wanted.size)).max() < 40, "but for the letters"
    (x, y), (left, top) = (np.subtract(one.size, (5 * 262, 4 * 262)) for one in (sheet, wanted))
    cells = [np.asarray(sheet)[y:, x:].astype(int), np.asarray(wanted)[top:, left:]]
    assert np.abs(cells[0] - cells[1]).max() <= 2 and np.abs(cells[0] - cells[1]).mean() < 0.2
    assert number(page, "brightness") == 1 and (picture(page) == shown).all(), "the picture stays as it was"


GRIDS = """async ([label, rows, seeds]) => {
  const { state } = await import('./state.js');
  const { data, width, height } = await state.engine.seen(state.active, label);
  const { grids, shape } = await state.engine.grids(state.active, label, seeds, rows);
  return [[3, height, width, [...data]], [grids.length, ...shape, grids.flatMap((grid) => [...grid])]];
}"""


@pytest.mark.parametrize("kind", ["colour", "grey", "large"])
def test_samples_are_those_of_python(page, several, tmp_path, kind):
    """One step and three, noise of several seeds, a grey photo, and one whose blocks are averaged first."""
    rng = np.random.default_rng(0)
    if kind == "large":
        pixels = np.zeros((4099, 4301, 3), np.uint8) + np.linspace(0, 255, 4301).astype(np.uint8)[:, None]
        pixels[:, :, 0] //= 2
        pixels[-3:], pixels[:, -2:] = (9, 200, 90), (200, 9, 40)  # smaller blocks at the ends
    else:
        pixels = rng.integers(0, 256, (47, 83, 3 if kind == "colour" else 1), np.uint8).repeat(5, 0).repeat(3, 1)
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
        if kind == "grey":
            pixels[::7, ::5, 1] = np.clip(pixels[::7, ::5, 1], 0, 254) + 1  # to a level
    Image.fromarray(pixels).save(tmp_path / "photo.png", compress_level=1)
    open_photo(page, tmp_path / "photo.png")
    models = Models([several])
    for label in ("several steps", "DiffRetouch"):
        rows, seeds = [[0, 0, 0, 0], [0.5, -1, 1, 0.3]], [3, 2**31]
        looked, grids = page.evaluate(GRIDS, [label, rows, seeds])
        seen = models.seen(label, pixels)
        np.testing.assert_allclose(np.array(looked.pop()).reshape(looked), seen[0], atol=1e-5)
        wanted = models.grids_at(label, seen, torch.tensor(rows, dtype=torch.float32), seeds)
        np.testing.assert_allclose(np.array(grids.pop()).reshape(grids), wanted, atol=1e-4)


def test_what_was_fetched_is_kept(quick, alone, dist):
    """After a reload the work goes on with what the browser kept; the photo went nowhere."""
    address, asked = alone
    open_photo(quick)
    press(quick, "brightness", "End")
    liked = picture(quick)
    size = sum(path.stat().st_size for path in dist.iterdir() if path.is_file())
    assert (
        size < 250e3 and sum(path.stat().st_size for path in dist.glob("engine/**/*")) < 20e6 + 3e6
    )  # and the second model
    before = len(asked)
    loaded = quick.evaluate(
        "() => performance.getEntries().filter((one) => one.encodedBodySize && !one.name.includes('/engine/'))"
        ".reduce((sum, one) => sum + one.encodedBodySize, 0)"
    )
    assert 150e3 < loaded < 250e3, "before the engine"
    quick.wait_for_timeout(300)
    quick.reload()
    quick.wait_for_selector('#stage[data-state="photo"]')
    rest(quick)
    assert number(quick, "brightness") == 1
    np.testing.assert_allclose(picture(quick).astype(int), liked, atol=1)
    again = [path for path in asked[before:] if ".gz" in path]
    assert not again, "the models lie in the browser's cache"
    assert all(not path.startswith("/api") for path in asked)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.unlink(), "denoiser.onnx.gz is missing.*the page is not whole"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "denoiser.onnx.gz is not the file"),
    ],
)
def test_a_page_that_is_not_whole_says_what_it_lacks(visitor, dist, tmp_path, spoil, words):
    shutil.copytree(dist, tmp_path / "dist", copy_function=lambda a, b: shutil.copyfile(a, b))
    spoil(tmp_path / "dist" / "engine" / "model1" / "denoiser.onnx.gz")
    with static(tmp_path / "dist") as (address, _):
        page = visitor(at=address)
        page.set_input_files("#files", PHOTO)
        told(page, words)
        assert page.get_attribute("#stage", "data-state") == "photo", "the photo is there"


def test_what_is_saved_is_the_retouch_even_at_once(quick, several, tmp_path):
    """Right after a move of the hand, and photo after photo."""
    Image.open(PHOTO).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    quick.set_input_files("#files", [PHOTO, tmp_path / "turned.png"])
    quick.wait_for_selector('#stage[data-state="photo"]')
    quick.locator("#range-brightness").focus()
    quick.keyboard.press("End")
    quick.select_option("#format", ".png")
    with quick.expect_download() as download:
        quick.click("#save")
    saved = np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)
    assert np.abs(saved - expected({"brightness": 1}, model=several)).max() <= 1
    downloads = []
    quick.on("download", lambda one: downloads.append(one))
    quick.click("#save-all")
    told(quick, "2 photos are in your downloads")
    saved = np.asarray(Image.open(downloads[1].path()).convert("RGB")).astype(int)
    assert np.abs(saved - expected({}, path=tmp_path / "turned.png", model=several)).max() <= 1


def test_a_model_that_is_not_whole_makes_no_page(npm, several, tmp_path):
    from diffretouch.demo.build import build

    shutil.copytree(several, tmp_path / "mine")
    (tmp_path / "mine" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    runtime = npm("onnxruntime-web", "package.json").parent
    with pytest.raises(ValueError, match="the model in mine cannot be loaded: .*safetensors"):
        build(tmp_path / "dist", [tmp_path / "mine"], onnxruntime_web=runtime)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_browser_without_room_goes_on(visitor, alone, several):
    page = visitor(at=alone[0])
    quota = {"origin": alone[0].rstrip("/"), "quotaSize": 1000}
    page.context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", quota)
    page.select_option("#model", "several steps")
    open_photo(page)
    press(page, "contrast", "End")
    assert np.abs(picture(page).astype(int) - expected({"contrast": 1}, model=several)).max() <= 1


def test_a_second_photo_comes_over_the_first(quick, several, tmp_path):
    Image.new("RGB", (2000, 1500), (120, 80, 60)).save(tmp_path / "first.png", compress_level=1)
    drop(quick, tmp_path / "first.png")
    drop(quick, PHOTO)
    quick.wait_for_function("() => document.querySelector('#name').innerText.startsWith('gb82')")
    rest(quick)
    assert picture(quick).shape == (256, 256, 3)
    assert np.abs(picture(quick).astype(int) - expected({}, model=several)).max() <= 1
    quick.wait_for_function("() => document.querySelectorAll('#strip button').length === 2")
    quick.click("#strip button:nth-child(1)")
    quick.wait_for_function("() => document.querySelector('#name').innerText.startsWith('first')")
    rest(quick)
    assert picture(quick).shape == (1500, 2000, 3)


def test_it_goes_on_without_a_network(quick, several):
    open_photo(quick)
    quick.context.set_offline(True)
    press(quick, "contrast", "End")
    assert np.abs(picture(quick).astype(int) - expected({"contrast": 1}, model=several)).max() <= 1
    quick.context.set_offline(False)


def test_camera_files_open_by_their_preview(quick, tmp_path):
    """RAW and HEIC: what to do is said, and what the camera put beside the picture is open meanwhile."""
    raw = b"II*\0\x08\0\0\0" + bytes(5000) + PHOTO.read_bytes() + bytes(300)
    (tmp_path / "IMG_1.NEF").write_bytes(raw)
    (tmp_path / "IMG_2.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    quick.set_input_files("#files", tmp_path / "IMG_1.NEF")
    told(quick, "reads no RAW.*diffretouch demo.*preview is open meanwhile")
    assert "IMG_1.NEF (preview).jpg" in quick.inner_text("#name")
    rest(quick)
    quick.set_input_files("#files", tmp_path / "IMG_2.heic")
    told(quick, "IMG_2.heic: this browser reads no RAW and no HEIC")
    (tmp_path / "scan.tif").write_bytes(b"II*\0" + bytes(100))
    quick.set_input_files("#files", tmp_path / "scan.tif")
    told(quick, "scan.tif cannot be read by this browser: JPEG, PNG, WebP and AVIF can")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    quick.set_input_files("#files", tmp_path / "huge.png")
    told(quick, "huge.png has 100 megapixels; the most is 64 megapixels")


@pytest.mark.parametrize(
    "given, words",
    [
        (lambda folder: folder / "nothing", "is no folder and no .tgz"),
        (lambda folder: folder, "lacks dist/ort.wasm.bundle.min.mjs"),
    ],
)
def test_another_runtime_is_refused(tmp_path, given, words):
    pytest.importorskip("starlette", reason="starlette is not installed")
    from diffretouch.demo.build import build

    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=words):
        build(tmp_path / "dist", onnxruntime_web=given(tmp_path / "empty"))
    (tmp_path / "empty" / "dist").mkdir()
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / "empty" / "dist" / name).write_text("another")
    with pytest.raises(ValueError, match="is not that of onnxruntime-web@"):
        build(tmp_path / "dist", onnxruntime_web=tmp_path / "empty")
    assert not (tmp_path / "dist").exists()
    with pytest.raises(ValueError, match="new or empty folder"):
        build(tmp_path / "empty", onnxruntime_web=tmp_path / "empty")


def test_the_built_page_holds_its_own_policy(dist):
    html = (dist / "index.html").read_text(encoding="utf-8")
    assert "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self'" in html
    assert "frame-ancestors" not in html and 'data-engine="onnx"' in html
    about = json.loads((dist / "engine" / "about.json").read_text())
    for name, of in about["files"].items():
        assert (dist / "engine" / name).stat().st_size == of["packed"]
    assert list(about["models"]) == ["several steps", "DiffRetouch", "CSRNet (automatic)"]
