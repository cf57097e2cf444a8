import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from diffretouch import SAAdjustNet, load_backbone
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.losses.adjustment import adjustment_loss, scene_loss
from diffretouch.metrics import delta_e76
from diffretouch.models.sa_adjustnet import RESNET50, SMALL_ADJUSTNET, ReNet, _sample

TINY = dict(
    backbone=dict(embedding_size=4, hidden_sizes=(4, 6, 8), depths=(1, 1, 1), layer_type="basic"),
    renet_hidden=4,
    renet_channels=6,
    context_channels=8,
    rank=6,
    view_size=32,
)


def tiny_network(**config):
    torch.manual_seed(0)
    network = SAAdjustNet(**{**TINY, **config}).eval()
    torch.nn.init.normal_(network.out.weight, std=0.1)
    return network


def photo(height=21, width=34, batch=1, seed=0):
    return 0.2 + 0.6 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_parameters_of_the_paper():
    with torch.device("meta"):
        network = SAAdjustNet(presets=4, scene_classes=150)
        small = SAAdjustNet(**SMALL_ADJUSTNET, presets=2)
    assert network.hypercolumn.weight.numel() + network.hypercolumn.bias.numel() == 1_442_304
    assert network.resnet.config.hidden_sizes == [256, 512, 1024]
    assert network.choice.out_features == 4 and network.scene.out_features == 150
    assert sum(p.numel() for p in small.parameters()) < 500_000


@pytest.mark.parametrize(
    "config",
    [
        {"presets": 1},
        {"presets": -2},
        {"presets": 2.5},
        {"soft_edges": True},
        {"view_size": 40},
        {"view_size": 16},
        {"backbone": {**RESNET50, "hidden_sizes": (256, 512)}},
    ],
)
def test_bad_config(config):
    with pytest.raises(ValueError, match="`presets`|`soft_edges`|`view_size`|`backbone`"):
        SAAdjustNet(**{**TINY, **config})


def test_sampling_meets_the_nodes_and_what_lies_between():
    maps = torch.randn(1, 5, 8, 8)
    nodes = torch.tensor([[[0.0, 0], [4, 8], [28, 28]]])
    torch.testing.assert_close(_sample(maps, nodes, 4)[0], maps[0][:, [0, 2, 7], [0, 1, 7]].T)
    between = _sample(maps, torch.tensor([[[6.0, 3.0]]]), 4)[0, 0]
    expected = maps[0, :, :2, 1:3].mean(2) * torch.tensor([0.25, 0.75])
    torch.testing.assert_close(between, expected.sum(1))


def test_renet_sees_in_all_four_directions():
    """A change in one corner reaches all others; with one direction's weights gone, not all of them."""
    torch.manual_seed(0)
    renet = ReNet(3, 4, 5).eval()
    x = torch.randn(1, 3, 6, 7)
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    for here in corners:
        changed = x.clone()
        changed[0, :, here[0], here[1]] += 1
        moved = (renet(changed) - renet(x)).detach().abs().amax(1)[0]
        assert all(moved[there] > 1e-7 for there in corners)
    for name, parameter in renet.named_parameters():
        if name.startswith("along_rows") and name.endswith("_reverse"):
            torch.nn.init.zeros_(parameter)
    changed = x.clone()
    changed[0, :, 0, -1] += 1
    moved = (renet(changed) - renet(x)).detach().abs().amax(1)[0]
    assert moved[0, 0] == 0 and moved[-1, -1] > 1e-7


def test_renet_rows_by_a_loop():
    torch.manual_seed(1)
    renet = ReNet(3, 4, 5).eval()
    x = torch.randn(2, 3, 5, 6)
    cell = torch.nn.GRUCell(3, 4)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(getattr(renet.along_rows, f"{name}_l0"))
        state, right = torch.zeros(2 * 5, 4), []
        for column in range(6):
            state = cell(x[..., column].permute(0, 2, 1).flatten(0, 1), state)
            right.append(state.unflatten(0, (2, 5)))
        seen = []
        hook = renet.norm1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        renet(x)
        hook.remove()
    torch.testing.assert_close(seen[0][:, :4], torch.stack(right, -1).transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_bilinear_form_against_its_full_tensor():
    """Low rank: with the nonlinearities left out, P(Ux * Vy) is sum_ij W_ijk x_i y_j for W = sum_d U V P."""
    network = tiny_network().double()
    lab, colour, gate = (torch.rand(7, n, dtype=torch.float64) for n in (3, 6, 6))
    inner = torch.tanh(lab @ network.colour_lab.weight.T + network.colour_lab.bias + colour)
    w = torch.einsum("kd,di,dj->ijk", network.out.weight, torch.eye(6).double(), torch.eye(6).double())
    expected = lab + torch.einsum("ijk,ni,nj->nk", w, inner, gate) + network.out.bias
    torch.testing.assert_close(network.new_lab(lab, colour, gate), expected)


@pytest.mark.parametrize("presets", [0, 3])
@torch.no_grad()
def test_sparse_training_and_full_resolution_agree(presets):
    """At the nodes of the context, a photo of the view's size gives what training sees."""
    network = tiny_network(presets=presets)
    image = photo(32, 32)
    y, x = torch.meshgrid(torch.arange(0, 32, 4), torch.arange(0, 32, 4), indexing="ij")
    pixels = (y * 32 + x).flatten()[None]
    estimates, probabilities, _ = network.sparse(image, pixels)
    if presets:
        likeliest = probabilities.argmax(-1)[..., None, None].expand(-1, -1, 1, 3)
        estimates = estimates.gather(2, likeliest)[:, :, 0]
    out = srgb_to_lab(network(image))[..., ::4, ::4].flatten(2).transpose(1, 2) / 100
    torch.testing.assert_close(out, estimates, atol=2e-4, rtol=0)


@pytest.mark.parametrize("presets", [0, 3])
@torch.no_grad()
def test_strips_batches_and_odd_sizes(presets, monkeypatch):
    network = tiny_network(presets=presets)
    two = photo(batch=2)
    whole = network(two)
    assert whole.shape == two.shape and whole.dtype == torch.float32 and (whole - two).abs().max() > 0.01
    monkeypatch.setattr("diffretouch.models.sa_adjustnet._STRIP", 100)
    torch.testing.assert_close(network(two), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(two[1:]), whole[1:], atol=1e-4, rtol=0)
    for size in ((1, 1), (1, 50), (90, 2), (3, 3)):
        out = network(photo(*size))
        assert out.shape[2:] == size and out.isfinite().all()


@torch.no_grad()
def test_the_photos_size_matters_little():
    network = tiny_network(presets=2)
    y, x = torch.meshgrid(torch.linspace(0.2, 0.8, 96), torch.linspace(0.2, 0.8, 128), indexing="ij")
    large = torch.stack([x, y, (x + y) / 2])[None]
    small = torch.nn.functional.interpolate(large, (48, 64), mode="bilinear", antialias=True)
    halved = torch.nn.functional.interpolate(network(large), (48, 64), mode="bilinear", antialias=True)
    assert (halved - network(small)).abs().mean() < 0.02


@torch.no_grad()
def test_a_preset_is_one_gate():
    """A map that is all preset k gives the colour mapping of that preset everywhere."""
    network, image = tiny_network(presets=3), photo()
    results = []
    for k in range(3):
        weights = torch.zeros(1, 3, 5, 8)
        weights[:, k] = 1
        context = network.look(image, weights)
        results.append(network.retouch_rows(context, image, 0, 21))
        mixed = network.look(image, weights, soft_edges=True)
        torch.testing.assert_close(network.retouch_rows(mixed, image, 0, 21), results[-1], atol=1e-4, rtol=0)
    assert (results[0] - results[1]).abs().max() > 1e-3
    halves = torch.zeros(1, 3, 21, 34)
    halves[:, 0, :, :17], halves[:, 2, :, 17:] = 1, 1
    out = network.retouch_rows(network.look(image, halves), image, 0, 21)
    expected = torch.cat([results[0][..., :17], results[2][..., 17:]], 3)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_network_that_was_trained_softly_is_used_so():
    image, results = photo(), {False: [], True: []}
    for own in results:
        network = tiny_network(presets=3, soft_edges=own)
        results[own].append(network(image))
        for told in results:
            results[told].append(network.retouch_rows(network.look(image, soft_edges=told), image, 0, 21))
    for same in results.values():
        assert len(same) == 3 and torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert (results[True][0] - results[False][0]).abs().max() > 0.01


def test_gradients_reach_every_parameter():
    network = tiny_network(presets=3, scene_classes=5).train()
    view, pixels = photo(32, 32, 2), torch.randint(0, 1024, (2, 40))
    estimates, probabilities, scene = network.sparse(view, pixels)
    assert estimates.shape == (2, 40, 3, 3) and scene.shape == (2, 40, 5)
    target = estimates.detach()[:, :, 0] + 0.1
    loss = adjustment_loss(estimates, probabilities, target, usage=network.usage)
    (loss + 0.01 * scene_loss(scene, torch.randint(0, 5, (2, 40)))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_learns_two_retouches_that_no_colour_function_can():
    """One grey, made light on the left and dark on the right: the presets must come apart by place."""
    torch.manual_seed(0)
    network = SAAdjustNet(**{**TINY, "presets": 2})
    view = 0.5 + 0.02 * torch.randn(2, 3, 32, 32)
    target = view.clone()
    target[..., :16] += 0.2
    target[..., 16:] -= 0.2
    lab = (srgb_to_lab(target) / 100).flatten(2).transpose(1, 2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    pixels = torch.arange(0, 1024, 3).expand(2, -1)
    lab = lab[:, ::3]
    for _ in range(120):
        estimates, probabilities, _ = network.sparse(view, pixels)
        loss = adjustment_loss(estimates, probabilities, lab, usage=network.usage)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.eval()
    with torch.no_grad():
        out = network(view).clamp(0, 1)
        weights = network.look(view).weights.argmax(1)
    assert delta_e76(out, target).mean() < 0.25 * delta_e76(view, target).mean()
    assert (weights[..., :12] != weights[..., 20:].flip(-1)).float().mean() > 0.9


def test_save_and_load(tmp_path):
    network = tiny_network(presets=2, scene_classes=4)
    network.usage.copy_(torch.tensor([0.7, 0.3]))
    network.save_pretrained(tmp_path)
    loaded = SAAdjustNet.from_pretrained(tmp_path)
    assert torch.equal(loaded.usage, network.usage)
    with torch.no_grad():
        assert torch.equal(loaded(photo()), network(photo()))


def test_backbone_weights_from_a_file(tmp_path):
    """A classifier with four stages, as published ones are: its first three are taken."""
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1], layer_type="basic")
    saved = ResNetForImageClassification(config)
    saved.save_pretrained(tmp_path / "resnet")
    network = tiny_network()
    load_backbone(network, tmp_path / "resnet")
    for name, weight in network.resnet.state_dict().items():
        assert torch.equal(weight, saved.resnet.state_dict()[name]), name
    other = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 9], depths=[1, 1, 1]))
    other.save_pretrained(tmp_path / "other")
    for name in ("empty", "cut"):
        (tmp_path / name).mkdir()
    (tmp_path / "cut/model.safetensors").write_bytes((tmp_path / "resnet/model.safetensors").read_bytes()[:200])
    before = network.resnet.state_dict()["embedder.embedder.convolution.weight"].clone()
    for name in ("none", "empty", "cut", "other"):
        with pytest.raises(ValueError, match="`name`: the backbone") as caught:
            load_backbone(network, tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
        assert ("is not there" in str(caught.value)) == (name == "none")
    assert torch.equal(network.resnet.state_dict()["embedder.embedder.convolution.weight"], before)
