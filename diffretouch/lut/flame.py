"""`.3dl` files of Autodesk: mesh points, then whole numbers, blue fastest.

Written is Flame's kind, of 12 bits; read is also Lustre's, which says nodes and bits before (`Mesh 5 12`).
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

SIZES = (17, 33, 65)  # nodes on an edge that these programs take
_MOST = 129  # that are read
_BITS = 12
_DEPTHS = (8, 10, 12, 14, 16)


def write(lut: "Lut3D", path: Path, file: BinaryIO) -> None:
    """Write a [`Lut3D`] over [0,1], clipped to it.

    Raises:
        ValueError: no colour of it is brighter than half of white: readers would take it for one of fewer bits.
    """
    white = 2**_BITS - 1
    codes = np.rint(lut.table.clip(0, 1) * white).astype(int)
    if codes.max() <= white / 2:
        raise ValueError(
            f"`path`: a .3dl file tells its bits by its brightest colour, and this look has none above "
            f"{codes.max() / white:.2f}; 0.5 is needed, save it as .cube."
        )
    about = [lut.title] if lut.title else []
    about += [f"Against the retouch it was made from: {lut.error}"] if lut.error else []
    lines = ["# " + " ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in about]
    lines.append(" ".join(str(round(1023 * i / (lut.size - 1))) for i in range(lut.size)))
    file.write(("\n".join(lines) + "\n").encode())
    for red in codes.transpose(2, 1, 0, 3):  # blue runs fastest
        nodes = red.reshape(-1)
        file.write(("%d %d %d\n" * (len(nodes) // 3) % tuple(nodes.tolist())).encode())


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title; errors without the path, which `Lut3D.load` names."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = ((number, line.split("#")[0].split()) for number, line in enumerate(file, 1))
        lines = ((number, words) for number, words in lines if words and not words[0].startswith("<"))
        size, bits, first = _read_header(lines)
        most = size**3 if size else _MOST**3
        body = (" ".join(words) for words in _colours(lines, first))
        try:
            codes = np.loadtxt(itertools.islice(body, most + 1), np.float64, ndmin=2)
        except ValueError as error:
            raise ValueError(f"is no .3dl file: {str(error).split(';')[0].rstrip('.')}") from error
    size = size or round(len(codes) ** (1 / 3))
    if codes.shape != (size**3, 3) or not 2 <= size <= _MOST:
        found = f"more than {most}" if len(codes) > most else str(len(codes))
        raise ValueError(f"is cut off or no table: {size} nodes on an edge are {size**3} colours, it has {found}")
    if not np.isfinite(codes).all() or (codes < 0).any() or (codes % 1).any():
        raise ValueError("has colours that are not whole numbers from 0")
    brightest = codes.max()
    bits = bits or next((depth for depth in _DEPTHS if brightest < 2 ** (depth + 1)), 16)  # as OpenColorIO guesses
    if brightest >= 2**bits:
        raise ValueError(f"has a colour of {brightest:.0f}, more than {bits} bits hold")
    table = codes.reshape(size, size, size, 3).transpose(2, 1, 0, 3) / (2**bits - 1)
    return table, (0.0,) * 3, (1.0,) * 3, ""


def _read_header(lines):
    """Up to the first colour -> nodes on an edge and bits (None: not said), the first colour (number, words)."""
    size = bits = None
    for number, words in lines:
        keyword = words[0].upper()
        if keyword == "3DMESH" and len(words) == 1:
            continue
        if keyword == "MESH":
            if len(words) != 3 or not all(word.isdecimal() for word in words[1:]):
                raise ValueError(f"is no .3dl file: line {number} must be Mesh and two whole numbers")
            power, bits = (int(word) for word in words[1:])
            if not 1 <= power <= 7 or bits not in _DEPTHS:
                raise ValueError(f"is no .3dl file: line {number} says Mesh {power} {bits}, 1 to 7 and 8 to 16 can be")
            size = 2**power + 1
        elif len(words) == 3 and size != 3:
            return size, bits, (number, words)
        else:
            _check_mesh(words, number, size)
            first = next(lines, None)
            if first is None:
                break
            return len(words), bits, first
    raise ValueError("is no .3dl file: it has no colours")


def _check_mesh(words, number, size):
    """The mesh points must be even over the whole range: others are a curve before the table."""
    if not all(word.isdecimal() and len(word) < 7 for word in words):
        raise ValueError(f"is no .3dl file: line {number} says {words[0][:40]!r}, which is not known")
    points = np.array([int(word) for word in words])
    if not 2 <= len(points) <= _MOST or (size and len(points) != size):
        raise ValueError(f"is no .3dl file: line {number} has {len(points)} mesh points")
    even = np.linspace(0, points[-1], len(points))
    if points[-1] not in [2**depth - less for depth in _DEPTHS for less in (0, 1)] or abs(points - even).max() > 1.5:
        raise ValueError(f"has mesh points in line {number} that are not even, from 0 to white: a curve before it")


def _colours(lines, first):
    """The words of each colour's line, and nothing after them but Lustre's two last lines."""
    ended = False
    for number, words in itertools.chain([first], lines):
        keyword = words[0].upper()
        if keyword.startswith("LUT") and len(words) == 1 and not ended:
            ended = True
        elif ended and keyword == "GAMMA" and words[1:] == ["1.0"]:
            continue
        elif ended or keyword == "GAMMA":
            raise ValueError(f"line {number} says {' '.join(words)[:40]!r} after the colours")
        else:
            yield words
