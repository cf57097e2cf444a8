"""TIFF files: floats, multiplied alpha, and every layout and kind."""

import numpy as np
import pytest
import tifffile

from diffretouch.photo import load_photo, save_photo

from .photo_files import ALPHA8, RGB8, RGB16, random, read, write


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_float_tiff_keeps_values_outside_the_range(dtype, tmp_path):
    array = (random.random((20, 30, 3)) * 4 - 1).astype(dtype)
    photo = load_photo(write(tmp_path / "in.tif", array, photometric="rgb"))
    assert photo.bit_depth == 32 and photo.pixels.max() > 2 and any("float" in note for note in photo.notes)
    save_photo(photo, tmp_path / "out.tif")
    assert np.array_equal(read(tmp_path / "out.tif"), array.astype(np.float32))
    save_photo(photo, tmp_path / "out.png", bit_depth=16)
    assert np.array_equal(read(tmp_path / "out.png"), np.rint(array.astype(np.float32).clip(0, 1) * 65535))


def test_multiplied_alpha_is_divided_out(tmp_path):
    alpha = np.maximum(ALPHA8, 1) / 255
    array = np.rint(np.concatenate([RGB8 / 255 * alpha, alpha], 2) * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    photo = load_photo(tmp_path / "in.tif")
    assert photo.bit_depth == 16 and np.abs(photo.pixels - RGB8 / 255).max() < 3e-3
    assert any("multiplied by alpha" in note for note in photo.notes)


@pytest.mark.parametrize(
    "options",
    [{"compression": "adobe_deflate", "predictor": True, "tile": (16, 16)}, {"compression": "lzw"},
     {"compression": "zstd"}, {"byteorder": ">"}, {"bigtiff": True}, {"planarconfig": "separate"},
     {"rowsperstrip": 3}],
)  # fmt: skip
def test_tiff_layouts(options, tmp_path):
    array = np.moveaxis(RGB16, 2, 0).copy() if "planarconfig" in options else RGB16
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="rgb", **options)
    save_photo(load_photo(tmp_path / "in.tif"), tmp_path / "out.tif")
    assert np.array_equal(read(tmp_path / "out.tif"), RGB16)


def test_tiff_kinds(tmp_path):
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, RGB8[..., 0], photometric="miniswhite")
    assert np.array_equal(np.rint(load_photo(path).pixels[..., 0] * 255), 255 - RGB8[..., 0])
    tifffile.imwrite(path, RGB8[..., 0], photometric="palette", colormap=RGB16.reshape(-1)[:768].reshape(3, 256))
    assert load_photo(path).bit_depth == 8
    tifffile.imwrite(path, np.kron(RGB8, np.ones((4, 4, 1), np.uint8)), photometric="ycbcr", compression="jpeg")
    assert not load_photo(path).grey
    tifffile.imwrite(path, np.dstack([RGB8, RGB8[..., :1]]), photometric="rgb", extrasamples=["unspecified"])
    photo = load_photo(path)
    assert photo.alpha is None and "not carried" in photo.notes[0]
    tifffile.imwrite(path, np.full((32, 32, 3), (128, 128, 128), np.uint8), photometric="ycbcr", compression="lzw")
    assert np.abs(load_photo(path).pixels - 128 / 255).max() < 0.01
