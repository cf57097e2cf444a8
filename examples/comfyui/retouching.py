"""What the nodes do, without ComfyUI: images are (B,H,W,3) or, with alpha, (B,H,W,4) float tensors in [0,1]."""

from functools import lru_cache
from pathlib import Path

import torch

from diffretouch.pipelines.pretrained import BUNDLED, open_pipeline


def own_models():
    """The folder for models of one's own; None outside ComfyUI."""
    try:
        from folder_paths import models_dir
    except ImportError:
        return None
    return Path(models_dir) / "diffretouch"


def model_names():
    """The bundled models, then the folders of one's own."""
    folder = own_models()
    return (
        [*BUNDLED, *sorted(path.parent.name for path in folder.glob("*/model_index.json"))] if folder else [*BUNDLED]
    )


@lru_cache(maxsize=2)
def open_model(name):
    pipe = open_pipeline(name if name in BUNDLED else own_models() / name)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def retouch_images(pipe, images, c, strength=1.0, seed=0, regions=()):
    """Retouch a batch, each photo with the noise of the same seed; alpha stays.

    Args:
        c (`dict`): attributes by name.
        regions: pairs (mask, c), the last on top; masks (H,W), (1,H,W) for all photos or (B,H,W), of any size.
    """
    if images.ndim != 4 or images.shape[3] not in (3, 4):
        raise ValueError(f"`images` must be (B,H,W,3) or (B,H,W,4), got {tuple(images.shape)}.")
    if not pipe.has_sliders and (regions or any(c.values())):
        raise ValueError(f"This model ({type(pipe).__name__}) has no sliders and no regions: leave them at 0 and off.")
    result = images.clone()
    for n, image in enumerate(images):
        photo = image[..., :3].float().cpu().clamp(0, 1).contiguous().numpy()
        call = {}
        if pipe.has_sliders:
            call = {"c": c, "generator": torch.Generator().manual_seed(seed)}
            if regions:
                call["regions"] = [(mask_of(mask, n, len(images)), own) for mask, own in regions]
        retouched = torch.from_numpy(pipe.retouch(photo, strength=strength, **call))
        result[n, ..., :3] = retouched.clamp(0, 1).to(result)
    return result


def mask_of(mask, n, photos):
    """The mask of the n-th photo, (H,W)."""
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or len(mask) not in (1, photos):
        raise ValueError(f"A mask must be one for all or one for each of {photos} images, got {tuple(mask.shape)}.")
    return mask[n if len(mask) > 1 else 0].float().cpu()
