import numpy as np
import torch
from skimage.color import lab2rgb

from diffretouch.lab import lab_to_srgb
from diffretouch.metrics import srgb_to_lab


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
