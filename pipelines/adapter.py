"""UNets that are saved as what was trained of them: an adapter of a Stable Diffusion, which is loaded below it."""

import json
import os
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffretouch.models.unet import build_retouch_unet

WEIGHTS, ABOUT = "adapter.safetensors", "adapter.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether a `unet` folder holds an adapter."""
    return os.path.isfile(Path(folder) / ABOUT)


def save_adapter(folder: str | os.PathLike[str], kept: dict, frozen: dict, base: dict, config: dict) -> None:
    """Write an adapter: what was trained, and what the weights below must add up to.

    Args:
        kept: `X.lora_A.weight` (r,in) and `X.lora_B.weight` (out,r), whose product is added to `X.weight`; other
            weights by their names, whole.
        frozen: the others, to know them again.
        base: the Stable Diffusion: `base` (folder or Hub id), `revision`, `variant`.
        config: the UNet's.
    """
    save_file(kept, Path(folder) / WEIGHTS)
    about = base | {name: config[name] for name in ("cross_attention_dim", "sample_size")}
    about["sum"] = _sum(frozen.values())
    (Path(folder) / ABOUT).write_text(json.dumps(about, indent=1) + "\n")


@torch.no_grad()
def load_adapter(folder: str | Path, dtype: torch.dtype | dict | None = None) -> UNet2DConditionModel:
    """The UNet of an adapter, merged into the Stable Diffusion that it was trained on. peft is not needed.

    Args:
        folder: the `unet` folder of a model.
        dtype: of the UNet, as `dtype` of `DiffusionPipeline.from_pretrained`; float32 by default.

    Raises:
        ValueError: the adapter is damaged, or the Stable Diffusion is another one.
        OSError: that cannot be found.
    """
    about, kept = json.loads((Path(folder) / ABOUT).read_text()), load_file(Path(folder) / WEIGHTS)
    of_base = {"subfolder": "unet", "use_safetensors": True}
    of_base |= {name: about[name] for name in ("revision", "variant") if about[name]}
    base = UNet2DConditionModel.from_pretrained(about["base"], **of_base)
    unet = build_retouch_unet(base, cross_attention_dim=about["cross_attention_dim"], sample_size=about["sample_size"])
    own = unet.state_dict()
    adapted = {name.removesuffix(".lora_A.weight") for name in kept if name.endswith(".lora_A.weight")}
    whole = {name: value for name, value in kept.items() if ".lora_" not in name}
    strange = [name for name in [*whole, *(f"{name}.weight" for name in adapted)] if name not in own]
    if strange:
        raise ValueError(f"the adapter has weights that {about['base']} has no place for: {', '.join(strange[:3])}.")
    found = _sum(value for name, value in own.items() if name not in whole)
    if abs(found - about["sum"]) > 1e-6 * abs(about["sum"]):
        raise ValueError(f"{about['base']} is not the Stable Diffusion that the adapter was trained on.")
    for name, value in whole.items():
        own[name].copy_(value)
    for name in adapted:
        product = kept[f"{name}.lora_B.weight"].float() @ kept[f"{name}.lora_A.weight"].float()
        own[f"{name}.weight"] += product.to(own[f"{name}.weight"])
    dtype = dtype.get("unet", dtype.get("default")) if isinstance(dtype, dict) else dtype
    return unet.to(dtype) if isinstance(dtype, torch.dtype) else unet


def _sum(weights) -> float:
    return sum(value.double().abs().sum().item() for value in weights)
