import numpy as np
import pytest
import torch

from diffretouch.prophoto import srgb_to_prophoto


def test_equals_colour_science():
    import colour  # not at the top: diffusers cannot be imported after it

    srgb = np.random.default_rng(0).random((500, 3))
    wide = colour.RGB_to_RGB(
        colour.cctf_decoding(srgb, "sRGB"), "sRGB", "ProPhoto RGB", chromatic_adaptation_transform="Bradford"
    )
    found = srgb_to_prophoto(torch.from_numpy(srgb).T[:, :, None])[:, :, 0].T.numpy()
    assert np.abs(found - wide ** (1 / 1.8)).max() < 5e-4


def test_white_black_and_what_lies_beyond():
    ends = torch.tensor([0.0, 1.0, -0.2, 1.3], dtype=torch.float64).expand(3, 4)[None, :, None]
    black, white, below, above = srgb_to_prophoto(ends)[0, :, 0].unbind(1)
    assert torch.equal(black, torch.zeros_like(black)) and torch.allclose(white, torch.ones_like(white), atol=1e-7)
    assert (below < 0).all() and (above > 1).all()


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 5, 4)])
def test_keeps_shape_dtype_and_range(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    wide = srgb_to_prophoto(image)
    assert wide.shape == shape and wide.dtype == torch.float32 and 0 <= wide.min() and wide.max() <= 1
