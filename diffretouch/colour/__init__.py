"""Colour, once: luma and the sRGB curve here, for arrays and tensors; CIELAB and ProPhoto RGB beside."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", float, np.ndarray, "torch.Tensor")

LUMA = (0.299, 0.587, 0.114)  # weights of sRGB-encoded (R,G,B), ITU-R BT.601


def srgb_to_linear(encoded: Values) -> Values:
    """sRGB -> linear light (IEC 61966-2-1), of any shape, array or tensor; or of one number.

    Colours outside the gamut keep their place: the curve is mirrored for negative values (as in CSS Color 4 and
    scRGB) and carried on beyond 1.
    """
    values = _own(encoded)
    size = abs(values)
    return _where(size <= 0.04045, values / 12.92, _signed(((size + 0.055) / 1.055) ** 2.4, values))


def linear_to_srgb(linear: Values) -> Values:
    """Linear light -> sRGB, the inverse of `srgb_to_linear`."""
    values = _own(linear)
    size = abs(values).clip(0.0031308)  # the power's slope is infinite at 0
    return _where(abs(values) <= 0.0031308, values * 12.92, _signed(1.055 * size ** (1 / 2.4) - 0.055, values))


def _own(values):
    return np.float64(values) if isinstance(values, (int, float)) else values


def _where(condition, a, b):
    if isinstance(a, np.generic):  # a number stays one
        return a if condition else b
    return np.where(condition, a, b) if isinstance(a, np.ndarray) else a.where(condition, b)


def _signed(size, like):
    return np.copysign(size, like) if isinstance(size, (np.ndarray, np.generic)) else size.copysign(like)
