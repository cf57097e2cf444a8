"""JPEG files: tables, sampling and progression are kept, decoded as others do, long metadata is carried or named."""

import io
import shutil
import subprocess

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from diffretouch.photo import Photo, PhotoError, load_photo, save_photo, xmp
from diffretouch.photo import exif as exif_blocks

from .photo_files import ALPHA8, CITY, RGB8, random, read, write
from .test_metadata import camera_exif, exiftool
from .test_xmp import XMP


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


def test_noise_is_saved_as_progressive_jpeg_or_said_not_to_be(tmp_path):
    jpeg = {"qtables": [[1] * 64] * 2, "subsampling": 0, "progressive": True}
    photo = Photo(random.random((300, 300, 3), np.float32), jpeg=jpeg)
    with pytest.warns(UserWarning, match="progressive"):
        save_photo(photo, tmp_path / "out.jpg")
    assert np.abs(load_photo(tmp_path / "out.jpg").pixels - photo.pixels).max() < 0.02


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


def test_a_lossless_jpeg_can_be_saved(tmp_path):
    scene = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    (tmp_path / "in.jpg").write_bytes(imagecodecs.jpeg_encode(scene, lossless=True))
    save_photo(load_photo(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    assert Image.open(tmp_path / "out.jpg").size == (48, 32)


def test_names_of_camera_and_lens_above_c000_reach_a_tiff(tmp_path):
    exif = camera_exif(orientation=1)
    # UniqueCameraModel, CameraSerialNumber, OriginalRawFileName, ReelName, CameraLabel
    named = {50708: "Maker Model 1", 50735: "SERIAL-0815", 50827: "original.nef", 51081: "reel", 51105: "Cam A"}
    for tag, text in named.items():
        exif.put(exif.image, tag, text)
    Image.new("RGB", (60, 40)).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif.tobytes())
    photo = load_photo(tmp_path / "in.jpg")
    assert photo.notes == ()
    for suffix in (".tif", ".png", ".jpg"):
        save_photo(photo, tmp_path / f"out{suffix}", overwrite=True)
        again = exif_blocks.parse_exif(load_photo(tmp_path / f"out{suffix}").exif).image
        assert {tag: again[tag][1] for tag in named} == {tag: text.encode() + b"\0" for tag, text in named.items()}
    assert exiftool(tmp_path / "out.tif")["IFD0:CameraSerialNumber"] == "SERIAL-0815"
    exif.put(exif.image, 50931, "of raw values")
    Image.new("RGB", (60, 40)).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif.tobytes())
    with pytest.warns(UserWarning, match="TIFF could not hold what its metadata say of raw values"):
        save_photo(load_photo(tmp_path / "in.jpg"), tmp_path / "out.tif", overwrite=True)


def test_a_comment_in_latin_1_is_read_and_said(tmp_path):
    text, said = "Café Zürich ±", ("Its comment is not UTF-8: it was read as Latin-1 and is saved as UTF-8.",)
    for encoding, notes in (("latin-1", said), ("utf-8", ())):
        Image.new("RGB", (8, 8)).save(tmp_path / "in.jpg", comment=text.encode(encoding))
        photo = load_photo(tmp_path / "in.jpg")
        assert photo.text == {"Comment": text} and photo.notes == notes
        save_photo(photo, tmp_path / "out.jpg", overwrite=True)
        with Image.open(tmp_path / "out.jpg") as image:
            assert image.info["comment"].decode("utf-8") == text
        save_photo(photo, tmp_path / "out.png", overwrite=True)
        with Image.open(tmp_path / "out.png") as image:
            assert image.text["Comment"] == text
