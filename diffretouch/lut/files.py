"""Tables as files: the format by the suffix."""

import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffretouch.photo.encoders import new_file

from . import clf, cube, darktable, flame, hald, lightroom, rawtherapee

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

FORMATS = {
    ".cube": cube,
    ".xmp": lightroom,
    ".pp3": rawtherapee,
    ".dtstyle": darktable,
    ".clf": clf,
    ".3dl": flame,
    ".png": hald,
    ".tif": hald,
    ".tiff": hald,
}
_WITH_DOMAIN = (cube, darktable)


def lut_files(path: str | os.PathLike[str]) -> list[Path]:
    """All files that `Lut3D.save(path)` writes: the one that is named, and the table that lies beside some."""
    path = Path(path)
    beside = getattr(_format(path), "BESIDE", None)
    return [path, path.with_suffix(beside)] if beside else [path]


def nodes_for(path: str | os.PathLike[str], size: int) -> int:
    """The nodes on an edge that a format has for a table of `size`: fewer where it holds no more, or more."""
    kind = _format(Path(path))
    if kind in (hald, rawtherapee):
        return hald.hald_level(size) ** 2
    if kind is flame:
        return next((nodes for nodes in flame.SIZES if nodes >= size), flame.SIZES[-1])
    most = {lightroom: lightroom.MOST_NODES, clf: clf.MOST_NODES}.get(kind, size)
    return min(size, most)


def write_lut(lut: "Lut3D", path: str | os.PathLike[str], *, strength: float = 1.0, overwrite: bool = False) -> None:
    """See `Lut3D.save`."""
    path = Path(path)
    kind = _format(path)
    paths = lut_files(path)
    for each in paths:
        if os.path.lexists(each) and not overwrite:
            raise FileExistsError(f"`path`: {each} exists; `overwrite=True` replaces it.")
    said = {}
    if kind is rawtherapee and strength <= 1:
        said["strength"] = strength  # moved there by hand
    elif strength != 1:
        lut = lut.at_strength(strength)
    size = nodes_for(path, lut.size)
    if size != lut.size or (kind not in _WITH_DOMAIN and (lut.domain_min, lut.domain_max) != ((0.0,) * 3, (1.0,) * 3)):
        warnings.warn(f"{path}: {lut.size} nodes on an edge became {size} over [0,1].", stacklevel=3)
        lut = lut.resized(size)
    with ExitStack() as stack:
        files = [stack.enter_context(new_file(each, overwrite)) for each in paths]
        kind.write(lut, path, *files, **said)


def read_lut(path: str | os.PathLike[str]) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table, domain_min, domain_max, title, see `Lut3D.load`."""
    path = Path(path)
    try:
        return _format(path).read(path)
    except ValueError as error:
        reason = str(error)
        raise ValueError(reason if reason.startswith("`path`") else f"`path`: {path} {reason.rstrip('.')}.") from error


def _format(path):
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, got {path}.")
    return FORMATS[suffix]
