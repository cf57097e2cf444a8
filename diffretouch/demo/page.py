"""The page: a photo, four sliders, and a picture that follows the hand; laid out and carried by Gradio 6."""

import html
import logging
import random
import warnings
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from diffretouch.attributes import ATTRIBUTES
from diffretouch.photo import load_photo
from diffretouch.pixels import check_strength
from diffretouch.settings import Settings
from diffretouch.settings.region_texts import parse_region

from .endpoints import lay_endpoints
from .histogram import histogram_svg
from .models import Look
from .visit import MAX_PIXELS, MOST_AREAS, Visit, check_seed, data_url, measured, safe_stem

MAX_MB = 100
SLIDERS = {
    "colorfulness": ("Colour", "muted to vivid"),
    "contrast": ("Contrast", "soft to crisp"),
    "temperature": ("Warmth", "cooler to warmer"),
    "brightness": ("Brightness", "darker to brighter"),
}
SAMPLES = {
    "colosseum": "The Colosseum in Rome",
    "desert": "A sand dune with hikers under a clear sky",
    "canyon-wren": "A small bird on a rock",
}
RANGES = {
    "Bright tones": "luminosity=0.65-1",
    "Dark tones": "luminosity=0-0.3",
    "Reds and skin": "colour=340-50",
    "Greens": "colour=70-170",
    "Blues, sky": "colour=190-260",
}
FORMATS = {"As the photo": None, "JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif"}
WHOLE = "Whole photo"
_PRESET_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class Controls(NamedTuple):
    """What the page's controls say when something happens."""

    move: int
    target: str
    c: tuple
    strength: float
    seed: int
    model: str

    @classmethod
    def of(cls, values):
        move, target, *c, strength, seed, model = values
        check_strength(strength)
        return cls(int(move or 0), target or WHOLE, tuple(map(float, c)), float(strength), check_seed(seed), model)


class Page:
    """The layout, and what happens on each event.

    Args:
        models ([`Models`]): what can be chosen.
        visits ([`Visits`]): where visitors' photos are kept.
        folder: for results until they are fetched.
    """

    def __init__(self, models, visits, folder):
        self.models, self.visits, self.folder = models, visits, Path(folder)

    # What happens: each takes a session and its controls, and returns what changes on the page

    def open(self, session, controls, path):
        if path is None:
            raise ValueError("No file arrived: open the photo again.")
        return self._open(session, controls, path, Path(path).name)

    def open_sample(self, session, controls, event):
        name = (event or {}).get("name")
        if name not in SAMPLES:
            raise ValueError(f"There is no sample {name!r}.")
        return self._open(session, controls, files("diffretouch.demo") / "samples" / f"{name}.jpg", f"{name}.jpg")

    def _open(self, session, controls, path, name):
        visit = Visit(path, name, self.folder)
        self.visits.open(session, visit)
        look = Look(controls.model, strength=1.0, seed=controls.seed)
        pixels = visit.moved(self.models, look)
        said = self._picture(visit, look, controls.move, pixels)
        width, height = visit.size
        said[self.viewer] |= {
            "before": data_url(visit.shown),
            "name": visit.name,
            "size": f"{width} × {height}, {width * height / 1e6:.1f} MP",
            "tell": " ".join(visit.photo.notes),
        }
        said |= {slider: self.gr.update(value=0) for slider in self.sliders}
        said |= {self.strength: self.gr.update(value=1), self.strip: ""}
        return said | self._targets(visit, WHOLE, said[self.viewer])

    def leave(self, session, controls):
        self.visits.close(session)
        return {
            self.viewer: {"closed": True, "tell": ""},
            self.strip: "",
            self.target: self.gr.update(choices=[WHOLE], value=WHOLE, visible=False),
        }

    def moved(self, session, controls):
        """A slider moves: the interpolated picture, at once."""
        visit = self.visits[session]
        look = self._look(visit, controls)
        return self._picture(visit, look, controls.move, visit.moved(self.models, look))

    def rested(self, session, controls):
        """The hand rests: the true sample, without loss, and its attributes."""
        visit = self.visits[session]
        look = self._look(visit, controls)
        return self._picture(visit, look, controls.move, visit.sampled(self.models, look), final=True)

    def dice(self, session, controls):
        controls = controls._replace(seed=random.randrange(10_000))
        return {self.seed: self.gr.update(value=controls.seed)} | self.moved(session, controls)

    def reset(self, session, controls):
        visit = self.visits[session]
        controls = controls._replace(c=(0.0,) * 4, strength=1.0)
        look = self._look(visit, controls)
        said = {slider: self.gr.update(value=0) for slider in self.sliders} | {self.strength: self.gr.update(value=1)}
        return said | self._picture(visit, look, controls.move, visit.moved(self.models, look))

    def chosen(self, session, controls):
        """Another model: sliders only where it follows them."""
        return self._steering(controls.model) | self._if_open(session, controls)

    def widened(self, session, controls, wide):
        """The scales of the sliders: -1 to 1, or what the models can extrapolate."""
        reach = 3 if wide else 1
        c = tuple(min(max(value, -reach), reach) for value in controls.c)
        controls = controls._replace(c=c, strength=min(controls.strength, 2 if wide else 1))
        return self._scales(wide, c, controls.strength) | self._if_open(session, controls)

    def _steering(self, model):
        steered = self.models.is_steered(model)
        said = {one: self.gr.update(interactive=steered) for one in [*self.sliders, self.seed]}
        return said | {self.areas_box: self.gr.update(visible=steered)}

    def _scales(self, wide, c, strength):
        reach = 3 if wide else 1
        said = {self.strength: self.gr.update(maximum=2 if wide else 1, value=strength)}
        for slider, value in zip(self.sliders, c, strict=True):
            said[slider] = self.gr.update(minimum=-reach, maximum=reach, value=value)
        return said

    def _if_open(self, session, controls):
        if session in self.visits:
            return self.moved(session, controls)
        return {self.viewer: {"done": True, "move": controls.move, "nothing": True}}

    def targeted(self, session, controls, last):
        """The sliders are for another part of the photo now: `last` is the part that they were for."""
        visit = self.visits[session]
        self._keep(visit, controls._replace(target=last or WHOLE))
        return self._targets(visit, controls.target) | self._slide(visit, controls.target)

    def add_area(self, session, controls, kind):
        visit = self.visits[session]
        look = self._look(visit, controls)
        words = RANGES.get(kind)
        area = next((area for area in visit.areas if words and area.words == words), None)  # chosen again
        area = area or visit.add_area(look._replace(c=visit.c), words, name=kind if words else None)
        return self._new_area(visit, controls, area)

    def load_area(self, session, controls, path):
        """An area from a mask file."""
        visit = self.visits[session]
        look = self._look(visit, controls)
        try:
            photo = load_photo(path, max_pixels=MAX_PIXELS)
        except ValueError as error:
            raise ValueError(str(error).replace(repr(str(path)), Path(path).name)) from error
        grey = photo.alpha if photo.alpha is not None and np.ptp(photo.pixels) == 0 else photo.pixels
        if grey.ndim == 3:
            if np.ptp(grey, axis=2).max() > 0.02:
                raise ValueError(f"{Path(path).name} is no mask: it has colours. White is inside, black outside.")
            grey = grey[..., 1]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            mask = PIL.Image.fromarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8))
            area = visit.add_area(look._replace(c=visit.c), mask=mask, name="Mask")
        said = self._new_area(visit, controls, area)
        if told:
            width, height = visit.size
            said[self.viewer]["tell"] = (
                f"The mask has another shape ({grey.shape[1]} × {grey.shape[0]}) than the photo ({width} × {height}): "
                "it was stretched."
            )
        return said

    def _new_area(self, visit, controls, area):
        look = self._look(visit, controls._replace(target=area.name, c=area.c))
        said = self._picture(visit, look, controls.move, visit.moved(self.models, look))
        return said | self._targets(visit, area.name, said[self.viewer]) | self._slide(visit, area.name)

    def remove_area(self, session, controls):
        visit = self.visits[session]
        if controls.target == WHOLE:
            raise ValueError("Choose the area that is to go first.")
        del visit.areas[visit.area(controls.target)]
        look = Look(controls.model, visit.c, controls.strength, controls.seed)
        said = self._picture(visit, look, controls.move, visit.moved(self.models, look))
        return said | self._targets(visit, WHOLE, said[self.viewer]) | self._slide(visit, WHOLE)

    def painted(self, session, controls, follow_edges, event):
        visit = self.visits[session]
        visit.paint((event or {}).get("name"), (event or {}).get("mask"), follow_edges)
        return self.moved(session, controls)

    def four(self, session, controls):
        """Four other samples to choose from."""
        visit = self.visits[session]
        look = self._look(visit, controls)
        seeds = [look.seed + number for number in range(1, 5)]
        pictures = visit.samples(self.models, look, seeds)
        shown = "".join(
            f'<button type="button" data-seed="{seed}"><img src="{data_url(pixels, lossless=False)}" '
            f'alt="Variation {seed} of {html.escape(visit.name)}">Variation {seed}</button>'
            for seed, pixels in zip(seeds, pictures, strict=True)
        )
        return {self.strip: shown, self.viewer: {"done": True}}

    def picked(self, session, controls, event):
        seed = (event or {}).get("seed")
        controls = Controls.of((controls.move, controls.target, *controls.c, controls.strength, seed, controls.model))
        return {self.seed: self.gr.update(value=controls.seed)} | self.moved(session, controls)

    def save(self, session, controls, kind):
        visit = self.visits[session]
        path, notes = visit.save(self.models, self._look(visit, controls), FORMATS.get(kind))
        return self._file(path, notes)

    def save_table(self, session, controls):
        visit = self.visits[session]
        table = self.models.table(self._look(visit, controls), visit.photo.pixels)
        path = visit.result_path(f"{safe_stem(visit.name)}.cube")
        table.save(path, overwrite=True)
        notes = [f"Against the retouch: {table.error}."]
        return self._file(path, notes + ["Areas are not in it."] * bool(visit.areas))

    def save_sheet(self, session, controls):
        visit = self.visits[session]
        sheet = self.models.sheet(self._look(visit, controls), visit.photo.pixels)
        path = visit.result_path(f"{safe_stem(visit.name)}_sweep.png")
        sheet.save(path)
        url = data_url(np.asarray(sheet), lossless=False)
        said = self._file(path)
        said[self.strip] = f'<img class="wide" src="{url}" alt="Contact sheet: each slider from -1 to 1, row by row">'
        return said

    def save_preset(self, session, controls):
        visit = self.visits[session]
        settings = self.models.settings(self._look(visit, controls), visit.areas)
        path = visit.result_path(f"{safe_stem(visit.name)}_preset.json")
        path.write_text(settings.to_json(indent=1) + "\n", encoding="utf-8")
        painted = any(area.words is None for area in visit.areas)
        return self._file(path, ["Painted areas are not in it: they belong to this photo."] * painted)

    def load_preset(self, session, controls, path):
        visit = self.visits[session]
        settings = read_settings(path)
        c = tuple((settings.c or {}).get(name, 0.0) for name in ATTRIBUTES)
        model, notes = self.models.label_of(settings.model), []
        if model is None:
            model = controls.model
            if settings.model is not None:
                notes.append(f"It was made with the model {settings.model!r}, which is not here: results differ.")
        strength = 1.0 if settings.strength is None else settings.strength
        look = Look(model, c, strength, controls.seed if settings.seed is None else settings.seed)
        regions = [(text.rpartition(":")[0], *parse_region(text)) for text in settings.regions or ()]
        if any(isinstance(source, str) for _, source, _ in regions):
            raise ValueError("This preset has an area with a mask file, which is not opened from here: load the mask.")
        if settings.exposure:
            notes.append("It also changes the exposure, which this page does not.")
        if len(regions) > MOST_AREAS:
            raise ValueError(f"This preset has {len(regions)} areas; there can be {MOST_AREAS}.")
        visit.areas.clear()
        for words, _, own in regions:
            own = tuple(own.get(name, value) for name, value in zip(ATTRIBUTES, c, strict=True))
            name = next((name for name, known in RANGES.items() if known == words), None)
            visit.add_area(look._replace(c=own), words, name=name)
        visit.c = c
        wide = max(map(abs, (*c, *(value for area in visit.areas for value in area.c)))) > 1 or strength > 1
        steering, scales = self._steering(model), self._scales(wide, c, strength)
        for slider in (*self.sliders, self.seed):
            scales[slider] = {**steering[slider], **scales.get(slider, self.gr.update(value=look.seed))}
        said = self._picture(visit, look, controls.move, visit.moved(self.models, look))
        said[self.viewer] |= {"done": True, "tell": " ".join([f"Preset loaded: {Path(path).name}.", *notes])}
        said |= {**steering, **scales, self.model: model, self.wide: wide}
        return said | self._targets(visit, WHOLE, said[self.viewer])

    def gone(self, session):
        """The page was closed."""
        self.visits.close(session)

    # What the events share

    def _keep(self, visit, controls):
        """Remember the sliders' values for what they are for."""
        if controls.target == WHOLE:
            visit.c = controls.c
            return
        number = visit.area(controls.target)
        visit.areas[number] = visit.areas[number]._replace(c=controls.c)

    def _look(self, visit, controls):
        self._keep(visit, controls)
        return Look(controls.model, visit.c, controls.strength, controls.seed)

    def _picture(self, visit, look, move, pixels, final=False):
        """A picture for the viewer, with its histogram; the attributes once the hand rests."""
        final = final or not self.models.is_steered(look.model)
        shown = {
            "move": move,
            "final": final,
            "after": data_url(pixels, lossless=final),
            "alt": "The retouched photo: " + visit.name,
            "histogram": histogram_svg(visit.shown, pixels),
        }
        if final:
            shown["measured"] = measured_table(measured(visit.shown), measured(pixels))
        return {self.viewer: shown}

    def _targets(self, visit, target, viewer=None):
        """The choice of parts, and the brush for one that is painted."""
        names = [WHOLE, *(area.name for area in visit.areas)]
        said = {
            self.target: self.gr.update(choices=names, value=target, visible=len(names) > 1),
            self.last_target: target,
        }
        paint = False
        if target != WHOLE:
            area = visit.areas[visit.area(target)]
            if area.words is None:
                mask = np.rint(area.mask * 255).astype(np.uint8)
                paint = {"name": area.name, "mask": data_url(mask) if mask.any() else None}
        if viewer is None:
            said[self.viewer] = {"paint": paint}
        else:
            viewer["paint"] = paint
        return said

    def _slide(self, visit, target):
        """The sliders at the values of a part."""
        c = visit.c if target == WHOLE else visit.areas[visit.area(target)].c
        return {slider: self.gr.update(value=value) for slider, value in zip(self.sliders, c, strict=True)}

    def _file(self, path, notes=()):
        size = path.stat().st_size
        amount = f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.1f} kB"
        return {
            self.file: str(path),
            self.viewer: {"done": True, "tell": " ".join([f"{path.name}, {amount}, is in your downloads.", *notes])},
        }

    # The layout

    def blocks(self):
        """Returns the `gradio.Blocks`, ready to be launched."""
        import gradio as gr

        self.gr = gr
        with gr.Blocks(
            title="diffretouch", analytics_enabled=False, delete_cache=(60, 600), fill_width=True
        ) as blocks:  # fmt: skip
            with gr.Row(elem_id="head"):
                gr.HTML("<h1>diffretouch</h1>", elem_classes="title")
                labels = self.models.labels
                self.model = gr.Dropdown(
                    labels, value=labels[0], show_label=False, label="Model", elem_id="model", container=False
                )
                upload = gr.UploadButton("Open photo", elem_id="open-photo", size="sm", file_count="single")
            with gr.Row(elem_id="work"):
                with gr.Column(elem_id="picture"):
                    self.viewer = gr.HTML(
                        None,
                        html_template=text_of("viewer.html"),
                        js_on_load=text_of("viewer.js"),
                        apply_default_css=False,
                        elem_id="viewer",
                        max_mb=MAX_MB,
                        max_mp=MAX_PIXELS // 1_000_000,
                        samples=_sample_buttons(),
                    )
                    self.strip = gr.HTML(
                        "",
                        html_template='<div class="strip">${value}</div>',
                        js_on_load="element.addEventListener('click', (event) => { const button = event.target.closest"
                        "('[data-seed]'); if (button) trigger('pick', { seed: Number(button.dataset.seed) }); });",
                        apply_default_css=False,
                    )
                with gr.Column(elem_id="controls"):
                    self._lay_controls(gr)
            lay_endpoints(gr, self.models, self.folder)
            self._wire(gr, blocks, upload)
        return blocks

    def _lay_controls(self, gr):
        # Filled by the viewer, so that histogram and picture are of the same move
        gr.HTML(
            '<div class="place"></div><details><summary>Measured</summary><div class="numbers"></div></details>',
            apply_default_css=False,
            elem_id="histogram",
        )
        self.target = gr.Radio([WHOLE], value=WHOLE, label="The sliders are for", visible=False)
        self.sliders = []
        for name, (label, ends) in SLIDERS.items():
            classes = ["attribute", "middle"]
            self.sliders.append(
                gr.Slider(-1, 1, 0, step=0.01, label=label, info=ends, elem_id=f"slider-{name}", elem_classes=classes)
            )
        self.strength = gr.Slider(
            0, 1, 1, step=0.01, label="Amount", info="photo to full retouch", elem_id="slider-strength",
            elem_classes="attribute",
        )  # fmt: skip
        with gr.Row(elem_classes=["line", "bare"]):
            self.wide = gr.Checkbox(False, label="Extrapolate beyond 1", container=False)
            self.reset_button = gr.Button("Reset", size="sm", elem_id="reset")
        with gr.Row(elem_classes="line"):
            self.seed = gr.Number(0, label="Variation", precision=0, minimum=0, elem_id="seed")
            icon = str(files("diffretouch.demo") / "dice.svg")
            self.dice_button = gr.Button("Another", icon=icon, size="sm", elem_id="dice")
            self.four_button = gr.Button("Show me four", size="sm", elem_id="four")
        with gr.Accordion("Areas with sliders of their own", open=False, elem_id="areas") as self.areas_box:
            with gr.Row(elem_classes="line"):
                self.paint_button = gr.Button("Paint an area", size="sm", elem_id="paint")
                self.mask_button = gr.UploadButton("Load a mask", size="sm")
            self.range = gr.Dropdown(list(RANGES), value=None, label="Or by tone or colour", elem_id="range")
            self.follow_edges = gr.Checkbox(True, label="Painted edges follow the photo's", container=False)
            self.remove_button = gr.Button("Remove this area", size="sm", elem_id="remove")
        with gr.Accordion("Keep it", open=True, elem_id="keep"):
            with gr.Row(elem_classes="line"):
                self.format = gr.Dropdown(
                    list(FORMATS), value="As the photo", label="File", container=False, elem_id="format"
                )
                self.save_button = gr.Button("Download full size", variant="primary", elem_id="download")
            with gr.Row(elem_classes="line"):
                self.table_button = gr.Button("Colour table (.cube)", size="sm", elem_id="table")
                self.sheet_button = gr.Button("Contact sheet", size="sm", elem_id="sheet")
            with gr.Row(elem_classes="line"):
                self.preset_button = gr.Button("Save preset", size="sm", elem_id="preset")
                self.preset_upload = gr.UploadButton("Load preset", size="sm")
        self.file = gr.DownloadButton("File", visible="hidden", elem_id="file")
        self.move = gr.Number(0, visible="hidden", precision=0)
        self.last_target = gr.State(WHOLE)

    def _wire(self, gr, blocks, upload):
        controls = [self.move, self.target, *self.sliders, self.strength, self.seed, self.model]
        picture = [self.viewer]
        parts = [self.target, self.last_target, *self.sliders]
        everything = [
            *picture, *parts, self.strength, self.seed, self.model, self.wide, self.strip, self.areas_box
        ]  # fmt: skip

        def wire(listener, happens, outputs, kind="move", text="", extra=(), event=False, **options):
            """A listener of the page -> a method; failures become a message in the viewer."""

            def run(request: gr.Request, data: gr.EventData, *values):
                move = values[0] if values else 0
                try:
                    own = Controls.of(values[: len(controls)])
                    more = values[len(controls) :] + ((data._data,) if event else ())
                    return happens(request.session_hash, own, *more)
                except (ValueError, TypeError, OSError, MemoryError, AttributeError) as error:
                    text = " ".join(str(error).split()) or type(error).__name__
                    return {self.viewer: {"done": True, "move": move, "error": True, "tell": text}}
                except Exception:
                    logger.exception("The page failed in %s", happens.__name__)
                    sorry = "Something went wrong here; the terminal says what. The photo is as it was."
                    return {self.viewer: {"done": True, "move": move, "error": True, "tell": sorry}}

            run.__name__ = happens.__name__
            heavy = {"concurrency_id": "work", "concurrency_limit": 1}
            return listener(
                run,
                inputs=[*controls, *extra],
                outputs=list(outputs),
                js=f"(...a) => window.diffretouch.{kind}(a, {text!r})",
                show_progress="hidden",
                api_visibility="private",
                **{**heavy, **options},
            )

        def on(*triggers):
            return lambda *arguments, **options: gr.on(list(triggers), *arguments, **options)

        fast = {"concurrency_id": "moves", "concurrency_limit": 2, "trigger_mode": "always_last"}
        moves = [slider.input for slider in [*self.sliders, self.strength]] + [self.seed.input]
        wire(on(*moves), self.moved, picture, **fast)
        wire(self.viewer.rest, self.rested, picture, kind="now", trigger_mode="always_last")
        wire(upload.upload, self.open, everything, text="Opening the photo", extra=[upload])
        wire(self.viewer.sample, self.open_sample, everything, text="Opening the photo", event=True)
        wire(self.viewer.leave, self.leave, everything)
        wire(self.model.input, self.chosen, everything, text="Loading the model", trigger_mode="always_last")
        wire(self.wide.input, self.widened, everything, extra=[self.wide], trigger_mode="always_last")
        wire(self.reset_button.click, self.reset, everything)
        wire(self.dice_button.click, self.dice, everything)
        wire(self.four_button.click, self.four, everything, "task", "Making four variations")
        wire(self.strip.pick, self.picked, everything, event=True)
        switch = {"trigger_mode": "always_last", "kind": "now"}
        wire(self.target.input, self.targeted, [self.viewer, *parts], extra=[self.last_target], **switch)
        kind = gr.State("Paint")
        wire(self.paint_button.click, self.add_area, [*picture, *parts], extra=[kind])
        wire(self.range.input, self.add_area, [*picture, *parts], extra=[self.range]).then(
            lambda: None, outputs=self.range, show_progress="hidden", api_visibility="private", queue=False
        )
        wire(self.mask_button.upload, self.load_area, [*picture, *parts], extra=[self.mask_button])
        wire(self.remove_button.click, self.remove_area, [*picture, *parts])
        edges = {"extra": [self.follow_edges], "event": True, "trigger_mode": "always_last"}
        wire(self.viewer.painted, self.painted, picture, text="Following the edges", **edges)
        wire(self.preset_upload.upload, self.load_preset, everything, extra=[self.preset_upload])
        results = [self.viewer, self.file, self.strip]
        for button, method, text, extra in (
            (self.save_button, self.save, "Retouching at full size", [self.format]),
            (self.table_button, self.save_table, "Making the colour table", []),
            (self.sheet_button, self.save_sheet, "Making the contact sheet", []),
            (self.preset_button, self.save_preset, "Writing the preset", []),
        ):
            wire(button.click, method, results, "task", text, extra)
        self.file.change(None, inputs=self.file, js=_FETCH, api_visibility="private")

        def gone(request: gr.Request):
            self.gone(request.session_hash)

        blocks.unload(gone)


# A file is ready: fetch it as if the link had been clicked
_FETCH = """(file) => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = file.url;
  link.download = file.orig_name || 'photo';
  document.body.append(link);
  link.click();
  link.remove();
}"""


def read_settings(path):
    """A preset that a visitor sent.

    Raises:
        ValueError: it is none, or of a newer version; the message says its name alone.
    """
    name = Path(path).name
    with open(path, "rb") as file:
        data = file.read(_PRESET_BYTES + 1)
    if len(data) > _PRESET_BYTES:
        raise ValueError(f"{name} is no preset: it is too large.")
    try:
        return Settings.from_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{name} cannot be used as a preset: {error}.") from error


def measured_table(before, after):
    """Four numbers before and after, as a table."""
    rows = "".join(
        f"<tr><th scope='row'>{SLIDERS[name][0]}</th><td>{old:.3f}</td><td>{new:.3f}</td></tr>"
        for name, old, new in zip(ATTRIBUTES, before, after, strict=True)
    )
    head = "<tr><td></td><th scope='col'>before</th><th scope='col'>after</th></tr>"
    return f"<table class='measured'><thead>{head}</thead><tbody>{rows}</tbody></table>"


def text_of(name):
    return (files("diffretouch.demo") / name).read_text(encoding="utf-8")


def _sample_buttons():
    buttons = []
    for name, alt in SAMPLES.items():
        with PIL.Image.open(files("diffretouch.demo") / "samples" / f"{name}.jpg") as photo:
            photo.thumbnail((336, 336))
            buttons.append({"name": name, "alt": alt, "src": data_url(np.asarray(photo), lossless=False)})
    return buttons
