"""A series of photos: one noise, one brightness, one white balance."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.batch import exposed, plan_batch, series_looks, series_target
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.photo import load_photo, save_photo
from diffretouch.pixels import as_tensor
from diffretouch.settings import settings_of

from .batches import PHOTOS, run, settings_for


def test_a_series_gets_one_noise_and_one_brightness(pipe, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    pixels = load_photo(PHOTOS[0]).pixels * 0.8
    gains = {"dark": 0.75, "middle": 1.0, "bright": 1.15, "night": 0.1}
    for name, gain in gains.items():
        save_photo(pixels * gain, source / f"{name}.png")
    settings = settings_for(pipe, seed=3)
    plan = plan_batch(source, tmp_path / "out")
    looks = list(series_looks(pipe, plan.tasks, settings))
    target = series_target(looks)
    assert len(looks) == 4 and min(looks)[0] < target.brightness < max(looks)[0]
    rows = run(pipe, plan, settings, series=target)
    exposures = {name: rows[f"{name}.png"]["exposure"] for name in gains}
    assert exposures["night"] == 1.5 and "not the series'" in rows["night.png"]["notes"][0]
    assert exposures["dark"] > exposures["middle"] > exposures["bright"]
    results = {name: load_photo(tmp_path / "out" / f"{name}.png") for name in gains}
    brightness = {name: result.pixels @ [0.299, 0.587, 0.114] for name, result in results.items()}
    for name in ("dark", "middle", "bright"):
        assert brightness[name].mean() == pytest.approx(target.brightness, abs=3e-3)
        said = settings_of(results[name])
        assert said.seed == 3 and said.exposure == pytest.approx(exposures[name], abs=1e-3)
    with pytest.raises(ValueError, match="no photo"):
        series_target([])


def test_white_balances_of_a_series_meet(pipe, tmp_path):
    """Shots that a camera's white balance told apart come back alike; another motif is moved by its limit at most."""
    source = tmp_path / "in"
    source.mkdir()
    pixels = 0.1 + 0.7 * load_photo(PHOTOS[0]).pixels
    casts = {"plain": (1, 1, 1), "warm": (1.06, 1, 0.95), "cold": (0.95, 1, 1.04), "pink": (1.03, 0.98, 1.02)}
    for name, cast in casts.items():
        save_photo(pixels * np.float32(cast), source / f"{name}.png")
    Image.new("RGB", (64, 48), (200, 30, 40)).save(source / "rose.png")
    settings = settings_for(pipe, seed=3)

    def spread(out, **options):
        plan = plan_batch(source, out)
        rows = run(pipe, plan, settings, **options)
        lab = [srgb_to_lab(as_tensor(load_photo(out / f"{name}.png").pixels))[0].mean((1, 2)) for name in casts]
        return rows, torch.stack(lab).std(0)

    _, apart = spread(tmp_path / "each")
    looks = list(series_looks(pipe, plan_batch(source, tmp_path / "all").tasks, settings))
    rows, together = spread(tmp_path / "all", series=series_target(looks))
    assert (together < 0.25 * apart).all(), (apart, together)
    said = {name: settings_of(load_photo(tmp_path / "all" / f"{name}.png")).white_balance for name in [*casts, "rose"]}
    assert said["warm"][0] < 0 < said["warm"][1] and said["cold"][1] < 0 < said["cold"][0]
    assert max(map(abs, said["rose"])) == 0.3
    assert rows["warm.png"]["white_balance"] == pytest.approx(said["warm"], abs=1e-3)


def test_exposure_is_a_gain_for_gamma_2_2():
    pixels = np.array([[[0.0, 0.2, -0.1]]], np.float32)
    assert exposed(pixels, None) is pixels and exposed(pixels.copy(), 0.0).tolist() == pixels.tolist()
    np.testing.assert_allclose((exposed(pixels.copy(), 1.0)[0, 0, 1]) ** 2.2, 2 * 0.2**2.2, rtol=1e-5)
    red, green, blue = grey = exposed(np.full((1, 1, 3), 0.2, np.float32), 1.0, (0.5, -0.5))[0, 0]
    np.testing.assert_allclose(np.log2([red / green, blue / green]) * 2.2, [0.5, -0.5], rtol=1e-4)
    np.testing.assert_allclose(grey @ [0.299, 0.587, 0.114], 0.2 * 2 ** (1 / 2.2), rtol=1e-5)
