"""Latents of a data set's targets, encoded once: where a target is always the same picture."""

import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from diffretouch.data.paired import PairedPhotos


def check_cacheable(photos: object) -> None:
    """Raise unless every target of the data set is one picture: whole photos of experts, nothing made anew."""
    if not isinstance(photos, PairedPhotos) or photos.crops or not photos.fixed_targets:
        raise SystemExit(
            "`--cache_latents` needs targets that never change: `--whole_photos` of several experts (`--dataset "
            "pairs`, `fivek` or `ppr10k`). Random crops and simulated experts make every target anew."
        )


def cached_latents(
    photos: PairedPhotos, vae: AutoencoderKL, folder: str | os.PathLike[str], device: torch.device | str
) -> torch.Tensor:
    """Latents (items,4,h,w) of all targets, by `item`, from `latents.safetensors` in a folder, or made and kept there.

    Each is encoded by itself, so that a training that goes on finds the very same ones.

    Args:
        photos (`PairedPhotos`): of whole photos.
        vae (`AutoencoderKL`): on `device`.
    """
    path = Path(folder) / "latents.safetensors"
    made_of = {"ids": photos.describe()["ids_sha256"], "experts": ",".join(photos.experts), "size": str(photos.size)}
    made_of["vae"] = f"{sum(p.double().abs().sum().item() for p in vae.encoder.parameters()):.10e}"
    if path.is_file():
        try:
            with safe_open(path, "pt") as file:
                if file.metadata() != made_of:
                    raise SystemExit(
                        f"{path} is of another data set or autoencoder: remove it, or name another folder."
                    )
                return file.get_tensor("latents")
        except (OSError, SafetensorError) as error:
            raise SystemExit(f"{path} cannot be read, remove it: {error}") from error
    latents = []
    for item in tqdm(range(len(photos.ids) * len(photos.experts)), desc="Latents", delay=1, leave=False):
        try:
            target = photos.target(item)[None].to(device)
        except ValueError:
            if photos.on_bad_file == "stop":
                raise
            latents.append(None)  # the data set passes it by and names it, whenever it comes
            continue
        with torch.no_grad():
            latents.append(vae.encode(target * 2 - 1).latent_dist.mean[0].float().cpu() * vae.config.scaling_factor)
    shape = next(x.shape for x in latents if x is not None)
    latents = torch.stack([torch.zeros(shape) if x is None else x for x in latents])
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    save_file({"latents": latents}, aside, metadata=made_of)
    os.replace(aside, path)
    return latents
