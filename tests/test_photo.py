"""Photo files: what goes in comes out, read back by other libraries; what cannot is said; nothing half-done stays."""

import dataclasses
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from diffretouch import __version__
from diffretouch.photo import Photo, PhotoError, icc, load_photo, photoshop, read_photo, save_photo, xmp
from diffretouch.photo import exif as exif_blocks

from .bad_inputs import BAD_INPUTS, make
from .test_icc import cmyk_profile
from .test_metadata import XMP, camera_exif, exiftool
from .tiny import tiny_pipeline

PHOTOS = Path(__file__).parent / "photos"
CITY = PHOTOS / "gb82_city-lossless.jpg"
random = np.random.default_rng(0)
RGB8 = random.integers(0, 256, (37, 53, 3), dtype=np.uint8)
RGB16 = random.integers(0, 65536, (37, 53, 3), dtype=np.uint16)
ALPHA8 = random.integers(0, 256, (37, 53, 1), dtype=np.uint8)


def write(path, array, **options):
    """Write an array with tifffile, imagecodecs (16-bit PNG) or Pillow."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    elif array.dtype == np.uint16:
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    else:
        Image.fromarray(array).save(path, **options)
    return path


def read(path):
    """Read the samples with another library than `load_photo` uses where there is one."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".png":
        return imagecodecs.png_decode(path.read_bytes())
    with Image.open(path) as image:
        return np.asarray(image)


def chunk(name, data):
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


# What goes in comes out


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("array", [RGB8, RGB16, np.concatenate([RGB8, ALPHA8], 2), RGB8[..., 0], RGB16[..., 0],
                                   np.dstack([RGB16, RGB16[..., :1]])],
                         ids=["rgb8", "rgb16", "rgba8", "grey8", "grey16", "rgba16"])  # fmt: skip
def test_lossless_formats_keep_every_value(array, suffix, tmp_path):
    channels = array.shape[2] if array.ndim == 3 else 1
    options = {}
    if suffix == ".tif":
        options = {"photometric": "rgb" if channels > 1 else "minisblack"}
        options["extrasamples"] = ["unassalpha"] if channels == 4 else None
    photo = load_photo(write(tmp_path / f"in{suffix}", array, **options))
    assert photo.pixels.dtype == np.float32 and photo.pixels.shape == (37, 53, 3)
    assert photo.bit_depth == 8 * array.itemsize and photo.grey == (channels == 1)
    assert (photo.alpha is not None) == (channels == 4)
    peak = np.iinfo(array.dtype).max
    np.testing.assert_allclose(photo.pixels[..., 1], (array if channels == 1 else array[..., 1]) / peak, atol=1e-7)
    for out in (tmp_path / "out.png", tmp_path / "out.tif"):
        save_photo(photo, out)
        written = read(out)
        assert written.dtype == array.dtype and np.array_equal(written, array)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_float_tiff_keeps_values_outside_the_range(dtype, tmp_path):
    array = (random.random((20, 30, 3)) * 4 - 1).astype(dtype)
    photo = load_photo(write(tmp_path / "in.tif", array, photometric="rgb"))
    assert photo.bit_depth == 32 and photo.pixels.max() > 2 and any("float" in note for note in photo.notes)
    save_photo(photo, tmp_path / "out.tif")
    assert np.array_equal(read(tmp_path / "out.tif"), array.astype(np.float32))
    save_photo(photo, tmp_path / "out.png", bit_depth=16)
    assert np.array_equal(read(tmp_path / "out.png"), np.rint(array.astype(np.float32).clip(0, 1) * 65535))


@pytest.mark.parametrize("suffix, decibels", [(".jpg", 38), (".webp", 30), (".avif", 35)])
@pytest.mark.parametrize("name", ["gb82_dog-lossless.jpg", "budgie_lake-sherburne.jpg"])
def test_lossy_formats_stay_near(name, suffix, decibels, tmp_path):
    photo = load_photo(PHOTOS / name)
    save_photo(photo, tmp_path / f"out{suffix}")
    again = load_photo(tmp_path / f"out{suffix}")
    assert -10 * np.log10(np.square(again.pixels - photo.pixels).mean()) > decibels
    assert again.icc_profile == icc.srgb_profile()


def test_webp_of_quality_100_is_lossless_also_under_alpha(tmp_path):
    photo = load_photo(write(tmp_path / "in.png", np.concatenate([RGB8, ALPHA8], 2)))
    save_photo(photo, tmp_path / "out.webp", quality=100)
    assert np.array_equal(read(tmp_path / "out.webp"), np.concatenate([RGB8, ALPHA8], 2))


@pytest.mark.parametrize("kind", ["plain", "alpha", "moving", "lossy"])
def test_webp_without_loss_stays_so(kind, tmp_path):
    codes = np.concatenate([RGB8, ALPHA8], 2) if kind == "alpha" else RGB8
    options = {"save_all": True, "append_images": [Image.fromarray(255 - RGB8)]} if kind == "moving" else {}
    Image.fromarray(codes).save(tmp_path / "in.webp", lossless=kind != "lossy", exact=True, **options)
    photo = load_photo(tmp_path / "in.webp")
    save_photo(photo, tmp_path / "out.webp")
    assert photo.lossless == (kind != "lossy") == np.array_equal(read(tmp_path / "out.webp"), codes)
    save_photo(photo, tmp_path / "small.webp", quality=50)
    assert (tmp_path / "small.webp").stat().st_size < (tmp_path / "out.webp").stat().st_size


@pytest.mark.parametrize("quality, subsampling, progressive", [(60, 2, True), (85, 1, False), (97, 0, False)])
def test_jpeg_keeps_tables_subsampling_and_progression(quality, subsampling, progressive, tmp_path):
    from PIL.JpegImagePlugin import get_sampling

    with Image.open(CITY) as image:
        image.save(tmp_path / "in.jpg", quality=quality, subsampling=subsampling, progressive=progressive)
    save_photo(load_photo(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.quantization == before.quantization
        assert get_sampling(after) == subsampling and ("progressive" in after.info) == progressive
    save_photo(load_photo(tmp_path / "in.jpg"), tmp_path / "small.jpg", quality=10)
    assert (tmp_path / "small.jpg").stat().st_size < (tmp_path / "out.jpg").stat().st_size


@pytest.mark.parametrize("array, bit_depth", [(RGB8, 8), (RGB16, 16), (RGB8 / 255, 8), ((RGB8 / 255).astype("f4"), 8),
                                              (Image.fromarray(RGB8), 8)])  # fmt: skip
def test_arrays_are_saved_as_they_are(array, bit_depth, tmp_path):
    save_photo(array, tmp_path / "out.png")
    expected = RGB16 if bit_depth == 16 else RGB8
    assert np.array_equal(read(tmp_path / "out.png"), expected)
    assert read(tmp_path / "out.png").dtype == expected.dtype


STAYS_8_BITS = {  # name, array, what its file says: what is in sRGB needs no floats
    "plain.png": (RGB8, {}),
    "srgb.jpg": (RGB8, {"icc_profile": icc.srgb_profile(), "quality": 90}),
    "turned.jpg": (RGB8, {"exif": camera_exif("<", 6).tobytes(), "subsampling": 2}),
    "alpha.webp": (np.concatenate([RGB8, ALPHA8], 2), {"lossless": True}),
    "grey.png": (RGB8[..., 0], {}),
    "grey.jpg": (RGB8[..., 1], {}),
    "tagged.tif": (RGB8, {"photometric": "rgb", "iccprofile": icc.srgb_profile()}),
}
BECOMES_FLOAT = {
    "wide.png": (RGB8, {"icc_profile": icc.adobe_rgb_profile()}),
    "deep.tif": (RGB16, {"photometric": "rgb"}),
    "float.tif": ((RGB8 / 255).astype("f4"), {"photometric": "rgb"}),
    "ink.tif": (np.concatenate([RGB8, ALPHA8], 2), {"photometric": "separated"}),
    "bits.tif": (RGB8 > 99, {"photometric": "rgb"}),
}


@pytest.mark.parametrize("name", STAYS_8_BITS | BECOMES_FLOAT)
def test_8_bits_in_srgb_can_stay_8_bits(name, tmp_path):
    array, options = (STAYS_8_BITS | BECOMES_FLOAT)[name]
    photo = load_photo(write(tmp_path / name, array, **options))
    kept = read_photo(tmp_path / name, keep_8_bits=True)
    assert photo.pixels.dtype == np.float32 and photo.pixels.flags.c_contiguous
    assert kept.pixels.dtype == (np.uint8 if name in STAYS_8_BITS else np.float32)
    pixels = np.divide(kept.pixels, 255 if name in STAYS_8_BITS else 1, dtype=np.float32)
    assert np.array_equal(pixels, photo.pixels)
    assert kept.pixels.flags.writeable and kept.pixels.flags.c_contiguous
    for field in dataclasses.fields(Photo):
        if field.name != "pixels":
            assert np.array_equal(getattr(kept, field.name), getattr(photo, field.name)), field.name


@pytest.mark.parametrize("name", STAYS_8_BITS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("options", [{}, {"dither": True}, {"background": (0.2, 0.5, 0.9)}], ids=str)
def test_integers_make_the_files_of_their_floats(name, suffix, options, tmp_path):
    array, saved = STAYS_8_BITS[name]
    photo = read_photo(write(tmp_path / name, array, **saved), keep_8_bits=True)
    if photo.alpha is not None and suffix == ".jpg" and not options.get("background"):
        photo.alpha = None
    before = photo.pixels.copy()
    save_photo(photo, tmp_path / f"integers{suffix}", **options)
    assert np.array_equal(photo.pixels, before)
    photo.pixels = np.divide(photo.pixels, 255, dtype=np.float32)
    save_photo(photo, tmp_path / f"floats{suffix}", **options)
    assert (tmp_path / f"integers{suffix}").read_bytes() == (tmp_path / f"floats{suffix}").read_bytes()


@pytest.mark.parametrize("array, source, bit_depth", [
    (RGB8, {"icc_profile": icc.adobe_rgb_profile()}, 8), (RGB8, {"bit_depth": 16}, 16), (RGB8, {"bit_depth": 32}, 32),
    (RGB16, {}, 8), (RGB16, {"icc_profile": icc.adobe_rgb_profile(), "codes": RGB16}, 16),
    (np.asfortranarray(RGB8), {}, 8), (RGB8[..., ::-1], {}, 8),
    (RGB8[..., :1].repeat(3, 2), {"grey": True, "icc_profile": icc.adobe_rgb_profile()}, 8),
])  # fmt: skip
def test_integers_are_converted_as_their_floats(array, source, bit_depth, tmp_path):
    floats = np.divide(array, np.iinfo(array.dtype).max, dtype=np.float32)
    for name, pixels in (("integers", array), ("floats", floats)):
        like = Photo(pixels, **{"bit_depth": bit_depth, **source})
        save_photo(pixels, tmp_path / f"{name}.tif", like=like, bit_depth=bit_depth)
    assert (tmp_path / "integers.tif").read_bytes() == (tmp_path / "floats.tif").read_bytes()


def test_noise_is_saved_as_progressive_jpeg_or_said_not_to_be(tmp_path):
    jpeg = {"qtables": [[1] * 64] * 2, "subsampling": 0, "progressive": True}
    photo = Photo(random.random((300, 300, 3), np.float32), jpeg=jpeg)
    with pytest.warns(UserWarning, match="progressive"):
        save_photo(photo, tmp_path / "out.jpg")
    assert np.abs(load_photo(tmp_path / "out.jpg").pixels - photo.pixels).max() < 0.02


def test_values_are_rounded_and_held_in_range(tmp_path):
    pixels = np.array([[[0.0019, 0.0020, 0.9981], [-3, 0.5, 7]]])
    save_photo(pixels, tmp_path / "out.png")
    assert read(tmp_path / "out.png").tolist() == [[[0, 1, 255], [0, 128, 255]]]


def test_dither_keeps_the_mean_of_a_flat_tone(tmp_path):
    pixels = np.full((200, 200, 3), 100.25 / 255, np.float32)
    pixels[:20] = 0
    save_photo(pixels, tmp_path / "out.png", dither=True)
    codes = read(tmp_path / "out.png")
    assert codes[20:].mean() == pytest.approx(100.25, abs=0.02) and len(np.unique(codes[20:])) >= 3
    assert codes[:20].max() == 0
    save_photo(pixels, tmp_path / "again.png", dither=True)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_like_gives_a_retouch_what_its_source_carried(tmp_path):
    source = load_photo(write(tmp_path / "in.png", np.dstack([RGB16, RGB16[..., :1]])))
    save_photo(source.pixels * 0.5, tmp_path / "out.png", like=source)
    written = read(tmp_path / "out.png")
    assert written.dtype == np.uint16 and np.array_equal(written[..., 3], RGB16[..., 0])
    assert np.abs(written[..., :3].astype(int) * 2 - RGB16).max() <= 1


# What stands beside the pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_orientation_is_applied_and_reset(orientation, suffix, tmp_path):
    exif = camera_exif(orientation=orientation)
    path = tmp_path / f"in{suffix}"
    if suffix == ".tif":
        Image.fromarray(RGB8).save(path, tiffinfo={274: orientation})
    else:
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(RGB8).save(path, exif=b"Exif\0\0" + exif.tobytes(), **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = load_photo(path)
    assert np.array_equal(np.rint(photo.pixels * 255), expected)
    assert exif_blocks.parse_exif(photo.exif).orientation == 1
    save_photo(photo, tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif().get(274, 1) == 1 and image.size == expected.shape[1::-1]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_exif_tags_stay_equal_except_those_that_must_change(suffix, order, tmp_path):
    iptc = b"\x1c\x02\x69\0\4Head"
    with Image.open(CITY) as image:
        image.crop((0, 0, 60, 40)).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + camera_exif(order).tobytes(), xmp=XMP,
                                        extra=photoshop.segments(iptc, None)[0])  # fmt: skip
    photo = load_photo(tmp_path / "in.jpg")
    assert photo.iptc == iptc and photo.pixels.shape == (60, 40, 3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save_photo(photo, tmp_path / f"out{suffix}", description="brighter")
    assert [warning.message.args[0].endswith("could not hold IPTC.") for warning in said] == (
        [True] if suffix in (".webp", ".avif") else [])  # fmt: skip
    again = load_photo(tmp_path / f"out{suffix}")
    assert again.description == "brighter" and b"<tiff:Make>Canon" in again.xmp
    assert again.iptc == (None if said else iptc)
    before, after = exif_blocks.parse_exif(photo.exif), exif_blocks.parse_exif(again.exif)
    assert after.image[exif_blocks.SOFTWARE] == (2, f"diffretouch {__version__}\0".encode())
    for tag in {exif_blocks.SOFTWARE, exif_blocks.ORIENTATION, 282, 283, 296}:
        before.image.pop(tag, None), after.image.pop(tag, None)
    assert after.image == before.image and after.gps == before.gps and after.interop == before.interop
    assert before.photo.keys() == after.photo.keys()
    assert {tag for tag in after.photo if before.photo[tag] != after.photo[tag]} == {
        exif_blocks.WIDTH,
        exif_blocks.HEIGHT,
    }

    tags, expected = exiftool(tmp_path / f"out{suffix}"), exiftool(tmp_path / "in.jpg")
    changed = {key for key in expected if tags.get(key) != expected[key] and not (said and key.startswith("IPTC"))}
    assert changed == {"IFD0:Orientation", "ExifIFD:ExifImageWidth", "ExifIFD:ExifImageHeight", "XMP-tiff:Orientation"}
    assert "ExifTool:Warning" not in tags


def test_metadata_can_be_left_out(tmp_path):
    with Image.open(CITY) as image:
        exif = b"Exif\0\0" + camera_exif().tobytes()
        image.save(tmp_path / "in.jpg", exif=exif, xmp=XMP, comment=b"hello", dpi=(300, 300))
    photo = load_photo(tmp_path / "in.jpg")
    assert photo.text == {"Comment": "hello"} and photo.dpi == (300, 300)
    save_photo(photo, tmp_path / "out.jpg", keep_metadata=False)
    bare = load_photo(tmp_path / "out.jpg")
    assert (bare.exif, bare.xmp, bare.iptc, bare.text, bare.dpi) == (None, None, None, {}, None)
    save_photo(photo, tmp_path / "out.png")
    assert load_photo(tmp_path / "out.png").text == photo.text
    assert load_photo(tmp_path / "out.png").dpi == pytest.approx((300, 300), abs=0.01)
    with pytest.warns(UserWarning, match="TIFF could not hold text"):
        save_photo(photo, tmp_path / "out.tif")
    assert load_photo(tmp_path / "out.tif").dpi == (300, 300)


def test_metadata_too_large_for_jpeg_is_named(tmp_path):
    exif = camera_exif()
    exif.photo[exif_blocks.MAKER_NOTE] = (7, bytes(70000))
    huge = XMP.replace(b"Canon", b"C" * 70000).replace(b"<rdf:RDF", b'<rdf:RDF xmlns:a="a"')
    photo = Photo(RGB8 / np.float32(255), exif=exif.tobytes(), xmp=huge, iptc=b"\x1c" * 70000,
                  text={"Comment": "c" * 70000})  # fmt: skip
    lost = "the maker note, IPTC of 70000 bytes, a comment of 70000 bytes"
    with pytest.warns(UserWarning, match=f"JPEG could not hold {lost}"):
        save_photo(photo, tmp_path / "out.jpg")
    again = load_photo(tmp_path / "out.jpg")
    assert 271 in exif_blocks.parse_exif(again.exif).image and b"C" * 70000 in again.xmp_extension
    photo.text.clear()
    for suffix in (".png", ".tif"):
        save_photo(photo, tmp_path / f"out{suffix}")
        again = load_photo(tmp_path / f"out{suffix}")
        assert len(again.xmp) > 70000 and again.iptc == photo.iptc


def test_xmp_too_long_for_one_segment_of_a_jpeg_is_extended(tmp_path):
    """As other programs write it and read it, and joined where a format holds it whole."""
    (tmp_path / "long.txt").write_text("long" * 40_000)
    shutil.copy(CITY, tmp_path / "in.jpg")
    exiftool(tmp_path / "in.jpg")  # skips where it is missing
    command = ["exiftool", "-overwrite_original", "-XMP-dc:Description<=" + str(tmp_path / "long.txt"),
               "-XMP-dc:Title=Short", tmp_path / "in.jpg"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    photo = load_photo(tmp_path / "in.jpg")
    assert not photo.notes and len(photo.xmp) < 10_000 < 160_000 < len(photo.xmp_extension)
    for suffix in (".png", ".tif", ".webp", ".avif", ".jpg"):
        save_photo(photo, tmp_path / f"out{suffix}", description="brighter")
        again = load_photo(tmp_path / f"out{suffix}")
        assert again.description == "brighter" and again.xmp_extension == (
            photo.xmp_extension if suffix == ".jpg" else None
        )
        save_photo(again, tmp_path / f"again{suffix}.jpg", description="darker")
        for path in (tmp_path / f"out{suffix}", tmp_path / f"again{suffix}.jpg"):
            tags = exiftool(path)
            assert tags["XMP-dc:Title"] == "Short" and tags["XMP-dc:Description"] == "long" * 40_000
            assert "ExifTool:Warning" not in tags
        assert load_photo(tmp_path / f"again{suffix}.jpg").description == "darker"
    save_photo(photo, tmp_path / "bare.jpg", keep_metadata=False)
    assert load_photo(tmp_path / "bare.jpg").xmp_extension is None

    data = (tmp_path / "in.jpg").read_bytes()
    place = data.rfind(xmp.EXTENSION)
    (tmp_path / "in.jpg").write_bytes(data[:place] + b"x" + data[place + 1 :])
    photo = load_photo(tmp_path / "in.jpg")
    assert photo.xmp_extension is None and "parts of the extended XMP are missing" in " ".join(photo.notes)


def test_old_thumbnails_in_extended_xmp_are_left_out(tmp_path):
    photo = Photo(RGB8 / np.float32(255), xmp=XMP.replace(b">old<", b">" + b"o" * 70_000 + b"<"))
    save_photo(photo, tmp_path / "in.jpg")
    assert b"ooo" in (tmp_path / "in.jpg").read_bytes()
    photo = load_photo(tmp_path / "in.jpg")
    assert len(photo.xmp_extension) < 1000 and not photo.notes
    save_photo(photo, tmp_path / "out.jpg")
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["XMP-tiff:Make"] == "Canon" and "ExifTool:Warning" not in tags


def test_damaged_metadata_is_left_out_and_named(tmp_path):
    with Image.open(CITY) as image:
        image.save(tmp_path / "in.jpg", exif=b"Exif\0\0no directory", xmp=b"<broken", icc_profile=b"x" * 300,
                   extra=photoshop.segments(b"rubbish", None)[0])  # fmt: skip
    photo = load_photo(tmp_path / "in.jpg")
    assert (photo.exif, photo.xmp, photo.iptc, photo.icc_profile) == (None, None, None, None)
    png = imagecodecs.png_encode(RGB16)
    damaged = chunk(b"iCCP", b"ICC\0\0rubbish") + chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(b"x"))
    (tmp_path / "in.png").write_bytes(png[:33] + damaged + png[33:])
    assert len([note for note in load_photo(tmp_path / "in.png").notes if "damaged" in note]) == 2
    assert [name in " ".join(photo.notes) for name in ("EXIF", "XMP", "IPTC", "ICC")] == [True] * 4
    save_photo(photo, tmp_path / "out.jpg")


# Colours


def table_profile():
    return icc.cicp_profile(12, 13)  # Display P3 with its curve as a table


@pytest.mark.parametrize("profile", [icc.adobe_rgb_profile, table_profile])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_wide_gamut_comes_back_in_its_own_profile(profile, suffix, tmp_path):
    with Image.open(PHOTOS / "gb82_flowers-lossless.jpg") as image:
        codes = np.asarray(image)
        image.save(tmp_path / f"in{suffix}", icc_profile=profile())
    photo = load_photo(tmp_path / f"in{suffix}")
    assert photo.pixels.min() < -0.01 and photo.icc_profile == profile()
    save_photo(photo, tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert np.array_equal(np.asarray(image), codes) and image.info["icc_profile"] == profile()
    save_photo(photo, tmp_path / f"srgb{suffix}", keep_profile=False)
    with Image.open(tmp_path / f"srgb{suffix}") as image:
        assert image.info["icc_profile"] == icc.srgb_profile()
        assert np.array_equal(np.asarray(image), np.rint(photo.pixels.clip(0, 1) * 255))


def test_wide_gamut_of_16_bits_moves_by_less_than_a_sixth_of_an_8_bit_level(tmp_path):
    for profile, share in ((icc.adobe_rgb_profile(), 0.01), (table_profile(), 0.5)):
        with Image.open(PHOTOS / "gb82_flowers-lossless.jpg") as image:
            codes = np.asarray(image).astype(np.uint16) * 257 + random.integers(-90, 90, (256, 256, 3))
        codes = codes.clip(0, 65535).astype(np.uint16)
        tifffile.imwrite(tmp_path / "in.tif", codes, photometric="rgb", iccprofile=profile)
        photo = dataclasses.replace(load_photo(tmp_path / "in.tif"), codes=None)  # as if every pixel had changed
        save_photo(photo, tmp_path / "out.tif", overwrite=True)
        moved = np.abs(read(tmp_path / "out.tif").astype(int) - codes)
        assert moved.max() <= 40 and (moved > 1).mean() < share


@pytest.mark.parametrize("profile", [icc.adobe_rgb_profile, table_profile, None], ids=["adobe", "table", "grey"])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_what_does_not_change_keeps_its_very_values_in_16_bits(profile, suffix, tmp_path):
    """A strength of 0 too, although its pixels make a trip through the model's arithmetic."""
    if profile is None:
        profile_bytes, codes = (
            imagecodecs.cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.8),
            RGB16[..., 0],
        )
    else:
        profile_bytes, codes = profile(), RGB16
    options = {"photometric": "minisblack" if codes.ndim == 2 else "rgb", "iccprofile": profile_bytes}
    tifffile.imwrite(tmp_path / "in.tif", codes, **options)
    photo = load_photo(tmp_path / "in.tif")
    pipe = tiny_pipeline()
    same = pipe.apply_grid(photo.pixels, pipe.predict_grid(photo.pixels), strength=0.0)
    save_photo(same, tmp_path / f"out{suffix}", like=photo)
    assert np.array_equal(read(tmp_path / f"out{suffix}"), codes)
    photo.pixels[:10] = photo.pixels[:10] * 0.9  # changed in place: only there the values are new
    save_photo(photo, tmp_path / f"part{suffix}")
    written = read(tmp_path / f"part{suffix}").astype(int)
    assert np.array_equal(written[10:], codes[10:]) and (written[:10] < codes[:10]).mean() > 0.95
    save_photo(photo, tmp_path / f"srgb{suffix}", keep_profile=False)
    if codes.ndim == 3:
        expected = np.rint(photo.pixels.clip(0, 1) * 65535)
        assert np.array_equal(read(tmp_path / f"srgb{suffix}"), expected)


def test_files_of_killed_processes_are_removed(tmp_path):
    from diffretouch.photo import encoders

    code = f"""
import os, signal
from diffretouch.photo import encoders
with encoders.new_file({str(tmp_path / "out.png")!r}) as file:
    os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert len(list(tmp_path.iterdir())) == 1
    with encoders.new_file(tmp_path / "mine.png"):  # a process at work keeps its own
        assert encoders.remove_abandoned(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_cameras_adobe_rgb_without_profile(tmp_path):
    exif = camera_exif(orientation=1)
    exif.interop[1] = (2, b"R03\0")
    exif.put(exif.photo, exif_blocks.COLOR_SPACE, 65535)
    Image.fromarray(RGB8).save(tmp_path / "in.png", exif=b"Exif\0\0" + exif.tobytes())
    photo = load_photo(tmp_path / "in.png")
    assert photo.icc_profile == icc.adobe_rgb_profile() and "Adobe RGB" in photo.notes[0]
    save_photo(photo, tmp_path / "srgb.png", keep_profile=False)
    again = load_photo(tmp_path / "srgb.png")
    assert not exif_blocks.parse_exif(again.exif).is_adobe_rgb and again.icc_profile == icc.srgb_profile()
    assert exif_blocks.parse_exif(again.exif).photo[exif_blocks.COLOR_SPACE] == (3, b"\1\0")


def test_profiles_of_grey(tmp_path):
    profile = imagecodecs.cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.8)
    tifffile.imwrite(tmp_path / "in.tif", RGB16[..., 0], photometric="minisblack", iccprofile=profile)
    photo = load_photo(tmp_path / "in.tif")
    save_photo(photo, tmp_path / "out.tif")
    assert np.abs(read(tmp_path / "out.tif").astype(int) - RGB16[..., 0]).max() <= 1
    assert load_photo(tmp_path / "out.tif").icc_profile == profile
    photo.pixels[0, 0] = (1, 0, 0)  # no longer neutral
    save_photo(photo, tmp_path / "colour.tif")
    assert read(tmp_path / "colour.tif").shape == (37, 53, 3)
    assert load_photo(tmp_path / "colour.tif").icc_profile == icc.srgb_profile()
    Image.fromarray(RGB8[..., 0]).save(tmp_path / "srgb.png", icc_profile=icc.srgb_profile())
    save_photo(load_photo(tmp_path / "srgb.png"), tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), RGB8[..., 0])


def test_cmyk_is_converted_and_said(tmp_path):
    Image.fromarray(RGB8).convert("CMYK").save(tmp_path / "in.jpg", quality=100, subsampling=0)
    photo = load_photo(tmp_path / "in.jpg")
    assert "CMYK" in photo.notes[0] and photo.jpeg is None
    with Image.open(tmp_path / "in.jpg") as image:
        assert np.abs(photo.pixels * 255 - np.asarray(image.convert("RGB"))).max() < 2
    inks = random.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated")
    pixels = load_photo(tmp_path / "in.tif").pixels
    np.testing.assert_allclose(pixels, (1 - inks[..., :3] / 65535) * (1 - inks[..., 3:] / 65535), atol=1e-6)
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated", iccprofile=cmyk_profile())
    photo = load_photo(tmp_path / "in.tif")
    assert photo.icc_profile is None and "CMYK" in photo.notes[0] and photo.bit_depth == 16
    assert np.array_equal(photo.pixels, icc.to_srgb((inks / 65535).astype(np.float32), cmyk_profile()))


def test_code_points_of_a_gamut_become_its_profile(tmp_path):
    png = imagecodecs.png_encode(RGB16)
    (tmp_path / "p3.png").write_bytes(png[:33] + chunk(b"cICP", bytes([12, 13, 0, 1])) + png[33:])
    assert load_photo(tmp_path / "p3.png").icc_profile == table_profile()


# Alpha and the shapes that files come in


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
def test_alpha_is_carried(suffix, tmp_path):
    photo = load_photo(write(tmp_path / "in.png", np.concatenate([RGB8, ALPHA8], 2)))
    save_photo(photo, tmp_path / f"out{suffix}", quality=100 if suffix in (".webp", ".avif") else None)
    again = load_photo(tmp_path / f"out{suffix}")
    assert np.abs(again.alpha - photo.alpha).max() <= (2 / 255 if suffix == ".avif" else 0)


def test_alpha_and_jpeg(tmp_path):
    photo = load_photo(write(tmp_path / "in.png", np.concatenate([RGB8, ALPHA8], 2)))
    with pytest.raises(ValueError, match="`background`"):
        save_photo(photo, tmp_path / "out.jpg")
    save_photo(photo, tmp_path / "out.jpg", background=(1, 1, 1), quality=100)
    with Image.open(tmp_path / "in.png") as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
    assert np.abs(read(tmp_path / "out.jpg").astype(int) - np.asarray(white)[..., :3]).max() <= 6
    photo.alpha[:] = 1  # opaque: nothing is lost
    save_photo(photo, tmp_path / "opaque.jpg")


def test_multiplied_alpha_is_divided_out(tmp_path):
    alpha = np.maximum(ALPHA8, 1) / 255
    array = np.rint(np.concatenate([RGB8 / 255 * alpha, alpha], 2) * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    photo = load_photo(tmp_path / "in.tif")
    assert photo.bit_depth == 16 and np.abs(photo.pixels - RGB8 / 255).max() < 3e-3
    assert any("multiplied by alpha" in note for note in photo.notes)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.filterwarnings("ignore:Saving I mode")
def test_modes(mode, suffix, tmp_path):
    image = Image.fromarray(RGB8)
    if mode in ("I", "I;16", "F"):
        image = Image.fromarray((RGB16[..., 0] // 2).astype({"I": "i4", "I;16": "u2", "F": "f4"}[mode]))
    elif mode == "PA":
        image = image.convert("P")
        image.info["transparency"] = 3
    elif mode == "LA":
        image = image.convert("L").convert("LA")
    else:
        image = image.convert(mode)
    try:
        image.save(tmp_path / f"in{suffix}")
    except (OSError, ValueError):
        pytest.skip(f"Pillow does not write {mode} as {suffix}")
    if (mode, suffix) == ("YCbCr", ".tif"):
        pytest.skip("Pillow cannot read what it wrote")
    if (mode, suffix) == ("I", ".tif"):
        with pytest.raises(PhotoError, match="int32"):
            load_photo(tmp_path / "in.tif")
        return
    photo = load_photo(tmp_path / f"in{suffix}")
    assert photo.grey == (mode in ("1", "L", "LA", "I", "I;16", "F"))
    with Image.open(tmp_path / f"in{suffix}") as image:
        if mode not in ("I", "I;16", "F"):
            assert np.abs(photo.pixels * 255 - np.asarray(image.convert("RGB"))).max() < 1
        else:
            assert photo.pixels[..., 0].max() > 0.4 and photo.bit_depth == (32 if mode == "F" else 16)
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA") or (mode, suffix) == ("PA", ".png"))


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


def test_10_bit_avif(tmp_path):
    (tmp_path / "in.avif").write_bytes(imagecodecs.avif_encode(RGB16 >> 6, bitspersample=10, level=100))
    photo = load_photo(tmp_path / "in.avif")
    assert photo.bit_depth == 16 and len(np.unique(photo.pixels)) > 900 and photo.pixels.max() <= 1
    with pytest.raises(ValueError, match="`bit_depth`"):
        save_photo(photo, tmp_path / "out.avif")
    save_photo(photo, tmp_path / "out.avif", bit_depth=8)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".avif"])
def test_several_frames_use_the_first_and_say_so(suffix, tmp_path):
    frames = [Image.fromarray(RGB8), Image.fromarray(255 - RGB8)]
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})
    frames[0].save(tmp_path / f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    photo = load_photo(tmp_path / f"in{suffix}")
    assert photo.notes[0].startswith("The first of 2")
    assert np.abs(photo.pixels * 255 - RGB8).max() < (12 if suffix == ".avif" else 1)


def test_mpo_uses_the_main_picture_and_says_so(tmp_path):
    frames = [Image.fromarray(RGB8), Image.fromarray(255 - RGB8)]
    frames[0].save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    photo = load_photo(tmp_path / "in.jpg")
    assert "preview" in photo.notes[0] and np.abs(photo.pixels * 255 - RGB8).max() < 6


def jpeg_of(mode="RGB", **options):
    file = io.BytesIO()
    smooth = Image.fromarray(RGB8).resize((107, 75), Image.Resampling.BICUBIC)
    smooth.convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


JPEGS = {
    "4:2:0": jpeg_of(subsampling=2),
    "4:2:2": jpeg_of(subsampling=1),
    "4:4:4": jpeg_of(subsampling=0, quality=100),
    "progressive": jpeg_of(progressive=True),
    "RGB inside": jpeg_of(keep_rgb=True),
    "grey": jpeg_of("L"),
    "inks": jpeg_of("CMYK"),
    "restart markers": jpeg_of(restart_marker_rows=1),
    "fill bytes": jpeg_of()[:-2] + b"\xff\xff\xff\xd9",
    "something behind it": jpeg_of() + b"\xff\xd8 and more",
    "a JPEG inside": jpeg_of(exif=camera_exif().tobytes() + jpeg_of(quality=50), progressive=True),
    "damaged in the middle": jpeg_of()[:1500] + b"\xff\x00\xff\xd3abcdefgh" + jpeg_of()[1512:],
    "ended early": jpeg_of()[:1500] + b"\xff\xd9" + jpeg_of()[1502:],
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_are_decoded_as_by_pillow(name, tmp_path):
    (tmp_path / "in.jpg").write_bytes(JPEGS[name])
    with Image.open(tmp_path / "in.jpg") as image:
        expected = np.asarray(image)
    photo = load_photo(tmp_path / "in.jpg")
    if name == "inks":
        assert "CMYK" in photo.notes[-1]
    else:
        assert (np.rint(photo.pixels * 255) == expected.reshape(75, 107, -1)).all()


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "restart markers", "a JPEG inside", "grey"])
def test_jpegs_that_are_cut_off_are_refused_wherever(name, tmp_path):
    whole = JPEGS[name]
    for length in [*range(2, len(whole) - 1, 61), len(whole) - 2, len(whole) - 1]:
        (tmp_path / "cut.jpg").write_bytes(whole[:length])
        with pytest.raises(PhotoError, match="cannot be read"):
            load_photo(tmp_path / "cut.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (8, 8), (333, 517), (2000, 20)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_odd_sizes(size, suffix, tmp_path):
    save_photo(np.full((*size, 3), 0.25), tmp_path / f"out{suffix}")
    pixels = load_photo(tmp_path / f"out{suffix}").pixels
    assert pixels.shape == (*size, 3) and np.abs(pixels - 0.25).max() < 0.02


def test_the_format_is_that_of_the_content(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "photo.jpg", "PNG")
    assert load_photo(tmp_path / "photo.jpg").format == "PNG"


@pytest.mark.parametrize("name", [b"two words.png", "\u65e5\u672c\U0001f4f7.png".encode(), b"new\nline.png", b"-o.png",
                                  b"n" * 251 + b".png", b"UPPER.PNG"])  # fmt: skip
def test_file_names(name, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    save_photo(RGB8, path)
    assert np.array_equal(np.rint(load_photo(path).pixels * 255), RGB8)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    for depth, mode, array in ((8, "RGB", RGB8), (16, "RGB;16", RGB16)):
        exif = camera_exif(orientation=6).tobytes()
        file = pillow_heif.from_bytes(mode, (53, 37), array.tobytes())
        file.save(tmp_path / "in.heic", quality=-1, chroma=444, exif=b"Exif\0\0" + exif, matrix_coefficients=0)
        photo = load_photo(tmp_path / "in.heic")
        assert photo.format == "HEIC" and photo.bit_depth == depth and photo.pixels.shape == (53, 37, 3)
        assert exif_blocks.parse_exif(photo.exif).orientation == 1
        assert np.abs(photo.pixels - np.rot90(array, -1) / np.iinfo(array.dtype).max).max() < 0.02


def test_raw(tmp_path):
    pytest.importorskip("rawpy")
    path = write_dng(tmp_path / "in.dng")
    photo = load_photo(path)
    assert photo.format == "RAW" and photo.bit_depth == 16 and "LibRaw" in photo.notes[0]
    assert photo.pixels.shape[2] == 3 and 0 < photo.pixels.mean() < 1
    assert exif_blocks.parse_exif(photo.exif).image[271] == (2, b"Make\0")
    shutil.copy(path, tmp_path / "in.tif")  # under another name
    assert np.array_equal(load_photo(tmp_path / "in.tif").pixels, photo.pixels)
    with pytest.raises(PhotoError, match="more than `max_pixels`"):
        load_photo(path, max_pixels=100)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(PhotoError, match="as RAW: LibRaw reports Input/output error."):
        load_photo(path)


def write_dng(path):
    mosaic = random.integers(1000, 40000, (64, 96), dtype=np.uint16)
    tags = [(271, "s", 0, "Make", False), (272, "s", 0, "Model", False), (33421, "H", 2, (2, 2), False),
            (33422, "B", 4, bytes([0, 1, 1, 2]), False), (50706, "B", 4, bytes([1, 4, 0, 0]), False),
            (50708, "s", 0, "Make Model", False), (50717, "H", 1, 65535, False),
            (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), False),
            (50728, "2I", 3, (1, 1, 1, 1, 1, 1), False), (50778, "H", 1, 21, False)]  # fmt: skip
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)
    return path


@pytest.mark.parametrize("module, name, extra", [("rawpy", "in.dng", "raw"), ("pillow_heif", "in.heic", "heic")])
def test_a_missing_extra_is_named(module, name, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # what an import finds where it is not installed
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if extra == "heic" else b"II*\0" + bytes(40)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=rf'pip install "diffretouch\[{extra}\]"'):
        load_photo(tmp_path / name)


# Files that cannot be read


def png_of(width, height, tail=b""):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)) + tail


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"")
    return file.getvalue()


def tiff_of(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def not_finite():
    array = np.ones((4, 5, 3), np.float32)
    array[1, 2, 0], array[3, 3, 1] = np.nan, np.inf
    return tiff_of(array, photometric="rgb")


def broken_crc():
    data = bytearray(imagecodecs.png_encode(RGB8))
    data[60] ^= 255
    return bytes(data)


BAD_FILES = {
    "empty.jpg": (b"", "it is empty"),
    "text.jpg": (b"not a photo\n" * 20, "no JPEG, PNG, TIFF"),
    "start.jpg": (b"\xff\xd8\xff", "as JPEG"),
    "half.jpg": (CITY.read_bytes()[: CITY.stat().st_size // 2], "truncated"),
    "crc.png": (broken_crc(), "as PNG"),
    "crc16.png": (imagecodecs.png_encode(RGB16)[:-30] + bytes(30), "as PNG"),
    "half.png": (imagecodecs.png_encode(RGB8)[:2000], "as PNG"),
    "half16.png": (imagecodecs.png_encode(RGB16)[:2000], "as PNG"),
    "half.webp": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(40), "as WebP"),
    "half.avif": (imagecodecs.avif_encode(RGB8)[:600], "as AVIF"),
    "half.tif": (tiff_of(RGB16, photometric="rgb", compression="adobe_deflate")[:3000], "as TIFF"),
    "header.tif": (b"II*\0\xff\xff\xff\x7f", "as TIFF"),
    "loop.tif": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "as TIFF"),
    "bomb.png": (png_of(20000, 20000, chunk(b"IDAT", b"")), "20000 x 20000 pixels are more than `max_pixels` = 300"),
    "short.png": (png_of(14000, 14000, chunk(b"IDAT", b"")), "as PNG"),
    "nan.tif": (not_finite(), "not finite"),
    "signed.tif": (tiff_of(RGB8.astype(np.int16), photometric="rgb"), "int16"),
    "complex.tif": (tiff_of(np.ones((4, 4), np.complex64)), "complex64"),
    "volume.tif": (tiff_of(RGB8.transpose(2, 0, 1)[..., None].repeat(12, 3), photometric="minisblack",
                           planarconfig="contig"), "12 channels"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no JPEG"),
    "archive.png": (zipped(), "no JPEG"),
    "moving.gif": (b"GIF89a" + bytes(50), "no JPEG"),
    "photo.jxl": (b"\xff\x0a" + bytes(50), "as JPEG XL"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "as HEIC"),
    "photo.nef": (b"II*\0" + bytes(100), "as RAW"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bad_files_raise_one_clear_sentence(name, tmp_path):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=message) as caught:
        load_photo(tmp_path / name)
    sentence = str(caught.value)
    assert sentence.startswith(repr(str(tmp_path / name))) and "cannot be read" in sentence and "\n" not in sentence
    assert sentence.endswith(".") and len(sentence) < 400


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def test_every_kind_of_bad_input_is_tried():
    assert {int(kind[:2]) for kind, *_ in BAD_INPUTS} == set(range(1, 35))


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_100_megapixels_are_read(tmp_path):
    """More than Pillow warns of, less than the limit here."""
    Image.new("1", (10_000, 10_000)).save(tmp_path / "in.png")
    assert read_photo(tmp_path / "in.png", keep_8_bits=True).pixels.shape == (10_000, 10_000, 3)


@pytest.mark.parametrize("kind, name, content, refusal", BAD_INPUTS, ids=[kind for kind, *_ in BAD_INPUTS])
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_inputs_that_break_other_programs(kind, name, content, refusal, pipe, tmp_path):
    """Refused in one sentence, or read, retouched and written like any photo."""
    path = make(tmp_path / name, content)
    if refusal:
        with pytest.raises(PhotoError, match=refusal) as caught:
            load_photo(path)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
        return
    photo = load_photo(path)
    assert np.isfinite(photo.pixels).all()
    result = pipe.apply_grid(photo.pixels, pipe.predict_grid(photo.pixels))
    assert result.shape == photo.pixels.shape and np.isfinite(result).all()
    if kind.startswith("34"):
        photo.alpha[:] = 0.5
        with pytest.raises(ValueError, match="`background`"):
            save_photo(result, path, like=photo, overwrite=True)
    for suffix in (".tif", ".png"):
        depth = 16 if photo.bit_depth == 32 and suffix == ".png" else photo.bit_depth
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            save_photo(photo, tmp_path / f"out{suffix}", bit_depth=depth)
        assert not said, said
        again = load_photo(tmp_path / f"out{suffix}")
        assert again.pixels.shape == photo.pixels.shape and again.bit_depth == depth
        bounded = depth == 16 or photo.icc_profile is None  # a profile of its own holds what sRGB does not
        expected = photo.pixels.clip(0, 1) if bounded and photo.codes is None and depth < 32 else photo.pixels
        assert np.abs(again.pixels - expected).max() < 2e-3


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, message in (("folder.jpg", "it is a folder"), ("loop.jpg", "symbolic link"), ("nul\0.jpg", "null"),
                          ("pipe.jpg", "regular file"), ("missing.jpg", "No such file")):  # fmt: skip
        with pytest.raises(PhotoError, match=message):
            load_photo(tmp_path / name)
    with pytest.raises(TypeError):
        load_photo(None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_and_folders_without_permission(tmp_path):
    shutil.copy(CITY, tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").chmod(0)
    with pytest.raises(PhotoError, match="Permission denied"):
        load_photo(tmp_path / "photo.jpg")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="out.png"):
        save_photo(RGB8, tmp_path / "out.png")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("max_pixels", [0, -1, 1.5, True, None, "big"])
def test_bad_limits(max_pixels):
    with pytest.raises(ValueError, match="`max_pixels`"):
        load_photo(CITY, max_pixels=max_pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_the_limit_holds_for_every_format(suffix, tmp_path):
    save_photo(RGB8, tmp_path / f"photo{suffix}")
    load_photo(tmp_path / f"photo{suffix}", max_pixels=37 * 53)
    with pytest.raises(PhotoError, match="more than `max_pixels`"):
        load_photo(tmp_path / f"photo{suffix}", max_pixels=37 * 53 - 1)


# Files that cannot be written


@pytest.mark.parametrize(
    "photo, name, options, error, message",
    [
        (RGB8, "out.gif", {}, ValueError, "`path` must end in"),
        (RGB8, "out", {}, ValueError, "`path` must end in"),
        (RGB8, "out.heic", {}, ValueError, "`path` must end in"),
        (RGB8, "there.png", {}, ValueError, "`overwrite`"),
        (RGB16, "out.jpg", {}, ValueError, "`bit_depth` must be 8 for JPEG, got 16"),
        (RGB16, "out.webp", {}, ValueError, "`bit_depth`"),
        (RGB8, "out.png", {"bit_depth": 32}, ValueError, "`bit_depth`"),
        (RGB8, "out.tif", {"bit_depth": 12}, ValueError, "`bit_depth`"),
        (RGB8, "out.png", {"quality": 90}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": 0}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": 101}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": True}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": "high"}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"background": (1, 1)}, ValueError, "`background`"),
        (RGB8, "out.jpg", {"background": (1, 1, 2)}, ValueError, "`background`"),
        (RGB8, "out.jpg", {"like": "photo.jpg"}, TypeError, "`like`"),
        (RGB8, "out.jpg", {"description": "\0"}, ValueError, "`description`"),
        (RGB8, "out.jpg", {"description": 5}, ValueError, "`description`"),
        (RGB8[..., 0], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8.transpose(2, 0, 1), "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8[None], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8[:0], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8.astype(np.int16), "out.png", {}, TypeError, "int16"),
        (RGB8 > 9, "out.png", {}, TypeError, "bool"),
        (RGB8 * 1j, "out.png", {}, TypeError, "complex"),
        (RGB8 * np.nan, "out.png", {}, ValueError, "finite"),
        (np.zeros((1, 16384, 3), np.uint8), "out.webp", {}, ValueError, "at most 16383"),
        (np.zeros((70000, 1, 3), np.uint8), "out.jpg", {}, ValueError, "at most 65500"),
        (Photo(RGB8 / 255, alpha=np.ones((3, 3))), "out.png", {}, ValueError, "alpha of its source"),
    ],
)
def test_bad_arguments_raise_and_write_nothing(photo, name, options, error, message, tmp_path):
    (tmp_path / "there.png").write_bytes(b"before")
    with pytest.raises(error, match=message):
        save_photo(photo, tmp_path / name, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_a_write_that_fails_half_way_leaves_nothing(suffix, tmp_path):
    """The system itself ends the write after 4000 bytes."""
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    pixels = random.random((200, 200, 3), np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: .*out{suffix}'$"):
            save_photo(pixels, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_encoder_leaves_nothing(suffix, error, tmp_path):
    class Text(dict):  # the writers ask for it while the file is open
        def copy(self):
            raise error

        __iter__ = items = keys = __len__ = copy

    with pytest.raises(error):
        save_photo(Photo(RGB8 / np.float32(255), text=Text()), tmp_path / f"out{suffix}")
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing/out.png"):
        save_photo(RGB8, tmp_path / "missing" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder.png"):
        save_photo(RGB8, tmp_path / "folder.png", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


def test_overwriting(tmp_path):
    path, link = tmp_path / "photo.png", tmp_path / "link.png"
    save_photo(RGB8, path)
    path.chmod(0o600)
    link.symlink_to(path)
    save_photo(dataclasses.replace(load_photo(path), pixels=1 - RGB8 / 255), link, overwrite=True)
    assert link.is_symlink() and np.array_equal(read(path), 255 - RGB8)
    assert path.stat().st_mode & 0o777 == 0o600
    umask = os.umask(0o027)
    try:
        save_photo(RGB8, tmp_path / "new.png")
    finally:
        os.umask(umask)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640


def test_of_many_writers_one_wins(tmp_path):
    results = []

    def save(value):
        try:
            save_photo(np.full((64, 64, 3), value, np.uint8), tmp_path / "out.png")
            results.append(value)
        except ValueError:
            pass

    threads = [threading.Thread(target=save, args=(value,)) for value in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 1 and read(tmp_path / "out.png")[0, 0, 0] == results[0]


def test_file_systems_without_links(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    save_photo(RGB8, tmp_path / "out.png")
    with pytest.raises(ValueError, match="`overwrite`"):
        save_photo(RGB8, tmp_path / "out.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_the_same_photo_makes_the_same_file(tmp_path):
    photo = load_photo(CITY)
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        for name in "ab":
            save_photo(photo, tmp_path / (name + suffix), description="x")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_importing_is_quick_and_leaves_pillow_alone():
    code = f"""
import sys
from diffretouch.photo import load_photo
slow = [name for name in ("PIL", "imagecodecs") if name in sys.modules]
from PIL import Image, ImageFile
before = Image.MAX_IMAGE_PIXELS
load_photo({str(CITY)!r})
assert Image.MAX_IMAGE_PIXELS == before and not ImageFile.LOAD_TRUNCATED_IMAGES
print(slow + [name for name in ("torch", "diffusers", "tifffile") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("suffix, dtype", [(".jpg", np.uint8), (".tif", np.uint8), (".tif", np.uint16)])
def test_grey_with_an_rgb_profile_stays_grey(tmp_path, suffix, dtype):
    from imagecodecs import cms_profile

    grey = (np.arange(48 * 64).reshape(48, 64) * (np.iinfo(dtype).max / (48 * 64 - 1))).astype(dtype)
    profile = cms_profile("adobergb")
    if suffix == ".jpg":
        Image.fromarray(grey).save(tmp_path / "in.jpg", quality=95, icc_profile=profile)
    else:
        tifffile.imwrite(tmp_path / "in.tif", grey, photometric="minisblack", iccprofile=profile)
    photo = load_photo(tmp_path / f"in{suffix}")
    assert photo.grey and np.ptp(photo.pixels, axis=2).max() == 0
    for out in (suffix, ".png"):
        save_photo(photo, tmp_path / f"out{out}", overwrite=True)
        again = load_photo(tmp_path / f"out{out}")
        assert again.grey and np.abs(again.pixels - photo.pixels).max() < 0.012
    if suffix == ".tif":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), grey)


def test_a_lossless_jpeg_can_be_saved(tmp_path):
    scene = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    (tmp_path / "in.jpg").write_bytes(imagecodecs.jpeg_encode(scene, lossless=True))
    save_photo(load_photo(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    assert Image.open(tmp_path / "out.jpg").size == (48, 32)


@pytest.mark.parametrize("bits", [10, 12])
def test_a_moving_deep_avif_gives_its_first_frame(tmp_path, bits):
    scene = (np.arange(48 * 64 * 3).reshape(48, 64, 3) % 251).astype(np.uint16) << (bits - 8)
    (tmp_path / "in.avif").write_bytes(imagecodecs.avif_encode(np.stack([scene] * 3), bitspersample=bits, level=100))
    code = "import sys; from diffretouch.photo import load_photo; print(load_photo(sys.argv[1]).notes)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "in.avif"], capture_output=True, text=True)
    assert done.returncode == 0 and f"Of the {bits} bits" in done.stdout


def test_a_heic_multiplied_by_alpha(tmp_path):
    heif = pytest.importorskip("pillow_heif").HeifFile()
    plain = np.full((48, 64, 3), (240, 120, 30), np.uint8)
    multiplied = np.dstack([plain.astype(int) * 128 // 255, np.full((48, 64), 128)]).astype(np.uint8)
    heif.add_frombytes("RGBa", (64, 48), multiplied.tobytes())
    heif.save(tmp_path / "in.heic", quality=-1)
    photo = load_photo(tmp_path / "in.heic")
    assert np.abs(photo.pixels * 255 - plain).max() < 8 and np.abs(photo.alpha * 255 - 128).max() < 2
    assert any("multiplied by alpha" in note for note in photo.notes)


def png_with(path, *chunks, pixels=RGB8):
    from diffretouch.photo.png_chunks import chunk

    data = imagecodecs.png_encode(pixels)
    path.write_bytes(data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:])
    return path


ADOBE_POINTS = struct.pack(">8L", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def test_a_png_s_colours_by_its_chunks(tmp_path):
    gamma, path = (b"gAMA", struct.pack(">L", 45455)), tmp_path / "in.png"
    adobe = load_photo(png_with(path, (b"iCCP", b"x\0\0" + zlib.compress(icc.adobe_rgb_profile())))).pixels
    by_points = load_photo(png_with(path, gamma, (b"cHRM", ADOBE_POINTS)))
    assert np.abs(by_points.pixels - adobe).max() < 4e-3 and by_points.icc_profile
    save_photo(by_points, tmp_path / "out.png")
    assert np.abs(np.asarray(Image.open(tmp_path / "out.png")).astype(int) - RGB8).max() <= 1
    plain = load_photo(png_with(path, gamma, (b"cHRM", ADOBE_POINTS), (b"sRGB", b"\0")))  # sRGB counts more
    np.testing.assert_allclose(plain.pixels, RGB8 / 255, atol=1e-6)
    grey = np.full((8, 8, 3), 128, np.uint8)
    linear = load_photo(png_with(path, (b"cICP", bytes([1, 8, 0, 1])), pixels=grey))
    assert abs(linear.pixels.mean() - 0.7367) < 2e-3
    assert load_photo(png_with(path, (b"cHRM", bytes(32)))).notes  # damaged: said


def test_a_png_s_large_profile_and_text(tmp_path):
    profile = icc.adobe_rgb_profile()
    profile = bytearray(profile + np.random.default_rng(0).bytes(1_200_000))
    profile[:4] = struct.pack(">L", len(profile))
    text = b"Comment\0\0" + zlib.compress(b"long " * 400_000)
    chunks = (b"iCCP", b"x\0\0" + zlib.compress(bytes(profile))), (b"zTXt", text)
    for pixels in (RGB8, RGB16):
        photo = load_photo(png_with(tmp_path / "in.png", *chunks, pixels=pixels))
        assert photo.icc_profile == bytes(profile) and len(photo.text["Comment"]) == 2_000_000


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_png_s_transparent_grey(tmp_path, bits):
    from diffretouch.photo.png_chunks import chunk

    head = struct.pack(">LLBBBBB", 8, 1, bits, 0, 0, 0, 0)
    values = np.arange(8) % 2**bits
    packed = np.packbits((values[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel()).tobytes()
    chunks = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(b"\0" + packed)),
        (b"IEND", b""),
    )
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    photo = load_photo(tmp_path / "in.png")
    np.testing.assert_array_equal(photo.alpha[0], values != 1)
    np.testing.assert_allclose(photo.pixels[0, :, 0], values / (2**bits - 1), atol=1e-6)


def test_exif_s_colour_space_2_is_adobe_rgb(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    Image.fromarray(RGB8).save(tmp_path / "in.jpg", exif=exif)
    assert load_photo(tmp_path / "in.jpg").icc_profile == icc.adobe_rgb_profile()


@pytest.mark.parametrize("quality, halved", [(None, False), (90, False), (89, True)])
def test_avif_of_high_quality_keeps_fine_colours(quality, halved, tmp_path):
    codes = np.zeros((32, 32, 3), np.uint8)
    codes[:, ::2] = 255, 0, 0
    codes[:, 1::2] = 0, 0, 255
    save_photo(codes, tmp_path / "out.avif", quality=quality)
    assert (np.abs(read(tmp_path / "out.avif").astype(int) - codes).mean() > 20) == halved


def test_chunks_of_a_webp_are_named(tmp_path):
    path = tmp_path / "a.webp"
    Image.new("RGB", (9, 7), (200, 100, 50)).save(path, lossless=True)
    plain = path.read_bytes()
    assert load_photo(path).notes == ()
    further = b"".join(name + struct.pack("<L", 3) + b"abc\0" for name in (b"C2PA", b"XYZ ", b"EXIF"))
    data = plain[:4] + struct.pack("<L", len(plain) - 8 + len(further)) + plain[8:] + further
    path.write_bytes(data)
    assert load_photo(path).notes[-1].startswith("WebP chunks that were not carried: C2PA (content credentials")
    path.write_bytes(data + b"behind it")
    assert "XYZ, 9 bytes behind the picture." in load_photo(path).notes[-1]
