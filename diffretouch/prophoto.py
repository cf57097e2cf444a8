"""ProPhoto RGB with a plain gamma of 1.8, the space of some released weights' inputs."""

import torch

# Linear sRGB (D65) -> linear ProPhoto RGB (D50), by way of CIE XYZ and the Bradford adaptation.
_FROM_SRGB = (
    (0.52927697, 0.33010195, 0.14062108),
    (0.09836752, 0.87347118, 0.02816130),
    (0.01688252, 0.11767394, 0.86544354),
)


def srgb_to_prophoto(image):
    """sRGB -> gamma-1.8 ProPhoto RGB (ROMM RGB, ISO 22028-2, without its linear toe).

    Args:
        image (`torch.Tensor`): (B,3,H,W) or (3,H,W) in [0,1]. Values outside go through the curves mirrored at 0 and
            carried on beyond 1, so that nothing is clipped.

    Returns:
        `torch.Tensor`: of the same shape and dtype; [0,1] stays in [0,1].
    """
    size = image.abs()
    linear = torch.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4) * image.sign()
    red, green, blue = linear.unbind(-3)
    # Sums instead of a matrix product: those may run in TF32.
    rows = [row[0] * red + row[1] * green + row[2] * blue for row in _FROM_SRGB]
    wide = torch.stack(rows, -3)
    return wide.abs() ** (1 / 1.8) * wide.sign()
