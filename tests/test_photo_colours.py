"""Colours of photo files: profiles, CMYK, grey and cameras' tags are read, and written back in the file's space."""

import dataclasses

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.photo import exif as exif_blocks
from diffretouch.photo import icc, load_photo, save_photo

from .photo_files import PHOTOS, RGB8, RGB16, chunk, random, read
from .test_icc import cmyk_profile
from .test_metadata import camera_exif
from .tiny import tiny_pipeline


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


def test_exif_s_colour_space_2_is_adobe_rgb(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    Image.fromarray(RGB8).save(tmp_path / "in.jpg", exif=exif)
    assert load_photo(tmp_path / "in.jpg").icc_profile == icc.adobe_rgb_profile()
