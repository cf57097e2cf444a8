"""SA-AdjustNet: retouching by region, with an adjustment map that can be replaced (2017, arXiv 1706.08260)."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from diffretouch.models.sa_adjustnet import SAAdjustNet  # noqa: F401 (resolved by from_pretrained)
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import as_float, as_one_array, as_output, as_photos, as_tensor, check_strength
from diffretouch.regions import check_aspect

BUNDLED = {"small": "sa_adjustnet_small"}

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

    images: list | np.ndarray | torch.Tensor
    adjustment_maps: list | None


class SAAdjustNetPipeline(DiffusionPipeline):
    r"""Retouch photos by what is where in them, with one of K presets at each place.

    Args:
        network (`SAAdjustNet`)
    """

    def __init__(self, network):
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """Load a pipeline: "small" (bundled), a directory, or a Hub id. Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, name, BUNDLED, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        image,
        adjustment_map=None,
        *,
        strength=1.0,
        soft_edges=None,
        edge_radius=0.02,
        edge_epsilon=1e-3,
        output_type="pil",
        return_dict=True,
    ):
        r"""Retouch one photo or several at full resolution.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            adjustment_map (*optional*): which preset retouches what, instead of the network's own choice: (h,w)
                integers in 0..K-1, or (K,h,w) weights >= 0, arrays or tensors of any size, stretched to the photo's;
                weights are brought to the sum 1, so presets may overlap. A list of them for several photos, or one
                for all.
            strength (`float`): 0 returns the photo, 1 the retouch, values between mix them exactly; up to 2.
            soft_edges (`bool`, *optional*): mix the presets along edges that follow the photo's (guided filter), or
                `False` for the hard boundaries of the paper; by default as the network was trained.
            edge_radius (`float`): how far soft edges reach, as a share of the long side.
            edge_epsilon (`float`): contrast below which an edge in the photo counts for nothing, see `guided_filter`;
                in (0, 1].
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images, adjustment_maps).

        Returns:
            [`SAAdjustNetOutput`]

        Example:
            >>> pipe = SAAdjustNetPipeline.from_pretrained("small")
            >>> out = pipe(photo)
            >>> mine = out.adjustment_maps[0].argmax(0)
            >>> mine[:40] = 1  # paint preset 1 over the top
            >>> pipe(photo, mine, soft_edges=True).images[0]
        """
        # 1. Check everything before any work is done
        check_strength(strength)
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'`output_type` must be "pil", "np" or "pt", got {output_type!r}.')
        _check_edge("edge_radius", edge_radius, 0.5)
        _check_edge("edge_epsilon", edge_epsilon, 1.0)
        if not (soft_edges is None or isinstance(soft_edges, bool)):
            raise ValueError(f"`soft_edges` must be True, False or None, got {soft_edges!r}.")
        if self.network.dtype != torch.float32:
            raise ValueError(f"`network` must be in float32, got {self.network.dtype}: positions need its digits.")
        photos = as_photos(image)
        maps = self._adjustment_maps(adjustment_map, len(photos))
        if soft_edges and not self.network.config.presets:
            raise ValueError("`soft_edges` needs a network with presets: this one has no adjustment map.")

        images, used = [], []
        for photo, own in zip(photos, maps, strict=True):
            if own is not None:
                size = photo.shape[:2] if isinstance(photo, np.ndarray) else photo.shape[1:]
                check_aspect(own.shape[2:], size, "adjustment_map")

            # 2. Look at a small copy: what is where, and which preset retouches it
            context = self.network.look(
                as_tensor(photo).to(self._execution_device),
                own if own is None else own.to(self._execution_device),
                soft_edges=soft_edges,
                radius=edge_radius,
                epsilon=edge_epsilon,
            )
            used.append(None if context.weights is None else context.weights[0].cpu())

            # 3. Retouch the pixels at full resolution, in strips of rows
            if output_type != "pil" and isinstance(photo, np.ndarray):
                photo = as_float(photo)  # nothing is rounded on the way to "np" and "pt"
            images.append(as_output(self._retouch(photo, context, float(strength)), output_type))

        # 4. One array where the sizes allow it
        images = images if output_type == "pil" else as_one_array(images)
        used = used if self.network.config.presets else None
        self.maybe_free_model_hooks()
        return SAAdjustNetOutput(images, used) if return_dict else (images, used)

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

    def _retouch(self, photo, context, strength):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor; strip by strip."""
        is_array = isinstance(photo, np.ndarray)
        height, width = photo.shape[:2] if is_array else photo.shape[1:]
        result = np.empty(photo.shape, photo.dtype) if is_array else torch.empty(photo.shape)
        step = max(_STRIP // width, 1)
        for first in range(0, height, step):
            strip = slice(first, first + step)
            if is_array:
                rows = torch.from_numpy(as_float(np.ascontiguousarray(photo[strip]))).permute(2, 0, 1)
            else:
                rows = photo[:, strip].float()
            rows = rows[None].to(self._execution_device)
            new = torch.lerp(rows, self.network.retouch_rows(context, rows, first, height), strength)[0].cpu()
            if not is_array:
                result[:, strip] = new
                continue
            new = new.permute(1, 2, 0).numpy()
            if photo.dtype.kind == "u":
                top = np.iinfo(photo.dtype).max
                new = np.rint(np.clip(new, 0, 1) * top)
            result[strip] = new
        return result


def _as_weights(given, presets):
    """An adjustment map as a caller gave it -> (1,K,h,w) float32 with sum 1 at every place."""
    if isinstance(given, PIL.Image.Image):
        if given.mode not in ("L", "P", "1"):
            raise ValueError(f"`adjustment_map` pictures must be 8-bit indices, got mode {given.mode}.")
        given = np.asarray(given)
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
    weights = given[None].detach().cpu().double()  # in which no sum of float32 overflows
    total = weights.sum(1, keepdim=True)
    if not total.isfinite().all() or weights.min() < 0:
        raise ValueError("`adjustment_map` weights must be finite and not negative.")
    if total.min() <= 0:
        raise ValueError("`adjustment_map` weights must not be zero for all presets at a place.")
    return (weights / total).float()


def _check_edge(name, value, most):
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < value <= most:
        raise ValueError(f"`{name}` must be a number in (0, {most:g}], got {value!r}.")
