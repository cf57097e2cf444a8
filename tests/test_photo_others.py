"""WebP, AVIF, HEIC and RAW files."""

import shutil
import struct
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.photo import PhotoError, load_photo, save_photo
from diffretouch.photo import exif as exif_blocks

from .photo_files import ALPHA8, RGB8, RGB16, read, write
from .test_metadata import camera_exif
from .test_raw_files import write_dng


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


def test_10_bit_avif(tmp_path):
    (tmp_path / "in.avif").write_bytes(imagecodecs.avif_encode(RGB16 >> 6, bitspersample=10, level=100))
    photo = load_photo(tmp_path / "in.avif")
    assert photo.bit_depth == 16 and len(np.unique(photo.pixels)) > 900 and photo.pixels.max() <= 1
    with pytest.raises(ValueError, match="`bit_depth`"):
        save_photo(photo, tmp_path / "out.avif")
    save_photo(photo, tmp_path / "out.avif", bit_depth=8)


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
    with pytest.raises(PhotoError, match="as RAW: it is cut off"):
        load_photo(path)


@pytest.mark.parametrize("module, name, extra", [("rawpy", "in.dng", "raw"), ("pillow_heif", "in.heic", "heic")])
def test_a_missing_extra_is_named(module, name, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # what an import finds where it is not installed
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if extra == "heic" else b"II*\0" + bytes(40)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=rf'pip install "diffretouch\[{extra}\]"'):
        load_photo(tmp_path / name)


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


def test_raw_files_that_are_cut_off_or_under_another_name(tmp_path):
    pytest.importorskip("rawpy")
    data = write_dng(tmp_path / "whole.dng").read_bytes()
    (tmp_path / "cut.dng").write_bytes(data[: len(data) // 2])
    with pytest.raises(PhotoError, match="cut off"):
        load_photo(tmp_path / "cut.dng")
    thumbnail, sensor = np.zeros((12, 16, 3), np.uint8), np.full((120, 160), 999, np.uint16)
    with tifffile.TiffWriter(tmp_path / "camera.tif") as tiff:  # as NEF and ARW: a thumbnail, the sensor below it
        tiff.write(thumbnail, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        tiff.write(sensor, photometric=32803, metadata=None)
    (tmp_path / "canon.tif").write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(200))
    photo = load_photo(tmp_path / "camera.tif")
    assert photo.format == "RAW" and min(photo.pixels.shape[:2]) > 100  # not the thumbnail
    with pytest.raises(PhotoError, match="as RAW: LibRaw reports [A-Z][a-z]"):
        load_photo(tmp_path / "canon.tif")
