"""HDRNet (Gharbi et al., SIGGRAPH 2017, "Deep Bilateral Learning for Real-Time Image Enhancement"): a baseline."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from .affine_grid import Guide, apply_affine, identity_grid, slice_grid


class HDRNet(ModelMixin, ConfigMixin):
    """Photo -> affine bilateral grid by one convolutional network, and the guide: 482,077 parameters.

    The published layout without batch normalisation has 482,080: our guide is the mean of its three curves, whose
    slopes take in the three weights that mix them there. The network starts at the identity. The grid is sliced as
    everywhere in this library, with the first and last pixel on the grid's corners.

    Args:
        input_size (`int`): side of the square to which photos are brought to be looked at, a power of 2.
        grid_size (`int`): cells of the grid along each side, a smaller power of 2, at least 4.
        depth (`int`): cells along the guide; also how many channels the first layer has.
        knots (`int`): ramps per channel in the guide.
    """

    @register_to_config
    def __init__(self, *, input_size: int = 256, grid_size: int = 16, depth: int = 8, knots: int = 16) -> None:
        super().__init__()
        steps = math.log2(input_size / grid_size) if grid_size else 0.0
        if steps < 1 or steps % 1 or grid_size < 4 or math.log2(grid_size) % 1:
            raise ValueError(
                "`input_size` and `grid_size` must be powers of 2, the second smaller and at least 4, got "
                f"{input_size} and {grid_size}."
            )
        conv = lambda before, after, **kwargs: nn.Conv2d(before, after, 3, padding=1, **kwargs)  # noqa: E731
        widths = [3, *(depth * 2**n for n in range(int(steps)))]
        last = widths[-1]
        self.splat = nn.ModuleList(
            conv(before, after, stride=2) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.local = nn.ModuleList([conv(last, 8 * depth), conv(8 * depth, 8 * depth, bias=False)])
        down = int(math.log2(grid_size / 4))
        self.global_convs = nn.ModuleList(
            conv(before, 8 * depth, stride=2) for before in [last, *[8 * depth] * (down - 1)][:down]
        )
        channels = 8 * depth if down else last
        self.global_layers = nn.ModuleList(
            [nn.Linear(16 * channels, 32 * depth), nn.Linear(32 * depth, 16 * depth), nn.Linear(16 * depth, 8 * depth)]
        )
        self.prediction = nn.Conv2d(8 * depth, 12 * depth, 1)
        self.guide_curve = Guide(knots)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.prediction.weight, std=1e-3)
        with torch.no_grad():
            self.prediction.bias.copy_(identity_grid(1, depth, 1, 1).flatten())

    def grid(self, photo: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in [0,1], a small copy does -> grid (B,12,D,gh,gw), float32."""
        size = self.config.input_size
        photo = photo if photo.dtype == torch.float64 else photo.float()  # half precision is not shrunk everywhere
        x = F.interpolate(photo, (size, size), mode="bilinear", antialias=True).to(self.dtype)
        for layer in self.splat:
            x = F.relu(layer(x))
        local, whole = self.local[1](F.relu(self.local[0](x))), x
        for layer in self.global_convs:
            whole = F.relu(layer(whole))
        whole = whole.flatten(1)
        for layer in self.global_layers[:2]:
            whole = F.relu(layer(whole))
        x = F.relu(local + self.global_layers[2](whole)[:, :, None, None])
        return self.prediction(x).float().unflatten(1, (12, self.config.depth))

    def forward(self, image: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """Retouch by the reference operators.

        Args:
            image (`torch.Tensor`): (B,3,H,W) in [0,1].
            seen (`torch.Tensor`, *optional*): (B,3,h,w), the photos that decide the grid where `image` holds only some
                of their pixels.

        Returns:
            `torch.Tensor`: (B,3,H,W) float32, not clamped.
        """
        guide = self.guide_curve(image.float())
        return apply_affine(slice_grid(self.grid(image if seen is None else seen), guide), image)
