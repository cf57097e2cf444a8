"""A contact sheet of what each attribute does to a photo."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffretouch.attributes import ATTRIBUTES
from diffretouch.pixels import as_picture, shrink

if TYPE_CHECKING:
    import PIL.Image

    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline


def sweep(
    pipe: "DiffRetouchPipeline",
    image: np.ndarray,
    *,
    values: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    seed: int = 0,
    num_inference_steps: int | None = None,
    cell: int = 256,
) -> "PIL.Image.Image":
    """Every attribute through `values`, one row each, all from the same noise.

    Args:
        pipe ([`DiffRetouchPipeline`]).
        image: one photo, (H,W,3) float32 in [0,1].
        values: of c, in [-3, 3].
        seed (`int`): of the noise.
        cell (`int`): long side of each picture in px.

    Returns:
        `PIL.Image.Image`: RGB, labelled.
    """
    c = np.eye(len(ATTRIBUTES), dtype=np.float32)[:, None]
    c = c * np.asarray(values, np.float32)[:, None]  # (attribute, value, 4)
    c = c.reshape(-1, len(ATTRIBUTES))
    photo = np.clip(shrink(image, cell), 0, 1)
    generators = [pipe.seeded(seed) for _ in c]
    grids = pipe.predict_grid(photo, c, generator=generators, num_inference_steps=num_inference_steps)
    pictures = [as_picture(pipe.apply_grid(photo, grid)) for grid in grids]
    return _sheet(pictures, ATTRIBUTES, [f"{value:+g}" if value else "0" for value in values])


def _sheet(pictures, row_names, column_names, gap=6, ink=(30, 30, 30)):
    width, height = pictures[0].size
    font = ImageFont.load_default(max(height // 14, 11))
    line = round(font.size * 1.5)
    margin = round(max(font.getlength(name) for name in row_names)) + 2 * gap
    columns = len(column_names)
    sheet = Image.new(
        "RGB",
        (margin + columns * (width + gap), line + len(row_names) * (height + gap)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(column_names):
        draw.text((margin + j * (width + gap) + width / 2, line / 2), name, ink, font, anchor="mm")
    for i, name in enumerate(row_names):
        draw.text((gap, line + i * (height + gap) + height / 2), name, ink, font, anchor="lm")
        for j in range(columns):
            sheet.paste(pictures[i * columns + j], (margin + j * (width + gap), line + i * (height + gap)))
    return sheet
