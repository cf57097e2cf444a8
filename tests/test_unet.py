import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from diffretouch import build_retouch_unet
from diffretouch.models.unet import (
    FULL_UNET,
    SMALL_UNET,
    attribute_tokens,
    cross_attentions,
    denoise,
    freeze_dead_attention,
    knows_the_unknown,
    seen_photo,
    tone_statistics,
    unet_thumbnail,
    with_offset,
    without_offset,
)

from .tiny import tiny_unet


def tiny_base(**config):
    """A Stable Diffusion UNet, but tiny: 4 channels in and out, text tokens."""
    return tiny_unet(**{"in_channels": 4, "out_channels": 4, "cross_attention_dim": 24, **config})


def test_parameters():
    with torch.device("meta"):
        full, small = UNet2DConditionModel(**FULL_UNET), UNet2DConditionModel(**SMALL_UNET)
    assert sum(p.numel() for p in full.parameters()) == 840_471_688
    assert sum(p.numel() for p in small.parameters()) == 5_717_704


@pytest.mark.parametrize("cross_attention_dim", [4, 8])
def test_surgery_keeps_what_was_learned(cross_attention_dim):
    base = tiny_base()
    unet = build_retouch_unet(base, cross_attention_dim=cross_attention_dim)
    own, kept = unet.state_dict(), base.state_dict()
    assert own.keys() == kept.keys()
    fresh = [name for name in own if own[name].shape != kept[name].shape]
    assert {name for name in fresh if "conv" not in name} == {
        name for name in own if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    assert {name for name in fresh if "conv" in name} == {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    for name in own.keys() - set(fresh):
        assert torch.equal(own[name], kept[name]), name
    assert torch.equal(own["conv_in.weight"][:, :4], kept["conv_in.weight"])
    assert not own["conv_in.weight"][:, 4:].any()
    assert torch.equal(own["conv_out.weight"][:4], kept["conv_out.weight"])
    assert torch.equal(own["conv_out.bias"][:4], kept["conv_out.bias"])
    for name in fresh:  # initialised: finite, of a layer's usual size, not constant
        assert own[name].isfinite().all() and own[name].abs().max() < 2, name
    for name in set(fresh) - {"conv_in.weight", "conv_out.bias"}:
        assert own[name].std() > 1e-3, name


def test_surgery_starts_as_the_base_does():
    """With zero weights on the thumbnail and attention to text put back, the noise prediction is the base's own."""
    base = tiny_base()
    unet = build_retouch_unet(base, cross_attention_dim=4)
    latents, thumbnail = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8)
    for model in (base, unet):
        for name, parameter in model.named_parameters():
            if "attn2.to_out" in name:
                torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        expected = base(latents, 500, torch.zeros(2, 1, 24)).sample
        noise, affine = denoise(unet, latents, thumbnail, 500, torch.zeros(2, 4))
    torch.testing.assert_close(noise, expected)
    assert affine.shape == (2, 4, 8, 8) and affine.std() > 0


@pytest.mark.parametrize("config", [{"in_channels": 9}, {"out_channels": 8}])
def test_surgery_refuses_other_unets(config):
    base = tiny_base(**config)
    with pytest.raises(ValueError, match="`base`"):
        build_retouch_unet(base)


def test_tokens():
    c = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0, 0, 0, -1]])
    assert torch.equal(attribute_tokens(c, 4), c[:, None])
    four = attribute_tokens(c, 8)
    assert four.shape == (2, 4, 8)
    four = four / four[0, 0, 0]
    torch.testing.assert_close(four[..., :4], torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(four[..., 4:], torch.diag_embed(c))
    with pytest.raises(ValueError, match="`cross_attention_dim`"):
        attribute_tokens(c, 1024)


def test_unknown_attributes():
    c = torch.tensor([[0.1, 0.2, 0.3, 0.4], [torch.nan] * 4])
    assert torch.equal(attribute_tokens(c, 4)[1], torch.zeros(1, 4)) and not knows_the_unknown(tiny_unet().config)
    one = attribute_tokens(c, 5)
    assert one.shape == (2, 1, 5) and torch.equal(one[0, 0, :4] / one[1, 0, 4], c[0])
    assert one[0, 0, 4] == 0 and not one[1, 0, :4].any()
    four = attribute_tokens(c, 8)
    assert four[0].any(1).all() and not four[1].any()
    for width in (5, 8):
        unet = tiny_unet(cross_attention_dim=width)
        assert knows_the_unknown(unet.config)
        with torch.no_grad():
            x, y = (
                denoise(unet, torch.ones(1, 4, 8, 8), torch.zeros(1, 3, 8, 8), 500, row[None])[1]
                for row in (c[1], torch.zeros(4))
            )
        assert x.isfinite().all() and (x - y).abs().max() > 1e-4


@torch.no_grad()
def test_c_comes_in_by_cross_attention_alone():
    unet = tiny_unet(
        cross_attention_dim=5,
        in_channels=16,
        only_cross_attention=(True, False),
        class_embed_type="projection",
        projection_class_embeddings_input_dim=36,
    )
    run = lambda c: denoise(unet, torch.ones(1, 4, 8, 8), torch.zeros(1, 12, 8, 8), 500, torch.tensor([c]))  # noqa: E731
    some = ([0.0, 0, 0, 0], [1.0, -1, 0.5, 2], [torch.nan] * 4)
    assert len({float(run(c)[1].sum()) for c in some}) == 3
    for attention, _ in cross_attentions(unet):
        for parameter in attention.to_out.parameters():
            parameter.zero_()
    assert all(torch.equal(run(c)[i], run(some[0])[i]) for c in some for i in (0, 1))


@pytest.mark.parametrize("width", [4, 5, 8])
@torch.no_grad()
def test_c_changes_the_output(width):
    unet = tiny_unet(cross_attention_dim=width)
    latents, thumbnail = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 8, 8)
    run = lambda c: denoise(unet, latents, thumbnail, 500, torch.tensor([c]))  # noqa: E731
    base = run([0.0, 0, 0, 0])[1]
    for i in range(4):
        assert (run([float(i == j) for j in range(4)])[1] - base).abs().max() > 1e-4


@torch.no_grad()
def test_tone_statistics():
    photo = torch.rand(2, 3, 40, 40) ** 2
    config = tiny_unet(in_channels=16).config
    thumbnail = unet_thumbnail(photo, config)  # 16x16 pixels, folded
    pixels = torch.nn.functional.pixel_shuffle(thumbnail, 2)
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    values = torch.cat([pixels, luma], 1).flatten(2).numpy()
    at = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
    wanted = np.quantile(values, at, axis=-1, method="nearest").transpose(1, 2, 0).reshape(2, 36)
    np.testing.assert_allclose(tone_statistics(thumbnail).numpy(), wanted, atol=1e-6)


@torch.no_grad()
def test_statistics_and_c_also_come_in_beside_the_timestep():
    unet = tiny_unet(class_embed_type="projection", projection_class_embeddings_input_dim=40)
    latents, thumbnail, c = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 8, 8), torch.tensor([[0.5, 0, 0, -1]])
    given = torch.cat([tone_statistics(thumbnail), 6 * c], 1)  # c at the features' size
    x = torch.cat([latents, thumbnail], 1)
    wanted = unet(x, 500, encoder_hidden_states=attribute_tokens(c, 4), class_labels=given).sample
    torch.testing.assert_close(torch.cat(denoise(unet, latents, thumbnail, 500, c), 1), wanted)


@torch.no_grad()
def test_four_tokens_are_weighed_by_place_one_is_not():
    """Softmax over a single key is 1: with one token, cross-attention adds the same vector everywhere."""
    for width, varies in ((4, False), (8, True)):
        attention = tiny_unet(cross_attention_dim=width).down_blocks[0].attentions[0].transformer_blocks[0].attn2
        places = 5 * torch.randn(1, 64, 8)
        added = attention(places, attribute_tokens(torch.rand(1, 4), width))
        assert (added.std(1).max() > 1e-3) == varies


@pytest.mark.parametrize("config", [{}, {"only_cross_attention": True}, {"cross_attention_dim": 8}])
def test_what_is_frozen_is_what_has_no_effect(config):
    """In float64 a dead weight's gradient is rounding; every other weight moves the output. Four tokens: none dead."""
    unet = tiny_unet(**config).double()
    freeze_dead_attention(unet)
    frozen = {name for name, p in unet.named_parameters() if not p.requires_grad}
    unet.requires_grad_(True)
    c = torch.tensor([[0.3, -0.5, 0.2, 0.9], [-0.7, 0.1, 0.4, 0.6]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    seen = (torch.randn(2, n, 8, 8, generator=generator, dtype=torch.float64) for n in (4, 3))
    sum(part.square().sum() for part in denoise(unet, *seen, 500, c)).backward()
    dead = {name for name, p in unet.named_parameters() if p.grad.abs().max() < 1e-12}
    assert frozen == dead and bool(frozen) == (unet.config.cross_attention_dim == 4)


def test_offset_of_the_mean_and_its_inverse():
    x, y = torch.randn(2, 3, 4, 6, 5).double()
    moved = with_offset(x, 12)
    torch.testing.assert_close(moved.mean((2, 3)), 13 * x.mean((2, 3)))
    own = lambda values: values - values.mean((2, 3), keepdim=True)  # noqa: E731
    torch.testing.assert_close(own(moved), own(x))
    torch.testing.assert_close(without_offset(moved, 12), x)
    torch.testing.assert_close(with_offset(2 * x - y, 12), 2 * moved - with_offset(y, 12))  # linear
    assert torch.equal(with_offset(x, 0), x) and torch.equal(without_offset(x, 0), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_network_that_knows_another_noise_is_called_in_its_own_space(dtype):
    unet, c = tiny_unet().to(dtype), torch.tensor([[0.3, -0.5, 0.2, 0.9]] * 2)
    latents, thumbnail = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8)
    output, affine_latent = denoise(unet, latents, thumbnail, 500, c, offset=12)
    wanted, same = denoise(unet, with_offset(latents, 12), thumbnail, 500, c)
    assert torch.equal(affine_latent, same) and (output - wanted).abs().max() > 0.01
    torch.testing.assert_close(output, without_offset(wanted.float(), 12))
    for plain, offset in zip(denoise(unet, latents, thumbnail, 500, c),
                             denoise(unet, latents, thumbnail, 500, c, offset=0.0), strict=True):  # fmt: skip
        assert torch.equal(plain, offset) and plain.dtype == dtype


def test_thumbnail():
    photo = torch.rand(2, 3, 37, 53)
    released = unet_thumbnail(photo, tiny_unet().config, "nearest")
    rows, columns = torch.arange(8) * 37 // 8, torch.arange(8) * 53 // 8  # src = floor(i * H / h)
    torch.testing.assert_close(released, photo[:, :, rows][..., columns] * 2 - 1)
    folded = unet_thumbnail(photo, tiny_unet(in_channels=16).config)
    assert folded.shape == (2, 12, 8, 8)
    unfolded = torch.nn.functional.pixel_shuffle(folded, 2)
    torch.testing.assert_close(seen_photo(folded, tiny_unet(in_channels=16).config), (unfolded + 1) / 2)
    torch.testing.assert_close(unfolded.mean((2, 3)) / 2 + 0.5, photo.mean((2, 3)), atol=5e-3, rtol=0)
    for side in ((1, 1), (1, 4000), (3000, 2)):
        assert unet_thumbnail(torch.rand(1, 3, *side), tiny_unet().config).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="`resample`"):
        unet_thumbnail(photo, tiny_unet().config, "bicubic")
