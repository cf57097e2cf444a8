import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.pixels import (
    as_float,
    as_output,
    as_photos,
    as_tensor,
    check_strength,
    nearest_pixels,
    resized,
    shrink,
)


def test_lists_and_batches_become_single_photos():
    photos = as_photos([Image.new("RGB", (4, 5)), np.zeros((2, 6, 7, 3), np.uint8), torch.zeros(3, 8, 9)])
    assert [tuple(photo.shape) for photo in photos] == [(5, 4, 3), (6, 7, 3), (6, 7, 3), (3, 8, 9)]


def test_arrays_are_not_copied():
    for array in (np.zeros((5, 6, 3), np.uint8), np.zeros((5, 6, 3), np.uint16), np.zeros((5, 6, 3), np.float32)):
        assert np.shares_memory(as_photos(array)[0], array)


@pytest.mark.parametrize(
    "image, error",
    [
        (None, TypeError),
        ("photo.jpg", TypeError),
        ([], ValueError),
        (np.zeros((3, 8, 9), np.uint8), ValueError),  # CHW array
        (np.zeros((8, 9, 4), np.uint8), ValueError),
        (np.zeros((8, 9), np.uint8), ValueError),
        (np.zeros((0, 9, 3), np.uint8), ValueError),
        (np.zeros((8, 9, 3), np.int16), TypeError),
        (np.zeros((8, 9, 3), bool), TypeError),
        (np.zeros((8, 9, 3), complex), TypeError),
        (np.full((8, 9, 3), np.nan, np.float32), ValueError),
        (np.full((8, 9, 3), 200.0), ValueError),
        (torch.zeros(8, 9, 3), ValueError),  # HWC tensor
        (torch.zeros(3, 8, 9, dtype=torch.uint8), TypeError),
        (torch.full((3, 8, 9), float("inf")), ValueError),
        (torch.full((3, 8, 9), -1.0), ValueError),
        (torch.zeros(0, 3, 8, 9), ValueError),
        (Image.new("RGBA", (8, 9)), ValueError),
        (Image.new("LA", (8, 9)), ValueError),
        (Image.new("I;16", (8, 9)), ValueError),
        (Image.new("F", (8, 9)), ValueError),
    ],
)
def test_bad_images(image, error):
    with pytest.raises(error, match="`image`"):
        as_photos(image)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGB"])
def test_other_modes_become_rgb(mode):
    assert as_photos(Image.new(mode, (8, 9)))[0].shape == (9, 8, 3)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan"), "1", True, None])
def test_bad_strength(strength):
    with pytest.raises(ValueError, match="`strength`"):
        check_strength(strength)


def test_scales():
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        array = np.full((2, 3, 3), top, dtype)
        assert as_float(array).max() == 1 and as_tensor(array).shape == (1, 3, 2, 3) and as_tensor(array).min() == 1
        levels = np.arange(top + 1, dtype=dtype)
        for order in "<>":
            assert np.array_equal(as_float(levels.astype(levels.dtype.newbyteorder(order))), levels.astype("f4") / top)


def test_output_rounds_and_limits():
    result = np.float32([[[-0.1, 0.4999 / 255, 0.5001 / 255], [1.2, 1.0, 254.4999 / 255]]])
    assert np.asarray(as_output(result, "pil")).tolist() == [[[0, 0, 1], [255, 255, 254]]]
    np.testing.assert_array_equal(as_output(result.copy(), "np"), result.clip(0, 1))
    assert as_output(torch.from_numpy(result).permute(2, 0, 1), "np").shape == (1, 2, 3)
    assert as_output(result, "pt").shape == (3, 1, 2)
    sixteen = np.full((1, 1, 3), 32896, np.uint16)
    assert np.asarray(as_output(sixteen, "pil")).tolist() == [[[128, 128, 128]]]


def test_shrink_averages():
    image = torch.rand(2, 3, 300, 200)
    small = shrink(image, 30)
    assert small.shape == (2, 3, 30, 20) and shrink(image, 300) is image
    torch.testing.assert_close(small.mean((2, 3)), image.mean((2, 3)), atol=2e-3, rtol=0)
    assert shrink(torch.rand(1, 3, 1, 4000), 64).shape == (1, 3, 1, 64)


@pytest.mark.parametrize("height, width, shape", [(1300, 700, (31, 64)), (3, 300_001, (3, 7)), (600, 900, (900, 60))])
def test_large_pictures_are_shrunk_as_torch_does(height, width, shape):
    picture = np.random.default_rng(0).integers(0, 65536, (height, width), np.uint16)
    whole = torch.from_numpy(as_float(picture))[None, None]
    wanted = torch.nn.functional.interpolate(whole, shape, mode="bilinear", antialias=True)[0, 0]
    np.testing.assert_allclose(resized(picture, shape), wanted, atol=3e-5)


def test_saturated_wide_gamut_colours_are_photos_and_other_ranges_are_not():
    green = np.full((4, 5, 3), (-0.66, 0.99, -0.2), np.float32)  # Adobe RGB's
    cyan = np.full((4, 5, 3), (-1.02, 1.09, 1.07), np.float32)  # ProPhoto's
    for photo in (green, cyan):
        assert np.array_equal(as_photos(photo)[0], photo)
        as_photos(torch.from_numpy(photo).permute(2, 0, 1))
        photo[1, 2] = -0.9  # a dark pixel of -1..1
        for other in (photo, torch.from_numpy(photo).permute(2, 0, 1)):
            with pytest.raises(ValueError, match=r"must be in \[0,1\]"):
                as_photos(other)


def test_nearest_pixels_are_those_of_the_thumbnail():
    photo = np.random.default_rng(0).integers(0, 256, (301, 457, 3), np.uint8)
    own = nearest_pixels(photo, 32)
    asked = torch.nn.functional.interpolate(torch.from_numpy(photo).permute(2, 0, 1)[None], (32, 32), mode="nearest")
    assert np.array_equal(own, asked[0].permute(1, 2, 0))
