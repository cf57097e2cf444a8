"""SA-AdjustNet: retouching by region, with an adjustment map that can be replaced (2017, arXiv 1706.08260)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from diffretouch.models.kernels import strips
from diffretouch.models.sa_adjustnet import SAAdjustNet
from diffretouch.photo.upright import upright
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import (
    ArrayOrTensor,
    Photos,
    SamePhoto,
    as_float,
    as_one_array,
    as_output,
    as_tensor,
    check_output_type,
    check_strength,
    checked_out,
    float_tensor,
    in_the_form_of,
    is_monochrome,
    is_number,
    one_photo,
    photos_and_origins,
    to_levels,
    without_colour,
)
from diffretouch.regions import check_aspect

_STRIP = 1 << 17  # pixels that are retouched at once


@dataclass
class SAAdjustNetOutput(BaseOutput):
    """What `SAAdjustNetPipeline` returns.

    Args:
        images: the retouched photos at full resolution: a list of PIL images; or (B,H,W,3) float32 in [0,1] for "np"
            and (B,3,H,W) for "pt" (lists where sizes differ).
        adjustment_maps (`list`): the map used for each photo, (K,h,w) float32 weights on the CPU: `argmax(0)` is which
            preset retouches a place. Handed back as `adjustment_map` it gives the same result. `None` for networks
            without presets.
    """

    images: Any
    adjustment_maps: list | None


class SAAdjustNetPipeline(DiffusionPipeline):
    r"""Retouch photos by what is where in them, with one of K presets at each place.

    Args:
        network (`SAAdjustNet`)
    """

    has_sliders = False
    has_regions = False  # of the caller's; its own are `adjustment_map`
    has_colour_function = False
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["network"]  # used by parts, not by calls that a hook would see

    def __init__(self, network: SAAdjustNet) -> None:
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "SAAdjustNetPipeline":
        """Load a pipeline: "small" (bundled), a directory, or a Hub id. Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, pretrained_model_name_or_path, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        image: Photos,
        adjustment_map: ArrayOrTensor | list | None = None,
        *,
        strength: float = 1.0,
        soft_edges: bool | None = None,
        edge_radius: float = 0.02,
        edge_epsilon: float = 1e-3,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> SAAdjustNetOutput:
        r"""Retouch one photo or several at full resolution.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            adjustment_map (*optional*): which preset retouches what, instead of the network's own choice: (h,w)
                integers in 0..K-1, or (K,h,w) float weights >= 0, arrays or tensors of any size, stretched to the
                photo's; weights are brought to the sum 1, so presets may overlap. A list of them for several photos,
                or one for all.
            strength (`float`): 0 returns the photo, 1 the retouch, values between mix them exactly; up to 2.
            soft_edges (`bool`, *optional*): mix the presets along edges that follow the photo's (guided filter), or
                `False` for the hard boundaries of the paper; by default as the network was trained.
            edge_radius (`float`): how far soft edges reach, as a share of the long side.
            edge_epsilon (`float`): contrast below which an edge in the photo counts for nothing, see `guided_filter`;
                in (0, 1].
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images, adjustment_maps), against the annotation.

        Returns:
            [`SAAdjustNetOutput`]

        Raises:
            TypeError, ValueError: an input that is not as said here, named; before any work is done.
            ValueError: the weights make colours that are not finite.

        Example:
            >>> pipe = SAAdjustNetPipeline.from_pretrained("small")
            >>> out = pipe(photo)
            >>> mine = out.adjustment_maps[0].argmax(0)
            >>> mine[:40] = 1  # paint preset 1 over the top
            >>> pipe(photo, mine, soft_edges=True).images[0]
        """
        # 1. Check everything before any work is done
        check_output_type(output_type)
        pairs = photos_and_origins(image)
        edges = {"soft_edges": soft_edges, "radius": edge_radius, "epsilon": edge_epsilon}
        maps = self._checked(adjustment_map, [photo for photo, _ in pairs], strength, **edges)

        images, used = [], []
        for (photo, origin), own in zip(pairs, maps, strict=True):
            if output_type != "pil" and isinstance(photo, np.ndarray):
                photo = as_float(photo)  # nothing is rounded on the way to "np" and "pt"
            result, weights = self._retouch(photo, own, strength, edges)
            images.append(as_output(result, output_type, origin))
            used.append(weights)

        # 4. One array where the sizes allow it
        images = images if output_type == "pil" else as_one_array(images)
        used = used if self.network.config.presets else None
        self.maybe_free_model_hooks()
        return SAAdjustNetOutput(images, used) if return_dict else (images, used)  # type: ignore[return-value]

    @torch.no_grad()
    def retouch(
        self, image: SamePhoto, adjustment_map: ArrayOrTensor | list | None = None, *, strength: float = 1.0,
        soft_edges: bool | None = None, edge_radius: float = 0.02, edge_epsilon: float = 1e-3,
        out: np.ndarray | None = None,
    ) -> SamePhoto:  # fmt: skip
        """Retouch one photo, in the form it came.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            adjustment_map, strength, soft_edges, edge_radius, edge_epsilon: as in `__call__`.
            out (array, *optional*): written to instead of a new array, for array input; not `image` itself.

        Returns:
            PIL image, array of the same dtype, or float32 tensor on the photo's device. Integer pixels are rounded and
            limited to their range; floats are not limited.

        Raises:
            TypeError, ValueError: as `__call__`.
        """
        photo, origin = one_photo(image)
        given = checked_out(out, photo, image, in_place=False)
        edges = {"soft_edges": soft_edges, "radius": edge_radius, "epsilon": edge_epsilon}
        (own,) = self._checked(adjustment_map, [photo], strength, **edges)
        result, _ = self._retouch(photo, own, strength, edges, given)
        self.maybe_free_model_hooks()
        return out if out is not None else in_the_form_of(image, result, origin)  # type: ignore[return-value]

    def _checked(self, adjustment_map, photos, strength, *, soft_edges, radius, epsilon):
        """The map of each photo, (1,K,h,w) or `None`, after everything else was checked."""
        check_strength(strength)
        _check_edge("edge_radius", radius, 0.5)
        _check_edge("edge_epsilon", epsilon, 1.0)
        if not (soft_edges is None or isinstance(soft_edges, bool)):
            raise ValueError(f"`soft_edges` must be True, False or None, got {soft_edges!r}.")
        if self.network.dtype != torch.float32:
            raise ValueError(f"`network` must be in float32, got {self.network.dtype}: positions need its digits.")
        maps = self._adjustment_maps(adjustment_map, len(photos))
        if soft_edges and not self.network.config.presets:
            raise ValueError("`soft_edges` needs a network with presets: this one has no adjustment map.")
        for photo, own in zip(photos, maps, strict=True):
            if own is not None:
                check_aspect(own.shape[2:], photo.shape[:2] if isinstance(photo, np.ndarray) else photo.shape[1:],
                             "adjustment_map")  # fmt: skip
        return maps

    def _adjustment_maps(self, given, count):
        if given is None:
            return [None] * count
        presets = self.network.config.presets
        if not presets:
            raise ValueError("`adjustment_map` needs a network with presets: this one has no adjustment map.")
        given = list(given) if isinstance(given, (list, tuple)) else [given] * count
        if len(given) != count:
            raise ValueError(f"`adjustment_map` must be one or a list of {count}, got {len(given)}.")
        return [_as_weights(one, presets) for one in given]

    def _retouch(self, photo, own, strength, edges, out=None):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor; and the weights of the presets."""
        device, is_array, monochrome = self._execution_device, isinstance(photo, np.ndarray), is_monochrome(photo)
        with torch.autocast(device.type, enabled=False):
            # 2. Look at a small copy: what is where, and which preset retouches it
            own = own if own is None else own.to(device)
            context = self.network.look(as_tensor(photo).to(device), own, **edges)

            # 3. Retouch the pixels at full resolution, in strips of rows
            height, width = photo.shape[:2] if is_array else photo.shape[1:]
            if out is None:
                dtype = photo.dtype.newbyteorder("=") if is_array else torch.float32
                out = np.empty(photo.shape, dtype) if is_array else torch.empty_like(photo, dtype=dtype)
            for rows in strips(height, width, _STRIP):
                if is_array:
                    seen = float_tensor(np.ascontiguousarray(photo[rows])).permute(2, 0, 1)
                else:
                    seen = photo[:, rows].float()
                seen = seen[None].to(device)
                new = self.network.retouch_rows(context, seen, rows.start, height)
                new = torch.lerp(seen, without_colour(new, 1) if monochrome else new, float(strength))
                if not new.isfinite().all():
                    raise ValueError("The model made colours that are not finite: its weights are broken.")
                if not is_array:
                    out[:, rows] = new[0].to(out.device)
                    continue
                new = new[0].permute(1, 2, 0).cpu().numpy()
                out[rows] = to_levels(new, out.dtype) if out.dtype.kind == "u" else new
        return out, None if context.weights is None else context.weights[0].cpu()


def _as_weights(given, presets):
    """An adjustment map as a caller gave it -> (1,K,h,w) float32 with sum 1 at every place."""
    if isinstance(given, PIL.Image.Image):
        if given.mode not in ("L", "P", "1"):
            raise ValueError(f"`adjustment_map` pictures must be 8-bit indices, got mode {given.mode}.")
        given = np.asarray(upright(given))
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "uibf":
            raise TypeError(f"`adjustment_map` must be integers or floats, got {given.dtype}.")
        given = torch.from_numpy(given.astype(np.float64 if given.dtype.kind == "f" else np.int64))
    if not torch.is_tensor(given):
        raise TypeError(f"`adjustment_map` must be an array or a tensor, got {type(given).__name__}.")
    if given.is_complex():
        raise TypeError(f"`adjustment_map` must be integers or floats, got {given.dtype}.")
    if given.numel() == 0:
        raise ValueError(f"`adjustment_map` must have no empty side, got {tuple(given.shape)}.")
    if given.ndim == 2:
        if given.is_floating_point():
            raise TypeError("`adjustment_map` of shape (h,w) must be integers, which preset; weights are (K,h,w).")
        given = given.long()
        if given.min() < 0 or given.max() >= presets:
            raise ValueError(
                f"`adjustment_map` must name presets 0..{presets - 1}, got {given.min().item()}..{given.max().item()}."
            )
        return torch.nn.functional.one_hot(given, presets).permute(2, 0, 1)[None].float()
    if given.ndim != 3 or given.shape[0] != presets:
        raise ValueError(f"`adjustment_map` must be (h,w) or ({presets},h,w), got {tuple(given.shape)}.")
    if not given.is_floating_point():
        raise TypeError(
            "`adjustment_map` of shape (K,h,w) must be float weights; integers, which preset, are (h,w), and maps of "
            "several photos come as a list."
        )
    weights = given[None].detach().cpu().double()  # in which no sum of float32 overflows
    total = weights.sum(1, keepdim=True)
    if not total.isfinite().all() or weights.min() < 0:
        raise ValueError("`adjustment_map` weights must be finite and not negative.")
    if total.min() <= 0:
        raise ValueError("`adjustment_map` weights must not be zero for all presets at a place.")
    return (weights / total).float()


def _check_edge(name, value, most):
    if not is_number(value) or not 0 < value <= most:
        raise ValueError(f"`{name}` must be a number in (0, {most:g}], got {value!r}.")
