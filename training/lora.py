"""LoRA (Hu et al. 2022) on a Stable Diffusion's attention, for one card: the UNet's new layers are trained whole."""

import copy
from functools import partial
from pathlib import Path

from diffusers import UNet2DConditionModel

from diffretouch.pipelines.adapter import save_adapter


def _is_new(name):  # see `build_retouch_unet`
    return name.startswith(("conv_in.", "conv_out.")) or ".attn2.to_k." in name or ".attn2.to_v." in name


def add_lora(unet: UNet2DConditionModel, rank: int) -> None:
    """Freeze a UNet of `build_retouch_unet` but for its new layers, and put adapters on its attention.

    Adapted are queries, keys, values and output of self-attention, and the output of cross-attention; its keys and
    values are new. They start as zero: the UNet does what it did.

    Raises:
        SystemExit: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise SystemExit("`--lora_rank` needs peft: pip install 'diffretouch[lora]'") from error
    ends = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_out.0")
    adapted = [name for name, _ in unet.named_modules() if name.endswith(ends)]
    if not adapted:
        raise SystemExit("`--lora_rank`: the UNet has no attention to adapt.")
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=adapted))
    for name, own in unet.named_parameters():
        own.requires_grad_(_is_new(name) or ".lora_" in name)


def merged(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy with the adapters added to the weights that they adapt: a UNet like any other."""
    unet = copy.deepcopy(unet)
    unet.fuse_lora()
    unet.unload_lora()
    return unet


def saves_adapter(unet: UNet2DConditionModel, base: dict) -> UNet2DConditionModel:
    """The UNet, of which a pipeline saves only what was trained, and which Stable Diffusion is below.

    Args:
        base: its `base` (folder or Hub id), `revision` and `variant`.
    """
    trained = {name for name in unet.state_dict() if _is_new(name) or ".lora_" in name}
    unet.save_pretrained = partial(_save, unet, trained, base)
    return unet


def _save(unet, trained, base, folder, **options):
    weights = {name: own.detach().cpu().contiguous() for name, own in unet.state_dict().items()}
    kept = {name.replace(".default.", "."): own for name, own in weights.items() if name in trained}
    frozen = {name: own for name, own in weights.items() if name not in trained}
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_adapter(folder, kept, frozen, base, dict(unet.config))
