"""HDRNet: one retouch at once by an affine bilateral grid, without sliders: a baseline (SIGGRAPH 2017)."""

from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from diffretouch.models.affine_grid import between_identity
from diffretouch.models.hdrnet import HDRNet
from diffretouch.models.slice_apply import slice_apply
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pipelines.sampler import grids_without_colour
from diffretouch.pixels import Photos, SamePhoto, as_tensor, is_monochrome, retouch_one, retouch_photos


class HDRNetPipeline(DiffusionPipeline):
    r"""Retouch photos with HDRNet; nothing is random.

    Args:
        network (`HDRNet`): looks at a small copy of the photo; its grid is sliced at full resolution.
    """

    has_sliders = False
    has_regions = False
    has_colour_function = False
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["network"]  # small, and used by parts, not by calls that a hook would see

    def __init__(self, network: HDRNet) -> None:
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "HDRNetPipeline":
        """Load a pipeline: a directory or a Hub id (none is bundled); safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, pretrained_model_name_or_path, {}, **kwargs)

    @torch.no_grad()
    def __call__(
        self, image: Photos, *, strength: float = 1.0, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput:
        r"""Retouch one photo or several.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            strength (`float`): 0 returns the photo, 1 the model's retouch, values between mix them exactly; up to 2.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images,), against the annotation.

        Returns:
            `diffusers.ImagePipelineOutput` with `images`.

        Raises:
            TypeError, ValueError: an input that is not as said here, named; before any work is done.
        """
        images = retouch_photos(self._retouch, image, strength, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images) if return_dict else (images,)  # type: ignore[return-value]

    @torch.no_grad()
    def retouch(self, image: SamePhoto, *, strength: float = 1.0, out: np.ndarray | None = None) -> SamePhoto:
        """Retouch one photo, in the form it came.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            strength: as in `__call__`.
            out (array, *optional*): written to instead of a new array, for array input; `image` itself will do.

        Returns:
            PIL image, array of the same dtype, or float32 tensor. Integer pixels are rounded and limited to their
            range; floats are not limited.
        """
        result = retouch_one(self._retouch, image, strength, out)
        self.maybe_free_model_hooks()
        return result

    def _retouch(self, photo, strength, out):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        grid = self.network.grid(as_tensor(photo).to(self._execution_device, self.network.dtype))
        grid = grids_without_colour(grid) if is_monochrome(photo) else grid
        grid = between_identity(grid, strength)
        if isinstance(photo, np.ndarray):
            return slice_apply(grid, photo, self.network.guide_curve, out=out)
        return slice_apply(grid, photo[None].to(grid), self.network.guide_curve)[0]
