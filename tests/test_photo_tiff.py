"""TIFF files: floats, multiplied alpha, and every layout and kind."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.photo import icc, load_photo, save_photo

from .photo_files import ALPHA8, RGB8, RGB16, random, read, write
from .test_photo_png import png_with


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


def test_colours_by_chromaticities(tmp_path):
    def rationals(*values):
        return [number for value in values for number in (round(value * 1e6), 1_000_000)]

    def load(primaries, *further):
        points = [(318, "2I", 2, rationals(0.3127, 0.329), True), (319, "2I", 6, primaries, True)]
        return load_photo(write(tmp_path / "in.tif", RGB8, photometric="rgb", extratags=[*points, *further]))

    assert load(rationals(0.64, 0.33, 0.3, 0.6, 0.15, 0.06)).notes == ()
    wide = load(rationals(0.68, 0.32, 0.265, 0.69, 0.15, 0.06))
    seen = icc.to_srgb(RGB8 / np.float32(255), icc.chromatic_profile(icc.PRIMARIES[12], (0.3127, 0.329), None))
    np.testing.assert_allclose(wide.pixels, seen, atol=1e-5)
    assert "white point and primaries; it is saved with a profile" in wide.notes[0]
    save_photo(wide, tmp_path / "out.tif")
    assert np.abs(read(tmp_path / "out.tif").astype(int) - RGB8).max() <= 1
    for damaged in (rationals(0, 0, 0, 0, 0, 0), [0] * 12):
        photo = load(damaged)
        assert photo.icc_profile is None and "were not used" in photo.notes[0]
    usual = (np.linspace(0, 1, 256) ** 2.2 * 65535).astype(int).tolist()
    srgb = rationals(0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    assert load(srgb, (301, "H", 768, usual * 3, True)).notes == ()
    assert "transfer function was not used" in load(srgb, (301, "H", 256, usual[::-1], True)).notes[0]


def test_pixels_that_are_not_square_are_said(tmp_path):
    sentence = "Its pixels are said not to be square ({} to {}); that was not carried."
    for across, notes in ((72, ()), (36, (sentence.format(36, 72),))):
        write(tmp_path / "in.tif", RGB8, photometric="rgb", resolution=(across, 72), resolutionunit=1)
        png_with(tmp_path / "in.png", (b"pHYs", struct.pack(">LLB", across, 72, 0)))
        jpeg = io.BytesIO()
        Image.fromarray(RGB8).save(jpeg, "JPEG")
        (tmp_path / "in.jpg").write_bytes(
            jpeg.getvalue()[:13] + struct.pack(">BHH", 0, across, 72) + jpeg.getvalue()[18:]
        )
        for suffix in (".tif", ".png", ".jpg"):
            assert load_photo(tmp_path / f"in{suffix}").notes == notes
