import numpy as np
import pytest
import torch
from skimage.color import lab2rgb

from diffretouch.colour import linear_to_srgb, srgb_to_linear
from diffretouch.colour.lab import lab_to_srgb, srgb_to_lab
from diffretouch.colour.prophoto import srgb_to_prophoto


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_the_srgb_curve(make):
    import colour  # not at the top: diffusers cannot be imported after it

    encoded = np.linspace(0, 1.2, 301)
    linear = srgb_to_linear(make(encoded))
    assert np.abs(np.asarray(linear) - colour.cctf_decoding(encoded, "sRGB")).max() < 1e-12
    assert np.abs(np.asarray(linear_to_srgb(linear)) - encoded).max() < 1e-7  # the standard's two limits differ
    for curve in (srgb_to_linear, linear_to_srgb):  # mirrored, in its own dtype
        assert (curve(make(-encoded)) == -curve(make(encoded))).all()
        assert curve(make(encoded.astype(np.float32))).dtype == make(encoded.astype(np.float32)).dtype


@pytest.mark.parametrize("value", [0.0, 0.003, 0.5, 1, -0.2, 1.3])
def test_the_srgb_curve_of_a_number(value):
    for curve in (srgb_to_linear, linear_to_srgb):
        for number in (value, np.float32(value), np.float64(value)):
            of_one = curve(number)
            assert np.ndim(of_one) == 0 and of_one == pytest.approx(curve(np.array([value], np.float64))[0], abs=1e-6)


def test_the_curves_gradients_are_finite_and_right_at_black():
    black = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (srgb_to_linear(black).sum() + linear_to_srgb(black).sum()).backward()
    torch.testing.assert_close(black.grad, torch.full_like(black, 1 / 12.92 + 12.92))


def test_lab_keeps_float32_in_autocast_and_for_half_precision():
    image = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    wanted = srgb_to_lab(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(srgb_to_lab(image), wanted)
        assert torch.equal(lab_to_srgb(wanted), lab_to_srgb(wanted.clone()))
        assert torch.equal(srgb_to_prophoto(image), srgb_to_prophoto(image.clone()))
        torch.testing.assert_close(lab_to_srgb(wanted), image, atol=2e-5, rtol=0)
    half = image.bfloat16()
    assert torch.equal(srgb_to_lab(half), srgb_to_lab(half.float()))


def test_there_and_back():
    image = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    image[0, :, 0] = 0
    image[0, :, 1] = 1
    torch.testing.assert_close(lab_to_srgb(srgb_to_lab(image)), image, atol=1e-9, rtol=0)
    torch.testing.assert_close(lab_to_srgb(srgb_to_lab(image.float())), image.float(), atol=2e-5, rtol=0)


def test_against_scikit_image():
    lab = np.random.default_rng(0).uniform((20, -30, -30), (90, 30, 30), (8, 9, 3))
    ours = lab_to_srgb(torch.from_numpy(lab).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    inside = ((ours > 0) & (ours < 1)).all(-1)
    assert inside.mean() > 0.7
    np.testing.assert_allclose(ours[inside], lab2rgb(lab)[inside], atol=2e-3)  # another white by 2e-4


def test_outside_the_gamut_nothing_is_clamped_and_gradients_are_finite():
    lab = torch.tensor([50.0, -90, 80]).view(1, 3, 1, 1).double().requires_grad_()
    srgb = lab_to_srgb(lab)
    assert srgb.min() < 0
    black = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    (srgb.sum() + lab_to_srgb(black).sum()).backward()
    assert lab.grad.isfinite().all() and black.grad.isfinite().all()


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
