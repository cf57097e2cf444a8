"""Photo files for the tests, written and read by other libraries than ours."""

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

PHOTOS = Path(__file__).parent / "photos"
CITY = PHOTOS / "gb82_city-lossless.jpg"
PHOTO = PHOTOS / "gb82_dog-lossless.jpg"
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


def pixels(path):
    """As 8 bits of RGB, signed, whatever the file holds."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


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
