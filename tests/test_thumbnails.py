import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch.data.thumbnails import SUFFIXES, Thumbnails, _from_small_jpeg, crop_side, first_readable, photo_paths
from diffretouch.photo import save_photo
from diffretouch.photo.icc import adobe_rgb_profile

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def test_small_upright_and_with_the_files_size(tmp_path):
    pixels = np.zeros((40, 90, 3), np.uint8)
    pixels[:, :45] = (200, 30, 30)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn: what lies at the left belongs on top
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo, size = Thumbnails(30)(tmp_path / "a.jpg")
    assert size == (40, 90) and photo.mode == "RGB" and max(photo.size) == 30
    small = np.asarray(photo, np.int16)
    assert small[4, :, 0].min() > 150 and small[-4].max() < 40


def test_colours_come_to_srgb(tmp_path):
    pixels = np.full((8, 8, 3), (60, 160, 60), np.uint8)
    for name, profile in (("plain", None), ("wide", adobe_rgb_profile())):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", icc_profile=profile, quality=95, subsampling=0)
    plain, wide = (np.asarray(Thumbnails(8)(tmp_path / f"{n}.jpg")[0], int)[4, 4] for n in ("plain", "wide"))
    assert abs(plain - (60, 160, 60)).max() <= 2
    assert wide[0] < plain[0] - 20  # Adobe RGB's green lies outside


def test_every_format_that_is_written_is_found_and_opened(tmp_path):
    pixels = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    for suffix in SUFFIXES:
        save_photo(pixels, tmp_path / f"photo{suffix}", quality=None if suffix in (".png", ".tif", ".tiff") else 95)
    paths = photo_paths(tmp_path)
    assert {path.suffix for path in paths} == SUFFIXES >= {".jxl", ".avif", ".jpg"}
    for path in paths:
        photo, size = Thumbnails(15)(path)
        assert size == (30, 20) and np.abs(np.asarray(photo, int) - pixels[0, 0]).max() < 12, path


def test_sixteen_bits(tmp_path):
    import tifffile

    deep = (np.linspace(0, 1, 64)[None, :, None].repeat(64, 0).repeat(3, 2) * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    photo, size = Thumbnails(64)(tmp_path / "deep.tif")
    assert size == (64, 64)
    np.testing.assert_allclose(np.asarray(photo, float) / 255, deep / 65535, atol=0.6 / 255)


def test_memory_is_bounded():
    thumbnails = Thumbnails(64, memory=2 * 64 * 64 * 3)
    for path in PHOTOS[:4]:
        thumbnails(path)
    assert 1 <= len(thumbnails._kept) <= 3 and thumbnails.memory >= 0
    assert thumbnails(PHOTOS[0])[0] is thumbnails(PHOTOS[0])[0]


def test_kept_in_a_folder(tmp_path):
    fresh = Thumbnails(48)(PHOTOS[0])
    kept = Thumbnails(48, folder=tmp_path / "kept")
    first = kept(PHOTOS[0])
    (file,) = (tmp_path / "kept").iterdir()
    written = file.stat().st_mtime_ns
    again = Thumbnails(48, folder=tmp_path / "kept")(PHOTOS[0])
    assert file.stat().st_mtime_ns == written
    for photo, size in (first, again):
        assert size == fresh[1]
        np.testing.assert_array_equal(np.asarray(photo), np.asarray(fresh[0]))


@pytest.mark.parametrize("data", [b"", b"not a photo", PHOTOS[0].read_bytes()[:1500]])
def test_a_bad_file_is_named(tmp_path, data):
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(ValueError, match="bad.jpg"):
        Thumbnails(32)(tmp_path / "bad.jpg")


def test_photo_paths(tmp_path):
    for name in ("b.JPG", "a.png", "deep/c.tif", "notes.txt", "._b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in photo_paths(tmp_path)] == ["a.png", "b.JPG", "c.tif"]


def read(candidate):
    if candidate < 2:
        raise ValueError(f"file {candidate} is broken")
    return candidate * 10


def test_first_readable():
    with pytest.warns(UserWarning, match="file 0"):
        assert first_readable([0, 1, 2, 3], read, "skip") == (2, 20, ["file 0 is broken", "file 1 is broken"])
    with pytest.raises(ValueError, match="file 1"):
        first_readable([1, 2], read)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="no photo .* file 1"):
        warnings.simplefilter("ignore")
        first_readable([0, 1], read, "skip")
    with pytest.raises(ValueError, match="`on_bad_file`"):
        first_readable([2], read, "ignore")


@pytest.mark.parametrize("kind", ["grey with a grey profile", "broken profile", "Adobe RGB by EXIF"])
def test_what_load_photo_reads_is_read(tmp_path, kind):
    from imagecodecs import cms_profile

    from diffretouch.photo import load_photo

    pixels, options = np.full((40, 60, 3), (60, 160, 60), np.uint8), {"quality": 95, "subsampling": 0}
    if kind.startswith("grey"):
        pixels, options["icc_profile"] = pixels[..., 0], cms_profile("gray", gamma=2.2)
    elif kind.startswith("broken"):
        options["icc_profile"] = b"no profile" * 20
    else:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = 2
        options["exif"] = exif
    Image.fromarray(pixels).save(tmp_path / "a.jpg", **options)
    small, size = Thumbnails(30)(tmp_path / "a.jpg")
    assert size == (60, 40)
    want = load_photo(tmp_path / "a.jpg").pixels[20, 30].clip(0, 1) * 255
    assert np.abs(np.asarray(small, float)[10, 15] - want).max() <= 2


def test_copies_are_as_small_as_crops_allow(tmp_path):
    """A decoder that is asked for a square of the long side's length keeps twice the pixels along both."""
    assert crop_side(512) == 1280 and crop_side(512) * 2 / 3 * 0.6 >= 512
    Image.new("RGB", (240, 160), (200, 90, 40)).save(tmp_path / "a.jpg", quality=95)
    wide, size = _from_small_jpeg(tmp_path / "a.jpg", 100)
    assert wide.size == (120, 80) and size == (240, 160)
    Image.new("RGB", (160, 240)).save(tmp_path / "b.jpg")
    assert _from_small_jpeg(tmp_path / "b.jpg", 120)[0].size == (80, 120)
    assert _from_small_jpeg(tmp_path / "b.jpg", 500)[0].size == (160, 240)


@pytest.mark.parametrize(
    "details, is_srgb", [({}, True), ({0xA001: 1}, True), ({0xA001: 2}, False), ({0xA005: {1: "R03"}}, False)]
)
def test_plain_jpegs_are_shrunk_by_their_decoder(tmp_path, details, is_srgb):
    """Also those that say nothing, or little, of themselves."""
    exif = Image.Exif()
    if details:
        exif.get_ifd(0x8769).update(details)
    Image.new("RGB", (240, 160)).save(tmp_path / "a.jpg", exif=exif)
    if is_srgb:
        assert _from_small_jpeg(tmp_path / "a.jpg", 100)[0].size == (120, 80)
    else:
        with pytest.raises(ValueError, match="other colours"):
            _from_small_jpeg(tmp_path / "a.jpg", 100)
