"""Photo files that break other programs: for each a way to make it, and why it is refused (None: it is read)."""

import io
import os
import struct
import zipfile
import zlib

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from diffretouch.photo import icc
from diffretouch.photo.exif import MAKER_NOTE, ORIENTATION

from .test_icc import cmyk_profile
from .test_metadata import camera_exif

random = np.random.default_rng(0)
RGB8 = random.integers(0, 256, (37, 53, 3), dtype=np.uint8)
RGB16 = random.integers(0, 65536, (37, 53, 3), dtype=np.uint16)
IMAGE = Image.fromarray(RGB8)


def _encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def _png_header(width, height):
    data = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">L", zlib.crc32(b"IHDR" + data))
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + data + crc + b"\0\0\0\0IDAT" + struct.pack(">L", zlib.crc32(b"IDAT"))


def _wrong_crc():
    data = bytearray(imagecodecs.png_encode(RGB8))
    data[60] ^= 255
    return bytes(data)


def _archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"")
    return file.getvalue()


def _mode(mode, format="PNG", **options):
    image = Image.fromarray(RGB16[..., 0] // 2) if mode == "I;16" else IMAGE
    if mode == "F":
        image = Image.fromarray(RGB16[..., 0] / np.float32(65535))
    elif mode != "I;16":
        image = image.convert("L").convert(mode) if mode in ("LA", "I") else image.convert(mode)
    return _encoded(image, format, **options)


def _with_exif(block):
    return _encoded(IMAGE, "JPEG", exif=b"Exif\0\0" + block)


def _orientation(kind, payload):
    exif = camera_exif()
    exif.image[ORIENTATION] = (kind, payload)
    return _with_exif(exif.tobytes())


def _long_exif():
    exif = camera_exif()
    exif.photo[MAKER_NOTE] = (7, bytes(70_000))
    png = imagecodecs.png_encode(RGB8)
    block = exif.tobytes()
    crc = struct.pack(">L", zlib.crc32(b"eXIf" + block))
    return png[:33] + struct.pack(">L", len(block)) + b"eXIf" + block + crc + png[33:]


def _profile(name):
    d50, prophoto = [0.3457, 0.3585, 1.0], [0.7347, 0.2653, 1.0, 0.1596, 0.8404, 1.0, 0.0366, 0.0001, 1.0]
    return {
        "adobe": icc.adobe_rgb_profile,
        "p3": lambda: icc.cicp_profile(12, 13),
        "prophoto": lambda: imagecodecs.cms_profile("rgb", whitepoint=d50, primaries=prophoto, gamma=1.8),
        "grey": lambda: imagecodecs.cms_profile("gray", whitepoint=d50, gamma=2.2),
        "corrupt": lambda: icc.adobe_rgb_profile()[:200],
    }[name]()  # fmt: skip


def _float(*values):
    array = np.full((9, 11, 3), 0.5, np.float32)
    array.flat[: len(values)] = values
    return _tiff(array, photometric="rgb")


def _loop(path):
    path.symlink_to(path)


def _unreadable(path):
    path.write_bytes(_encoded(IMAGE, "PNG"))
    path.chmod(0)


def _flat(colour):
    return _encoded(Image.new("RGB", (60, 40), colour), "PNG")


def _moving(format, **options):
    return _encoded(IMAGE, format, save_all=True, append_images=[Image.fromarray(255 - RGB8)], **options)


_MAY_READ_ALL = not hasattr(os, "geteuid") or os.geteuid() == 0
_NOT = "no JPEG, PNG, TIFF"
# (number and kind, file name, bytes or a function that makes the file, message of the refusal or None)
BAD_INPUTS = [
    ("01 empty", "empty.jpg", b"", "it is empty"),
    ("02 text", "text.jpg", b"not a photo\n" * 20, _NOT),
    ("03 only a start", "start.jpg", b"\xff\xd8\xff", "as JPEG"),
    ("04 half", "half.jpg", _encoded(IMAGE, "JPEG")[:1500], "truncated"),
    ("05 wrong CRC", "crc.png", _wrong_crc(), "as PNG"),
    ("06 14000 x 14000 claimed", "claim.png", _png_header(14000, 14000), "as PNG"),
    ("06 bomb", "bomb.png", _png_header(60000, 60000), "more than `max_pixels`"),
    ("07 10000 x 10000", "large.png", _png_header(10000, 10000), "as PNG"),
    ("08 1 x 1", "one.png", _encoded(IMAGE.resize((1, 1)), "PNG"), None),
    ("09 1 x 4000", "high.png", _encoded(IMAGE.resize((1, 4000)), "PNG"), None),
    ("09 4000 x 1", "wide.jpg", _encoded(IMAGE.resize((4000, 1)), "JPEG"), None),
    ("10 8 x 8", "tiny.webp", _encoded(IMAGE.resize((8, 8)), "WEBP"), None),
    ("11 odd", "odd.jpg", _encoded(IMAGE.resize((333, 517)), "JPEG"), None),
    ("12 panorama", "panorama.jpg", _encoded(IMAGE.resize((20000, 20)), "JPEG"), None),
    ("13 108 megapixels claimed", "hundred.png", _png_header(12000, 9000), "as PNG"),
    *((f"14 mode {mode}", f"mode_{mode.replace(';', '')}.png", _mode(mode), None)
      for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
    ("14 P with transparency", "mode_Pt.png", _mode("P", transparency=3), None),
    ("14 CMYK", "mode_CMYK.jpg", _mode("CMYK", "JPEG"), None),
    ("14 YCbCr", "mode_YCbCr.jpg", _mode("YCbCr", "JPEG"), None),
    ("14 LAB", "mode_LAB.tif", _mode("LAB", "TIFF"), None),
    ("14 I", "mode_I.tif", _mode("I", "TIFF"), "int32"),
    ("14 F", "mode_F.tif", _mode("F", "TIFF"), None),
    ("15 16 bits, PNG", "deep.png", imagecodecs.png_encode(RGB16), None),
    ("16 16 bits, deflate", "deflate.tif", _tiff(RGB16, photometric="rgb", compression="adobe_deflate"), None),
    ("16 16 bits, tiled", "tiled.tif", _tiff(RGB16, photometric="rgb", tile=(16, 16)), None),
    ("17 floats above 1", "above.tif", _float(1.5, -0.2), None),
    ("17 NaN", "nan.tif", _float(np.nan), "not finite"),
    ("18 pages", "pages.tif", _moving("TIFF"), None),
    ("19 GIF", "moving.gif", _moving("GIF"), _NOT),
    ("19 WebP", "moving.webp", _moving("WEBP"), None),
    ("19 APNG", "moving.png", _moving("PNG"), None),
    ("20 MPO", "phone.jpg", _moving("MPO"), None),
    *((f"21 orientation {n}", f"turned_{n}.jpg", _orientation(3, struct.pack("<H", n)), None) for n in range(10)),
    ("21 orientation in words", "turned_word.jpg", _orientation(2, b"upright\0"), None),
    ("22 corrupt EXIF", "exif.jpg", _with_exif(b"II*\0\xff\xff\0\0no directory"), None),
    ("23 EXIF above 64 KB", "long_exif.png", _long_exif(), None),
    *((f"24 {name}", f"profile_{name}.png", _encoded(IMAGE, "PNG", icc_profile=_profile(name)), None)
      for name in ("adobe", "p3", "prophoto", "corrupt", "grey")),
    ("24 CMYK profile", "profile_cmyk.jpg", _mode("CMYK", "JPEG", icc_profile=cmyk_profile()), None),
    ("25 RAW", "raw.cr2", b"II*\0" + bytes(100), "as RAW"),
    ("26 SVG", "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', _NOT),
    ("27 HEIC", "photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "as HEIC"),
    ("27 AVIF", "photo.avif", _encoded(IMAGE, "AVIF"), None),
    ("27 JPEG XL", "photo.jxl", b"\xff\x0a" + bytes(50), "as JPEG XL"),
    ("28 folder", "folder.jpg", lambda path: path.mkdir(), "it is a folder"),
    ("29 link to itself", "loop.jpg", _loop, "symbolic link"),
    ("30 unreadable", "locked.png", _unreadable, None if _MAY_READ_ALL else "Permission denied"),
    *(("31 " + kind, name, _encoded(IMAGE, "PNG"), None) for kind, name in (
        ("spaces", "two words .png"), ("Unicode", "\u65e5\u672c\u8a9e\u00e9.png"), ("emoji", "\U0001f4f7.png"),
        ("newline", "new\nline.png"), ("dash", "-o.png"), ("255 bytes", "n" * 251 + ".png"),
        ("no UTF-8", os.fsdecode(b"latin\xe9.png")))),
    ("32 ZIP", "archive.png", _archive(), _NOT),
    ("33 black", "black.png", _flat("black"), None),
    ("33 white", "white.png", _flat("white"), None),
    ("33 one colour", "red.png", _flat((200, 30, 30)), None),
    ("34 alpha as JPEG", "alpha.jpg", _encoded(IMAGE.convert("RGBA"), "PNG"), None),
]  # fmt: skip


def make(path, content):
    """Write the file of one bad input."""
    content(path) if callable(content) else path.write_bytes(content)
    return path
