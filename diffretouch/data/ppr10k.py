"""PPR10K (Liang et al., CVPR 2021): 11,161 portraits, the versions of three experts and masks of the people."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .paired import PairedPhotos, read_ids, subfolder

EXPERTS = "abc"


def ppr10k_id(name: str) -> str:
    """Group and number of a photo, without the number of an augmented source: "583_9_2" -> "583_9"."""
    found = re.match(r"(\d+_\d+)(_\d+)?$", str(name))
    if not found:
        raise ValueError(f"`name` must be a PPR10K id such as 583_9, got {name!r}.")
    return found[1]


def ppr10k(
    folder: str | os.PathLike[str], size: int = 128, *, experts: str | Sequence[str] = "abc", split: str | None = None,
    masks: bool = False, input_folder: str | os.PathLike[str] | None = None, **arguments: Any,
) -> PairedPhotos:  # fmt: skip
    """The released 360p layout of PPR10K as `PairedPhotos`: `source`, `target_a`, `target_b`, `target_c`, `masks`.

    Args:
        folder: holds these folders, in it or one level below; the released archive's `train` or `val` folder where it
            has both.
        experts: letters a to c.
        split (*optional*): file with ids, one a line: 8,875 for training, 2,286 for testing in the released lists.
        masks (`bool`): also the people's masks (`masks` or `masks_360p`), as `mask` in the samples.
        input_folder (*optional*): other inputs than `source`.
        arguments: of `PairedPhotos`.
    """
    experts = [letter.removeprefix("expert").lower() for letter in experts]
    if not experts or any(letter not in EXPERTS or len(letter) != 1 for letter in experts):
        raise ValueError(f"`experts` must be letters a to c, got {', '.join(map(str, experts)) or 'none'}.")
    targets = {f"target_{letter}": subfolder(folder, rf"^target_{letter}$", f"target_{letter}") for letter in experts}
    if input_folder is None:
        inputs = subfolder(folder, r"^source$", "the inputs (`source`)")
    else:
        inputs = input_folder if Path(input_folder).is_dir() else Path(folder) / input_folder
    ids = read_ids(split, ppr10k_id) if split else None
    named = f"{Path(split).name} ({len(ids)} ids)" if split and ids is not None else "all"
    arguments["masks"] = subfolder(folder, r"^masks(_360p)?$", "the masks") if masks else None
    return PairedPhotos(inputs, targets, size, ids=ids, id_of=ppr10k_id, split=named, **arguments)
