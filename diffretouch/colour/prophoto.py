"""ProPhoto RGB with a plain gamma of 1.8, the space of some released weights' inputs."""

from typing import TYPE_CHECKING

from diffretouch.colour import srgb_to_linear

from .lab import matrix_product

if TYPE_CHECKING:
    import torch

# Linear sRGB (D65) -> linear ProPhoto RGB (D50), by way of CIE XYZ and the Bradford adaptation.
_FROM_SRGB = (
    (0.52927697, 0.33010195, 0.14062108),
    (0.09836752, 0.87347118, 0.02816130),
    (0.01688252, 0.11767394, 0.86544354),
)


def srgb_to_prophoto(image: "torch.Tensor") -> "torch.Tensor":
    """sRGB -> gamma-1.8 ProPhoto RGB (ROMM RGB, ISO 22028-2, without its linear toe).

    Args:
        image (`torch.Tensor`): (B,3,H,W) or (3,H,W) in [0,1]. Values outside go through the curves mirrored at 0 and
            carried on beyond 1, so that nothing is clipped.

    Returns:
        `torch.Tensor`: of the same shape and dtype; [0,1] stays in [0,1].
    """
    wide = matrix_product(_FROM_SRGB, srgb_to_linear(image))
    return wide.abs() ** (1 / 1.8) * wide.sign()
