"""JPEG XL: libjxl's own programs write and read what is read and written here."""

import contextlib
import shutil
import struct
import subprocess
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.colour import linear_to_srgb
from diffretouch.photo import Photo, PhotoError, boxes, high_range, icc, load_photo, png_chunks, save_photo, xmp
from diffretouch.photo.exif import Exif
from diffretouch.photo.headers import pixels_decoded
from diffretouch.photo.jpeg_xl import codestream, encoded, header

from .test_metadata import camera_exif, exiftool

random = np.random.default_rng(0)
RGB8 = random.integers(0, 256, (37, 53, 3), dtype=np.uint8)
Y, X = np.mgrid[0:40, 0:60] / 64
SMOOTH = np.rint(255 * np.stack([X, Y, 1 - X], -1)).astype(np.uint8)


def program(name, *arguments):
    """Run one of libjxl's programs."""
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    return subprocess.run([name, *map(str, arguments)], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_without_loss_every_value_is_kept(channels, dtype, tmp_path):
    codes = random.integers(0, np.iinfo(dtype).max + 1, (37, 53, channels)).astype(dtype)
    write = tifffile.imwrite if channels == 2 else lambda path, array: path.write_bytes(imagecodecs.png_encode(array))
    name, options = ("in.tif", {"extrasamples": ["unassalpha"]}) if channels == 2 else ("in.png", {})
    write(tmp_path / name, codes.squeeze(), **options)
    save_photo(load_photo(tmp_path / name), tmp_path / "in.jxl", quality=100)
    photo = load_photo(tmp_path / "in.jxl")
    assert not photo.icc_profile or icc.is_srgb(photo.icc_profile)
    assert (photo.bit_depth, photo.grey, photo.format) == (8 * codes.itemsize, channels < 3, "JPEG XL")
    if shutil.which("djxl") and channels == 3:
        program("djxl", tmp_path / "in.jxl", tmp_path / "djxl.png")
        assert np.array_equal(imagecodecs.png_decode((tmp_path / "djxl.png").read_bytes()), codes)
    assert photo.lossless and (photo.alpha is None) == (channels in (1, 3))
    save_photo(photo, tmp_path / "out.jxl")
    assert np.array_equal(imagecodecs.jpegxl_decode((tmp_path / "out.jxl").read_bytes()), codes.squeeze())
    assert pixels_decoded(tmp_path / "out.jxl") == 37 * 53


def test_quality_and_metadata_as_others_read_them(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "in.png", exif=camera_exif(orientation=1).tobytes())
    photo = load_photo(tmp_path / "in.png")
    photo.xmp = xmp.describe(None, "x")
    for quality in (60, 95, 100):
        save_photo(photo, tmp_path / f"{quality}.jxl", quality=quality, description="brighter")
    sizes = [(tmp_path / f"{quality}.jxl").stat().st_size for quality in (60, 95, 100)]
    assert sizes[0] < sizes[1]
    again = load_photo(tmp_path / "95.jxl")
    assert again.description == "brighter" and again.exif and not again.notes and not again.lossless
    assert np.abs(again.pixels - photo.pixels).mean() < 0.01
    program("djxl", tmp_path / "100.jxl", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image), np.rint(photo.pixels * 255))
    assert exiftool(tmp_path / "95.jxl")["IFD0:Make"] == "Canon"


def test_sixteen_bits_with_loss_keep_the_tones(tmp_path):
    photo = Photo(np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], 64, 0).repeat(3, 2), bit_depth=16)
    save_photo(photo, tmp_path / "out.jxl", quality=95)
    assert np.abs(load_photo(tmp_path / "out.jxl").pixels - photo.pixels).max() < 0.01
    program("djxl", tmp_path / "out.jxl", tmp_path / "out.png")
    read = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
    assert read.dtype == np.uint16 and np.abs(read / 65535 - photo.pixels).max() < 0.01


def tabled():
    """A profile whose curves are tables of 1024 values: 25 kB."""
    tones = np.linspace(0, 1, 1024)
    curve = (0.9 * tones**1.7 + 0.1 * tones).astype(np.float32)
    primaries = [0.6, 0.35, 1, 0.25, 0.65, 1, 0.2, 0.1, 1]
    return imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], primaries=primaries, transferfunction=curve)


def png(path, codes, profile):
    data = imagecodecs.png_encode(codes)
    packed = png_chunks.chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    path.write_bytes(data[:33] + packed + data[33:])


PROFILES = {"Adobe RGB": icc.adobe_rgb_profile(), "P3": icc.cicp_profile(12, 13), "tables": tabled(),
            "ProPhoto": icc.chromatic_profile((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585),
                                              1.8)}  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_read_and_written(name, bits, tmp_path):
    profile, dtype = PROFILES[name], np.uint8 if bits == 8 else np.uint16
    codes = np.rint(np.stack([X, Y, 1 - X], -1) * (2**bits - 1)).astype(dtype)
    png(tmp_path / "in.png", codes, profile)
    wanted = load_photo(tmp_path / "in.png").pixels
    for quality in (100, 98):
        program("cjxl", "-q", quality, tmp_path / "in.png", tmp_path / "in.jxl")  # P3 becomes a name
        photo = load_photo(tmp_path / "in.jxl")
        assert icc.same_colours(photo.icc_profile, profile) and (photo.icc_profile == profile or name == "P3")
        assert (photo.bit_depth, photo.lossless, photo.notes) == (bits, quality == 100, ())
        assert np.abs(photo.pixels - wanted).max() < (1e-6 if quality == 100 else 0.08)
        assert np.abs(photo.pixels - wanted).mean() < 3e-3
        save_photo(photo, tmp_path / "out.jxl", quality=quality, overwrite=True)
        again = load_photo(tmp_path / "out.jxl")
        assert again.icc_profile == photo.icc_profile and again.bit_depth == bits and not again.notes
        assert np.abs(again.pixels - wanted).mean() < 5e-3
        program("djxl", tmp_path / "out.jxl", tmp_path / "out.png")
        seen = load_photo(tmp_path / "out.png")  # lossy ones djxl brings into sRGB
        assert np.abs(seen.pixels - wanted.clip(0, 1)).mean() < (0.12 if quality < 100 else 1e-6 + (wanted < 0).any())
        if quality == 100:
            assert np.array_equal(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), codes)
            assert seen.icc_profile == photo.icc_profile
    save_photo(photo, tmp_path / "srgb.jxl", quality=100, keep_profile=False)
    srgb = load_photo(tmp_path / "srgb.jxl")
    assert srgb.icc_profile is None and np.abs(srgb.pixels - photo.pixels.clip(0, 1)).max() < 0.51 / 255


@pytest.mark.parametrize("quality", [100, 95])
def test_grey_profiles_and_alpha(quality, tmp_path):
    grey = imagecodecs.cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.8)
    photo = Photo(np.repeat(SMOOTH[..., :1] / np.float32(255), 3, 2), grey=True, icc_profile=grey,
                  alpha=np.float32(Y / Y.max()))  # fmt: skip
    save_photo(photo, tmp_path / "grey.jxl", quality=quality)
    found = header(codestream((tmp_path / "grey.jxl").read_bytes()))
    assert found.grey and found.icc and found.extra == (0,)
    again = load_photo(tmp_path / "grey.jxl")
    assert again.icc_profile == grey and again.grey and np.abs(again.pixels - photo.pixels).max() < 0.03
    assert np.abs(again.alpha - photo.alpha).max() < 0.03
    wide = Photo(SMOOTH / np.float32(255), icc_profile=icc.adobe_rgb_profile(), alpha=photo.alpha)
    save_photo(wide, tmp_path / "wide.jxl", quality=quality)
    again = load_photo(tmp_path / "wide.jxl")
    assert again.icc_profile == wide.icc_profile and np.abs(again.alpha - photo.alpha).max() < 0.03
    assert np.abs(again.pixels - wide.pixels).mean() < 0.01


def test_colours_that_do_not_fit_their_profile_are_refused(tmp_path):
    codes = np.rint(np.stack([X, Y, 1 - X], -1) * 255).astype(np.uint8)
    wrong = icc.adobe_rgb_profile()
    wrong = wrong[:16] + b"CMYK" + wrong[20:]
    (tmp_path / "in.jxl").write_bytes(encoded(codes, 100, None, None, wrong))
    with pytest.raises(PhotoError, match="CMYK"):
        load_photo(tmp_path / "in.jxl")


@pytest.mark.parametrize("space, profile", [("RGB_D65_202_Rel_SRG", (9, 13)), ("RGB_D65_SRG_Rel_Lin", (1, 8)),
                                            ("RGB_D65_DCI_Rel_SRG", (12, 13)), ("RGB_D65_SRG_Rel_709", (1, 13))],
                         ids=["BT.2020", "linear", "P3", "BT.709"])  # fmt: skip
def test_named_colours(space, profile, tmp_path):
    (tmp_path / "in.ppm").write_bytes(b"P6 60 40 65535\n" + (SMOOTH.astype(">u2") * 257).tobytes())
    program("cjxl", "-q", 100, "-x", f"color_space={space}", tmp_path / "in.ppm", tmp_path / "in.jxl")
    photo = load_photo(tmp_path / "in.jxl")
    known = icc.cicp_profile(*profile)
    wanted = icc.to_srgb(SMOOTH / np.float32(255), known) if known else SMOOTH / 255
    assert photo.bit_depth == 16 and np.abs(photo.pixels - wanted).max() < 0.005


@pytest.mark.parametrize("bits", [10, 12])
def test_other_depths_fill_the_range(bits, tmp_path):
    codes = np.arange(1 << bits, dtype=np.uint16).reshape(32, -1, 1).repeat(3, 2)
    data = imagecodecs.jpegxl_encode(codes, lossless=True, bitspersample=bits)  # linear light
    (tmp_path / "in.jxl").write_bytes(data)
    photo = load_photo(tmp_path / "in.jxl")
    assert photo.bit_depth == 16 and np.abs(photo.pixels - linear_to_srgb(codes / (2**bits - 1))).max() < 1e-3


def test_high_dynamic_range_is_tone_mapped(tmp_path):
    (tmp_path / "in.ppm").write_bytes(b"P6 60 40 65535\n" + (SMOOTH.astype(">u2") * 257).tobytes())
    program("cjxl", "-q", 100, "-x", "color_space=RGB_D65_202_Rel_PeQ", tmp_path / "in.ppm", tmp_path / "in.jxl")
    photo = load_photo(tmp_path / "in.jxl")
    assert photo.high_range == (9, 16) and any("PQ" in note for note in photo.notes)
    wanted = high_range.to_srgb(SMOOTH / 255.0, 16, icc.primaries_to_srgb(9))
    assert np.abs(photo.pixels - wanted).max() < 2e-3


def test_a_turned_file_becomes_upright(tmp_path):
    exif = Exif()
    exif.put(exif.image, 274, 6)
    Image.fromarray(SMOOTH).save(tmp_path / "in.png", exif=exif.tobytes())
    program("cjxl", "-q", 100, tmp_path / "in.png", tmp_path / "in.jxl")
    photo = load_photo(tmp_path / "in.jxl")
    assert photo.decoded_upright == 6 and np.array_equal(np.rint(photo.pixels * 255), np.rot90(SMOOTH, -1))
    save_photo(photo, tmp_path / "out.jxl")
    assert header(codestream((tmp_path / "out.jxl").read_bytes())).orientation == 1
    assert np.array_equal(load_photo(tmp_path / "out.jxl").pixels, photo.pixels)


def test_packed_metadata_and_other_boxes(tmp_path):
    packet = xmp.describe(None, "packed")
    data = imagecodecs.jpegxl_encode(RGB8, lossless=True, usecontainer=True)
    place = next(start - 8 for kind, start, _ in boxes.boxes(data) if kind == b"jxlc")
    packed = b"xml " + imagecodecs.brotli_encode(packet)
    aside = b"".join(struct.pack(">L4s", len(content) + 8, kind) + content
                     for kind, content in ((b"brob", packed), (b"brob", b"Exif\xff\xff"),
                                           (b"jhgm", b"\0")))  # fmt: skip
    (tmp_path / "in.jxl").write_bytes(data[:place] + aside + data[place:])
    photo = load_photo(tmp_path / "in.jxl")
    assert photo.description == "packed" and len(photo.notes) == 2
    assert any("HDR gain map" in note for note in photo.notes) and any("damaged" in note for note in photo.notes)


DATA = imagecodecs.jpegxl_encode(RGB8, lossless=True)


@pytest.mark.parametrize("bits", [8, 16])
def test_from_the_command_to_other_programs(bits, tmp_path, monkeypatch, capsys):
    """A JPEG of a camera, or 16 bits of it, becomes a JPEG XL: libjxl and exiftool read what was kept."""
    from diffretouch import CSRNetPipeline, cli

    exif, packet = (
        camera_exif(orientation=6),
        xmp.with_description(None, ' xmlns:a="urn:a" a:b="of the photographer"/>'),
    )
    photo = Photo(np.float32(SMOOTH / 255), bit_depth=bits, exif=exif.tobytes(), xmp=packet,
                  icc_profile=icc.adobe_rgb_profile())  # fmt: skip
    source, out = tmp_path / ("in.jpg" if bits == 8 else "in.tif"), tmp_path / "out.jxl"
    save_photo(photo, source)
    options = ["--model", "csrnet", "--quality", "100", "--strength", "0.5"]
    monkeypatch.setattr("sys.argv", ["diffretouch", "retouch", str(source), "-o", str(out), *options])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert not out.with_suffix(".json").exists() and out.exists(), capsys.readouterr().err
    wanted = CSRNetPipeline.from_pretrained("small").retouch(load_photo(source).pixels, strength=0.5)
    again = load_photo(out)
    assert again.bit_depth == bits and again.icc_profile == icc.adobe_rgb_profile() and not again.notes
    assert np.abs(again.pixels.clip(0, 1) - wanted.clip(0, 1)).max() < (0.06 if bits == 8 else 0.01)
    said = exiftool(out)
    assert said["IFD0:Make"] == "Canon" and said.get("IFD0:Orientation", 1) in (1, None)
    assert b"of the photographer" in again.xmp and again.description
    program("djxl", out, tmp_path / "seen.png")
    seen = load_photo(tmp_path / "seen.png")
    assert seen.bit_depth == bits and seen.icc_profile == again.icc_profile
    assert np.array_equal(seen.pixels, again.pixels)


def test_a_jpeg_packed_without_loss_is_a_picture_with_loss(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "in.jpg", quality=80)
    program("cjxl", "--lossless_jpeg=1", tmp_path / "in.jpg", tmp_path / "packed.jxl")
    (tmp_path / "made.jxl").write_bytes(DATA)
    packed, made = (load_photo(tmp_path / f"{name}.jxl") for name in ("packed", "made"))
    assert made.lossless and not packed.lossless and packed.bit_depth == 8


@pytest.mark.parametrize("data, reason", [
    (imagecodecs.jpegxl_encode(np.stack([RGB8, RGB8]), lossless=True), "animation"), (DATA[:200], "JPEG XL"),
    (DATA[:3], "cut off"), (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(8), "no picture")],
    ids=["animation", "cut off", "no header", "no picture"])  # fmt: skip
def test_what_cannot_be_read_is_told(data, reason, tmp_path):
    (tmp_path / "in.jxl").write_bytes(data)
    with pytest.raises(PhotoError, match=reason):
        load_photo(tmp_path / "in.jxl")


def test_a_large_file_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "in.jxl").write_bytes(DATA)
    with pytest.raises(PhotoError, match="53 x 37"):
        load_photo(tmp_path / "in.jxl", max_pixels=100)
