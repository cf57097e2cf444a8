"""The affine bilateral grid: its operators and the head that predicts it (HDRNet 2017; DiffRetouch 2025)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange

from diffretouch.colour import LUMA

from .shoulder import roll_off
from .slice_apply import slice_apply

if TYPE_CHECKING:
    from diffretouch.pixels import ArrayOrTensor

COUNTS = 0.5001  # a mask's pixel counts over this: the last digit does not decide about a half


def _full_precision(tensor):
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _corner_coordinates(size, device, dtype):
    """i/(size-1) in [0,1], with the first and last pixel on the corners; the centre for a single pixel."""
    if size == 1:
        return torch.full((1,), 0.5, device=device, dtype=dtype)
    return torch.linspace(0, 1, size, device=device, dtype=dtype)


def slice_grid(grid: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """Read a bilateral grid at every pixel: trilinear in (guide, y, x), constant beyond the outer cell centres.

    Computed in float32 (float64 if `grid` is), whatever the autocast: half precision coordinates are off by up to 0.2
    on large photos.

    Args:
        grid (`torch.Tensor`): (B,12,D,gh,gw) affine coefficients.
        guide (`torch.Tensor`): (B,1,H,W) in [0,1], the position along the depth D.

    Returns:
        `torch.Tensor`: (B,12,H,W) coefficients per pixel.
    """
    if grid.ndim != 5 or grid.shape[1] != 12:
        raise ValueError(f"`grid` must have shape (B,12,D,gh,gw), got {tuple(grid.shape)}.")
    if guide.ndim != 4 or guide.shape[1] != 1 or guide.shape[0] != grid.shape[0]:
        raise ValueError(f"`guide` must have shape ({grid.shape[0]},1,H,W), got {tuple(guide.shape)}.")
    dtype = _full_precision(grid)
    with torch.autocast(grid.device.type, enabled=False):
        grid, guide = grid.to(dtype), guide.to(dtype)
        batch, _, height, width = guide.shape
        x = _corner_coordinates(width, grid.device, dtype).expand(batch, height, width)
        y = _corner_coordinates(height, grid.device, dtype)[:, None].expand(batch, height, width)
        coordinates = torch.stack([x, y, guide[:, 0]], -1)[:, None] * 2 - 1  # (B,1,H,W,3)
        return F.grid_sample(grid, coordinates, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


def apply_affine(coefficients: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Apply a 3x4 affine colour transform to each pixel; nothing is clamped.

    Args:
        coefficients (`torch.Tensor`): (B,12,H,W); channels 0..3 make red from (R,G,B,1), 4..7 green, 8..11 blue.
        image (`torch.Tensor`): (B,3,H,W).

    Returns:
        `torch.Tensor`: (B,3,H,W), float32 (float64 if `coefficients` is).
    """
    if coefficients.ndim != 4 or coefficients.shape[1] != 12:
        raise ValueError(f"`coefficients` must have shape (B,12,H,W), got {tuple(coefficients.shape)}.")
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2:] != coefficients.shape[2:]:
        raise ValueError(f"`image` must have shape (B,3,{coefficients.shape[2]},{coefficients.shape[3]}), "
                         f"got {tuple(image.shape)}.")  # fmt: skip
    dtype = _full_precision(coefficients)
    with torch.autocast(image.device.type, enabled=False):
        matrix = rearrange(coefficients.to(dtype), "b (out rgb1) h w -> b out rgb1 h w", out=3)
        return (matrix[:, :, :3] * image.to(dtype)[:, None]).sum(2) + matrix[:, :, 3]


def identity_grid(
    batch_size: int = 1,
    depth: int = 8,
    height: int = 16,
    width: int = 16,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The grid (B,12,D,gh,gw) that leaves every photo as it is, in any pixel range."""
    eye = torch.eye(3, 4, device=device, dtype=dtype).flatten()[None, :, None, None, None]
    return eye.repeat(batch_size, 1, depth, height, width)


def between_identity(grid: torch.Tensor, strength: float) -> torch.Tensor:
    """The grid at a strength: 0 leaves every photo as it is, 1 is the grid, others mix the results exactly."""
    with torch.autocast(grid.device.type, enabled=False):
        identity = identity_grid(1, device=grid.device, dtype=grid.dtype)[:, :, :1, :1, :1]
        return torch.lerp(identity.expand_as(grid), grid, float(strength))


class Guide(nn.Module):
    """Photo -> guide: a colour matrix, a piecewise-linear curve per channel, their mean (HDRNet, section 3.4.1).

    The curves are sums of ramps `slope * relu(y - threshold)` with the thresholds spread over [0,1).
    """

    def __init__(self, knots: int = 16) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3))  # y_j = sum_i x_i matrix[i,j]
        self.matrix_bias = nn.Parameter(torch.zeros(3))
        self.thresholds = nn.Parameter((torch.arange(knots) / knots).repeat(3, 1))
        self.slopes = nn.Parameter(torch.cat([torch.ones(3, 1), torch.zeros(3, knots - 1)], 1))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(
        self, image: torch.Tensor
    ) -> torch.Tensor:  # (B,3,H,W) in the head's pixel range -> (B,1,H,W) in [0,1]
        y = torch.einsum("bihw,ij->bjhw", image, self.matrix) + self.matrix_bias[:, None, None]
        total = 0
        for threshold, slope in zip(self.thresholds.unbind(1), self.slopes.unbind(1), strict=True):
            total = total + slope[:, None, None] * F.relu(y - threshold[:, None, None])
        return (total.mean(1, keepdim=True) + self.bias).clamp(0, 1)  # type: ignore[attr-defined]


def _handles(pivot, step=0.25):
    """What one unit of light, contrast (about the pivot), warmth and colour adds to an affine transform, (4,3,4)."""
    eye, none, luma = torch.eye(3), torch.zeros(3, 1), torch.tensor([LUMA])
    light, contrast = torch.cat([eye, none], 1), torch.cat([eye, none - pivot], 1)
    warmth = torch.cat([torch.diag(torch.tensor([1.0, 0.0, -1.0])), none], 1)
    colour = torch.cat([eye - luma, none], 1)
    return step * torch.stack([light, contrast, warmth, colour])


class AffineGridHead(ModelMixin, ConfigMixin):
    r"""Affine latent -> affine bilateral grid, and photo -> guide: what turns the UNet's output into a retouch.

    Two strided 3x3 convolutions (splat) bring the affine latent to the grid's size, two 1x1 convolutions predict the
    12 coefficients of `depth` cells. The released DiffRetouch head is `AffineGridHead(pixel_range=(-1, 1))` on
    64x64 latents; heads trained here keep guide and affine on [0,1], where the guide's thresholds lie, and predict
    the difference to the identity (`residual=True`): an untrained head makes the identity of latents of zero, and of
    others what its first four channels are called at the start: light, contrast, warmth, colour.

    Args:
        latent_channels (`int`): channels of the affine latent.
        splat_channels (pair of `int`): channels after the first and the second splat convolution.
        splat_strides (pair of `int`): (2, 2) makes a 16x16 grid of a 64x64 latent, (2, 1) of a 32x32 one.
        depth (`int`): cells along the guide.
        knots (`int`): ramps per channel in the guide.
        pixel_range (pair of `float`): the range in which guide and affine work inside. Public photos are [0,1].
        residual (`bool`): the network predicts grid - identity.
    """

    @register_to_config
    def __init__(
        self, *, latent_channels: int = 4, splat_channels: tuple[int, int] = (16, 32),
        splat_strides: tuple[int, int] = (2, 2), prediction_channels: int = 64, depth: int = 8, knots: int = 16,
        pixel_range: tuple[float, float] = (0.0, 1.0), residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        first, second = splat_channels
        self.splat1 = nn.Conv2d(latent_channels, first, 3, stride=splat_strides[0], padding=1)
        self.splat2 = nn.Conv2d(first, second, 3, stride=splat_strides[1], padding=1)
        self.prediction1 = nn.Conv2d(second, prediction_channels, 1)
        self.prediction2 = nn.Conv2d(prediction_channels, 12 * depth, 1)
        if residual:
            self._start_with_handles()
        self.guide_curve = Guide(knots)

    @torch.no_grad()
    def _start_with_handles(self):
        """The first four latents move light, contrast, warmth and colour, the rest of the head nothing yet.

        A network that starts from nothing finds brightness soon, but white balance and colour, which gain it little,
        only after a thousand steps or never: see training/README.md.
        """
        config = self.config
        most = min(config.latent_channels, min(config.splat_channels) // 2, config.prediction_channels)
        moves = _handles(pivot=sum(config.pixel_range) / 2)[:most]
        taken = 2 * len(moves)  # relu(x) and relu(-x) come through the convolutions, and x is their difference
        for layer, rows in ((self.splat1, taken), (self.splat2, taken), (self.prediction1, most)):
            layer.weight[:rows] = 0
            layer.bias[:rows] = 0
        nn.init.zeros_(self.prediction2.weight)
        nn.init.zeros_(self.prediction2.bias)
        # Light is for dark tones first. And of a grid that is the same at all depths the guide's gradient is rounding.
        by_depth = torch.ones(len(moves), config.depth)
        by_depth[:1] = torch.linspace(1.25, 0.75, config.depth)
        for k, move in enumerate(moves):
            for row, sign in ((2 * k, 1.0), (2 * k + 1, -1.0)):
                self.splat1.weight[row, k] = sign / 9
                self.splat2.weight[row, row, 1, 1] = 1.0
                self.prediction1.weight[k, row] = sign
            self.prediction2.weight[:, k, 0, 0] = torch.outer(move.flatten(), by_depth[k]).flatten()

    def forward(self, affine_latent: torch.Tensor) -> torch.Tensor:
        """(B,latent_channels,h,w) -> grid (B,12,D,gh,gw), float32, in the head's own pixel range."""
        x = F.relu(self.splat1(affine_latent))
        x = F.relu(self.splat2(x))
        x = self.prediction2(self.prediction1(x))
        grid = rearrange(x.to(_full_precision(x)), "b (k depth) h w -> b k depth h w", depth=self.config.depth)
        if self.config.residual:
            grid = grid + identity_grid(1, device=grid.device, dtype=grid.dtype)[:, :, :1, :1, :1]
        return grid

    def guide(self, photo: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in [0,1] -> guide (B,1,H,W) in [0,1], float32, whatever the autocast."""
        with torch.autocast(photo.device.type, enabled=False):
            low, high = self.config.pixel_range
            curve = self.guide_curve
            dtype = _full_precision(photo)
            if curve.matrix.dtype != dtype:  # weights loaded in half precision still guide in float32
                parameters = {name: value.to(dtype) for name, value in curve.named_parameters()}
                return torch.func.functional_call(curve, parameters, (photo.to(dtype) * (high - low) + low,))
            return curve(photo.to(dtype) * (high - low) + low)

    def apply_reference(
        self, grid: torch.Tensor, photo: torch.Tensor, *, shoulder: float | None = None
    ) -> torch.Tensor:
        """`apply` by the reference operators: differentiable, for training and as the oracle of the fast path."""
        low, high = self.config.pixel_range
        inside = photo * (high - low) + low
        retouched = apply_affine(slice_grid(grid, self.guide(photo)), inside)
        retouched = (retouched - low) / (high - low)
        return retouched if shoulder is None else roll_off(retouched, photo, shoulder)

    def keep_in_range(
        self, grid: torch.Tensor, photo: torch.Tensor, share: float, inside: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The grid with its results squeezed as a whole, just so far that they clip little of a photo.

        Affine transforms know no end of the range: on a photo unlike those of the training they burn out a face or a
        window. Between the tone under which, and that over which, a `share` of the pixels would lie in some channel,
        results are scaled into the range, all channels alike; where both lie inside, nothing changes. What the photo
        has at the end of its own range may stay there.

        Args:
            grid (`torch.Tensor`): (B,12,D,gh,gw).
            photo (`torch.Tensor`): (B,3,H,W) in [0,1], a small copy does.
            share (`float`): of the pixels, in [0,1), for each end.
            inside (`torch.Tensor`, *optional*): (H,W) in [0,1]; only pixels where it is over `COUNTS` count, or all
                where it is nowhere.

        Returns:
            `torch.Tensor`: like `grid`.
        """
        low, high = self.config.pixel_range
        photo = photo.to(grid)
        retouched = self.apply_reference(grid, photo)
        darkest = retouched.masked_fill(photo < 0.5 / 255, 1).amin(1).flatten(1)
        lightest = retouched.masked_fill(photo > 254.5 / 255, 0).amax(1).flatten(1)
        if inside is not None and (counts := inside.flatten() > COUNTS).any():
            darkest, lightest = darkest[:, counts], lightest[:, counts]
        darkest = darkest.quantile(share, dim=1).clamp(max=0)
        lightest = lightest.quantile(1 - share, dim=1).clamp(min=1)
        scale = 1 / (lightest - darkest)
        # y -> (y - darkest) scale in [0,1] is y -> scale y + offset in the head's own range
        offset = low * (1 - scale) - scale * darkest * (high - low)
        scale, offset = scale[:, None, None, None, None], offset[:, None, None, None, None]
        squeezed = grid * scale
        squeezed[:, 3::4] += offset  # what is added to red, green and blue
        return squeezed

    def apply(
        self,
        grid: torch.Tensor | Callable[[torch.nn.Module], Any],
        photo: "ArrayOrTensor | None" = None,
        *,
        shoulder: float | None = None,
        out: "ArrayOrTensor | None" = None,
        backend: str | None = None,
    ) -> "ArrayOrTensor":
        """Slice a grid against a photo at its full resolution and apply the affine transforms.

        Equal to `apply_reference`, which does the work where `grid` or `photo`, or the guide of a head in training
        mode, needs a gradient, or `grid` is float64; else one fused pass in bounded memory does (`slice_apply`).

        A module has a method of that name: with a function alone this is `torch.nn.Module.apply`, as DeepSpeed and
        others call it on every module.

        Args:
            grid (`torch.Tensor`): (B,12,D,gh,gw).
            photo (`torch.Tensor` or `numpy.ndarray`): a tensor (B,3,H,W) in [0,1], or an array (H,W,3) or (B,H,W,3)
                of uint8, uint16 or float32, which may be memory-mapped. Arrays carry no gradient.
            shoulder (`float`, *optional*): see `roll_off`; without it, what leaves the range is cut off in the end.
            out (*optional*): where the result goes, without gradient: like `photo`, or `photo` itself.
            backend (`str`, *optional*): "numba" or "torch" for the fused pass; by default the faster one.

        Returns:
            (B,3,H,W) float32, not clamped; or an array like `photo`: integers clamped and rounded, floats neither.
        """
        if photo is None:
            if not callable(grid):
                raise TypeError("`photo` is missing: a grid is applied to a photo.")
            return super().apply(grid)
        if torch.is_tensor(photo) and out is None and torch.is_tensor(grid):
            trained = self.guide_curve.parameters() if self.training else ()
            differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (grid, photo, *trained))
            if differentiable or grid.dtype == torch.float64:
                return self.apply_reference(grid, photo, shoulder=shoulder)
        curve, pixel_range = self.guide_curve, self.config.pixel_range
        return slice_apply(grid, photo, curve, pixel_range, shoulder=shoulder, out=out, backend=backend)
