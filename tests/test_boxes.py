"""The boxes of HEIF files: what was put in is found, and whatever is wrong raises ValueError or ends."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffretouch.photo import boxes


def box(kind, content, wide=False):
    if wide:
        return struct.pack(">L4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">L4s", 8 + len(content), kind) + content


def full(kind, content, version=0, flags=0):
    return box(kind, bytes([version]) + flags.to_bytes(3, "big") + content)


def file(turn=1, mirror=None, auxiliary=b"urn:com:apple:photo:2020:aux:hdrgainmap"):
    """A picture (item 1) that is turned, and an auxiliary one (item 2)."""
    kinds = b"".join(full(b"infe", struct.pack(">HH4s", n, 0, b"hvc1"), 2) for n in (1, 2))
    properties = [box(b"irot", bytes([turn])), full(b"auxC", auxiliary + b"\0")]
    properties += [box(b"imir", bytes([mirror]))] if mirror is not None else []
    owned = (
        struct.pack(">LHBB", 2, 1, 1 + (mirror is not None), 1)
        + b"\3" * (mirror is not None)
        + struct.pack(">HBB", 2, 1, 2)
    )
    meta = full(b"pitm", struct.pack(">H", 1)) + full(b"iinf", struct.pack(">H", 2) + kinds)
    meta += full(b"iref", box(b"auxl", struct.pack(">HHH", 2, 1, 1)))
    meta += box(b"iprp", box(b"ipco", b"".join(properties)) + full(b"ipma", owned))
    return box(b"ftyp", b"heic\0\0\0\0") + full(b"meta", meta) + box(b"mdat", b"pixels")


@given(st.lists(st.tuples(st.binary(min_size=4, max_size=4), st.binary(max_size=30), st.booleans()), max_size=6))
def test_what_was_put_in_is_found(parts):
    data = b"".join(box(*part) for part in parts)
    assert [(kind, data[a:b]) for kind, a, b in boxes.boxes(data)] == [part[:2] for part in parts]
    last = struct.pack(">L4s", 0, b"last") + b"to the end"
    assert list(boxes.boxes(data + last))[-1] == (b"last", len(data) + 8, len(data) + len(last))


@pytest.mark.parametrize(
    "turn, mirror, orientation",
    [(0, None, 1), (1, None, 8), (2, None, 3), (3, None, 6), (0, 1, 2), (0, 0, 4), (1, 0, 5), (3, 0, 7)],
)
def test_the_main_picture_s_turn(turn, mirror, orientation):
    data = file(turn, mirror)
    found = boxes.items(data)
    assert found.primary == 1 and boxes.orientation(data, found) == orientation


def test_auxiliary_pictures_and_credentials_are_named():
    data = file()
    names = boxes.not_carried(data, boxes.items(data))
    assert names == ["a gain map"]
    alpha = file(auxiliary=b"urn:mpeg:hevc:2015:auxid:1")
    assert boxes.not_carried(alpha, boxes.items(alpha)) == []
    signed = data + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"manifest")
    assert any("C2PA" in name for name in boxes.not_carried(signed, boxes.items(signed)))


def test_other_boxes_and_what_lies_behind_are_named():
    plain = file(auxiliary=b"urn:mpeg:hevc:2015:auxid:1")
    data = plain + box(b"free", bytes(9)) + box(b"sefd", b"Samsung") + box(b"new!", b"") + b"\0\0\n"
    assert boxes.not_carried(data, boxes.items(data)) == ["the box 'new!'", "what Samsung's camera added"]
    moving = plain + box(b"moov", b"")
    assert boxes.not_carried(moving, boxes.items(moving)) == ["a film or a sequence of pictures"]
    frames = moving.replace(b"ftypheic", b"ftypavis")  # the reader says how many there are
    assert boxes.not_carried(frames, boxes.items(frames)) == []
    assert boxes.not_carried(plain + b"rest", boxes.items(plain)) == ["4 bytes behind the picture"]


@given(st.integers(0, len(file()) - 1), st.integers(0, 255))
def test_any_changed_byte_raises_value_error_or_is_read(place, value):
    data = bytearray(file(3, 0))
    data[place % len(data)] = value
    try:
        found = boxes.items(bytes(data))
    except ValueError:
        return
    boxes.nclx(bytes(data), found), boxes.of_main(bytes(data), found, b"av1C")


@given(st.integers(0, len(file())))
def test_cut_off_anywhere_it_ends(length):
    data = file()[:length]
    assert all(end <= length for _, _, end in boxes.boxes(data))
    if length < data.find(b"mdat") - 4 or b"meta" not in data:
        with pytest.raises(ValueError):
            boxes.items(data)


@given(st.binary(max_size=200))
def test_any_bytes_end(rubbish):
    assert len(list(boxes.boxes(rubbish))) <= len(rubbish) / 8 + 1
