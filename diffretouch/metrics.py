"""How close a retouch comes to an expert's: PSNR and colour differences, on sRGB photos in [0,1]."""

import torch

# sRGB primaries to CIE XYZ (D65), IEC 61966-2-1; and the D65 white.
_TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
_WHITE = [0.95047, 1.0, 1.08883]


def srgb_to_lab(image):
    """(B,3,H,W) sRGB in [0,1] -> CIELAB (D65): L in [0,100], a and b around 0."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,bjhw->bihw", image.new_tensor(_TO_XYZ), linear) / image.new_tensor(_WHITE)[:, None, None]
    epsilon, kappa = 216 / 24389, 24389 / 27
    f = torch.where(xyz > epsilon, xyz.clamp(min=epsilon) ** (1 / 3), (kappa * xyz + 16) / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def psnr(image, target):
    """Peak signal-to-noise ratio in dB, (B,), for a peak of 1."""
    return -10 * (image - target).square().mean((1, 2, 3)).clamp(min=1e-12).log10()


def delta_e76(image, target):
    """Mean CIE 1976 colour difference, (B,): the Euclidean distance in CIELAB."""
    return (srgb_to_lab(image) - srgb_to_lab(target)).square().sum(1).sqrt().mean((1, 2))
