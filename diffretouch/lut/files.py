"""Tables as files: the format by the suffix."""

import os
from pathlib import Path

from diffretouch.photo.encoders import new_file

from . import cube

FORMATS = {".cube": cube}


def write_lut(lut, path, *, overwrite=False):
    """See `Lut3D.save`."""
    path = Path(path)
    kind = _format(path)
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"`path`: {path} exists; `overwrite=True` replaces it.")
    with new_file(path, overwrite) as file:
        kind.write(file, lut)


def read_lut(path):
    """-> table, domain_min, domain_max, title, see `Lut3D.load`."""
    path = Path(path)
    try:
        return _format(path).read(path)
    except ValueError as error:
        raise ValueError(f"`path`: {path} {error}.") from error


def _format(path):
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, got {path}.")
    return FORMATS[suffix]
