"""Hald images: a table as a picture, in which red runs fastest along the rows."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .lookup import lut_nodes

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from diffretouch.lut.table import Lut3D


def hald_identity(level: int = 8, dtype: "DTypeLike" = np.uint16) -> np.ndarray:
    """The Hald image that changes nothing, (level**3, level**3, 3): retouch it anywhere, then `Lut3D.from_hald`.

    Args:
        level (`int`): 2 to 16; the table has level**2 nodes on an edge.
        dtype: uint8, uint16 or float32.
    """
    if isinstance(level, bool) or not isinstance(level, (int, np.integer)) or not 2 <= level <= 16:
        raise ValueError(f"`level` must be an integer in 2..16, got {level!r}.")
    if np.dtype(dtype) not in (np.uint8, np.uint16, np.float32):
        raise TypeError(f"`dtype` must be uint8, uint16 or float32, got {np.dtype(dtype)}.")
    return as_levels(lut_nodes(level**2).reshape(level**3, level**3, 3), np.dtype(dtype))


def as_levels(colours: np.ndarray, dtype: "DTypeLike") -> np.ndarray:
    """Colours in [0,1] as integers of a dtype, those outside clipped; float32 as they are."""
    if dtype == np.float32:
        return colours
    return np.rint(np.clip(colours, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def hald_level(size: int) -> int:
    """The smallest Hald image that holds as many nodes on an edge."""
    return int(np.clip(np.ceil(np.sqrt(size)), 2, 16))


def hald_table(pixels: np.ndarray) -> np.ndarray:
    """A Hald image's pixels (S,S,3) -> table (N,N,N,3)."""
    level = round(pixels.shape[0] ** (1 / 3))
    if pixels.shape[:2] != (level**3, level**3) or not 2 <= level <= 16:
        raise ValueError(
            f"must be a Hald image, square with a side of level**3 (level 2 to 16), got {pixels.shape[:2]}"
        )
    return np.ascontiguousarray(pixels).reshape(level**2, level**2, level**2, 3)


def write(lut: "Lut3D", path: Path, file: BinaryIO) -> None:
    """Write a [`Lut3D`] over [0,1] with level**2 nodes as a PNG or TIFF of 16 bits."""
    import imagecodecs

    encode = imagecodecs.png_encode if path.suffix.lower() == ".png" else imagecodecs.tiff_encode
    file.write(encode(as_levels(lut.table.reshape(*[round(lut.size**1.5)] * 2, 3), np.dtype(np.uint16))))


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title."""
    from diffretouch.photo import load_photo

    return hald_table(load_photo(path).pixels), (0.0,) * 3, (1.0,) * 3, ""
