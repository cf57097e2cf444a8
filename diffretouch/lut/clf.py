"""`.clf` files (Academy Common LUT Format, SMPTE ST 2136-1) through OpenColorIO."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

_LARGEST = 256 << 20  # bytes; 129 nodes on an edge, the most there are, take 60 million
MOST_NODES = 129


def write(lut: "Lut3D", path: Path, file: BinaryIO) -> None:
    """Write a [`Lut3D`] over [0,1]."""
    ocio = _ocio()
    transform = ocio.Lut3DTransform(gridSize=lut.size)
    transform.setData(lut.table.transpose(2, 1, 0, 3).ravel())  # blue runs fastest
    transform.setInterpolation(ocio.INTERP_TETRAHEDRAL)
    transform.setFileOutputBitDepth(ocio.BIT_DEPTH_F32)
    group = ocio.GroupTransform([transform])
    group.getFormatMetadata().setName(lut.title or path.stem)
    if lut.error is not None:
        group.getFormatMetadata().addChildElement("Description", f"Against the retouch it was made from: {lut.error}")
    with tempfile.TemporaryDirectory() as folder:
        whole = os.path.join(folder, "look.clf")
        group.write("Academy/ASC Common LUT Format", whole, ocio.Config.CreateRaw())
        with open(whole, "rb") as written:
            file.write(written.read())


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title."""
    ocio = _ocio()
    with open(path, "rb") as file:
        start = file.read(4096)
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise ValueError(f"is no .clf file: it has more than {_LARGEST} bytes")
    if b"<!DOCTYPE" in start:
        raise ValueError("is no .clf file: it has a document type")
    try:
        processor = ocio.Config.CreateRaw().getProcessor(ocio.FileTransform(str(path)))
        group = processor.createGroupTransform()
    except ocio.Exception as error:
        raise ValueError(
            f"is no .clf file that OpenColorIO reads: {' '.join(str(error).split()).rstrip('.')}"
        ) from error
    nodes = list(group)
    if len(nodes) != 1 or not isinstance(nodes[0], ocio.Lut3DTransform):
        kinds = ", ".join(type(node).__name__.removesuffix("Transform") for node in nodes) or "none"
        raise ValueError(f"must hold one node, a LUT3D; it has {kinds}")
    size = nodes[0].getGridSize()
    table = np.asarray(nodes[0].getData(), np.float32).reshape(size, size, size, 3).transpose(2, 1, 0, 3)
    return table, (0.0,) * 3, (1.0,) * 3, group.getFormatMetadata().getName()


def _ocio():
    try:
        import PyOpenColorIO
    except ImportError as error:
        raise ValueError("needs OpenColorIO: pip install 'diffretouch[looks]'") from error
    return PyOpenColorIO
