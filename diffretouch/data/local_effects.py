"""Simulated local effects: photos retouched differently in their subject, sky, greenery and ground.

They stand in for the three styles of Yan et al. (TOG 2016), whose retouchers worked by hand on objects and scene
classes. Here the regions come from what can be seen in a small copy of the photo alone: position, colour, detail and
how far a place stands out from the border. A network can learn them; a function of a pixel's colour cannot.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from diffretouch.colour.lab import lab_to_srgb, srgb_to_lab
from diffretouch.data.crops import as_chw
from diffretouch.data.order import EpochOrder, drawn
from diffretouch.data.photo_names import named
from diffretouch.data.square_views import SquareView
from diffretouch.data.thumbnails import Thumbnails, first_readable, photo_paths
from diffretouch.pixels import shrink
from diffretouch.regions import guided_filter

REGIONS = ("subject", "sky", "greenery", "ground")

# Effect -> how many presets the paper gives its adjustment map (Nam and Kim 2017)
EFFECTS = {"foreground_pop_out": 2, "local_xpro": 4, "watercolor": 2}

_SIZE = 128  # long side of the copy in which regions are found


def _blur(x, radius):
    """Three box blurs, which come close to a Gaussian."""
    for _ in range(3):
        padded = F.pad(x, (radius,) * 4, mode="replicate")
        x = F.avg_pool2d(padded, 2 * radius + 1, stride=1)
    return x


def scene_regions(photo: torch.Tensor) -> torch.Tensor:
    """Where a photo's subject, sky, greenery and ground are, in the order of `REGIONS`.

    Args:
        photo (`torch.Tensor`): (3,H,W) in [0,1].

    Returns:
        `torch.Tensor`: (4,H,W) float32 shares in [0,1] with sum 1; soft along edges, which follow the photo's.
    """
    small = shrink(photo[None].float(), _SIZE).clamp(0, 1)
    height, width = small.shape[2:]
    lab = srgb_to_lab(small)
    smooth = _blur(lab, 1)
    y = (torch.arange(height) / max(height - 1, 1))[:, None].expand(height, width)
    x = (torch.arange(width) / max(width - 1, 1)).expand(height, width)

    # How far each colour stands out from those along the border: background is what touches it
    frame = (torch.minimum(torch.minimum(x, 1 - x), torch.minimum(y, 1 - y)) < 0.07).flatten()
    colours = smooth[0].flatten(1)
    border = colours[:, frame]
    centred = border - border.mean(1, keepdim=True)
    covariance = centred @ centred.T / border.shape[1] + 60 * torch.eye(3)
    offset = colours - border.mean(1, keepdim=True)
    distance = (offset * torch.linalg.solve(covariance, offset)).sum(0).clamp(min=0).sqrt().view(height, width)
    stands_out = 1 - torch.exp(-distance / 1.5)

    # Detail, relative to the photo's own
    lightness = lab[:, :1]
    energy = _blur((lightness - _blur(lightness, 1)).abs(), 3)[0, 0]
    detail = energy / (energy + energy.mean() + 0.3)

    centre = torch.exp(-(((x - 0.5) / 0.33) ** 2 + ((y - 0.55) / 0.36) ** 2) / 2)
    subject = centre * (0.6 * stands_out + 0.4 * detail)
    subject = 3.5 * (subject - subject.mean()) / (subject.std(correction=0) + 0.02) - 2.5
    light, a, b = smooth[0]
    sky = 9 * (0.55 - y) + 6 * (0.42 - detail) + (light - 60) / 15 - b / 12
    greenery = -a / 3 + b / 12 - 3.5
    ground = 2.5 * y - 1.2
    shares = torch.stack([subject, sky, greenery, ground])[None].mul(2).softmax(1)

    # Edges are brought onto the photo's
    shares = guided_filter(small, shares, 5, 2e-3).clamp(0, 1)
    shares = F.interpolate(shares, photo.shape[1:], mode="bilinear", align_corners=False)
    return (shares / shares.sum(1, keepdim=True).clamp(min=1e-6))[0]


def _profile(lab, *, contrast=1.0, lift=0.0, chroma=1.0, a=0.0, b=0.0, paper=0.0):
    """One retoucher's setting: contrast around L = 50, lift, chroma, a colour cast, and how far tones go to white."""
    lightness = 50 + (lab[:1] - 50) * contrast + lift
    lightness = lightness + paper * (100 - lightness)
    return torch.cat([lightness.clamp(0, 100), lab[1:2] * chroma + a, lab[2:] * chroma + b])


# Effect -> region -> setting. Regions that an effect does not tell apart have the same.
_BACKGROUND = dict(contrast=0.75, lift=-8, chroma=0.3)
_WASHED = dict(contrast=0.85, lift=2, chroma=0.5, paper=0.25)
_SETTINGS = {
    "foreground_pop_out": {
        "subject": dict(contrast=1.2, lift=10, chroma=1.5),
        "sky": _BACKGROUND,
        "greenery": _BACKGROUND,
        "ground": _BACKGROUND,
    },
    "local_xpro": {
        "subject": dict(contrast=1.2, lift=8, chroma=1.25, a=4, b=12),
        "sky": dict(contrast=1.25, lift=-10, chroma=1.4, a=-4, b=-16),
        "greenery": dict(contrast=1.1, lift=-4, chroma=0.8, a=-8, b=24),
        "ground": dict(contrast=1.3, lift=-14, chroma=0.6, a=6, b=-10),
    },
    "watercolor": {
        "subject": dict(contrast=1.05, lift=6, chroma=1.45, paper=0.1),
        "sky": _WASHED,
        "greenery": _WASHED,
        "ground": _WASHED,
    },
}


def local_effect(photo: torch.Tensor, effect: str, shares: torch.Tensor | None = None) -> torch.Tensor:
    """The retouched version of a photo.

    Args:
        photo (`torch.Tensor`): (3,H,W) in [0,1].
        effect (`str`): "foreground_pop_out" (the subject brighter, richer, more contrasty; the rest darker and dull),
            "local_xpro" (another cross-process look for each of the four regions), or "watercolor" (a colourful
            subject on washed-out paper; the colours only, no brush strokes).
        shares (`torch.Tensor`, *optional*): (4,H,W), by default `scene_regions(photo)`.

    Returns:
        `torch.Tensor`: (3,H,W) float32 in [0,1].
    """
    if effect not in EFFECTS:
        raise ValueError(f"`effect` must be one of {', '.join(EFFECTS)}, got {effect!r}.")
    shares = scene_regions(photo) if shares is None else shares
    lab = srgb_to_lab(photo[None].float())[0]
    settings = _SETTINGS[effect]
    retouched = sum(share * _profile(lab, **settings[name]) for name, share in zip(REGIONS, shares, strict=True))
    return lab_to_srgb(retouched[None])[0].clamp(0, 1)


class LocalEffectPhotos(torch.utils.data.Dataset):
    """A folder of photos with one simulated effect, endless: sample k is made by (seed, k) alone.

    Args:
        folder: photos, searched recursively.
        effect (`str`): see `local_effect`.
        size (`int`): side of the square samples.
        pixels (`int`): how many random pixels of a sample are trained on.
        seed (`int`)
        vary (`bool`): `False` shows every photo upright, in its order.
        exclude: names of photos left out, see `named`; `only`, the only ones taken.
        on_bad_file (`str`): "stop" or "skip".
        most (`int`, *optional*): so many photos at most, drawn by the seed.

    Each sample is a dict, see [`SquareView`]: `input`, `target` (3,size,size) in [0,1], `scene` (size,size) int64, the
    region that is most of each pixel (-1 outside the photo), `pixels` (P,) int64, positions inside the photo; `name`,
    and `bad`, what was wrong with the files passed by.
    """

    def __init__(
        self, folder: str | os.PathLike[str], effect: str, size: int = 128, *, pixels: int = 2048, seed: int = 0,
        vary: bool = True, exclude: Iterable[str] = (), only: Iterable[str] | None = None, on_bad_file: str = "stop",
        most: int | None = None,
    ) -> None:  # fmt: skip
        if effect not in EFFECTS:
            raise ValueError(f"`effect` must be one of {', '.join(EFFECTS)}, got {effect!r}.")
        paths = photo_paths(folder)
        left_out = named(paths, exclude, folder)
        taken = named(paths, only, folder, parameter="only") if only is not None else set(paths)
        paths = drawn([path for path in paths if path in taken - left_out], most, seed)
        if not paths:
            raise ValueError(f"`folder` must hold photos, found none in {folder}.")
        self.paths, self.effect, self.size, self.on_bad_file = paths, effect, size, on_bad_file
        self.seed, self.vary, self.length = seed, vary, 10**9
        self.view = SquareView(size, pixels)
        self._order = EpochOrder(len(paths), seed)
        self._open = Thumbnails(size)
        self._kept = {}

    def __len__(self):
        return self.length

    def describe(self) -> dict[str, Any]:
        """What the data set holds, for logs and model cards."""
        return {"kind": "simulated local effect", "effect": self.effect, "photos": len(self.paths), "size": self.size}

    def photo(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-> photo, target (3,h,w) float32 in [0,1] and scene (h,w) int64 of the photo with that index, unturned."""
        if index not in self._kept:
            photo = as_chw(np.asarray(self._open(self.paths[index])[0], np.float32) / 255)
            shares = scene_regions(photo)
            self._kept[index] = photo, local_effect(photo, self.effect, shares), shares.argmax(0)
        return self._kept[index]

    def __getitem__(self, k):
        order = self._order.following(k) if self.vary else [k % len(self.paths)]
        index, (photo, target, scene), bad = first_readable(order, self.photo, self.on_bad_file)
        rng = np.random.default_rng([self.seed, 1, k]) if self.vary else None
        return {**self.view(photo, target, scene, rng), "name": self.paths[index].name, "bad": "\n".join(bad)}
