"""`.dtstyle` styles of darktable: its module lut 3D, with a table that lies beside."""

import base64
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from . import cube, flame, hald
from .xml_files import walk

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

BESIDE = ".cube"
_VERSION = 3
_PARAMETERS = struct.Struct("<512s3i12288s128s")  # path, colour space, interpolation, nodes, table, name
_SRGB, _TETRAHEDRAL = 0, 0
_TABLES = {".cube": cube, ".3dl": flame, ".png": hald}  # that lut 3D opens
_STYLE = """<?xml version="1.0" encoding="UTF-8"?>
<darktable_style version="1.0"><info><name>{name}</name><description>{about}</description></info><style><plugin>
<num>0</num><module>{version}</module><operation>lut3d</operation><op_params>{parameters}</op_params>
<enabled>1</enabled><blendop_params></blendop_params><blendop_version>0</blendop_version>
<multi_priority>0</multi_priority><multi_name></multi_name></plugin></style></darktable_style>
"""


def write(lut: "Lut3D", path: Path, file: BinaryIO, beside: BinaryIO) -> None:
    """Write the style and its table, which darktable looks for in the folder that its preferences name."""
    name = path.with_suffix(BESIDE).name.encode()
    if len(name) > 511:
        raise ValueError(f"`path`: darktable holds names of at most 511 bytes, got {path.name!r}.")
    cube.write(lut, path, beside)
    parameters = _PARAMETERS.pack(name, _SRGB, _TETRAHEDRAL, 0, b"", b"").hex()
    about = f"Against the retouch it was made from: {lut.error}" if lut.error else ""
    title = escape(lut.title or path.stem)
    style = _STYLE.format(name=title, about=escape(about), version=_VERSION, parameters=parameters)
    file.write(style.encode())


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title. The table must lie beside the style."""
    title, modules = _parse(path)
    found = [said for said in modules if said.get("operation") == "lut3d" and said.get("enabled") == "1"]
    if len(found) != 1:
        raise ValueError(f"must hold one enabled module lut 3D, it has {len(found)}")
    version = found[0].get("module", "").strip()
    if version != str(_VERSION):
        raise ValueError(f"holds lut 3D in version {version[:20]!r}, only {_VERSION} can be read")
    name, space, _, nodes, _, _ = _PARAMETERS.unpack(_decoded(found[0].get("op_params", "").strip()))
    name = name.split(b"\0")[0].decode(errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    if space != _SRGB:
        raise ValueError(f"holds a table for colour space {space} of lut 3D, only sRGB (0) can be read")
    beside = path.parent / name
    if nodes or beside.suffix.lower() not in _TABLES:
        raise ValueError(f"must name a table in {', '.join(_TABLES)}, it names {name!r}")
    if not beside.is_file():
        raise ValueError(f"names the table {name!r}, which does not lie beside it")
    table, low, high, _ = _TABLES[beside.suffix.lower()].read(beside)
    return table, low, high, title


def _decoded(text):
    """Parameters as darktable writes them: in hexadecimal, or compressed (`gz`, two digits, base 64)."""
    try:
        if text.startswith("gz"):
            data = zlib.decompressobj().decompress(base64.b64decode(text[4:], validate=True), _PARAMETERS.size + 1)
        else:
            data = bytes.fromhex(text)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"is damaged: its parameters cannot be read ({error})") from error
    if len(data) != _PARAMETERS.size:
        raise ValueError(f"is cut off: lut 3D has {_PARAMETERS.size} bytes of parameters, here are {len(data)}")
    return data


def _parse(path):
    """-> (the style's name, a dict of the texts in each plugin)."""
    modules, title = [], []

    def start(inside, _):
        if inside[-1] == "plugin":
            modules.append({})

    def text(inside, part):
        if inside[-2:] == ["info", "name"]:
            title.append(part)
        elif inside[-2:-1] == ["plugin"]:
            modules[-1][inside[-1]] = modules[-1].get(inside[-1], "") + part

    walk(path, "style of darktable", start, text)
    return "".join(title).strip(), modules
