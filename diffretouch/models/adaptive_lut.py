"""Image-adaptive 3D lookup tables (Zeng et al., TPAMI 2020, arXiv 2009.14468): a baseline."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

CHANNELS = (3, 16, 32, 64, 128, 128)
SEEN = 256  # side of the square that the classifier looks at


class AdaptiveLut3D(ModelMixin, ConfigMixin):
    """A classifier weighs basis tables, whose sum is the photo's own: 593,516 parameters, as published.

    The classifier's layers are numbered as in the authors' release, whose weights fit (see
    [`diffretouch.training.convert.load_adaptive_lut`]). At the start the first table is the identity, the others are
    zero, and all weights are nearly one: the authors' start spreads them between -3 and 4.

    Args:
        tables (`int`): basis tables.
        size (`int`): nodes on an edge of a table.
    """

    @register_to_config
    def __init__(self, *, tables: int = 3, size: int = 33) -> None:
        super().__init__()
        layers = [nn.Upsample((SEEN, SEEN), mode="bilinear")]
        for n, (before, after) in enumerate(zip(CHANNELS, CHANNELS[1:], strict=False)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            layers.append(nn.InstanceNorm2d(after, affine=True) if n < 4 else nn.Dropout(0.5))
        layers.append(nn.Conv2d(CHANNELS[-1], tables, SEEN // 32))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(layers[-1].weight, std=1e-4)
        nn.init.ones_(layers[-1].bias)
        self.classifier = nn.Sequential(*layers)
        steps = torch.linspace(0, 1, size)
        b, g, r = torch.meshgrid(steps, steps, steps, indexing="ij")
        self.basis = nn.Parameter(torch.zeros(tables, 3, size, size, size))  # [table, channel, b, g, r]
        self.basis.data[0] = torch.stack([r, g, b])

    def table(self, photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,3,H,W) in [0,1], a small one does -> (tables (B,3,D,D,D) by channel, b, g, r; weights (B,K)), float32."""
        weights = self.classifier(photo).flatten(1).float()
        return torch.einsum("bk,kcxyz->bcxyz", weights, self.basis.float()), weights

    def forward(self, image: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """Look up every pixel, trilinear.

        Args:
            image (`torch.Tensor`): (B,3,H,W) in [0,1].
            seen (`torch.Tensor`, *optional*): (B,3,h,w), the photos that decide the weights where `image` holds only
                some of their pixels.

        Returns:
            `torch.Tensor`: (B,3,H,W) float32, not clamped.
        """
        return look_up(self.table(image if seen is None else seen)[0], image)

    def regularisation(
        self, weights: torch.Tensor, *, smoothness: float = 1e-4, monotonicity: float = 10.0
    ) -> torch.Tensor:
        """The paper's two penalties (eq. 5 to 7): uneven tables and large weights; tables that fall anywhere.

        Args:
            weights (`torch.Tensor`): (B,K), from `table`.
        """
        uneven, falling = weights.square().mean(), 0.0
        for axis in (2, 3, 4):
            steps = self.basis.diff(dim=axis)
            uneven = uneven + steps.square().mean(tuple(range(1, 5))).sum()
            falling = falling + F.relu(-steps).mean(tuple(range(1, 5))).sum()
        return smoothness * uneven + monotonicity * falling


def look_up(tables: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(B,3,D,D,D) tables by channel, b, g, r; (B,3,H,W) colours in [0,1], beyond taken to the edge -> (B,3,H,W)."""
    with torch.autocast(image.device.type, enabled=False):
        colours = (image.float().permute(0, 2, 3, 1) * 2 - 1)[:, None]  # x = r, y = g, z = b, nodes at both ends
        return F.grid_sample(tables, colours, padding_mode="border", align_corners=True)[:, :, 0]
