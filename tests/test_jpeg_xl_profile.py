"""ICC profiles in the coded picture of JPEG XL: what libjxl wrote is read, what is written comes back."""

import time

import imagecodecs
import numpy as np
import pytest

from diffretouch.photo import icc
from diffretouch.photo.bits import BitReader, BitWriter
from diffretouch.photo.jpeg_xl import codestream, header
from diffretouch.photo.jpeg_xl_profile import read_profile, write_profile

from .test_jpeg_xl import PROFILES, RGB8, png, program


def written(profile):
    bits = BitWriter()
    write_profile(bits, profile)
    return bits.tobytes()


@pytest.mark.parametrize("size", [1, 127, 128, 129, 1000, 70_000])
def test_any_bytes_come_back(size):
    profile = np.random.default_rng(size).bytes(size)
    bits = BitReader(written(profile) + b"behind")
    assert read_profile(bits) == profile and bits.data[-(-bits.place // 8) :] == b"behind"


@pytest.mark.parametrize("value", [0, 1, 16, 17, 272, 273, 4095, 4096, 1 << 20, (1 << 32) + 7])
def test_long_numbers(value):
    bits = BitWriter()
    bits.number(5, 3)
    bits.long_number(value)
    bits = BitReader(bits.tobytes())
    assert (bits.number(3), bits.long_number()) == (5, value)


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "P3"])
@pytest.mark.parametrize("effort", [1, 7, 9])
def test_profiles_as_libjxl_codes_them(name, effort, tmp_path):
    png(tmp_path / "in.png", RGB8, PROFILES[name])
    program("cjxl", "-q", 100, "-e", effort, tmp_path / "in.png", tmp_path / "in.jxl")
    code = codestream((tmp_path / "in.jxl").read_bytes())
    bits = BitReader(code)
    bits.place = header(code).end
    assert read_profile(bits) == PROFILES[name]
    # Whatever is changed in it, it is read, or told to be damaged
    random, first, last = np.random.default_rng(0), header(code).end // 8 + 1, -(-bits.place // 8)
    for _ in range(60):
        spoilt = bytearray(code[: last + 64])
        spoilt[random.integers(first, last)] ^= 1 << random.integers(8)
        bits = BitReader(bytes(spoilt))
        bits.place = header(code).end
        try:
            read_profile(bits)
        except ValueError as error:
            assert "damaged" in str(error) or "cut off" in str(error) or "longer" in str(error)


@pytest.mark.parametrize("cut", [1, 50, 400])
def test_a_cut_off_profile(cut):
    with pytest.raises(ValueError, match="cut off"):
        read_profile(BitReader(written(icc.adobe_rgb_profile())[:cut]))


def test_a_few_bits_do_not_become_millions_of_bytes():
    bits = BitWriter()
    bits.long_number(1 << 22)
    for value, size in ((0, 1), (1, 1), (0, 2), (1, 1), (8, 4), (0, 4), (0, 4), (0, 1)):  # one symbol of no bits
        bits.number(value, size)
    start = time.process_time()
    with pytest.raises(ValueError, match="damaged"):
        read_profile(BitReader(bits.tobytes() + bytes(64)))
    assert time.process_time() - start < 5
    bits = BitWriter()
    bits.long_number((1 << 22) + 1)
    with pytest.raises(ValueError, match="longer than 4 MB"):
        read_profile(BitReader(bits.tobytes()))


def test_imagecodecs_still_reads_what_has_another_header(tmp_path):
    from diffretouch.photo.jpeg_xl import encoded

    data = encoded(RGB8, 100, None, None, PROFILES["tables"])
    assert np.array_equal(imagecodecs.jpegxl_decode(data), RGB8)
