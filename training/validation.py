"""What a half-trained model does to a few photos: sheets of every attribute, and how far the attributes obey."""

import warnings

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes, quantile_labels
from diffretouch.data.thumbnails import Thumbnails, photo_paths
from diffretouch.sweep import sweep

VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)


def validate(pipe, folder, *, count=4, side=256, seed=0):
    """Run a pipeline on the first photos of a folder.

    Returns:
        (pictures, figures): PIL images by name: a sheet for each photo, and `controllability`: how the four measured
        attributes follow c. Figures by name: `slope/<attribute>`, 1 where c = +-1 moves it as far as it says, and
        `crosstalk/<attribute>`, how far it moves the other three on average, against its own.
    """
    paths = photo_paths(folder)[:count]
    if not paths:
        raise ValueError(f"`folder` must hold photos, found none in {folder}.")
    thumbnails = Thumbnails(side)
    pictures, curves = {}, []
    pipe.set_progress_bar_config(disable=True)
    for path in paths:
        photo = np.asarray(thumbnails(path)[0], np.float32) / 255
        pictures[f"sheet/{path.stem}"] = sweep(pipe, photo, values=VALUES, seed=seed, cell=side)
        curves.append(_curves(pipe, photo, seed))
    curves = torch.stack(curves).mean(0)  # (attribute asked for, value, attribute measured)
    pictures["controllability"] = draw_curves(curves.tolist())
    figures = {}
    for i, name in enumerate(ATTRIBUTES):
        moved = (curves[i, -1] - curves[i, 0]) / (VALUES[-1] - VALUES[0])
        others = torch.cat([moved[:i], moved[i + 1 :]]).abs().mean()
        figures[f"slope/{name}"] = moved[i].item()
        figures[f"crosstalk/{name}"] = (others / moved[i].abs().clamp(min=1e-3)).item()
    return pictures, figures


@torch.no_grad()
def _curves(pipe, photo, seed):
    """(4,V,4): labels of what comes out, relative to what comes out for c = 0."""
    c = torch.zeros(4, len(VALUES), 4)
    for i in range(4):
        c[i, :, i] = torch.tensor(VALUES)
    c = torch.cat([torch.zeros(1, 4), c.flatten(0, 1)])
    noise = [torch.Generator().manual_seed(seed) for _ in c]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        image = torch.from_numpy(photo).permute(2, 0, 1)
        images = pipe(image, c, generator=noise, output_type="pt").images.float().cpu()
    scores = measure_attributes(images)
    statistics = getattr(pipe.config, "label_statistics", None)
    if statistics:
        labels = quantile_labels(scores, statistics, limit=4.0)
        return (labels[1:] - labels[0]).unflatten(0, (4, -1))
    return attribute_labels(scores[1:], scores[0], limit=4.0).unflatten(0, (4, -1))


_COLOURS = ("#c2185b", "#444444", "#e08600", "#1a73c9")


def draw_curves(curves, size=220, margin=34):
    """Curves (4,V,4) as four plots in a row: asked c across, measured labels up, the dotted line is what c says."""
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (4 * (size + margin) + margin, size + 3 * margin), "white")
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(ATTRIBUTES):
        left, top = margin + i * (size + margin), margin
        at = lambda x, y: (left + (x + 1) / 2 * size, top + (1.5 - min(max(y, -1.5), 1.5)) / 3 * size)  # noqa: B023, E731
        draw.rectangle((left, top, left + size, top + size), outline="#999999")
        draw.line((*at(-1, 0), *at(1, 0)), "#dddddd")
        draw.text((left + size / 2, top - 16), f"c: {name}", "black", font, anchor="mm")
        for step in range(0, 40, 2):
            a, b = -1 + step / 20, -1 + (step + 1) / 20
            draw.line((*at(a, a), *at(b, b)), "#999999")
        for j, colour in enumerate(_COLOURS):
            points = [at(value, curves[i][v][j]) for v, value in enumerate(VALUES)]
            draw.line(points, colour, width=3 if i == j else 1)
    for j, (name, colour) in enumerate(zip(ATTRIBUTES, _COLOURS, strict=True)):
        draw.text((margin + j * (size + margin), size + 1.8 * margin), f"measured {name}", colour, font, anchor="lm")
    return sheet
