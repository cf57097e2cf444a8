"""What the sliders make of the picture, beside the library's own."""

import numpy as np
import pytest
from PIL import Image

from diffretouch.attributes import ATTRIBUTES

from .hands import (
    PHOTO,
    attributes,
    drop,
    edited,
    expected,
    look,
    number,
    open_photo,
    picture,
    press,
    rest,
    same,
    told,
)


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
    wanted = edited(page)
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
    assert page.input_value("#seed") == seed
    assert page.locator("#four [aria-pressed=true]").get_attribute("data-seed") == seed, "the chosen one is marked"
    assert np.abs(picture(page).astype(int) - expected([0, 0, 0, 0], seed=int(seed))).max() <= 1
    page.click("#four [data-seed] >> nth=0")  # the next one is tried
    assert page.input_value("#seed") == page.get_attribute("#four [data-seed] >> nth=0", "data-seed")
    page.keyboard.press("Control+z")
    assert page.locator("#four [aria-pressed=true]").get_attribute("data-seed") == seed
    press(page, "contrast", "End")
    assert not page.is_visible("#four"), "they are of another look"


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


LOSE = """async () => {
  const { app } = await import('./page.js'), lose = app.view.slicer.gl.getExtension('WEBGL_lose_context');
  const happened = (name) => new Promise((done) => app.view.canvas.addEventListener(name, done, { once: true }));
  const lost = happened('webglcontextlost'), restored = happened('webglcontextrestored');
  lose.loseContext();
  await lost;
  document.querySelector('#save').click();
  await new Promise((done) => {
    const told = () => /lost its graphics/.test(document.querySelector('#message').innerText);
    const look = () => (told() ? done() : setTimeout(look, 20));
    look();
  });
  lose.restoreContext();
  await restored;
}"""


@pytest.mark.parametrize("kind", ["sliders", "area", "table"])
def test_the_graphics_processor_may_forget_everything(visitor, tmp_path, kind):
    page = visitor()
    open_photo(page)
    if kind == "area":
        page.click("#areas summary")
        page.select_option("#range", "Greens")
    if kind == "table":
        (tmp_path / "warm.cube").write_text("LUT_3D_SIZE 2\n" + "".join(
            f"{r} {g * 0.9} {b * 0.8}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1)
        ))  # fmt: skip
        drop(page, tmp_path / "warm.cube")
        told(page, "is applied")
        rest(page)
    else:
        press(page, "contrast", "End")
    liked = picture(page)
    page.route("**/api/export", lambda route: route.abort())  # the browser makes the file
    page.evaluate(LOSE)
    rest(page)
    same(picture(page), liked)
    page.unroute("**/api/export")
    with page.expect_download():
        page.click("#save")
