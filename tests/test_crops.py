import numpy as np
from PIL import Image

from diffretouch.data.crops import WHOLE, as_chw, cut, random_crop


def test_random_crops_stay_inside_and_cover_60_to_100_percent():
    rng = np.random.default_rng(0)
    boxes, flips = zip(*(random_crop(rng) for _ in range(500)), strict=True)
    left, top, right, bottom = np.array(boxes).T
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1
    for sides in (right - left, bottom - top):
        assert 0.6 <= sides.min() < 0.65 and 0.95 < sides.max() <= 1
    assert 0.4 < np.mean(flips) < 0.6


def test_cut_takes_the_same_part_of_every_size():
    """The same crop of a photo and of its double shows the same picture."""
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((60, 45), Image.Resampling.BICUBIC)
    large = small.resize((120, 90), Image.Resampling.NEAREST)
    for _ in range(5):
        crop = random_crop(rng)
        assert np.abs(cut(small, crop, 16) - cut(large, crop, 16)).mean() < 0.04
        assert np.abs(cut(small, crop, 16) - cut(large, random_crop(rng), 16)).mean() > 0.08


def test_whole_and_flip():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 0] = 255
    photo = Image.fromarray(pixels)
    np.testing.assert_array_equal(cut(photo, WHOLE, 4), pixels / np.float32(255))
    np.testing.assert_array_equal(cut(photo, (WHOLE[0], True), 4), pixels[:, ::-1] / np.float32(255))
    assert as_chw(cut(photo, WHOLE, 4)).shape == (3, 4, 4)
