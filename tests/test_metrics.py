import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.stats
import skimage.color
import skimage.metrics
import skimage.transform
import torch
from PIL import Image
from safetensors.torch import save_file

from diffretouch import metrics
from diffretouch.losses.perceptual import Lpips
from diffretouch.metrics import (
    byte_distance,
    clipped_share,
    csrnet_lab_l2,
    delta_e76,
    delta_e2000,
    frechet_distance,
    gradient_correlation,
    lab_delta_e2000,
    psnr,
    sample_diversity,
    spearman,
    srgb_to_lab,
    ssim,
)


def photos(dtype=np.float64):
    rng = np.random.default_rng(0)
    a = rng.random((2, 3, 17, 23)).astype(dtype)
    return a, np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1).astype(dtype)


def tensors(dtype=np.float64):
    return [torch.from_numpy(x) for x in photos(dtype)]


def hwc(image):
    return image.transpose(1, 2, 0)


PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))[:3]


def test_photos_of_8_bits_against_oracles():
    """As a report measures them, in float32: PSNR and SSIM to 1e-4, colour differences to 2e-3."""
    rng = np.random.default_rng(0)
    for path in PHOTOS:
        a = np.asarray(Image.open(path).convert("RGB"))
        b = np.clip(255 * (a / 255) ** 0.8 + rng.normal(3, 4, a.shape), 0, 255).astype(np.uint8)
        x, y = (torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255 for photo in (a, b))
        expected = skimage.metrics.peak_signal_noise_ratio(b, a)
        np.testing.assert_allclose(psnr(x, y), expected, atol=1e-4, rtol=0)
        settings = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2)
        expected = skimage.metrics.structural_similarity(a, b, **settings)
        np.testing.assert_allclose(ssim(x, y), expected, atol=1e-4, rtol=0)
        lab = [skimage.color.rgb2lab(photo) for photo in (a, b)]
        np.testing.assert_allclose(delta_e76(x, y), skimage.color.deltaE_cie76(*lab).mean(), atol=2e-3, rtol=0)
        np.testing.assert_allclose(delta_e2000(x, y), skimage.color.deltaE_ciede2000(*lab).mean(), atol=2e-3, rtol=0)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ssim(dtype, monkeypatch):
    a, b = photos(dtype)
    settings = dict(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2)
    expected = [skimage.metrics.structural_similarity(hwc(x), hwc(y), **settings) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(torch.from_numpy(a), torch.from_numpy(b)), expected, atol=1e-4)
    np.testing.assert_allclose(ssim(torch.from_numpy(a[:1]), torch.from_numpy(b[:1])), expected[:1], atol=1e-4)
    monkeypatch.setattr(metrics, "_STRIP", 3 * 23)  # three rows at a time
    np.testing.assert_allclose(ssim(torch.from_numpy(a), torch.from_numpy(b)), expected, atol=1e-4)
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


def test_delta_e():
    a, b = photos()
    values = delta_e76(torch.from_numpy(a), torch.from_numpy(b))
    for x, y, value in zip(a, b, values, strict=True):
        lab = [skimage.color.rgb2lab(hwc(image)) for image in (x, y)]
        np.testing.assert_allclose(value, skimage.color.deltaE_cie76(*lab).mean(), rtol=2e-3)


def test_delta_e2000():
    rng = np.random.default_rng(1)
    lab = rng.uniform([0, -100, -100], [100, 100, 100], (3000, 3))
    other = np.where(rng.random((3000, 1)) < 0.5, lab + rng.normal(0, 3, lab.shape), rng.permutation(lab))
    lab[:20, 1:], other[10:30, 1:] = 0, 0  # grey on either side and on both
    other[30:60] = lab[30:60] * [1, -1.01, -0.99]  # nearly opposite hues; at 180 degrees rounding decides
    # Of the published test data (Sharma, Wu and Dalal 2005): pairs 1, 9, 16 and 25
    lab[60:64] = [[50, 2.6772, -79.7751], [50, 2.49, -0.001], [50, 2.5, 0], [60.2574, -34.0099, 36.2677]]
    other[60:64] = [[50, 0, -82.7485], [50, -2.49, 0.0009], [50, 0, -2.5], [60.4626, -34.1751, 39.4387]]
    values = lab_delta_e2000(*(torch.from_numpy(x).T[None] for x in (lab, other)))[0].numpy()
    np.testing.assert_allclose(values[60:64], [2.0425, 7.1792, 4.3065, 1.2644], atol=1e-4)
    np.testing.assert_allclose(values, skimage.color.deltaE_ciede2000(lab, other), atol=1e-8)
    colour = pytest.importorskip("colour")
    # Without matplotlib, colour-science puts a stand-in under its name, on which diffusers cannot be imported.
    for name in [name for name, module in sys.modules.items() if isinstance(module, MagicMock)]:
        del sys.modules[name]
    np.testing.assert_allclose(values, colour.delta_E(lab, other, method="CIE 2000"), atol=1e-3)


def test_delta_e2000_of_photos_does_not_depend_on_strips(monkeypatch):
    a, b = tensors(np.float32)
    whole = delta_e2000(a, b)
    expected = skimage.color.deltaE_ciede2000(*(skimage.color.rgb2lab(hwc(x[1].double().numpy())) for x in (a, b)))
    np.testing.assert_allclose(whole[1], expected.mean(), rtol=1e-3)
    monkeypatch.setattr(metrics, "_STRIP", 2 * 23)
    np.testing.assert_allclose(delta_e2000(a, b), whole, rtol=1e-9)


def test_csrnet_script_wraps_around():
    """What its uint8 arithmetic makes of a difference in one channel, by numpy and as measured."""
    differences = [5, 15, 16, 17, 20, 30, 40, 255]
    a = torch.zeros(1, 3, len(differences))
    a[0, 1] = torch.tensor(differences)
    measured = byte_distance(a, torch.zeros_like(a), wrapped=True)[0]
    np.testing.assert_allclose(measured[:7], [5, 15, 0, 5.745, 12, 11.489, 8], atol=1e-3)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 1, 3, 500), dtype=np.uint8)
    expected = np.sqrt(np.sum((x - y) ** 2, axis=1))
    got = byte_distance(torch.from_numpy(x).float(), torch.from_numpy(y).float(), wrapped=True)
    np.testing.assert_allclose(got, expected)
    a, b = tensors()
    assert (csrnet_lab_l2(a, b) <= 765**0.5).all() and (csrnet_lab_l2(a, b, wrapped=False) > csrnet_lab_l2(a, b)).all()
    near = (a + 0.004).clamp(0, 1)
    np.testing.assert_allclose(csrnet_lab_l2(a, near), csrnet_lab_l2(a, near, wrapped=False))


def test_clipped_share():
    image = torch.full((2, 3, 4, 5), 0.5)
    image[0, 0, 0, 0], image[0, :, 1, 1], image[0, 2, 2, 2], image[0, 1, 3, 3] = 0.0, 1.0, 1 / 255, 254.6 / 255
    np.testing.assert_allclose(clipped_share(image), [3 / 20, 0])


def test_gradient_correlation():
    a, b = tensors()
    np.testing.assert_allclose(gradient_correlation(0.5 * a + 0.2, a), 1, atol=1e-12)
    np.testing.assert_allclose(gradient_correlation(1 - a, a), -1, atol=1e-12)
    blurred = torch.nn.functional.avg_pool2d(a, 3, 1, 1)
    assert (gradient_correlation(blurred, a) < 0.8).all() and (gradient_correlation(b, a) > 0.8).all()
    flat = torch.full_like(a, 0.3)
    assert gradient_correlation(flat, flat).tolist() == [1, 1] and gradient_correlation(flat, a).tolist() == [0, 0]
    assert gradient_correlation(a[..., :1, :1], a[..., :1, :1]).tolist() == [1, 1]


def test_sample_diversity():
    a, b = tensors()
    three = torch.cat([a, b[:1]])
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([delta_e76(three[i : i + 1], three[j : j + 1]).item() for i, j in pairs])
    np.testing.assert_allclose(sample_diversity(three), expected)
    assert sample_diversity(a[:1].repeat(3, 1, 1, 1)) == 0
    with pytest.raises(ValueError, match="at least two"):
        sample_diversity(a[:1])


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 6, 9))
    y[1] = np.round(y[1] * 3)  # ties
    x[2], y[3] = np.sort(x[2]), -x[3]
    got = spearman(torch.from_numpy(x), torch.from_numpy(y))
    expected = [scipy.stats.spearmanr(u, v).statistic for u, v in zip(x, y, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)
    assert spearman(torch.arange(5), torch.zeros(5)).isnan()


def test_frechet_distance():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5)) + 1
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    np.testing.assert_allclose(frechet_distance(torch.from_numpy(a), torch.from_numpy(b)), expected)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(a)) < 1e-10
    few, many = (torch.from_numpy(rng.normal(size=(n, 60))) for n in (20, 90))  # a set smaller than its features
    c = [np.cov(x.T) for x in (few, many)]
    expected = (few.mean(0) - many.mean(0)).square().sum() + np.trace(
        c[0] + c[1] - 2 * scipy.linalg.sqrtm(c[0] @ c[1]).real
    )
    np.testing.assert_allclose(frechet_distance(few, many), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))


def test_lpips_with_a_weights_file(tmp_path):
    torch.manual_seed(0)
    network = Lpips()
    indices = (0, 3, 6, 8, 10)
    state = {f"lin{n}.model.1.weight": head.weight for n, head in enumerate(network.heads)}
    for n, (index, layer) in enumerate(zip(indices, network.convolutions, strict=True)):
        state |= {f"net.slice{n + 1}.{index}.weight": layer.weight, f"net.slice{n + 1}.{index}.bias": layer.bias}
    save_file(state, tmp_path / "lpips.safetensors")
    a, b = torch.rand(2, 2, 3, 40, 36)
    torch.testing.assert_close(metrics.lpips_metric(tmp_path / "lpips.safetensors")(a, b), network(a, b))


class Layers(torch.nn.Module):
    """What of the Inception network is used: (B,3,299,299) in [-1,1] -> 2048 features a photo; here some pixels."""

    def forward(self, x):
        assert x.shape[1:] == (3, 299, 299)
        return x.flatten(1)[:, ::130][:, :2048]


class Few(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Conv2d(3, 5, 299)

    def forward(self, x):
        return self.layers(x)


class Inception(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x):
        return self.layers(x)


def write_inception(path, network=None):
    torch.jit.script(network or Inception()).save(str(path))
    return path


def test_inception_features(tmp_path):
    """With a network of the released layout: its parts, sizes and ranges."""
    features = metrics.inception_features(write_inception(tmp_path / "inception-2015-12-05.pt"))
    image = torch.rand(1, 3, 40, 31)
    found = features(image)
    settings = dict(mode="bicubic", antialias=True)  # as Pillow's and clean-fid's, in torch
    resized = torch.nn.functional.interpolate((image * 255).round(), (299, 299), **settings).clamp(0, 255)
    np.testing.assert_allclose(found, (resized.flatten()[::130][:2048] - 128) / 128, atol=1e-4)
    np.testing.assert_allclose(features(torch.ones(1, 3, 20, 20)), 127 / 128)


def test_inception_features_are_of_clean_fids_copy(tmp_path):
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    image = torch.rand(1, 3, 40, 31)
    found = metrics.inception_features(write_inception(tmp_path / "inception-2015-12-05.pt"))(image)
    resized = resize((image[0] * 255).round().byte().permute(1, 2, 0).numpy()).transpose(2, 0, 1)
    np.testing.assert_allclose(found, (resized.flatten()[::130][:2048] - 128) / 128, atol=1e-6)


def test_inception_weights_that_are_others(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no network")
    write_inception(tmp_path / "layers.pt", Layers())
    write_inception(tmp_path / "few.pt", Few())
    other = "is not the network inception-2015-12-05.pt"
    for name, message in {"none": other, "bad": other, "layers": other, "few": "has 5 features, not 2048"}.items():
        with pytest.raises(ValueError, match=f"`weights`.*{message}"):
            metrics.inception_features(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("make", [metrics.lpips_metric, metrics.inception_features])
def test_weights_that_are_absent_are_named(make, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # also where the packages are installed
    with pytest.raises(metrics.MetricUnavailable, match="needs"):
        make()


def test_differentiable_on_black():
    black = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    srgb_to_lab(black).sum().backward()
    assert black.grad.isfinite().all()


def test_what_is_left_after_a_gain_a_matrix_and_curves():
    """Within the range each is the least-squares one, by another library; what differs by just that comes back."""
    a, b = photos()
    x, y = tensors()
    b, y = 0.7 * b, 0.7 * y  # no fit reaches white
    for n in range(2):
        gain = np.linalg.lstsq(a[n].reshape(-1, 1), b[n].ravel(), rcond=None)[0]
        np.testing.assert_allclose(metrics.after_gain(x, y)[n], a[n] * gain, atol=1e-12)
        colours = np.concatenate([a[n].reshape(3, -1), np.ones((1, a[n][0].size))]).T
        fitted = colours @ np.linalg.lstsq(colours, b[n].reshape(3, -1).T, rcond=None)[0]
        np.testing.assert_allclose(metrics.after_affine(x, y)[n], fitted.T.reshape(a[n].shape), atol=1e-10)
        level = np.round(a[n, 1] * 255) == np.round(a[n, 1, 3, 4] * 255)
        np.testing.assert_allclose(metrics.after_curves(x, y)[n, 1, 3, 4], b[n, 1][level].mean(), atol=1e-12)
    x = (x * 255).round() / 255
    matrix = torch.tensor([[0.7, 0.1, 0.0], [0.0, 0.5, 0.2], [0.1, 0.1, 0.6]], dtype=torch.float64)
    for fit, wanted in (
        (metrics.after_gain, 0.6 * x),
        (metrics.after_affine, torch.einsum("ij,bjhw->bihw", matrix, x) + 0.05),
        (metrics.after_curves, x**0.5),
    ):
        torch.testing.assert_close(fit(x, wanted), wanted, atol=1e-9, rtol=0)
    grey = torch.full((1, 3, 4, 4), 0.5)
    torch.testing.assert_close(metrics.after_affine(grey, grey / 2), grey / 2)
    black = torch.zeros(1, 3, 4, 4)
    for image, wanted in ((black, grey), (grey, black), (black, black)):
        assert (metrics.after_gain(image, wanted) == 0).all() and metrics.after_affine(image, wanted).isfinite().all()


def test_fits_are_of_what_the_limits_leave():
    """Where targets clip, the gain of least squares before the limits is not the best: here it gave 19 dB."""
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    y = (1.7 * x).clamp(0, 1)
    for fit in (metrics.after_gain, metrics.after_affine, metrics.after_curves):
        assert metrics.psnr(fit(x, y), y) == 120  # the most that it says
    matrix = torch.tensor([[1.9, 0.3, -0.2], [-0.4, 1.6, 0.2], [0.1, -0.3, 2.2]], dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(4).random((1, 3, 20, 21)))
    y = (torch.einsum("ij,bjhw->bihw", matrix, x) - 0.15).clamp(0, 1)
    assert ((y == 0) | (y == 1)).double().mean() > 0.4
    torch.testing.assert_close(metrics.after_affine(x, y), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", [2, 255, None])
def test_no_gain_comes_closer(levels):
    rng = np.random.default_rng(levels)
    gains = np.concatenate([np.linspace(0, 8, 1001), np.logspace(0, 3, 100)])[:, None, None]
    for n in range(12):
        x = rng.random((3, 9, 8)) ** rng.uniform(0.2, 4)
        x = x if levels is None else np.round(x * levels) / levels
        y = x * 3 + 0.2 * rng.random(x.shape) if n % 3 else rng.random(x.shape) * rng.uniform(0.3, 3)
        y = np.clip(y, 0, 1)
        made = metrics.after_gain(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0].numpy()
        searched = np.square(np.clip(gains * x.reshape(3, -1), 0, 1) - y.reshape(3, -1)).sum((1, 2)).min()
        assert np.square(made - y).sum() <= searched + 1e-9
        grey = (made < 1) & (x > 0)
        assert not grey.any() or np.ptp(made[grey] / x[grey]) < 1e-9  # one gain


def test_no_matrix_comes_closer():
    """SciPy's search from six starts finds none: the error has several minima."""
    error = lambda w, colours, wanted: np.square(np.clip(w @ colours, 0, 1) - wanted).sum()  # noqa: E731
    rng = np.random.default_rng(5)
    for _ in range(4):
        x = rng.random((3, 20, 20)) ** rng.uniform(0.5, 3)
        y = np.clip(x * rng.uniform(1, 4) + rng.normal(0, 0.1, x.shape), 0, 1)
        fitted = metrics.after_affine(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0].numpy()
        colours = np.concatenate([x.reshape(3, -1), np.ones((1, 400))])
        for wanted, made in zip(y.reshape(3, -1), fitted.reshape(3, -1), strict=True):
            searched = {"fun": error, "args": (colours, wanted), "options": {"maxiter": 60}}
            found = min(scipy.optimize.minimize(x0=w, **searched).fun for w in rng.normal(0.5, 1, (6, 4)))
            assert np.square(made - wanted).sum() < 1.01 * found


def test_a_wider_fit_is_never_worse():
    """Also on clipped targets, where the one of least squares before the limits can be."""
    rng = np.random.default_rng(0)
    worse = 0
    for n in range(60):
        x = torch.from_numpy(rng.random((2, 3, 9, 8)) ** rng.uniform(0.5, 3))
        x = x if n % 2 else (x * 255).round() / 255
        y = (x * rng.uniform(0.3, 5) + rng.uniform(-0.02, 0.02)).clamp(0, 1)
        own, gain, affine, curves = (
            metrics.psnr(z, y)
            for z in (x, *(f(x, y) for f in (metrics.after_gain, metrics.after_affine, metrics.after_curves)))
        )
        assert (gain >= own).all() and (affine >= gain).all() and (curves >= gain).all()
        for image, wanted, reached in zip(x, y, gain, strict=True):
            colours = np.concatenate([image.reshape(3, -1), np.ones((1, 72))]).T
            fitted = colours @ np.linalg.lstsq(colours, wanted.reshape(3, -1).T.numpy(), rcond=None)[0]
            worse += metrics.psnr(torch.from_numpy(fitted.T.reshape(1, 3, 9, 8)).clamp(0, 1), wanted[None]) < reached
    assert worse > 5  # least squares alone: the case occurs


def test_human_centred():
    a, b = photos()
    mask = np.zeros((2, 1, 17, 23), np.uint8)
    mask[0, :, 3:9, 4:20] = 255
    mask[1, :, :, 5] = 1
    found = metrics.human_centred(*tensors(), torch.from_numpy(mask))
    for n in range(2):  # as the paper's script says it, one photo and pixel list at a time
        weights = np.where(hwc(mask[n]) == 0, 0.5, 1.0)
        one, other = hwc(a[n]), hwc(b[n])
        expected = skimage.metrics.peak_signal_noise_ratio(other * weights, one * weights, data_range=1)
        lab = [skimage.color.rgb2lab(x) * weights for x in (one, other)]
        np.testing.assert_allclose(found[0][n], expected)
        np.testing.assert_allclose(found[1][n], np.linalg.norm(lab[0] - lab[1], axis=-1).mean(), rtol=2e-3)


def test_group_consistency():
    rng = np.random.default_rng(0)
    means, groups = rng.normal(0, 5, (7, 2)), ["x", "y", "x", "z", "y", "x", "x"]
    of = lambda name: means[[group == name for group in groups]]  # noqa: E731
    spread = [scipy.stats.describe(of(name)[:, k]).variance for name in "xy" for k in (0, 1)]
    assert metrics.group_consistency(means, groups) == pytest.approx(sum(spread) / 2 / 3)
    assert metrics.group_consistency(means, groups, released=True) == pytest.approx(sum(spread) / 2 / 4)
    with pytest.raises(ValueError, match=r"`means` must be \(n,2\)"):
        metrics.group_consistency(means, groups[1:])


def test_gmsd():
    a, b = photos()
    expected = []
    for one, other in zip(a, b, strict=True):
        magnitudes = []
        for image in (one, other):
            luma = 255 * (hwc(image) @ [0.299, 0.587, 0.114])
            halved = skimage.transform.downscale_local_mean(luma[:16, :22], (2, 2))
            both = [scipy.ndimage.prewitt(halved, axis)[1:-1, 1:-1] / 3 for axis in (0, 1)]
            magnitudes.append(np.hypot(*both))
        m, n = magnitudes
        expected.append(((2 * m * n + 170) / (m**2 + n**2 + 170)).std())
    np.testing.assert_allclose(metrics.gmsd(*tensors()), expected)
    x, _ = tensors()
    assert metrics.gmsd(x, x).abs().max() == 0
    with pytest.raises(ValueError, match="at least 6 px for GMSD"):
        metrics.gmsd(x[..., :5], x[..., :5])
