"""The walk from marker to marker of a JPEG: what was put in is found, whatever is cut off."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffretouch.photo.jpeg_segments import behind, not_carried, pictures, segments


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 100, 50)).save(file, "JPEG")
    return file.getvalue()


PLAIN = jpeg()


def with_segments(parts):
    made = b"".join(bytes([255, marker]) + (len(data) + 2).to_bytes(2, "big") + data for marker, data in parts)
    return PLAIN[:2] + made + PLAIN[2:]


PARTS = st.lists(st.tuples(st.sampled_from([*range(0xE1, 0xF0), 0xFE]), st.binary(max_size=70)), max_size=6)


@given(PARTS, st.binary(max_size=20))
def test_what_was_put_in_is_found(parts, tail):
    data = with_segments(parts)
    found, end = segments(data + tail)
    assert end == len(data)
    assert [(marker, data[a:b]) for marker, a, b in found[: len(parts)]] == parts
    assert (behind(data + tail, end) is None) == (not tail.strip(b"\0\n\r \xff"))


@settings(deadline=None)
@given(PARTS, st.data())
def test_cut_off_anywhere_it_ends(parts, draw):
    data = with_segments(parts)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    found, end = segments(cut)
    assert end is None and all(0 <= a <= b + 2 and b <= len(cut) for _, a, b in found)
    not_carried(cut, found)
    assert pictures(cut, found) == []


@given(st.binary(max_size=300))
def test_any_bytes_end(rubbish):
    found, end = segments(b"\xff\xd8" + rubbish)
    assert len(found) <= len(rubbish) and (end is None or end <= len(rubbish) + 2)


def test_lengths_that_are_wrong():
    for length in (b"\0\0", b"\0\1"):
        assert segments(b"\xff\xd8\xff\xe1" + length + b"rest") == ([], None)
    found, end = segments(b"\xff\xd8\xff\xe1\xff\xffshort")
    assert end is None and found[0].end == 11  # no further than the file


def test_names_of_what_is_not_carried():
    kinds = {(0xEB, b"JP\0\1"): "C2PA", (0xE0, b"II*\0\1\0HEAPCCDR"): "CIFF", (0xE5, b"RMETA\0"): "APP5 (RMETA)",
             (0xE2, b"urn:iso:std:iso:ts:21496:-1\0"): "APP2"}  # fmt: skip
    for (marker, content), name in kinds.items():
        data = with_segments([(marker, content)])
        assert name in " ".join(not_carried(data, segments(data)[0])) or marker == 0xE2
    for marker, content in ((0xEE, b"Adobe\0d"), (0xE1, b"Exif\0\0"), (0xE0, b"JFIF\0")):
        data = with_segments([(marker, content)])
        assert not_carried(data, segments(data)[0]) == []
