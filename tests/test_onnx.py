"""Exported folders, used by examples/onnx_retouch.py, beside the pipelines."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from diffretouch import CSRNet, CSRNetL, CSRNetPipeline, DiffRetouchPipeline, cli, export_onnx
from diffretouch.models.unet import seen_photo
from diffretouch.pipelines.sampler import thumbnails

from .tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
PHOTOS = [ROOT / "tests" / "photos" / f"gb82_{name}-lossless.jpg" for name in ("city", "dog")]
EXAMPLE = ROOT / "examples" / "onnx_retouch.py"
_spec = importlib.util.spec_from_file_location("onnx_retouch", EXAMPLE)
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)

V = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)
PIPELINES = {
    "five tokens wide": lambda: tiny_pipeline(
        5,
        2,
        DDIMScheduler(**V),
        clipping_limit=0.01,
        noise_offset=12.0,
        attribute_signs=[1, -1, 1, 1],
        attribute_order=["brightness", "contrast", "colorfulness", "temperature"],
    ),  # fmt: skip
    "released form": lambda: tiny_pipeline(4, 1, DDIMScheduler(clip_sample=True), thumbnail="nearest"),
}


@pytest.fixture(scope="module", params=PIPELINES)
def tiny(request, tmp_path_factory):
    """A pipeline, and its folder with float32 weights as the example reads it."""
    pipe, folder = PIPELINES[request.param](), tmp_path_factory.mktemp("tiny") / "exported"
    export_onnx(pipe, folder, half=False)
    return pipe, folder, *example.load(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "exported"
    cli.app(["export", "small", "-o", str(folder)], standalone_mode=False)
    return folder


def photo(height=45, width=67, channels=3):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("c", [None, [0.3, -0.5, 0.2, 1.0]])
def test_grids_are_those_of_torch(tiny, c, steps):
    pipe, _, model, graphs = tiny
    if str(steps) not in model["schedule"]["steps"]:
        assert steps == 1 and model["schedule"]["prediction_type"] == "epsilon"
        with pytest.raises(ValueError, match="num_inference_steps"):
            pipe.predict_grid(photo(), c, num_inference_steps=steps)
        return
    noise = example.noise(3, model["latents"])
    for image in (photo(), photo(channels=1), photo(1, 9)):
        want = pipe.predict_grid(image, c, num_inference_steps=steps, latents=torch.from_numpy(noise)[None])[0]
        own = example.predict_grid(model, graphs, image, c or [np.nan if steps > 1 else 0] * 4, noise, steps)
        np.testing.assert_allclose(own, want, atol=1e-5)
        retouched = example.apply_grid(model, own, image, strip=16).astype(int)
        assert abs(retouched - pipe.apply_grid(image, want)).max() <= 1


def test_rows_of_a_batch_are_the_photos_alone(tiny):
    _, _, model, graphs = tiny
    rng, size = np.random.default_rng(2), model["thumbnail"]["size"]
    given = {
        "latents": rng.normal(size=(3, *model["latents"])).astype(np.float32),
        "thumbnail": rng.random((3, 3, size, size), np.float32),
        "c": np.float32([[0.1, 0.2, 0.3, 0.4], [np.nan] * 4, [0, 0, 0, 0]]),
    }
    t = {"timestep": np.float32([501])}
    together = graphs["denoiser"].run(None, given | t)
    for n in range(3):
        alone = graphs["denoiser"].run(None, {name: value[n : n + 1] for name, value in given.items()} | t)
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], many[n], atol=1e-5)


def test_graphs_compute_little_of_shapes(small):
    """What torch traces of a batch's size is written down: half of the nodes, which engines would load and fold."""
    for name in ("denoiser", "keep_in_range"):
        nodes = onnx.load(small / f"{name}.onnx").graph.node
        assert sum(node.op_type == "Shape" for node in nodes) <= 3, name


@pytest.mark.parametrize("outside", [slice(0), slice(8), slice(1, None), slice(None)])
@torch.no_grad()
def test_range_is_kept_as_by_the_head(tiny, outside):
    pipe, _, model, graphs = tiny
    if model["clipping_limit"] is None:
        assert set(graphs) == {"denoiser"}
        return
    torch.manual_seed(0)
    seen = seen_photo(thumbnails(pipe, [photo(), photo(20, 31)]), pipe.unet.config)
    grids = torch.randn(2, *model["grid"]) * 0.3 + torch.eye(3, 4).flatten()[:, None, None, None]
    inside = torch.ones(seen.shape[2:])
    inside[outside] = 0
    want = pipe.grid_head.keep_in_range(grids, seen, model["clipping_limit"], inside)
    assert (want - grids).abs().amax() > 0.01  # one of the photos at least would clip there
    given = {"grid": grids, "thumbnail": seen, "inside": inside.expand(2, -1, -1)}
    kept = graphs["keep_in_range"].run(None, {name: value.numpy() for name, value in given.items()})[0]
    np.testing.assert_allclose(kept, want, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**63 - 1])
def test_noise_is_that_of_torch(seed):
    want = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(seed))[0]
    np.testing.assert_allclose(example.noise(seed, (4, 32, 32)), want, atol=2e-6)


def test_the_bundled_model_without_torch(small, tmp_path):
    said = json.loads((small / "model.json").read_text())
    assert sum(path.stat().st_size for path in small.iterdir()) < 14e6
    assert said["weights"] == "float16" and len(said["null_token"][0]) == 5
    for name in said["graphs"].values():
        graph = onnx.load(small / name)
        assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 18)]
        shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.output]
        assert shapes[-1] == ["batch", 12, 8, 16, 16]
    model, graphs = example.load(small)
    pipe = DiffRetouchPipeline.from_pretrained("small")
    run = "import runpy, sys\nsys.modules.update(torch=None, diffusers=None, diffretouch=None)\n"
    run += "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    for path, c, steps in ((PHOTOS[0], [0.3, 0.0, -0.2, 0.5], 1), (PHOTOS[1], None, 8), (PHOTOS[1], None, 1)):
        picture, noise = Image.open(path), torch.Generator().manual_seed(7)
        if c is not None:
            told = [f"--{name}={value}" for name, value in zip(model["attributes"], c, strict=True)]
        else:
            told = ["--unknown"]
        command = [EXAMPLE, small, path, "-o", tmp_path / "out.png", "--seed=7", f"--steps={steps}", *told]
        subprocess.run([sys.executable, "-c", run, *map(str, command)], check=True)
        out = pipe(picture, c, num_inference_steps=steps, generator=noise)
        difference = np.asarray(Image.open(tmp_path / "out.png")).astype(int) - np.asarray(out.images[0])
        assert abs(difference).max() <= 1
        latents = example.noise(7, model["latents"])
        c = c or [np.nan if steps > 1 else 0] * 4
        own = example.predict_grid(model, graphs, np.asarray(picture), c, latents, steps)
        np.testing.assert_allclose(own, out.grids[0], atol=1e-5)


@pytest.mark.parametrize("size", [(37, 61), (3, 400), (300, 140)])
def test_csrnet(tmp_path, size):
    torch.manual_seed(0)
    pipe, image = CSRNetPipeline(CSRNet(channels=8, condition_channels=6, condition_size=32)), photo(*size)
    export_onnx(pipe, tmp_path, half=False)  # into an empty folder
    model, graphs = example.load(tmp_path)
    layers = example.colour_function(model, graphs, image)
    want = pipe.network.fold(pipe.network.condition(pipe._thumbnail(image, pipe.network))[0])
    for own, other in zip(layers, want, strict=True):
        for a, b in zip(own, other, strict=True):
            np.testing.assert_allclose(a, b.detach(), atol=1e-5)
    assert abs(example.apply_colours(layers, image, 16).astype(int) - pipe.retouch(image)).max() <= 1


def overflowing():
    pipe = CSRNetPipeline(CSRNet(condition_size=32))
    pipe.network.convs[1].weight.data[0, 0] = 1e6
    return pipe


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: "small", TypeError, "`pipeline` must be a DiffRetouchPipeline or CSRNetPipeline, got str"),
        (lambda: CSRNetPipeline(CSRNetL(condition_size=32)), ValueError, "CSRNet-L"),
        (lambda: CSRNetPipeline(CSRNet(condition_size=32, input_space="prophoto")), ValueError, "ProPhoto"),
        (lambda: tiny_pipeline(scheduler=EulerDiscreteScheduler()), ValueError, "got EulerDiscreteScheduler"),
        (
            lambda: tiny_pipeline(scheduler=DDIMScheduler(), noise_offset=3),
            ValueError,
            "`noise_offset` 3, got `clip_sa",
        ),
        (overflowing, ValueError, "overflow float16"),
    ],
)
def test_what_is_not_exported_leaves_nothing(tmp_path, make, error, said):
    with pytest.raises(error, match=said):
        export_onnx(make(), tmp_path / "exported")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="`overwrite` is False"):
        export_onnx(overflowing(), tmp_path)
    with pytest.raises(ValueError, match="got the file"):
        export_onnx(overflowing(), tmp_path / "mine.txt")
    said = export_onnx(overflowing(), tmp_path, half=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colours.onnx", "mine.txt", "model.json"]
    assert said == json.loads((tmp_path / "model.json").read_text())


def test_a_folder_that_is_not_whole(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny[1], folder)
    (folder / "denoiser.onnx").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="is not whole: denoiser.onnx"):
        example.load(folder)
    (folder / "denoiser.onnx").unlink()
    with pytest.raises(ValueError, match="is not whole: denoiser.onnx"):
        example.load(folder)
    (folder / "model.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="has format 2, this program reads 1"):
        example.load(folder)
    (folder / "model.json").unlink()
    with pytest.raises(ValueError, match="lacks model.json"):
        example.load(folder)
