"""What the pipelines of trainable baselines share: a network that retouches a photo at once, without sliders."""

from typing import Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import Photos, SamePhoto, retouch_one, retouch_photos


class BaselinePipeline(DiffusionPipeline):
    """A pipeline with one component, `network`, and `_retouch(photo, strength, out)` as `retouch_photos` asks for."""

    has_sliders = False
    has_regions = False
    has_colour_function = False
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["network"]  # small, and used by parts, not by calls that a hook would see

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> Self:
        """Load a pipeline: a directory or a Hub id (none is bundled); safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, pretrained_model_name_or_path, **kwargs)

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
