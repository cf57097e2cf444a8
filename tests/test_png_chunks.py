"""The chunks of a PNG: what was put in is found, whatever is cut off or says a wrong length."""

import io
import zlib

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffretouch.photo import png_chunks


def png():
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (200, 100, 50)).save(file, "PNG")
    return file.getvalue()


PLAIN = png()
NAMES = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"oFFs", b"caBX", b"vpAg", b"tIME"])
PARTS = st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=6)


def with_chunks(parts):
    return PLAIN[:33] + b"".join(png_chunks.chunk(name, content) for name, content in parts) + PLAIN[33:]


@given(PARTS)
def test_what_was_put_in_is_found(parts):
    data = with_chunks(parts)
    found = [(name, data[a:b]) for name, a, b in png_chunks.chunks(data)]
    assert found[1 : 1 + len(parts)] == parts and found[0][0] == b"IHDR" and found[-1][0] == b"IEND"
    assert png_chunks.without(data, tuple({name for name, _ in parts})) == PLAIN
    assert Image.open(io.BytesIO(png_chunks.without(data, (b"tEXt", b"zTXt", b"iTXt")))).size == (7, 5)
    unknown = {name for name, _ in parts} & {b"oFFs", b"caBX", b"vpAg"}
    assert {name[:4].encode() for name in png_chunks.not_carried(data)} == unknown


@given(PARTS, st.data())
def test_cut_off_anywhere_it_ends(parts, draw):
    data = with_chunks(parts)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    found = list(png_chunks.chunks(cut))
    assert all(end + 4 <= len(cut) for _, _, end in found) and b"IEND" not in [name for name, _, _ in found]
    png_chunks.texts(cut), png_chunks.not_carried(cut)
    assert png_chunks.without(cut, ()) == cut


@given(st.binary(max_size=200))
def test_any_bytes_end(rubbish):
    data = PLAIN[:8] + rubbish
    assert sum(end - start + 12 for _, start, end in png_chunks.chunks(data)) <= len(rubbish)


def test_texts_and_their_damage():
    body = b"\0".join([b"Title", b"\0", b"", b"caf\xc3\xa9"])
    texts = [
        (b"tEXt", b"Author\0J\xfcrg"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"long")),
        (b"iTXt", b"Title\0\0\0\0\0caf\xc3\xa9"),
    ]
    found, lost = png_chunks.texts(with_chunks(texts))
    assert body and found == [("Author", "Jürg"), ("Comment", "long"), ("Title", "café")] and not lost
    damaged = [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"long")[:-3]),
        (b"iTXt", b"Title\0"),
        (b"iTXt", b"Name\0\0\0\0\0\xff"),
    ]
    found, lost = png_chunks.texts(with_chunks(damaged))
    assert (
        found == []
        and [word in said for word, said in zip(("Comment", "Title", "Name"), lost, strict=True)] == [True] * 3
    )
    assert png_chunks.profile(b"name\0\0" + zlib.compress(b"profile")) == b"profile"
    assert png_chunks.profile(b"name") is None and png_chunks.profile(b"name\0\0rubbish") is None


def test_a_length_beyond_the_file():
    data = PLAIN[:33] + b"\x7f\xff\xff\xfftEXtabc"
    assert [name for name, _, _ in png_chunks.chunks(data)] == [b"IHDR"]
