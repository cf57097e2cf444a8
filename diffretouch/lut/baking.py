"""A pipeline's retouch of a photo as a lookup table."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch

from diffretouch.colour.lab import srgb_to_lab
from diffretouch.models.affine_grid import between_identity
from diffretouch.models.kernels import strips
from diffretouch.pixels import OnePhoto, Photos, as_photos, as_tensor, check_strength, one_photo, shrink

from .cube import LARGEST, SMALLEST
from .lookup import lut_nodes
from .table import Lut3D, LutError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffretouch.attributes import Attributes

DOMAINS = ("full", "photo")


def bake_lut(
    pipeline: "DiffusionPipeline", image: Photos, *, size: int = 33, c: "Attributes" = None, strength: float = 1.0,
    domain: str = "full", **call: Any,
) -> Lut3D:  # fmt: skip
    """Turn a pipeline's retouch of a photo into a lookup table, for other software, for speed, for other photos.

    Of a CSRNet this is its colour function. A bilateral grid (or CSRNet-L) also differs between places, which a table
    cannot: then it is the table that comes closest on this photo (least squares, smooth where the photo has no
    colours). `Lut3D.error` says how close. Of a series it is one table for all photos, with the least error over all.

    Args:
        pipeline: a `DiffRetouchPipeline` or a `CSRNetPipeline`.
        image: one photo in any form that the pipeline takes, or a list of them: a series, with one noise for all.
        size (`int`): nodes on an edge, 2 to 256. 33 and 65 are common; 33 is up to 8 levels off, see `error`.
        c: attributes for a `DiffRetouchPipeline`, one row in the order of `ATTRIBUTES`, in [-1,1].
        strength (`float`): as in the pipelines.
        domain (`str`): "full" for [0,1]; "photo" for the range of the photo's own colours, which is finer, and wrong
            for photos with other ones.
        call: for the pipeline: `num_inference_steps` and `generator`, or `other` and `mix`.

    Returns:
        [`Lut3D`]: with nodes that are not clamped, and its `error` on the photos under tetrahedral interpolation.

    Raises:
        TypeError, ValueError: an argument that is not as said here, named; and what the pipeline's own call raises.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not SMALLEST <= size <= LARGEST:
        raise ValueError(f"`size` must be an integer in {SMALLEST}..{LARGEST}, got {size!r}.")
    if domain not in DOMAINS:
        raise ValueError(f"`domain` must be one of {', '.join(DOMAINS)}, got {domain!r}.")
    check_strength(strength)
    photos = as_photos(image)
    low, high = (0.0,) * 3, (1.0,) * 3
    if domain == "photo":
        ranges = [_colour_range(photo) for photo in photos]
        low = tuple(map(min, zip(*(low for low, _ in ranges), strict=True)))
        high = tuple(map(max, zip(*(high for _, high in ranges), strict=True)))
    nodes = torch.from_numpy(lut_nodes(int(size), low, high))
    generator = call.get("generator")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` must be a torch.Generator or None, got {type(generator).__name__}.")
    if generator is None and len(photos) > 1 and getattr(pipeline, "has_sliders", False):
        generator = call["generator"] = pipeline.seeded(torch.randint(2**62, ()).item())
    state = generator.get_state() if generator is not None else None

    table: Any
    table, exact, retouches = 0.0, len(photos) == 1, []
    for photo in photos:
        # 1. Its retouch: for colours alone, and for any photo in its stead
        if state is not None:
            generator.set_state(state)  # type: ignore[union-attr]
        colours, retouch, alone, device = _retouch(pipeline, photo, c, strength, call)
        # 2. The nodes: the mean of the photos' colour functions
        with torch.no_grad():
            own = torch.cat([colours(chunk.to(device)).float().cpu() for chunk in nodes.split(1 << 15)])
        table, exact = table + own / len(photos), exact and alone
        retouches.append(retouch)
    if not exact:
        side = max(round(512 / len(photos) ** 0.5), 64)
        small = [shrink(as_tensor(photo), side)[0].cpu() for photo in photos]
        wanted = [retouch(one).cpu() for one, retouch in zip(small, retouches, strict=True)]
        seen, wished = (torch.cat([one.reshape(3, -1).T for one in many]) for many in (small, wanted))
        table = fit_table(table, seen, wished, low, high)
    lut = Lut3D(table.numpy().reshape(size, size, size, 3), low, high, title="diffretouch")

    # 3. What it costs
    errors = []
    for photo, retouch in zip(photos, retouches, strict=True):
        local = not exact and photo.shape[-2 if torch.is_tensor(photo) else 0] * photo.shape[1] > 2**22
        shown = shrink(as_tensor(photo), 2048)[0] if local else photo
        errors.append(_difference(lut.apply(shown), retouch(shown), exact))
    lut.error = LutError(
        float(np.mean([error.mean for error in errors])),
        max(error.max for error in errors),
        float(np.mean([error.delta_e for error in errors])),
        exact,
    )
    return lut


def error_picture(
    lut: Lut3D,
    pipeline: "DiffusionPipeline",
    image: OnePhoto,
    *,
    c: "Attributes" = None,
    strength: float = 1.0,
    **call: Any,
) -> np.ndarray:
    """Where a table differs from the retouch it was made from: the local part that no table can hold.

    Args:
        lut ([`Lut3D`]): see `bake_lut`, which takes the other arguments alike; a `generator` in the same state.
        image: one photo; it is shrunk to 1024 px.

    Returns:
        `numpy.ndarray`: (H,W,3) float32, the CIE 1976 colour difference of each pixel, from black (0) to pale yellow.
    """
    from diffretouch.evaluation.pictures import error_map

    small = shrink(as_tensor(one_photo(image)[0]), 1024)[0].cpu()
    retouch = _retouch(pipeline, small, c, strength, call)[1]
    found, wanted = (x[None].clamp(0, 1).cpu() for x in (lut.apply(small), retouch(small)))
    return error_map(found, wanted)[0].permute(1, 2, 0).contiguous().numpy()


def _retouch(pipeline, photo, c, strength, call):
    """-> (its colour function, or that of the grid's mean; retouch of any picture; whether that is all; device)"""
    if getattr(pipeline, "has_colour_function", False):
        if c is not None:
            raise ValueError(f"`c` is for a pipeline with attributes, not for {type(pipeline).__name__}.")
        colours = pipeline.colour_function(photo, strength=strength, **call)
        exact = not any(p is not None and p.is_local for p in (pipeline, call.get("other")))
        device = pipeline._execution_device
        retouch = lambda picture: pipeline.retouch(picture, strength=strength, **call)  # noqa: E731
    elif getattr(pipeline, "has_sliders", False):
        if call.get("regions") is not None:
            raise ValueError("`regions` differ between places, which a table cannot: bake one for each region's c.")
        grid = pipeline.predict_grid(photo, c, **call)
        if len(grid) != 1:
            raise ValueError(f"`c` must be one row for a table, got {len(grid)}.")
        exact, device = False, grid.device
        colours = _mean_grid_colours(pipeline, grid, strength)
        retouch = lambda picture: pipeline.apply_grid(picture, grid, strength=strength)  # noqa: E731
    else:
        raise TypeError(
            f"`pipeline` must be a DiffRetouchPipeline or a CSRNetPipeline, got {type(pipeline).__name__}."
        )

    return colours, retouch, exact, device


def _mean_grid_colours(pipeline, grid, strength):
    """The colour function of a bilateral grid's average over the places."""
    mean = between_identity(grid.mean((3, 4), keepdim=True), strength)
    apply = functools.partial(pipeline.grid_head.apply_reference, shoulder=pipeline.config.shoulder)
    return lambda colours: apply(mean, colours.T[None, :, :, None])[0, :, :, 0].T


def fit_table(
    start: torch.Tensor, colours: torch.Tensor, wanted: torch.Tensor, domain_min: Sequence[float] = (0, 0, 0),
    domain_max: Sequence[float] = (1, 1, 1), *, smoothness: float = 0.3, pull: float = 1e-3,
) -> torch.Tensor:  # fmt: skip
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
