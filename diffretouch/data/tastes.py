"""Simulated experts with tastes of their own: the same lean on every photo, and a little mood on each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .simulated_experts import LUMA, finish


@dataclass(frozen=True)
class Taste:
    """What one simulated expert does to every finished photo. All zeros (and `white` 1) change nothing.

    Args:
        controls: lean in saturation, contrast, warmth and brightness, as powers of two.
        black, white (`float`): where black and white end up: a matte look lifts the one and lowers the other.
        shadows, highlights: split tone, what is added to (R,G,B).
        dodge (`float`): brightens what lies in large dark areas and burns bright ones (+), or the reverse, in stops.
        vignette (`float`): burns the corners (+) or lifts them, in stops.
        look (`int`, *optional*): which of the looks (colour lookup tables) is laid over the photo.
        look_strength (`float`): how much of it, 0 to 1.
    """

    controls: tuple = (0.0, 0.0, 0.0, 0.0)
    black: float = 0.0
    white: float = 1.0
    shadows: tuple = (0.0, 0.0, 0.0)
    highlights: tuple = (0.0, 0.0, 0.0)
    dodge: float = 0.0
    vignette: float = 0.0
    look: int | None = None
    look_strength: float = 0.0


def draw_tastes(count: int, seed: int = 0, *, looks: int = 0) -> list[Taste]:
    """`count` tastes that (seed, count) decide, spread so that no two lean alike.

    Each property takes `count` evenly spaced values, dealt out to the experts in a random order (a Latin hypercube).

    Args:
        looks (`int`): how many looks there are to choose from.
    """
    if not isinstance(count, int) or not 1 <= count <= 100:
        raise ValueError(f"`count` must be an integer in 1..100, got {count!r}.")
    rng = np.random.default_rng([seed, 3, count])

    def spread(reach):
        return reach * (2 * (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count - 1)

    controls = np.stack([spread(0.4), spread(0.3), spread(0.3), spread(0.45)], 1)
    matte, dodge, vignette = spread(1.0), spread(0.5), spread(0.4)
    hue, depth = np.pi * spread(1.0), rng.permutation(count) / max(count - 1, 1)
    tastes = []
    for i in range(count):
        # A tone and its complement, of no luma: teal shadows with orange highlights, and so on round the circle
        tone = 0.03 * depth[i] * np.cos(hue[i] + np.array([0, 2, 4]) * np.pi / 3)
        tone = tone - tone @ LUMA
        tastes.append(
            Taste(
                controls=tuple(controls[i].tolist()),
                black=max(0.05 * matte[i], 0.0),
                white=1 - max(0.06 * matte[i], 0.0),
                shadows=tuple(tone.tolist()),
                highlights=tuple((-tone).tolist()),
                dodge=float(dodge[i]),
                vignette=float(vignette[i]),
                look=int(rng.integers(looks)) if looks else None,
                look_strength=float(rng.uniform(0.2, 0.5)) if looks else 0.0,
            )
        )
    return tastes


def taste_version(
    photo: np.ndarray, taste: Taste, rng: np.random.Generator, looks: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """A finished photo as the expert would have finished it.

    Args:
        photo: (H,W,3) float32 in [0,1].
        taste (`Taste`)
        rng (`numpy.random.Generator`): draws the mood: the lean of this photo differs from the usual by a fifth or so.
        looks (*optional*): (N,n,n,n,3) lookup tables by blue, green, red, as of `load_looks`.

    Returns:
        (H,W,3) float32 in [0,1].
    """
    height, width = photo.shape[:2]
    mood = rng.normal(0, 1, 7)
    controls = np.float32(taste.controls) + np.float32([0.1, 0.07, 0.06, 0.1] * mood[:4])
    dodge, vignette = taste.dodge * (1 + 0.3 * mood[4]), taste.vignette * (1 + 0.3 * mood[5])
    strength = float(np.clip(taste.look_strength * (1 + 0.2 * mood[6]), 0, 1))

    if dodge or vignette:
        # Smooth over the photo, as a hand with a large soft brush does it
        luma = torch.from_numpy(np.ascontiguousarray(photo @ LUMA))[None, None]
        areas = F.interpolate(luma, (min(8, height), min(8, width)), mode="bilinear", antialias=True)
        areas = F.interpolate(areas, (height, width), mode="bicubic", align_corners=False)[0, 0].numpy()
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        stops = 2 * dodge * (float(luma.mean()) - areas) - vignette * ((x * x + y * y) / 2 - 1 / 3)
        photo = 1 - (1 - np.clip(photo, 0, 1)) ** (2.0 ** stops[..., None].astype(np.float32))  # white stays white
    photo = finish(photo, *controls, np.float32([taste.shadows, taste.highlights]))
    if taste.look is not None and strength:
        photo = photo + strength * (apply_look(photo, looks[taste.look]) - photo)
    photo = taste.black + photo * np.float32(taste.white - taste.black)
    return np.clip(photo, 0, 1).astype(np.float32)


def apply_look(photo: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Trilinear look-up of (H,W,3) in [0,1] in a table (n,n,n,3) indexed by blue, green, red."""
    volume = torch.from_numpy(np.ascontiguousarray(table, np.float32)).permute(3, 0, 1, 2)[None]  # (1,3,b,g,r)
    where = (
        torch.from_numpy(np.ascontiguousarray(photo, np.float32))[None, None] * 2 - 1
    )  # x reads red, y green, z blue
    looked_up = F.grid_sample(volume, where, mode="bilinear", padding_mode="border", align_corners=True)
    return looked_up[0, :, 0].permute(1, 2, 0).numpy()


def load_looks(folder: str | os.PathLike[str]) -> list[np.ndarray]:
    """Film looks from a folder: `.cube` files and `.npz` archives with an array `luts` of shape (N,n,n,n,3).

    Returns:
        list of (n,n,n,3) tables indexed by blue, green, red.
    """
    folder, looks = Path(folder), []
    for path in sorted([*folder.rglob("*.npz"), *folder.rglob("*.cube")]):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if "luts" not in archive or archive["luts"].ndim != 5 or archive["luts"].shape[-1] != 3:
                    raise ValueError(f"`folder`: {path} must hold an array `luts` of shape (N,n,n,n,3).")
                looks.extend(np.float32(archive["luts"]))
        else:
            from diffretouch.lut import Lut3D

            look = Lut3D.load(path)
            if (*look.domain_min, *look.domain_max) != (0, 0, 0, 1, 1, 1):
                raise ValueError(f"`folder`: {path} must be a look of colours from 0 to 1, got another domain.")
            looks.append(look.table)
    if not looks:
        raise ValueError(f"`folder` must hold looks (.cube or .npz), found none in {folder}.")
    return looks
