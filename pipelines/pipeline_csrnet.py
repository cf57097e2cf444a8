"""CSRNet and CSRNet-L: one good retouch at once, without sliders (ECCV 2020, arXiv 2009.10390; arXiv 2104.06279)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from diffretouch.colour.prophoto import srgb_to_prophoto
from diffretouch.models.colour_map import map_colours
from diffretouch.models.csrnet import SMALLEST, CSRNet, CSRNetL
from diffretouch.models.kernels import strips
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import (
    ArrayOrTensor,
    OnePhoto,
    Photos,
    SamePhoto,
    check_output_type,
    check_strength,
    few_pixels,
    float_tensor,
    is_monochrome,
    is_number,
    one_photo,
    retouch_one,
    retouch_photos,
    to_levels,
    without_colour,
)

_LOCAL_STRIP = 1 << 17  # pixels of which CSRNet-L holds its 64 channels


@dataclass
class CSRNetOutput(BaseOutput):
    """What `CSRNetPipeline` returns.

    Args:
        images: the retouched photos at full resolution: a list of PIL images; or (N,H,W,3) float32 in [0,1] for "np"
            and (N,3,H,W) for "pt" (lists where sizes differ).
    """

    images: Any


class CSRNetPipeline(DiffusionPipeline):
    r"""Retouch photos with CSRNet (one colour function per photo) or CSRNet-L (local effects); nothing is random.

    The condition is computed from a thumbnail of a fixed size, so that a photo gets the same retouch at any size. With
    it CSRNet is three small matrices: photos of 8 bits are retouched by their colours, each computed once, others in
    strips.

    Args:
        network (`CSRNet` or `CSRNetL`): its config says the thumbnail's size and the space of its input.
    """

    has_sliders = False
    has_regions = False
    has_colour_function = True
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["network"]  # small, and used by parts, not by calls that a hook would see

    def __init__(self, network: CSRNet | CSRNetL) -> None:
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "CSRNetPipeline":
        """Load a pipeline: "small" (CSRNet) or "small-l" (CSRNet-L), both bundled; a directory; or a Hub id.

        Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, pretrained_model_name_or_path, **kwargs)

    @property
    def is_local(self) -> bool:
        """Whether equal colours may become different ones in different places: CSRNet-L."""
        return isinstance(self.network, CSRNetL)

    def check_inputs(self, strength: float, other: "CSRNetPipeline | None", mix: float, output_type: str) -> None:
        check_strength(strength)
        check_output_type(output_type)
        if other is not None and not isinstance(other, CSRNetPipeline):
            raise TypeError(f"`other` must be a CSRNetPipeline or None, got {type(other).__name__}.")
        if not is_number(mix) or not -1 <= mix <= 2:
            raise ValueError(f"`mix` must be a number in [-1, 2] (0: this model, 1: `other`), got {mix!r}.")
        if other is None and mix:
            raise ValueError(f"`mix` needs a second model as `other`, got {mix!r} without one.")

    @torch.no_grad()
    def __call__(
        self,
        image: Photos,
        *,
        strength: float = 1.0,
        other: "CSRNetPipeline | None" = None,
        mix: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> CSRNetOutput:
        r"""Retouch one photo or several.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            strength (`float`): 0 returns the photo, 1 the model's retouch, values between mix them exactly; up to 2.
            other (`CSRNetPipeline`, *optional*): a second expert's model.
            mix (`float`): (1 - mix) of this model's retouch and mix of the other's (paper, Sec. 4.5), in [-1,2].
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images,), against the annotation.

        Returns:
            [`CSRNetOutput`]

        Raises:
            TypeError, ValueError: an input that is not as said here, named; before any work is done.
            ValueError: the weights make colours that are not finite.

        Example:
            >>> pipe = CSRNetPipeline.from_pretrained("small")
            >>> pipe(image, strength=0.8).images[0]
        """
        self.check_inputs(strength, other, mix, output_type)
        images = retouch_photos(self._mixed_with(other, mix), image, strength, output_type)
        self.maybe_free_model_hooks()
        return CSRNetOutput(images) if return_dict else (images,)  # type: ignore[return-value]

    @torch.no_grad()
    def retouch(
        self, image: SamePhoto, *, strength: float = 1.0, other: "CSRNetPipeline | None" = None, mix: float = 0.0,
        out: np.ndarray | None = None,
    ) -> SamePhoto:  # fmt: skip
        """Retouch one photo, in the form it came.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            strength, other, mix: as in `__call__`.
            out (array, *optional*): written to instead of a new array, for array input.

        Returns:
            PIL image, array of the same dtype, or float32 tensor. Integer pixels are rounded and limited to their
            range; floats are not limited.
        """
        self.check_inputs(strength, other, mix, "pt")
        result = retouch_one(self._mixed_with(other, mix), image, strength, out, in_place=not self.is_local)
        self.maybe_free_model_hooks()
        return result

    @torch.no_grad()
    def colour_function(
        self, image: OnePhoto, *, strength: float = 1.0, other: "CSRNetPipeline | None" = None, mix: float = 0.0
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """What happens to colours: with CSRNet the retouch itself, with CSRNet-L that of flat areas, on average.

        Args:
            image: one photo, in any form that `__call__` takes: the condition comes from it.
            strength, other, mix: as in `__call__`.

        Returns:
            A function of colours (n,3) float32 in [0,1] (tensor on the pipeline's device) that returns (n,3), not
            clamped. `is_local` tells whether it is the whole retouch.
        """
        self.check_inputs(strength, other, mix, "pt")
        return self._colours(one_photo(image)[0], strength, self._experts(other, mix))

    def _mixed_with(self, other, mix):
        return lambda photo, strength, out: self._retouch(photo, strength, other, mix, out)

    def _experts(self, other, mix):
        """(weight, network) of all that takes part."""
        experts = [(1 - float(mix), self.network)]
        if other is not None and mix:
            experts = [expert for expert in experts if expert[0]] + [(float(mix), other.network)]
        return experts

    def _retouch(self, photo, strength, other, mix, out=None):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        experts, device = self._experts(other, mix), self._execution_device
        photo = photo.to(device) if torch.is_tensor(photo) else photo
        with torch.autocast(device.type, enabled=False):
            if all(isinstance(network, CSRNet) for _, network in experts):
                return map_colours(self._colours(photo, strength, experts), photo, out=out, device=device)
            return self._retouch_strips(photo, strength, experts, out)

    def _colours(self, photo, strength, experts):
        device, folded, monochrome = self._execution_device, [], is_monochrome(photo)
        with torch.autocast(device.type, enabled=False):
            for weight, network in experts:
                thumbnail = self._thumbnail(photo, network)
                if isinstance(network, CSRNet):
                    layers = network.fold(network.condition(thumbnail)[0])
                else:
                    layers = network.flat_colours(network.modulation(thumbnail))
                layers = [(w.to(device, torch.float32).T.contiguous(), b.to(device, torch.float32)) for w, b in layers]
                folded.append((weight, network.config.input_space, layers))

        def function(colours):
            result = 0
            with torch.autocast(device.type, enabled=False):
                for weight, space, layers in folded:
                    x = colours if space == "srgb" else srgb_to_prophoto(colours.T[:, :, None])[:, :, 0].T
                    for k, (matrix, bias) in enumerate(layers):
                        x = torch.addmm(bias, x, matrix)
                        x = x.relu_() if k < 2 else x
                    result = x if weight == 1 else result + weight * x
                result = without_colour(result, 1) if monochrome else result
                return _finite(torch.lerp(colours, result, float(strength)))

        return function

    def _retouch_strips(self, photo, strength, experts, out):
        """CSRNet-L's layers see neighbours: strips of rows, a little taller than their result."""
        device, tensor, monochrome = self._execution_device, torch.is_tensor(photo), is_monochrome(photo)
        modulated = []
        for weight, network in experts:
            thumbnail = self._thumbnail(photo, network)
            if isinstance(network, CSRNet):  # without neighbours: a mix of both kinds
                modulated.append((weight, network, network.condition(thumbnail)))
            else:
                modulated.append((weight, network, network.modulation(thumbnail)))
        height, width = photo.shape[-2:] if tensor else photo.shape[:2]
        if out is None:
            shape = photo.shape
            out = torch.empty(shape, device=device) if tensor else np.empty(shape, photo.dtype.newbyteorder("="))
        for rows in strips(height, width, _LOCAL_STRIP):
            seen = CSRNetL.rows_seen(rows, height)
            if tensor:
                window = photo[None, :, seen].to(device, torch.float32)
            else:
                pixels = float_tensor(np.ascontiguousarray(photo[seen]))
                window = pixels.to(device).permute(2, 0, 1)[None]
            own = window[..., rows.start - seen.start : rows.stop - seen.start, :]
            result = 0
            for weight, network, modulation in modulated:
                space, dtype = network.config.input_space, network.dtype
                x = (window if space == "srgb" else srgb_to_prophoto(window)).to(dtype)
                if isinstance(network, CSRNetL):
                    x = network.retouch_rows(x, modulation, rows, height)
                else:
                    x = network.modulated(x, modulation)[..., rows.start - seen.start : rows.stop - seen.start, :]
                result = x.float() if weight == 1 else result + weight * x.float()
            result = without_colour(result, 1) if monochrome else result
            result = _finite(torch.lerp(own, result, float(strength))[0])
            if tensor:
                out[:, rows] = result
                continue
            result = result.permute(1, 2, 0).cpu().numpy()
            out[rows] = to_levels(result, out.dtype) if out.dtype.kind == "u" else result
        return out

    def _thumbnail(self, photo, network):
        thumbnail = condition_thumbnail(photo, network.config.condition_size).to(self._execution_device)
        thumbnail = thumbnail if network.config.input_space == "srgb" else srgb_to_prophoto(thumbnail)
        return thumbnail.to(network.dtype)


def _finite(colours):
    if not colours.isfinite().all():
        raise ValueError("The model made colours that are not finite: its weights are broken.")
    return colours


def condition_thumbnail(photo: ArrayOrTensor, size: int) -> torch.Tensor:
    """A photo (H,W,3 array or 3,H,W tensor) at a long side of `size`, and at least 5 pixels on the short one.

    Returns (1,3,h,w) float32 in [0,1]. Smaller photos are enlarged: the condition depends on the scale of pixels. Of
    large ones only some pixels are read, about sixteen for each of the thumbnail's.
    """
    tensor = torch.is_tensor(photo)
    few, shape = few_pixels(photo.permute(1, 2, 0) if tensor else photo, size, SMALLEST)
    few = few.float() if tensor else float_tensor(np.ascontiguousarray(few))
    image = few.permute(2, 0, 1)[None]
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    return F.interpolate(image, shape, mode="bilinear", antialias=True)
