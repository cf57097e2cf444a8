"""`.dtstyle` styles of darktable: its module lut 3D, with a `.cube` file that lies beside."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn
from xml.sax.saxutils import escape

from . import cube

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

BESIDE = ".cube"
_PARAMETERS = struct.Struct("<512s3i12288s128s")  # version 3: path, colour space, interpolation, nodes, table, name
_SRGB, _TETRAHEDRAL = 0, 0
_STYLE = """<?xml version="1.0" encoding="UTF-8"?>
<darktable_style version="1.0"><info><name>{name}</name><description>{about}</description></info><style><plugin>
<num>0</num><module>3</module><operation>lut3d</operation><op_params>{parameters}</op_params><enabled>1</enabled>
<blendop_params></blendop_params><blendop_version>0</blendop_version><multi_priority>0</multi_priority>
<multi_name></multi_name></plugin></style></darktable_style>
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
    file.write(_STYLE.format(name=title, about=escape(about), parameters=parameters).encode())


def read(path: Path) -> NoReturn:
    raise ValueError("is a style, which is only written: load the table beside it")
