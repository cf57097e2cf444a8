"""EXIF, XMP and IPTC: nothing but what must change changes, whatever the byte order; damage is found."""

import io
import json
import shutil
import struct
import subprocess

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from diffretouch.photo import photoshop
from diffretouch.photo.exif import MAKER_NOTE, XMP_TAG, Exif, join_tiff, parse_exif, read_exif


def maker_note(order, offset):
    """A Canon maker note whose only entry points to text at an offset from the start of the block."""
    entry = struct.pack(order + "HHHLL", 1, 9, 2, 32, offset + 18)
    return entry + bytes(4) + b"Owner of the camera".ljust(32, b"\0")


def camera_exif(order="<", orientation=6):
    exif = Exif(order, note_offset=900)
    for tag, value in ((271, "Canon"), (272, "Canon EOS 5D"), (274, orientation), (306, "2020:01:02 03:04:05")):
        exif.put(exif.image, tag, value)
    exif.image[315] = (2, "Jörg".encode() + b"\0")
    exif.photo = {33434: (5, struct.pack(order + "LL", 10, 1250)), 36864: (7, b"0230"), 37121: (7, b"\1\2\3\0"),
                  37510: (7, b"ASCII\0\0\0hello"), MAKER_NOTE: (7, maker_note(order, 900))}  # fmt: skip
    for tag, value in ((40961, 1), (40962, 60), (40963, 40)):
        exif.put(exif.photo, tag, value)
    exif.gps = {1: (2, b"N\0"), 2: (5, struct.pack(order + "6L", 48, 1, 8, 1, 0, 1)), 3: (2, b"E\0"),
                4: (5, struct.pack(order + "6L", 11, 1, 30, 1, 0, 1))}  # fmt: skip
    exif.interop = {1: (2, b"R98\0"), 2: (7, b"0100")}
    return exif


def exiftool(path):
    """The tags of a file as exiftool reads them, without what the format and the file system add."""
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    done = subprocess.run(["exiftool", "-j", "-G1", "-a", "-n", str(path)], capture_output=True, check=True)
    groups = ("IFD0", "ExifIFD", "GPS", "InteropIFD", "Canon", "IPTC", "XMP-dc", "XMP-tiff", "ExifTool", "IFD1")
    return {key: value for key, value in json.loads(done.stdout)[0].items() if key.split(":")[0] in groups}


@pytest.mark.parametrize("order", "<>")
def test_exif_block_survives_being_taken_apart(order):
    exif = camera_exif(order)
    block = exif.tobytes()
    again = parse_exif(b"Exif\0\0" + block)
    assert (again.image, again.photo, again.gps, again.interop) == (exif.image, exif.photo, exif.gps, exif.interop)
    assert again.note_offset == 900 and again.damaged == 0 and again.orientation == 6
    assert again.tobytes() == block
    with Image.open(io.BytesIO(_jpeg(block))) as image:
        read = image.getexif()
        assert read[274] == 6 and read[271] == "Canon"
        assert read.get_ifd(0x8769)[33434] == 0.008 and read.get_ifd(0x8825)[1] == "N"


def _jpeg(block):
    file = io.BytesIO()
    Image.new("RGB", (60, 40)).save(file, "JPEG", exif=b"Exif\0\0" + block)
    return file.getvalue()


@pytest.mark.parametrize("order", "<>")
def test_exif_is_read_by_exiftool_with_its_maker_note(order, tmp_path):
    path = tmp_path / "camera.jpg"
    path.write_bytes(_jpeg(camera_exif(order).tobytes()))
    tags = exiftool(path)
    assert tags["Canon:OwnerName"] == "Owner of the camera"
    assert tags["ExifIFD:ExposureTime"] == 0.008 and tags["GPS:GPSLatitude"] == pytest.approx(48 + 8 / 60)
    assert tags["IFD0:Artist"] == "Jörg" and "ExifTool:Warning" not in tags


def test_the_thumbnail_is_left_out():
    plain, thumbnail = camera_exif().tobytes(), _jpeg(b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    block = bytearray(plain)
    image = struct.unpack_from("<L", block, 4)[0]
    following = image + 2 + 12 * struct.unpack_from("<H", block, image)[0]
    block[following : following + 4] = struct.pack("<L", len(block))
    entries = ((259, 6), (513, len(block) + 2 + 36 + 4), (514, len(thumbnail)))
    block += struct.pack("<H", 3) + b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries)
    block += bytes(4) + thumbnail
    with Image.open(io.BytesIO(_jpeg(bytes(block)))) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == len(thumbnail)
    assert parse_exif(bytes(block)).tobytes() == plain


@pytest.mark.parametrize("value, expected", [(b"\3\0", 3), (b"\0\0", 0), (b"\11\0", 0), (b"\xff\xff", 0)])
def test_orientation(value, expected):
    assert Exif("<", {274: (3, value)}).orientation == expected
    assert Exif("<", {274: (2, b"6\0")}).orientation == 0
    assert Exif("<", {274: (4, b"\6\0\0\0")}).orientation == 6
    assert Exif("<").orientation == 1


@pytest.mark.parametrize(
    "kind, payload, expected", [(1, b"\6", 6), (9, b"\6\0\0\0", 6), (9, b"\xff" * 4, 0), (2, b"6\0", 0)]
)
def test_orientation_of_other_types(kind, payload, expected):
    assert Exif(image={274: (kind, payload)}).orientation == expected


@pytest.mark.parametrize("block", [b"", b"II*\0", b"no TIFF at all", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\0",
                                   b"II+\0\x08\0\0\0" + b"\xff" * 24])  # fmt: skip
def test_damaged_exif_raises(block):
    with pytest.raises(ValueError):
        parse_exif(block)


@settings(max_examples=200)
@given(st.binary(max_size=400), st.sampled_from(["", "<", ">"]))
def test_any_bytes_are_exif_or_raise_value_error(rubbish, order):
    block = rubbish
    if order:  # a sound block with rubbish written over a part of it
        sound = bytearray(camera_exif(order).tobytes())
        start = 950 + sum(rubbish) % 300
        sound[start : start + len(rubbish)] = rubbish
        block = bytes(sound)
    try:
        exif = parse_exif(block)
    except ValueError:
        return
    again = parse_exif(exif.tobytes())
    assert again.image == exif.image and again.photo == exif.photo and again.damaged == 0


def test_damaged_entries_are_counted_and_left_out():
    entries = struct.pack("<HHLL", 271, 2, 40, 9999) + struct.pack("<HHL4s", 274, 3, 1, b"\1\0")
    entries += struct.pack("<HHL4s", 272, 99, 1, b"")
    exif = parse_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + bytes(4))
    assert exif.damaged == 2 and list(exif.image) == [274]


def test_a_lost_inner_directory_costs_only_itself():
    exif = camera_exif()
    block = exif.tobytes()
    place = block.index(struct.pack("<HHL", 34853, 4, 1)) + 8
    again = parse_exif(block[:place] + b"\xff\xff\xff\x7f" + block[place + 4 :])
    assert again.gps == {} and again.photo == exif.photo and again.damaged == 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_tiff_with_exif_is_one_tiff(order, big, tmp_path):
    exif = camera_exif(order, orientation=1)
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 60, 3), dtype=np.uint16)
    with open(tmp_path / "photo.tif", "w+b") as file:
        fixed = exif.start(file, big)
        base = file.tell()
        with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as tiff:
            tiff.write(pixels, photometric="rgb", rowsperstrip=7, compression="adobe_deflate", metadata=None)
        join_tiff(file, base, exif, {XMP_TAG: (1, b"<x/>")}, fixed)
    with tifffile.TiffFile(tmp_path / "photo.tif") as tiff:
        assert len(tiff.pages) == 1 and tiff.is_bigtiff == big and tiff.byteorder == order
        assert np.array_equal(tiff.asarray(), pixels)
        assert tiff.pages[0].tags[34665].value["ExposureTime"] == (10, 1250)
        assert tiff.pages[0].tags[700].value == b"<x/>" and tiff.pages[0].tags[271].value == "Canon"
    with open(tmp_path / "photo.tif", "rb") as file:
        again = read_exif(file)
    assert (again.photo, again.gps, again.interop) == (exif.photo, exif.gps, exif.interop)
    tags = exiftool(tmp_path / "photo.tif")
    assert tags["Canon:OwnerName"] == "Owner of the camera" and "ExifTool:Warning" not in tags


@pytest.mark.parametrize("iptc", [b"\x1c\x02\x69\0\4Head", b"\x1c\x02\x69\0\5Title"])
def test_iptc_in_jpeg_and_png(iptc):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", extra=photoshop.segments(iptc, None)[0])
    with Image.open(file) as image:
        assert image.info["photoshop"][0x0404] == iptc
    blob = photoshop.pack([(photoshop.IPTC, b"", iptc), (0x040A, b"", b"\1"), (0x040C, b"", b"thumbnail")])
    read = photoshop.profile_bytes(photoshop.profile_text("8bim", blob))
    assert photoshop.iptc_and_others(read) == (iptc, photoshop.pack([(0x040A, b"", b"\1")]), True)


def test_iptc_in_several_parts_is_one():
    one, two = b"\x1c\x02\x69\0\4Head", b"\x1c\x02\x50\x80\1\2by"  # the second with a long form of its length
    parts = [b"", one + b"\0", one + b"\0", two]
    blob = photoshop.pack((photoshop.IPTC, b"", part) for part in parts)
    assert photoshop.iptc_and_others(blob) == (one + two, None, True)
    assert photoshop.iptc_and_others(photoshop.pack([(photoshop.IPTC, b"", one + b"\0")]))[0] == one + b"\0"


@pytest.mark.parametrize("text", ["", "iptc", "x", "\niptc\n 8\nzz", "\niptc\n 4\n3842494d0404", "\niptc\n 2\nffff"])
def test_damaged_iptc_in_png_is_no_iptc(text):
    assert photoshop.iptc_and_others(photoshop.profile_bytes(text))[::2] == (None, False)
