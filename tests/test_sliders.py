"""Sliders: what is interpolated, what is sampled, threads, screen copies."""

import copy
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDPMScheduler
from scipy.interpolate import RBFInterpolator
from skimage.transform import downscale_local_mean

from diffretouch.attributes import ATTRIBUTES
from diffretouch.metrics import delta_e76
from diffretouch.models.affine_grid import AffineGridHead, identity_grid
from diffretouch.sliders import Sliders, interpolation_weights, screen_copy, slider_points

from .tiny import tiny_pipeline

PHOTO = PIL.Image.open(Path(__file__).parent / "photos" / "gb82_city-lossless.jpg").convert("RGB")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_c(n, seed=0):
    return torch.rand(n, 4, generator=seeded(seed)) * 2 - 1


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_pipeline()
    # An untrained UNet hardly heeds its tokens: with stronger ones, the retouch is clearly curved in c.
    for name, weight in pipe.unet.named_parameters():
        if name.endswith(("attn2.to_v.weight", "attn2.to_out.0.weight")):
            weight.data *= 4
    return pipe


@pytest.fixture(scope="module")
def sliders(pipe):
    return pipe.sliders(PHOTO, size=64, generator=seeded())


def linear_sample(c):
    """A model whose grids are linear in c."""
    slopes = torch.randn(4, 12 * 2 * 3 * 3, generator=seeded(7)) * 0.05
    return identity_grid(len(c), 2, 3, 3) + (c @ slopes).unflatten(1, (12, 2, 3, 3))


def linear_sliders(sample=linear_sample, **options):
    return Sliders(sample, AffineGridHead(depth=2), screen_copy(np.asarray(PHOTO), 32), **options)


def test_points():
    points = torch.cat(slider_points())
    assert points.shape == (25, 4) and len(points.unique(dim=0)) == 25
    assert points[0].tolist() == [0] * 4 and points.abs().max() == 1
    assert points.mean(0).abs().max() == 0  # no attribute and no direction is preferred


def test_weights_agree_with_scipy():
    points, c = torch.cat([*slider_points(), random_c(9)]).double(), random_c(50, seed=1).double()
    values = torch.randn(len(points), 3, dtype=torch.float64, generator=seeded())
    expected = RBFInterpolator(points, values, kernel="cubic", degree=1)(c)
    torch.testing.assert_close(interpolation_weights(c, points) @ values, torch.from_numpy(expected))


def test_grids_at_the_points_are_the_models_own(pipe, sliders):
    points = sliders.points
    sampled = torch.cat([pipe.predict_grid(PHOTO, c, generator=seeded()) for c in points])
    torch.testing.assert_close(sliders.grid(points), sampled, rtol=0, atol=2e-6)
    assert (sampled - sampled[0]).abs().max() > 1e-3  # c does something


def test_sliders_share_the_noise_of_stochastic_schedulers():
    pipe = tiny_pipeline(scheduler=DDPMScheduler(clip_sample=False))
    sliders = pipe.sliders(PHOTO, generator=seeded(3))
    for c in sliders.points[[0, 5, 24]]:
        expected = pipe.predict_grid(PHOTO, c, generator=seeded(3))
        torch.testing.assert_close(sliders.grid(c), expected, rtol=0, atol=2e-6)


def test_what_is_linear_in_c_is_exact_everywhere():
    sliders, c = linear_sliders(), random_c(20)
    torch.testing.assert_close(sliders.grid(c), linear_sample(c), rtol=0, atol=1e-5)
    assert sliders.fidelity(n=9).worst < 0.01


def test_interpolation_comes_closer_than_the_centre(pipe, sliders):
    c = random_c(12, seed=4)
    sampled = torch.cat([pipe.predict_grid(PHOTO, row, generator=seeded()) for row in c])
    error = (sliders.grid(c) - sampled).abs().mean()
    assert error < 0.5 * (sliders.grid() - sampled).abs().mean()


def test_the_picture_is_that_of_the_pipeline(pipe, sliders):
    shown = screen_copy(np.asarray(PHOTO), 64)
    for strength in (0.0, 0.5, 1, 1.7):
        expected = pipe.apply_grid(shown, sliders.grid([0.3, 0, -0.5, 0.2]), strength=strength)
        image = sliders({"colorfulness": 0.3, "temperature": -0.5, "brightness": 0.2}, strength=strength)
        assert np.array_equal(np.asarray(image), expected)
    assert np.array_equal(np.asarray(sliders(strength=0)), shown)


def test_pictures_share_no_memory(sliders):
    first = sliders([1, 0, 0, 0])
    before = np.array(first)
    second = np.array(sliders([-1, 0, 0, 0]))
    assert np.array_equal(np.asarray(first), before) and not np.array_equal(before, second)
    out = np.empty_like(before)
    assert sliders([-1, 0, 0, 0], out=out) is out and np.array_equal(out, second)


def test_photo_is_a_copy(pipe):
    pixels = np.array(PHOTO.resize((20, 12)))
    sliders = pipe.sliders(pixels, generator=seeded())
    before = np.array(sliders([0.5, 0, 0, 0]))
    pixels[:] = 0
    assert np.array_equal(np.asarray(sliders([0.5, 0, 0, 0])), before)


def test_deterministic_and_the_generator_does_not_advance(pipe, sliders):
    generator = seeded()
    again = pipe.sliders(PHOTO, size=64, generator=generator)
    assert torch.equal(again.grid(random_c(3)), sliders.grid(random_c(3)))
    assert torch.equal(generator.get_state(), seeded().get_state())
    other = pipe.sliders(PHOTO, size=64, generator=seeded(1))
    assert not torch.equal(other.grid(), sliders.grid())


def test_pipeline_stays_as_it_was(pipe, sliders):
    scheduler, config = pipe.scheduler, dict(pipe.config)
    timesteps = copy.deepcopy(scheduler.timesteps)
    pipe.sliders(PHOTO, num_inference_steps=3)
    assert pipe.scheduler is scheduler and dict(pipe.config) == config
    assert torch.equal(scheduler.timesteps, timesteps)


def test_beyond_the_cube_is_sampled(pipe, sliders):
    c = torch.tensor([[0.2, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, -2]])
    with pytest.warns(UserWarning, match="extrapolates"):
        grids = sliders.grid(c)
    torch.testing.assert_close(grids[:1], sliders.grid(c[:1]), rtol=0, atol=2e-6)  # a row alone rounds differently
    with pytest.warns(UserWarning, match="extrapolates"):
        sampled = torch.cat([pipe.predict_grid(PHOTO, row, generator=seeded()) for row in c[1:]])
    torch.testing.assert_close(grids[1:], sampled, rtol=0, atol=2e-6)


def test_fidelity_is_the_color_difference(pipe, sliders):
    c = random_c(5, seed=11)
    tensor = torch.from_numpy(screen_copy(np.asarray(PHOTO), 64)).permute(2, 0, 1) / 255
    pictures = []
    for grids in (sliders.grid(c), torch.cat([pipe.predict_grid(PHOTO, row, generator=seeded()) for row in c])):
        pictures.append(torch.stack([pipe.apply_grid(tensor, grid) for grid in grids]).clamp(0, 1))
    expected = delta_e76(*pictures)
    found = sliders.fidelity(n=5, seed=11)
    assert found.mean == pytest.approx(expected.mean().item(), rel=1e-3)
    assert found.worst == pytest.approx(expected.max().item(), rel=1e-3)


def test_refine_adds_points_and_comes_closer(pipe):
    sliders = pipe.sliders(PHOTO, size=64, generator=seeded())
    before = sliders.fidelity(n=24)
    sliders.refine(before.mean / 1000, rounds=3)
    assert len(sliders.points) == 25 + 3 * 16
    assert sliders.fidelity(n=24).mean < before.mean
    c = sliders.points[40]
    torch.testing.assert_close(
        sliders.grid(c), pipe.predict_grid(PHOTO, c, generator=seeded()), rtol=0, atol=2e-6
    )  # fmt: skip
    sliders.refine(100.0)
    assert len(sliders.points) == 25 + 4 * 16  # one round was good enough


def waiting_sliders():
    """Sliders whose sampling in the background waits, behind the centre, for the event that comes with them."""
    go_on = threading.Event()

    def sample(c):
        if len(c) > 1:
            assert go_on.wait(30)
        return linear_sample(c)

    return linear_sliders(sample, background=True), go_on


def test_background_answers_from_the_centre_at_once():
    sliders, go_on = waiting_sliders()
    assert torch.equal(sliders.grid([0.5, 0, 0, 0]), linear_sample(torch.zeros(1, 4)))
    with pytest.raises(TimeoutError):
        sliders.wait(0.01)
    go_on.set()
    assert sliders.wait() is sliders and len(sliders.points) == 25
    assert torch.equal(sliders.grid(random_c(3)), linear_sliders().grid(random_c(3)))


def test_background_equals_foreground_while_the_pipeline_works(pipe, sliders):
    background = pipe.sliders(PHOTO, size=64, generator=seeded(), background=True)
    expected = pipe.predict_grid(PHOTO, generator=seeded(2), num_inference_steps=5)
    assert torch.equal(pipe.predict_grid(PHOTO, generator=seeded(2), num_inference_steps=5), expected)
    assert torch.equal(background.wait().grid(random_c(4)), sliders.grid(random_c(4)))


def test_many_threads(sliders):
    wanted = {i: np.array(sliders([i / 8 - 0.5, 0, 0, 0.3])) for i in range(8)}
    wrong = []

    def move(i):
        for _ in range(5):
            if not np.array_equal(np.asarray(sliders([i / 8 - 0.5, 0, 0, 0.3])), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=move, args=(i,)) for i in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("background", [False, True])
def test_failed_sampling_is_told(background):
    def sample(c):
        if len(c) > 1:
            raise RuntimeError("out of memory")
        return linear_sample(c)

    with pytest.raises(RuntimeError, match="out of memory"):
        linear_sliders(sample, background=background).wait(30)
    if background:
        sliders = linear_sliders(sample, background=True)
        with pytest.raises(RuntimeError, match="out of memory"):
            sliders.fidelity()
        with pytest.raises(RuntimeError, match="out of memory"):
            sliders([0, 0, 0, 0])


def test_close_ends_the_background_sampling():
    sliders, go_on = waiting_sliders()
    sliders.close()
    go_on.set()
    assert len(sliders.wait(30).points) < 25
    assert sliders([0.1, 0, 0, 0]).size == (32, 32 * PHOTO.height // PHOTO.width)


def test_preview(pipe):
    preview = pipe.preview(PHOTO, {"brightness": 0.5}, size=50, strength=0.8, generator=seeded())
    grid = pipe.predict_grid(PHOTO, {"brightness": 0.5}, generator=seeded())
    expected = pipe.apply_grid(screen_copy(np.asarray(PHOTO), 50), grid, strength=0.8)
    assert max(preview.size) == 50 and np.array_equal(np.asarray(preview), expected)
    assert pipe.preview(PHOTO.resize((20, 10))).size == (20, 10)


@pytest.mark.parametrize("form", ["uint8", "uint16", "float32", "tensor"])
def test_screen_copy_averages(form):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    photo = {
        "uint8": pixels,
        "uint16": pixels.astype(np.uint16) * 257,
        "float32": pixels / np.float32(255),
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1) / 255,
    }[form]
    copied = screen_copy(photo, 24)
    assert copied.dtype == np.uint8 and copied.shape == (12, 24, 3)
    assert np.abs(copied - downscale_local_mean(pixels, (4, 4, 1))).max() <= 1
    assert np.array_equal(screen_copy(photo, None), pixels) and np.array_equal(screen_copy(photo, 1000), pixels)
    assert screen_copy(photo, 1).shape == (1, 1, 3)


def test_screen_copy_of_a_huge_photo_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 2**16, (4100, 4100, 3), dtype=np.uint16)
    assert np.array_equal(screen_copy(pixels, None), np.round(pixels / np.float32(257)))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda s: s.grid([0, 0, 0]), ValueError, "`c`"),
        (lambda s: s.grid({"warmth": 1}), ValueError, "warmth"),
        (lambda s: s.grid([0, 0, 0, float("nan")]), ValueError, ATTRIBUTES[3]),
        (lambda s: s.grid([0, 4, 0, 0]), ValueError, ATTRIBUTES[1]),
        (lambda s: s("warm"), TypeError, "`c`"),
        (lambda s: s(torch.zeros(2, 4)), ValueError, "`c` must be one row"),
        (lambda s: s(strength=3), ValueError, "`strength`"),
        (lambda s: s(out=np.zeros((2, 2, 3), np.uint8)), ValueError, "`out`"),
        (lambda s: s(out=[0]), TypeError, "`out`"),
        (lambda s: s.fidelity(n=0), ValueError, "`n`"),
        (lambda s: s.refine(0), ValueError, "`limit`"),
        (lambda s: s.refine(rounds=1.5), ValueError, "`rounds`"),
    ],
)
def test_bad_calls(sliders, call, error, words):
    with pytest.raises(error, match=words):
        call(sliders)


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(image=[PHOTO, PHOTO]), ValueError, "`image` must be one photo"),
        (dict(image="photo.jpg"), TypeError, "`image`"),
        (dict(size=0), ValueError, "`size`"),
        (dict(size=12.5), ValueError, "`size`"),
        (dict(num_inference_steps=0), ValueError, "`num_inference_steps`"),
        (dict(generator=7), TypeError, "`generator`"),
    ],
)
def test_bad_sliders(pipe, options, error, words):
    with pytest.raises(error, match=words):
        pipe.sliders(**{"image": PHOTO, **options})


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(image=[PHOTO, PHOTO]), ValueError, "`image` must be one photo"),
        (dict(c=torch.zeros(2, 4)), ValueError, "`c` must be one row"),
        (dict(size=-3), ValueError, "`size`"),
        (dict(strength="half"), ValueError, "`strength`"),
    ],
)
def test_bad_previews(pipe, options, error, words):
    with pytest.raises(error, match=words):
        pipe.preview(**{"image": PHOTO, **options})
