"""The eight orientations: as Pillow turns pictures, and points, boxes and subjects with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from diffretouch.photo.orientation import turn, turn_box, turn_point, turn_subject

EIGHT = range(1, 9)


@pytest.mark.parametrize("orientation", EIGHT)
def test_as_pillow(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(pixels, orientation), np.asarray(ImageOps.exif_transpose(picture)))


@given(st.sampled_from(EIGHT), st.integers(0, 6), st.integers(0, 4))
def test_a_pixel_s_middle_lies_where_the_pixel_is(orientation, x, y):
    marked = np.zeros((5, 7), np.uint8)
    marked[y, x] = 1
    u, v = turn_point(x + 0.5, y + 0.5, orientation, 7, 5)
    assert turn(marked, orientation)[int(v), int(u)] == 1
    u, v, *_ = turn_subject([x, y], orientation, (7, 5))
    assert turn(marked, orientation)[v, u] == 1


@given(st.sampled_from(EIGHT), st.integers(0, 5), st.integers(0, 3), st.integers(1, 2), st.integers(1, 2))
def test_a_box_holds_the_same_pixels(orientation, x, y, w, h):
    marked = np.zeros((5, 7), np.uint8)
    marked[y : y + h, x : x + w] = 1
    a, b, c, d = map(int, turn_box(x, y, min(w, 7 - x), min(h, 5 - y), orientation, 7, 5))
    upright = turn(marked, orientation)
    assert upright[b : b + d, a : a + c].all() and upright.sum() == c * d


@pytest.mark.parametrize("orientation", [0, 9, 1])
def test_others_stay(orientation):
    pixels = np.arange(6).reshape(2, 3)
    assert turn(pixels, orientation) is pixels and turn_point(0.2, 0.3, orientation) == (0.2, 0.3)
