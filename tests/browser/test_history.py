"""Undo, and what outlives a reload, a dead server and a full disk."""

import json
import re
import time

import numpy as np
from PIL import Image

from .hands import drop, expected, number, open_photo, picture, press, rest, same, told


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


def test_painted_masks_outlive_a_reload(visitor):
    page = visitor()
    open_photo(page)
    page.click("#areas summary")
    page.click("#paint")
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    for dy in (-80, 60):
        page.mouse.move(x - 60, y + dy)
        page.mouse.down()
        page.mouse.move(x + 60, y + dy, steps=4)
        page.mouse.up()
    press(page, "brightness", "End")
    liked, own = picture(page), state_of(page)
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_selector('#stage[data-state="photo"]')
    rest(page)
    assert state_of(page) == own, "the mask, byte for byte, and every step"
    same(picture(page), liked)
    page.locator("#stage").focus()
    for _ in range(2):  # the slider, and the second stroke
        page.keyboard.press("Control+z")
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+y")
    assert state_of(page) == own


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
    for count, step in enumerate(steps, 1):
        step()
        page.wait_for_function("async (n) => (await import('./state.js')).state.active.at === n", arg=count)
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


def test_a_tab_that_is_closed_in_the_middle_leaves_nothing_and_loses_nothing(visitor, models, tmp_path, monkeypatch):
    """While its picture is made and its file written: the server forgets it, the next tab goes on."""
    from diffretouch.demo.server import serving

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "server").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "server"))
    with serving(models) as address:
        page = visitor(at=address)
        other = page.context.new_page()  # the browser stays
        open_photo(page, tmp_path / "photo.png")
        press(page, "brightness", "End")
        page.wait_for_timeout(300)
        with page.expect_request("**/api/export"):
            page.click("#save")
        page.evaluate("() => document.querySelector('#another').click()")  # a sample is asked for, too
        page.close(run_before_unload=True)
        other.goto(address)
        other.wait_for_selector("#resume:visible")
        other.click("#resume")
        other.wait_for_selector('#stage[data-state="photo"]')
        rest(other)
        assert number(other, "brightness") == 1
        other.keyboard.press("Control+z")
        other.click("#close")
        (own,) = (tmp_path / "server").iterdir()
        give_up = time.monotonic() + 60
        while list(own.iterdir()) and time.monotonic() < give_up:
            other.wait_for_timeout(50)
        assert not list(own.iterdir())
