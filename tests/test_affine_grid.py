from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffretouch import AffineGridHead, apply_affine, identity_grid, slice_grid

GOLDEN = Path(__file__).parent / "golden/diffretouch/set_a"


def rand(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def released_head():
    """The reduced released head of the golden set, its keys renamed by hand."""
    tensors = load_file(GOLDEN / "head.safetensors")
    head = AffineGridHead(pixel_range=(-1.0, 1.0))
    names = {
        "splat1": "coefficients.splat1.0",
        "splat2": "coefficients.splat2.0",
        "prediction1": "coefficients.pred1.0",
        "prediction2": "coefficients.pred2.0",
        "guide_curve.matrix": "guide.M",
        "guide_curve.matrix_bias": "guide.M_bias",
        "guide_curve.thresholds": "guide.thresholds",
        "guide_curve.slopes": "guide.slopes",
        "guide_curve.bias": "guide.bias",
    }
    state = {}
    for own, weight in head.state_dict().items():
        stem, _, leaf = own.rpartition(".")
        released = names[own] if own in names else f"{names[stem]}.{leaf}"
        state[own] = tensors[f"hdrdecoder.{released}"].float().reshape(weight.shape)
    head.load_state_dict(state)
    return head


def relative(value, expected):
    return float((value - torch.from_numpy(expected)).abs().max() / np.abs(expected).max())


@pytest.mark.parametrize("name", ["reg", "odd"])
@torch.no_grad()
def test_released_numbers(name):
    numbers = np.load(GOLDEN / f"single_{name}.npz")
    photo = torch.from_numpy(numbers["image_u8"]).permute(0, 3, 1, 2) / 255
    head = released_head()
    grid = head(torch.from_numpy(numbers["affine_latent"]))
    guide = head.guide(photo)
    coefficients = slice_grid(grid, guide)
    assert relative(grid, numbers["grid"]) < 1e-5
    assert relative(guide, numbers["guide"]) < 1e-5
    assert relative(apply_affine(coefficients, photo * 2 - 1), numbers["applied"]) < 1e-5
    assert relative(head.apply(grid, photo) * 2 - 1, numbers["applied"]) < 1e-5


def test_released_head_has_13693_parameters():
    assert sum(p.numel() for p in AffineGridHead(pixel_range=(-1.0, 1.0)).parameters()) == 13_693


def slice_by_hand(grid, guide):
    """Trilinear interpolation in numpy, pixel by pixel: an independent statement of `slice_grid`."""
    grid, guide = grid.numpy(), guide.numpy()
    batch, _, height, width = guide.shape
    out = np.zeros((batch, grid.shape[1], height, width))
    unit = lambda i, n: 0.5 if n == 1 else i / (n - 1)  # noqa: E731
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                corners = [(0, 1.0, ())]
                for u, n in zip((guide[b, 0, i, j], unit(i, height), unit(j, width)), grid.shape[2:], strict=True):
                    position = min(max(u * n - 0.5, 0), n - 1)
                    low = min(int(position), max(n - 2, 0))
                    ends = [(low, 1 - (position - low)), (min(low + 1, n - 1), position - low)]
                    corners = [(0, w * v, (*at, k)) for _, w, at in corners for k, v in ends]
                out[b, :, i, j] = sum(w * grid[(b, slice(None), *at)] for _, w, at in corners)
    return torch.from_numpy(out)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5), (16, 33)])
@pytest.mark.parametrize("cells", [(8, 16, 16), (1, 1, 1), (3, 2, 5)])
def test_slice_is_trilinear(size, cells):
    grid, guide = rand(2, 12, *cells, dtype=torch.float64), rand(2, 1, *size, dtype=torch.float64, seed=1)
    torch.testing.assert_close(slice_grid(grid, guide), slice_by_hand(grid, guide))


def test_gradients():
    grid = rand(2, 12, 2, 3, 2, dtype=torch.float64).requires_grad_()
    # Away from the corners of the guide's tents, where the derivative jumps
    guide = (0.3 + 0.1 * rand(2, 1, 3, 4, dtype=torch.float64, seed=1)).requires_grad_()
    image = rand(2, 3, 3, 4, dtype=torch.float64, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: apply_affine(slice_grid(*x[:2]), x[2]), (grid, guide, image))


def test_half_precision_stays_float32_inside():
    grid, guide, photo = rand(1, 12, 8, 16, 16), rand(1, 1, 3, 6000, seed=1), rand(1, 3, 3, 6000, seed=2)
    expected = apply_affine(slice_grid(grid, guide), photo)
    head = AffineGridHead(residual=True)
    expected_by_head = head.apply_reference(grid, photo)
    with torch.autocast("cpu", torch.bfloat16):
        coefficients = slice_grid(grid, guide)
        result = apply_affine(coefficients, photo)
        by_head = head.apply_reference(grid, photo)
    assert coefficients.dtype == result.dtype == by_head.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(by_head, expected_by_head)


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_identity_and_strength(pixel_range):
    head, photo = AffineGridHead(pixel_range=pixel_range), rand(2, 3, 33, 17)
    identity = identity_grid(2)
    assert identity.shape == (2, 12, 8, 16, 16)
    torch.testing.assert_close(head.apply(identity, photo), photo, atol=1e-6, rtol=0)
    grid = rand(2, 12, 8, 16, 16, seed=1)
    half = head.apply(torch.lerp(identity, grid, 0.5), photo)
    torch.testing.assert_close(half, 0.5 * photo + 0.5 * head.apply(grid, photo), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strides, latent, cells", [((2, 2), 64, 16), ((2, 1), 32, 16), ((2, 2), 40, 10)])
@pytest.mark.parametrize("depth", [4, 8])
def test_grid_shape_follows_the_config(strides, latent, cells, depth):
    head = AffineGridHead(splat_strides=strides, depth=depth, residual=True)
    grid = head(torch.zeros(2, 4, latent, latent))
    assert grid.shape == (2, 12, depth, cells, cells)
    torch.testing.assert_close(grid, identity_grid(2, depth, cells, cells))  # residual heads start as the identity


@pytest.mark.parametrize("config", [{}, {"pixel_range": (-1.0, 1.0)}, {"latent_channels": 12}, {"depth": 3}])
def test_residual_heads_start_with_handles(config):
    head = AffineGridHead(splat_strides=(2, 1), residual=True, **config)
    photo, channels = rand(1, 3, 20, 30), head.config.latent_channels
    grey, plain = photo.mean(1, keepdim=True).expand(-1, 3, -1, -1), torch.full((1, 3, 20, 30), 0.5)

    def moved(k, amount, image):
        latent = torch.zeros(1, channels, 32, 32)
        latent[:, k] = amount
        # borders of the latent see padding: the middle of the grid is what counts
        grid = head(latent)[..., 8:9, 8:9].expand(-1, -1, -1, 16, 16)
        return head.apply(grid, image).detach()

    light, contrast, warmth, colour = range(4)
    torch.testing.assert_close(moved(contrast, 1, plain), plain)  # its pivot stays
    low, high = head.config.pixel_range
    gain = (moved(light, 1, photo) * (high - low) + low) / (photo * (high - low) + low)
    assert 1.18 < gain.min() < gain.max() < 1.32
    if low == 0:  # light is for dark tones first
        assert (moved(light, 1, 0.4 * plain) / 0.4).mean() > (moved(light, 1, 1.8 * plain) / 1.8).mean() + 0.02
    assert moved(contrast, 1, photo).std() > 1.2 * photo.std() and moved(contrast, -1, photo).std() < 0.8 * photo.std()
    red, green, blue = (moved(warmth, 1, photo**0.2) - photo**0.2).mean((0, 2, 3))
    assert red > 0.05 and abs(green) < 1e-6 and blue < -0.05
    torch.testing.assert_close(moved(colour, 1, grey), grey)
    spread = [x.std(1).mean() for x in (moved(colour, -1, photo), photo, moved(colour, 1, photo))]
    assert spread[0] < 0.8 * spread[1] and spread[2] > 1.2 * spread[1]
    if channels > 4:
        torch.testing.assert_close(moved(7, 1, photo), photo)
    # small moves add up: the start is linear in the latents
    torch.testing.assert_close(moved(warmth, 0.5, photo) - photo, 0.5 * (moved(warmth, 1, photo) - photo))


def test_a_head_is_a_module_to_those_who_call_apply():
    model, seen = torch.nn.Sequential(AffineGridHead(), torch.nn.Linear(1, 1)), []
    assert model.apply(seen.append) is model
    assert seen[-1] is model and {id(part) for part in seen} == {id(part) for part in model.modules()}
    with pytest.raises(TypeError, match="`photo` is missing"):
        model[0].apply(identity_grid())


def test_new_guide_separates_the_dark_tones():
    ramp = torch.linspace(0, 1, 100).expand(1, 3, 1, 100)
    assert AffineGridHead().guide(ramp)[0, 0, 0].diff().min() > 0
    # the released range has the dark half of the tones in one cell at initialisation
    assert AffineGridHead(pixel_range=(-1.0, 1.0)).guide(ramp)[0, 0, 0, :50].abs().max() < 1e-6


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_keep_in_range_is_one_scale_for_the_whole_photo(pixel_range):
    head = AffineGridHead(pixel_range=pixel_range).double()
    photo = 0.02 + 0.96 * rand(3, 3, 41, 27, dtype=torch.float64)
    gain, offset = torch.tensor([[1.5], [1.0], [0.5]]), torch.tensor([[-0.2], [0.0], [0.3]])  # too much, none, inside
    grid = identity_grid(3, dtype=torch.float64)
    low, high = pixel_range
    for k in range(3):  # y = gain x + offset on [0,1]
        grid[:, 5 * k] = gain[:, :, None, None]
        grid[:, 4 * k + 3] = (offset * (high - low) + low * (1 - gain))[:, :, None, None]
    wanted = gain[:, :, None, None] * photo + offset[:, :, None, None]
    torch.testing.assert_close(head.apply(grid, photo), wanted)
    kept = head.keep_in_range(grid, photo, 0.0)
    result = head.apply(kept, photo)
    torch.testing.assert_close(kept[1:], grid[1:])
    ends = wanted[0].min(), wanted[0].max()
    torch.testing.assert_close(result[0], (wanted[0] - ends[0]) / (ends[1] - ends[0]))
    one = head.keep_in_range(grid[:1], photo[:1], 0.0)
    torch.testing.assert_close(one, kept[:1])


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1])
def test_keep_in_range_leaves_a_share(share):
    head, photo = AffineGridHead(), 0.02 + 0.96 * rand(2, 3, 60, 80)
    grid = identity_grid(2) + 0.8 * torch.randn(2, 12, 8, 16, 16, generator=torch.Generator().manual_seed(3))
    result = head.apply(head.keep_in_range(grid, photo, share), photo)
    beyond = torch.stack([(result < -1e-6).any(1), (result > 1 + 1e-6).any(1)]).float().mean((2, 3))
    assert ((beyond - share).abs() < 1.1 / 4800).all()


def test_keep_in_range_lets_what_is_clipped_stay_so():
    photo = 0.1 + 0.7 * rand(1, 3, 20, 20)
    photo[..., :4, :], photo[..., 4:6, :] = 1, 0
    grid = 1.2 * identity_grid()  # white goes to 1.2
    torch.testing.assert_close(AffineGridHead().keep_in_range(grid, photo, 0.0), grid)
    photo[..., 0, 0] = torch.tensor([1, 1, 0.95])  # but a colour that has room in one channel does not lose it
    kept = AffineGridHead().keep_in_range(grid, photo, 0.0)
    torch.testing.assert_close(kept, grid / (1.2 * 0.95))


def test_keep_in_range_gradients():
    head, photo = AffineGridHead(depth=2).double(), 0.1 + 0.8 * rand(1, 3, 6, 5, dtype=torch.float64)
    grid = 1.6 * identity_grid(1, 2, 2, 2, dtype=torch.float64) + 0.1 * rand(1, 12, 2, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda g: head.keep_in_range(g, photo, 0.05), grid.requires_grad_())


def test_save_and_load(tmp_path):
    head = AffineGridHead(depth=4, splat_strides=(2, 1), pixel_range=(-1.0, 1.0))
    head.save_pretrained(tmp_path)
    loaded = AffineGridHead.from_pretrained(tmp_path, use_safetensors=True)
    assert loaded.config.depth == 4 and tuple(loaded.config.pixel_range) == (-1.0, 1.0)
    latent, photo = torch.randn(1, 4, 32, 32), rand(1, 3, 5, 6)
    torch.testing.assert_close(loaded.apply(loaded(latent), photo), head.apply(head(latent), photo))


def test_trains_through_apply():
    head, photo = AffineGridHead(splat_strides=(2, 1), residual=True), rand(2, 3, 24, 24)
    latent = torch.randn(2, 4, 32, 32, requires_grad=True)
    head.apply(head(latent), photo).square().mean().backward()
    assert head.prediction2.weight.grad.abs().sum() > 0 and (latent.grad.abs().sum((0, 2, 3)) > 0).all()


def test_half_precision_weights_guide_in_float32():
    photo = rand(1, 3, 40, 40)
    head = AffineGridHead()
    guide = head.guide(photo)
    torch.testing.assert_close(head.half().guide(photo), guide)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: slice_grid(rand(1, 11, 8, 4, 4), rand(1, 1, 5, 5)), "`grid`"),
        (lambda: slice_grid(rand(12, 8, 4, 4), rand(1, 1, 5, 5)), "`grid`"),
        (lambda: slice_grid(rand(1, 12, 8, 4, 4), rand(2, 1, 5, 5)), "`guide`"),
        (lambda: slice_grid(rand(1, 12, 8, 4, 4), rand(1, 3, 5, 5)), "`guide`"),
        (lambda: apply_affine(rand(1, 11, 5, 5), rand(1, 3, 5, 5)), "`coefficients`"),
        (lambda: apply_affine(rand(1, 12, 5, 5), rand(1, 3, 5, 6)), "`image`"),
        (lambda: apply_affine(rand(1, 12, 5, 5), rand(1, 5, 5, 3)), "`image`"),
    ],
)
def test_refuses(call, name):
    with pytest.raises(ValueError, match=name):
        call()
