"""The paper's figures, made from your photos and models, as sections of a page."""

import math
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.metrics import psnr
from diffretouch.pixels import shrink

from .pairs import Pair, load_pair, photo_tensor
from .pictures import PICTURE_SIZE, data_uri
from .runs import model_digest, versions
from .words import counted

if TYPE_CHECKING:
    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

CROP = 144  # side of the crops that show texture, px of the photo
_NAMED = ("diffretouch", "torch", "device")  # of `versions`, on a page


def attributes_figure(
    pipe: "DiffRetouchPipeline", photos: Sequence[Path], *, columns: int = 6, seed: int = 0, steps: int | None = None
) -> tuple[str, str]:
    """As figure 1 of the paper: what random c do whose largest |value| lies in [0,1], in (1,2] and in (2,3]."""
    parts = []
    for path in photos:
        photo = shrink(photo_tensor(path), PICTURE_SIZE)
        parts.append(f"<h3>{escape(path.name)}</h3>")
        for low, high in ((0, 1), (1, 2), (2, 3)):
            c = random_attributes(low, high, columns, seed)
            noise = [torch.Generator().manual_seed(seed) for _ in c]
            images = _quietly(pipe, photo, c, num_inference_steps=steps, generator=noise, output_type="pt").images
            head = "[0, 1]" if low == 0 else f"({low}, {high}]"
            figures = [_figure(image[None], _c_text(row)) for image, row in zip(images, c, strict=True)]
            figures.insert(0, _figure(photo, f"<b>the photo</b>; largest |c| in {head}:"))
            parts.append(_rows(figures, columns + 1))
    note = f"<p>c = {', '.join(ATTRIBUTES)}; up to 1 was trained, beyond extrapolates. One noise for all.</p>"
    return "c of growing size", note + _made_with({"the model": pipe}, seed, steps) + "".join(parts)


def models_figure(
    pipes: "Mapping[str, DiffRetouchPipeline]", pairs: Sequence[Pair], *, seed: int = 0, steps: int | None = None
) -> tuple[str, str]:
    """As figure 3 of the paper: two models or more on the same photos, such as with and without the grid.

    Beside each result at c = 0 a crop at the photo's own pixels, which shows what becomes of texture, and contrast
    and temperature at both ends, which show what becomes of control.
    """
    if len(pipes) < 2:
        raise ValueError(f"`pipes` must be two models or more to be compared, got {len(pipes)}.")
    ends = [(name, end) for name in ("contrast", "temperature") for end in (-1.0, 1.0)]
    parts = []
    firsts = {}
    for pair in pairs:
        firsts.setdefault(pair.source, pair)  # of several experts' versions
    for pair in firsts.values():
        source, target, pair = load_pair(pair, fit=True)
        figures = []
        for name, image in (("the photo", source), (pair.expert or "the expert's version", target)):
            figures += _whole_and_crop(name, image, target)
        figures += ["<div></div>"] * (len(ends) - 2)
        for name, pipe in pipes.items():
            c = [dict.fromkeys(ATTRIBUTES, 0.0), *({**dict.fromkeys(ATTRIBUTES, 0.0), a: end} for a, end in ends)]
            images = [
                pipe(source, x, num_inference_steps=steps, generator=_noise(seed), output_type="pt").images.cpu()
                for x in c
            ]
            figures += _whole_and_crop(name, images[0], target)
            figures += [
                _figure(shrink(x, PICTURE_SIZE), f"{a} {end:+g}") for x, (a, end) in zip(images[1:], ends, strict=True)
            ]
        parts.append(f"<h3>{escape(pair.source.name)}</h3>" + _rows(figures, 2 + len(ends)))
    return "Models side by side", _made_with(pipes, seed, steps) + "".join(parts)


def _whole_and_crop(name, image, target):
    kept = "" if image is target else f", {psnr(image, target).item():.2f} dB"
    whole = _figure(shrink(image, PICTURE_SIZE), f"<b>{escape(name)}</b>{kept}")
    return [whole, _figure(_crop(image), "at its own pixels")]


def experts_figure(
    pipe: "DiffRetouchPipeline", pairs: Sequence[Pair], *, seed: int = 0, steps: int | None = None
) -> tuple[str, str]:
    """As figure 5 of the paper: the experts' versions, below them the model's with c matched to each (an oracle)."""
    by_source = {}
    for pair in pairs:
        by_source.setdefault(pair.source, []).append(pair)
    parts = []
    for source_path, own in by_source.items():
        above, below = [], []
        for pair in own:
            source, target, pair = load_pair(pair, fit=True)
            c = pipe.attributes_of(source, target, num_inference_steps=steps, generator=_noise(seed))
            result = _quietly(
                pipe, source, c, num_inference_steps=steps, generator=_noise(seed), output_type="pt"
            ).images.cpu()  # fmt: skip
            above.append(_figure(shrink(target, PICTURE_SIZE), f"<b>{escape(pair.expert or 'expert')}</b>"))
            text = f"{psnr(result, target).item():.2f} dB<br>{_c_text(c)}"
            below.append(_figure(shrink(result, PICTURE_SIZE), text))
        first = _figure(shrink(source, PICTURE_SIZE), "<b>the photo</b>")
        text = f"<p><b>the model</b>, c ({', '.join(ATTRIBUTES)}) matched: an oracle, it sees the expert's version</p>"
        rows = [first, *above, text, *below]
        parts.append(f"<h3>{escape(source_path.name)}</h3>" + _rows(rows, 1 + len(own)))
    return "Experts", _made_with({"the model": pipe}, seed, steps) + "".join(parts)


def _made_with(pipes, seed, steps):
    """A paragraph on what the pictures were made with."""
    device = next(iter(pipes.values())).device
    parts = [f"seed {seed}"]
    for name, pipe in pipes.items():
        count = steps or pipe.config.default_steps
        digest = model_digest(pipe)[:16]
        parts.append(f"{escape(name)}: {counted(count, 'step')}, sha256 {digest}")
    parts += [f"{name} {version}" for name, version in versions(str(device)).items() if name in _NAMED]
    return f"<p>{'; '.join(parts)}.</p>"


def random_attributes(low: float, high: float, count: int, seed: int) -> torch.Tensor:
    """`count` random c (count,4), seeded, in random directions of the cube, of which the first is the smallest.

    The largest |values| lie in (low, high], one in each of `count` equal parts of it.
    """
    rng = np.random.default_rng([seed, math.floor(low)])
    direction = rng.uniform(-1, 1, (count, len(ATTRIBUTES)))
    size = low + (high - low) * (np.arange(1, count + 1) - rng.random(count))[:, None] / count
    return torch.from_numpy(direction / np.abs(direction).max(1, keepdims=True) * size).float()


def _quietly(function, *args, **kwargs):
    """Call without the warnings about extrapolation, where it is the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*args, **kwargs)


def _noise(seed):
    return torch.Generator().manual_seed(seed)


def _c_text(c):
    return "c = " + ", ".join(f"{v:+z.2f}" for v in c.tolist())


def _crop(image):
    """The middle of the photo, shown at twice its pixels with hard edges."""
    height, width = image.shape[-2:]
    top, left = max((height - CROP) // 2, 0), max((width - CROP) // 2, 0)
    crop = image[..., top : top + CROP, left : left + CROP]
    return torch.nn.functional.interpolate(crop, scale_factor=2, mode="nearest")


def _figure(image, caption):
    alt = escape(caption.replace("<b>", "").replace("</b>", "").replace("<br>", " "), quote=True)
    return f'<figure><img alt="{alt}" src="{data_uri(image)}"><figcaption>{caption}</figcaption></figure>'


def _rows(figures, columns):
    return f'<div class="scroll"><div class="rows" style="--columns:{columns}">{"".join(figures)}</div></div>'
