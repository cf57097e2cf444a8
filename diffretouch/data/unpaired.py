"""Finished photos as training pairs, by simulated experts: no expert pairs are needed."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .simulated_experts import camera_input, expert_version, version_label

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif"}


class UnpairedPhotos(torch.utils.data.Dataset):
    """A folder of finished photos, endless: sample k is one random crop of one photo, re-made by (seed, k) alone.

    The photos of one epoch are visited in a seeded order. Nothing depends on global random state, on the number of
    workers or on what was read before, so a training can go on from any sample.

    Args:
        folder: photos in any format Pillow reads, searched recursively.
        size (`int`): side of the square samples; crops are squeezed to it, as the UNet's thumbnail is.
        seed (`int`): of order, crops, simulated camera and experts.
        length (`int`): how many samples there are (an index beyond is an error only for the sampler).
        exclude: file names that are left out, e.g. those kept for validation.

    Each sample is a dict: `input` and `target` (3,size,size) float32 in [0,1], `c` (4,) float32 in [-2.5,2.5].
    """

    def __init__(self, folder, size=128, *, seed=0, length=10**9, exclude=()):
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
        self.paths = [p for p in paths if p.name not in set(exclude)]
        if not self.paths:
            raise ValueError(f"`folder` must hold photos ({', '.join(sorted(SUFFIXES))}), found none in {folder}.")
        self.size, self.seed, self.length = size, seed, length
        self._cached = None, None
        self._photos = {}

    def __len__(self):
        return self.length

    def _path_of(self, k):
        epoch, position = divmod(k, len(self.paths))
        if self._cached[0] != epoch:
            self._cached = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.paths))
        return self.paths[self._cached[1][position]]

    def _open(self, path):
        if path not in self._photos:
            with Image.open(path) as photo:
                photo.draft("RGB", (4 * self.size, 4 * self.size))
                photo = photo.convert("RGB")
                photo.thumbnail((4 * self.size, 4 * self.size), Image.Resampling.BOX)
            self._photos[path] = photo
        return self._photos[path]

    def __getitem__(self, k):
        rng = np.random.default_rng([self.seed, 1, k])
        photo = self._open(self._path_of(k))
        finished = _random_crop(photo, self.size, rng)
        c = asked_attributes(rng)
        target = expert_version(finished, c, rng, style=float(rng.random() < 0.3))
        source = camera_input(finished, rng)
        chw = lambda image: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # noqa: E731
        return {
            "input": chw(source),
            "target": chw(target),
            "c": torch.from_numpy(version_label(target, finished)),
        }


def asked_attributes(rng):
    """c (4,) that a simulated expert is asked for: often the photo's own finish, else one to four attributes moved."""
    if rng.random() < 0.3:
        return np.zeros(4, np.float32)
    moved = rng.random(4) < rng.choice([0.3, 0.8])
    reach = 1.2 if rng.random() < 0.75 else 2.4  # some go further, so that extrapolation is not a guess
    return (rng.uniform(-reach, reach, 4) * moved).astype(np.float32)


def _random_crop(photo, size, rng):
    """A crop of 60 to 100 % of each side, flipped half of the time, as (size,size,3) float32 in [0,1]."""
    width, height = photo.size
    crop = np.array([width, height]) * rng.uniform(0.6, 1.0, 2)
    left, top = rng.uniform(0, 1, 2) * (np.array([width, height]) - crop)
    box = (left, top, left + crop[0], top + crop[1])
    photo = photo.resize((size, size), Image.Resampling.BOX, box=box)
    if rng.random() < 0.5:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(photo, np.float32) / 255
