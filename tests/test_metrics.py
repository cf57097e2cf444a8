import numpy as np
import skimage.color
import skimage.metrics
import torch

from diffretouch.metrics import delta_e76, psnr, srgb_to_lab


def photos(dtype=np.float64):
    rng = np.random.default_rng(0)
    a = rng.random((2, 3, 17, 23)).astype(dtype)
    return a, np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1).astype(dtype)


def hwc(image):
    return image.transpose(1, 2, 0)


def test_lab():
    a, _ = photos()
    a[0, :, 0, :4] = [[0, 1, 0.02, 0.5], [0, 1, 0.01, 0.5], [0, 1, 0.03, 0.5]]
    lab = srgb_to_lab(torch.from_numpy(a)).numpy()
    for one, expected in zip(lab, a, strict=True):
        np.testing.assert_allclose(hwc(one), skimage.color.rgb2lab(hwc(expected)), atol=0.02)
    np.testing.assert_allclose(lab[0, :, 0, 3], [53.389, 0, 0], atol=2e-3)


def test_psnr():
    a, b = photos()
    expected = [skimage.metrics.peak_signal_noise_ratio(y, x, data_range=1) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(torch.from_numpy(a), torch.from_numpy(b)), expected)
    assert psnr(torch.from_numpy(a), torch.from_numpy(a)).min() >= 120


def test_delta_e():
    a, b = photos()
    values = delta_e76(torch.from_numpy(a), torch.from_numpy(b))
    for x, y, value in zip(a, b, values, strict=True):
        lab = [skimage.color.rgb2lab(hwc(image)) for image in (x, y)]
        np.testing.assert_allclose(value, skimage.color.deltaE_cie76(*lab).mean(), rtol=2e-3)


def test_differentiable_on_black():
    black = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    srgb_to_lab(black).sum().backward()
    assert black.grad.isfinite().all()
