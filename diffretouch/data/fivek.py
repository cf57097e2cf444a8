"""MIT-Adobe FiveK (Bychkovsky et al., CVPR 2011): 5,000 photos and the versions of five experts, A to E."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .paired import PairedPhotos, read_ids, subfolder

EXPERTS = "ABCDE"


def fivek_id(name: str) -> str:
    """ "a0001-jmac_DSC1459", "a0001" or "1" -> "a0001"."""
    found = re.match(r"a?(\d{1,4})(?!\d)", str(name))
    if not found:
        raise ValueError(f"`name` must be a FiveK id such as a0001, got {name!r}.")
    return f"a{int(found[1]):04d}"


def fivek(
    folder: str | os.PathLike[str],
    size: int = 128,
    *,
    experts: str | Sequence[str] = "ABCDE",
    input_folder: str | os.PathLike[str] | None = None,
    split: str | None = None,
    **arguments: Any,
) -> PairedPhotos:
    """A rendering of FiveK on disk as `PairedPhotos`.

    The photos come as raw files, so every user's rendering is another: folders as Lightroom exports them
    (`01-Experts-A` ... `05-Experts-E`) or `expertA`, `Expert_C`, `C`; inputs in a folder with "input" in its name.

    Args:
        folder: holds these folders, in it or one level below.
        experts: letters A to E.
        input_folder (*optional*): the inputs, where their folder is named otherwise or there are several renderings.
        split (*optional*): file with ids, one a line, e.g. the 4,500 for training of UPE or the 2,250 of DPE. All
            numbers of FiveK are names of photos here: 12 and a0012 are the same.
        arguments: of `PairedPhotos`.
    """
    experts = [letter.removeprefix("expert").upper() for letter in experts]
    if not experts or any(letter not in EXPERTS or len(letter) != 1 for letter in experts):
        raise ValueError(f"`experts` must be letters A to E, got {', '.join(map(str, experts)) or 'none'}.")
    targets = {
        f"expert{letter}": subfolder(folder, rf"^(.*experts?[-_ ]?)?{letter}$", f"expert {letter}'s versions")
        for letter in experts
    }
    if input_folder is None:
        inputs = subfolder(folder, r"input", "the inputs (a folder with `input` in its name, or `input_folder`)")
    else:
        inputs = input_folder if Path(input_folder).is_dir() else Path(folder) / input_folder
    ids = read_ids(split, fivek_id) if split else None
    named = f"{Path(split).name} ({len(ids)} ids)" if split and ids is not None else "all"
    return PairedPhotos(inputs, targets, size, ids=ids, id_of=fivek_id, split=named, **arguments)
