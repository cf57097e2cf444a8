"""The same job for programs: `retouch`, `sweep` and `lut`, through gradio_client; they keep nothing."""

import functools
import tempfile
from pathlib import Path

from diffretouch.attributes import ATTRIBUTES
from diffretouch.photo import load_photo
from diffretouch.pixels import check_strength

from .models import Look
from .visit import MAX_PIXELS, check_seed, safe_stem, save_retouch


def lay_endpoints(gr, models, folder):
    """Add the endpoints to the `gradio.Blocks` that is being made.

    Args:
        gr: the module `gradio`.
        models ([`Models`]): what can be chosen.
        folder: for results; Gradio fetches them from there and deletes them after ten minutes.
    """

    def result_path(name):
        return Path(tempfile.mkdtemp(dir=folder)) / name

    def retouch(photo, colorfulness, contrast, temperature, brightness, strength, seed, model, suffix):
        look = as_look((colorfulness, contrast, temperature, brightness), strength, seed, model)
        opened = load_photo(photo, max_pixels=MAX_PIXELS)
        return save_retouch(models, look, opened, Path(photo).name, result_path, None if suffix == "same" else suffix)[
            0
        ]

    def sweep(photo, seed, model):
        look = as_look((0, 0, 0, 0), 1, seed, model)
        sheet = models.sheet(look, load_photo(photo, max_pixels=MAX_PIXELS).pixels)
        result = result_path(f"{safe_stem(photo)}_sweep.png")
        sheet.save(result)
        return result

    def lut(photo, colorfulness, contrast, temperature, brightness, strength, seed, model, size):
        look = as_look((colorfulness, contrast, temperature, brightness), strength, seed, model)
        table = models.table(look, load_photo(photo, max_pixels=MAX_PIXELS).pixels, int(size))
        result = result_path(f"{safe_stem(photo)}.cube")
        table.save(result)
        return result

    def told(answer):
        """Failures as one sentence, with the file's name instead of where it lies here."""

        @functools.wraps(answer)  # Gradio names the endpoint's parameters after the function's
        def run(path, *values):
            try:
                if path is None:
                    raise ValueError("`photo` must be a file, got none.")
                return str(answer(path, *values))
            except (ValueError, TypeError, OSError, MemoryError) as error:
                text = str(error).replace(str(path), Path(str(path)).name)
                raise gr.Error(" ".join(text.split()) or type(error).__name__, print_exception=False) from error

        return run

    with gr.Row(visible=False):
        photo = gr.File(label="photo", type="filepath")
        c = [gr.Number(0, label=name) for name in ATTRIBUTES]
        strength = gr.Number(1, label="strength")
        seed = gr.Number(0, label="seed", precision=0)
        model = gr.Dropdown(models.labels, value=models.labels[0], label="model")
        suffix = gr.Dropdown(["same", ".jpg", ".png", ".tif"], value="same", label="suffix")
        size = gr.Number(33, label="size", precision=0)
        result = gr.File(label="result")
        buttons = [gr.Button() for _ in range(3)]
    shared = {"outputs": result, "show_progress": "hidden", "concurrency_id": "work", "concurrency_limit": 1}
    about = "Retouch a photo at its full resolution; the file keeps what it carried."
    sliders = [*c, strength, seed, model]
    buttons[0].click(told(retouch), [photo, *sliders, suffix], api_name="retouch", api_description=about, **shared)
    about = "A contact sheet: each slider from -1 to 1, one row each."
    buttons[1].click(told(sweep), [photo, seed, model], api_name="sweep", api_description=about, **shared)
    about = "The retouch of a photo as a colour table (.cube)."
    buttons[2].click(told(lut), [photo, *sliders, size], api_name="lut", api_description=about, **shared)


def as_look(c, strength, seed, model):
    """What a program sent -> [`Look`]; what it left empty is the default."""
    strength = 1 if strength is None else strength
    check_strength(strength)
    return Look(model, tuple(float(value or 0) for value in c), float(strength), check_seed(seed or 0))
