"""A retouch as a colour lookup table: baked from a pipeline, applied, in and out as `.cube` file or Hald image."""

import itertools
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from diffretouch.colour.lab import srgb_to_lab
from diffretouch.kernels import flat, in_threads, kernel, strips, write_strip
from diffretouch.models.affine_grid import identity_grid
from diffretouch.pixels import as_float, as_photos, as_tensor, check_strength, shrink

SMALLEST, LARGEST = 2, 256  # nodes on an edge, as the format of `.cube` files has it (Adobe Cube LUT 1.0)
INTERPOLATIONS = ("tetrahedral", "trilinear")
DOMAINS = ("full", "photo")


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
    def size(self):
        """Nodes on an edge."""
        return len(self.table)

    def __eq__(self, other):
        if not isinstance(other, Lut3D):
            return NotImplemented
        same_domain = (self.domain_min, self.domain_max) == (other.domain_min, other.domain_max)
        return same_domain and self.title == other.title and np.array_equal(self.table, other.table)

    def at_strength(self, strength):
        """The table of a weaker (0: the photo as it is) or stronger (up to 2) look."""
        check_strength(strength)
        nodes = lut_nodes(self.size, self.domain_min, self.domain_max).reshape(self.table.shape)
        return Lut3D(nodes + np.float32(strength) * (self.table - nodes), self.domain_min, self.domain_max, self.title)

    def apply(self, image, *, interpolation="tetrahedral", out=None):
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
        """
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}.")
        photo = _one_photo(image)
        batched = getattr(image, "ndim", 3) == 4
        if torch.is_tensor(photo):
            source = photo.detach().float().cpu()
            result = torch.empty_like(source)
            self._apply(source.permute(1, 2, 0).numpy(), result.permute(1, 2, 0).numpy(), interpolation)
            result = result.to(photo.device)
            return result[None] if batched else result
        if out is None:
            result = np.empty(photo.shape, photo.dtype.newbyteorder("="))
        elif out.shape != np.shape(image) or out.dtype != photo.dtype or not out.flags.writeable:
            raise ValueError(
                f"`out` must be a writeable {photo.dtype} array {np.shape(image)}, got {out.dtype} {out.shape}."
            )
        else:
            result = out[0] if batched else out
            if np.may_share_memory(photo, result) and photo.ctypes.data != result.ctypes.data:
                raise ValueError("`out` must be `image` itself or lie apart from it, got one that partly overlaps it.")
        self._apply(photo, result, interpolation)
        if isinstance(image, PIL.Image.Image):
            return PIL.Image.fromarray(result)
        return out if out is not None else result[None] if batched else result

    def _apply(self, photo, result, interpolation):
        white = 1.0 if photo.dtype.kind == "f" else float(np.iinfo(photo.dtype).max)
        integer, edge = photo.dtype.kind != "f", self.size - 1
        low, high = np.array(self.domain_min), np.array(self.domain_max)
        table = np.zeros((self.size**3, 4), np.float32)  # a fourth lane, so that a node is one vector
        table[:, :3] = self.table.reshape(-1, 3) * np.float32(white)
        scale, offset = (edge / (high - low) / white).astype(np.float32), (-low * edge / (high - low))
        name = photo.dtype.newbyteorder("=").name
        look_up = kernel(
            _look_up,
            *((name, 1, True), (name, 1, False), ("float32", 1, True), "int64", ("float32", 1, True)),
            *(("float32", 1, True), "boolean", "float32", "float32", "float32"),
        )
        limits = (0.5, 0.0, white) if integer else (0.0, -np.inf, np.inf)
        constants = (
            *(table.reshape(-1), self.size, scale, offset.astype(np.float32)),
            *(interpolation == "tetrahedral", *(np.float32(limit) for limit in limits)),
        )

        def work(rows):
            write_strip(result, rows, lambda numbers: look_up(flat(photo[rows]), numbers, *constants))

        in_threads(work, strips(*photo.shape[:2]))

    def save(self, path, *, overwrite=False):
        """Write a `.cube` file (Adobe Cube LUT 1.0: red runs fastest), which grading software reads.

        Raises:
            ValueError: the name does not end in .cube.
            FileExistsError: the file exists and `overwrite` is not given.
            OSError: it cannot be written; then there is no half file.
        """
        path = Path(path)
        if path.suffix.lower() != ".cube":
            raise ValueError(f"`path` must end in .cube, got {path}.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"`path`: {path} exists; `overwrite=True` replaces it.")
        header = []
        if self.title:
            title = " ".join("".join(c if c.isprintable() and c != '"' else " " for c in self.title).split())
            header.append(f'TITLE "{title}"')
        if self.error is not None:
            header.append(f"# Against the retouch it was made from: {self.error}")
        header.append(f"LUT_3D_SIZE {self.size}")
        for name, edge, usual in (("MIN", self.domain_min, 0.0), ("MAX", self.domain_max, 1.0)):
            if any(value != usual for value in edge):
                header.append(f"DOMAIN_{name} " + " ".join(f"{value:.9f}" for value in edge))
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write("\n".join(header) + "\n")
                for blue in self.table:
                    nodes = blue.reshape(-1)
                    file.write("%.8f %.8f %.8f\n" * (len(nodes) // 3) % tuple(nodes.tolist()))
            os.chmod(aside, 0o666 & ~_umask())
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise

    @classmethod
    def load(cls, path):
        """Read a three-dimensional `.cube` file: comments, DOMAIN_MIN and _MAX, LUT_3D_INPUT_RANGE, any line ends.

        Raises:
            ValueError: the file is no 3-D `.cube` file, or not a whole one: it names the line where it can.
            OSError: it cannot be read.
        """
        path = Path(path)
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            try:
                size, low, high, title, first = _read_header(file)
                # Never more lines than it should have, so that a wrong size costs no memory
                nodes = np.loadtxt(
                    itertools.chain([first], file), np.float64, comments="#", ndmin=2, max_rows=size**3 + 1
                )
            except ValueError as error:
                reason = str(error).split(";")[0].rstrip(".")
                raise ValueError(f"`path`: {path} is no 3-D .cube file: {reason}.") from error
        if nodes.shape != (size**3, 3):
            more = "more" if len(nodes) > size**3 else str(len(nodes))
            raise ValueError(
                f"`path`: {path} says LUT_3D_SIZE {size}, which is {size**3} lines of 3 numbers, and has {more} of "
                f"{nodes.shape[1]}."
            )
        if not np.isfinite(nodes).all():
            line = int(np.flatnonzero(~np.isfinite(nodes).all(1))[0])
            raise ValueError(f"`path`: {path} has NaN or infinity in line {line + 1} of its colours.")
        if not (np.abs(nodes) < 1e30).all():
            raise ValueError(f"`path`: {path} has colours beyond all bounds.")
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"`path`: {path} has an empty domain, {low} to {high}.")
        return cls(nodes.reshape(size, size, size, 3), low, high, title)

    def hald(self, level=8, dtype=np.uint16):
        """This look as a Hald image (level**3, level**3, 3) uint8, uint16 or float32, for software without `.cube`."""
        _check_hald(level, dtype)
        return _as_levels(self.apply(hald_identity(level, np.float32)), np.dtype(dtype))

    @classmethod
    def from_hald(cls, image, title=""):
        """The look that a Hald image holds: what any software made of `hald_identity`.

        Args:
            image: one photo in any form that `apply` takes, square with a side of level**3, level 2 to 16.
        """
        photo = _one_photo(image)
        photo = photo.detach().float().cpu().permute(1, 2, 0).numpy() if torch.is_tensor(photo) else photo
        level = round(photo.shape[0] ** (1 / 3))
        if photo.shape[:2] != (level**3, level**3) or not 2 <= level <= 16:
            raise ValueError(
                f"`image` must be a Hald image, square with a side of level**3 (level 2 to 16), got {photo.shape[:2]}."
            )
        return cls(as_float(np.ascontiguousarray(photo)).reshape(level**2, level**2, level**2, 3), title=title)


def lut_nodes(size, domain_min=(0, 0, 0), domain_max=(1, 1, 1)):
    """The colours of a table's nodes, (size**3, 3) float32: red runs fastest, then green, then blue."""
    axes = [np.linspace(low, high, size) for low, high in zip(domain_min, domain_max, strict=True)]
    blue, green, red = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([red, green, blue], -1).reshape(-1, 3).astype(np.float32)


def hald_identity(level=8, dtype=np.uint16):
    """The Hald image that changes nothing, (level**3, level**3, 3): retouch it anywhere, then `Lut3D.from_hald`.

    Args:
        level (`int`): 2 to 16; the table has level**2 nodes on an edge.
        dtype: uint8, uint16 or float32.
    """
    _check_hald(level, dtype)
    return _as_levels(lut_nodes(level**2).reshape(level**3, level**3, 3), np.dtype(dtype))


def _check_hald(level, dtype):
    if isinstance(level, bool) or not isinstance(level, (int, np.integer)) or not 2 <= level <= 16:
        raise ValueError(f"`level` must be an integer in 2..16, got {level!r}.")
    if np.dtype(dtype) not in (np.uint8, np.uint16, np.float32):
        raise TypeError(f"`dtype` must be uint8, uint16 or float32, got {np.dtype(dtype)}.")


def _as_levels(colours, dtype):
    if dtype == np.float32:
        return colours
    return np.rint(np.clip(colours, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def bake_lut(pipeline, image, *, size=33, c=None, strength=1.0, domain="full", **call):
    """Turn a pipeline's retouch of one photo into a lookup table, for other software, for speed, for other photos.

    Of a CSRNet this is its colour function. A bilateral grid (or CSRNet-L) also differs between places, which a table
    cannot: then it is the table that comes closest on this photo (least squares, smooth where the photo has no
    colours). `Lut3D.error` says how close.

    Args:
        pipeline: a `DiffRetouchPipeline` or a `CSRNetPipeline`.
        image: one photo in any form that the pipeline takes.
        size (`int`): nodes on an edge, 2 to 256. 33 and 65 are common; 33 is up to 8 levels off, see `error`.
        c: attributes for a `DiffRetouchPipeline`, one row.
        strength (`float`): as in the pipelines.
        domain (`str`): "full" for [0,1]; "photo" for the range of the photo's own colours, which is finer, and wrong
            for photos with other ones.
        call: for the pipeline: `num_inference_steps` and `generator`, or `other` and `mix`.

    Returns:
        [`Lut3D`]: with nodes that are not clamped, and its `error` on this photo under tetrahedral interpolation.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not SMALLEST <= size <= LARGEST:
        raise ValueError(f"`size` must be an integer in {SMALLEST}..{LARGEST}, got {size!r}.")
    if domain not in DOMAINS:
        raise ValueError(f"`domain` must be one of {', '.join(DOMAINS)}, got {domain!r}.")
    check_strength(strength)
    photo = _one_photo(image)
    low, high = _colour_range(photo) if domain == "photo" else ((0.0,) * 3, (1.0,) * 3)
    nodes = torch.from_numpy(lut_nodes(int(size), low, high))

    # 1. The retouch of this photo: for colours alone, and for any photo in its stead
    if hasattr(pipeline, "colour_function"):
        if c is not None:
            raise ValueError(f"`c` is for a pipeline with attributes, not for {type(pipeline).__name__}.")
        exact = not any(p is not None and p.is_local for p in (pipeline, call.get("other")))
        colours = pipeline.colour_function(photo, strength=strength, **call)
        device = pipeline.device
        retouch = lambda picture: pipeline.retouch(picture, strength=strength, **call)  # noqa: E731
    elif hasattr(pipeline, "predict_grid"):
        grid = pipeline.predict_grid(photo, c, **call)
        if len(grid) != 1:
            raise ValueError(f"`c` must be one row for a table, got {len(grid)}.")
        exact, device = False, grid.device
        colours = _mean_grid_colours(pipeline.grid_head, grid, strength)
        retouch = lambda picture: pipeline.apply_grid(picture, grid, strength)  # noqa: E731
    else:
        raise TypeError(
            f"`pipeline` must be a DiffRetouchPipeline or a CSRNetPipeline, got {type(pipeline).__name__}."
        )

    # 2. The nodes
    with torch.no_grad():
        table = torch.cat([colours(chunk.to(device)).float().cpu() for chunk in nodes.split(1 << 15)])
    if not exact:
        small = shrink(as_tensor(photo), 512)[0]
        wanted = retouch(small).cpu()
        table = fit_table(table, small.reshape(3, -1).T, wanted.reshape(3, -1).T, low, high)
    lut = Lut3D(table.numpy().reshape(size, size, size, 3), low, high, title="diffretouch")

    # 3. What it costs
    local = not exact and photo.shape[-2 if torch.is_tensor(photo) else 0] * photo.shape[1] > 2**22
    shown = shrink(as_tensor(photo), 2048)[0] if local else photo
    lut.error = _difference(lut.apply(shown), retouch(shown), exact)
    return lut


def _mean_grid_colours(head, grid, strength):
    """The colour function of a bilateral grid's average over the places."""
    identity = identity_grid(1, device=grid.device)[:, :, :1, :1, :1]
    mean = torch.lerp(identity, grid.mean((3, 4), keepdim=True), float(strength))
    return lambda colours: head.apply_reference(mean, colours.T[None, :, :, None])[0, :, :, 0].T


def fit_table(start, colours, wanted, domain_min=(0, 0, 0), domain_max=(1, 1, 1), *, smoothness=0.3, pull=1e-3):
    """The table that takes colours closest to the wanted ones: least squares over its nodes.

    Minimised over the correction d of `start` is the sum over pixels of |table(colour) - wanted|^2, tetrahedral, plus
    `smoothness` times the squared differences of d between neighbouring nodes, plus `pull` |d|^2: where no colours
    are, the correction goes on smoothly. By conjugate gradients.

    Args:
        start (`torch.Tensor`): (N**3, 3), red fastest.
        colours, wanted (`torch.Tensor`): (P,3) in [0,1]; wanted colours need not be in [0,1].

    Returns:
        `torch.Tensor`: (N**3, 3) float32.
    """
    size = round(len(start) ** (1 / 3))
    nodes, weights = _tetrahedra(colours.double(), size, domain_min, domain_max)  # (P,4), (P,4)
    start = start.double()
    missing = wanted.double() - (start[nodes] * weights[..., None]).sum(1)
    pairs = torch.stack([nodes.repeat_interleave(4, 1).flatten(), nodes.repeat(1, 4).flatten()])
    products = (weights.repeat_interleave(4, 1) * weights.repeat(1, 4)).flatten()
    normal = torch.sparse_coo_tensor(pairs, products, (size**3,) * 2, check_invariants=False).coalesce()
    shares = (weights[..., None] * missing[:, None]).flatten(0, 1)
    right = torch.zeros_like(start).index_add_(0, nodes.flatten(), shares)

    def apply(d):
        smooth = torch.zeros_like(d).view(size, size, size, 3)
        cube = d.view(size, size, size, 3)
        for axis in range(3):
            step = cube.diff(dim=axis)
            smooth.narrow(axis, 1, size - 1).add_(step)
            smooth.narrow(axis, 0, size - 1).sub_(step)
        return normal @ d + smoothness * smooth.view_as(d) + pull * d

    diagonal = torch.zeros(size**3, dtype=torch.float64).index_add_(0, nodes.flatten(), weights.flatten().square())
    diagonal = (diagonal + 6 * smoothness + pull)[:, None]
    d = torch.zeros_like(start)
    rest = right
    direction = ahead = rest / diagonal
    product = (rest * ahead).sum(0)
    first = product.clamp(min=1e-30)
    for _ in range(400):
        moved = apply(direction)
        step = product / (direction * moved).sum(0).clamp(min=1e-30)
        d = d + step * direction
        rest = rest - step * moved
        ahead = rest / diagonal
        before, product = product, (rest * ahead).sum(0)
        if (product <= 1e-10 * first).all():
            break
        direction = ahead + product / before.clamp(min=1e-30) * direction
    return (start + d).float()


def _tetrahedra(colours, size, domain_min, domain_max):
    """Colours (P,3) -> the four nodes around each (P,4) and their weights (P,4), as the kernel finds them."""
    low, high = torch.tensor(domain_min).double(), torch.tensor(domain_max).double()
    position = ((colours - low) / (high - low) * (size - 1)).clamp(0, size - 1)
    cell = position.long().clamp(max=size - 2)
    order = (position - cell).sort(1, descending=True)
    strides = torch.tensor([1, size, size * size])
    fraction, steps = order.values, strides[order.indices]
    base = (cell * strides).sum(1)
    nodes = torch.stack([base, base + steps[:, 0], base + steps[:, :2].sum(1), base + steps.sum(1)], 1)
    r, g, b = fraction.unbind(1)
    return nodes, torch.stack([1 - r, r - g, g - b, b], 1)


def _difference(result, wanted, exact):
    """`LutError` between two photos of one form."""
    if torch.is_tensor(result):
        result, wanted = (x.detach().cpu().permute(1, 2, 0).numpy() for x in (result, wanted))
    elif isinstance(result, PIL.Image.Image):
        result, wanted = np.asarray(result), np.asarray(wanted)
    total, worst, delta, pixels = 0.0, 0.0, 0.0, 0
    levels = 255 if result.dtype.kind == "f" else 255 / np.iinfo(result.dtype).max
    thin = max(result.shape[0] * result.shape[1] // 2**20, 1)  # colour differences on every n-th row
    for rows in strips(*result.shape[:2]):
        a, b = (np.clip(x[rows].astype(np.float64) * levels, 0, 255) for x in (result, wanted))
        difference = np.abs(a - b)
        total, worst = total + float(difference.sum()), max(worst, float(difference.max()))
        a, b = (torch.from_numpy(x[::thin] / 255).permute(2, 0, 1)[None] for x in (a, b))
        delta += (srgb_to_lab(a) - srgb_to_lab(b)).square().sum(1).sqrt().sum().item()
        pixels += a.shape[2] * a.shape[3]
    return LutError(total / result.size, worst, delta / pixels, exact)


def _colour_range(photo):
    """The least and the greatest value of each channel in [0,1], at least a level of 255 apart."""
    if torch.is_tensor(photo):
        photo = photo.detach().float().cpu().permute(1, 2, 0).numpy()
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for rows in strips(*photo.shape[:2]):
        strip = photo[rows].reshape(-1, 3)
        low, high = np.minimum(low, strip.min(0)), np.maximum(high, strip.max(0))
    white = 1 if photo.dtype.kind == "f" else np.iinfo(photo.dtype).max
    low = low / white
    return tuple(low.tolist()), tuple(np.maximum(high / white, low + 1 / 255).tolist())


def _one_photo(image):
    photos = as_photos(image)
    if len(photos) != 1:
        raise ValueError(f"`image` must be one photo, got {len(photos)}.")
    return photos[0]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


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


_f32 = np.float32
_u64 = np.uint64
_LUT_CHUNK = 512  # pixels whose intermediate values stay in the first-level cache


# ruff: noqa: B023  (the function inside the kernel's loop is inlined where it stands)
def _look_up(pixels, out, table, size, scale, offset, tetrahedral, half, low, high):
    """Kernel: pixels (3n,) -> out (3n,). `table` is (size**3 * 4), in the photo's numbers; NaN ends in the first node.

    Loops over a chunk come apart so that each of them is vectorised; a node's lanes stand side by side.
    """
    total = pixels.shape[0] // 3
    cell = np.empty(_LUT_CHUNK, np.uint32)
    fractions = np.empty((3, _LUT_CHUNK), np.float32)
    second, third = np.empty(_LUT_CHUNK, np.uint32), np.empty(_LUT_CHUNK, np.uint32)
    w0, w1 = np.empty(_LUT_CHUNK, np.float32), np.empty(_LUT_CHUNK, np.float32)
    w2, w3 = np.empty(_LUT_CHUNK, np.float32), np.empty(_LUT_CHUNK, np.float32)
    found = np.empty(3 * _LUT_CHUNK + 1, np.float32)
    top = _f32(size - 1)
    last = np.int32(size - 2)
    red, green, blue = np.int32(4), np.int32(4 * size), np.int32(4 * size * size)
    far = red + green + blue

    for start in range(0, total, _LUT_CHUNK):
        n = min(_LUT_CHUNK, total - start)
        part = pixels[3 * start : 3 * (start + n)]
        for i in range(n):
            cell[i] = 0
        for c in range(3):
            stride = red if c == 0 else green if c == 1 else blue
            for i in range(n):
                x = _f32(part[_u64(3) * _u64(i) + _u64(c)]) * scale[c] + offset[c]
                x = x if x > _f32(0) else _f32(0)
                x = x if x < top else top
                k = np.int32(x)
                k = k if k < last else last
                fractions[c, i] = x - _f32(k)
                cell[i] += np.uint32(k * stride)

        if tetrahedral:
            for i in range(n):
                r, g, b = fractions[0, i], fractions[1, i], fractions[2, i]
                most = r if r > g else g
                least = g if r > g else r
                middle = b if b < most else most
                middle = middle if middle > least else least
                most = most if most > b else b
                least = least if least < b else b
                w0[i], w1[i], w2[i], w3[i] = _f32(1) - most, most - middle, middle - least, least
                first = green if g >= b else blue
                first = red if (r >= g) & (r >= b) else first
                final = green if g <= r else red
                final = blue if (b <= g) & (b <= r) else final
                second[i] = cell[i] + np.uint32(first)
                third[i] = cell[i] + np.uint32(far - final)
            for i in range(n):
                a, b, c, d = w0[i], w1[i], w2[i], w3[i]
                here, one, two = _u64(cell[i]), _u64(second[i]), _u64(third[i])
                three = here + _u64(far)

                def at(lane):
                    lane = _u64(lane)
                    near = a * table[here + lane] + b * table[one + lane]
                    return near + c * table[two + lane] + d * table[three + lane]

                v0, v1, v2, v3 = at(0), at(1), at(2), at(3)
                k = _u64(3) * _u64(i)
                found[k], found[k + _u64(1)], found[k + _u64(2)] = v0, v1, v2
                found[k + _u64(3)] = v3
        else:
            for i in range(n):
                r, g, b = fractions[0, i], fractions[1, i], fractions[2, i]
                here = _u64(cell[i])
                gb, gn = g * b, g - g * b
                bn, nn = b - gb, _f32(1) - g - b + gb
                y00, y10 = nn * (_f32(1) - r), nn * r
                y01, y11 = gn * (_f32(1) - r), gn * r
                z00, z10 = bn * (_f32(1) - r), bn * r
                z01, z11 = gb * (_f32(1) - r), gb * r
                up, deep = _u64(green), _u64(blue)

                def around(lane):
                    p = here + _u64(lane)
                    near = y00 * table[p] + y10 * table[p + _u64(4)]
                    near += y01 * table[p + up] + y11 * table[p + up + _u64(4)]
                    p = p + deep
                    near += z00 * table[p] + z10 * table[p + _u64(4)]
                    return near + z01 * table[p + up] + z11 * table[p + up + _u64(4)]

                v0, v1, v2, v3 = around(0), around(1), around(2), around(3)
                k = _u64(3) * _u64(i)
                found[k], found[k + _u64(1)], found[k + _u64(2)] = v0, v1, v2
                found[k + _u64(3)] = v3

        result = out[3 * start : 3 * (start + n)]
        for i in range(3 * n):
            value = found[i] + half
            value = low if value < low else value
            value = high if value > high else value
            if out.itemsize < 4:
                result[i] = np.int32(value)
            else:
                result[i] = value
