"""What the weights are called in the released checkpoints: name here -> name there."""

from torch.nn import Module

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

_HEAD = {
    "splat1": "hdrdecoder.coefficients.splat1.0",
    "splat2": "hdrdecoder.coefficients.splat2.0",
    "prediction1": "hdrdecoder.coefficients.pred1.0",
    "prediction2": "hdrdecoder.coefficients.pred2.0",
    "guide_curve.matrix": "hdrdecoder.guide.M",
    "guide_curve.matrix_bias": "hdrdecoder.guide.M_bias",
    "guide_curve.thresholds": "hdrdecoder.guide.thresholds",
    "guide_curve.slopes": "hdrdecoder.guide.slopes",
    "guide_curve.bias": "hdrdecoder.guide.bias",
}


def csrnet_keymap(network: Module) -> dict[str, str]:
    """Name in `CSRNet` -> released name."""
    keymap = {}
    for name in network.state_dict():
        match name.split("."):
            case ["condition_net", *rest]:
                keymap[name] = f"cond_net.{'.'.join(rest)}"
            case ["convs", layer, leaf]:
                keymap[name] = f"conv{int(layer) + 1}.{leaf}"
            case [kind, layer, leaf]:
                keymap[name] = f"cond_{kind.removesuffix('s')}{int(layer) + 1}.{leaf}"
    return keymap


def unet_keymap(unet: Module) -> dict[str, str]:
    """Name in diffusers -> released name, for every weight of a `UNet2DConditionModel`.

    The released blocks are numbered through: `conv_in`, then for each level its layers and its downsampler; upwards,
    each level has one layer more, and its upsampler belongs to the last one.
    """
    layers = unet.config.layers_per_block
    if not isinstance(layers, int):
        raise ValueError(f"`unet_config`: layers_per_block must be one number for all levels, got {layers}.")
    outer = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    keymap = {}
    for name in unet.state_dict():
        match name.split("."):
            case ["down_blocks", block, "downsamplers", "0", "conv", leaf]:
                own = f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op.{leaf}"
            case ["down_blocks", block, kind, layer, *rest]:
                own = f"input_blocks.{int(block) * (layers + 1) + int(layer) + 1}.{_layer_key(kind, rest)}"
            case ["mid_block", "resnets", layer, *rest]:
                own = f"middle_block.{2 * int(layer)}.{_layer_key('resnets', rest)[2:]}"
            case ["mid_block", "attentions", "0", *rest]:
                own = f"middle_block.1.{'.'.join(rest)}"
            case ["up_blocks", block, "upsamplers", "0", "conv", leaf]:
                place = 2 if hasattr(unet.up_blocks[int(block)], "attentions") else 1  # behind resnet and attention
                own = f"output_blocks.{int(block) * (layers + 1) + layers}.{place}.conv.{leaf}"
            case ["up_blocks", block, kind, layer, *rest]:
                own = f"output_blocks.{int(block) * (layers + 1) + int(layer)}.{_layer_key(kind, rest)}"
            case [*module, leaf] if ".".join(module) in outer:
                own = f"{outer['.'.join(module)]}.{leaf}"
            case _:
                raise ValueError(f"`unet_config`: the released form of the UNet has no {name}.")
        keymap[name] = f"model.diffusion_model.{own}"
    return keymap


def _layer_key(kind, rest):
    """A resnet comes first in its layer, with other names inside; a transformer second, with the same ones."""
    if kind == "attentions":
        return f"1.{'.'.join(rest)}"
    return f"0.{_RESNET[rest[0]]}.{rest[1]}"


def head_keymap(head: Module) -> dict[str, str]:
    """Name in `AffineGridHead` -> released name."""
    keymap = {}
    for name in head.state_dict():
        module, _, leaf = name.rpartition(".")
        keymap[name] = _HEAD.get(name) or f"{_HEAD[module]}.{leaf}"
    return keymap
