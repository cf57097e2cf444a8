"""Random crops of photos, the same for all versions of one photo."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    import PIL.Image


def random_crop(rng: np.random.Generator) -> tuple[tuple[float, float, float, float], bool]:
    """A crop of 60 to 100 % of each side, flipped half of the time: (left, top, right, bottom) in [0,1], flip."""
    sides = rng.uniform(0.6, 1.0, 2)
    left, top = rng.uniform(0, 1, 2) * (1 - sides)
    return (left, top, left + sides[0], top + sides[1]), rng.random() < 0.5


WHOLE = (0.0, 0.0, 1.0, 1.0), False


def cut(photo: "PIL.Image.Image", crop: tuple[tuple[float, float, float, float], bool], size: int) -> np.ndarray:
    """The crop of an RGB PIL photo as (size,size,3) float32 in [0,1], squeezed to a square."""
    (left, top, right, bottom), flip = crop
    width, height = photo.size
    box = (left * width, top * height, right * width, bottom * height)
    photo = photo.resize((size, size), Image.Resampling.BOX, box=box)
    if flip:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(photo, np.float32) / 255


def as_chw(image: np.ndarray) -> torch.Tensor:
    """(H,W,C) array -> (C,H,W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
