"""RAW files that LibRaw would make black pictures of, and makers' own places for metadata."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffretouch.photo import PhotoError, load_photo, raw_files
from diffretouch.photo.exif import XMP_TAG, parse_exif

from .test_metadata import camera_exif


def write_dng(path, mosaic=None, further=()):
    if mosaic is None:
        mosaic = np.random.default_rng(0).integers(1000, 40000, (64, 96), dtype=np.uint16)
    tags = [(271, "s", 0, "Make", False), (272, "s", 0, "Model", False), (33421, "H", 2, (2, 2), False),
            (33422, "B", 4, bytes([0, 1, 1, 2]), False), (50706, "B", 4, bytes([1, 4, 0, 0]), False),
            (50708, "s", 0, "Make Model", False), (50717, "H", 1, 65535, False),
            (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), False),
            (50728, "2I", 3, (1, 1, 1, 1, 1, 1), False), (50778, "H", 1, 21, False)]  # fmt: skip
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=[*tags, *further], metadata=None)
    return path


def test_a_sensor_that_measured_nothing_in_places_is_refused(tmp_path):
    pytest.importorskip("rawpy")
    mosaic = np.random.default_rng(0).integers(1000, 40000, (64, 96), dtype=np.uint16)
    mosaic[:2] = 0
    assert load_photo(write_dng(tmp_path / "a.dng", mosaic)).pixels.shape[2] == 3
    mosaic[-8:] = 0  # as what a reader has not found is taken for
    with pytest.raises(PhotoError, match="cut off or damaged: rows of the sensor hold nothing"):
        load_photo(write_dng(tmp_path / "a.dng", mosaic))


def test_a_camera_s_own_data_in_a_dng_are_named(tmp_path):
    pytest.importorskip("rawpy")
    note = b"Adobe\0MakN" + struct.pack(">L2sL", 12, b"II", 900) + bytes(6)
    photo = load_photo(write_dng(tmp_path / "a.dng", further=[(50740, "B", len(note), note, False)]))
    assert "The camera's own data (DNG's private data) were not carried." in photo.notes


def test_the_exif_of_a_panasonic_is_that_of_the_jpeg_inside():
    inside, exif = io.BytesIO(), camera_exif()
    Image.new("RGB", (8, 8)).save(inside, "JPEG", exif=b"Exif\0\0" + exif.tobytes())
    jpeg, packet = inside.getvalue(), b"<x:xmpmeta/>"
    entries = [(2, 3, 1, 4000), (46, 7, len(jpeg), 60), (XMP_TAG, 1, len(packet), 60 + len(jpeg))]
    head = b"IIU\0" + struct.pack("<LH", 8, len(entries)) + b"".join(struct.pack("<HHLL", *e) for e in entries)
    found = raw_files.metadata_of(io.BytesIO(head.ljust(60, b"\0") + jpeg + packet))
    again = parse_exif(found.tobytes())
    assert again.photo == exif.photo and again.gps == exif.gps and again.image[271] == exif.image[271]
    assert found.image[XMP_TAG] == (1, packet) and 2 not in found.image
    with pytest.raises(ValueError, match="no EXIF"):
        raw_files.metadata_of(io.BytesIO(head.ljust(60, b"\0") + bytes(len(jpeg)) + packet))
