"""sRGB and CIELAB, in float32 at least, whatever the autocast."""

from collections.abc import Sequence

import numpy as np
import torch

from diffretouch.colour import linear_to_srgb, srgb_to_linear

# sRGB primaries to CIE XYZ (D65), IEC 61966-2-1; and the D65 white.
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_FROM_XYZ = np.linalg.inv(_TO_XYZ).tolist()
_WHITE = (0.95047, 1.0, 1.08883)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27


def matrix_product(matrix: Sequence[Sequence[float]], image: torch.Tensor) -> torch.Tensor:
    """A 3x3 matrix of numbers times the channels of (...,3,H,W): as sums, since products may run in TF32 or bf16."""
    red, green, blue = image.unbind(-3)
    return torch.stack([row[0] * red + row[1] * green + row[2] * blue for row in matrix], -3)


def srgb_to_lab(image: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) sRGB in [0,1] -> CIELAB (D65): L in [0,100], a and b around 0. Colours outside the gamut are kept."""
    xyz = matrix_product(_TO_XYZ, srgb_to_linear(_at_least_float(image))).unbind(1)
    xyz = torch.stack([channel / white for channel, white in zip(xyz, _WHITE, strict=True)], 1)
    f = torch.where(xyz > _EPSILON, xyz.clamp(min=_EPSILON) ** (1 / 3), (_KAPPA * xyz + 16) / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_srgb(lab: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) CIELAB (D65) -> sRGB, the inverse of `srgb_to_lab`.

    Nothing is clamped: colours outside the gamut come out below 0 or above 1.
    """
    lightness, a, b = _at_least_float(lab).unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(f**3 > _EPSILON, f**3, (116 * f - 16) / _KAPPA).unbind(1)
    xyz = torch.stack([channel * white for channel, white in zip(xyz, _WHITE, strict=True)], 1)
    return linear_to_srgb(matrix_product(_FROM_XYZ, xyz))


def _at_least_float(image):
    return image if image.dtype == torch.float64 else image.float()
