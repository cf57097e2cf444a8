import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from diffretouch import AdaptiveLut3D, AdaptiveLut3DPipeline
from diffretouch.models.adaptive_lut import look_up


def network():
    torch.manual_seed(0)
    net = AdaptiveLut3D(tables=2, size=5).eval()
    net.basis.data += 0.1 * torch.rand_like(net.basis)
    return net


def test_published_size_and_start():
    net = AdaptiveLut3D().eval()
    assert sum(p.numel() for p in net.parameters()) == 593_516
    photo = torch.rand(2, 3, 20, 31)
    torch.testing.assert_close(net(photo), photo, atol=0.05, rtol=0)


def test_look_up_against_scipy():
    net, photo = network(), torch.rand(1, 3, 9, 11)
    tables, weights = net.table(photo)
    expected = sum(weight * table for weight, table in zip(weights[0], net.basis, strict=True))
    torch.testing.assert_close(tables[0], expected)
    nodes = [np.linspace(0, 1, 5)] * 3
    colours = photo[0].permute(1, 2, 0).numpy()[..., ::-1]  # tables are indexed b, g, r
    for channel in range(3):
        values = RegularGridInterpolator(nodes, tables[0, channel].detach().numpy())(colours)
        np.testing.assert_allclose(net(photo).detach()[0, channel], values, atol=1e-5)
    beyond = look_up(tables, torch.full((1, 3, 1, 1), 1.7))
    torch.testing.assert_close(beyond.flatten(), tables[0, :, -1, -1, -1])


def test_penalties():
    """The identity pays for its even steps alone; a table that falls pays for that, and the gradient lifts it."""
    net, weights = AdaptiveLut3D(tables=1, size=5), torch.full((2, 1), 2.0)
    uneven = 4 + 3 * (1 / 3 * 0.25**2)  # each axis: one channel of three rises by a quarter
    assert net.regularisation(weights, smoothness=1.0, monotonicity=100.0).item() == pytest.approx(uneven)
    net.basis.data[0, 1, :, 2] -= 0.5
    penalty = net.regularisation(weights, smoothness=0.0)
    assert penalty.item() == pytest.approx(10 * 0.25 / 12)  # one step in four of one channel falls, by a quarter
    penalty.backward()
    assert net.basis.grad[0, 1, :, 2].max() < 0
    double = AdaptiveLut3D(tables=2, size=3).double()
    assert torch.autograd.gradcheck(double.regularisation, torch.rand(2, 2, dtype=torch.float64, requires_grad=True))


def test_pipeline(tmp_path):
    AdaptiveLut3DPipeline(network()).save_pretrained(tmp_path)
    pipe = AdaptiveLut3DPipeline.from_pretrained(tmp_path)
    photo = torch.rand(3, 21, 34)
    expected = pipe.network.eval()(photo[None]).detach()
    torch.testing.assert_close(pipe(photo, output_type="pt").images, expected.clamp(0, 1), atol=1e-5, rtol=0)
    half = pipe(photo, strength=0.5, output_type="pt").images
    torch.testing.assert_close(half, (0.5 * (photo + expected)).clamp(0, 1), atol=1e-5, rtol=0)
    pixels = (photo.permute(1, 2, 0) * 255).round().byte().numpy()
    small = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    image = np.asarray(pipe(pixels).images[0])
    np.testing.assert_allclose(image / 255, pipe.network(small)[0].detach().permute(1, 2, 0).clamp(0, 1), atol=0.003)
    np.testing.assert_array_equal(pipe.lut(pixels).apply(pixels, interpolation="trilinear"), image)
    np.testing.assert_array_equal(pipe.retouch(pixels, out=pixels.copy()), image)
    assert pipe([pixels, pixels[:9]], output_type="np").images[1].shape == (9, 34, 3)
    with pytest.raises(ValueError, match="`strength` must be a number"):
        pipe(pixels, strength=3)
