"""Finished photos as training pairs, by simulated experts: no expert pairs are needed."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffretouch.attributes import attribute_labels, measure_attributes, quantile_labels

from .crops import as_chw, cut, random_crop
from .order import EpochOrder, drawn
from .photo_names import named
from .simulated_experts import camera_input, expert_version, version_label, with_black_point
from .tastes import Taste, taste_version
from .thumbnails import SUFFIXES, Thumbnails, crop_side, describe_file, first_readable, photo_paths

if TYPE_CHECKING:
    import PIL.Image


class UnpairedPhotos(torch.utils.data.Dataset):
    """A folder of finished photos, endless: sample k is one random crop of one photo, re-made by (seed, k) alone.

    The photos of one epoch are visited in a seeded order. Nothing depends on global random state, on the number of
    workers or on what was read before, so a training can go on from any sample.

    Args:
        folder: photos in any format that `load_photo` reads, searched recursively.
        size (`int`): side of the square samples; crops are squeezed to it, as the UNet's thumbnail is.
        seed (`int`): of order, crops, simulated camera and experts.
        length (`int`): how many samples there are (an index beyond is an error only for the sampler).
        exclude: names of photos that are left out, e.g. those kept for validation, see `named`.
        most (`int`, *optional*): so many photos at most, drawn by the seed.
        vary (`bool`): the target is finished anew with other attributes; `False` makes it the photographer's own
            finish with c = 0, for networks that take no c.
        styled (`float`): share of the samples whose target is any expert's finish, see `is_styled`.
        tastes (list of `Taste`): simulated experts of these tastes make the versions instead; c is then what
            `attribute_labels` says of one among all of them. A photo's epoch shows one of them.
        looks (*optional*): the tastes' lookup tables, see `load_looks`.
        statistics (`dict`, *optional*): of `label_statistics`: c is the target's place among all photos instead.
        on_bad_file (`str`): "stop" raises at a photo that cannot be read, "skip" takes the next of the epoch.
        thumbnails (`Thumbnails`, *optional*): opens the photos.

    Each sample is a dict: `input` and `target` (3,size,size) float32 in [0,1], `c` (4,) float32 in [-2.5,2.5], `k`,
    the photo's `name`, and `bad`: a line for each file that was passed by.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: int = 128,
        *,
        seed: int = 0,
        length: int = 10**9,
        exclude: Iterable[str] = (),
        most: int | None = None,
        vary: bool = True,
        styled: float = 0.0,
        tastes: Sequence[Taste] = (),
        looks: Sequence[np.ndarray] | None = None,
        statistics: Mapping[str, Any] | None = None,
        on_bad_file: str = "stop",
        thumbnails: Thumbnails | None = None,
        split: str = "all",
        rendering: str = "finished photos",
    ) -> None:
        self.folder = Path(folder)
        self.paths = photo_paths(folder)
        left_out = named(self.paths, exclude, folder)
        self.paths = drawn([path for path in self.paths if path not in left_out], most, seed)
        if not self.paths:
            raise ValueError(f"`folder` must hold photos ({', '.join(sorted(SUFFIXES))}), found none in {folder}.")
        self.size, self.seed, self.length, self.vary, self.on_bad_file = size, seed, length, vary, on_bad_file
        self.tastes, self.looks, self.statistics, self.styled = list(tastes), looks, statistics, styled
        self.split, self.rendering = split, rendering
        self.order = EpochOrder(len(self.paths), seed)
        self.thumbnails = thumbnails or Thumbnails(crop_side(size))

    def __len__(self):
        return self.length

    def __getitem__(self, k):
        rng = np.random.default_rng([self.seed, 1, k])
        paths = (self.paths[i] for i in self.order.following(k))
        path, (photo, _), bad = first_readable(paths, self.thumbnails, self.on_bad_file)
        finished = finished_crop(photo, rng, self.size)
        source, target, c = simulated_pair(
            finished,
            rng,
            vary=self.vary,
            styled=is_styled(k, self.styled),
            tastes=self.tastes,
            looks=self.looks,
            statistics=self.statistics,
        )
        return {
            "input": as_chw(source),
            "target": as_chw(target),
            "c": torch.from_numpy(c),
            "k": k,
            "name": str(path),
            "bad": "\n".join(bad),
        }

    def describe(self) -> dict[str, Any]:
        """Folder, who made the versions, split and rendering, and counts: JSON-able."""
        experts = f"{len(self.tastes)} simulated tastes" if self.tastes else "simulated, asked for c"
        return {
            "folders": {"photos": str(self.folder)},
            "experts": experts if self.vary else "the photographer",
            "inputs": "simulated camera",
            "photos": len(self.paths),
            "samples_per_epoch": len(self.paths),
            "split": self.split,
            "ids_sha256": names_digest(p.relative_to(self.folder).as_posix() for p in self.paths),
            "rendering": self.rendering,
            "input_files": dict(Counter(p.suffix.lower() for p in self.paths)),
            "first_input": describe_file(self.thumbnails, self.paths[0]),
        }


def finished_crop(photo: "PIL.Image.Image", rng: np.random.Generator, size: int) -> np.ndarray:
    """A random crop (size,size,3) of a finished PIL photo, its black where most retouchers would have set it."""
    whole = np.asarray(photo.reduce(4), np.float32) / 255
    return with_black_point(cut(photo, random_crop(rng), size), whole, rng)


def is_styled(k: int, share: float) -> bool:
    """Whether the target of sample k is any expert's finish, for a training in which its c is unknown.

    They are spread evenly, so that every batch has its part of them.
    """
    return int((k + 2) * share) > int((k + 1) * share)


def simulated_pair(
    finished: np.ndarray,
    rng: np.random.Generator,
    *,
    vary: bool = True,
    styled: bool = False,
    tastes: Sequence[Taste] = (),
    looks: Sequence[np.ndarray] | None = None,
    statistics: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A finished crop (H,W,3) -> (input, target, c (4,)), all by `rng`: see `UnpairedPhotos`."""
    target, c = finished, np.zeros(4, np.float32)
    if vary and tastes:
        target, c = _one_of_the_tastes(finished, tastes, looks, rng)
    elif vary:
        asked = styled_attributes(rng) if styled else asked_attributes(rng)
        target = expert_version(finished, asked, rng, style=1.0 if styled else float(rng.random() < 0.3))
        c = version_label(target, finished) if statistics is None else c
    if vary and statistics is not None:
        c = quantile_labels(_scores(target), statistics)[0].numpy()
    source = camera_input(finished, rng)
    if rng.random() < 0.25:  # half of these need nothing, half a part, so that a finished photo is left alone
        source = finished + np.float32(max(rng.uniform(-1, 1), 0)) * (source - finished)
    return source, target, c


def _one_of_the_tastes(finished, tastes, looks, rng):
    """One expert's version and its label among the versions of all, which are made on a small copy only."""
    seeds = rng.integers(2**63, size=len(tastes))
    chosen = int(rng.integers(len(tastes)))
    step = max(min(finished.shape[:2]) // 64, 1)
    small = finished[::step, ::step]
    versions = [
        taste_version(small, taste, np.random.default_rng(seed), looks)
        for taste, seed in zip(tastes, seeds, strict=True)
    ]
    c = attribute_labels(torch.cat([_scores(version) for version in versions]))[chosen].numpy()
    return taste_version(finished, tastes[chosen], np.random.default_rng(seeds[chosen]), looks), c


def _scores(image):
    return measure_attributes(as_chw(image)[None])


def names_digest(names: Iterable[str]) -> str:
    """A short digest of a split, for telling whether two trainings saw the same photos."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def styled_attributes(rng: np.random.Generator) -> np.ndarray:
    """c (4,) of some expert's finish: the spread of styles that is left where nothing is asked for, most in light."""
    return rng.normal(0, (0.3, 0.25, 0.3, 0.9)).clip(-2, 2).astype(np.float32)


def asked_attributes(rng: np.random.Generator) -> np.ndarray:
    """c (4,) that a simulated expert is asked for: often the photo's own finish, else one to four attributes moved."""
    if rng.random() < 0.55:
        return np.zeros(4, np.float32)
    moved = rng.random(4) < rng.choice([0.3, 0.8])
    reach = 1.2 if rng.random() < 0.75 else 2.4  # some go further, so that extrapolation is not a guess
    return (rng.uniform(-reach, reach, 4) * moved).astype(np.float32)
