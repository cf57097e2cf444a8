"""The nodes for ComfyUI: what they do with real pipelines, and that ComfyUI's own classes take them as they are."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from diffretouch import ATTRIBUTES, CSRNetPipeline

from .tiny import tiny_pipeline

FOLDER = Path(__file__).parents[1] / "examples" / "comfyui"
C = dict(zip(ATTRIBUTES, (0.5, -0.2, 0.3, 0.8), strict=True))


def opened(name, file):
    """A module of the folder, or the folder, as ComfyUI opens what lies in custom_nodes."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / file, submodule_search_locations=[str(FOLDER)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


retouching = opened("comfyui_retouching", "retouching.py")


def images(count=2, channels=3):
    return torch.rand(count, 20, 31, channels, generator=torch.Generator().manual_seed(1))


def alone(pipe, image, regions=None, strength=1.0):
    noise = torch.Generator().manual_seed(7)
    retouched = pipe.retouch(image[..., :3].numpy(), C, regions=regions, strength=strength, generator=noise)
    return torch.from_numpy(retouched).clamp(0, 1)


def test_a_batch_is_each_photo_alone():
    pipe, batch = tiny_pipeline(), images(channels=4)
    before = batch.clone()
    result = retouching.retouch_images(pipe, batch, C, 0.7, 7)
    assert result.shape == batch.shape and torch.equal(result[..., 3], batch[..., 3]) and torch.equal(batch, before)
    for image, retouched in zip(batch, result, strict=True):
        torch.testing.assert_close(retouched[..., :3], alone(pipe, image, strength=0.7))
    assert not torch.allclose(result, batch, atol=1e-3)
    torch.testing.assert_close(retouching.retouch_images(pipe, batch, C, 0.0, 7), batch)


def test_masks_are_regions_for_all_or_each():
    pipe, batch = tiny_pipeline(), images()
    masks = torch.zeros(2, 20, 31)
    masks[0, :10], masks[1, :, 15:] = 1, 0.5
    own = {"brightness": -1.0}
    result = retouching.retouch_images(pipe, batch, C, 1.0, 7, [(masks, own)])
    for image, mask, retouched in zip(batch, masks, result, strict=True):
        torch.testing.assert_close(retouched, alone(pipe, image, [(mask, own)]))
    for mask in (masks[:1], masks[0]):
        shared = retouching.retouch_images(pipe, batch, C, 1.0, 7, [(mask, own)])
        torch.testing.assert_close(shared[1], alone(pipe, batch[1], [(masks[0], own)]))


def test_bad_input():
    pipe, none = tiny_pipeline(), dict.fromkeys(ATTRIBUTES, 0.0)
    with pytest.raises(ValueError, match=r"`images` must be \(B,H,W,3\)"):
        retouching.retouch_images(pipe, images()[0], C)
    with pytest.raises(ValueError, match="one for each of 2 images, got"):
        retouching.retouch_images(pipe, images(), C, regions=[(torch.ones(3, 20, 31), C)])
    csrnet = CSRNetPipeline.from_pretrained("small")
    assert retouching.retouch_images(csrnet, images(1), none).shape == (1, 20, 31, 3)
    for c, regions in ((C, ()), (none, [(torch.ones(20, 31), C)])):
        with pytest.raises(ValueError, match="CSRNetPipeline.* has no sliders"):
            retouching.retouch_images(csrnet, images(), c, regions=regions)


def test_comfyui_takes_the_nodes():
    pytest.importorskip("comfy_api.latest", reason="ComfyUI is not installed (put its folder on PYTHONPATH)")
    package = opened("diffretouch_comfyui", "__init__.py")
    photo, region = asyncio.run(asyncio.run(package.comfy_entrypoint()).get_node_list())
    inputs = photo.INPUT_TYPES()
    assert list(inputs["required"]) == ["image", "model", *ATTRIBUTES, "strength", "seed"]
    assert list(inputs["optional"]) == ["regions"] and photo.RETURN_TYPES == ["IMAGE"]
    assert inputs["required"]["brightness"][1]["min"] == -1 and region.RETURN_TYPES == ["DIFFRETOUCH_REGIONS"]
    zeros = dict.fromkeys(ATTRIBUTES, 0.0)
    (retouched,) = photo.EXECUTE_NORMALIZED(image=images(), model="csrnet", strength=1.0, seed=0, **zeros).result
    assert retouched.shape == (2, 20, 31, 3)
    mask = torch.zeros(1, 20, 31)
    mask[:, 10:] = 1
    (regions,) = region.EXECUTE_NORMALIZED(mask=mask, **{**zeros, "brightness": 1.0}).result
    (regions,) = region.EXECUTE_NORMALIZED(mask=1 - mask, below=regions, **C).result
    said = {"image": images(1), "model": "small", "strength": 1.0, "seed": 3, **zeros}
    plain, both = (photo.EXECUTE_NORMALIZED(**said, **more).result[0] for more in ({}, {"regions": regions}))
    assert both[0, 12:].mean() > plain[0, 12:].mean() + 0.02
