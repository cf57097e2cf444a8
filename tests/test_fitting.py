"""A preset from pairs, c from one reference: the settings behind finished photos are found, the errors are true."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch import DiffRetouchPipeline, fitting
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.fitting import fit_preset, is_same_picture, nearest_attributes, shrink_factor
from diffretouch.metrics import delta_e76
from diffretouch.photo import load_photo, save_photo
from diffretouch.settings import seed_of

PHOTOS = sorted((Path(__file__).parent / "photos").glob("gb82_*.jpg"))


@pytest.fixture(scope="module")
def pipe():
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def finish(pipe, source, target, c, strength=1.0):
    noise = torch.Generator().manual_seed(seed_of(source.name))
    pixels = pipe(load_photo(source).pixels, c, strength=strength, generator=noise, output_type="np").images[0]
    save_photo(pixels, target)
    return source, target


def test_the_settings_behind_finished_photos_are_found(pipe, tmp_path):
    c = {"colorfulness": 0.4, "contrast": -0.3, "temperature": -0.5, "brightness": 0.6}
    pairs = [finish(pipe, path, tmp_path / f"{path.stem}.png", c, 0.9) for path in PHOTOS]
    fit = fit_preset(pipe, pairs, size=128)
    # Less contrast with more light is nearly the same picture: what the prior leaves of c is a dE of 0.6
    assert fit.settings.c == pytest.approx(c, abs=0.25) and fit.settings.strength == pytest.approx(0.9, abs=0.08)
    assert fit.fitted < 0.12 * fit.automatic and fit.held_out < 0.25 * fit.automatic < fit.untouched
    assert (fit.settings.seed, fit.settings.steps) == (0, pipe.config.default_steps)
    assert [row["photo"] for row in fit.photos] == [path.name for path in PHOTOS]
    assert np.mean([row["fitted"] for row in fit.photos]) == pytest.approx(fit.fitted)


def test_errors_are_colour_differences_of_small_copies(pipe, tmp_path):
    photo = load_photo(PHOTOS[0]).pixels[:96, :96]
    save_photo(photo, tmp_path / "before.png")
    save_photo(photo**0.8, tmp_path / "after.png")
    fit = fit_preset(pipe, [(tmp_path / "before.png", tmp_path / "after.png")], size=96, iterations=1)
    before, after = (torch.from_numpy(load_photo(tmp_path / name).pixels).permute(2, 0, 1)[None]
                     for name in ("before.png", "after.png"))  # fmt: skip
    assert fit.untouched == pytest.approx(delta_e76(before, after).item(), rel=1e-4)
    noise = torch.Generator().manual_seed(seed_of("before.png"))
    automatic = pipe(before, [0] * 4, generator=noise, output_type="pt").images
    assert fit.automatic == pytest.approx(delta_e76(automatic, after).item(), rel=1e-3)
    assert fit.held_out is None


def test_exports_may_be_smaller_but_not_cropped(pipe, tmp_path):
    photo = load_photo(PHOTOS[0]).pixels
    save_photo(photo[::2, ::2], tmp_path / "small.png")
    save_photo(photo[:200], tmp_path / "cropped.png")
    fit_preset(pipe, [(PHOTOS[0], tmp_path / "small.png")], size=32, iterations=1)
    with pytest.raises(ValueError, match="same picture: their sides are"):
        fit_preset(pipe, [(PHOTOS[0], tmp_path / "cropped.png")])


def as_tensor(path):
    return torch.from_numpy(load_photo(path).pixels.copy()).permute(2, 0, 1)[None]


def test_the_same_picture_is_told_from_crops_and_other_photos():
    photos = [as_tensor(path) for path in PHOTOS[:4]]
    for photo, other in zip(photos, photos[1:], strict=False):
        finished = torch.nn.functional.interpolate(photo, scale_factor=0.61, mode="area") ** 1.7 * 0.8
        assert is_same_picture(photo, finished) and is_same_picture(finished, photo)
        assert not is_same_picture(photo, torch.nn.functional.interpolate(other, photo.shape[-2:], mode="area"))
        assert not is_same_picture(photo, photo[..., :100]) and not is_same_picture(photo, photo.flip(3))
    assert not is_same_picture(photos[0], photos[0].flip(2)) and is_same_picture(photos[0], photos[0])


def test_nearest_attributes_minimise_the_colour_difference(pipe):
    photo = torch.nn.functional.interpolate(as_tensor(PHOTOS[1]), (64, 64), mode="area")
    shift = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0.6, 0, -0.6], [0.5, 0.5, 0.5]])  # by attribute and channel

    def retouch(c):  # colorfulness does nothing, the others are known
        mean = photo.mean()
        contrast = (photo - mean) * (1 + 0.2 * c[:, 1, None, None, None]) + mean
        return contrast + 0.1 * (c @ shift)[..., None, None]

    wanted = torch.tensor([[0.0, 0.7, -0.8, 0.4]])
    found = nearest_attributes(retouch, photo, retouch(wanted).clamp(0, 1), torch.zeros(4), limit=2.0)
    torch.testing.assert_close(found, wanted[0], atol=0.02, rtol=0)
    near = nearest_attributes(retouch, photo, retouch(wanted).clamp(0, 1), torch.zeros(4), limit=0.5)
    assert near.abs().max() <= 0.5 and near[2] == -0.5


def pairs_of(looks, noise, seed):
    """Pairs whose model is known: exact derivatives, the photo finished at c (4,) and then off by `noise`."""
    random = np.random.default_rng(seed)
    shift = torch.tensor([[-0.1, 0.2, -0.1], [0.2, 0, -0.2], [0.15, 0.15, 0.15]])
    pairs = []
    for n, c in enumerate(looks):
        photo = torch.from_numpy(random.uniform(0.25, 0.75, (1, 3, 24, 24)).astype(np.float32))

        def retouch(c, photo=photo):
            return photo + 0.3 * ((c[:, 1:] @ shift)[..., None, None] + c[:, :1, None, None] * (photo - 0.5))

        off = torch.from_numpy(random.normal(0, noise, (1, 3, 1, 1)).astype(np.float32))
        finished = (retouch(torch.tensor([c], dtype=torch.float32)) + off).clamp(0, 1)
        pairs.append(fitting._Pair(f"{n}.jpg", photo, srgb_to_lab(finished), retouch))
    return pairs


def judged(pairs):
    with torch.no_grad():
        return fitting._fit_and_judge(pairs, 0, 1, 8)


def test_a_taste_is_recovered_from_many_pairs_however_moody():
    taste = [0.5, -0.4, 0.6, -0.3]
    fit = judged(pairs_of([taste] * 40, 0.02, 0))
    assert list(fit.settings.c.values()) == pytest.approx(taste, abs=0.2) and fit.shrink == 1 and fit.pays
    assert fit.held_out < 0.6 * fit.automatic
    assert fit.gain[0] == pytest.approx(fit.automatic - fit.held_out) and 0 < fit.gain[1] < fit.gain[0] / 5
    assert np.mean([row["held_out"] for row in fit.photos]) == pytest.approx(fit.held_out)


@pytest.mark.parametrize("seed", range(6))
def test_few_pairs_without_a_common_look_do_not_pay(seed):
    looks = np.random.default_rng(seed).uniform(-1, 1, (3, 4)).astype(np.float32)
    looks = np.concatenate([looks, -looks])  # on the whole nothing
    fit = judged(pairs_of(looks.tolist(), 0.05, seed))
    assert not fit.pays and max(map(abs, fit.settings.c.values())) < 0.5


def test_the_prior_weighs_as_much_as_pairs_left_out_ask_for():
    random, eye = np.random.default_rng(0), np.repeat(np.eye(5)[None], 50, 0)
    optimum = np.array([0.6, -0.6, 0.3, 0.3, 0.1])

    def factor(spread):
        each = optimum + random.normal(0, spread, (50, 5))
        return shrink_factor(30 + (each**2).sum(1), -each, eye)  # squared distances to what each pair asks for

    assert factor(0.1) == 1
    found = shrink_factor(np.full(4, 30.0), np.array([[3.0] * 5, [-3.0] * 5, [2.0] * 5, [-2.0] * 5]), eye[:4])
    assert found == np.inf and shrink_factor(np.ones(1), np.ones((1, 5)), eye[:1]) == 1
    assert shrink_factor(np.ones(4), np.ones((4, 5)), eye[:4], (4.0,)) == 4


def test_bad_input(pipe, tmp_path):
    with pytest.raises(ValueError, match="`pairs`"):
        fit_preset(pipe, [])
    with pytest.raises(ValueError, match="`pipe` must be a pipeline with sliders, got object"):
        fit_preset(object(), [(PHOTOS[0], PHOTOS[0])])
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="bad.jpg' cannot be read"):
        fit_preset(pipe, [(PHOTOS[0], tmp_path / "bad.jpg")])
