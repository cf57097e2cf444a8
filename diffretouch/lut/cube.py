"""`.cube` files (Adobe Cube LUT 1.0): text, red runs fastest."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

SMALLEST, LARGEST = 2, 256  # nodes on an edge, as the format has it


def write(lut: "Lut3D", path: Path, file: BinaryIO) -> None:
    """Write a [`Lut3D`] into a binary file."""
    header = []
    if lut.title:
        title = " ".join("".join(c if c.isprintable() and c != '"' else " " for c in lut.title).split())
        header.append(f'TITLE "{title}"')
    if lut.error is not None:
        header.append(f"# Against the retouch it was made from: {lut.error}")
    header.append(f"LUT_3D_SIZE {lut.size}")
    for name, edge, usual in (("MIN", lut.domain_min, 0.0), ("MAX", lut.domain_max, 1.0)):
        if any(value != usual for value in edge):
            header.append(f"DOMAIN_{name} " + " ".join(f"{value:.9f}" for value in edge))
    file.write(("\n".join(header) + "\n").encode())
    for blue in lut.table:
        nodes = blue.reshape(-1)
        file.write(("%.8f %.8f %.8f\n" * (len(nodes) // 3) % tuple(nodes.tolist())).encode())


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title; errors without the path, which `Lut3D.load` names."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        try:
            size, low, high, title, first = _read_header(file)
            # Never more lines than it should have, so that a wrong size costs no memory
            lines = (line for line in itertools.chain([first], file) if line.split("#")[0].strip())
            nodes = np.loadtxt(itertools.islice(lines, size**3 + 1), np.float64, comments="#", ndmin=2)
        except ValueError as error:
            raise ValueError(f"is no 3-D .cube file: {str(error).split(';')[0].rstrip('.')}") from error
    if nodes.shape != (size**3, 3):
        more = "more" if len(nodes) > size**3 else str(len(nodes))
        raise ValueError(
            f"says LUT_3D_SIZE {size}, which is {size**3} lines of 3 numbers, and has {more} of {nodes.shape[1]}"
        )
    if not np.isfinite(nodes).all():
        line = int(np.flatnonzero(~np.isfinite(nodes).all(1))[0])
        raise ValueError(f"has NaN or infinity in line {line + 1} of its colours")
    if not (np.abs(nodes) < 1e30).all():
        raise ValueError("has colours beyond all bounds")
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"has an empty domain, {low} to {high}")
    return nodes.reshape(size, size, size, 3), low, high, title


def _read_header(file):
    """Lines of a `.cube` file up to its first colour -> size, domain_min, domain_max, title, that line."""
    size, low, high, title = None, (0.0,) * 3, (1.0,) * 3, ""
    for number, line in enumerate(file, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0].upper()
        if keyword[0] in "+-.0123456789" or keyword in ("NAN", "INF", "INFINITY"):
            if size is None:
                raise ValueError(f"line {number} has colours and no line before says LUT_3D_SIZE")
            return size, low, high, title, line
        if keyword == "TITLE":
            title = line.strip()[5:].strip().strip('"')
        elif keyword == "LUT_3D_SIZE":
            if size is not None or len(words) != 2 or not words[1].isdecimal():
                raise ValueError(f"line {number} is no size, or not the only one")
            size = int(words[1])
            if not SMALLEST <= size <= LARGEST:
                raise ValueError(f"LUT_3D_SIZE must be {SMALLEST} to {LARGEST}, it says {size}")
        elif keyword in ("DOMAIN_MIN", "DOMAIN_MAX", "LUT_3D_INPUT_RANGE"):
            values = _numbers(words[1:], 2 if keyword == "LUT_3D_INPUT_RANGE" else 3, number)
            if keyword == "LUT_3D_INPUT_RANGE":
                low, high = (values[0],) * 3, (values[1],) * 3
            elif keyword == "DOMAIN_MIN":
                low = values
            else:
                high = values
        elif keyword.startswith("LUT_1D"):
            raise ValueError(f"it holds a 1-D table (line {number}), one curve per channel")
        else:
            raise ValueError(f"line {number} says {words[0][:40]!r}, which is not known")
    raise ValueError("it has no colours")


def _numbers(words, count, number):
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"line {number} must have {count} finite numbers")
    return values
