"""Files that cannot be read: one clear sentence, whatever was put in, and no work beyond the limit."""

import io
import os
import shutil
import struct
import warnings
import zipfile

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.photo import PhotoError, load_photo, read_photo, save_photo

from .bad_inputs import BAD_INPUTS, make
from .photo_files import CITY, RGB8, RGB16, chunk
from .tiny import tiny_pipeline


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


def claiming(kind, side):
    """A small file whose header tells of `side` x `side` pixels."""
    if kind == "jxl":
        from diffretouch.photo.bits import BitReader, BitWriter

        plain, new = BitReader(imagecodecs.jpegxl_encode(np.zeros((64, 64, 3), np.uint8))), BitWriter()
        plain.place = 16 + 9  # signature; sides that are multiples of 8, the same
        for value, size in ((0x0AFF, 16), (0, 1), (3, 2), (side - 1, 30), (1, 3)):
            new.number(value, size)
        for _ in range(40):
            new.number(plain.number(1), 1)
        return new.tobytes() + bytes(16)
    file = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(file, RGB8, photometric="rgb")
        data = file.getvalue()
        for tag in (256, 257):
            place = data.index(struct.pack("<HH", tag, 4))
            data = data[: place + 8] + struct.pack("<L", side) + data[place + 12 :]
        return data
    image = Image.new("RGB", (64, 64))
    if kind == "heic":
        pytest.importorskip("pillow_heif").from_pillow(image).save(file)
    else:
        image.save(file, {"jpg": "JPEG"}.get(kind, kind), **({"lossless": True} if kind == "webp" else {}))
    data = file.getvalue()
    if kind in ("avif", "heic"):
        place = data.index(b"ispe") + 8
        return data[:place] + struct.pack(">LL", side, side) + data[place + 8 :]
    if kind == "jpg":
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", side, side) + data[place + 4 :]
    (bits,) = struct.unpack_from("<L", data, 21)  # WebP: 14 bits each, behind the signature of VP8L
    return data[:21] + struct.pack("<L", bits & ~0xFFFFFFF | (side - 1) * 0x4001) + data[25:]


@pytest.mark.parametrize("kind, side", [("jpg", 60_000), ("tif", 2**31), ("webp", 16_383), ("avif", 2**30),
                                        ("heic", 60_000), ("jxl", 2**29)])  # fmt: skip
def test_small_files_that_claim_giant_pictures_are_refused_by_their_header(kind, side, tmp_path):
    (tmp_path / f"bomb.{kind}").write_bytes(claiming(kind, side))
    with pytest.raises(PhotoError, match=f"{side} x {side} pixels are more than `max_pixels` = 200000000"):
        load_photo(tmp_path / f"bomb.{kind}", max_pixels=200_000_000)


def test_damage_is_told_in_words(tmp_path):
    """Also where a library only says that an index is out of range."""
    (tmp_path / "a.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe1\0\x0aExif\0\0\0\0\xff\xd9")
    for path in tmp_path.iterdir():
        with pytest.raises(PhotoError, match="its structure is damaged"):
            load_photo(path)
