"""What a half-trained model does to a few photos: sheets of every attribute, and how far the attributes obey."""

import argparse
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes, quantile_labels
from diffretouch.data.thumbnails import Thumbnails, photo_paths
from diffretouch.data.unpaired import names_digest
from diffretouch.evaluation.pairs import pair_names, photo_tensor
from diffretouch.metrics import delta_e76, psnr
from diffretouch.pixels import shrink
from diffretouch.sweep import sweep
from diffretouch.training.log import Log

VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)


def validate(
    pipe: Any, folder: str | os.PathLike[str], *, count: int = 4, side: int = 256, seed: int = 0
) -> tuple[dict[str, Image.Image], dict[str, float]]:
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
        sheet = sweep(pipe, photo, values=VALUES, seed=seed, cell=side)
        pictures[f"sheet/{path.stem}"] = beside_input(photo, sheet)
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


def beside_input(photo: np.ndarray, sheet: Image.Image, gap: int = 6) -> Image.Image:
    """A sheet with the photo (H,W,3) in [0,1] that it was made of at its left."""
    source = Image.fromarray(np.round(photo * 255).astype(np.uint8))
    font = ImageFont.load_default(13)
    line = round(1.5 * font.size)
    height = max(sheet.height, source.height + line + gap)
    whole = Image.new("RGB", (source.width + 2 * gap + sheet.width, height), "white")
    ImageDraw.Draw(whole).text((gap + source.width / 2, line / 2), "input", (30, 30, 30), font, anchor="mm")
    whole.paste(source, (gap, line))
    whole.paste(sheet, (source.width + 2 * gap, 0))
    return whole


def show(
    pipe: Any, args: argparse.Namespace, step: int, log: Log, retouch: Callable, *, count: int = 4, side: int = 256
) -> dict:
    """Validate, keep the pictures under `validation/`, hand them and the figures to the trackers; return these.

    A model with sliders is shown by `validate`; of others a sheet shows the photo and what `retouch` makes of it.
    """
    if getattr(pipe, "has_sliders", False):
        pictures, figures = validate(pipe, args.validation_dir, count=count, side=side)
    else:
        pictures, figures = {}, {}
        thumbnails = Thumbnails(side)
        for path in photo_paths(args.validation_dir)[:count]:
            photo = np.asarray(thumbnails(path)[0], np.float32) / 255
            with torch.no_grad():
                made = retouch(torch.from_numpy(photo).permute(2, 0, 1)[None])[0].clamp(0, 1)
            made = Image.fromarray((made.permute(1, 2, 0).cpu() * 255).round().byte().numpy())
            pictures[f"sheet/{path.stem}"] = beside_input(photo, made)
    folder = Path(args.output_dir) / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"step-{step}-{name.replace('/', '-')}.png")
    if figures:
        (folder / f"step-{step}.json").write_text(json.dumps(figures, indent=1) + "\n")
        log.accelerator.log(figures, step=step)
    log.images(pictures, step)
    return figures


PAIR_SIDE = 512  # px of the long side of pairs: what a half-trained model is judged by must not take its time


def read_pairs(folder: str | Path) -> list[tuple[Path, Path]]:
    """The pairs of `input` and `target` in a folder, by name.

    Raises:
        SystemExit: a folder is missing, or names differ.
    """
    try:
        return pair_names(Path(folder) / "input", Path(folder) / "target")
    except ValueError as error:
        raise SystemExit(f"`--validation_pairs` {folder}: {error}") from error


def pairs_digest(pairs: list[tuple[Path, Path]]) -> str:
    """Tells whether figures are of the same pairs, by names and lengths of their files, wherever they lie."""
    return names_digest(f"{path.name} {path.stat().st_size}" for pair in pairs for path in pair)


@torch.no_grad()
def judged(pairs: list[tuple[Path, Path]], retouch: Callable) -> dict[str, float]:
    """Mean PSNR (dB) and dE76 of what `retouch` makes of the inputs (1,3,H,W), against the targets.

    Raises:
        SystemExit: a pair cannot be read, or differs in size.
    """
    rows = []
    for paths in pairs:
        try:
            source, target = (shrink(photo_tensor(path), PAIR_SIDE).clamp(0, 1) for path in paths)
        except ValueError as error:
            raise SystemExit(f"`--validation_pairs`: {error}") from error
        if source.shape != target.shape:
            raise SystemExit(f"`--validation_pairs`: {paths[0]} and {paths[1]} differ in size.")
        made = retouch(source).float().cpu().clamp(0, 1)
        rows.append([psnr(made, target).item(), delta_e76(made, target).item()])
    mean = np.mean(rows, 0)
    return {"psnr": float(mean[0]), "delta_e76": float(mean[1])}


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


def draw_curves(curves: list[list[list[float]]], size: int = 220, margin: int = 34) -> Image.Image:
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
