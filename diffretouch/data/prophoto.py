"""Inputs in the colours that CSRNet was published with: 16-bit ProPhoto RGB."""

from pathlib import Path

import numpy as np
import torch

from diffretouch.colour.prophoto import srgb_to_prophoto
from diffretouch.photo import load_photo


def prophoto_pixels(path: str | Path, untagged: str | None = None) -> np.ndarray:
    """A photo (H,W,3) float32 in gamma-1.8 ProPhoto RGB, all bits kept.

    Its own profile says what its colours are: pixels of a file in ProPhoto come out as they stand in it. A file of 16
    bits without a profile may be either, and a network that learns from the wrong one is of no use.

    Args:
        untagged (*optional*): what such files are: "prophoto", to be taken as they stand, or "srgb".

    Raises:
        ValueError: 16 bits, no profile, and `untagged` does not say; the file cannot be read.
    """
    photo = load_photo(path)
    known = photo.icc_profile is not None or any(note.startswith("Converted from") for note in photo.notes)
    bare = photo.bit_depth > 8 and not known
    if bare and untagged is None:
        raise ValueError(f"{path} has {photo.bit_depth} bits and no profile: say by `untagged` what its colours are.")
    if bare and untagged == "prophoto":
        return photo.pixels
    pixels = torch.from_numpy(np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)))
    return srgb_to_prophoto(pixels).numpy().transpose(1, 2, 0)
