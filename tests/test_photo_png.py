"""PNG files: colours by their chunks, large profiles and texts, transparent grey."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from diffretouch.photo import icc, load_photo, save_photo

from .photo_files import RGB8, RGB16


def png_with(path, *chunks, pixels=RGB8):
    from diffretouch.photo.png_chunks import chunk

    data = imagecodecs.png_encode(pixels)
    path.write_bytes(data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:])
    return path


ADOBE_POINTS = struct.pack(">8L", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def test_a_png_s_colours_by_its_chunks(tmp_path):
    gamma, path = (b"gAMA", struct.pack(">L", 45455)), tmp_path / "in.png"
    adobe = load_photo(png_with(path, (b"iCCP", b"x\0\0" + zlib.compress(icc.adobe_rgb_profile())))).pixels
    by_points = load_photo(png_with(path, gamma, (b"cHRM", ADOBE_POINTS)))
    assert np.abs(by_points.pixels - adobe).max() < 4e-3 and by_points.icc_profile
    save_photo(by_points, tmp_path / "out.png")
    assert np.abs(np.asarray(Image.open(tmp_path / "out.png")).astype(int) - RGB8).max() <= 1
    plain = load_photo(png_with(path, gamma, (b"cHRM", ADOBE_POINTS), (b"sRGB", b"\0")))  # sRGB counts more
    np.testing.assert_allclose(plain.pixels, RGB8 / 255, atol=1e-6)
    grey = np.full((8, 8, 3), 128, np.uint8)
    linear = load_photo(png_with(path, (b"cICP", bytes([1, 8, 0, 1])), pixels=grey))
    assert abs(linear.pixels.mean() - 0.7367) < 2e-3
    assert load_photo(png_with(path, (b"cHRM", bytes(32)))).notes  # damaged: said


def test_a_png_s_large_profile_and_text(tmp_path):
    profile = icc.adobe_rgb_profile()
    profile = bytearray(profile + np.random.default_rng(0).bytes(1_200_000))
    profile[:4] = struct.pack(">L", len(profile))
    text = b"Comment\0\0" + zlib.compress(b"long " * 400_000)
    chunks = (b"iCCP", b"x\0\0" + zlib.compress(bytes(profile))), (b"zTXt", text)
    for pixels in (RGB8, RGB16):
        photo = load_photo(png_with(tmp_path / "in.png", *chunks, pixels=pixels))
        assert photo.icc_profile == bytes(profile) and len(photo.text["Comment"]) == 2_000_000


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_png_s_transparent_grey(tmp_path, bits):
    from diffretouch.photo.png_chunks import chunk

    head = struct.pack(">LLBBBBB", 8, 1, bits, 0, 0, 0, 0)
    values = np.arange(8) % 2**bits
    packed = np.packbits((values[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel()).tobytes()
    chunks = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(b"\0" + packed)),
        (b"IEND", b""),
    )
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    photo = load_photo(tmp_path / "in.png")
    np.testing.assert_array_equal(photo.alpha[0], values != 1)
    np.testing.assert_allclose(photo.pixels[0, :, 0], values / (2**bits - 1), atol=1e-6)
