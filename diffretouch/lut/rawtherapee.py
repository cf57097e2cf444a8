"""`.pp3` profiles of RawTherapee: film simulation by a Hald image that lies beside."""

import configparser
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from . import hald

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

BESIDE = ".png"


def write(lut: "Lut3D", path: Path, file: BinaryIO, beside: BinaryIO, strength: float = 1.0) -> None:
    """Write the profile and its Hald image; `strength` in [0,1] stands in the profile, where it can be moved."""
    hald.write(lut, path.with_suffix(BESIDE), beside)
    file.write(f"[Film Simulation]\nEnabled=true\nClutFilename={path.with_suffix(BESIDE).name}\n"
               f"Strength={round(100 * strength)}\n".encode())  # fmt: skip


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3) at the profile's strength, domain_min, domain_max, title. The image must lie beside."""
    profile = configparser.RawConfigParser(strict=False)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            profile.read_string(file.read(1 << 20))
        said = profile["Film Simulation"] if "Film Simulation" in profile else {}
        name, strength = said.get("ClutFilename", ""), float(said.get("Strength", 100))
    except (configparser.Error, ValueError) as error:
        raise ValueError(f"is no profile of RawTherapee: {' '.join(str(error).split())}") from error
    if said.get("Enabled", "").lower() != "true" or not name or not 0 <= strength <= 100:
        raise ValueError("has no film simulation with a ClutFilename and a Strength from 0 to 100")
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    if not (path.parent / name).is_file():
        raise ValueError(f"names the Hald image {name!r}, which does not lie beside it")
    table, low, high, _ = hald.read(path.parent / name)
    nodes = hald.lut_nodes(len(table)).reshape(table.shape)
    return nodes + np.float32(strength / 100) * (table - nodes), low, high, path.stem
