import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.photo.orientation import turn
from diffretouch.pixels import (
    as_float,
    as_output,
    as_photos,
    as_picture,
    as_tensor,
    check_strength,
    checked_out,
    float_tensor,
    nearest_pixels,
    one_photo,
    resized,
    retouch_one,
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
        (torch.zeros(3, 8, 9, device="meta"), TypeError),
        (torch.zeros(3, 8, 9).to_sparse(), TypeError),
        (Image.new("RGBA", (8, 9)), ValueError),
        (Image.new("LA", (8, 9)), ValueError),
        (Image.new("I;16", (8, 9)), ValueError),
        (Image.new("F", (8, 9)), ValueError),
        (Image.new("RGB", (0, 9)), ValueError),
        (Image.new("RGB", (9, 0)), ValueError),
    ],
)
def test_bad_images(image, error):
    with pytest.raises(error, match="`image`"):
        as_photos(image)


def test_errors_call_the_argument_by_its_name():
    for image in (None, [], np.zeros((3, 8, 9)), torch.full((3, 8, 9), -1.0), Image.new("RGBA", (8, 9))):
        with pytest.raises((TypeError, ValueError), match="`reference`"):
            one_photo(image, "reference")


def test_integers_of_another_byte_order_are_photos():
    native = np.random.default_rng(0).integers(0, 65536, (9, 11, 3)).astype(np.uint16)
    swapped = native.astype(native.dtype.newbyteorder("S"))
    assert np.shares_memory(as_photos(swapped)[0], swapped)
    assert np.array_equal(as_float(as_photos(swapped)[0]), as_float(native))


def test_tensors_with_gradients_are_photos():
    photo = as_photos(torch.rand(3, 8, 9, requires_grad=True))[0]
    assert not photo.requires_grad


@pytest.mark.filterwarnings("error")
def test_a_read_only_array_is_copied_where_torch_would_warn():
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        array = np.random.default_rng(0).random((9, 11, 3), np.float32)
        writeable = float_tensor(array)
        array.flags.writeable = False
        copied = float_tensor(array)
    finally:
        torch.set_warn_always(before)
    assert torch.equal(copied, writeable)
    assert writeable.data_ptr() == array.ctypes.data != copied.data_ptr()


def test_out_that_is_the_photo_turned_is_refused():
    """The same memory from the same place on, in another order: what is written would be read again."""
    photo = np.zeros((8, 8, 3), np.uint8)
    assert checked_out(photo, photo, photo) is photo
    with pytest.raises(ValueError, match="`out` must lie apart from `image`"):
        checked_out(photo.transpose(1, 0, 2), photo, photo)


def exif_block(*entries):
    """Tags (tag, type, count, four bytes) as a JPEG's EXIF."""
    rows = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4)


@pytest.mark.parametrize(
    "entries, turned",
    [
        ([(274, 3, 1, b"\x06\0\0\0"), (271, 2, 4, b"cam\0")], True),
        ([(274, 2, 4, b"abc\0"), (271, 2, 4, b"cam\0")], False),  # in words
        ([(274, 5, 1, b"\x08\0\0\0"), (271, 2, 4, b"cam\0")], False),  # a fraction
        ([(274, 1, 1, b"\x06\0\0\0"), (271, 2, 4, b"cam\0")], False),
        ([(256, 9, 1, b"\xff\xff\xff\xff"), (271, 2, 4, b"cam\0"), (274, 3, 1, b"\x06\0\0\0")], True),
        ([(274, 3, 1, b"\x09\0\0\0"), (271, 2, 4, b"cam\0")], False),
    ],
)
def test_exif_that_pillow_reads_and_cannot_write(entries, turned):
    file = io.BytesIO()
    Image.fromarray(np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)).save(
        file, "JPEG", exif=exif_block(*entries)
    )
    picture = Image.open(file)
    (photo,) = as_photos(picture)
    assert photo.shape == ((16, 8, 3) if turned else (8, 16, 3))
    result = as_picture(photo, picture)
    assert result.getexif()[274] == 1 and result.getexif()[271] == "cam"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_files_that_pillow_opens_are_turned_once(kind, orientation):
    """Some of them by Pillow, when their pixels are read."""
    samples = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    options = {"TIFF": {}, "PNG": {}, "WEBP": {"lossless": True}}.get(kind, {"quality": 100})
    Image.fromarray(samples).save(file, kind, exif=exif, **options)
    (photo,) = as_photos(Image.open(file))
    expected = turn(samples, orientation)
    assert photo.shape == expected.shape and np.abs(photo.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGB"])
def test_other_modes_become_rgb(mode):
    assert as_photos(Image.new(mode, (8, 9)))[0].shape == (9, 8, 3)


@pytest.mark.parametrize("width, height", [(1, 1), (7, 300), (401, 700), (200_000, 3)])
def test_pictures_come_and_go_as_pillow_and_numpy_convert_them(width, height):
    """Of more strips than one, too."""
    samples = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(samples)
    (photo,) = as_photos(picture)
    np.testing.assert_array_equal(photo, samples)
    for array in (photo, photo[::-1, ::2]):
        made = as_picture(array)
        assert made.mode == "RGB" and made.tobytes("raw", "RGBX") == Image.fromarray(array).tobytes("raw", "RGBX")
    photo[:] = 0  # a copy
    np.testing.assert_array_equal(picture, samples)


def test_a_retouch_needs_no_more_memory_than_one_copy_of_a_picture():
    picture, seen = Image.new("RGB", (9, 8), "teal"), []

    def retouch(photo, strength, out):
        seen.append((photo, out))
        return out if out is not None else photo

    for in_place in (True, False):
        retouch_one(retouch, picture, 1.0, in_place=in_place)
    (photo, out), (_, apart) = seen
    assert out is photo and apart is None
    assert picture.getpixel((0, 0)) == (0, 128, 128)


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
