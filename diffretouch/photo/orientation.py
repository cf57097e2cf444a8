"""The eight ways in which a picture may lie in its file, numbered as in the TIFF standard, and what turns with it."""

from collections.abc import Sequence

import numpy as np

_TURNS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
          6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: np.rot90}  # fmt: skip


def turn(samples: np.ndarray, orientation: int) -> np.ndarray:
    """(H,W,...) as stored -> upright."""
    return np.ascontiguousarray(_TURNS[orientation](samples)) if orientation in _TURNS else samples


def turn_point(x: float, y: float, orientation: int, width: float = 1.0, height: float = 1.0) -> tuple[float, float]:
    """A point of the stored picture of that size -> the same point of the upright one."""
    return {2: (width - x, y), 3: (width - x, height - y), 4: (x, height - y), 5: (y, x), 6: (height - y, x),
            7: (height - y, width - x), 8: (y, width - x)}.get(orientation, (x, y))  # fmt: skip


def turn_box(
    x: float, y: float, w: float, h: float, orientation: int, width: float = 1.0, height: float = 1.0
) -> tuple[float, float, float, float]:
    """A box by its corner of smallest x and y, and its size -> that of the upright picture."""
    one, other = turn_point(x, y, orientation, width, height), turn_point(x + w, y + h, orientation, width, height)
    corner = min(one[0], other[0]), min(one[1], other[1])
    return *corner, *((h, w) if orientation >= 5 else (w, h))


def turn_subject(values: Sequence[int], orientation: int, size: tuple[int, int]) -> list:
    """EXIF's subject area (a point, a circle or a box by its middle, in pixels) of the upright picture."""
    rest = list(values[2:])
    if len(rest) == 2 and orientation >= 5:
        rest.reverse()
    width, height = size
    return [*turn_point(values[0], values[1], orientation, width - 1, height - 1), *rest]
