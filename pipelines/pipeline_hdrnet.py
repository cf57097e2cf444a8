"""HDRNet: one retouch at once by an affine bilateral grid, without sliders: a baseline (SIGGRAPH 2017)."""

import numpy as np
import torch

from diffretouch.models.affine_grid import between_identity
from diffretouch.models.hdrnet import HDRNet
from diffretouch.models.slice_apply import slice_apply
from diffretouch.pipelines.baseline import BaselinePipeline
from diffretouch.pipelines.sampler import grids_without_colour
from diffretouch.pixels import as_tensor, is_monochrome


class HDRNetPipeline(BaselinePipeline):
    r"""Retouch photos with HDRNet; nothing is random.

    Args:
        network (`HDRNet`): looks at a small copy of the photo; its grid is sliced at full resolution.
    """

    def __init__(self, network: HDRNet) -> None:
        super().__init__()
        self.register_modules(network=network)

    def _retouch(self, photo, strength, out):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        device = self._execution_device
        with torch.autocast(device.type, enabled=False):
            grid = self.network.grid(as_tensor(photo).to(device))
        if not grid.isfinite().all():
            raise ValueError("The model made a grid that is not finite: its weights are broken.")
        grid = grids_without_colour(grid) if is_monochrome(photo) else grid
        grid = between_identity(grid, strength)
        if isinstance(photo, np.ndarray):
            return slice_apply(grid, photo, self.network.guide_curve, out=out)
        return slice_apply(grid, photo[None].to(grid), self.network.guide_curve)[0]
