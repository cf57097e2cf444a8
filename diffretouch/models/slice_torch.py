"""The pass of `slice_apply` by torch's own operators: for CUDA, and for CPUs without numba."""

import numpy as np
import torch
import torch.nn.functional as F

from diffretouch.models.kernels import strips
from diffretouch.models.shoulder import roll_off
from diffretouch.models.slice_apply import WHITE, positions
from diffretouch.pixels import ArrayOrTensor, is_tensor

# Pixels in one strip, of each of which twelve coefficients are held
_STRIP = {"cpu": 1 << 16, "cuda": 1 << 21}


def apply_one(
    cells: np.ndarray, curve: tuple, source: ArrayOrTensor, target: ArrayOrTensor, shoulder: float | None
) -> None:
    """One photo (H,W,3), a CPU or CUDA tensor or an array, into `target` of the same shape: torch's own operators."""
    height, width = source.shape[:2]
    device = source.device if is_tensor(source) else torch.device("cpu")
    matrix, thresholds, slopes, bias = curve
    matrix = matrix.tolist()
    ramps = [list(zip(*pair, strict=True)) for pair in zip(thresholds.tolist(), slopes.tolist(), strict=True)]
    row_cell, row_fraction = (torch.from_numpy(part).to(device) for part in positions(height, cells.shape[3]))
    row_below = (row_cell + 1).clamp(max=cells.shape[3] - 1)
    cells = torch.from_numpy(cells).flatten(0, 1).permute(2, 0, 1, 3).to(device, torch.float32)  # (gh,12,D,gw)
    x = torch.from_numpy(_x_coordinates(width)).to(device)
    white = 1.0 if is_tensor(source) else WHITE[source.dtype.newbyteorder("=")]

    for rows in strips(height, width, _STRIP[device.type]):
        if is_tensor(source):
            planes = source[rows].permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        else:
            planes = torch.from_numpy(np.array(source[rows].transpose(2, 0, 1), np.float32, order="C"))
        coordinates = torch.empty(*planes.shape[1:], 2, device=device)  # x, depth
        coordinates[..., 0] = x
        coordinates[..., 1] = _strip_guide(planes, matrix, ramps, bias).mul_(2).sub_(1)
        # In one row y is fixed: each row gets its own two-dimensional grid.
        above, below = cells[row_cell[rows]], cells[row_below[rows]]
        row_cells = torch.lerp(above, below, row_fraction[rows, None, None, None])  # (rows,12,D,gw)
        coefficients = F.grid_sample(
            row_cells, coordinates[:, None], mode="bilinear", padding_mode="border", align_corners=False
        ).view(len(row_cells), 3, 4, width)
        result = coefficients[:, :, 3]
        for channel in range(3):
            result.addcmul_(coefficients[:, :, channel], planes[channel][:, None])  # (rows,3,W)
        if shoulder is not None:
            result = roll_off(result, planes.transpose(0, 1), shoulder, white)
        if is_tensor(target):
            target[rows] = result.transpose(1, 2)
        else:
            if target.dtype.kind == "u":
                result = result.clamp_(0, white).add_(0.5)
            target[rows] = result.transpose(1, 2).numpy().astype(target.dtype)


def _x_coordinates(width):
    """The columns for `grid_sample`, from -1 to 1; the middle for a single one."""
    return np.linspace(-1, 1, width, dtype=np.float32) if width > 1 else np.zeros(1, np.float32)


def _strip_guide(planes, matrix, ramps, bias):
    """Planes (3,h,W) -> guide (h,W) in [0,1]. No matrix product: those may run in TF32. NaN becomes 0."""
    guide = torch.full_like(planes[0], bias)
    y, bent = torch.empty_like(guide), torch.empty_like(guide)
    for channel in range(3):
        y.fill_(matrix[3][channel])
        for i in range(3):
            y.add_(planes[i], alpha=matrix[i][channel])
        for threshold, slope in ramps[channel]:
            guide.add_(torch.clamp_min(y, threshold, out=bent), alpha=slope)
    return guide.nan_to_num_(0, posinf=1, neginf=0).clamp_(0, 1)
