"""Pictures within a TIFF: their sizes are read as their codecs read them, and giants are refused before these."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffretouch.photo import PhotoError, embedded, load_photo

from .test_tiff_samples import by_hand

SCENE = np.zeros((500, 400, 3), np.uint8)
CODED = {
    7: imagecodecs.jpeg8_encode(SCENE),
    34712: imagecodecs.jpeg2k_encode(SCENE),
    34933: imagecodecs.png_encode(SCENE),
    34934: imagecodecs.jpegxr_encode(SCENE),
    50001: imagecodecs.webp_encode(SCENE, lossless=True),
    50002: imagecodecs.jpegxl_encode(SCENE),
}
OTHERS = {
    "code stream": imagecodecs.jpeg2k_encode(SCENE, codecformat="j2k"),
    "lossy": imagecodecs.webp_encode(SCENE, lossless=False),
    "alpha": imagecodecs.webp_encode(np.zeros((500, 400, 4), np.uint8), lossless=False),
    "container": imagecodecs.jpegxl_encode(SCENE, usecontainer=True),
}


@pytest.mark.parametrize("kind", [*CODED, *OTHERS])
def test_sizes_are_those_of_the_codecs(kind):
    assert embedded.largest((CODED | OTHERS)[kind]) == (400, 500)


@pytest.mark.parametrize("compression", CODED)
def test_what_is_larger_than_the_tiff_is_refused(compression, tmp_path):
    entries = [(256, 4, 1, 8), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 2),
               (277, 3, 1, 3), (278, 4, 1, 4)]  # fmt: skip
    by_hand(tmp_path / "in.tif", entries, CODED[compression])
    with pytest.raises(PhotoError, match="it holds a picture of 400 x 500 pixels, larger than itself"):
        load_photo(tmp_path / "in.tif")


@given(st.sampled_from([*CODED]), st.integers(0, 200), st.binary(max_size=3))
def test_any_bytes_end(kind, length, tail):
    width, height = embedded.largest(CODED[kind][:length] + tail)
    assert isinstance(width, int) and isinstance(height, int)
