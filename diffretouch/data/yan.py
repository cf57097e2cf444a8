"""The photos of Yan et al. (TOG 2016, arXiv 1412.7725): 115 Flickr photos, each in three hand-made local styles.

The photos are published at github.com/stephenyan1231/dl-image-enhance without a stated licence; bring your own copy.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffretouch.data.crops import as_chw
from diffretouch.data.order import EpochOrder, drawn
from diffretouch.data.square_views import SquareView
from diffretouch.data.thumbnails import Thumbnails, first_readable, photo_paths

HELD_OUT = 10  # of the 70 training photos, for validation; which ones the paper does not say: here the last


def yan_ids(folder: str | os.PathLike[str], split: str) -> list[str]:
    """Photo ids of a split, from the published lists `uniform_set_train_id.txt` (70) and `uniform_set_test_id.txt`.

    Args:
        folder: holds the two lists.
        split (`str`): "train" (60), "validation" (10 of the training list) or "test" (45).

    Raises:
        ValueError: an unknown split, or a list that is missing or has another number of ids.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f'`split` must be "train", "validation" or "test", got {split!r}.')
    name, count = ("test", 45) if split == "test" else ("train", 70)
    path = Path(folder) / f"uniform_set_{name}_id.txt"
    if not path.is_file():
        raise ValueError(f"`folder` must hold {path.name}, got {folder}.")
    ids = path.read_text().split()
    if len(ids) != count or len(set(ids)) != count:
        raise ValueError(f"{path} must list {count} different ids, got {len(set(ids))}.")
    return {"test": ids, "validation": ids[-HELD_OUT:], "train": ids[:-HELD_OUT]}[split]


def _by_id(name, folder, ids):
    paths = photo_paths(folder)
    found = {}
    for id in ids:
        matches = [p for p in paths if id in p.stem]
        if len(matches) != 1:
            raise ValueError(f"`{name}` must hold one photo named after {id}, got {len(matches)} in {folder}.")
        found[id] = matches[0]
    return found


class YanPhotos(torch.utils.data.Dataset):
    """One style of the set, endless: sample k is made by (seed, k) alone.

    Args:
        inputs, targets: folders of the autotoned photos and of one style's; a photo's id is part of its file name.
        lists: folder of the id lists, see `yan_ids`.
        split (`str`): "train", "validation" or "test".
        size, pixels, seed, vary, on_bad_file, most: as in [`LocalEffectPhotos`]; samples are its, with `scene` -1.
    """

    def __init__(
        self, inputs: str | os.PathLike[str], targets: str | os.PathLike[str], lists: str | os.PathLike[str],
        split: str = "train", size: int = 512, *, pixels: int = 2048, seed: int = 0, vary: bool = True,
        on_bad_file: str = "stop", most: int | None = None,
    ) -> None:  # fmt: skip
        self.ids = drawn(yan_ids(lists, split), most, seed)
        self.inputs, self.targets = _by_id("inputs", inputs, self.ids), _by_id("targets", targets, self.ids)
        self.split, self.size, self.on_bad_file = split, size, on_bad_file
        self.seed, self.vary, self.length = seed, vary, 10**9
        self.view = SquareView(size, pixels)
        self._order = EpochOrder(len(self.ids), seed)
        self._open = Thumbnails(size)

    def __len__(self):
        return self.length

    def describe(self) -> dict[str, Any]:
        """What the data set holds, for logs and model cards."""
        return {"kind": "Yan et al. 2016", "split": self.split, "photos": len(self.ids), "size": self.size}

    def photo(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """-> photo, target (3,h,w) float32 in [0,1] of the photo with that index, unturned."""
        id = self.ids[index]
        photo, target = self._open(self.inputs[id])[0], self._open(self.targets[id])[0]
        if photo.size != target.size:
            raise ValueError(f"{self.inputs[id]} and {self.targets[id]} differ in size: {photo.size}, {target.size}")
        return tuple(as_chw(np.asarray(x, np.float32) / 255) for x in (photo, target))

    def __getitem__(self, k):
        order = self._order.following(k) if self.vary else [k % len(self.ids)]
        index, (photo, target), bad = first_readable(order, self.photo, self.on_bad_file)
        rng = np.random.default_rng([self.seed, 1, k]) if self.vary else None
        return {**self.view(photo, target, rng=rng), "name": self.ids[index], "bad": "\n".join(bad)}
