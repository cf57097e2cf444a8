"""The page in a real Chromium, driven by Playwright."""

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.attributes import ATTRIBUTES, measure_attributes
from diffretouch.photo import load_photo
from diffretouch.settings import settings_of

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")

PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"
SLOW = 60_000  # ms: machines under test are busy


@pytest.fixture(scope="module")
def address():
    from diffretouch.demo.server import serving

    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def browser(address):
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser, address):
    """Opens the page as a new visitor -> the page, with nothing opened in it."""
    contexts = []

    def visit(width=1200, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.elsewhere = []
        local = address.rstrip("/")
        page.on("request", lambda r: r.url.startswith(("data:", "blob:", local)) or page.elsewhere.append(r.url))
        page.goto(address)
        page.wait_for_selector(".viewer .open")
        page.add_style_tag(content=".viewer .tag { visibility: hidden }")  # words on the picture are not compared
        return page

    yield visit
    for context in contexts:
        assert not context.pages[0].troubles
        assert not context.pages[0].elsewhere, "the page asks other computers"
        context.close()


def rest(page, after=-1):
    """Waits for the true sample of a later move than `after`; returns its number."""
    page.wait_for_function(
        "(n) => { const d = document.querySelector('.viewer').dataset; return d.shown > n && d.final === '1' }",
        arg=after,
    )
    return int(page.get_attribute(".viewer", "data-shown"))


def open_photo(page, path=PHOTO):
    page.set_input_files("#head input[type=file]", path)
    page.wait_for_selector('.viewer[data-state="photo"]')
    return rest(page)


def told(page, text):
    page.wait_for_function("(t) => new RegExp(t).test(document.querySelector('.viewer .message').innerText)", arg=text)
    return page.inner_text(".viewer .message")


def look(page):
    """The picture on the screen, (h,w,3) uint8."""
    page.evaluate("scrollTo(0, 0)")  # the picture sticks to the window: always at the same place of it
    return np.asarray(Image.open(io.BytesIO(page.locator(".frame").screenshot())).convert("RGB"))[2:-2, 2:-2]


def same(one, other):
    """Equal but for what the browser rounds otherwise when it composes the page."""
    np.testing.assert_allclose(one.astype(int), other.astype(int), atol=3)


def attributes(picture):
    return measure_attributes(torch.tensor(picture).permute(2, 0, 1)[None].float() / 255)[0]


def test_every_slider_moves_the_picture_its_way(visitor):
    page = visitor()
    page.click('[data-sample="colosseum"]')
    page.wait_for_selector('.viewer[data-state="photo"]')
    shown = rest(page)
    page.click('[data-view="0"]')
    plain = look(page)
    for number, name in enumerate(ATTRIBUTES):
        slider = page.locator(f"#slider-{name} input[type=range]")
        scores = []
        for key in ("Home", "End"):  # with the keyboard: to one end and to the other
            slider.focus()
            page.keyboard.press(key)
            shown = rest(page, shown)
            scores.append(attributes(look(page))[number].item())
        assert scores[0] < attributes(plain)[number].item() < scores[1], name
        page.click(f"#slider-{name} .reset-button")
        shown = rest(page, shown)
    same(look(page), plain)


def test_the_preview_follows_before_the_hand_rests(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click('[data-view="0"]')
    start = look(page).astype(int)
    box = page.locator("#slider-brightness input[type=range]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for step in range(1, 9):
        page.mouse.move(box["x"] + box["width"] * (0.5 + 0.05 * step), y)
        page.wait_for_function("(n) => document.querySelector('.viewer').dataset.shown > n", arg=shown)
        shown = int(page.get_attribute(".viewer", "data-shown"))
    preview = look(page).astype(int)
    page.mouse.up()
    rest(page)
    true = look(page).astype(int)
    assert true.mean() > start.mean() + 5, "brighter"
    assert np.abs(preview - true).mean() < 0.4 * np.abs(start - true).mean(), "the preview is close to the sample"


def test_a_stale_answer_does_not_overwrite_a_newer_one(visitor):
    page = visitor()
    shown = open_photo(page)
    newer = page.get_attribute(".viewer .after img", "src")
    moves = page.evaluate(
        """async () => {
            const args = [0];
            window.diffretouch.move(args);
            return args[0];
        }"""
    )
    assert moves == shown + 1, "numbers rise"
    # An answer to an earlier move comes late: by hand, as the server would send it
    page.click("#slider-contrast .reset-button")
    page.locator("#slider-contrast input[type=range]").focus()
    page.keyboard.press("End")
    final = rest(page, moves)
    page.evaluate("(src) => window.diffretouch.show({ move: 1, final: true, after: src, alt: 'old' })", newer)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert int(page.get_attribute(".viewer", "data-shown")) == final
    assert page.get_attribute(".viewer .after img", "src") != newer


def test_before_and_after_are_the_photo_and_its_retouch_without_loss(visitor):
    page = visitor()
    open_photo(page)
    for side in ("before", "after img"):
        assert page.get_attribute(f".viewer .{side}", "src").startswith("data:image/png"), "lossless"
        assert "gb82_dog" in page.get_attribute(f".viewer .{side}", "alt")
    page.click('[data-view="100"]')
    before = look(page).astype(int)
    page.click('[data-view="0"]')
    after = look(page).astype(int)
    with Image.open(PHOTO) as photo:
        whole = (before.shape[1] + 4, before.shape[0] + 4)  # with the border that `look` leaves out
        expected = np.asarray(photo.convert("RGB").resize(whole, Image.Resampling.BILINEAR))[2:-2, 2:-2].astype(int)
    assert np.abs(before - expected).mean() < 3 < np.abs(after - before).mean()
    page.click('[data-view="50"]')
    page.locator(".compare").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    both = look(page).astype(int)
    edge = both.shape[1] * 0.7
    left, right = slice(20, int(edge) - 40), slice(int(edge) + 40, -20)
    middle = slice(both.shape[0] // 4, both.shape[0] // 3)  # beside the handle's grip and the words
    same(both[middle, left], before[middle, left])
    same(both[middle, right], after[middle, right])
    page.keyboard.down("b")
    same(look(page)[middle], before[middle])
    page.keyboard.up("b")
    same(look(page), both)


def test_the_download_is_the_whole_photo_with_its_metadata(visitor, tmp_path):
    source = tmp_path / "my photo.jpg"
    with Image.open(PHOTO) as photo:
        exif = photo.getexif()
        exif[0x010F] = "A camera"
        photo.resize((1800, 1500)).save(source, exif=exif, quality=90)
    page = visitor()
    shown = open_photo(page, source)
    page.locator("#slider-temperature input[type=range]").focus()
    page.keyboard.press("End")
    rest(page, shown)
    with page.expect_download() as download:
        page.dblclick("#download")  # impatience does no harm
    assert download.value.suggested_filename == "my_photo_retouched.jpg"
    download.value.save_as(tmp_path / "result.jpg")
    with Image.open(tmp_path / "result.jpg") as result:
        assert result.size == (1800, 1500) and result.getexif()[0x010F] == "A camera"
    assert settings_of(load_photo(tmp_path / "result.jpg")).c["temperature"] == 1
    assert "downloads" in told(page, "my_photo_retouched.jpg, .* is in your downloads")
    for button, name in (("#table", "my_photo.cube"), ("#sheet", "my_photo_sweep.png")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).stat().st_size > 1000


def test_what_cannot_be_opened_is_told(visitor, tmp_path):
    page = visitor()
    open_photo(page)
    fake = tmp_path / "holiday.png"
    fake.write_text("I am no photo.")
    page.set_input_files("#head input[type=file]", fake)
    message = told(page, "holiday.png")
    assert "cannot be read" in message and "/" not in message
    assert page.get_attribute(".viewer", "data-state") == "photo", "the photo that was open stays"
    large = tmp_path / "large.png"
    with open(large, "wb") as file:
        file.truncate(200_000_000)
    page.set_input_files("#head input[type=file]", large)
    told(page, "large.png has 200 MB; the most is 100 MB")
    Image.new("1", (20_000, 15_000)).save(tmp_path / "huge.png")
    page.set_input_files("#head input[type=file]", tmp_path / "huge.png")
    assert "pixels" in told(page, "huge.png")
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    page.set_input_files("#head input[type=file]", tmp_path / "dot.png")
    page.wait_for_function("() => document.querySelector('.compare-tools .name').innerText.startsWith('dot.png')")
    page.click('.viewer button:text("Close photo")')
    page.wait_for_selector('.viewer[data-state="empty"]')
    page.locator("#slider-contrast input[type=range]").focus()
    page.keyboard.press("End")
    told(page, "No photo is open")


def test_presets_come_back_and_future_ones_do_not(visitor, tmp_path):
    page = visitor()
    shown = open_photo(page)
    page.locator("#slider-colorfulness input[type=range]").focus()
    page.keyboard.press("Home")
    shown = rest(page, shown)
    page.click('[data-view="0"]')
    liked = look(page)
    with page.expect_download() as download:
        page.click("#preset")
    preset = tmp_path / "liked.json"
    download.value.save_as(preset)
    page.click("#reset")
    shown = rest(page, shown)
    assert (look(page) != liked).any()
    page.locator("#keep input[type=file]").set_input_files(preset)
    rest(page, shown)
    same(look(page), liked)
    assert page.input_value("#slider-colorfulness input[type=number]") == "-1"
    preset.write_text(re.sub('"format": *1', '"format": 99', preset.read_text()))
    page.locator("#keep input[type=file]").set_input_files(preset)
    told(page, "liked.json cannot be used as a preset: settings of format 99.*newer")


def test_a_painted_area_changes_that_part_alone(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click('[data-view="0"]')
    plain = look(page).astype(int)
    page.click("#areas button")
    page.get_by_label("Painted edges follow").uncheck()
    page.click("#paint")
    page.wait_for_selector(".mask:visible")
    box = page.locator(".mask").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.2 * box["height"], steps=8)
    page.mouse.up()
    page.click(".paint-tools .done")
    shown = rest(page, shown + 1)
    page.locator("#slider-brightness input[type=range]").focus()
    page.keyboard.press("End")
    rest(page, shown)
    changed = np.abs(look(page).astype(int) - plain).max(2)
    height, width = changed.shape
    assert changed[int(0.18 * height) : int(0.22 * height), int(0.22 * width) : int(0.38 * width)].mean() > 10
    assert changed[height // 2 :].max() <= 1 and changed[:, int(0.7 * width) :].max() <= 1
    page.click("text=Whole photo")
    page.wait_for_function("() => document.querySelector('#slider-brightness input[type=number]').value === '0'")


def test_an_area_by_colour_is_there_once(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click("#areas button")
    for _ in range(2):
        page.click("#range input")
        page.get_by_role("option", name="Greens").click()
        page.wait_for_selector("label:has-text('Greens') input[type=radio]:checked")
        shown = rest(page, shown)
    assert page.locator("label:has(input[type=radio])").count() == 2, "the whole photo and the greens"
    page.click("#remove")
    page.wait_for_selector("label:has-text('Greens')", state="detached")


def test_two_visitors_never_see_each_other(visitor, tmp_path):
    Image.new("RGB", (300, 200), (200, 60, 60)).save(tmp_path / "red.png")
    Image.new("RGB", (300, 200), (60, 60, 200)).save(tmp_path / "blue.png")
    pages = [visitor(), visitor()]
    for page, name in zip(pages, ("red", "blue"), strict=True):
        page.set_input_files("#head input[type=file]", tmp_path / f"{name}.png")  # both at once
    for page, channel in zip(pages, (0, 2), strict=True):
        page.wait_for_selector('.viewer[data-state="photo"]')
        shown = rest(page)
        page.click('[data-view="0"]')
        page.locator("#slider-brightness input[type=range]").focus()
        page.keyboard.press("End")
        rest(page, shown)
        assert look(page)[60:-60, 60:-60].mean((0, 1)).argmax() == channel
    pages[0].reload()
    pages[0].wait_for_selector('.viewer[data-state="empty"]')


def test_variations_can_be_chosen(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click("#four")
    page.wait_for_selector("[data-seed='4']")
    assert page.locator("[data-seed] img").count() == 4
    page.click("[data-seed='3']")
    shown = rest(page, shown)
    assert page.input_value("#seed input") == "3"
    page.click("#dice")
    rest(page, shown)


def test_closing_the_page_in_the_middle_does_no_harm(visitor):
    page = visitor()
    open_photo(page)
    page.click("#download")
    page.goto("about:blank")
    assert open_photo(visitor()) >= 1, "the next visitor is served"


@pytest.mark.parametrize("width, height", [(380, 740), (2560, 1300)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_and_large_screens(visitor, width, height, scheme):
    page = visitor(width, height, color_scheme=scheme, has_touch=width < 500)
    open_photo(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
    frame = page.locator(".frame").bounding_box()
    assert frame["height"] >= 0.3 * height and frame["y"] < height / 2
    grey = page.evaluate("getComputedStyle(document.querySelector('.stage')).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", grey)[:3])
    assert red == green == blue and (red > 128) == (scheme == "light"), "neutral surroundings"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=file]), select, img')].filter((e) =>
            e.offsetParent && !(e.innerText || e.alt || e.ariaLabel || e.title || e.labels?.length))
            .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert not unnamed, "everything has a name"


def test_models_without_sliders_have_none(visitor):
    page = visitor()
    shown = open_photo(page)
    page.click('[data-view="0"]')
    steered = look(page)
    page.click("#model input")
    page.get_by_role("option", name="automatic").first.click()
    shown = rest(page, shown)
    assert (look(page) != steered).any()
    assert page.is_disabled("#slider-contrast input[type=range]") and page.is_enabled("#slider-strength input")
    page.locator("#slider-strength input[type=range]").focus()
    page.keyboard.press("Home")
    rest(page, shown)
    after = look(page)
    page.click('[data-view="100"]')
    same(after, look(page))


def test_scales_widen_on_demand(visitor):
    page = visitor()
    shown = open_photo(page)
    page.get_by_label("Extrapolate").check()
    page.wait_for_selector('#slider-brightness input[type=range][max="3"]')
    page.locator("#slider-brightness input[type=range]").focus()
    page.keyboard.press("End")
    rest(page, shown + 1)
    assert page.input_value("#slider-brightness input[type=number]") == "3"
    page.get_by_label("Extrapolate").uncheck()
    page.wait_for_function("() => document.querySelector('#slider-brightness input[type=number]').value === '1'")


def test_mask_files_of_another_shape_are_told(visitor, tmp_path):
    mask = np.zeros((50, 200), np.uint8)
    mask[:, 100:] = 255
    Image.fromarray(mask).save(tmp_path / "half.png")
    page = visitor()
    open_photo(page)
    page.click("#areas button")
    page.wait_for_selector("#areas input[type=file]", state="attached")
    page.set_input_files("#areas input[type=file]", tmp_path / "half.png")
    assert "200 × 50" in told(page, "another shape")
    page.wait_for_selector("label:has-text('Mask') input[type=radio]:checked")
    page.set_input_files("#areas input[type=file]", PHOTO)
    told(page, "is no mask: it has colours")
