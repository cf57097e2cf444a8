import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image

from diffretouch import DiffRetouchPipeline, identity_grid
from diffretouch.attributes import attribute_coordinates, attribute_labels, measure_attributes
from diffretouch.evaluation.runs import model_digest
from diffretouch.metrics import delta_e76
from diffretouch.models.unet import seen_photo
from diffretouch.pipelines.sampler import spaced_timesteps, thumbnails

from .tiny import one_step_pipeline, tiny_pipeline

SCHEDULE = Path(__file__).parent / "golden/diffretouch/schedule.json"
PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def photo(height=20, width=30, batch=1, seed=0):
    return 0.2 + 0.6 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_form_of_a_photo_gives_the_same(pipe):
    pixels = (photo()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = pipe(tensor, generator=seeded(), output_type="pt").images
    forms = [
        pixels,
        pixels[None],
        pixels.astype(np.uint16) * 257,
        pixels.astype(np.float32) / 255,
        pixels.astype(np.float64) / 255,
        np.ascontiguousarray(pixels[::-1])[::-1],
        Image.fromarray(pixels),
        [Image.fromarray(pixels)],
        tensor[None],
    ]
    for form in forms:
        out = pipe(form, generator=seeded(), output_type="pt")
        torch.testing.assert_close(out.images, expected, atol=2e-5, rtol=0)
    as_np = pipe(pixels, generator=seeded(), output_type="np").images
    np.testing.assert_allclose(as_np, expected.permute(0, 2, 3, 1).numpy(), atol=2e-5)
    as_pil = pipe(pixels, generator=seeded()).images
    assert np.abs(np.asarray(as_pil[0]).astype(int) - np.round(as_np[0] * 255)).max() <= 1


def test_output(pipe):
    out = pipe(photo(batch=2), [0.1, 0, 0, 0], num_samples=3, generator=seeded())
    assert len(out.images) == 6 and out.images[0].size == (30, 20)
    assert out.grids.shape == (6, 12, 4, 4, 4) and out.c.shape == (6, 4)
    images, grids, c = pipe(photo(), generator=seeded(), return_dict=False, output_type="np")
    assert images.shape == (1, 20, 30, 3) and 0 <= images.min() and images.max() <= 1
    mixed = pipe([photo(4, 9), photo(1, 1), photo(300, 7)], generator=seeded(), output_type="pt").images
    assert [tuple(i.shape) for i in mixed] == [(3, 4, 9), (3, 1, 1), (3, 300, 7)]


@pytest.mark.parametrize("fold", [1, 2])
def test_clipping_limit(fold, tmp_path):
    free, kept = tiny_pipeline(fold=fold), tiny_pipeline(fold=fold, clipping_limit=0.01)
    for pipe in (free, kept):
        torch.nn.init.constant_(pipe.grid_head.prediction2.bias, 0.4)  # far too light
    photos, c = photo(64, 64, batch=2), [0.2, 0, 0, 0.5]
    grids = free.predict_grid(photos, c, generator=seeded())
    seen = seen_photo(thumbnails(free, list(photos)), free.unet.config)
    assert seen.shape == (2, 3, 8 * fold, 8 * fold)
    wanted = free.grid_head.keep_in_range(grids, seen, 0.01)
    assert (free.grid_head.apply(grids, photos) > 1).any(1).float().mean() > 0.5
    assert (free.grid_head.apply(wanted, seen) > 1).any(1).float().mean() < 0.03
    torch.testing.assert_close(kept.predict_grid(photos, c, generator=seeded()), wanted)
    regions = [(torch.ones(64, 64) * 0.5, [0, 0, 0, 1])]
    layers = kept.predict_grid(photos, regions=regions, generator=seeded())
    torch.testing.assert_close(layers[:, 0], kept.predict_grid(photos, generator=seeded()))
    kept.save_pretrained(tmp_path)
    assert DiffRetouchPipeline.from_pretrained(tmp_path).config.clipping_limit == 0.01
    for limit in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match="`clipping_limit`"):
            tiny_pipeline(clipping_limit=limit)


def test_seeds_and_batches(pipe):
    one = lambda s, image=None: pipe.predict_grid(photo() if image is None else image, generator=seeded(s))  # noqa: E731
    assert torch.equal(one(1), one(1))
    assert not torch.equal(one(1), one(2))
    both = pipe.predict_grid(photo(batch=1), num_samples=2, generator=[seeded(1), seeded(2)])
    torch.testing.assert_close(both, torch.cat([one(1), one(2)]))
    two = photo(batch=2)
    batch = pipe.predict_grid(two, generator=[seeded(1), seeded(2)])
    torch.testing.assert_close(batch, torch.cat([one(1, two[:1]), one(2, two[1:])]))


def test_noise_of_stochastic_schedulers_is_seeded_too():
    pipe = tiny_pipeline(scheduler=DDPMScheduler(clip_sample=False))
    image = photo()
    assert torch.equal(pipe.predict_grid(image, generator=seeded(3)), pipe.predict_grid(image, generator=seeded(3)))
    both = pipe.predict_grid(image, num_samples=2, generator=[seeded(1), seeded(2)])
    torch.testing.assert_close(both[1:], pipe.predict_grid(image, generator=seeded(2)))


def test_one_photo_many_c(pipe):
    c = torch.tensor([[0.0, 0, 0, -1], [0, 0, 0, 1]])
    latents = torch.randn(1, 4, 8, 8)
    grids = pipe.predict_grid(photo(), c, latents=latents.expand(2, -1, -1, -1))
    for row, grid in zip(c, grids, strict=True):
        torch.testing.assert_close(pipe.predict_grid(photo(), row, latents=latents)[0], grid)


@pytest.mark.parametrize("tokens, fold", [(4, 1), (8, 1), (8, 2)])
def test_c_steers(tokens, fold):
    pipe = tiny_pipeline(tokens, fold)
    base = pipe.predict_grid(photo(), generator=seeded())
    for i in range(4):
        moved = pipe.predict_grid(photo(), [float(i == j) for j in range(4)], generator=seeded())
        assert (moved - base).abs().max() > 1e-6


def test_strength_is_an_exact_lerp(pipe):
    image = photo()
    full = pipe(image, generator=seeded(), output_type="pt").images
    assert (full - image).abs().max() > 0.01
    for strength in (0, 0.25, 1):
        out = pipe(image, strength=strength, generator=seeded(), output_type="pt").images
        torch.testing.assert_close(out, torch.lerp(image, full, float(strength)), atol=2e-6, rtol=0)
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(np.asarray(pipe(pixels, strength=0).images[0]), pixels)


def test_apply_grid_returns_what_it_was_given(pipe, tmp_path):
    image = photo()
    grid = pipe.predict_grid(image, generator=seeded())
    expected = pipe(image, generator=seeded(), output_type="pt").images
    applied = pipe.apply_grid(image, grid)
    assert applied.shape == image.shape
    torch.testing.assert_close(applied.clamp(0, 1), expected)
    pixels = (image[0].permute(1, 2, 0).numpy() * 65535).round().astype(np.uint16)
    result = pipe.apply_grid(pixels, grid[0])
    assert result.dtype == np.uint16 and result.shape == pixels.shape
    assert np.abs(result / 65535 - expected[0].permute(1, 2, 0).numpy()).max() < 2e-5
    assert isinstance(pipe.apply_grid(Image.fromarray(np.uint8(pixels // 257)), grid), Image.Image)
    on_disk = np.memmap(tmp_path / "photo", np.uint16, "w+", shape=pixels.shape)
    pipe.apply_grid(pixels, grid, out=on_disk)
    assert np.array_equal(on_disk, result)
    with pytest.raises(ValueError, match="`out`"):
        pipe.apply_grid(image, grid, out=torch.empty_like(image))
    wide = np.linspace(-0.2, 1.2, 30, dtype=np.float32).reshape(1, 10, 3)
    np.testing.assert_allclose(pipe.apply_grid(wide, identity_grid()), wide, atol=1e-5)  # floats are not clipped


@pytest.mark.parametrize("thumbnail", ["area", "nearest"])
def test_thumbnail_of_a_huge_photo(thumbnail):
    pipe = tiny_pipeline(thumbnail=thumbnail)
    small = np.random.default_rng(0).integers(40, 200, (41, 60, 3)).astype(np.uint8)
    huge = np.asarray(Image.fromarray(small).resize((6000, 4100), Image.Resampling.BICUBIC))
    tensor = torch.from_numpy(huge.copy()).permute(2, 0, 1) / 255
    # skipping pixels beforehand must not show; "nearest" picks the same pixels to the letter
    tolerance = 0 if thumbnail == "nearest" else 0.02
    assert (thumbnails(pipe, [huge]) - thumbnails(pipe, [tensor])).abs().max() <= tolerance


@pytest.mark.parametrize("kind", [DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, DDIMScheduler])
@pytest.mark.parametrize("timestep_range", [None, (200, 999)])
def test_any_scheduler(kind, timestep_range):
    pipe = tiny_pipeline(scheduler=kind(), timestep_range=timestep_range)
    seen = []
    grids = pipe(
        photo(), num_inference_steps=5, generator=seeded(), callback_on_step_end=lambda p, i, t, k: seen.append(int(t))
    ).grids
    assert grids.isfinite().all() and len(seen) == 5
    if timestep_range and kind is DDPMScheduler:
        assert seen == [999, 799, 600, 400, 200]


def test_released_timesteps():
    expected = json.loads(SCHEDULE.read_text())["timesteps_by_steps"]
    for steps, timesteps in expected.items():
        assert spaced_timesteps(int(steps)) == timesteps
    assert spaced_timesteps(1) == [999]
    with pytest.raises(ValueError, match="at most 800"):
        spaced_timesteps(801)


def test_grid_head_runs_once_and_on_the_last_call(pipe):
    calls, outputs = [], []
    hooks = [
        pipe.grid_head.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0])),
        pipe.unet.register_forward_hook(lambda module, inputs, output: outputs.append(output.sample[:, 4:])),
    ]
    pipe.predict_grid(photo(), num_inference_steps=4, generator=seeded())
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 4 and len(calls) == 1 and torch.equal(calls[0], outputs[-1])


def test_callback(pipe):
    steps = []

    def callback(pipeline, step, timestep, tensors):
        steps.append((step, int(timestep), tensors["latents"].shape))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 0 else None

    changed = pipe(photo(), num_inference_steps=3, generator=seeded(), callback_on_step_end=callback).grids
    assert [s[0] for s in steps] == [0, 1, 2] and steps[0][2] == (1, 4, 8, 8)
    assert not torch.equal(changed, pipe.predict_grid(photo(), num_inference_steps=3, generator=seeded()))

    def broken(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        pipe(photo(), callback_on_step_end=broken)
    pipe(photo())


@pytest.mark.parametrize(
    "given, error, words",
    [
        (5, TypeError, "`callback_on_step_end` must be callable"),
        (lambda *_: 5, TypeError, "`callback_on_step_end` must return a dict or None, got int"),
        (lambda *_: {"latents": 5}, TypeError, "`latents` must be a float tensor"),
        (lambda *_: {"latents": torch.zeros(1)}, ValueError, r"`latents` must have shape \(1, 4, 8, 8\)"),
        (lambda *_: {"latents": torch.full((1, 4, 8, 8), torch.nan)}, ValueError, "`latents` must be finite"),
    ],
)
def test_bad_callbacks(pipe, given, error, words):
    with pytest.raises(error, match=words):
        pipe(photo(), callback_on_step_end=given)


@pytest.mark.parametrize("names", [5, None, "latents"])
def test_bad_tensor_inputs(pipe, names):
    with pytest.raises(TypeError, match="`callback_on_step_end_tensor_inputs` must be a list of names"):
        pipe(photo(), callback_on_step_end_tensor_inputs=names)


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda grid: None, TypeError, "`grid` must be floats"),
        (lambda grid: grid.tolist(), TypeError, "`grid` must be floats"),
        (lambda grid: grid.long(), TypeError, "`grid` must be floats"),
        (lambda grid: grid[:, :11], ValueError, "`grid` must have shape"),
        (lambda grid: grid * torch.nan, ValueError, "`grid` must be finite"),
        (lambda grid: (grid * torch.inf).numpy(), ValueError, "`grid` must be finite"),
    ],
)
def test_bad_grids(pipe, change, error, words):
    grid = change(pipe.predict_grid(photo()))
    for image in (photo(), torch.rand(3, 6, 7), np.random.rand(6, 7, 3).astype(np.float32)):
        with pytest.raises(error, match=words):
            pipe.apply_grid(image, grid)


def test_grids_may_be_arrays(pipe):
    grid, tensor = pipe.predict_grid(photo()), torch.rand(3, 6, 7)
    assert torch.allclose(pipe.apply_grid(tensor, grid.numpy()), pipe.apply_grid(tensor, grid), atol=1e-5)


def test_order_and_signs_are_those_of_the_weights():
    released = ("colorfulness", "brightness", "contrast", "temperature")
    pipe = tiny_pipeline(4, attribute_order=released, attribute_signs=(1, 1, 1, -1))
    seen = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    pipe.predict_grid(photo(), [0.1, 0.2, 0.3, 0.4])
    hook.remove()
    torch.testing.assert_close(seen[0], torch.tensor([[[0.1, 0.4, 0.2, -0.3]]]))


def test_unknown_attributes_are_not_the_usual_finish(pipe):
    """c = None is a token of its own, and several samples of it take the model's own number of steps."""
    image = photo(64, 64)
    unknown, usual = (pipe(image, c, generator=seeded(0), output_type="pt") for c in (None, [0.0] * 4))
    assert unknown.c.isnan().all() and not usual.c.any()
    assert not torch.equal(unknown.grids, usual.grids)
    four = tiny_pipeline(sampling_steps=3)
    steps = []
    for c, number in ((None, 2), (None, 1), ([0] * 4, 2)):
        four(image, c, num_samples=number, callback_on_step_end=lambda _, step, *__: steps.append(step))
    assert steps == [0, 1, 2, 0, 1, 0, 1]
    released = tiny_pipeline(tokens=4)  # its weights know nothing unknown
    assert not released(image).c.any()


def test_one_step_of_unknown_attributes_is_the_usual_finish():
    """One step draws no style, only the mean of all, which c = 0 is trained to be."""
    pipe, image = one_step_pipeline(sampling_steps=3), photo(64, 64)
    pipe.register_to_config(default_steps=1)
    run = lambda c=None, **call: pipe(image, c, generator=seeded(), output_type="pt", **call)  # noqa: E731
    none, usual = run(), run([0] * 4)
    assert torch.equal(none.c, torch.zeros(1, 4)) and torch.equal(none.grids, usual.grids)
    assert torch.equal(none.images, usual.images)
    assert torch.equal(pipe.predict_grid(image, generator=seeded()), none.grids)
    unknown = run(num_inference_steps=8)
    assert unknown.c.isnan().all() and not torch.equal(unknown.grids, run([0] * 4, num_inference_steps=8).grids)
    assert run(num_samples=2).c.isnan().all()  # in the model's steps for samples
    assert not run(num_samples=2, num_inference_steps=1).c.any()
    half, full = torch.ones(64, 64) / 2, torch.ones(64, 64)
    for steps, is_zero in ((1, True), (3, False)):
        layers = run(regions=[(half, None)], num_inference_steps=steps)
        assert layers.c.shape == (1, 2, 4) and layers.c.isfinite().all() == is_zero == (not layers.c.any())
        hidden = pipe(image, [[0.5] * 4] * 2, regions=[(full, None)], num_inference_steps=steps, output_type="pt").c
        assert hidden.shape == (2, 1, 4) and hidden.isfinite().all() == is_zero == (not hidden.any())


def test_noise_offset_stays_with_the_model(tmp_path):
    tiny_pipeline(noise_offset=12).save_pretrained(tmp_path)
    again = DiffRetouchPipeline.from_pretrained(tmp_path)
    assert again.config.noise_offset == 12
    index = tmp_path / "model_index.json"
    said = json.loads(index.read_text())
    assert said.pop("noise_offset") == 12.0
    index.write_text(json.dumps(said))  # as before there were offsets
    before = DiffRetouchPipeline.from_pretrained(tmp_path)
    assert before.config.noise_offset == 0 == tiny_pipeline().config.noise_offset
    grids = [one.predict_grid(photo(), [0] * 4, generator=seeded()) for one in (again, before)]
    assert (grids[0] - grids[1]).abs().max() > 1e-3
    assert model_digest(again) != model_digest(before)


def test_attributes_of_its_own_result(pipe):
    image = photo(64, 64)
    assert pipe.attributes_of(image, image).shape == (4,)
    own = pipe(image, c=[0] * 4, generator=seeded(0), output_type="pt").images
    torch.testing.assert_close(pipe.attributes_of(image, own, generator=seeded(0)), torch.zeros(4), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="`reference` must be one photo, got 2"):
        pipe.attributes_of(image, photo(batch=2))
    for limit in (4, 0, float("nan"), "1", None):
        with pytest.raises(ValueError, match="`limit`"):
            pipe.attributes_of(image, image, limit=limit)
    with pytest.raises(TypeError, match="`reference` must be a PIL image"):
        pipe.attributes_of(image, None)


def test_attributes_of_another_version_and_of_another_photo():
    small = DiffRetouchPipeline.from_pretrained("small")
    small.set_progress_bar_config(disable=True)
    image, other = (Image.open(PHOTOS / f"gb82_{name}-lossless.jpg") for name in ("city", "flowers"))
    wanted = torch.tensor([0.6, -0.5, 0.7, -0.4])
    finished = small(image, wanted, generator=seeded(3), output_type="pt").images
    found = small.attributes_of(image, finished, generator=seeded(3))
    torch.testing.assert_close(found, wanted, atol=0.15, rtol=0)  # c near where the scores led is preferred
    again = small(image, found, generator=seeded(3), output_type="pt").images
    assert delta_e76(again, finished).item() < 0.8
    result = small(image, small.attributes_of(image, other), generator=seeded(0), output_type="pt").images
    automatic = small(image, generator=seeded(0), output_type="pt").images
    reference = torch.from_numpy(np.asarray(other, np.float32) / 255).permute(2, 0, 1)[None]
    reached, before = (
        attribute_labels(measure_attributes(x)[:, None], measure_attributes(reference), limit=9.0).abs().max()
        for x in (result, automatic)
    )
    assert reached < 0.5 * before  # by the scores alone


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["grid_head"] == ["diffretouch.models.affine_grid", "AffineGridHead"]
    loaded = DiffRetouchPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert all(loaded.config[name] == pipe.config[name] for name in pipe.config if not name.startswith("_"))
    assert torch.equal(
        loaded.predict_grid(photo(), generator=seeded()), pipe.predict_grid(photo(), generator=seeded())
    )


def test_half_precision_weights(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    half = DiffRetouchPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    out = half(photo(), generator=seeded(), output_type="pt")
    assert out.images.dtype == torch.float32
    assert (out.images - pipe(photo(), generator=seeded(), output_type="pt").images).abs().max() < 0.05


def _truncate(folder):
    weights = next(folder.glob("unet/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])


def _as_pickle(folder):
    weights = next(folder.glob("unet/*.safetensors"))
    torch.save(tiny_pipeline().unet.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()


def _other_library(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["grid_head"] = ["subprocess", "Popen"]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _as_pickle,
        _other_library,
        lambda folder: next(folder.glob("unet/*.safetensors")).write_bytes(b""),
        lambda folder: next(folder.glob("grid_head/*.safetensors")).unlink(),
        lambda folder: (folder / "model_index.json").unlink(),
        lambda folder: (folder / "model_index.json").write_text("{"),
    ],
)
def test_broken_models_end_in_one_sentence(pipe, tmp_path, damage):
    pipe.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match="`name`") as caught:
        DiffRetouchPipeline.from_pretrained(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_file_points_to_the_converter(tmp_path):
    (tmp_path / "adobe.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="diffretouch convert"):
        DiffRetouchPipeline.from_pretrained(tmp_path / "adobe.ckpt")


def test_hub_id_from_the_cache(pipe, tmp_path):
    repository = tmp_path / "models--owner--retoucher"
    pipe.save_pretrained(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    loaded = DiffRetouchPipeline.from_pretrained("owner/retoucher", cache_dir=tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(*(p.predict_grid(photo(), generator=seeded()) for p in (loaded, pipe)))
    with pytest.raises(OSError, match="`name`"):
        DiffRetouchPipeline.from_pretrained("owner/other", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize("name, error", [("no-such-owner/no-such-model", OSError), ("not a/valid id!", ValueError)])
def test_unknown_hub_id_offline(name, error, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match="`name`") as caught:
        DiffRetouchPipeline.from_pretrained(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"strength": -0.1}, "`strength`"),
        ({"strength": 2.1}, "`strength`"),
        ({"strength": float("nan")}, "`strength`"),
        ({"strength": "1"}, "`strength`"),
        ({"num_inference_steps": 0}, "`num_inference_steps`"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps`"),
        ({"num_inference_steps": 1001}, "`num_inference_steps`"),
        ({"num_samples": 0}, "`num_samples`"),
        ({"output_type": "jpeg"}, "`output_type`"),
        ({"latents": torch.zeros(1, 4, 9, 8)}, "`latents`"),
        ({"generator": [torch.Generator()] * 2}, "`generator`"),
        ({"c": [0, 0, 0]}, "`c`"),
        ({"c": {"exposure": 1}}, "`c`"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "`callback_on_step_end_tensor_inputs`"),
    ],
)
def test_bad_arguments(pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        pipe(photo(), **arguments)


def test_c_must_match_the_photos(pipe):
    with pytest.raises(ValueError, match="1 or 2 rows"):
        pipe(photo(batch=2), torch.zeros(3, 4))


@pytest.mark.parametrize(
    "config",
    [
        {"attribute_order": ("brightness",) * 4},
        {"attribute_signs": (1, 1, 1, 0)},
        {"attribute_scales": (1.0,)},
        {"attribute_scales": (1.0, 1.0, 0.0, 1.0)},
        {"thumbnail": "bicubic"},
        {"timestep_range": (900, 100)},
        {"timestep_range": (0.5, 1)},
        {"timestep_range": (200,)},
        {"sampling_steps": 2.5},
        {"sampling_steps": -1},
        {"noise_offset": -0.1},
        {"noise_offset": 1001},
        {"noise_offset": float("inf")},
        {"noise_offset": float("nan")},
        {"noise_offset": "12"},
        {"noise_offset": True},
        {"noise_offset": None},
    ],
)
def test_bad_config(config):
    with pytest.raises(ValueError, match=f"`{next(iter(config))}`"):
        tiny_pipeline(**config)


def test_broken_weights_are_told(pipe):
    broken = tiny_pipeline()
    torch.nn.init.constant_(broken.unet.conv_out.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        broken(photo())


def test_bundled_model_retouches_a_photo():
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    with Image.open(PHOTOS / "gb82_dog-lossless.jpg") as image:
        dull = Image.fromarray((np.asarray(image.convert("RGB")) * 0.5 + 20).astype(np.uint8))
    darker, plain, brighter = (
        np.asarray(pipe(dull, {"brightness": b}, generator=seeded()).images[0]).mean() for b in (-1, 0, 1)
    )
    assert darker + 20 < plain < brighter - 20
    assert plain > np.asarray(dull).mean() + 5
    assert sum(p.numel() for p in pipe.unet.parameters()) < 20e6


def test_each_slider_of_the_bundled_model_moves_its_own_attribute_the_right_way():
    """From -1 to 1, in units of c, on photos that are finished as they are: no slider is dead, none runs backwards."""
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 32, 32, generator=seeded()).expand(8, -1, -1, -1)
    ends = torch.eye(4).repeat_interleave(2, 0) * torch.tensor([-1.0, 1.0]).repeat(4)[:, None]
    moved = []
    for path in sorted(PHOTOS.glob("gb82_*.jpg")):
        with Image.open(path) as image:
            photo = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        grids = pipe.predict_grid(photo, ends, latents=noise)
        scores = torch.cat([measure_attributes(pipe.apply_grid(photo, grid).clamp(0, 1)) for grid in grids])
        scores = attribute_coordinates(scores)
        moved.append((scores[1::2] - scores[::2]).diagonal() / torch.tensor(pipe.config.attribute_scales))
    moved = torch.stack(moved)  # (photos,4)
    assert moved.min() > 0.3 and moved.mean(0).min() > 0.7, moved


@pytest.mark.parametrize("form", [np.uint8, np.uint16, np.float32, "tensor"])
def test_monochrome_stays_monochrome(form):
    pipe = DiffRetouchPipeline.from_pretrained("small")
    rows, columns = np.mgrid[0:90, 0:130] / 90
    grey = (0.45 + 0.3 * np.sin(5 * columns) * np.cos(4 * rows))[..., None].repeat(3, 2)
    if form == "tensor":
        photo = torch.from_numpy(grey).permute(2, 0, 1).float()
    else:
        photo = (grey * (1 if form == np.float32 else np.iinfo(form).max)).astype(form)
    result = pipe.retouch(photo, [0.5, 0.5, 1.0, 0.5], generator=torch.Generator().manual_seed(0))
    result = result.permute(1, 2, 0).numpy() if form == "tensor" else result
    assert np.abs(result.astype(float) - photo_as(photo)).max() > 0 and np.ptp(result, axis=2).max() == 0


def photo_as(photo):
    return photo.permute(1, 2, 0).numpy().astype(float) if torch.is_tensor(photo) else photo.astype(float)
