from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch import ATTRIBUTES
from diffretouch.colour import linear_to_srgb, srgb_to_linear
from diffretouch.data.simulated_experts import (
    LUMA,
    MARGIN,
    camera_input,
    expert_version,
    finish,
    version_label,
    with_black_point,
)

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def finished(path, size=96):
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize((size, size)), np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


def test_transfer_curve():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    # IEC 61966-2-1: encoded middle grey of 18 % light is 46 %
    np.testing.assert_allclose(linear_to_srgb(np.float32([0, 0.18, 1])), [0, 0.46135, 1], atol=1e-4)


def test_inputs_are_duller_flatter_and_darker():
    finish, left = [], []
    for path in PHOTOS:
        photo = with_black_point(finished(path), finished(path), rng())
        for seed in range(6):
            source = camera_input(photo, rng(seed))
            assert source.dtype == np.float32 and source.shape == photo.shape
            assert 0 <= source.min() and source.max() <= 1
            np.testing.assert_allclose(source * 255, np.round(source * 255), atol=1e-4)  # 8 bits
            for image, rows in ((photo, finish), (source, left)):
                rows.append((image.mean(), image.mean(-1).std(), np.ptp(image, -1).mean()))
    ratio = np.mean(left, 0) / np.mean(finish, 0)
    assert (ratio < (0.9, 0.85, 0.75)).all()


def test_metering_draws_photos_towards_middle_grey():
    """Dark and bright finished photos come closer together, so a retoucher has to part them again."""
    photo = np.random.default_rng(0).random((48, 48, 3), np.float32)
    medians = []
    for level in (0.2, 0.45, 0.7):
        finish = np.clip(level + 0.4 * (photo - 0.5), 0, 1)
        medians.append(np.median([np.median(camera_input(finish, rng(seed)) @ LUMA) for seed in range(40)]))
    assert medians == sorted(medians)
    assert medians[2] - medians[0] < 0.8 * 0.5


def test_middle_tones_sink_more_than_highlights_and_black_is_lifted():
    ramp = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], 3, 2).repeat(64, 0)
    inputs = [camera_input(ramp, rng(seed)) @ LUMA for seed in range(40)]
    low, middle, high = (np.mean([np.quantile(image, q) for image in inputs]) / q for q in (0.01, 0.5, 0.98))
    assert low > 4 and middle < 0.8 and middle < high < 1


def test_black_point():
    generator = np.random.default_rng(0)
    photo = generator.random((40, 40, 1), np.float32) * (0.9 + 0.1 * generator.random((40, 40, 3), np.float32))
    matte = 0.12 + 0.8 * photo
    blacks = []
    for seed in range(20):
        own, whole = with_black_point(matte[:10, :20], matte, rng(seed)), with_black_point(matte, matte, rng(seed))
        assert own.dtype == np.float32 and np.array_equal(own, whole[:10, :20])  # the photo's black, not the crop's
        blacks.append(np.quantile(whole @ LUMA, 0.005))
    assert MARGIN - 1e-6 <= min(blacks) and max(blacks) <= np.quantile(matte @ LUMA, 0.005)
    assert np.mean(blacks) < 0.6 * np.quantile(matte @ LUMA, 0.005)
    deep = photo * 0.9
    deep[:20] = 0
    np.testing.assert_allclose(with_black_point(deep, deep, rng()), MARGIN + (1 - 2 * MARGIN) * deep)  # black already


def test_nothing_of_a_target_is_clipped():
    burnt = np.clip(np.random.default_rng(0).normal(0.5, 0.5, (30, 30, 3)), 0, 1).astype(np.float32)
    target = with_black_point(burnt, burnt, rng())
    assert 2.5 / 255 < target.min() and target.max() < 252.5 / 255


def test_black_point_keeps_deep_colours():
    photo = np.random.default_rng(0).random((50, 50, 3), np.float32) * [0.4, 0.1, 0.02] + [0.5, 0.3, 0.08]
    photo = photo.astype(np.float32)  # deep orange: luma far above the blue channel
    for seed in range(20):
        assert (with_black_point(photo, photo, rng(seed)) < MARGIN + 0.5 / 255).any(-1).mean() <= 0.021


def test_seeded_by_the_generator_alone():
    photo = finished(PHOTOS[0])
    np.random.seed(1)
    first = camera_input(photo, rng(3)), expert_version(photo, [0, 1, 0, 0], rng(3), style=1)
    np.random.seed(2)
    again = camera_input(photo, rng(3)), expert_version(photo, [0, 1, 0, 0], rng(3), style=1)
    other = camera_input(photo, rng(4)), expert_version(photo, [0, 1, 0, 0], rng(4), style=1)
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_zero_is_the_photographers_own():
    photo = finished(PHOTOS[0])
    assert np.array_equal(expert_version(photo, np.zeros(4), rng()), photo)
    assert not version_label(photo, photo).any()


@pytest.mark.parametrize("attribute", range(4), ids=ATTRIBUTES)
@pytest.mark.parametrize("value", [-0.7, 0.7])
def test_one_attribute_moves_and_the_others_stay(attribute, value):
    asked = np.zeros(4, np.float32)
    asked[attribute] = value
    reached = []
    for path in PHOTOS:
        photo = finished(path)
        version = expert_version(photo, asked, rng())
        assert 0 <= version.min() and version.max() <= 1
        reached.append(version_label(version, photo))
    reached = np.array(reached)
    assert abs(np.median(reached[:, attribute]) - value) < 0.15
    assert (np.sign(reached[:, attribute]) == np.sign(value)).all()
    assert np.median(np.abs(np.delete(reached, attribute, 1))) < 0.1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (5, 200), (64, 64)])
def test_plain_photos_do_not_break(value, size):
    plain = np.full((*size, 3), value, np.float32)
    for image in (camera_input(plain, rng()), expert_version(plain, [1, 1, -1, 1], rng(), style=1)):
        assert np.isfinite(image).all() and image.shape == plain.shape
    assert np.isfinite(version_label(expert_version(plain, [1, 1, -1, 1], rng()), plain)).all()


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_temperature_moves_whites_along_daylight(value):
    """A white wall, cooled and warmed by about one unit of c, stays within dE 4 of Planck's line (CIE 15)."""
    wall = np.full((4, 4, 3), 0.75, np.float32)
    version = finish(wall, 0, 0, 0.5 * value, 0, None)
    assert (version[..., 0] - version[..., 2]).mean() * value > 0.1
    white = srgb_to_linear(version.astype(np.float64).mean((0, 1)))
    temperatures = np.geomspace(2500, 20000, 500)  # Krystek (1985)
    u = (0.860117757 + 1.54118254e-4 * temperatures + 1.28641212e-7 * temperatures**2) / (
        1 + 8.42420235e-4 * temperatures + 7.08145163e-7 * temperatures**2
    )
    v = (0.317398726 + 4.22806245e-5 * temperatures + 4.20481691e-8 * temperatures**2) / (
        1 - 2.89741816e-5 * temperatures + 1.61456053e-7 * temperatures**2
    )
    line = np.stack([3 * u / (2 * v), np.ones_like(u), (4 - u - 10 * v) / (2 * v)], 1)  # XYZ at Y = 1
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ white
    lab = lambda x: _lab(x / to_xyz.sum(1))  # noqa: E731
    assert np.linalg.norm(lab(line * xyz[1]) - lab(xyz), axis=-1).min() < 4


def _lab(ratio):
    x, y, z = np.moveaxis(np.cbrt(ratio), -1, 0)
    return np.stack([116 * y, 500 * (x - y), 200 * (y - z)], -1)


def test_warm_light_clips_no_channel_alone():
    """Bright whites keep the colour that middle tones get: with red or blue cut off alone they would turn green."""
    ramp = np.repeat(np.linspace(0.5, 0.98, 64, dtype=np.float32)[None, :, None], 3, 2).repeat(8, 0)
    for warmth in (-0.5, 0.5):
        warmed = finish(ramp, 0.0, 0.0, warmth, 0.0, None)
        shares = warmed / warmed[..., 1:2]
        np.testing.assert_allclose(shares, np.broadcast_to(shares[0, 0], shares.shape), atol=1e-4)
        assert warmed.max() <= 1
