"""HDR gain maps: libultrahdr shows what became of the HDR rendition, exiftool and Pillow read the index."""

import dataclasses
import io
import math
import shutil
import struct
import subprocess
import warnings

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.MpoImagePlugin import MpoImageFile

from diffretouch.colour import linear_to_srgb, srgb_to_linear
from diffretouch.photo import Photo, boxes, icc, jpeg_segments, load_photo, save_photo, xmp
from diffretouch.photo.exif import MAKER_NOTE, Exif
from diffretouch.photo.gain_map import APPLE, GainMap, encoded, joined

HEIGHT, WIDTH = 96, 128


def scene():
    """(H,W,3) linear light, up to three times white."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / np.array([HEIGHT, WIDTH])[:, None, None]
    return np.stack([x, y, 1 - x], -1) ** 2.2 * 3


@pytest.fixture(scope="module")
def ultra():
    """An Ultra HDR JPEG as libultrahdr writes it: base in Display P3, a map of its size and ISO metadata."""
    return imagecodecs.ultrahdr_encode(np.dstack([scene(), np.ones((HEIGHT, WIDTH))]).astype(np.float16))


def hdr(data):
    """The HDR rendition in linear light, by libultrahdr."""
    return imagecodecs.ultrahdr_decode(data)[..., :3].astype(np.float64)


def sdr(data):
    """The base picture in linear light."""
    with Image.open(io.BytesIO(data)) as image:
        return srgb_to_linear(np.asarray(image) / 255.0)


def segment(marker, payload):
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def with_segments(data, *parts):
    return data[:2] + b"".join(parts) + data[2:]


def without(data, head):
    """The file without the segments that begin so, in both of its pictures; its index is then wrong."""
    end = jpeg_segments.segments(data)[1]
    for start in (end, 0):
        for marker, begin, stop in reversed(jpeg_segments.segments(data, start)[0]):
            if marker >= 0xE0 and data.startswith(head, begin):
                data = data[: begin - 4] + data[stop:]
    return data


def saved(photo, tmp_path, name="out.jpg", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_photo(photo, tmp_path / name, **options)
    return (tmp_path / name).read_bytes()


def loaded(data, tmp_path):
    (tmp_path / "in.jpg").write_bytes(data)
    return load_photo(tmp_path / "in.jpg")


def ours(gain, **fields):
    """A photo with a grey gain map of the values (h,w) in [0,1]."""
    samples = np.rint(gain * 255).astype(np.uint8)
    return Photo(linear_to_srgb(scene() / 3).astype(np.float32), gain_map=GainMap(
        jpeg=encoded(samples), photo_size=(HEIGHT, WIDTH), **fields))  # fmt: skip


# The HDR rendition


def test_what_was_not_retouched_keeps_its_hdr_rendition(ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    assert not photo.notes and photo.gain_map.alternate_headroom > 1 and not photo.xmp
    written = saved(photo, tmp_path)
    assert jpeg_segments.segments(ultra)[1] < len(ultra) and hdr(ultra).max() > 2
    assert np.abs(hdr(written) - hdr(ultra)).mean() < 0.01
    again = load_photo(tmp_path / "out.jpg")
    assert dataclasses.replace(again.gain_map, jpeg=b"", photo_profile=None) != photo.gain_map
    for name in ("gain_min", "gain_max", "gamma", "base_offset", "alternate_offset", "alternate_headroom"):
        assert np.allclose(getattr(again.gain_map, name), getattr(photo.gain_map, name), atol=1e-6), name
    assert again.gain_map.jpeg == photo.gain_map.jpeg and again.gain_map.in_base_colours  # without loss


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_the_hdr_rendition_follows_the_retouch_by_the_same_factor(factor, ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    photo.pixels = linear_to_srgb(srgb_to_linear(photo.pixels) * factor)
    written = saved(photo, tmp_path, quality=98)
    bright = hdr(ultra).min(2) > 0.3
    ratio = hdr(written)[bright] / hdr(ultra)[bright]
    assert bright.sum() > 300 and abs(np.median(ratio) - factor) < 0.01
    assert np.percentile(np.abs(ratio - factor), 95) < 0.08 * factor


@pytest.mark.parametrize("only", ["ISO 21496-1", "XMP"])
def test_both_kinds_of_metadata_say_the_same(only, tmp_path):
    gain = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
    photo = ours(gain, gain_max=(2.0,), gain_min=(-0.5,), gamma=(1.5,), alternate_headroom=2.0,
                 base_offset=(1 / 64,), alternate_offset=(1 / 32,))  # fmt: skip
    written = saved(photo, tmp_path)
    if only == "XMP":
        written = without(written, b"urn:iso")
    else:
        written = without(written, b"http://ns.adobe.com/xap/1.0/")
    seen, base = hdr(written), sdr(written)
    stops = (gain ** (1 / 1.5) * 2.5 - 0.5)[..., None]
    wanted = (base + 1 / 64) * 2**stops - 1 / 32
    assert np.percentile(np.abs(seen - wanted), 99) < 0.04 and wanted.max() > 3


def test_a_map_of_three_channels(tmp_path):
    samples = np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    samples[..., 0], samples[..., 1] = 255, 128
    gain = GainMap(jpeg=encoded(samples), photo_size=(HEIGHT, WIDTH), gain_max=(2.0, 1.0, 1.0), alternate_headroom=2.0)
    photo = Photo(np.full((HEIGHT, WIDTH, 3), 0.5, np.float32), gain_map=gain)
    written = saved(photo, tmp_path)
    gain = load_photo(tmp_path / "out.jpg").gain_map
    assert gain.gain_max == (2, 1, 1) and gain.has_colours
    stripped = loaded(without(written, b"urn:iso"), tmp_path)  # the XMP alone
    assert stripped.gain_map.gain_max == (2, 1, 1) and stripped.gain_map.base_offset == pytest.approx((1 / 64,) * 3)
    light = srgb_to_linear(np.full(3, 0.5))
    wanted = (light + 1 / 64) * 2 ** np.array([2, 0.5, 0]) - 1 / 64
    assert np.abs(hdr(written)[40:50, 40:50] - wanted).max() < 0.02


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_the_map_turns_with_the_photo(orientation, ultra, tmp_path):
    exif = Exif()
    exif.put(exif.image, 274, orientation)
    photo = loaded(with_segments(ultra, segment(0xE1, b"Exif\0\0" + exif.tobytes())), tmp_path)
    assert photo.gain_map is not None and photo.gain_map.photo_size == photo.pixels.shape[:2]
    written = saved(photo, tmp_path)
    upright = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 5: lambda a: a.swapaxes(0, 1),
               6: lambda a: np.rot90(a, -1), 8: np.rot90}[orientation](hdr(ultra))  # fmt: skip
    assert hdr(written).shape == upright.shape and np.abs(hdr(written) - upright).mean() < 0.02


# The file


def test_the_index_names_the_bytes_of_both_pictures(ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    photo.xmp = xmp.describe(None, "with a description")
    written = saved(photo, tmp_path, description="brighter")
    end = jpeg_segments.segments(written)[1]
    _, second = jpeg_segments.pictures(written, jpeg_segments.segments(written)[0])
    assert (second.start, second.start + second.size) == (end, len(written))
    assert f'Item:Length="{second.size}"'.encode() in written[:end]
    with MpoImageFile(tmp_path / "out.jpg") as image:  # `Image.open` tells Ultra HDR by the XMP and shows the base
        assert image.n_frames == 2
        image.seek(1)
        assert image.size == (WIDTH, HEIGHT) and np.asarray(image).std() > 1
    assert load_photo(tmp_path / "out.jpg").description == "brighter"
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    read = ["exiftool", "-b", "-MPImage2", str(tmp_path / "out.jpg")]
    assert subprocess.run(read, capture_output=True, check=True).stdout == written[end:]
    said = subprocess.run(["exiftool", "-warning", "-a", "-XMP:all", str(tmp_path / "out.jpg")],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "Warning" not in said and "GainMap" in said and "brighter" in said


def test_written_twice_it_says_it_once(ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    first = saved(photo, tmp_path)
    second = saved(loaded(first, tmp_path), tmp_path, "again.jpg")
    assert second.count(b"Container:Directory>") == 2 and second.count(b"MPF\0") == 1
    assert len(second) < len(first) + 64 and not load_photo(tmp_path / "again.jpg").notes
    assert b"hdr-gain-map" not in load_photo(tmp_path / "again.jpg").xmp


def test_long_xmp_goes_into_the_extension_and_leaves_the_announcement(ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    photo.xmp = xmp.describe(xmp.with_description(None, f' xmlns:a="urn:a" a:b="{"x" * 70_000}"/>'), "short")
    written = saved(photo, tmp_path)
    again = load_photo(tmp_path / "out.jpg")
    assert again.gain_map and again.xmp_extension and b"x" * 70_000 in again.xmp_extension
    assert hdr(without(written, b"urn:iso")).max() > 2


def test_of_a_motion_photo_the_map_is_kept_and_the_video_named(ultra, tmp_path):
    written = saved(loaded(ultra, tmp_path), tmp_path)
    item = b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="MotionPhoto"/></rdf:li>'
    place = written.index(b"</rdf:Seq></Container:Directory>")
    start = next(s for m, s, _ in jpeg_segments.segments(written)[0] if m == 0xE1 and written[s:].startswith(b"http"))
    length = int.from_bytes(written[start - 2 : start], "big") + len(item)
    data = written[: start - 2] + struct.pack(">H", length) + written[start:place] + item + written[place:]
    photo = loaded(data + b"\0\0\0\x18ftypmp42" + bytes(64), tmp_path)
    assert photo.gain_map is not None and any("video" in note for note in photo.notes)
    assert any("metadata say" in note for note in photo.notes)  # of what its directory lists beside the map


@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.webp", "out.avif"])
def test_other_formats_say_that_they_lose_it(name, ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    with pytest.warns(UserWarning, match="HDR gain map"):
        save_photo(photo, tmp_path / name)


def test_pixels_of_another_size_have_no_map(ultra, tmp_path):
    photo = loaded(ultra, tmp_path)
    with pytest.warns(UserWarning, match="another size"):
        save_photo(photo.pixels[:50], tmp_path / "out.jpg", like=photo)
    assert load_photo(tmp_path / "out.jpg").gain_map is None and not load_photo(tmp_path / "out.jpg").notes


def test_a_coloured_map_stays_with_its_profile(tmp_path):
    p3 = icc.cicp_profile(12, 13)
    gain = GainMap(jpeg=encoded(np.zeros((24, 32, 3), np.uint8)), photo_size=(HEIGHT, WIDTH), photo_profile=p3,
                   gain_max=(1.0,), alternate_headroom=1.0)  # fmt: skip
    photo = Photo(np.full((HEIGHT, WIDTH, 3), 0.5, np.float32), icc_profile=p3, gain_map=gain)
    saved(photo, tmp_path)
    with pytest.warns(UserWarning, match="another profile"):
        save_photo(photo, tmp_path / "srgb.jpg", keep_profile=False)
    grey = dataclasses.replace(gain, jpeg=encoded(np.zeros((24, 32), np.uint8)))
    saved(dataclasses.replace(photo, gain_map=grey), tmp_path, "grey.jpg", keep_profile=False, keep_metadata=False)
    assert load_photo(tmp_path / "grey.jpg").gain_map is not None


# What cannot be kept is said, and the photo is read all the same


def put_map(ultra, samples=None, head=b""):
    """The file with another map."""
    gain = GainMap(jpeg=encoded(samples), photo_size=(1, 1), gain_max=(1.0,), alternate_headroom=1.0).tobytes()
    base = ultra[: jpeg_segments.segments(ultra)[1]]
    return b"".join(joined(without_index(base), gain[:2] + head + gain[2:]))


def without_index(base):
    for marker, start, end in reversed(jpeg_segments.segments(base)[0]):
        if marker == 0xE2 and base[start : start + 3] in (b"MPF", b"urn"):
            base = base[: start - 4] + base[end:]
    return base


def rotated():
    exif = Exif()
    exif.put(exif.image, 274, 6)
    return segment(0xE1, b"Exif\0\0" + exif.tobytes())


HEAD = b":-1\0" + bytes(4)  # end of the segment's name, versions; flags follow
BROKEN = [
    ("no map behind the photo", lambda ultra: ultra[: jpeg_segments.segments(ultra)[1]], "there is none"),
    ("a cut off map", lambda ultra: ultra[:-700], "cut off"),
    ("a larger map", lambda ultra: put_map(ultra, np.zeros((192, 256), np.uint8)), "more than the photo"),
    ("a map of another shape", lambda ultra: put_map(ultra, np.zeros((64, 48), np.uint8)), "shape"),
    ("a turned map", lambda ultra: put_map(ultra, np.zeros((48, 64), np.uint8), rotated()), "another orientation"),
    ("a newer version", lambda ultra: ultra.replace(HEAD + b"\x40", HEAD[:4] + b"\0\1\0\0\x40"), "version 1"),
    ("a zero denominator", lambda ultra: ultra.replace(b"\x40\0\0\0\0\0\0\0\1", b"\x40" + bytes(8), 1), "division"),
    ("a photo that is the HDR rendition", lambda ultra: ultra.replace(HEAD + b"\x40", HEAD + b"\x44"), "itself"),
    ("a map alone", lambda ultra: ultra[jpeg_segments.segments(ultra)[1] :], "there is none"),
]  # fmt: skip


@pytest.mark.parametrize("change, reason", [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_map_that_cannot_be_kept_is_told(change, reason, ultra, tmp_path):
    photo = loaded(change(ultra), tmp_path)
    assert photo.gain_map is None and photo.pixels.shape == (HEIGHT, WIDTH, 3)
    assert any("HDR gain map" in note and reason in note for note in photo.notes), photo.notes
    written = saved(photo, tmp_path)
    assert b"MPF\0" not in written and b"urn:iso" not in written


@pytest.mark.parametrize("change", [(b"", 0, 9), (b"\0\0\xff\xff", 32, 36), (b"\0\0\0\1", 28, 32)],
                         ids=["no index", "wrong offset", "wrong length"])  # fmt: skip
def test_a_wrong_index_does_not_hide_the_map(change, ultra, tmp_path):
    new, start, stop = change
    data = ultra
    if new:
        entry = ultra.index(b"MPF\0") + 4 + 50 + 16 - 24  # the second entry, less the first number changed here
        data = ultra[: entry + start] + new + ultra[entry + stop :]
    else:
        base = without_index(ultra[: jpeg_segments.segments(ultra)[1]])
        data = with_segments(base, segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)))
        data += ultra[jpeg_segments.segments(ultra)[1] :]
    assert data != ultra
    photo = loaded(data, tmp_path)
    assert photo.gain_map is not None and photo.pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(hdr(saved(photo, tmp_path)) - hdr(ultra)).mean() < 0.01


# Apple's


def apple_exif(overall=1.01, local=0.002):
    """EXIF with the maker note of an iPhone: two signed rationals in a big-endian directory."""
    numbers = b"".join(struct.pack(">2i", round(value * 1000), 1000) for value in (overall, local))
    entries = b"".join(struct.pack(">2H2L", tag, 10, 1, 14 + 2 + 24 + 4 + 8 * n) for n, tag in enumerate((33, 48)))
    exif = Exif(">")
    exif.photo[MAKER_NOTE] = 7, b"Apple iOS\0\0\1MM" + struct.pack(">H", 2) + entries + bytes(4) + numbers
    return exif.tobytes()


def apple_rendition(light, values, stops):
    """The formula of "Applying Apple HDR effect to your photos"."""
    linear = np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))
    return light * (1 + (2**stops - 1) * linear)


def test_apples_map_in_a_jpeg_becomes_that_of_an_ultra_hdr_jpeg(tmp_path):
    light = scene() / 3
    values = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
    codes = np.rint(values * 255).astype(np.uint8)
    packet = xmp.with_description(None, ' xmlns:h="http://ns.apple.com/HDRGainMap/1.0/" h:HDRGainMapVersion="65536"/>')
    behind = encoded(codes)
    behind = with_segments(behind, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))
    base = io.BytesIO()
    Image.fromarray(np.rint(linear_to_srgb(light) * 255).astype(np.uint8)).save(
        base, "JPEG", quality=97, subsampling=0, exif=b"Exif\0\0" + apple_exif()
    )
    data = without(b"".join(joined(base.getvalue(), behind)), b"urn:iso")
    photo = loaded(_index_again(data), tmp_path)
    stops = -70 * 0.002 + 3
    assert photo.gain_map.alternate_headroom == pytest.approx(stops)
    written = saved(photo, tmp_path)
    seen = hdr(written)
    wanted = apple_rendition(sdr(written), values[..., None], stops)
    assert wanted.max() > 3 and np.percentile(np.abs(seen - wanted), 99) < 0.06


def _index_again(data):
    """The index's length and offset after a segment before it went: 36 bytes less."""
    place = data.index(b"MPF\0") + 4 + 50
    (size,) = struct.unpack_from(">L", data, place + 4)
    return data[: place + 4] + struct.pack(">L", size - 36) + data[place + 8 :]


@pytest.mark.parametrize(
    "overall, local, stops", [(0.5, 0.005, 1.7), (0.5, 1.0, 1.5), (1.2, 0.005, 2.65), (1.2, 1.0, 2.0)]
)
def test_headroom_by_apples_maker_note(overall, local, stops):
    from diffretouch.photo.gain_map import headroom

    assert math.log2(headroom(None, apple_exif(overall, local))) == pytest.approx(stops, abs=1e-3)
    with pytest.raises(ValueError, match="headroom"):
        headroom(None, Exif().tobytes())


def box(kind, *parts, full=None):
    content = (struct.pack(">L", full) if full is not None else b"") + b"".join(parts)
    return struct.pack(">L4s", len(content) + 8, kind) + content


def heic(base, gain, auxiliary=None, turns=(), tone_map=None, kind="heic", in_idat=False, parts=(1, 2)):
    """Two HEICs as one whose second picture is an auxiliary one of the first; `turns`: irot of each, or None.

    With `tone_map`, what an item `tmap` holds, the second picture is hidden and the map of that item's `parts`.
    """
    pictures, exif = [], b"\0\0\0\6Exif\0\0" + apple_exif()
    for samples, turn in zip((base, gain), turns or (None, None), strict=True):
        file = io.BytesIO()
        if kind == "heic":
            import pillow_heif

            pillow_heif.from_pillow(Image.fromarray(samples)).save(file, quality=95, chroma=444)
        else:
            Image.fromarray(samples).save(file, "AVIF", quality=95, subsampling="4:4:4")
        data = file.getvalue()
        found = boxes.items(data)
        properties = [data[start - 8 : end] for kind, start, end in found.properties[found.primary]]
        properties += [box(b"irot", bytes([turn]))] if turn is not None else []
        content = b"".join(data[place : place + size] for place, size in found.places[found.primary][1])
        pictures.append((properties, content))
    if auxiliary:
        pictures[1][0].append(box(b"auxC", auxiliary.encode() + b"\0", full=0))
    properties = [one for picture in pictures for one in picture[0]]
    first = len(pictures[0][0])
    numbers = [range(1, first + 1), range(first + 1, len(properties) + 1)]
    links = b"".join(
        struct.pack(">HB", n, len(some)) + bytes(0x80 | i for i in some) for n, some in enumerate(numbers, 1)
    )
    coded = b"hvc1" if kind == "heic" else b"av01"
    entries = [box(b"infe", struct.pack(">2H4s", number, 0, name), b"\0", full=2 << 24 | hidden)
               for number, name, hidden in ((1, coded, 0), (2, coded, tone_map is not None and not auxiliary),
                                            (3, b"Exif", 1), (4, b"tmap", 0))]  # fmt: skip
    contents = [pictures[0][1], pictures[1][1], exif, tone_map or b""]
    number = 3 if tone_map is None else 4
    aside = [box(b"auxl", struct.pack(">3H", 2, 1, 1))] if auxiliary else []
    if tone_map is not None:
        aside.append(box(b"dimg", struct.pack(f">{2 + len(parts)}H", 4, len(parts), *parts)))

    def meta(start):
        places = b""
        for n, content in enumerate(contents[:number]):
            inside = in_idat and n == 3
            where = 0 if inside else start + sum(map(len, contents[:n]))
            places += struct.pack(">4H2L", n + 1, inside, 0, 1, where, len(content))
        return box(
            b"meta", box(b"hdlr", bytes(4) + b"pict" + bytes(13), full=0), box(b"pitm", b"\0\1", full=0),
            box(b"iinf", struct.pack(">H", number), *entries[:number], full=0),
            box(b"iloc", b"\x44\0", struct.pack(">H", number), places, full=1 << 24),
            box(b"iref", *aside, box(b"cdsc", struct.pack(">3H", 3, 1, 1)), full=0),
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", struct.pack(">L", 2), links, full=0)),
            *([box(b"idat", tone_map)] if in_idat else []), full=0)  # fmt: skip

    brand = kind.encode()
    head = box(b"ftyp", brand, bytes(4), b"mif1", brand, *([b"tmap"] if tone_map is not None else []))
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", *contents)


@pytest.mark.parametrize("turns", [(), (3, 3)], ids=["upright", "turned"])
def test_apples_map_in_a_heic_becomes_that_of_an_ultra_hdr_jpeg(turns, tmp_path):
    pytest.importorskip("pillow_heif")
    base = np.rint(linear_to_srgb(scene() / 3) * 255).astype(np.uint8)
    codes = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    (tmp_path / "in.heic").write_bytes(heic(base, codes, APPLE, turns))
    photo = load_photo(tmp_path / "in.heic")
    assert not photo.notes and photo.gain_map.photo_size == photo.pixels.shape[:2]
    written = saved(photo, tmp_path, quality=97)
    values = (np.rot90(codes, -1) if turns else codes)[..., None] / 255.0
    assert np.abs(photo.pixels - (np.rot90(base, -1) if turns else base) / 255.0).mean() < 0.02
    wanted = apple_rendition(sdr(written), values, -70 * 0.002 + 3)
    assert wanted.max() > 3 and np.percentile(np.abs(hdr(written) - wanted), 95) < 0.15
    with pytest.warns(UserWarning, match="HDR gain map"):
        save_photo(photo, tmp_path / "out.tif")


def test_a_heic_whose_map_lies_otherwise_is_told(tmp_path):
    pytest.importorskip("pillow_heif")
    base = np.full((64, 64, 3), 128, np.uint8)
    (tmp_path / "in.heic").write_bytes(heic(base, base[..., 0], APPLE, (3, 0)))
    photo = load_photo(tmp_path / "in.heic")
    assert photo.gain_map is None and any("another orientation" in note for note in photo.notes)
    (tmp_path / "in.heic").write_bytes(heic(base, base[..., 0], "urn:mpeg:hevc:2015:auxid:2"))
    photo = load_photo(tmp_path / "in.heic")
    assert photo.gain_map is None and photo.notes == (
        "Beside the picture the file holds what was not carried: a depth map.",)  # fmt: skip


def said(gain):
    """What an item `tmap` holds: a version, and the metadata of ISO 21496-1."""
    return b"\0" + gain._iso()


STOPS = GainMap(jpeg=b"", photo_size=(1, 1), gain_max=(2.0,), gain_min=(-0.5,), gamma=(1.5,), alternate_headroom=2.0,
                base_offset=(1 / 64,), alternate_offset=(1 / 32,))  # fmt: skip


@pytest.mark.parametrize("kind", ["heic", "avif"])
@pytest.mark.parametrize("in_idat", [False, True], ids=["mdat", "idat"])
@pytest.mark.parametrize("turns", [(), (3, 3)], ids=["upright", "turned"])
def test_a_tone_mapped_item_keeps_its_hdr_rendition(kind, in_idat, turns, tmp_path):
    if kind == "heic":
        pytest.importorskip("pillow_heif")
    base = np.rint(linear_to_srgb(scene() / 3) * 255).astype(np.uint8)
    codes = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    (tmp_path / f"in.{kind}").write_bytes(heic(base, codes, None, turns, said(STOPS), kind, in_idat))
    photo = load_photo(tmp_path / f"in.{kind}")
    assert not photo.notes and photo.gain_map.photo_size == photo.pixels.shape[:2]
    assert photo.gain_map.gain_max == (2,) and photo.gain_map.alternate_offset == (1 / 32,)
    assert np.abs(photo.pixels - (np.rot90(base, -1) if turns else base) / 255.0).mean() < 0.03
    written = saved(photo, tmp_path, quality=97)
    values = (np.rot90(codes, -1) if turns else codes)[..., None] / 255.0
    wanted = (sdr(written) + 1 / 64) * 2 ** (values ** (1 / 1.5) * 2.5 - 0.5) - 1 / 32
    assert wanted.max() > 3 and np.percentile(np.abs(hdr(written) - wanted), 95) < 0.15
    photo.pixels = linear_to_srgb(srgb_to_linear(photo.pixels) / 2).astype(np.float32)  # the HDR rendition follows
    darker = saved(photo, tmp_path, "darker.jpg", quality=97)
    wanted = (sdr(darker) + 1 / 64) * 2 ** (values ** (1 / 1.5) * 2.5 - 0.5) - 1 / 32
    assert np.percentile(np.abs(hdr(darker) - wanted), 95) < 0.15 and hdr(darker).mean() < 0.6 * hdr(written).mean()


def test_apples_newer_files_are_read_by_their_item(tmp_path):
    pytest.importorskip("pillow_heif")
    base, codes = np.full((64, 64, 3), 128, np.uint8), np.full((32, 32), 255, np.uint8)
    (tmp_path / "in.heic").write_bytes(heic(base, codes, APPLE, (), said(STOPS)))
    photo = load_photo(tmp_path / "in.heic")
    assert photo.gain_map.alternate_headroom == 2 and photo.gain_map.gamma == (1.5,) and not photo.notes


TONE_MAPS = [
    ("a newer version", {"tone_map": b"\0\0\1\0\0" + said(STOPS)[5:]}, "version 1"),
    ("another form", {"tone_map": b"\1" + said(STOPS)[1:]}, "not known"),
    ("cut off", {"tone_map": said(STOPS)[:20]}, "damaged"),
    ("empty", {"tone_map": b""}, "missing"),
    ("no map", {"parts": (1,)}, "main picture"),
    ("of another picture", {"parts": (2, 1)}, "main picture"),
    ("of an item that is not there", {"parts": (1, 9)}, "main picture"),
    ("a photo that is the HDR rendition", {"tone_map": said(dataclasses.replace(STOPS, alternate_headroom=0.0))[:6]
     + struct.pack(">iL", 3, 1) + said(STOPS)[14:]}, "itself"),
    ("a larger map", {"gain": np.zeros((256, 256), np.uint8)}, "more than the photo"),
    ("a turned map", {"turns": (3, 0)}, "another orientation"),
]  # fmt: skip


@pytest.mark.parametrize("change, reason", [row[1:] for row in TONE_MAPS], ids=[row[0] for row in TONE_MAPS])
def test_a_tone_mapped_item_that_cannot_be_kept_is_told(change, reason, tmp_path):
    pytest.importorskip("pillow_heif")
    told = {
        "base": np.full((128, 128, 3), 128, np.uint8),
        "gain": np.zeros((64, 64), np.uint8),
        "tone_map": said(STOPS),
    }
    (tmp_path / "in.heic").write_bytes(heic(**told | change))
    photo = load_photo(tmp_path / "in.heic")
    assert photo.gain_map is None and photo.pixels.shape == (128, 128, 3)
    assert any("gain map" in note and reason in note for note in photo.notes), photo.notes
