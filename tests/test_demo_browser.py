"""The page in a real Chromium, driven by Playwright, with WebGL by the processor."""

import base64
import io
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import DiffRetouchPipeline
from diffretouch.attributes import ATTRIBUTES, measure_attributes
from diffretouch.photo import load_photo
from diffretouch.settings import settings_of

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")

PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"
AXE = [
    Path(os.environ.get("AXE", "axe.min.js")),
    Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js",
    Path(__file__).parents[2] / "shared" / "axe" / "axe.min.js",
]
SLOW = 60_000  # ms: machines under test are busy
GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@pytest.fixture(scope="module")
def models():
    from diffretouch.demo.models import Models

    return Models()


@pytest.fixture(scope="module")
def address(models):
    from diffretouch.demo.server import serving

    with serving(models) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address):
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=arguments + GL)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser, address):
    """Opens the page as a new visitor -> the page, with nothing opened in it."""
    contexts = []

    def visit(width=1000, height=700, query="", at=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.troubles, page.elsewhere = [], []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("console", lambda m: "Content Security" in m.text and page.troubles.append(m.text))
        local = (at or address).rstrip("/")
        page.on("request", lambda r: r.url.startswith(("data:", "blob:", local)) or page.elsewhere.append(r.url))
        page.goto((at or address) + query)
        page.wait_for_selector("body[data-ready]")
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            assert not page.troubles
            assert not page.elsewhere, "the page asks other computers"
        context.close()


def rest(page, after=-1):
    """Waits for the true sample of a later move than `after`; returns its number."""
    page.wait_for_function(
        "(n) => { const d = document.querySelector('#stage').dataset; return d.shown > n && d.final === '1' }",
        arg=after,
    )
    return int(page.get_attribute("#stage", "data-shown"))


def open_photo(page, path=PHOTO, name=None):
    page.set_input_files("#files", path)
    page.wait_for_function(
        "(n) => document.querySelector('#name').innerText.startsWith(n)", arg=name or Path(path).name
    )
    page.wait_for_selector('#stage[data-state="photo"]')
    return rest(page)


def told(page, text):
    page.wait_for_function("(t) => new RegExp(t).test(document.querySelector('#message').innerText)", arg=text)
    return page.inner_text("#message")


def press(page, slider, *keys):
    """Keys on a slider, and the true sample of what they make."""
    shown = int(page.get_attribute("#stage", "data-shown") or -1)
    page.locator(f"#range-{slider}").focus()
    for key in keys:
        page.keyboard.press(key)
    return rest(page, shown)


def picture(page, plain=False):
    """What the photo's own pixels are on the screen, (H,W,3) uint8, by the code that draws them."""
    data = page.evaluate(
        """async (plain) => {
            const { app } = await import('./page.js'), [w, h] = app.view.size;
            const pixels = app.view.slicer.render({ x: 0, y: 0, step: 1 }, w, h, { plain });
            let text = '';
            for (let i = 0; i < pixels.length; i += 8192) text += String.fromCharCode(...pixels.subarray(i, i + 8192));
            return [w, h, btoa(text)];
        }""",
        plain,
    )
    return np.frombuffer(base64.b64decode(data[2]), np.uint8).reshape(data[1], data[0], 4)[..., :3]


def look(page):
    """The stage as it is on the screen, (h,w,3) uint8, what floats over it hidden."""
    page.evaluate("() => { for (const e of document.querySelectorAll('.floating')) e.style.visibility = 'hidden'; }")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"))


def same(one, other):
    """Equal but for a level: grids of another batch differ in the last digit."""
    np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)


def number(page, slider):
    return float(page.input_value(f"#number-{slider}").replace("−", "-"))


def attributes(pixels):
    return measure_attributes(torch.tensor(np.array(pixels)).permute(2, 0, 1)[None].float() / 255)[0]


def expected(c, seed=0, strength=1.0, path=PHOTO, regions=None):
    """The library's picture."""
    pipe, pixels = DiffRetouchPipeline.from_pretrained("small"), np.asarray(Image.open(path).convert("RGB"))
    grid = pipe.predict_grid(pixels, c, regions=regions, generator=torch.Generator().manual_seed(seed))
    return pipe.apply_grid(pixels, grid, strength=strength, regions=regions)


def test_sliders_move_the_picture_their_way_and_come_back(visitor):
    page = visitor()
    open_photo(page)
    plain = picture(page)
    np.testing.assert_array_equal(picture(page, plain=True), np.asarray(Image.open(PHOTO)))
    for i, name in enumerate(ATTRIBUTES):
        scores = []
        for key in ("Home", "End"):  # with the keyboard: to one end and to the other
            press(page, name, key)
            scores.append(attributes(picture(page))[i].item())
        assert scores[0] < attributes(plain)[i].item() < scores[1], name
        page.dblclick(f"#slider-{name} label")
        assert number(page, name) == 0
    rest(page)
    np.testing.assert_array_equal(picture(page), plain)
    press(page, "contrast", "Shift+ArrowRight", "ArrowRight")
    assert number(page, "contrast") == pytest.approx(0.11)


def test_the_picture_is_the_librarys(visitor):
    """What is shown, what the browser saves and what the library saves: the same within a level."""
    page = visitor()
    open_photo(page)
    press(page, "brightness", "End")
    press(page, "temperature", "Home")
    press(page, "strength", *["Shift+ArrowLeft"] * 3)
    wanted = expected({"brightness": 1, "temperature": -1}, strength=0.7).astype(int)
    shown = np.abs(picture(page).astype(int) - wanted)
    assert shown.max() <= 1 and shown.mean() < 0.1
    page.select_option("#format", ".png")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "gb82_dog-lossless_retouched.png"
    assert np.abs(np.asarray(Image.open(download.value.path())).astype(int) - wanted).max() <= 1
    page.route("**/api/export", lambda route: route.abort())
    with page.expect_download() as download:
        page.click("#save")
    by_browser = np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)
    assert np.abs(by_browser - wanted).max() <= 1


def test_the_processor_draws_the_same_where_there_is_no_webgl(visitor):
    page = visitor(query="?cpu")
    told(page, "no WebGL 2")
    open_photo(page)
    press(page, "brightness", "End")
    assert np.abs(picture(page).astype(int) - expected({"brightness": 1})).max() <= 1


def test_the_hand_is_followed_before_it_rests(visitor):
    page = visitor()
    shown = open_photo(page)
    page.wait_for_selector('#stage[data-points="25"]')
    start = picture(page).astype(int)
    box = page.locator("#slider-brightness .track").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for step in range(1, 9):
        page.mouse.move(box["x"] + box["width"] * (0.5 + 0.05 * step), y)
        page.wait_for_function("(n) => document.querySelector('#stage').dataset.shown > n", arg=shown)
        shown = int(page.get_attribute("#stage", "data-shown"))
    assert page.get_attribute("#stage", "data-final") == "0"
    preview = picture(page).astype(int)
    page.mouse.up()
    rest(page)
    page.wait_for_function("() => document.querySelector('#undo').disabled === false")
    true = picture(page).astype(int)
    assert true.mean() > start.mean() + 5, "brighter"
    assert np.abs(preview - true).mean() < 0.4 * np.abs(start - true).mean(), "the preview is close to the sample"
    page.click("#undo")
    assert number(page, "brightness") == 0, "one step for one movement of the hand"


def test_zoom_pan_before_divider_and_clipping(visitor, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(np.kron(rng.integers(40, 200, (300, 400, 3), np.uint8), np.ones((4, 4, 1), np.uint8))).save(
        tmp_path / "grain.png"
    )
    page = visitor(device_scale_factor=1)
    open_photo(page, tmp_path / "grain.png")
    source = np.asarray(Image.open(tmp_path / "grain.png")).astype(int)
    page.click("#before")
    fitted = look(page)
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelector('#percent').innerText === '100 %'")
    shown = look(page).astype(int)
    h, w = shown.shape[:2]
    top, left = round(600 - h / 2), round(800 - w / 2)
    inside = np.abs(shown - source[top : top + h, left : left + w])[30:-30, 30:-30]
    assert inside.max() <= 1, "every pixel of the photo is one of the screen"
    page.locator("#stage").hover(position={"x": 100, "y": 100})
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => parseInt(document.querySelector('#percent').innerText) > 150")
    page.keyboard.press("0")
    np.testing.assert_array_equal(look(page), fitted)
    page.click("#before")  # after again
    after = look(page).astype(int)
    assert np.abs(after - fitted).mean() > 0.5
    page.keyboard.down("b")
    np.testing.assert_allclose(look(page).astype(int), fitted, atol=1)
    page.keyboard.up("b")
    page.keyboard.press("d")
    both = look(page).astype(int)
    middle = both.shape[1] // 2
    np.testing.assert_allclose(both[:, : middle - 20], fitted[:, : middle - 20], atol=1)
    np.testing.assert_allclose(both[:, middle + 20 :], after[:, middle + 20 :], atol=1)
    page.keyboard.press("d")
    press(page, "brightness", "End")
    press(page, "contrast", "End")
    page.keyboard.press("j")
    marked = look(page)
    assert page.get_attribute("#clip", "aria-pressed") == "true" and marked.shape == fitted.shape


def test_undo_outlives_a_reload(visitor):
    page = visitor()
    open_photo(page)
    plain = picture(page)
    press(page, "brightness", "End")
    press(page, "contrast", "Home")
    liked = picture(page)
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_selector('#stage[data-state="photo"]')
    rest(page)
    same(picture(page), liked)
    assert number(page, "brightness") == 1 and number(page, "contrast") == -1
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert number(page, "brightness") == 0 and page.is_disabled("#undo")
    rest(page)
    same(picture(page), plain)
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    rest(page)
    same(picture(page), liked)
    page.click("#close")
    page.wait_for_selector('#stage[data-state="empty"]')
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(300)
    assert page.get_attribute("#stage", "data-state") == "empty", "what was closed is forgotten"


def test_a_server_that_is_killed_and_comes_back_costs_nothing(visitor, models):
    from diffretouch.demo.server import serving

    with serving(models) as first:
        page = visitor(at=first)
        open_photo(page)
        press(page, "brightness", "End")
        liked = picture(page)
    port = int(re.search(r":(\d+)/", first)[1])
    page.dblclick("#slider-brightness label")
    page.locator("#range-temperature").focus()
    for key in ("End", "ArrowLeft"):  # 0.99: not one of the points that are known
        page.keyboard.press(key)
    told(page, "does not answer")
    assert (picture(page) != liked).any(), "sliders go on"
    with serving(models, port=port):
        told(page, "is back")
        rest(page)
        np.testing.assert_allclose(picture(page).astype(int), expected({"temperature": 0.99}), atol=1)
        for _ in range(3):
            page.keyboard.press("Control+z")
        rest(page)
        same(picture(page), liked)


def test_painted_areas_and_their_strokes(visitor):
    page = visitor()
    open_photo(page)
    plain = picture(page).astype(int)
    page.click("#areas summary")
    page.click("#paint")
    page.get_by_label("Edges follow").uncheck()
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(x - 120, y - 120)
    assert page.is_visible("#ring")
    before = page.locator("#ring").bounding_box()["width"]
    page.keyboard.press("]")
    page.mouse.wheel(0, -100)
    page.mouse.move(x - 119, y - 120)
    assert page.locator("#ring").bounding_box()["width"] > 1.2 * before
    page.mouse.down()
    page.mouse.move(x - 60, y - 120, steps=6)
    page.mouse.up()
    press(page, "brightness", "End")
    changed = np.abs(picture(page).astype(int) - plain).max(2)
    height, width = changed.shape
    assert changed[: height // 2, : width // 2].max() > 20
    assert changed[height // 2 + 40 :].max() == 0 and changed[:, width // 2 + 40 :].max() == 0
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")  # the stroke
    rest(page)
    assert np.abs(picture(page).astype(int) - plain).max() == 0
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+y")
    rest(page)
    assert (np.abs(picture(page).astype(int) - plain).max(2) == changed).all()
    page.select_option("#format", ".png")
    with page.expect_download() as download:
        page.click("#save")
    saved = np.abs(np.asarray(Image.open(download.value.path())).astype(int) - picture(page))
    assert saved.max() <= 1
    page.click("text=Whole photo")
    assert number(page, "brightness") == 0


def test_areas_are_the_librarys(visitor, tmp_path):
    """Shown, saved and the library's: the same, though each area's grid is held in range where the area is."""
    from diffretouch.regions import colour_mask, luminosity_mask

    page = visitor()
    open_photo(page)
    pixels = np.asarray(Image.open(PHOTO))
    page.click("#areas summary")
    for _ in range(2):  # chosen again it is the same one
        page.select_option("#range", "Greens")
        page.wait_for_selector("#targets [aria-checked=true]:has-text('Greens')")
    assert page.locator("#targets button").count() == 2
    press(page, "brightness", "Home")
    regions = [[colour_mask(pixels, 70, 170), [0, 0, 0, -1]]]

    def check(c=(0, 0, 0, 0)):
        rest(page)
        wanted = expected(c, regions=regions).astype(int)
        assert np.abs(picture(page).astype(int) - wanted).max() <= 1
        return wanted

    check()
    page.get_by_label("Invert").check()
    regions[0][0] = 1 - regions[0][0]
    check()
    page.select_option("#range", "Dark tones")
    press(page, "brightness", "End")
    press(page, "contrast", "End")
    press(page, "area-softness", "Home")
    regions.append([luminosity_mask(pixels, 0, 0.3, softness=0), [0, 1, 0, 1]])
    check()
    ramp = np.zeros((150, 200), np.uint8)  # of another size than the photo, and soft
    ramp[30:110, 40:] = np.linspace(0, 255, 160)
    Image.fromarray(ramp).save(tmp_path / "mask.png")
    page.set_input_files("#mask-file", tmp_path / "mask.png")
    page.wait_for_selector("#targets [aria-checked=true]:has-text('Mask')")
    press(page, "colorfulness", "End")
    press(page, "brightness", "End")
    page.click("text=Whole photo")
    press(page, "brightness", "End")
    page.select_option("#format", ".png")
    with page.expect_download() as download:
        page.click("#save")
    saved = np.asarray(Image.open(download.value.path())).astype(int)
    mask = page.evaluate(  # what the browser made of the file is what is used
        """async () => {
            const { edit } = await import('./state.js'), { mask } = edit().areas[2];
            return [mask.height, mask.width, [...mask.data]];
        }"""
    )
    regions.append([np.array(mask[2], np.uint8).reshape(mask[:2]), [1, 0, 0, 1]])
    wanted = check((0, 0, 0, 1))
    assert np.abs(saved - wanted).max() <= 1
    page.click("#targets button:nth-child(2)")
    for count in (2, 1, 0):
        page.click("#remove")
        if count:
            page.click("#targets button:nth-child(2)")
    assert not page.is_visible("#targets")


def state_of(page):
    """What the edit is, masks by a sum of their bytes; and where it stands among the steps."""
    own, at = page.evaluate(
        """async () => {
            const { state, edit } = await import('./state.js');
            const sum = (v) => v.reduce((a, b, i) => (a * 31 + b + i) % 1e9, 7);
            const own = (key) => ['id', 'photo'].includes(key);
            const plain = (key, v) => (v instanceof Uint8Array ? sum(v) : own(key) ? undefined : v);
            return [JSON.stringify(edit(), plain), state.active.at];
        }"""
    )
    return json.loads(own), at


def test_everything_can_be_undone(visitor, tmp_path):
    page = visitor()
    open_photo(page)
    page.wait_for_selector('#stage[data-points="25"]')
    page.click("#areas summary")
    page.click("#looks summary")
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2

    def stroke(dy):
        page.mouse.move(x - 60, y + dy)
        page.mouse.down()
        page.mouse.move(x + 60, y + dy, steps=4)
        page.mouse.up()

    def typed(slider, value):
        page.fill(f"#number-{slider}", value)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")

    def change(label):
        page.get_by_label(label).click()

    (tmp_path / "warm.cube").write_text("LUT_3D_SIZE 2\n" + "".join(
        f"{r} {g * 0.9} {b * 0.8}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1)
    ))  # fmt: skip
    steps = [
        lambda: typed("brightness", "0.4"),
        lambda: typed("strength", "0.8"),
        lambda: (page.fill("#seed", "5"), page.keyboard.press("Tab")),
        lambda: page.click("#paint"),
        lambda: stroke(-40),  # edges follow the photo's
        lambda: (page.keyboard.press("e"), stroke(-30)),
        lambda: change("Edges follow"),
        lambda: typed("contrast", "-0.5"),
        lambda: change("Invert"),
        lambda: page.click("text=Clear"),
        lambda: page.click("#remove"),
        lambda: page.select_option("#range", "Blues, sky"),
        lambda: typed("area-softness", "60"),
        lambda: page.select_option("#model", "CSRNet (automatic)"),
        lambda: page.select_option("#model", "DiffRetouch"),
        lambda: (drop(page, tmp_path / "warm.cube"), told(page, "warm.cube is applied")),
        lambda: page.click("#reset"),
    ]
    seen = [state_of(page)]
    for number, step in enumerate(steps, 1):
        step()
        page.wait_for_function("async (n) => (await import('./state.js')).state.active.at === n", arg=number)
        seen.append(state_of(page))
    assert all(one[0] != two[0] for one, two in zip(seen, seen[1:], strict=False)), "every step changed something"
    page.locator("#stage").focus()
    for wanted in seen[-2::-1]:
        page.keyboard.press("Control+z")
        assert state_of(page) == wanted
    assert page.is_disabled("#undo")
    for wanted in seen[1:]:
        page.keyboard.press("Control+Shift+z")
        assert state_of(page) == wanted


def test_the_brush(visitor):
    """Size and hardness by keys and wheel, erasing, a mark of where the area is that does not stand in the way."""
    page = visitor()
    open_photo(page)
    page.click("#areas summary")
    page.click("#paint")
    page.get_by_label("Edges follow").uncheck()
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2

    def at(name):
        return page.evaluate("async (n) => (await import('./state.js')).state.painting[n]", name)

    def mask():
        data = page.evaluate(
            """async () => {
                const { mask } = (await import('./state.js')).areaOf();
                return [mask.height, ...mask.data];
            }"""
        )
        return np.array(data[1:]).reshape(data[0], -1)

    def dab():
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.up()

    page.mouse.move(x, y)
    for key, name, sign in (("]", "size", 1), ("[", "size", -1), ("}", "hardness", 1), ("{", "hardness", -1)):
        before = at(name)
        page.keyboard.press(key)
        assert sign * (at(name) - before) > 0, key
    before = at("size"), at("hardness")
    page.mouse.wheel(0, -100)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Shift")
    page.wait_for_function("async (h) => (await import('./state.js')).state.painting.hardness > h", arg=before[1])
    assert at("size") > before[0]
    dab()
    soft = mask()
    assert soft.max() == 255 and ((soft > 20) & (soft < 235)).sum() > 50
    page.click("#area-tools >> text=Clear")
    page.fill("#number-hardness", "1")
    page.keyboard.press("Tab")
    dab()
    hard = mask()
    assert hard.max() == 255 and ((hard > 20) & (hard < 235)).sum() < 0.2 * ((soft > 20) & (soft < 235)).sum()
    red = look(page).astype(int)
    page.keyboard.press("o")
    plain = look(page).astype(int)
    assert (red - plain)[..., 0].max() > 20, "where the area is, in red"
    page.keyboard.press("o")
    np.testing.assert_array_equal(look(page)[9:-9, 9:-9], red[9:-9, 9:-9])  # but for the ring of the focus
    page.locator("#range-brightness").focus()
    page.keyboard.press("ArrowRight")
    assert page.is_checked("label:has-text('Show where') input") is False, "out of the way of the picture"
    page.click("#area-tools >> text=Erase")
    dab()
    assert mask().max() == 0
    page.keyboard.press("Escape")
    page.mouse.move(x + 5, y)
    assert not page.is_visible("#ring")


def test_a_browser_without_room_says_so(visitor, address, tmp_path):
    page = visitor()
    page.context.new_cdp_session(page).send(
        "Storage.overrideQuotaForOrigin", {"origin": address.rstrip("/"), "quotaSize": 1000}
    )
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    open_photo(page, tmp_path / "large.png")
    told(page, "does not outlive a reload")
    press(page, "brightness", "End")
    assert number(page, "brightness") == 1, "the work goes on"


def test_two_fingers_zoom(visitor):
    page = visitor(380, 740, has_touch=True, is_mobile=True)
    open_photo(page)
    touch, box = page.context.new_cdp_session(page), page.locator("#stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def fingers(kind, *far):
        points = [{"x": x + d, "y": y, "id": i} for i, d in enumerate(far)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = int(page.inner_text("#percent").split()[0])
    fingers("touchStart", -30, 30)
    for far in (45, 60, 90):
        fingers("touchMove", -far, far)
    fingers("touchEnd")
    page.wait_for_function("(n) => parseInt(document.querySelector('#percent').innerText) > 2 * n", arg=before)
    assert page.is_disabled("#undo"), "nothing but the view has changed"


def test_numbers_out_of_range_are_limited_and_said(visitor):
    page = visitor()
    open_photo(page)
    page.fill("#number-brightness", "7")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    told(page, "Brightness goes from −1 to 1: 1 is used")
    assert number(page, "brightness") == 1
    page.fill("#number-brightness", "much")
    page.keyboard.press("Tab")
    told(page, "is no number")
    assert number(page, "brightness") == 1
    rest(page)
    assert np.abs(picture(page).astype(int) - expected({"brightness": 1})).max() <= 1
    page.get_by_label("Extrapolate").check()
    page.fill("#number-brightness", "2")
    page.keyboard.press("Tab")
    rest(page)
    assert np.abs(picture(page).astype(int) - expected({"brightness": 2})).max() <= 1
    page.fill("#seed", "-4")
    page.keyboard.press("Tab")
    told(page, "whole numbers")


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


def drop(page, path):
    """A file let fall on the page by the hand."""
    handle = page.evaluate_handle(
        """([text, name]) => {
            const all = new DataTransfer();
            all.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
            return all;
        }""",
        [base64.b64encode(Path(path).read_bytes()).decode(), Path(path).name],
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": handle})


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


@pytest.mark.parametrize("query", ["", "?cpu"])
def test_transparency_is_seen_and_kept(visitor, tmp_path, query):
    pixels = np.full((300, 400, 4), (200, 40, 40, 255), np.uint8)
    pixels[:, 200:, 3] = 0
    pixels[:150, :200, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    page = visitor(query=query, device_scale_factor=1)
    open_photo(page, tmp_path / "cut.png")
    np.testing.assert_array_equal(picture(page, plain=True)[150:, :200], pixels[150:, :200, :3])
    page.keyboard.press("1")
    page.click("#before")
    shown = look(page).astype(int)
    top, left = (shown.shape[0] - 300) // 2, (shown.shape[1] - 400) // 2
    shown = shown[top : top + 300, left : left + 400]
    clear, thin, full = shown[5:-5, 210:390], shown[5:140, 10:190], shown[160:-5, 10:190]
    assert np.ptp(clear, axis=2).max() == 0 and len(np.unique(clear)) == 2, "squares of two greys"
    assert np.abs(full - (200, 40, 40)).max() <= 1
    assert thin[..., 1].min() > 60 and np.ptp(thin[..., 1]) > 20, "the squares shine through"
    page.click("#before")
    rest(page)
    result = picture(page).astype(int)
    for by_library in (True, False):
        if not by_library:
            page.route("**/api/export", lambda route: route.abort())
        page.select_option("#format", ".png")
        with page.expect_download() as download:
            page.click("#save")
        with Image.open(download.value.path()) as saved:
            assert saved.mode == "RGBA"
            saved = np.asarray(saved).astype(int)
        assert np.abs(saved[..., 3] - pixels[..., 3]).max() <= 1
        assert np.abs(saved[..., :3] - result)[150:, :200].max() <= 1
        page.select_option("#format", ".jpg")
        with page.expect_download() as download:
            page.click("#save")
        told(page, "laid on white")
        assert np.asarray(Image.open(download.value.path()))[20:-20, 220:380].min() > 250


def test_four_variations_differ_and_go_away(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click("#show-four")
    page.wait_for_selector("#four [data-seed]")
    assert page.locator("#four [data-seed]").count() == 4
    box = page.locator("#four").bounding_box()
    assert box["y"] + box["height"] <= 700, "above the fold"
    page.click("#four-close")
    assert not page.is_visible("#four")
    page.click("#show-four")
    page.wait_for_selector("#four [data-seed]:visible")
    seed = page.get_attribute("#four [data-seed] >> nth=2", "data-seed")
    page.click(f"#four [data-seed='{seed}']")
    rest(page, shown)
    assert page.input_value("#seed") == seed and not page.is_visible("#four")
    assert np.abs(picture(page).astype(int) - expected([0, 0, 0, 0], seed=int(seed))).max() <= 1


def test_models_without_sliders_have_none(visitor):
    page = visitor()
    shown = open_photo(page)
    page.select_option("#model", "CSRNet (automatic)")
    rest(page, shown)
    from diffretouch import CSRNetPipeline

    wanted = np.asarray(CSRNetPipeline.from_pretrained("small")(Image.open(PHOTO)).images[0]).astype(int)
    assert np.abs(picture(page) - wanted).max() <= 1
    assert (
        page.is_disabled("#range-contrast") and page.is_enabled("#range-strength") and page.is_disabled("#show-four")
    )
    press(page, "strength", "Home")
    np.testing.assert_array_equal(picture(page), np.asarray(Image.open(PHOTO)))


def test_the_file_keeps_what_the_photo_carried(visitor, tmp_path):
    source = tmp_path / "my photo.jpg"
    with Image.open(PHOTO) as photo:
        exif = photo.getexif()
        exif[0x010F] = "A camera"
        exif[0x0112] = 6
        photo.resize((500, 300)).save(source, exif=exif, quality=90)
    page = visitor()
    open_photo(page, source)
    assert "300 × 500" in page.inner_text("#name"), "upright"
    press(page, "temperature", "End")
    with page.expect_download() as download:
        page.dblclick("#save")  # impatience does no harm
    assert download.value.suggested_filename == "my_photo_retouched.jpg"
    download.value.save_as(tmp_path / "library.jpg")
    assert settings_of(load_photo(tmp_path / "library.jpg")).c["temperature"] == 1
    page.route("**/api/export", lambda route: route.abort())
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "browser.jpg")
    for name in ("library.jpg", "browser.jpg"):
        with Image.open(tmp_path / name) as result:
            assert result.size == (300, 500) and result.getexif()[0x010F] == "A camera", name
            assert result.getexif().get(0x0112, 1) == 1, name


def test_what_cannot_be_opened_is_told(visitor, tmp_path):
    page = visitor()
    open_photo(page)
    for name, data, words in (
        ("holiday.png", b"I am no photo.", "holiday.png cannot be read"),
        ("broken.jpg", PHOTO.read_bytes()[:2000], "broken.jpg cannot be read"),
        ("nothing.jpg", b"", "nothing.jpg is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#files", tmp_path / name)
        assert "/" not in told(page, words)
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(200_000_000)
    page.set_input_files("#files", tmp_path / "large.png")
    told(page, "large.png has 200 MB; the most is 100 MB")
    Image.new("1", (20_000, 15_000)).save(tmp_path / "huge.png")
    page.set_input_files("#files", tmp_path / "huge.png")
    told(page, "64 megapixels")
    assert page.get_attribute("#stage", "data-state") == "photo", "the photo that was open stays"
    assert page.locator("#strip button").count() <= 1
    Image.new("CMYK", (40, 30), (10, 200, 90, 20)).save(tmp_path / "print.jpg")
    open_photo(page, tmp_path / "print.jpg")
    np.testing.assert_allclose(
        picture(page, plain=True).astype(int), np.rint(load_photo(tmp_path / "print.jpg").pixels * 255), atol=1
    )
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    open_photo(page, tmp_path / "dot.png")
    assert tuple(picture(page, plain=True)[0, 0]) == (0, 128, 128)


def test_a_second_photo_comes_over_the_first(visitor, tmp_path):
    Image.new("RGB", (3000, 2000), (120, 80, 60)).save(tmp_path / "first.tif")
    page = visitor()
    page.evaluate("() => {}")
    page.set_input_files("#files", tmp_path / "first.tif")
    page.set_input_files("#files", PHOTO)
    page.wait_for_function("() => document.querySelector('#name').innerText.startsWith('gb82')")
    rest(page)
    assert picture(page).shape == (256, 256, 3)


def test_two_visitors_never_see_each_other(visitor, tmp_path):
    Image.new("RGB", (300, 200), (200, 60, 60)).save(tmp_path / "red.png")
    Image.new("RGB", (300, 200), (60, 60, 200)).save(tmp_path / "blue.png")
    pages = [visitor(), visitor()]
    for page, name in zip(pages, ("red", "blue"), strict=True):
        page.set_input_files("#files", tmp_path / f"{name}.png")  # both at once
    for page, channel in zip(pages, (0, 2), strict=True):
        page.wait_for_selector('#stage[data-state="photo"]')
        rest(page)
        assert picture(page).mean((0, 1)).argmax() == channel
    pages[0].close()
    press(pages[1], "brightness", "End")


def test_the_graphics_processor_may_forget_everything(visitor):
    page = visitor()
    open_photo(page)
    press(page, "contrast", "End")
    liked = picture(page)
    page.evaluate(
        """async () => {
            const { app } = await import('./page.js'), lose = app.view.slicer.gl.getExtension('WEBGL_lose_context');
            const restored = new Promise((done) => app.view.canvas.addEventListener('webglcontextrestored', done));
            lose.loseContext();
            await new Promise((done) => setTimeout(done, 100));
            lose.restoreContext();
            await restored;
        }"""
    )
    rest(page)
    same(picture(page), liked)


def test_a_finger_that_scrolls_leaves_sliders_alone(visitor):
    page = visitor(380, 740, has_touch=True, is_mobile=True)
    open_photo(page)
    place = page.locator("#slider-contrast").bounding_box()["y"]
    page.evaluate("(y) => scrollTo(0, y)", place - 520)
    touch = page.context.new_cdp_session(page)

    def drag(dx, dy):
        box = page.locator("#slider-contrast .track").bounding_box()
        x, y = box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in range(1, 9):
            at = {"x": x + dx * step / 8, "y": y + dy * step / 8}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.evaluate(
            """() => new Promise((done) => {  // the page scrolls on a little, under the next finger
                let still = 0, before = scrollY;
                const look = () => {
                    still = scrollY === before ? still + 1 : 0;
                    before = scrollY;
                    if (still < 20) requestAnimationFrame(look); else done();
                };
                look();
            })"""
        )

    drag(0, -60)
    assert number(page, "contrast") == 0
    drag(-80, 2)
    assert number(page, "contrast") < -0.2
    for _ in range(2):
        page.locator("#slider-contrast label").tap()
    assert number(page, "contrast") == 0


@pytest.mark.parametrize("width, height", [(380, 740), (1440, 900), (2560, 1300)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_and_large_screens(visitor, width, height, scheme):
    page = visitor(width, height, color_scheme=scheme, has_touch=width < 500)
    open_photo(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
    stage = page.locator("#stage").bounding_box()
    assert stage["height"] >= 0.33 * height and stage["y"] < height / 3
    grey = page.evaluate("getComputedStyle(document.querySelector('#stage')).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", grey)[:3])
    assert red == green == blue and (red > 128) == (scheme == "light"), "neutral surroundings"
    axe = next((path for path in AXE if path.is_file()), None)
    if axe is None:
        pytest.skip("axe-core is not there (npm install axe-core)")
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations.map((v) => [v.id, v.nodes.map((n) => n.html)])")
    assert not found
