"""CIELAB back to sRGB; the way there is `diffretouch.metrics.srgb_to_lab`."""

import torch

from diffretouch.metrics import _TO_XYZ, _WHITE


def lab_to_srgb(lab):
    """(B,3,H,W) CIELAB (D65) -> sRGB, the inverse of `srgb_to_lab`.

    Nothing is clamped: colours outside the gamut come out below 0 (linear, as near black) or above 1.
    """
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    epsilon, kappa = 216 / 24389, 24389 / 27
    xyz = torch.where(f**3 > epsilon, f**3, (116 * f - 16) / kappa) * lab.new_tensor(_WHITE)[:, None, None]
    from_xyz = torch.linalg.inv(torch.tensor(_TO_XYZ, dtype=torch.float64)).to(lab)
    linear = torch.einsum("ij,bjhw->bihw", from_xyz, xyz)
    encoded = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, encoded)
