"""The retouching UNet: its shapes, the surgery on a Stable Diffusion UNet, and what it is given to see."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

from diffretouch.colour import LUMA

LATENT_CHANNELS = 4

# Stable Diffusion 2.x with 7 input channels (latent ++ thumbnail), 8 output channels (noise ++ affine latent) and one
# 4-d attribute token: the shape of the released DiffRetouch, 840,471,688 parameters.
FULL_UNET = dict(
    sample_size=64,
    in_channels=7,
    out_channels=8,
    block_out_channels=(320, 640, 1280, 1280),
    attention_head_dim=(5, 10, 20, 20),
    cross_attention_dim=4,
    use_linear_projection=True,
)

# 32x32 latents, a 64x64 thumbnail folded into 12 channels, one attribute token; cross-attention in the three deepest
# levels, self-attention in the two deepest. What norms hide, how dark, flat and coloured the photo is, reaches the
# features all the same: the norms span all channels (one group), and percentiles of the thumbnail scale and shift them
# beside the timestep. c comes in by cross-attention alone.
SMALL_UNET = dict(
    sample_size=32,
    in_channels=16,
    out_channels=8,
    block_out_channels=(32, 64, 96, 128),
    layers_per_block=1,
    down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
    up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
    only_cross_attention=(False, True, False, False),
    attention_head_dim=(1, 2, 3, 4),
    cross_attention_dim=5,
    norm_num_groups=1,
    resnet_time_scale_shift="scale_shift",
    class_embed_type="projection",
    projection_class_embeddings_input_dim=36,
    use_linear_projection=True,
)


def build_retouch_unet(
    base: UNet2DConditionModel, *, cross_attention_dim: int = 4, sample_size: int | None = None
) -> UNet2DConditionModel:
    """Widen a Stable Diffusion UNet into a retouching UNet, keeping everything it has learned.

    `conv_in` 4 -> 7 channels: the new weights, which read the thumbnail, are zero. `conv_out` 4 -> 8: the new rows,
    which make the affine latent, are freshly initialised. `attn2.to_k` and `attn2.to_v` read attribute tokens instead
    of text and are freshly initialised. Every other weight is copied. (`ignore_mismatched_sizes=True` would leave the
    widened layers as uninitialised memory.)

    Args:
        base (`UNet2DConditionModel`): e.g. the `unet` of a Stable Diffusion 2.1-base checkpoint.
        cross_attention_dim (`int`): width of the attribute tokens, see `attribute_tokens`.
        sample_size (`int`, *optional*): side of the latents, where it is to be another than the base's: no weight
            depends on it.
    """
    width = 2 * LATENT_CHANNELS
    if base.config.in_channels != LATENT_CHANNELS or base.config.out_channels != LATENT_CHANNELS:
        raise ValueError(
            f"`base` must have {LATENT_CHANNELS} input and output channels, got {base.config.in_channels} and "
            f"{base.config.out_channels}."
        )
    unet = UNet2DConditionModel.from_config(
        base.config,
        in_channels=LATENT_CHANNELS + 3,
        out_channels=width,
        cross_attention_dim=cross_attention_dim,
        sample_size=sample_size or base.config.sample_size,
    ).to(base.dtype)
    own = unet.state_dict()
    for name, weight in base.state_dict().items():
        if own[name].shape == weight.shape:
            own[name].copy_(weight)
        elif name == "conv_in.weight":
            own[name].zero_()
            own[name][:, : weight.shape[1]] = weight
        elif name.startswith("conv_out."):
            own[name][: weight.shape[0]] = weight
        elif not name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            raise ValueError(f"`base` has {name} of shape {tuple(weight.shape)}, expected {tuple(own[name].shape)}.")
    return unet


def cross_attentions(unet: UNet2DConditionModel) -> Iterator[tuple[torch.nn.Module, torch.nn.Module]]:
    """Every (cross-attention, the norm before it) of a UNet, also those that stand in self-attention's place."""
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            for attention, norm in ((block.attn1, block.norm1), (block.attn2, block.norm2)):
                if attention is not None and attention.is_cross_attention:
                    yield attention, norm


def freeze_dead_attention(unet: UNet2DConditionModel) -> None:
    """Leave out of training what one attribute token leaves without effect.

    Softmax over a single key is 1, whatever the query and the key are: `to_q`, `to_k` and the norm before them get
    nothing but rounding as gradient, of which Adam makes full steps, other ones on every processor. With four tokens
    they have a meaning and stay as they are.
    """
    if unet.config.cross_attention_dim not in (4, 5):
        return
    for attention, norm in cross_attentions(unet):
        for dead in (norm, attention.to_q, attention.to_k):
            dead.requires_grad_(False)


# c is small beside the UNet's features: at its own size it is learned from late (training/README.md).
_C_SCALE = 6.0


def attribute_tokens(c: torch.Tensor, cross_attention_dim: int) -> torch.Tensor:
    """c (B,4) -> the context of cross-attention. Rows of NaN are unknown attributes.

    Width 4 makes one token, c itself, as in the released DiffRetouch: attention over one key is a constant, so the
    result depends on c alone; what is unknown is taken for 0. Width 5 makes one token, c ++ whether it is unknown,
    scaled: the last column of every `to_v` is then a learned null token. Width 8 makes four tokens, one per attribute:
    which attribute it is (one-hot) ++ how much of it, scaled, so that attention can weigh the attributes differently
    at every place of the photo; tokens of unknown attributes are zero.

    Returns:
        `torch.Tensor`: (B,1,4), (B,1,5) or (B,4,8).

    Raises:
        ValueError: another width.
    """
    unknown = c.isnan()
    known = c.nan_to_num(0.0)
    if cross_attention_dim == 4:
        return known[:, None]
    if cross_attention_dim == 5:
        return torch.cat([known, unknown.any(1, keepdim=True).to(c)], 1)[:, None] * _C_SCALE
    if cross_attention_dim != 8:
        raise ValueError(
            f"`cross_attention_dim` must be 4 or 5 (one token) or 8 (four tokens), got {cross_attention_dim}."
        )
    which = torch.eye(4, dtype=c.dtype, device=c.device).expand(len(c), 4, 4)
    return torch.cat([which, which * known[:, :, None]], -1) * (_C_SCALE * ~unknown[:, :, None]).to(c)


def knows_the_unknown(unet_config: Any) -> bool:
    """Whether a UNet has a token for attributes that are unknown: else they are taken for 0."""
    return unet_config.cross_attention_dim != 4


def unet_thumbnail(photo: torch.Tensor, unet_config: Any, resample: str = "antialias") -> torch.Tensor:
    """Photo (B,3,H,W) in [0,1] -> what the UNet sees of it: (B,in_channels-4,h,w) in [-1,1].

    The aspect ratio is not kept: the grid lives on the unit square. With more than 3 channels to fill, a thumbnail of
    f times the latent's side is folded f x f into channels.

    Args:
        resample: "antialias" (bilinear; "area" in models of before) averages; "nearest" takes every n-th pixel, as
            released weights expect.
    """
    fold, size = thumbnail_fold_and_size(unet_config)
    if resample == "nearest":
        thumbnail = F.interpolate(photo, (size, size), mode="nearest")
    elif resample in ("antialias", "area"):
        thumbnail = F.interpolate(photo, (size, size), mode="bilinear", antialias=True, align_corners=False)
    else:
        raise ValueError(f'`resample` must be "antialias" or "nearest", got {resample!r}.')
    return F.pixel_unshuffle(thumbnail, fold) * 2 - 1


def thumbnail_fold_and_size(unet_config: Any) -> tuple[int, int]:
    """How many thumbnail pixels lie along the side of one latent pixel, and along the side of the whole thumbnail."""
    fold = round(((unet_config.in_channels - LATENT_CHANNELS) / 3) ** 0.5)
    return fold, fold * unet_config.sample_size


def seen_photo(thumbnail: torch.Tensor, unet_config: Any) -> torch.Tensor:
    """The photo (B,3,f*h,f*w) in [0,1] of a folded thumbnail: the other way round than `unet_thumbnail`."""
    return F.pixel_shuffle((thumbnail + 1) / 2, thumbnail_fold_and_size(unet_config)[0])


# Positions of the percentiles that `tone_statistics` reads
_PERCENTILES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)


def tone_statistics(thumbnail: torch.Tensor) -> torch.Tensor:
    """Nine percentiles of red, green, blue and luma: (B,3*f*f,h,w) folded thumbnail in [-1,1] -> (B,36)."""
    photo = thumbnail.unflatten(1, (3, -1)).flatten(2).float()
    luma = (photo * photo.new_tensor(LUMA)[:, None]).sum(1, keepdim=True)
    values = torch.cat([photo, luma], 1).sort(-1).values  # (B,4,pixels)
    last = int(values.shape[-1]) - 1  # a number, also where an export traces shapes
    at = [round(position * last) for position in _PERCENTILES]
    return values[..., at].flatten(1)


def with_offset(latents: torch.Tensor, offset: float) -> torch.Tensor:
    """Latents (B,C,h,w) whose mean over each channel is (1 + offset) times what it was.

    The mean of white noise over h*w pixels is sqrt(h*w) times smaller than the noise, the mean of latents that a style
    changes is not: a style would be decided in the very first steps, by what little light all pixels share. Offset
    noise (Guttenberg, 2023, "Diffusion with offset noise") makes both alike: a network is trained on noise of this
    kind. As the map is linear, samplers that limit no latents need not know of it, see `denoise`.
    """
    return latents + offset * latents.mean((2, 3), keepdim=True) if offset else latents


def without_offset(latents: torch.Tensor, offset: float) -> torch.Tensor:
    """The inverse of `with_offset`."""
    return with_offset(latents, -offset / (1 + offset))


def denoise(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    thumbnail: torch.Tensor,
    timesteps: torch.Tensor | int,
    c: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One call of the UNet: noisy latents (B,4,h,w) -> the scheduler's model output like them, and the affine latent.

    c (B,4), rows of NaN where it is unknown, comes in by cross-attention. A UNet with a class embedding is given the
    thumbnail's `tone_statistics` there; one of 40 inputs (models of before) c as well. `dtype` is `unet.dtype`, for
    loops: to find it, diffusers walks over all modules, a tenth of a small UNet's time. With an `offset` the latents
    are those of a sampler, over white noise, and the UNet's are theirs `with_offset`: so is what it makes of them.
    """
    x = torch.cat([with_offset(latents, offset), thumbnail], 1).to(dtype or unet.dtype)
    c = c.to(x)
    tokens = attribute_tokens(c, unet.config.cross_attention_dim)
    known = None
    if unet.config.class_embed_type:
        known = tone_statistics(thumbnail).to(x)
        if unet.config.projection_class_embeddings_input_dim == known.shape[1] + 4:
            known = torch.cat([known, _C_SCALE * c.nan_to_num(0.0)], 1)
    output, affine_latent = unet(x, timesteps, encoder_hidden_states=tokens, class_labels=known).sample.chunk(2, 1)
    return without_offset(output.float(), offset) if offset else output, affine_latent
