import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffretouch import HDRNet, HDRNetPipeline
from diffretouch.models.affine_grid import apply_affine, slice_grid
from diffretouch.pipelines.pretrained import open_pipeline


def network():
    torch.manual_seed(0)
    net = HDRNet(input_size=32, grid_size=8, depth=2, knots=3).eval()
    torch.nn.init.normal_(net.prediction.weight, std=0.05)
    return net


def test_published_size_and_start():
    net = HDRNet()
    assert sum(p.numel() for p in net.parameters()) == 482_080 - 3  # the mix of the guide's curves
    photo = torch.rand(1, 3, 33, 47)
    grid = net.grid(photo)
    assert grid.shape == (1, 12, 8, 16, 16)
    torch.testing.assert_close(net(photo), photo, atol=0.05, rtol=0)


def test_against_the_layers_written_out():
    """The published order of layers: splat, local and global paths, their sum, the prediction."""
    net, photo = network(), torch.rand(2, 3, 40, 56)
    x = F.interpolate(photo, (32, 32), mode="bilinear", antialias=True)
    for layer in net.splat:
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, 2, 1))
    assert x.shape[1:] == (4, 8, 8)
    local = F.conv2d(
        F.relu(F.conv2d(x, net.local[0].weight, net.local[0].bias, padding=1)), net.local[1].weight, padding=1
    )
    (down,), (one, two, three) = net.global_convs, net.global_layers
    whole = F.relu(F.conv2d(x, down.weight, down.bias, 2, 1)).flatten(1)
    whole = three(F.relu(two(F.relu(one(whole)))))
    fused = F.relu(local + whole[:, :, None, None])
    grid = F.conv2d(fused, net.prediction.weight, net.prediction.bias).reshape(2, 12, 2, 8, 8)
    torch.testing.assert_close(net.grid(photo), grid)
    torch.testing.assert_close(net(photo), apply_affine(slice_grid(grid, net.guide_curve(photo)), photo))


def test_gradients():
    net = network()
    net(torch.rand(4, 3, 5, 7), torch.rand(4, 3, 32, 32)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_pipeline(tmp_path):
    pipe = HDRNetPipeline(network())
    pipe.save_pretrained(tmp_path)
    pipe = HDRNetPipeline.from_pretrained(tmp_path)
    photo = torch.rand(3, 21, 34)
    expected = pipe.network(photo[None]).detach()
    torch.testing.assert_close(pipe(photo, output_type="pt").images, expected.clamp(0, 1), atol=2e-5, rtol=0)
    half = pipe(photo, strength=0.5, output_type="pt").images
    torch.testing.assert_close(half, (0.5 * (photo + expected)).clamp(0, 1), atol=2e-5, rtol=0)
    pixels = (photo.permute(1, 2, 0) * 65535).round().numpy().astype(np.uint16)
    wide = pipe(pixels, output_type="np").images
    np.testing.assert_allclose(wide[0], expected[0].permute(1, 2, 0).clamp(0, 1), atol=1e-4)
    assert [image.size for image in pipe([pixels, photo]).images] == [(34, 21)] * 2
    out = np.empty_like(pixels)
    assert pipe.retouch(pixels, out=out) is out and pipe.retouch(photo).shape == photo.shape
    np.testing.assert_allclose(out / 65535, wide[0], atol=1e-4)
    assert isinstance(open_pipeline(str(tmp_path)), HDRNetPipeline)
    assert pipe(pixels, strength=0, output_type="np").images == pytest.approx(pixels[None] / 65535, abs=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: HDRNet(input_size=48), "`input_size` and `grid_size` must be powers of 2"),
        (lambda: HDRNet(input_size=16), "`input_size` and `grid_size` must be powers of 2"),
        (lambda: HDRNetPipeline(network())(torch.rand(3, 9, 9), strength=math.nan), "`strength` must be a number"),
        (lambda: HDRNetPipeline(network())(torch.rand(3, 9, 9), output_type="x"), '`output_type` must be "pil"'),
        (lambda: HDRNetPipeline.from_pretrained("x/y/z"), "`name` must be a directory or a Hub id"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
