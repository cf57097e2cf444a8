from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import CSRNet, CSRNetL
from diffretouch.models.csrnet import enlarge
from diffretouch.training.released_names import csrnet_keymap

GOLDEN = Path(__file__).parent / "golden/csrnet"


def photo(height, width, batch=1, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def network(kind=CSRNet, seed=0, **config):
    torch.manual_seed(seed)
    return kind(**config)


def golden_network():
    weights = np.load(GOLDEN / "random_weights.npz")
    made = CSRNet()
    made.load_state_dict({own: torch.from_numpy(weights[name]) for own, name in csrnet_keymap(made).items()})
    return made


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters():
    made = CSRNet()
    assert count(made) == 36_489
    assert count(made.condition_net) == 23_232 and count(made.convs) == 4_611
    assert count(CSRNetL()) == 80_713


@pytest.mark.parametrize("name", ["rand_64x48", "rand_odd_51x37", "rand_5x5", "rand_6x5", "rand_7x9", "rand_8x8"])
@torch.no_grad()
def test_equals_the_released_network(name):
    made, wanted = golden_network(), np.load(GOLDEN / f"{name}.npz")
    image = torch.from_numpy(np.array(Image.open(GOLDEN / f"{name}.in.png"))).permute(2, 0, 1)[None] / 255
    condition = made.condition(image)
    assert np.abs(condition[0].numpy() - wanted["cond"]).max() < 2e-5
    assert np.abs(made(image)[0].numpy() - wanted["output"]).max() < 2e-5


def as_colours(layers, image):
    x = image[0].flatten(1).T
    for k, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        x = x.relu() if k < 2 else x
    return x.T.reshape(image[0].shape)


@torch.no_grad()
def test_folds_into_three_layers():
    made, image = network().double(), photo(33, 47).double()
    folded = as_colours(made.fold(made.condition(image)[0]), image)
    assert (folded - made(image)[0]).abs().max() < 1e-12
    weights = made.float().fold(made.condition(image.float())[0])
    assert [tuple(w.shape) for w, _ in weights] == [(64, 3), (64, 64), (3, 64)]
    assert all(w.dtype == torch.float32 for w, _ in made.bfloat16().fold(made.condition(image.bfloat16())[0]))


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_gradients(kind):
    made = network(kind, channels=3, condition_channels=2, condition_size=5).double()
    for parameter in made.parameters():  # away from the kinks of ReLU
        torch.nn.init.uniform_(parameter.data, 0.05, 0.3)
    inputs = photo(6, 7, batch=2).double().requires_grad_()
    assert torch.autograd.gradcheck(made, (inputs,), atol=1e-6)
    made(inputs).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@torch.no_grad()
def test_photos_of_a_batch_do_not_touch_each_other(kind):
    made, images = network(kind), photo(23, 31, batch=3)
    each = torch.cat([made(image[None]) for image in images])
    assert (made(images) - each).abs().max() < 1e-6
    assert (made(images, images.flip(0)) - made(images)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@pytest.mark.parametrize(
    "image, error, words",
    [
        (torch.rand(1, 3, 4, 9), ValueError, "at least 5 pixels"),
        (torch.rand(1, 1, 9, 9), ValueError, r"`image` must have shape \(B,3,H,W\)"),
        (torch.rand(3, 9, 9), ValueError, "`image` must have shape"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), TypeError, "`image` must be floating point"),
    ],
)
def test_bad_photos(kind, image, error, words):
    with pytest.raises(error, match=words):
        network(kind)(image)


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@pytest.mark.parametrize("config", [{"condition_size": 4}, {"condition_size": 5.0}, {"input_space": "adobe"}])
def test_bad_configs(kind, config):
    with pytest.raises(ValueError, match=f"`{next(iter(config))}` must be"):
        kind(**config)


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@torch.no_grad()
def test_saved_and_loaded(kind, tmp_path):
    made, image = network(kind, condition_size=64, input_space="prophoto"), photo(9, 12)
    made.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = kind.from_pretrained(tmp_path)
    assert again.config.condition_size == 64 and again.config.input_space == "prophoto"
    assert all(torch.equal(weight, made.state_dict()[name]) for name, weight in again.state_dict().items())
    assert (again(image) - made(image)).abs().max() < 1e-6


# CSRNet-L: our design, held to what makes it an extension of CSRNet


def dyadic_(module, generator):
    """Few-bit weights, most of them zero: sums of their products are exact in float64, in any order."""
    for name, parameter in module.named_parameters():
        bits = 1 if "condition_net" in name or "convs" in name else 2
        values = torch.randint(-2, 3, parameter.shape, generator=generator).double() / 2**bits
        keep = torch.rand(parameter.shape, generator=generator) < 0.3
        parameter.data = values * keep


@torch.no_grad()
def test_centre_kernels_and_no_maps_are_csrnet_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    plain = CSRNet(channels=6, condition_channels=4).double()
    dyadic_(plain, generator)
    image = torch.randint(0, 5, (2, 3, 16, 16), generator=generator).double() / 4
    local = CSRNetL.from_csrnet(plain).double()
    assert plain(image).std() > 0.1
    assert torch.equal(local(image), plain(image))
    with_weights = CSRNetL.from_csrnet(network())
    assert (with_weights(photo(40, 33)) - network()(photo(40, 33))).abs().max() < 1e-6


@torch.no_grad()
def test_constant_maps_are_global_modulation_bit_for_bit():
    """A map that is the same everywhere modulates as its mean does, whatever size it is brought to."""
    generator = torch.Generator().manual_seed(1)
    plain = CSRNet(channels=6, condition_channels=4).double()
    dyadic_(plain, generator)
    local = CSRNetL.from_csrnet(plain).double()
    image = torch.randint(0, 5, (1, 3, 13, 29), generator=generator).double() / 4
    condition = torch.tensor([[0.5, 1.0, 0.0, 0.25]]).double()
    modulation = [
        (
            scale(condition)[:, :, None, None].expand(-1, -1, 2, 3),
            shift(condition)[:, :, None, None].expand(-1, -1, 2, 3),
        )
        for scale, shift in zip(plain.scales, plain.shifts, strict=True)
    ]
    assert torch.equal(local.retouch_rows(image, modulation, slice(0, 13), 13), plain.modulated(image, condition))


@torch.no_grad()
def test_maps_change_only_their_place():
    local, image = network(CSRNetL), photo(96, 96)
    modulation = local.modulation(image)
    moved = [(s.clone(), t.clone()) for s, t in modulation]
    for s, t in moved:
        s[..., 0, 0] += 1
        t[..., 0, 0] += 1
    all_rows = slice(0, 96), 96
    change = (local.retouch_rows(image, moved, *all_rows) - local.retouch_rows(image, modulation, *all_rows)).abs()
    assert change[..., :10, :10].max() > 0.1 and change[..., 16:, :].max() == 0 and change[..., 16:].max() == 0


@pytest.mark.parametrize("height, step", [(41, 7), (41, 1), (5, 2), (64, 32)])
@torch.no_grad()
def test_strips_equal_the_whole(height, step):
    local, image = network(CSRNetL).double(), photo(height, 37).double()
    modulation, strips = local.modulation(image), []
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        strips.append(local.retouch_rows(image[..., local.rows_seen(rows, height), :], modulation, rows, height))
    assert (torch.cat(strips, 2) - local(image)).abs().max() < 1e-12


@pytest.mark.parametrize("size", [(5, 7), (40, 31), (1, 9), (3, 4)])
def test_enlarge_is_bilinear(size):
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    wanted = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    assert (enlarge(maps, size) - wanted).abs().max() < 1e-12
    assert (enlarge(maps, size, slice(0, 1)) - enlarge(maps, size)[:, :, :1]).abs().max() < 1e-12


@torch.no_grad()
def test_flat_colours_are_those_of_flat_areas():
    local = network(CSRNetL).double()
    colour = torch.tensor([0.2, 0.5, 0.7]).double()
    thumbnail = torch.rand(1, 3, 30, 30).double()
    modulation = [(s.mean((2, 3), keepdim=True), t.mean((2, 3), keepdim=True)) for s, t in local.modulation(thumbnail)]
    flat = local.retouch_rows(colour[None, :, None, None].expand(1, 3, 15, 15), modulation, slice(0, 15), 15)
    layers = [(w.double(), b.double()) for w, b in local.flat_colours(local.modulation(thumbnail))]
    assert (as_colours(layers, colour[None, :, None, None]) - flat[0, :, 7:8, 7:8]).abs().max() < 1e-5


def pop_and_fade(seed, size=40):
    """A subject of broad patches before a rough ground of the same colours: it is to pop, the ground to fade."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([0.2, 0.4, 0.6, 0.8])
    rough = levels[torch.randint(0, 4, (size, size), generator=generator)]
    broad = levels[torch.randint(0, 4, (size // 8, size // 8), generator=generator)]
    broad = broad.repeat_interleave(8, 0).repeat_interleave(8, 1)
    middle = int(torch.randint(10, size - 10, (1,), generator=generator))
    inside = ((torch.arange(size) - middle).abs() < 10).expand(size, size)
    image = torch.where(inside, broad, rough)[None].expand(3, -1, -1)
    return image, torch.where(inside, 1.3 * image, 0.35 + 0.2 * (image - 0.5))


def best_colour_function(image, target):
    """The least mean absolute error that any colour function can have on a photo: the medians of equal colours."""
    total = 0.0
    for level in image[0].unique():
        values = target[0][image[0] == level]
        total += (values - values.median()).abs().sum().item()
    return total / image[0].numel()


def test_learns_a_local_effect_that_no_colour_function_has():
    images, targets = (torch.stack(part) for part in zip(*(pop_and_fade(n) for n in range(24)), strict=True))
    bound = np.mean([best_colour_function(*pair) for pair in zip(images, targets, strict=True)])
    made = network(CSRNetL, channels=16, condition_channels=16)
    optimizer = torch.optim.Adam(made.parameters(), 5e-3)
    for step in range(200):
        some = torch.randint(0, 20, (8,), generator=torch.Generator().manual_seed(step))
        loss = (made(images[some]) - targets[some]).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        error = (made(images[20:]) - targets[20:]).abs().mean().item()  # photos it has not seen
    assert bound > 0.1 and error < 0.6 * bound, (bound, error)


@torch.no_grad()
def test_csrnet_gives_equal_colours_equal_results():
    image, _ = pop_and_fade(0)
    retouched = network()(image[None])[0]
    for level in image[0].unique():
        same = retouched[:, image[0] == level]
        assert (same - same[:, :1]).abs().max() < 1e-6
