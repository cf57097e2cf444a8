"""Photo files: what goes in comes out, read back by other libraries; what cannot is said; nothing half-done stays."""

import dataclasses
import io
import os
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from diffretouch import __version__
from diffretouch.photo import Photo, PhotoError, icc, load_photo, photoshop, read_photo, save_photo
from diffretouch.photo import exif as exif_blocks

from .photo_files import ALPHA8, CITY, PHOTOS, RGB8, RGB16, chunk, read, write
from .test_metadata import camera_exif, exiftool
from .test_xmp import XMP

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


@pytest.mark.parametrize("suffix, decibels", [(".jpg", 38), (".webp", 30), (".avif", 35)])
@pytest.mark.parametrize("name", ["gb82_dog-lossless.jpg", "budgie_lake-sherburne.jpg"])
def test_lossy_formats_stay_near(name, suffix, decibels, tmp_path):
    photo = load_photo(PHOTOS / name)
    save_photo(photo, tmp_path / f"out{suffix}")
    again = load_photo(tmp_path / f"out{suffix}")
    assert -10 * np.log10(np.square(again.pixels - photo.pixels).mean()) > decibels
    assert again.icc_profile == icc.srgb_profile()


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


# Alpha and the shapes that files come in


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
def test_alpha_is_carried(suffix, tmp_path):
    photo = load_photo(write(tmp_path / "in.png", np.concatenate([RGB8, ALPHA8], 2)))
    save_photo(photo, tmp_path / f"out{suffix}", quality=100 if suffix in (".webp", ".avif") else None)
    again = load_photo(tmp_path / f"out{suffix}")
    assert np.abs(again.alpha - photo.alpha).max() <= (2 / 255 if suffix == ".avif" else 0)


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


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".avif"])
def test_several_frames_use_the_first_and_say_so(suffix, tmp_path):
    frames = [Image.fromarray(RGB8), Image.fromarray(255 - RGB8)]
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})
    frames[0].save(tmp_path / f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    photo = load_photo(tmp_path / f"in{suffix}")
    assert photo.notes[0].startswith("The first of 2")
    assert np.abs(photo.pixels * 255 - RGB8).max() < (12 if suffix == ".avif" else 1)


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


def test_files_that_unpack_to_more_than_they_are(tmp_path):
    """Small files that would take gigabytes or minutes: each is refused, or read without what is too much."""
    path = tmp_path / "long.jpg"
    Image.new("RGB", (40, 30)).save(path)
    os.truncate(path, 1 << 40)  # holes: it takes no room on the disk
    with pytest.raises(PhotoError, match="1099.5 GB long"):
        load_photo(path)
    file = io.BytesIO()
    Image.new("L", (4000, 3000), 99).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "scans.jpg").write_bytes(data[:-2] + data[last:-2] * 200 + data[-2:])
    with pytest.raises(PhotoError, match="scans, which no photo has"):
        load_photo(tmp_path / "scans.jpg")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    data, packed = file.getvalue(), zlib.compress(b"a" * 0xFFFFFF)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % n + packed) for n in range(9))
    (tmp_path / "texts.png").write_bytes(data[:33] + texts + data[33:])
    photo = load_photo(tmp_path / "texts.png")
    assert sum(map(len, photo.text.values())) <= 1 << 26 and "'k8', which is damaged or too long" in photo.notes[0]
