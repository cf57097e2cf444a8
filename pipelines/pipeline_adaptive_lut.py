"""Image-adaptive 3D lookup tables: a table for each photo, without sliders: a baseline (TPAMI 2020)."""

from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from diffretouch.lut import Lut3D
from diffretouch.models.adaptive_lut import AdaptiveLut3D
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import (
    OnePhoto,
    Photos,
    SamePhoto,
    as_tensor,
    is_monochrome,
    one_photo,
    retouch_one,
    retouch_photos,
    shrink,
    without_colour,
)

_SEEN = 1024  # larger photos are averaged to this long side first: the classifier picks its pixels, as published


class AdaptiveLut3DPipeline(DiffusionPipeline):
    r"""Retouch photos with a lookup table of their own; nothing is random.

    Args:
        network (`AdaptiveLut3D`): looks at a small copy of the photo and makes its table.
    """

    has_sliders = False
    has_regions = False
    has_colour_function = False
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["network"]  # small, and used by parts, not by calls that a hook would see

    def __init__(self, network: AdaptiveLut3D) -> None:
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "AdaptiveLut3DPipeline":
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

    @torch.no_grad()
    def lut(self, image: OnePhoto) -> Lut3D:
        """The table of one photo: the whole retouch, exactly."""
        photo = one_photo(image)[0]
        monochrome = is_monochrome(photo)
        photo = shrink(as_tensor(photo), _SEEN).to(self._execution_device, self.network.dtype)
        table = self.network.eval().table(photo)[0][0]  # (channel, b, g, r)
        table = without_colour(table, 0) if monochrome else table
        return Lut3D(table.permute(1, 2, 3, 0).cpu().numpy())

    def _retouch(self, photo, strength, out):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        return self.lut(photo).at_strength(strength).apply(photo, interpolation="trilinear", out=out)
