"""Photos and what experts made of them: folders with the same names."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffretouch.attributes import MEASURE_SIZE, attribute_labels, measure_attributes, quantile_labels
from diffretouch.photo import load_photo
from diffretouch.pixels import shrink

from .crops import WHOLE, as_chw, cut, random_crop
from .order import EpochOrder, drawn
from .photo_names import named, read_names, stem
from .prophoto import prophoto_pixels
from .thumbnails import Thumbnails, crop_side, describe_file, first_readable, photo_paths
from .unpaired import is_styled, names_digest, simulated_pair


class PairedPhotos(torch.utils.data.Dataset):
    """Inputs and the versions of one or several experts, matched by name, endless: sample k is by (seed, k) alone.

    An epoch shows every photo in every expert's version. What c says of a target:

    * several experts: the labels of their scores of the whole photo, relative to each other (`attribute_labels`);
    * one expert: the expert's own finish is c = 0, and often the target is finished on with other attributes, as in
      `UnpairedPhotos`, so that there is something to learn of c;
    * `vary=False`: the expert's finish and c = 0, for networks that take no c;
    * `statistics`: the target's place among all photos' scores (`quantile_labels`) instead of all these.

    Args:
        inputs: folder of the photos.
        targets: folder of the versions, or a dict from experts' names to folders.
        size (`int`): side of the square samples: the same random crop of all versions, squeezed.
        seed (`int`): of order, crops and simulated experts.
        ids (*optional*): only these photos, as `id_of` names them.
        most (`int`, *optional*): so many of them at most, drawn by the seed.
        exclude: names of photos or ids that are left out of all folders, see `named`.
        id_of: stem of a file name -> what pairs have in common; the stem itself by default.
        masks (*optional*): folder of grey pictures, as `mask` (1,size,size) in the samples.
        styled (`float`): with one expert: share of the targets that are finished on in any style, see `is_styled`.
        statistics (`dict`, *optional*): of `label_statistics`.
        crops (`bool`): `False` shows whole photos, squeezed, and never turns them round.
        squeeze (`bool`): `False` leaves whole photos their shape, with a long side of at most `size` px and all bits
            of their files: such samples differ in size, so batches hold one.
        input_space (`str`): "srgb" or "prophoto", of the inputs in such samples, see `prophoto_pixels`.
        untagged (`str`, *optional*): "srgb" or "prophoto": what inputs of 16 bits without a profile are.
        on_bad_file (`str`): "stop" or "skip", see `first_readable`. A pair of different size counts as a bad file.
        split, rendering (`str`): what `describe` says of them.
        strict (`bool`): unpaired names are an error; else they are kept in `unpaired` and left out.

    Each sample is a dict as in `UnpairedPhotos`, and `item`: which photo's version by which expert it is.

    Raises:
        ValueError: a folder that is missing, no photos, unpaired names.
    """

    def __init__(
        self,
        inputs: str | os.PathLike[str],
        targets: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
        size: int = 128,
        *,
        seed: int = 0,
        length: int = 10**9,
        ids: Iterable[str] | None = None,
        most: int | None = None,
        exclude: Iterable[str] = (),
        id_of: Callable[[str], str] = str,
        masks: str | os.PathLike[str] | None = None,
        vary: bool = True,
        styled: float = 0.0,
        statistics: Mapping[str, Any] | None = None,
        crops: bool = True,
        squeeze: bool = True,
        input_space: str = "srgb",
        untagged: str | None = None,
        on_bad_file: str = "stop",
        thumbnails: Thumbnails | None = None,
        split: str = "all",
        rendering: str = "not stated",
        strict: bool = True,
    ) -> None:
        targets = dict(targets) if isinstance(targets, Mapping) else {Path(targets).name: targets}
        if not targets:
            raise ValueError("`targets` must name at least one folder.")
        if not vary and len(targets) > 1:
            raise ValueError(f"`targets` must be one folder for a network that takes no c, got {', '.join(targets)}.")
        if not squeeze and (crops or masks is not None or vary):
            raise ValueError("`squeeze=False` is for whole photos without masks, and for networks that take no c.")
        if squeeze and input_space != "srgb":
            raise ValueError(f'`input_space` must be "srgb" where photos are squeezed, got {input_space!r}.')
        self.squeeze, self.input_space, self.untagged = squeeze, input_space, untagged
        self.size, self.seed, self.length, self.vary, self.on_bad_file = size, seed, length, vary, on_bad_file
        self.experts, self.statistics, self.split, self.rendering = list(targets), statistics, split, rendering
        self.styled, self.crops, self.fixed_targets = styled, crops, not vary or len(targets) > 1
        self.thumbnails = thumbnails or Thumbnails(crop_side(size))
        # Scores are kept, their pictures not; twice the size at which they are measured keeps them what they are
        self.measured = Thumbnails(2 * MEASURE_SIZE, memory=0)
        wanted = set(ids) if ids is not None else None
        if not Path(inputs).is_dir():
            raise ValueError(f"`inputs` must be a folder, got {inputs}.")
        left_out = {id_of(path.stem) for path in named(photo_paths(inputs), exclude, inputs, id_of=id_of)}

        # 1. Files by id, of those wanted
        def by_id(name, folder):
            if not Path(folder).is_dir():
                raise ValueError(f"`{name}` must be a folder, got {folder}.")
            found = {}
            for path in photo_paths(folder):
                key = id_of(path.stem)
                if (wanted is None or key in wanted) and key not in left_out:
                    if key in found:
                        raise ValueError(f"`{name}` must name each photo once, got {found[key]} and {path}.")
                    found[key] = path
            return found

        sides = {"inputs": by_id("inputs", inputs)}
        sides.update({expert: by_id(f"targets[{expert}]", folder) for expert, folder in targets.items()})
        if masks is not None:
            sides["masks"] = by_id("masks", masks)

        # 2. Those that are there on all sides
        everywhere = set.intersection(*(set(side) for side in sides.values()))
        self.unpaired = {
            name: sorted(set().union(*(other for other in sides.values())) - set(side)) for name, side in sides.items()
        }
        self.unpaired = {name: missing for name, missing in self.unpaired.items() if missing}
        if strict and self.unpaired:
            lacks = "; ".join(
                f"{name} lacks {len(missing)}: {', '.join(missing[:5])}" for name, missing in self.unpaired.items()
            )
            raise ValueError(f"`inputs` and `targets` must hold the same names; {lacks}.")
        self.ids = drawn(sorted(everywhere), most, seed)
        self.missing_ids = sorted(wanted - everywhere) if wanted is not None else []
        if not self.ids and strict:
            raise ValueError(
                f"`inputs` and `targets` must hold photos of the same names, got none in {inputs} and "
                f"{', '.join(map(str, targets.values()))}" + (f" of the {len(wanted)} ids listed." if wanted else ".")
            )
        self.folders = {"inputs": str(inputs), **{k: str(v) for k, v in targets.items()}}
        self.inputs = [sides["inputs"][key] for key in self.ids]
        self.targets = [[sides[expert][key] for expert in self.experts] for key in self.ids]
        self.masks = [sides["masks"][key] for key in self.ids] if masks is not None else None
        self.order = EpochOrder(len(self.ids) * len(self.experts), seed)
        self._scores = {}

    def __len__(self):
        return self.length

    def __getitem__(self, k):
        rng = np.random.default_rng([self.seed, 1, k])
        items = (divmod(i, len(self.experts)) for i in self.order.following(k))
        (photo, expert), opened, bad = first_readable(items, self._open, self.on_bad_file)
        crop = random_crop(rng) if self.crops else WHOLE
        source, target = (cut(image, crop, self.size) for image in opened[:2]) if self.squeeze else opened
        c = np.zeros(4, np.float32)
        if self.vary and len(self.experts) > 1:
            if self.statistics is None:
                c = attribute_labels(self.scores(photo))[expert].numpy()
            else:
                c = quantile_labels(self.scores(photo), self.statistics)[expert].numpy()
        elif self.vary:
            styled = is_styled(k, self.styled)
            _, target, c = simulated_pair(target, rng, styled=styled, statistics=self.statistics)
        sample = {
            "input": as_chw(source),
            "target": as_chw(target),
            "c": torch.from_numpy(c),
            "k": k,
            "item": photo * len(self.experts) + expert,
            "name": f"{self.inputs[photo]} -> {self.targets[photo][expert]}",
            "bad": "\n".join(bad),
        }
        if self.masks is not None:
            sample["mask"] = torch.from_numpy(cut(opened[2], crop, self.size)[..., 0].copy())[None]
        return sample

    def target(self, item: int) -> torch.Tensor:
        """The whole target (3,size,size) of an `item`, as samples name it."""
        photo, expert = divmod(item, len(self.experts))
        return as_chw(cut(self.thumbnails(self.targets[photo][expert])[0], WHOLE, self.size))

    def scores(self, photo: int) -> torch.Tensor:
        """Scores (K,4) of the K experts' versions of a whole photo, by its place in `ids`."""
        if photo not in self._scores:
            rows = []
            for path in self.targets[photo]:
                pixels = np.asarray(self.measured(path)[0], np.float32) / 255
                rows.append(measure_attributes(as_chw(pixels)[None])[0])
            self._scores[photo] = torch.stack(rows)
        return self._scores[photo]

    def _open(self, item):
        photo, expert = item
        if not self.squeeze:
            return self._whole(self.inputs[photo], self.targets[photo][expert])
        paths = [self.inputs[photo], self.targets[photo][expert]] + ([self.masks[photo]] if self.masks else [])
        opened = [self.thumbnails(path) for path in paths]
        for path, (_, size) in zip(paths[1:], opened[1:], strict=True):
            if size != opened[0][1]:
                raise ValueError(
                    f"{paths[0]} is {'x'.join(map(str, opened[0][1]))} px, {path} {'x'.join(map(str, size))}."
                )
        if len(self.experts) > 1:
            self.scores(photo)  # an unreadable version of another expert is found here, not later
        return [image for image, _ in opened]

    def _whole(self, source, target):
        """Both photos (H,W,3) float32 in their own shape."""
        wide = self.input_space == "prophoto"
        opened = [prophoto_pixels(source, self.untagged) if wide else load_photo(source).pixels]
        opened.append(load_photo(target).pixels)
        sizes = ["x".join(map(str, image.shape[1::-1])) for image in opened]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{source} is {sizes[0]} px, {target} {sizes[1]}.")
        return [shrink(as_chw(image)[None], self.size)[0].permute(1, 2, 0).numpy() for image in opened]

    def describe(self) -> dict[str, Any]:
        """Folders, experts, split and rendering, as far as they are known, and counts: JSON-able."""
        return {
            "folders": self.folders,
            "experts": self.experts,
            "photos": len(self.ids),
            "samples_per_epoch": len(self.ids) * len(self.experts),
            "split": self.split,
            "listed_but_missing": len(self.missing_ids),
            "ids_sha256": names_digest(self.ids),
            "rendering": self.rendering,
            "input_space": self.input_space,
            "input_files": dict(Counter(p.suffix.lower() for p in self.inputs)),
            "target_files": dict(Counter(p.suffix.lower() for row in self.targets for p in row)),
            "first_input": describe_file(self.thumbnails, self.inputs[0]) if self.inputs else None,
        }


def read_ids(path: str | os.PathLike[str], id_of: Callable[[str], str] = str) -> list[str]:
    """Ids of a split list, see `read_names`: folders and extensions are left out, photos lie under one name each."""
    return [id_of(stem(name.rpartition("/")[2])) for name in read_names(path)]


def subfolder(root: str | os.PathLike[str], pattern: str, meaning: str) -> Path:
    """The one folder within two levels of `root` whose name the pattern matches."""
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"`folder` must be a folder, got {root}.")
    level = [root]
    for _ in range(2):
        level = sorted(p for parent in level for p in parent.iterdir() if p.is_dir())
        found = [p for p in level if re.search(pattern, p.name, re.I)]
        if len(found) > 1:
            raise ValueError(f"`folder` {root} holds several for {meaning}: {', '.join(p.name for p in found)}.")
        if found:
            return found[0]
    raise ValueError(f"`folder` {root} must hold {meaning}, found no folder of that name.")
