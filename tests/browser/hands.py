"""What a hand does on the page, and what an eye sees of it."""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffretouch import DiffRetouchPipeline
from diffretouch.attributes import measure_attributes

PHOTO = Path(__file__).parents[1] / "photos" / "gb82_dog-lossless.jpg"


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


def edited(page):
    """The photo opened and three sliders moved; returns what the library makes of that, as integers."""
    open_photo(page)
    press(page, "brightness", "End")
    press(page, "temperature", "Home")
    press(page, "strength", *["Shift+ArrowLeft"] * 3)
    return expected({"brightness": 1, "temperature": -1}, strength=0.7).astype(int)


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


def expected(c, seed=0, strength=1.0, path=PHOTO, regions=None, model="small"):
    """The library's picture."""
    pipe, pixels = DiffRetouchPipeline.from_pretrained(model), np.asarray(Image.open(path).convert("RGB"))
    pipe.set_progress_bar_config(disable=True)
    grid = pipe.predict_grid(pixels, c, regions=regions, generator=torch.Generator().manual_seed(seed))
    return pipe.apply_grid(pixels, grid, strength=strength, regions=regions)
