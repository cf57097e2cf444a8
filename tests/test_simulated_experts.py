from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch import ATTRIBUTES
from diffretouch.data.simulated_experts import camera_input, expert_version, to_linear, to_srgb, version_label

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def finished(path, size=96):
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize((size, size)), np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


def test_transfer_curve():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-6)
    # IEC 61966-2-1: encoded middle grey of 18 % light is 46 %
    np.testing.assert_allclose(to_srgb(np.float32([0, 0.18, 1])), [0, 0.46135, 1], atol=1e-4)


def test_inputs_are_duller_flatter_and_darker():
    finish, left = [], []
    for path in PHOTOS:
        photo = finished(path)
        for seed in range(6):
            source = camera_input(photo, rng(seed))
            assert source.dtype == np.float32 and source.shape == photo.shape
            assert 0 <= source.min() and source.max() <= 1
            np.testing.assert_allclose(source * 255, np.round(source * 255), atol=1e-4)  # 8 bits
            for image, rows in ((photo, finish), (source, left)):
                rows.append((image.mean(), image.mean(-1).std(), np.ptp(image, -1).mean()))
    assert (np.mean(left, 0) < 0.93 * np.mean(finish, 0)).all()


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
