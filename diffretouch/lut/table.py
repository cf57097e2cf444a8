"""A three-dimensional colour lookup table, applied to photos."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffretouch.models.kernels import flat, in_threads, kernel, strips, write_strip
from diffretouch.pixels import OnePhoto, SamePhoto, as_float, check_strength, one_photo, retouch_one

from .cube import LARGEST, SMALLEST
from .files import read_lut, write_lut
from .hald import as_levels, hald_identity, hald_table
from .lookup import look_up, lut_nodes

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

INTERPOLATIONS = ("tetrahedral", "trilinear")


@dataclass
class LutError:
    """How far the table's photo is from the pipeline's, both clamped to [0,1], on the photo it was baked from.

    Args:
        mean, max (`float`): difference of a channel in levels of 255.
        delta_e (`float`): mean CIE 1976 colour difference.
        exact (`bool`): the retouch is one colour function, so that the error is interpolation alone; else it is also
            what no lookup table can hold, the difference between places.
    """

    mean: float
    max: float
    delta_e: float
    exact: bool

    def __str__(self):
        why = "interpolation alone" if self.exact else "interpolation, and local changes that no table can hold"
        return f"mean {self.mean:.2f}, worst {self.max:.1f} levels of 255, dE76 {self.delta_e:.2f} ({why})"


@dataclass
class Lut3D:
    """A three-dimensional colour lookup table.

    Args:
        table (`numpy.ndarray`): (N,N,N,3) float32, N in 2..256: `table[b, g, r]` is the colour (R, G, B) that becomes
            of the node with these indices. Values are not limited to [0,1]: what is clamped is the result.
        domain_min, domain_max (3 `float`): the colours of the first and the last node of each channel. Colours beyond
            are taken to the domain's edge.
        title (`str`): one line, for files.
        error ([`LutError`], *optional*): of a baked table.
    """

    table: np.ndarray
    domain_min: tuple = (0.0, 0.0, 0.0)
    domain_max: tuple = (1.0, 1.0, 1.0)
    title: str = ""
    error: LutError | None = field(default=None, compare=False)

    def __post_init__(self):
        self.table = np.ascontiguousarray(self.table, np.float32)
        size = len(self.table) if self.table.ndim else 0
        if self.table.shape != (size, size, size, 3) or not SMALLEST <= size <= LARGEST:
            raise ValueError(
                f"`table` must have shape (N,N,N,3) with N in {SMALLEST}..{LARGEST}, got {self.table.shape}."
            )
        if not np.isfinite(self.table).all():
            raise ValueError("`table` must be finite, got NaN or infinite colours.")
        self.domain_min, self.domain_max = (
            tuple(float(v) for v in edge) for edge in (self.domain_min, self.domain_max)
        )
        edges = np.array([self.domain_min, self.domain_max]) if len(self.domain_min) == len(self.domain_max) else None
        if edges is None or edges.shape != (2, 3) or not np.isfinite(edges).all() or (edges[0] >= edges[1]).any():
            raise ValueError(
                "`domain_min` and `domain_max` must be three finite numbers each, the first smaller, got "
                f"{self.domain_min} and {self.domain_max}."
            )

    @property
    def size(self) -> int:
        """Nodes on an edge."""
        return len(self.table)

    def __eq__(self, other):
        if not isinstance(other, Lut3D):
            return NotImplemented
        same_domain = (self.domain_min, self.domain_max) == (other.domain_min, other.domain_max)
        return same_domain and self.title == other.title and np.array_equal(self.table, other.table)

    def at_strength(self, strength: float) -> "Lut3D":
        """The table of a weaker (0: the photo as it is) or stronger (up to 2) look."""
        check_strength(strength)
        nodes = lut_nodes(self.size, self.domain_min, self.domain_max).reshape(self.table.shape)
        return Lut3D(nodes + np.float32(strength) * (self.table - nodes), self.domain_min, self.domain_max, self.title)

    def apply(
        self, image: SamePhoto, *, interpolation: str = "tetrahedral", out: np.ndarray | None = None
    ) -> SamePhoto:
        """Look up every pixel of a photo, in strips and threads.

        Args:
            image: one photo: a PIL image, an (H,W,3) array of uint8, uint16 or float in [0,1], also memory-mapped, or
                a (3,H,W) float tensor in [0,1].
            interpolation (`str`): "tetrahedral" (four nodes; greys depend on the table's greys alone) or "trilinear"
                (eight nodes).
            out (array, *optional*): written to instead of a new array, for array input; it may be `image` itself.

        Returns:
            The photo in the form it came: PIL image, array of the same dtype, or float32 tensor. Integers are rounded
            and limited to their range; floats are not limited.

        Raises:
            TypeError, ValueError: an argument that is not as said here, named.
        """
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}.")
        return retouch_one(lambda photo, _, out: self._look_up(photo, interpolation, out), image, 1.0, out)

    def _look_up(self, photo, interpolation, out):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        if torch.is_tensor(photo):
            source = photo.detach().float().cpu()
            result = torch.empty_like(source)
            self._apply(source.permute(1, 2, 0).numpy(), result.permute(1, 2, 0).numpy(), interpolation)
            return result.to(photo.device)
        result = np.empty(photo.shape, photo.dtype.newbyteorder("=")) if out is None else out
        self._apply(photo, result, interpolation)
        return result

    def _apply(self, photo, result, interpolation):
        white = 1.0 if photo.dtype.kind == "f" else float(np.iinfo(photo.dtype).max)
        integer, edge = photo.dtype.kind != "f", self.size - 1
        low, high = np.array(self.domain_min), np.array(self.domain_max)
        table = np.zeros((self.size**3, 4), np.float32)  # a fourth lane, so that a node is one vector
        table[:, :3] = self.table.reshape(-1, 3) * np.float32(white)
        scale, offset = (edge / (high - low) / white).astype(np.float32), (-low * edge / (high - low))
        name = photo.dtype.newbyteorder("=").name
        compiled = kernel(
            look_up,
            *((name, 1, True), (name, 1, False), ("float32", 1, True), "int64", ("float32", 1, True)),
            *(("float32", 1, True), "boolean", "float32", "float32", "float32"),
        )
        limits = (0.5, 0.0, white) if integer else (0.0, -np.inf, np.inf)
        constants = (
            *(table.reshape(-1), self.size, scale, offset.astype(np.float32)),
            *(interpolation == "tetrahedral", *(np.float32(limit) for limit in limits)),
        )

        def work(rows):
            write_strip(result, rows, lambda numbers: compiled(flat(photo[rows]), numbers, *constants))

        in_threads(work, strips(*photo.shape[:2]))

    def resized(self, size: int) -> "Lut3D":
        """The look with another number of nodes on an edge, over [0,1]: looked up at these nodes."""
        nodes = lut_nodes(size).reshape(size * size, size, 3)
        return Lut3D(self.apply(nodes).reshape(size, size, size, 3), title=self.title, error=self.error)

    def save(self, path: str | os.PathLike[str], *, strength: float = 1.0, overwrite: bool = False) -> None:
        """Write the look for other software, in the format that the name's suffix says (see docs/looks.md).

        * `.cube` (Adobe Cube LUT 1.0): grading software, ffmpeg. `.clf` (Common LUT Format): through OpenColorIO.
        * `.3dl` of Flame, Lustre and Nuke, with 17, 33 or 65 nodes and 12 bits.
        * `.xmp`: a profile of Lightroom and Camera Raw, of at most 32 nodes.
        * `.pp3` of RawTherapee, beside its Hald image `.png`; `.dtstyle` of darktable, beside its table `.cube`.
        * `.png`, `.tif`: a Hald image of 16 bits, with 4, 9, 16, ... nodes on an edge.

        Another number of nodes, or a domain that the format does not know, is told in a warning.

        Args:
            strength (`float`): in [0,2]; as the profile's own control where it has one (`.pp3`), else in the table.

        Raises:
            ValueError: the name ends in something else; what a format needs is not installed; the look is too dark for
                a `.3dl`, which tells its bits by its brightest colour.
            FileExistsError: a file exists and `overwrite` is not given.
            OSError: it cannot be written; then there is no half file.
        """
        check_strength(strength)
        write_lut(self, path, strength=strength, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Lut3D":
        """Read a look: `.cube`, `.clf` with one 3-D table, `.3dl`, `.xmp` profiles in sRGB, `.pp3` and `.dtstyle` with
        the table beside, Hald images.

        Raises:
            ValueError: the file is none of these, or not a whole one: what is wrong, in `.cube` files in which line.
            OSError: it cannot be read.
        """
        return cls(*read_lut(path))

    def hald(self, level: int = 8, dtype: "DTypeLike" = np.uint16) -> np.ndarray:
        """This look as a Hald image (level**3, level**3, 3) uint8, uint16 or float32, for software without `.cube`."""
        hald_identity(level, dtype)  # raises
        return as_levels(self.apply(hald_identity(level, np.float32)), np.dtype(dtype))

    @classmethod
    def from_hald(cls, image: OnePhoto, title: str = "") -> "Lut3D":
        """The look that a Hald image holds: what any software made of `hald_identity`.

        Args:
            image: one photo in any form that `apply` takes, square with a side of level**3, level 2 to 16.
        """
        photo, _ = one_photo(image)
        photo = photo.detach().float().cpu().permute(1, 2, 0).numpy() if torch.is_tensor(photo) else photo
        try:
            return cls(hald_table(as_float(np.ascontiguousarray(photo))), title=title)
        except ValueError as error:
            raise ValueError(f"`image` {error}.") from error
