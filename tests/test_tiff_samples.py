"""TIFF's kinds of pixels, each written by hand or by tifffile from the specification, read back by other libraries."""

import struct
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from diffretouch.photo import PhotoError, load_photo

SCENE = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)


def by_hand(path, entries, payload):
    """A TIFF of one strip: (tag, type, count, value) entries and what follows the directory at byte 512."""
    entries = sorted([*entries, (273, 4, 1, 512), (279, 4, 1, len(payload))])
    head = b"II*\0" + struct.pack("<LH", 8, len(entries)) + b"".join(struct.pack("<HHLL", *e) for e in entries)
    path.write_bytes((head + bytes(4)).ljust(512, b"\0") + payload)
    return path


@pytest.mark.parametrize("times", [1, 256, 257])
def test_a_palette_of_8_or_16_bits_is_the_same_colours(tmp_path, times):
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 77)])
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, index, photometric="palette", colormap=(colours * times).astype(np.uint16))
    pixels = load_photo(path).pixels
    np.testing.assert_array_equal(np.rint(pixels * 255).reshape(-1, 3), colours.T)


@pytest.mark.parametrize("across, down", [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_ycbcr_without_jpeg(tmp_path, across, down):
    luma, units = SCENE[:32, :44, 0], bytearray()
    for row in range(0, 32, down):
        for column in range(0, 44, across):
            units += luma[row : row + down, column : column + across].tobytes() + bytes([90, 160])
    entries = [(256, 4, 1, 44), (257, 4, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 6), (277, 3, 1, 3),
               (278, 4, 1, 32), (530, 3, 2, across | down << 16)]  # fmt: skip
    path = by_hand(tmp_path / "ycc.tif", entries, bytes(units))
    red = (luma + 1.402 * 32).clip(0, 255)
    assert np.abs(load_photo(path).pixels[..., 0] * 255 - red).max() < 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [8, 9])
def test_lab(tmp_path, kind, bits):
    lab = np.stack([SCENE[..., 0] * (100 / 255), SCENE[..., 1] / 4.0 - 32, SCENE[..., 2] / 4.0 - 32], 2)
    if kind == 9:
        scale = np.array([255 / 100 if bits == 8 else 652.8, 2 ** (bits - 8), 2 ** (bits - 8)])
        stored = (lab + [0, 128, 128]) * scale
    else:
        stored = lab * [(2**bits - 1) / 100, 2 ** (bits - 8), 2 ** (bits - 8)]
    stored = np.rint(stored).astype(np.int64).astype(f"u{bits // 8}")
    path = tmp_path / "lab.tif"
    tifffile.imwrite(path, stored, photometric=kind, planarconfig="contig")
    photo = load_photo(path)
    assert photo.bit_depth == bits and "L*a*b*" in photo.notes[0]
    # LittleCMS, from Pillow's Lab of 8 bits
    as_8_bits = np.rint(lab * [255 / 100, 1, 1]).astype(np.int8).view(np.uint8)
    image = Image.frombytes("LAB", (47, 33), as_8_bits.tobytes())
    lab_profile, srgb = ImageCms.createProfile("LAB", 5000), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab_profile, srgb, "LAB", "RGB", 1, flags=0x100)
    want = np.asarray(ImageCms.applyTransform(image, transform)).astype(float)
    assert np.abs(photo.pixels * 255 - want).max() < (3 if bits == 8 else 8)  # its steps are coarser


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alpha_that_is_no_first_further_channel(tmp_path, dtype):
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.random.default_rng(1).random((9, 7, 5))
    path = tmp_path / "further.tif"
    stored = (values * peak).astype(dtype)
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=[0, 2])
    photo = load_photo(path)
    np.testing.assert_allclose(photo.alpha, stored[..., 4] / peak, atol=1e-6)
    assert any("Further channels" in note for note in photo.notes)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_white_is_zero_with_alpha(tmp_path, premultiplied):
    alpha = np.array([[255, 128, 64]], np.uint8)
    grey = np.array([[10, 60, 200]], np.uint8)
    stored = np.rint(grey * (alpha / 255)) if premultiplied else grey
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, np.stack([stored.astype(np.uint8), alpha], 2), photometric=0, planarconfig="contig",
                     extrasamples=[1 if premultiplied else 2])  # fmt: skip
    photo = load_photo(path)
    np.testing.assert_allclose(photo.alpha, alpha / 255)
    assert np.abs(photo.pixels[..., 0] * 255 - (255 - grey)).max() <= (2 if premultiplied else 1e-4)


@pytest.mark.parametrize("kind, said", [(4, "mask"), (10, "L\\*a\\*b\\*"), (32803, "mosaic"), (32844, "LogL"),
                                        (32845, "LogLuv"), (12345, "unknown kind")])  # fmt: skip
def test_other_kinds_are_named(tmp_path, kind, said):
    entries = [(256, 4, 1, 8), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, kind), (277, 3, 1, 1),
               (278, 4, 1, 4)]  # fmt: skip
    with pytest.raises(PhotoError, match=f"{said}.*photometric {kind}"):
        load_photo(by_hand(tmp_path / "kind.tif", entries, bytes(32)))


def test_bytes_are_bounded_before_decoding(tmp_path):
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 8), np.float64), photometric="rgb", compression="zlib")
    load_photo(path, max_pixels=64 * 64 * 6)
    with pytest.raises(PhotoError, match="max_pixels"):
        load_photo(path, max_pixels=64 * 64 * 5)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 5}, {"tile": (16, 32)}, {"rowsperstrip": 1000}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", ["zlib", None])
def test_many_channels_and_doubles_are_decoded_as_tifffile_does(tmp_path, layout, planar, compression):
    path, generator = tmp_path / "many.tif", np.random.default_rng(0)
    for dtype, channels, alpha in ((np.float64, 3, None), (np.float64, 5, 1), (np.uint16, 6, 2), (np.uint8, 5, None)):
        values = generator.random((37, 45, channels))
        values = values if dtype == np.float64 else (values * np.iinfo(dtype).max).astype(dtype)
        kinds = [2 if n == alpha else 0 for n in range(channels - 3)]
        stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, extrasamples=kinds or None,
                         compression=compression, metadata=None, **layout)  # fmt: skip
        photo, peak = load_photo(path), 1 if dtype == np.float64 else np.iinfo(dtype).max
        np.testing.assert_allclose(photo.pixels, values[..., :3] / peak, atol=1e-6)
        assert (photo.alpha is None) == (alpha is None)
        if alpha is not None:
            np.testing.assert_allclose(photo.alpha, values[..., 3 + alpha] / peak, atol=1e-6)


def test_memory_follows_the_channels_that_are_used(tmp_path):
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((512, 1000, 8)), photometric="rgb", compression="zlib", rowsperstrip=16)
    tracemalloc.start()
    photo = load_photo(path)
    assert tracemalloc.get_traced_memory()[1] < 3 * photo.pixels.nbytes < 512 * 1000 * 64
    tracemalloc.stop()


def test_parts_larger_than_the_picture_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "tile.tif", np.zeros((100, 100, 3), np.uint8), tile=(4096, 4096), compression="zlib")
    jpeg = imagecodecs.jpeg8_encode(np.zeros((500, 400), np.uint8))
    entries = [(256, 4, 1, 8), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 1), (277, 3, 1, 1),
               (278, 4, 1, 4)]  # fmt: skip
    by_hand(tmp_path / "jpeg.tif", entries, jpeg)
    for name, said in (("tile.tif", "4096 x 4096 pixels are far larger"), ("jpeg.tif", "a picture of 400 x 500")):
        with pytest.raises(PhotoError, match=said):
            load_photo(tmp_path / name)
    for size in (100, 3000):  # as libtiff writes them: strips of any height, tiles at the edges
        picture = np.full((size, 64, 3), 99, np.uint8)
        for layout in ({"rowsperstrip": 16}, {"tile": (128, 128)}, {}):
            tifffile.imwrite(tmp_path / "usual.tif", picture, photometric="rgb", compression="jpeg", **layout)
            assert load_photo(tmp_path / "usual.tif").pixels.shape == picture.shape
