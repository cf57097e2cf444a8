import threading

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import DiffRetouchPipeline
from diffretouch.models.unet import with_offset
from diffretouch.pipelines import sampler
from diffretouch.pipelines.sampler import SCHEDULERS, check_generator, check_latents, check_scheduler, own_scheduler

from .test_pipeline_diffretouch import PHOTOS, photo, seeded
from .tiny import tiny_pipeline


@pytest.mark.parametrize("scheduler", [None, diffusers.DPMSolverMultistepScheduler])
def test_two_threads_on_one_pipeline(scheduler):
    """A scheduler keeps the state of a run: each run has its own."""
    pipe = tiny_pipeline(scheduler=scheduler and scheduler())
    image, steps = photo(), (3, 7)
    alone = {n: pipe.predict_grid(image, num_inference_steps=n, generator=seeded(n)) for n in steps}
    wrong = []

    def run(n):
        for _ in range(6):
            grid = pipe.predict_grid(image, num_inference_steps=n, generator=seeded(n))
            if not torch.equal(grid, alone[n]):
                wrong.append(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_global_random_state_is_drawn_from_as_everywhere_in_torch():
    pipe, image = tiny_pipeline(), photo()
    region = [(torch.eye(20), [0.3, 0, 0, 0])]
    calls = [
        lambda: pipe.predict_grid(image),
        lambda: pipe.predict_grid(image, regions=region),
        lambda: pipe.sliders(image).grid(),
        lambda: pipe.preview(image) and pipe.predict_grid(image),
    ]
    for call in calls:
        results = []
        for _ in range(2):
            torch.manual_seed(5)
            results.append((call(), torch.rand(1)))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    pipe.predict_grid(image, generator=seeded())
    pipe.sliders(image, generator=seeded())
    pipe.attributes_of(image, image, iterations=1)
    assert torch.equal(torch.rand(1), expected)  # with a generator of the caller's, nothing is drawn


def test_schedulers_make_the_picture_of_ddim():
    """Deterministic ones within 3 levels of 255 of it at 8 steps, stochastic ones a picture like it."""
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    config, pictures = pipe.scheduler.config, {}
    for name in SCHEDULERS:
        pipe.scheduler = getattr(diffusers, name).from_config(config)
        image = Image.open(PHOTOS / "gb82_city-lossless.jpg")
        out = pipe(image, c=[0] * 4, num_inference_steps=8, generator=seeded(), output_type="np")
        pictures[name] = out.images[0] * 255
    for name, picture in pictures.items():
        most = 12 if name in ("DDPMScheduler", "EulerAncestralDiscreteScheduler") else 3
        assert np.abs(picture - pictures["DDIMScheduler"]).mean() < most, name


@pytest.mark.parametrize("name", ["DDIM", "DPMSolverMultistep", "EulerDiscrete", "UniPCMultistep"])
def test_outside_of_the_network_all_is_white_noise(name):
    """A run over white noise is that of the network itself over the noise it knows: both are one linear map apart."""
    config = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    config |= {"clip_sample": False} if name == "DDIM" else {}
    scheduler = getattr(diffusers, f"{name}Scheduler")(**config)
    white, own = (tiny_pipeline(scheduler=scheduler, noise_offset=offset) for offset in (12, 0))
    latents, seen = torch.randn(2, 4, 8, 8, generator=seeded()), {"white": [], "own": []}

    def keep(kind):
        return lambda pipe, step, t, tensors: seen[kind].append(tensors["latents"]) or {}

    call = {"c": [0.3, -0.5, 0.2, 0.9], "num_samples": 2, "num_inference_steps": 4, "output_type": "pt"}
    wanted = own(photo(), latents=with_offset(latents, 12), callback_on_step_end=keep("own"), **call)
    made = white(photo(), latents=latents, callback_on_step_end=keep("white"), **call)
    torch.testing.assert_close(made.grids, wanted.grids, atol=1e-5, rtol=1e-5)
    for x, y in zip(seen["white"], seen["own"], strict=True):
        torch.testing.assert_close(with_offset(x, 12), y, atol=1e-4, rtol=1e-4)
    assert (own(photo(), latents=latents, **call).grids - made.grids).abs().max() > 1e-3


@pytest.mark.parametrize("limit", ["clip_sample", "thresholding"])
def test_a_scheduler_that_limits_latents_is_refused_with_an_offset(limit):
    config = {"timestep_spacing": "trailing", "clip_sample": False} | {limit: True}
    scheduler = diffusers.DDIMScheduler(**config)
    with pytest.raises(ValueError, match=f"`scheduler` must not limit latents with `noise_offset` 12, got `{limit}`"):
        tiny_pipeline(scheduler=scheduler, noise_offset=12)(photo(), [0] * 4)
    tiny_pipeline(scheduler=scheduler)(photo(), [0] * 4)


@pytest.mark.parametrize("steps", [1, 3])
def test_decoded_latents_are_those_of_the_network(autoencoder, steps):
    """Of a model without a grid head: what its autoencoder decodes has the mean that the network gave it."""
    vae = diffusers.AutoencoderKL.from_pretrained(autoencoder)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    parts = {"grid_head": None, "vae": vae}
    white, own = (
        DiffRetouchPipeline(**tiny_pipeline(scheduler=scheduler).components | parts, noise_offset=offset)
        for offset in (12, 0)
    )
    latents, call = torch.randn(1, 4, 8, 8, generator=seeded()), {"c": [0.1] * 4, "num_inference_steps": steps}
    wanted = own.predict_grid(photo(), latents=with_offset(latents, 12), **call)
    torch.testing.assert_close(white.predict_grid(photo(), latents=latents, **call), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "PNDMScheduler", "EDMEulerScheduler"])
def test_other_schedulers_are_refused(name):
    pipe = tiny_pipeline()
    pipe.scheduler = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=f"`scheduler` must be one of DDIMScheduler.*got {name}"):
        pipe(photo())
    check_scheduler(diffusers.DDIMScheduler())


@pytest.mark.parametrize("generator", [0, 7, (seeded(),), "seed", [seeded(), 0]])
def test_generators_are_named(generator):
    with pytest.raises(TypeError, match="`generator`"):
        tiny_pipeline()(photo(), generator=generator)
    with pytest.raises(ValueError, match="`generator` must be one or a list of 3, got 1"):
        check_generator([seeded()], 3)


def test_latents_are_named():
    shape = (1, 4, 8, 8)
    check_latents(torch.zeros(shape), shape)
    bad = torch.zeros(shape)
    bad[0, 0, 0, 0] = torch.nan
    for latents, error in ((bad, ValueError), (torch.zeros(2, 4, 8, 8), ValueError), ([0.0], TypeError)):
        with pytest.raises(error, match="`latents`"):
            tiny_pipeline()(photo(), latents=latents)


def test_inputs_are_checked_before_any_work(monkeypatch):
    pipe = tiny_pipeline()
    monkeypatch.setattr(sampler, "denoise", lambda *_, **__: pytest.fail("the UNet was run"))
    monkeypatch.setattr(sampler, "unet_thumbnail", lambda *_, **__: pytest.fail("the photo was looked at"))
    bad = [
        {"c": [9, 0, 0, 0]}, {"strength": 3}, {"output_type": "jpg"}, {"batch_size": 0}, {"num_samples": 0},
        {"generator": [seeded()] * 3}, {"latents": torch.zeros(1)}, {"regions": [1]},
        {"callback_on_step_end_tensor_inputs": ["noise"]}, {"num_inference_steps": 0},
    ]  # fmt: skip
    for arguments in bad:
        with pytest.raises((ValueError, TypeError), match=f"`.*{next(iter(arguments))[:6]}"):
            pipe(photo(), **arguments)
    for call in (pipe.retouch, pipe.preview):
        for arguments in ({"strength": 3}, {"c": torch.zeros(2, 4)}, {"num_inference_steps": 0}, {"generator": 5}):
            with pytest.raises((ValueError, TypeError), match=f"`{next(iter(arguments))}`"):
                call(photo(), **arguments)


def test_batch_size_bounds_the_rows_of_a_call():
    pipe, rows = tiny_pipeline(), []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    images, noise = photo(batch=3), torch.randn(6, 4, 8, 8, generator=seeded())
    whole = pipe.predict_grid(images, num_samples=2, latents=noise)
    parts = pipe.predict_grid(images, num_samples=2, latents=noise, batch_size=4)
    hook.remove()
    assert rows == [6, 6, 4, 2, 4, 2]
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_pure_noise_enters_where_it_belongs():
    """Stable Diffusion's "leading" spacing starts one step at t = 1."""
    leading = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    with pytest.raises(ValueError, match="start at timestep 1 of 999.*timestep_spacing='trailing'"):
        own_scheduler(leading, 1)
    assert int(own_scheduler(leading, 20).timesteps[0]) == 951
    with pytest.raises(ValueError, match="`num_inference_steps` 1"):
        tiny_pipeline(scheduler=leading).predict_grid(photo(), num_inference_steps=1)
    before = leading.num_inference_steps
    own_scheduler(leading, 7)
    assert leading.num_inference_steps == before  # the caller's is left as it is
