"""The stage under hand, finger and keys, on screens of all sizes."""

import re

import numpy as np
import pytest
from PIL import Image

from .hands import attributes, look, number, open_photo, picture, press


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


def test_sharp_screens_holding_and_the_histogram(visitor):
    page = visitor(device_scale_factor=2)
    open_photo(page)
    stage = page.locator("#stage").bounding_box()
    size = page.evaluate("() => { const e = document.querySelector('#canvas'); return [e.width, e.height]; }")
    assert size == [round(2 * stage["width"]), round(2 * stage["height"])], "every pixel of the screen"
    press(page, "brightness", "End")
    after = look(page).astype(int)
    page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.mouse.down()
    page.wait_for_selector("#before[aria-pressed=true]")
    before = look(page).astype(int)
    page.mouse.up()
    page.wait_for_selector("#before[aria-pressed=false]")
    assert after.mean() > before.mean() + 5
    np.testing.assert_allclose(look(page).astype(int), after, atol=1)
    page.wait_for_function("() => !document.querySelector('#whites').innerText.includes('–')")
    pixels = picture(page)
    white = float(re.search(r"([\d.]+) %", page.inner_text("#whites"))[1])
    assert abs(white - 100 * (pixels == 255).all(2).mean()) < 0.6
    page.click("#measured summary")
    page.wait_for_selector("#measured tbody tr >> nth=3")
    rows = page.locator("#measured tbody tr").all_inner_texts()
    shown = [float(row.split("\t")[-1]) for row in rows]
    np.testing.assert_allclose(shown, attributes(pixels), atol=0.02)


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
def test_phones_and_large_screens(visitor, width, height):
    page = visitor(width, height, color_scheme="light", has_touch=width < 500)
    open_photo(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
        stage = page.locator("#stage").bounding_box()
        assert stage["height"] >= 0.33 * height and stage["y"] < height / 3
        grey = page.evaluate("getComputedStyle(document.querySelector('#stage')).backgroundColor")
        red, green, blue = map(int, re.findall(r"\d+", grey)[:3])
        assert red == green == blue and (red > 128) == (scheme == "light"), "neutral surroundings"


def test_everybody_can_use_it(visitor, npm):
    """Names, roles and contrasts, by axe-core: empty, with a photo and everything unfolded, in a dialog."""
    page = visitor(1440, 900)
    page.evaluate(npm("axe-core", "axe.min.js").read_text(encoding="utf-8"))

    def check():
        found = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found += page.evaluate(
                "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes.map((n) => n.html)])"
            )
        return found

    assert not check()
    open_photo(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.click("#paint")
    page.select_option("#range", "Greens")
    page.click("#show-four")
    page.wait_for_selector("#four [data-seed]:visible")
    assert not check()
    page.click("#help")
    assert not check()
