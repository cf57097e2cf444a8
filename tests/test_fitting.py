"""A preset from pairs, c from one reference: the settings behind finished photos are found, the errors are true."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch import DiffRetouchPipeline
from diffretouch.fitting import fit_preset, is_same_picture, nearest_attributes
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
    assert fit.settings.c == pytest.approx(c, abs=0.12) and fit.settings.strength == pytest.approx(0.9, abs=0.08)
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


def test_bad_input(pipe, tmp_path):
    with pytest.raises(ValueError, match="`pairs`"):
        fit_preset(pipe, [])
    with pytest.raises(ValueError, match="`pipe` must be a pipeline with sliders, got object"):
        fit_preset(object(), [(PHOTOS[0], PHOTOS[0])])
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="bad.jpg' cannot be read"):
        fit_preset(pipe, [(PHOTOS[0], tmp_path / "bad.jpg")])
