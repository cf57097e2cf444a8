"""A photo under its grids: one for all of it, then one for each region, laid over each other at full resolution."""

from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.pixels import (
    ArrayOrTensor,
    check_strength,
    checked_out,
    enlarged,
    in_the_form_of,
    is_tensor,
    one_photo,
)
from diffretouch.regions import as_mask, blend, visible_regions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def apply_grid(
    pipe: "DiffusionPipeline", image: Any, grid: ArrayOrTensor, strength: float, regions: Any, out: Any
) -> Any:
    """One photo under its grid, in the form it came: see `DiffRetouchPipeline.apply_grid`."""
    check_strength(strength)
    photo, origin = one_photo(image)
    given = checked_out(out, photo, image)
    visible = visible_regions(regions)[1] if regions is not None else None
    result = apply_layers(pipe, photo, one_grid(grid, visible, pipe.grid_head is None), visible, strength, given)
    return out if out is not None else in_the_form_of(image, result, origin)


def one_grid(grid: ArrayOrTensor, regions: list | None, is_picture: bool = False) -> ArrayOrTensor:
    """The grid of one result, (12,D,gh,gw), with visible regions (1+R,12,D,gh,gw), with or without a leading 1.

    Of a model without a grid head (`is_picture`) the small picture that stands for it, (3,h,w) for (12,D,gh,gw).

    Raises:
        TypeError: no floats.
        ValueError: another shape, or not finite.
    """
    if not (grid.is_floating_point() if is_tensor(grid) else isinstance(grid, np.ndarray) and grid.dtype.kind == "f"):
        raise TypeError(f"`grid` must be floats as `predict_grid` makes them, got {type(grid).__name__}.")
    channels, sides = (3, ("h", "w")) if is_picture else (12, ("D", "gh", "gw"))
    form = (channels,) if regions is None else (1 + len(regions), channels)
    one = grid[0] if grid.ndim == 1 + len(form) + len(sides) and len(grid) == 1 else grid
    if one.ndim != len(form) + len(sides) or one.shape[: len(form)] != form:
        raise ValueError(f"`grid` must have shape (1,{','.join(map(str, form + sides))}), got {tuple(grid.shape)}.")
    if not (np.isfinite(one) if isinstance(one, np.ndarray) else one.isfinite()).all():
        raise ValueError("`grid` must be finite, got NaN or infinite coefficients.")
    return one


def apply_layers(
    pipe: "DiffusionPipeline",
    photo: Any,
    grid: ArrayOrTensor,
    regions: list | None,
    strength: float,
    out: np.ndarray | None = None,
) -> Any:
    """A photo retouched with the grid below, then with each region's, which is blended over what is there.

    Args:
        pipe (or `ExportedDiffRetouch`): its `grid_head` and `shoulder`; without a head a small picture (3,h,w) stands
            for the grid.
        photo: (H,W,3) array, (3,H,W) tensor.
        grid: of `one_grid`.
        regions: visible ones, pairs of mask and c, or `None`.
        strength, out: as of the pipeline; `out` may be the photo itself.

    Returns:
        Array of the photo's dtype (`out` if that is given), or float32 tensor.
    """
    if not regions:
        return apply_one(pipe, photo, grid[None] if regions is None else grid, strength, out)
    is_array = isinstance(photo, np.ndarray)
    aside = is_array and out is not None and np.may_share_memory(photo, out)  # every pass reads the photo
    result = apply_one(pipe, photo, grid[:1], strength, None if aside else out)
    size, layer = (photo.shape[:2] if is_array else photo.shape[1:]), None
    for (mask, _), own in zip(regions, grid[1:], strict=True):
        layer = apply_one(pipe, photo, own[None], strength, layer if is_array else None)
        blend(result, layer, as_mask(mask, size))
    if aside:
        out[...] = result
        return out
    return result


def apply_one(
    pipe: "DiffusionPipeline", photo: Any, grid: ArrayOrTensor, strength: float, out: np.ndarray | None = None
) -> Any:
    """The same with one grid (1,12,D,gh,gw) for the whole photo."""
    head, how = pipe.grid_head, {"shoulder": pipe.config.shoulder}
    if head is None:
        return enlarged(photo, grid, strength)
    if isinstance(grid, np.ndarray):  # of an exported model: no torch
        identity = np.eye(3, 4, dtype=np.float32).reshape(12, 1, 1, 1)
        grid = identity + np.float32(strength) * (grid - identity)
        return head.apply(grid, photo[None], **how)[0] if is_tensor(photo) else head.apply(grid, photo, out=out, **how)
    import torch

    from diffretouch.models.affine_grid import between_identity

    grid = between_identity(grid.to(head.device, torch.float32), strength)
    if isinstance(photo, np.ndarray):
        return head.apply(grid, photo, out=out, **how)
    return head.apply(grid, photo[None].to(grid.device, torch.float32), **how)[0]
