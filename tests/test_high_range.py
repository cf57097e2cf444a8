"""PQ and HLG: the curves against colour-science, the rule against the text of BT.2390, and files."""

import struct

import colour
import imagecodecs
import numpy as np
import pytest

from diffretouch.colour import srgb_to_linear
from diffretouch.photo import PhotoError, high_range, icc, load_photo, png_chunks, save_photo


def test_curves_against_colour_science():
    values = np.linspace(0, 1, 301)
    assert np.allclose(high_range.pq_to_light(values), colour.models.eotf_BT2100_PQ(values), rtol=1e-6, atol=1e-9)
    light = np.geomspace(1e-3, 1e4, 301)
    assert np.allclose(high_range.light_to_pq(light), colour.models.eotf_inverse_BT2100_PQ(light), atol=1e-9)
    colours = np.random.default_rng(0).random((50, 3))
    assert np.allclose(
        high_range.scene_to_light(high_range.hlg_to_scene(colours)),
        colour.models.eotf_BT2100_HLG(colours),
        rtol=1e-4,
        atol=1e-3,
    )


def test_primaries_against_colour_science():
    spaces = {9: "ITU-R BT.2020", 12: "Display P3", 1: "sRGB"}
    for code, name in spaces.items():
        wanted = colour.matrix_RGB_to_RGB(colour.RGB_COLOURSPACES[name], colour.RGB_COLOURSPACES["sRGB"], None)
        assert np.abs(icc.primaries_to_srgb(code) - wanted).max() < 5e-4, name


@pytest.mark.parametrize("peak", [400.0, 1000.0, 4000.0, 10000.0])
def test_the_rule_of_bt_2390(peak):
    light = np.linspace(0, peak, 2001)
    mapped = high_range.compressed(light, peak)
    encode = colour.models.eotf_inverse_BT2100_PQ
    knee = 1.5 * encode(203.0) / encode(peak) - 0.5
    below = encode(light) / encode(peak) < knee
    assert np.allclose(mapped[below], light[below], rtol=1e-9)
    assert mapped[-1] == pytest.approx(203) and (np.diff(mapped) > -1e-9).all() and (mapped <= light + 1e-9).all()
    t = (encode(light[~below]) / encode(peak) - knee) / (1 - knee)  # Hermite's spline of the Recommendation
    most = encode(203.0) / encode(peak)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    assert np.allclose(encode(mapped[~below]), spline * encode(peak), atol=1e-9)


def test_greys_up_to_white_stay_and_hues_too():
    values = high_range.light_to_pq(np.array([0.0, 1.0, 20.3, 101.5, 203.0]))[None, :, None].repeat(3, 2)
    out = high_range.to_srgb(values, high_range.PQ, icc.primaries_to_srgb(9))
    assert np.allclose(srgb_to_linear(out)[0, :, 1] * 203, [0, 1, 20.3, 101.5, 203], rtol=1e-3, atol=1e-3)
    bright = high_range.light_to_pq(np.array([[[4000.0, 1000.0, 500.0], [40.0, 10.0, 5.0]]]))
    light = srgb_to_linear(high_range.to_srgb(bright, high_range.PQ, np.eye(3)))
    assert np.allclose(light[0, 0] / light[0, 0, 0], [1, 0.25, 0.125], atol=1e-3) and light.max() <= 1.0001
    assert np.allclose(light[0, 1] * 203, [40, 10, 5], rtol=1e-3)


def png(tmp_path, codes, points):
    data = imagecodecs.png_encode(codes)
    (tmp_path / "in.png").write_bytes(data[:33] + png_chunks.chunk(b"cICP", bytes((*points, 0, 1))) + data[33:])
    return tmp_path / "in.png"


@pytest.mark.parametrize("transfer, name", [(16, "PQ"), (18, "HLG")])
def test_a_png_is_tone_mapped_and_says_so(transfer, name, tmp_path):
    codes = np.random.default_rng(0).integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    photo = load_photo(png(tmp_path, codes, (9, transfer)))
    assert photo.bit_depth == 16 and any(name in note and "BT.2390" in note for note in photo.notes)
    wanted = high_range.to_srgb(codes / 65535.0, transfer, icc.primaries_to_srgb(9))
    assert np.abs(photo.pixels - wanted).max() < 2e-3
    save_photo(photo, tmp_path / "out.png")
    again = load_photo(tmp_path / "out.png")
    assert not again.high_range and not again.notes and np.abs(again.pixels - wanted.clip(0, 1)).max() < 2e-3


def test_black_grey_and_unknown_primaries(tmp_path):
    black = load_photo(png(tmp_path, np.zeros((4, 5, 3), np.uint8), (9, 16)))
    assert (black.pixels == 0).all()
    grey = load_photo(png(tmp_path, np.full((4, 5), 128, np.uint8), (9, 18)))
    assert np.ptp(grey.pixels, axis=2).max() < 1e-3 and grey.pixels.min() > 0.1
    with pytest.raises(PhotoError, match="primaries 8"):
        load_photo(png(tmp_path, np.zeros((4, 5, 3), np.uint8), (8, 16)))


def test_an_avif_in_pq(tmp_path):
    from PIL import Image

    codes = np.full((16, 16, 3), 148, np.uint8)  # 203 cd/m² is 0.5807
    Image.fromarray(codes).save(tmp_path / "in.avif", quality=100, subsampling="4:4:4", icc_profile=b"")
    data = (tmp_path / "in.avif").read_bytes()
    place = data.index(b"nclx")
    (tmp_path / "in.avif").write_bytes(data[: place + 4] + struct.pack(">2H", 9, 16) + data[place + 8 :])
    photo = load_photo(tmp_path / "in.avif")
    assert photo.high_range == (9, 16) and np.abs(photo.pixels - 1).max() < 0.02
