"""Small pictures for reports: results, error maps, histograms and curves, all as text that a page can hold."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from diffretouch.colour.lab import srgb_to_lab
from diffretouch.pixels import shrink

if TYPE_CHECKING:
    import PIL.Image

PICTURE_SIZE = 384  # long side, px
ERROR_SCALE = 30.0  # the colour difference (dE76) that an error map shows brightest

# Black, violet, red, orange, pale yellow: rising in lightness, so that it also reads in grey.
HEAT = np.array(
    [[0, 0, 4], [60, 15, 110], [160, 40, 105], [235, 100, 45], [252, 180, 30], [252, 255, 165]], np.float32
)


def picture(image: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
    """What a page shows of one result (1,3,H,W): picture, error map, histogram, and the same of the target."""
    small, wanted = (shrink(x, PICTURE_SIZE) for x in (image, target))
    return {
        "image": data_uri(small),
        "error": data_uri(error_map(small, wanted)),
        "histogram": histogram(image),
        "target": {"image": data_uri(wanted), "histogram": histogram(target)},
    }


def data_uri(image: "torch.Tensor | PIL.Image.Image", quality: int = 88) -> str:
    """A picture, (1,3,H,W) in [0,1] or PIL, as a data URI (JPEG)."""
    if torch.is_tensor(image):
        pixels = (image[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        image = Image.fromarray(pixels)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def error_map(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The colour difference (CIE 1976) of each pixel as a picture (1,3,H,W), black 0 to pale yellow `ERROR_SCALE`."""
    error = (srgb_to_lab(image) - srgb_to_lab(target)).square().sum(1).sqrt()[0]
    position = (error / ERROR_SCALE).clamp(0, 1).cpu().numpy() * (len(HEAT) - 1)
    nodes = np.arange(len(HEAT))
    return torch.from_numpy(np.stack([np.interp(position, nodes, HEAT[:, c] / 255) for c in range(3)]))[None].float()


def histogram(image: torch.Tensor, bins: int = 64) -> list[list[float]]:
    """Shares of the pixels in `bins` equal steps of [0,1], for R, G and B."""
    return [
        [round(v, 5) for v in (torch.histc(channel.float(), bins, 0, 1) / channel.numel()).tolist()]
        for channel in image[0]
    ]


def histogram_svg(shares: Sequence[Sequence[float]], label: str) -> str:
    """Three overlaid histograms as inline SVG. The highest inner bin fills the height; clipped ends may be cut off."""
    top = max(max(channel[1:-1]) for channel in shares) or 1.0
    width, height = len(shares[0]), 24
    paths = []
    for name, channel in zip("rgb", shares, strict=True):
        points = " ".join(f"{x},{height - height * min(share / top, 1):.1f}" for x, share in enumerate(channel))
        paths.append(f'<polygon class="{name}" points="0,{height} {points} {width - 1},{height}"/>')
    return (
        f'<svg class="histogram" viewBox="0 0 {width - 1} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(paths)}</svg>'
    )


def curves_svg(title: str, values: Sequence[float], lines: Mapping[str, Sequence[Sequence[float]]], axis: str) -> str:
    """Measured against slider as inline SVG: one thin line a photo, the mean bold.

    Args:
        values: slider positions.
        lines: dict from a model's name to a list of measured curves, one a photo.
        axis (`str`): what is measured.
    """
    every = np.array([curve for curves in lines.values() for curve in curves])
    low, high = min(values[0], every.min()), max(values[-1], every.max())
    x = lambda v: 34 + 200 * (v - values[0]) / (values[-1] - values[0])  # noqa: E731
    y = lambda v: 150 - 135 * (v - low) / (high - low)  # noqa: E731
    path = lambda curve: " ".join(f"{x(v):.1f},{y(m):.1f}" for v, m in zip(values, curve, strict=True))  # noqa: E731
    parts = []
    for tick in sorted({round(v) for v in np.linspace(np.ceil(low), np.floor(high), 5)}):
        parts.append(f'<line class="rule" x1="34" x2="234" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="29" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:+d}</text>'.replace("+0", "0"))
    for tick in (values[0], 0, values[-1]):
        parts.append(f'<text x="{x(tick):.1f}" y="164" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<polyline class="asked" points="{path(values)}"/>')
    for n, curves in enumerate(lines.values()):
        parts += [f'<polyline class="m{n % 6} photo" points="{path(curve)}"/>' for curve in curves]
    for n, curves in enumerate(lines.values()):
        parts.append(f'<polyline class="m{n % 6} mean" points="{path(np.mean(curves, 0))}"/>')
    return (
        f'<figure><figcaption>{title}</figcaption><svg class="curves" viewBox="0 0 240 170" role="img" '
        f'aria-label="{title}: {axis}">{"".join(parts)}</svg></figure>'
    )
