"""SceneParse150: 20,210 training photos whose every pixel has one of 150 classes (Zhou et al., CVPR 2017)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffretouch.data.crops import as_chw
from diffretouch.data.order import EpochOrder
from diffretouch.data.square_views import SquareView
from diffretouch.data.thumbnails import Thumbnails, first_readable, photo_paths

CLASSES = 150


class SceneParse150(torch.utils.data.Dataset):
    """A folder as it is published (ADEChallengeData2016), endless: sample k is made by (seed, k) alone.

    Args:
        folder: holds images/SPLIT/NAME.jpg and annotations/SPLIT/NAME.png, where 0 is unknown and 1..150 the class.
        split (`str`): "training" or "validation".
        size, pixels, seed, on_bad_file: as in [`LocalEffectPhotos`].

    Each sample is a dict: `input` (3,size,size) in [0,1], `scene` (size,size) int64 in 0..149, -1 where unknown or
    outside the photo, `pixels` (P,) int64.
    """

    def __init__(
        self, folder: str | os.PathLike[str], split: str = "training", size: int = 512, *, pixels: int = 2048,
        seed: int = 0, on_bad_file: str = "stop",
    ) -> None:  # fmt: skip
        images, annotations = Path(folder) / "images" / split, Path(folder) / "annotations" / split
        for part in (images, annotations):
            if not part.is_dir():
                raise ValueError(f"`folder` must hold images/{split} and annotations/{split}, got no {part}.")
        self.paths = photo_paths(images)
        missing = [p.stem for p in self.paths if not (annotations / f"{p.stem}.png").is_file()]
        if not self.paths or missing:
            raise ValueError(f"{annotations} must hold an annotation of each photo, none of {missing[:3] or 'any'}.")
        self.annotations, self.size, self.seed, self.on_bad_file = annotations, size, seed, on_bad_file
        self.length = 10**9
        self.view = SquareView(size, pixels)
        self._order = EpochOrder(len(self.paths), seed)
        self._open = Thumbnails(size)

    def __len__(self):
        return self.length

    def describe(self) -> dict[str, Any]:
        """What the data set holds, for logs and model cards."""
        return {"kind": "SceneParse150", "photos": len(self.paths), "size": self.size}

    def photo(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """-> photo (3,h,w) float32 in [0,1], scene (h,w) int64."""
        path = self.paths[index]
        photo = self._open(path)[0]
        try:
            with Image.open(self.annotations / f"{path.stem}.png") as annotation:
                if annotation.mode not in ("L", "P"):
                    raise ValueError(f"annotations must be 8-bit grey, got mode {annotation.mode}")
                classes = np.asarray(annotation.resize(photo.size, Image.Resampling.NEAREST)).astype(np.int64)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.stem}.png cannot be read: {error}") from error
        if classes.max() > CLASSES:
            raise ValueError(f"{path.stem}.png must hold classes 0..{CLASSES}, got {classes.max()}")
        return as_chw(np.asarray(photo, np.float32) / 255), torch.from_numpy(classes - 1)

    def __getitem__(self, k):
        index, (photo, scene), bad = first_readable(self._order.following(k), self.photo, self.on_bad_file)
        sample = self.view(photo, photo, scene, np.random.default_rng([self.seed, 1, k]))
        del sample["target"]
        return {**sample, "name": self.paths[index].name, "bad": "\n".join(bad)}
