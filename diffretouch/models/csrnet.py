"""CSRNet, one colour function per photo from a condition network (He et al., ECCV 2020, arXiv 2009.10390); CSRNet-L.

The paper's extension CSRNet-L (arXiv 2104.06279) adds "an expanded base network and spatial feature modulation" for
local effects. Its layer sizes are not public: `CSRNetL` is a design of our own from that sentence, not the paper's.
"""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

INPUT_SPACES = ("srgb", "prophoto")
SMALLEST = 5  # pixels on a side, below which the condition network has no output


def _check_photo(name, photo):
    if photo.ndim != 4 or photo.shape[1] != 3:
        raise ValueError(f"`{name}` must have shape (B,3,H,W), got {tuple(photo.shape)}.")
    if not photo.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {photo.dtype}.")


def _check_config(condition_size, input_space):
    if isinstance(condition_size, bool) or not isinstance(condition_size, int) or condition_size < SMALLEST:
        raise ValueError(f"`condition_size` must be an integer of at least {SMALLEST}, got {condition_size!r}.")
    if input_space not in INPUT_SPACES:
        raise ValueError(f"`input_space` must be one of {', '.join(INPUT_SPACES)}, got {input_space!r}.")


class ConditionNetwork(nn.Module):
    """Three strided convolutions, each behind one pixel of zeros: a photo -> what its retouch depends on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) -> map (B,C,h,w) at about an eighth of the size; each value sees 19 x 19 pixels."""
        if min(photo.shape[-2:]) < SMALLEST:
            height, width = photo.shape[-2:]
            raise ValueError(f"The condition needs at least {SMALLEST} pixels on each side, got {height} x {width}.")
        x = F.relu(self.conv1(photo))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x))


class CSRNet(ModelMixin, ConfigMixin):
    r"""Conditional sequential retouching network: three 1x1 layers, modulated by a glance at the whole photo.

    After each layer k, global feature modulation: f -> (1 + s_k) f + t_k, with s_k and t_k linear in the mean over the
    condition network's map (paper, Sec. 3.2 and 3.3). For one photo this is one colour function (`fold`). 36,489
    parameters with the default widths.

    Args:
        channels (`int`): width of the base network.
        condition_channels (`int`): width of the condition network.
        condition_size (`int`): long side in pixels of the thumbnail from which pipelines compute the condition: the
            size that the weights were trained with (500 in the paper). The condition depends on the scale of pixels.
        input_space (`str`): what photos `forward` takes: "srgb", or "prophoto" (gamma 1.8) as the released weights.
            The output is always sRGB.
    """

    @register_to_config
    def __init__(
        self,
        *,
        channels: int = 64,
        condition_channels: int = 32,
        condition_size: int = 500,
        input_space: str = "srgb",
    ) -> None:
        super().__init__()
        _check_config(condition_size, input_space)
        self.condition_net = ConditionNetwork(condition_channels)
        widths = (channels, channels, 3)
        self.scales = nn.ModuleList(nn.Linear(condition_channels, width) for width in widths)
        self.shifts = nn.ModuleList(nn.Linear(condition_channels, width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip((3, *widths), widths, strict=False))

    def condition(self, photo: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in the input space, at least 5 x 5 -> condition vector (B,C)."""
        return self.condition_net(photo).mean((2, 3))

    def forward(self, image: torch.Tensor, thumbnail: torch.Tensor | None = None) -> torch.Tensor:
        """Retouch photos.

        Args:
            image (`torch.Tensor`): (B,3,H,W) in [0,1], in the input space.
            thumbnail (`torch.Tensor`, *optional*): (B,3,h,w), what the condition is computed from instead of `image`.

        Returns:
            `torch.Tensor`: (B,3,H,W) sRGB, not clamped.
        """
        _check_photo("image", image)
        return self.modulated(image, self.condition(image if thumbnail is None else thumbnail))

    def modulated(self, image: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """`forward` with a given condition (B,C)."""
        x = image
        for k, (conv, scale, shift) in enumerate(zip(self.convs, self.scales, self.shifts, strict=True)):
            x = conv(x)
            x = x * scale(condition)[:, :, None, None] + shift(condition)[:, :, None, None] + x
            x = F.relu(x) if k < 2 else x
        return x

    def fold(self, condition: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The colour function of one photo: W' = (1 + s) W, b' = (1 + s) b + t for each of the three layers.

        Args:
            condition (`torch.Tensor`): (C,), see `condition`.

        Returns:
            list of (weight (outputs, inputs), bias (outputs,)), in float32 (float64 if the weights are): with ReLU
            between them they take colours in the input space to sRGB.
        """
        layers = []
        for conv, scale, shift in zip(self.convs, self.scales, self.shifts, strict=True):
            dtype = torch.float64 if conv.weight.dtype == torch.float64 else torch.float32
            s, t = scale(condition).to(dtype), shift(condition).to(dtype)
            weight, bias = conv.weight[:, :, 0, 0].to(dtype), conv.bias.to(dtype)
            layers.append(((1 + s)[:, None] * weight, (1 + s) * bias + t))
        return layers


class CSRNetL(ModelMixin, ConfigMixin):
    r"""CSRNet for local effects: 3x3 layers, and a modulation that also varies over the photo. A design of our own.

    The scale of layer k is s_k(v) + S_k(m), the shift t_k(v) + T_k(m): m is the condition network's map, brought to
    the photo's size, v its mean over the photo, S_k and T_k are 1x1 convolutions without a bias. With S_k = T_k = 0
    and kernels that are zero but in their centre this is CSRNet (`from_csrnet`). 80,713 parameters with the default
    widths.

    Args: as [`CSRNet`].
    """

    @register_to_config
    def __init__(
        self,
        *,
        channels: int = 64,
        condition_channels: int = 32,
        condition_size: int = 500,
        input_space: str = "srgb",
    ) -> None:
        super().__init__()
        _check_config(condition_size, input_space)
        self.condition_net = ConditionNetwork(condition_channels)
        widths = (channels, channels, 3)
        self.scales = nn.ModuleList(nn.Linear(condition_channels, width) for width in widths)
        self.shifts = nn.ModuleList(nn.Linear(condition_channels, width) for width in widths)
        self.local_scales = nn.ModuleList(nn.Conv2d(condition_channels, width, 1, bias=False) for width in widths)
        self.local_shifts = nn.ModuleList(nn.Conv2d(condition_channels, width, 1, bias=False) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3, *widths), widths, strict=False))

    @classmethod
    def from_csrnet(cls, network: CSRNet) -> "CSRNetL":
        """A `CSRNetL` that does what a `CSRNet` does: where training for local effects starts."""
        config = {name: network.config[name] for name in ("channels", "condition_channels", "condition_size")}
        local = cls(**config, input_space=network.config.input_space)
        state = network.state_dict()
        for name, weight in local.state_dict().items():
            if name.startswith("convs.") and name.endswith("weight"):
                weight.zero_()
                weight[:, :, 1, 1] = state[name][:, :, 0, 0]
            elif name.startswith("local_"):
                weight.zero_()
            else:
                weight.copy_(state[name])
        return local

    def modulation(self, photo: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(B,3,H,W) -> for each layer scale and shift (B,width,h,w), at the size of the condition network's map."""
        m = self.condition_net(photo)
        v = m.mean((2, 3))
        layers = zip(self.scales, self.local_scales, self.shifts, self.local_shifts, strict=True)
        return [
            (scale(v)[:, :, None, None] + local_scale(m), shift(v)[:, :, None, None] + local_shift(m))
            for scale, local_scale, shift, local_shift in layers
        ]

    def forward(self, image: torch.Tensor, thumbnail: torch.Tensor | None = None) -> torch.Tensor:
        """As `CSRNet.forward`."""
        _check_photo("image", image)
        height = image.shape[-2]
        return self.retouch_rows(
            image, self.modulation(image if thumbnail is None else thumbnail), slice(0, height), height
        )

    @staticmethod
    def rows_seen(rows: slice, height: int) -> slice:
        """The rows of the photo that rows of the result depend on: three layers see three rows beyond."""
        return slice(max(rows.start - 3, 0), min(rows.stop + 3, height))

    def retouch_rows(
        self, window: torch.Tensor, modulation: list[tuple[torch.Tensor, torch.Tensor]], rows: slice, height: int
    ) -> torch.Tensor:
        """Some rows of a photo, in memory for these rows, with a given modulation.

        Args:
            window (`torch.Tensor`): (B,3,h,W), the rows `rows_seen(rows, height)` of the photo.
            modulation: from `modulation`.
            rows (`slice`): the wanted rows.
            height (`int`): of the whole photo.

        Returns:
            `torch.Tensor`: (B,3,rows,W) sRGB, not clamped.
        """
        seen, width = self.rows_seen(rows, height), window.shape[-1]
        x = window  # beyond the photo every layer sees zeros, by the padding; where the window is cut, rows are lost
        for k, (conv, (scale, shift)) in enumerate(zip(self.convs, modulation, strict=True)):
            x = conv(x)
            x = x * enlarge(scale, (height, width), seen) + enlarge(shift, (height, width), seen) + x
            x = F.relu(x) if k < 2 else x
        return x[..., rows.start - seen.start : rows.stop - seen.start, :]

    def flat_colours(
        self, modulation: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The colour function for flat areas with the mean modulation, as `CSRNet.fold`: a start for lookup tables."""
        layers = []
        for conv, (scale, shift) in zip(self.convs, modulation, strict=True):
            s, t = scale[0].mean((1, 2)).float(), shift[0].mean((1, 2)).float()
            weight, bias = conv.weight.sum((2, 3)).float(), conv.bias.float()
            layers.append(((1 + s)[:, None] * weight, (1 + s) * bias + t))
        return layers


def enlarge(maps: torch.Tensor, size: Sequence[int], rows: slice | None = None) -> torch.Tensor:
    """Bilinear interpolation to `size` (corners not aligned, constant beyond the outer centres), or some rows of it.

    As products with matrices that take a cell and add a fraction of the step to the next one: a constant map stays the
    same to the last bit, and gradients are products too.

    Args:
        maps (`torch.Tensor`): (B,C,h,w).
        size (pair of `int`): H, W of the whole.
        rows (`slice`, *optional*): which of the H rows.

    Returns:
        `torch.Tensor`: (B,C,rows,W).
    """
    vertical = _interpolation(maps, -2, size[0], rows)
    maps = vertical @ torch.cat([maps, maps.diff(dim=-2)], -2)
    return torch.cat([maps, maps.diff(dim=-1)], -1) @ _interpolation(maps, -1, size[1]).T


def _interpolation(maps, axis, size, rows=None):
    """The matrix (rows, 2 cells - 1) for one axis: on the cells, and on their differences."""
    cells, rows = maps.shape[axis], slice(0, size) if rows is None else rows
    positions = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    positions = ((positions + 0.5) * (cells / size) - 0.5).clamp(0, cells - 1)
    cell = positions.long().clamp(max=max(cells - 2, 0))
    matrix = torch.zeros(len(positions), 2 * cells - 1, dtype=torch.float64)
    places = torch.arange(len(positions))
    matrix[places, cell] = 1
    if cells > 1:
        matrix[places, cells + cell] = positions - cell
    return matrix.to(maps)
