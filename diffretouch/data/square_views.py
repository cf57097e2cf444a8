"""Square, slightly turned views of a photo and its retouch, as SA-AdjustNet is trained on (Nam and Kim 2017)."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import numpy as np


class SquareView:
    """The photo in the middle of a square, filled up with its edge pixels, turned by up to 10 degrees and flipped.

    Args:
        size (`int`): side of the square; the photo's long side fits in exactly.
        pixels (`int`): random positions inside the photo that are drawn for training.
        degrees (`float`): turns are drawn from [-degrees, degrees].
    """

    def __init__(self, size: int, pixels: int = 2048, degrees: float = 10.0) -> None:
        self.size, self.pixels, self.degrees = size, pixels, degrees

    def __call__(
        self,
        photo: torch.Tensor,
        target: torch.Tensor,
        scene: torch.Tensor | None = None,
        rng: "np.random.Generator | None" = None,
    ) -> dict[str, torch.Tensor]:
        """One view.

        Args:
            photo, target (`torch.Tensor`): (3,H,W) in [0,1].
            scene (`torch.Tensor`, *optional*): (H,W) int64 class of each pixel, -1 where unknown.
            rng (`numpy.random.Generator`, *optional*): draws turn, flip and pixels; without it the photo stands
                upright and the pixels are spread evenly.

        Returns:
            `dict`: `input`, `target` (3,size,size); `scene` (size,size) int64, -1 outside the photo; `pixels` (P,)
            int64, row * size + column, with repetition only where the photo has fewer than P.
        """
        angle, flip = (rng.uniform(-self.degrees, self.degrees), rng.random() < 0.5) if rng is not None else (0, False)
        grid, inside = self._grid(photo.shape[1:], math.radians(angle), flip)
        take = lambda x, mode: F.grid_sample(  # noqa: E731
            x[None], grid, mode=mode, padding_mode="border", align_corners=False
        )[0]
        scene = torch.full(photo.shape[1:], -1) if scene is None else scene
        view = take(scene[None].float(), "nearest")[0].long()
        view[~inside] = -1
        return {
            "input": take(photo, "bilinear"),
            "target": take(target, "bilinear"),
            "scene": view,
            "pixels": self._draw(inside, rng),
        }

    def _grid(self, shape, angle, flip):
        """Where each pixel of the square comes from, (1,size,size,2) for `grid_sample`, and whether inside."""
        height, width = shape
        scale = max(height, width) / self.size
        place = torch.arange(self.size) - (self.size - 1) / 2  # from the centre, in pixels of the square
        y, x = torch.meshgrid(place, -place if flip else place, indexing="ij")
        source_x = (x * math.cos(angle) - y * math.sin(angle)) * scale * 2 / width
        source_y = (x * math.sin(angle) + y * math.cos(angle)) * scale * 2 / height
        inside = (source_x.abs() < 1) & (source_y.abs() < 1)
        return torch.stack([source_x, source_y], -1)[None], inside

    def _draw(self, inside, rng):
        positions = inside.flatten().nonzero()[:, 0]
        if rng is None:
            return positions[torch.linspace(0, len(positions) - 1, self.pixels).round().long()]
        return positions[torch.from_numpy(rng.choice(len(positions), self.pixels, len(positions) < self.pixels))]
