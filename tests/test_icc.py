"""ICC: against colour-science and Pillow's own conversions, and back again."""

import io
import struct
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffretouch.photo import icc

colour = pytest.importorskip("colour")
# Without matplotlib, colour-science puts a stand-in under its name, on which diffusers cannot be imported any more.
for name in [name for name, module in sys.modules.items() if isinstance(module, MagicMock)]:
    del sys.modules[name]


@pytest.fixture(scope="module")
def pixels():
    random = np.random.default_rng(0)
    return random.random((40, 50, 3), np.float32)


def display_p3():
    return icc.cicp_profile(12, 13)


@pytest.mark.parametrize(
    "profile, space",
    [(icc.adobe_rgb_profile, "Adobe RGB (1998)"), (display_p3, "Display P3"),
     (lambda: icc.cicp_profile(9, 13), "ITU-R BT.2020")],
)  # fmt: skip
def test_to_srgb_agrees_with_colour_science(profile, space, pixels):
    source = colour.RGB_COLOURSPACES[space]
    decode = (lambda x: x ** (563 / 256)) if "Adobe" in space else colour.models.eotf_sRGB
    linear = colour.RGB_to_RGB(decode(pixels.astype(float)), source, "sRGB", chromatic_adaptation_transform=None)
    expected = np.copysign(colour.models.eotf_inverse_sRGB(np.abs(linear)), linear)
    ours = icc.to_srgb(pixels, profile())
    assert ours.dtype == np.float32 and ours.min() < -0.1
    dark = np.abs(linear) < 2e-3  # rounded matrices weigh most where the curve is steep
    assert np.abs(ours - expected)[~dark].max() < 3e-3
    assert np.abs(ours - expected).max() < 0.012


@pytest.mark.parametrize("profile", [icc.adobe_rgb_profile, display_p3, icc.srgb_profile])
def test_there_and_back_is_exact_for_8_bits_and_close_for_16(profile):
    codes = np.random.default_rng(1).integers(0, 256, (200, 200, 3))
    back = icc.from_srgb(icc.to_srgb((codes / 255).astype(np.float32), profile()), profile())
    assert np.array_equal(np.rint(back.clip(0, 1) * 255), codes)
    codes = np.random.default_rng(1).integers(0, 65536, (200, 200, 3))
    back = icc.from_srgb(icc.to_srgb((codes / 65535).astype(np.float32), profile()), profile())
    assert np.abs(np.rint(back.clip(0, 1) * 65535) - codes).max() <= 40


def test_to_srgb_agrees_with_pillow_inside_the_gamut():
    from PIL import Image, ImageCms

    profile = icc.adobe_rgb_profile()
    inside = (np.random.default_rng(2).random((50, 50, 3)) * 0.3 + 0.4).astype(np.float32)
    picture = Image.fromarray(np.rint(inside * 255).astype(np.uint8))
    pillow = ImageCms.profileToProfile(picture, io.BytesIO(profile), io.BytesIO(icc.srgb_profile()), renderingIntent=1)
    ours = np.rint(icc.to_srgb(np.asarray(picture, np.float32) / 255, profile) * 255)
    assert np.abs(ours - np.asarray(pillow)).max() <= 1


def test_one_way_profiles_become_what_viewers_show(pixels):
    levels = np.rint(255 * pixels).astype(np.uint8)
    profile = icc.adobe_rgb_profile()
    source, target = (ImageCms.ImageCmsProfile(io.BytesIO(one)) for one in (profile, icc.srgb_profile()))
    shown = ImageCms.profileToProfile(Image.fromarray(levels), source, target, renderingIntent=1)
    np.testing.assert_array_equal(icc.as_shown(levels, profile), np.asarray(shown))


def test_values_outside_the_range_are_kept():
    high = np.array([[[1.5, 1.2, 1.1], [-0.1, 0.5, 0.5]]], np.float32)
    profile = icc.adobe_rgb_profile()
    assert icc.to_srgb(high, profile).max() > 1.4
    assert not icc.is_bounded(profile) and icc.is_bounded(display_p3())


def test_which_profiles_are_srgb():
    assert icc.is_srgb(icc.srgb_profile())
    assert not icc.is_srgb(icc.adobe_rgb_profile()) and not icc.is_srgb(display_p3())


def test_profiles_carry_no_date():
    for profile in (icc.srgb_profile(), icc.adobe_rgb_profile(), display_p3()):
        assert profile[24:36] == bytes(12) and profile[84:100] == bytes(16)


def test_grey_profile_stays_grey():
    from imagecodecs import cms_profile

    profile = cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.8)
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16, 1)
    srgb = icc.to_srgb(ramp, profile)
    assert np.ptp(srgb, axis=2).max() == 0
    assert srgb[8, 0, 0] == pytest.approx(colour.models.eotf_inverse_sRGB((128 / 255) ** 1.8), abs=1e-3)
    assert np.abs(icc.from_srgb(srgb, profile) - ramp).max() < 1e-4


def cmyk_profile():
    """An output profile whose table has only the 16 corners of CMYK, in CIELAB of 8 bits."""
    lightness = {(0, 0, 0): 255, (1, 0, 0): 150, (0, 1, 0): 130, (0, 0, 1): 235, (1, 1, 0): 70, (1, 0, 1): 140,
                 (0, 1, 1): 125, (1, 1, 1): 60}  # fmt: skip
    table = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        cyan, magenta, yellow, black = corner
        keep = 1 - black
        a, b = keep * (75 * magenta - 40 * cyan), keep * (85 * yellow - 45 * cyan)
        table += bytes([round(lightness[corner[:3]] * keep), 128 + a, 128 + b])
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *[65536, 0, 0, 0, 65536, 0, 0, 0, 65536])
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(table) + ramp * 3
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(79), b"cprt": b"text\0\0\0\0CC0\0",
            b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061), b"A2B0": lut}  # fmt: skip
    index, body = struct.pack(">L", len(tags)), b""
    for name, data in tags.items():
        index += name + struct.pack(">2L", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(index) + len(body)
    header = struct.pack(">L4sL4s4s4s12x4s", size, b"test", 0x02100000, b"prtr", b"CMYK", b"Lab ", b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + index + body


def test_cmyk_agrees_with_pillow():
    from PIL import Image, ImageCms

    inks = np.random.default_rng(3).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    inks[0, :3] = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)]
    ours = icc.to_srgb(inks / np.float32(255), cmyk_profile())
    assert ours[0, 0].min() > 0.98 and ours[0, 1].max() < 0.02 and ours[0, 2, 0] < ours[0, 2, 2]
    picture = Image.fromarray(inks, "CMYK")
    profiles = io.BytesIO(cmyk_profile()), io.BytesIO(icc.srgb_profile())
    exact = ImageCms.Flags.NOOPTIMIZE
    pillow = ImageCms.profileToProfile(picture, *profiles, renderingIntent=1, outputMode="RGB", flags=exact)
    assert np.abs(ours.clip(0, 1) * 255 - np.asarray(pillow)).max() < 2
    assert not icc.leads_back(cmyk_profile())


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(transfer):
    with pytest.raises(ValueError, match="high dynamic range"):
        icc.cicp_profile(9, transfer)
    with pytest.raises(ValueError, match="primaries 99"):
        icc.cicp_profile(99, 13)
    assert icc.cicp_profile(1, 13) is None


@pytest.mark.parametrize(
    "spoil, message",
    [(lambda p: b"", "no ICC"), (lambda p: b"x" * 300, "no ICC"), (lambda p: p[:200], "LittleCMS"),
     (lambda p: p[:16] + b"CMYK" + p[20:], "4 channels"), (lambda p: p[:16] + b"GRAY" + p[20:], "1 channel"),
     (lambda p: p[:12] + b"link" + p[16:], "class link"), (lambda p: p[:16] + b"Lab " + p[20:], "Lab data")],
)  # fmt: skip
def test_unusable_profiles_raise(spoil, message):
    with pytest.raises(ValueError, match=message):
        icc.to_srgb(np.zeros((2, 2, 3), np.float32), spoil(icc.srgb_profile()))


@pytest.mark.parametrize("transfer, decode", [(8, lambda v: v), (4, lambda v: v**2.2), (5, lambda v: v**2.8)])
def test_code_points_of_tones(transfer, decode):
    grey = np.linspace(0, 1, 33, dtype=np.float32)[None, :, None].repeat(3, 2)
    seen = icc.to_srgb(grey, icc.cicp_profile(1, transfer))
    linear = decode(grey.astype(np.float64))
    want = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(seen - want).max() < 2e-3


@pytest.mark.parametrize("primaries, transfer, said", [(1, 16, "PQ"), (9, 18, "HLG"), (1, 9, "transfer"),
                                                       (10, 13, "primaries"), (3, 1, "primaries")])  # fmt: skip
def test_code_points_that_are_refused(primaries, transfer, said):
    with pytest.raises(ValueError, match=said):
        icc.cicp_profile(primaries, transfer)


def test_a_png_s_chromaticities_and_gamma():
    srgb = struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    adobe = struct.pack(">8L", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    gamma = struct.pack(">L", 45455)
    assert icc.png_profile(gamma, srgb) is None and icc.png_profile(None, srgb) is None
    assert icc.png_profile(gamma, None) is None
    pixels = np.random.default_rng(0).random((5, 7, 3), np.float32)
    want = icc.to_srgb(pixels, icc.adobe_rgb_profile())
    assert np.abs(icc.to_srgb(pixels, icc.png_profile(gamma, adobe)) - want).max() < 3e-3
    for damaged in (struct.pack(">8L", *[0] * 8), srgb[:12]):
        with pytest.raises(ValueError):
            icc.png_profile(gamma, damaged)


def test_a_profile_is_kept_only_where_it_leads_back():
    assert icc.leads_back(icc.adobe_rgb_profile()) and icc.leads_back(icc.cicp_profile(9, 8))
    assert icc.leads_back(icc.srgb_profile()) and not icc.leads_back(cmyk_profile())
