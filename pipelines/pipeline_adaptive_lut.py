"""Image-adaptive 3D lookup tables: a table for each photo, without sliders: a baseline (TPAMI 2020)."""

import numpy as np
import torch

from diffretouch.lut import Lut3D
from diffretouch.models.adaptive_lut import AdaptiveLut3D
from diffretouch.pipelines.baseline import BaselinePipeline
from diffretouch.pixels import OnePhoto, as_tensor, is_monochrome, one_photo, shrink, without_colour

_SEEN = 1024  # larger photos are averaged to this long side first: the classifier picks its pixels, as published


class AdaptiveLut3DPipeline(BaselinePipeline):
    r"""Retouch photos with a lookup table of their own; nothing is random.

    Args:
        network (`AdaptiveLut3D`): looks at a small copy of the photo and makes its table.
    """

    def __init__(self, network: AdaptiveLut3D) -> None:
        super().__init__()
        self.register_modules(network=network)

    @torch.no_grad()
    def lut(self, image: OnePhoto) -> Lut3D:
        """The table of one photo: the whole retouch, exactly."""
        photo = one_photo(image)[0]
        monochrome = is_monochrome(photo)
        device = self._execution_device
        photo = shrink(as_tensor(photo), _SEEN).to(device, self.network.dtype)
        with torch.autocast(device.type, enabled=False):
            table = self.network.eval().table(photo)[0][0]  # (channel, b, g, r)
        if not table.isfinite().all():
            raise ValueError("The model made a table that is not finite: its weights are broken.")
        table = without_colour(table, 0) if monochrome else table
        return Lut3D(table.permute(1, 2, 3, 0).cpu().numpy())

    def _retouch(self, photo, strength, out):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        look, how = self.lut(photo), {"interpolation": "trilinear"}
        if strength == 1 or isinstance(photo, np.ndarray) and photo.dtype.kind == "u":
            return look.at_strength(strength).apply(photo, out=out, **how)
        looked_up = look.apply(photo, **how)  # a table takes colours beyond [0,1] to its edge: half of it half as far
        if torch.is_tensor(photo):
            return torch.lerp(photo.float(), looked_up, float(strength))
        return np.add(photo, np.float32(strength) * (looked_up - photo), out=out)
