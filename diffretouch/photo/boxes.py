"""The boxes of HEIF files (HEIC, AVIF) and the items of their `meta` box: a walk within bounds, nothing decoded."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from . import icc

_MOST = 100_000  # entries of a table


class Box(NamedTuple):
    """`data[start:end]` is what it holds, without size and kind."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes from `start` to `end`, up to one that does not fit."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            return
        yield Box(kind, start + head, start + size)
        start += size


@dataclass(eq=False)
class Items:
    """What the `meta` box says.

    Attributes:
        primary: number of the main picture.
        kinds: by number: `hvc1`, `av01`, `grid`, `Exif`, `mime`, ...
        contents: by number, of `mime` and `uri ` items: their content type.
        references: (kind, from, to): `auxl`, `thmb`, `cdsc`, `dimg`, ...
        properties: by number, in order: boxes such as `colr`, `irot`, `auxC`.
        places: by number: (construction method, [(offset, length)]); 0 counts from the file's start, 1 in `idat`.
        idat: where that begins.
        said: where the file says the number of the main picture (`None`), and by number the flags of an item.
    """

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    references: list[tuple[bytes, int, int]] = field(default_factory=list)
    properties: dict[int, list[Box]] = field(default_factory=lambda: defaultdict(list))
    places: dict[int, tuple[int, list[tuple[int, int]]]] = field(default_factory=dict)
    idat: int = 0
    said: dict[int | None, tuple[int, int]] = field(default_factory=dict)


def items(data: bytes) -> Items:
    """Raises ValueError where the file has no sound `meta` box."""
    found = Items()
    meta = next((box for box in boxes(data) if box.kind == b"meta"), None)
    if meta is None:
        raise ValueError("no meta box")
    try:
        for kind, start, end in boxes(data, meta.start + 4, meta.end):
            if kind == b"pitm":
                reader = _Reader(data, start, end)
                found.primary = reader.after_version(2, 4)
                found.said[None] = start + 4, reader.place
            elif kind == b"iinf":
                _information(found, data, start, end)
            elif kind == b"iref":
                _references(found, data, start, end)
            elif kind == b"iprp":
                _properties(found, data, start, end)
            elif kind == b"iloc":
                _places(found, data, start, end)
            elif kind == b"idat":
                found.idat = start
    except (struct.error, IndexError) as error:
        raise ValueError(f"damaged meta box ({error})") from error
    return found


class _Reader:
    """Whole numbers from a box, one after the other."""

    def __init__(self, data, start, end):
        self.data, self.place, self.end = data, start, end

    def number(self, size):
        if self.place + size > self.end:
            raise IndexError("it ends early")
        self.place += size
        return int.from_bytes(self.data[self.place - size : self.place], "big")

    def version_and_flags(self):
        return self.number(1), self.number(3)

    def after_version(self, small, large):
        """The number behind version and flags, which has `large` bytes from version 1 on."""
        return self.number(large if self.version_and_flags()[0] else small)


def _count(reader, size):
    count = reader.number(size)
    if count > _MOST:
        raise IndexError(f"a table of {count} entries")
    return count


def _information(found, data, start, end):
    version = data[start]
    for kind, inner, inner_end in boxes(data, start + (8 if version else 6), end):
        if kind != b"infe" or data[inner] < 2:
            continue
        reader = _Reader(data, inner, inner_end)
        number = (reader.version_and_flags()[0] == 2 and reader.number(2)) or reader.number(4)
        reader.number(2)
        found.said[number] = inner + 1, inner + 4
        found.kinds[number] = reader.number(4).to_bytes(4, "big")
        if found.kinds[number] in (b"mime", b"uri "):
            texts = data[reader.place : inner_end].split(b"\0", 2)
            found.contents[number] = texts[1] if len(texts) > 1 else b""


def _references(found, data, start, end):
    size = 4 if data[start] else 2
    for kind, inner, inner_end in boxes(data, start + 4, end):
        reader = _Reader(data, inner, inner_end)
        origin = reader.number(size)
        found.references += [(kind, origin, reader.number(size)) for _ in range(_count(reader, 2))]


def _properties(found, data, start, end):
    known = []
    for kind, inner, inner_end in boxes(data, start, end):
        if kind == b"ipco":
            known = list(boxes(data, inner, inner_end))
        elif kind == b"ipma":
            reader = _Reader(data, inner, inner_end)
            version, flags = reader.version_and_flags()
            for _ in range(_count(reader, 4)):
                number = reader.number(4 if version else 2)
                for _ in range(reader.number(1)):
                    index = reader.number(2) & 0x7FFF if flags & 1 else reader.number(1) & 0x7F
                    if 1 <= index <= len(known):
                        found.properties[number].append(known[index - 1])


def _places(found, data, start, end):
    reader = _Reader(data, start, end)
    version, _ = reader.version_and_flags()
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(_count(reader, 2 if version < 2 else 4)):
        number = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base, extents = reader.number(base_size), []
        for _ in range(_count(reader, 2)):
            reader.number(index_size if version else 0)
            extents.append((base + reader.number(offset_size), reader.number(length_size)))
        found.places[number] = method, extents


def of_main(data: bytes, found: Items, kind: bytes) -> bytes | None:
    """What the first property of that kind of the main picture holds; for a picture of tiles, of its first tile."""
    tiles = [to for reference, origin, to in found.references if reference == b"dimg" and origin == found.primary]
    for number in (found.primary, *tiles[:1]):
        for name, start, end in found.properties.get(number, ()):
            if name == kind:
                return data[start:end]
    return None


def size(data: bytes, found: Items) -> tuple[int, int] | None:
    """Width and height that the file says of the main picture, as it is stored; None where it says nothing."""
    for name, start, end in found.properties.get(found.primary, ()):
        if name == b"ispe" and end - start >= 12:
            return struct.unpack_from(">LL", data, start + 4)
    return None


def nclx(data: bytes, found: Items) -> tuple[int, int] | None:
    """Primaries and transfer of the main picture, as code points."""
    for number in (
        found.primary,
        *(to for kind, origin, to in found.references if kind == b"dimg" and origin == found.primary),
    ):
        for name, start, end in found.properties.get(number, ()):
            if name == b"colr" and data[start : start + 4] == b"nclx" and end - start >= 8:
                return struct.unpack_from(">HH", data, start + 4)
    return None


def profile(data: bytes, found: Items, number: int) -> bytes | None:
    """The ICC profile of a picture, also one of its code points of primaries; None for sRGB or where none is said.

    Raises:
        ValueError: its code points are not known here.
    """
    for name, start, end in found.properties.get(number, ()):
        if name == b"colr" and data[start : start + 4] in (b"prof", b"rICC"):
            return data[start + 4 : end]
        if name == b"colr" and data[start : start + 4] == b"nclx" and end - start >= 8:
            return icc.cicp_profile(struct.unpack_from(">H", data, start + 4)[0], 13)
    return None


# (quarter turns against the clock, axis of a mirror after them) -> orientation
_ORIENTATIONS = {(0, None): 1, (0, 1): 2, (2, None): 3, (0, 0): 4, (1, 0): 5, (3, None): 6, (3, 0): 7, (1, None): 8,
                 (2, 1): 4, (2, 0): 2, (1, 1): 7, (3, 1): 5}  # fmt: skip


def orientation(data: bytes, found: Items, number: int | None = None) -> int:
    """How a picture (None: the main one) is stored, by the container's own turn and mirror: 1 to 8 as in TIFF."""
    turn, axis = 0, None
    for name, start, _ in found.properties.get(found.primary if number is None else number, ()):
        if name == b"irot":
            turn = data[start] & 3
        elif name == b"imir":
            axis = data[start] & 1
    return _ORIENTATIONS[turn, axis]


def content(data: bytes, found: Items, number: int) -> bytes | None:
    """What an item holds, or None where that lies in another item or outside the file."""
    method, extents = found.places.get(number, (2, []))
    start = {0: 0, 1: found.idat}.get(method)
    if start is None or any(start + place + size > len(data) for place, size in extents):
        return None
    return b"".join(data[start + place : start + place + size] for place, size in extents)


def description(data: bytes, found: Items, number: int) -> bytes | None:
    """The XMP that describes a picture, or None."""
    for kind, origin, to in found.references:
        if kind == b"cdsc" and to == number and found.contents.get(origin) == b"application/rdf+xml":
            return content(data, found, origin)
    return None


def with_primary(data: bytes, found: Items, number: int) -> bytes:
    """The file whose main picture is another of its pictures: for decoders that show the main one alone."""
    changed = bytearray(data)
    start, end = found.said[None]
    changed[start:end] = number.to_bytes(end - start, "big")
    start, end = found.said[number]
    changed[end - 1] &= 0xFE  # not hidden
    return bytes(changed)


GAIN_MAP = "a gain map"
_PICTURE = {b"ftyp", b"meta", b"mdat", b"idat", b"free", b"skip", b"wide", b"pdin", b"styp"}
_BOXES = {b"mpvd": "the video of a motion photo", b"moov": "a film or a sequence of pictures",
          b"sefd": "what Samsung's camera added"}  # fmt: skip
_CREDENTIALS = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def not_carried(data: bytes, found: Items) -> list[str]:
    """The names of pictures and metadata beside the main picture that a new file will not hold."""
    names = set()
    for kind, origin, to in found.references:
        if kind == b"auxl" and to == found.primary:
            said = next((data[s + 4 : e].split(b"\0")[0] for name, s, e in found.properties.get(origin, ())
                         if name == b"auxC"), b"")  # fmt: skip
            if not said.endswith((b"alpha", b"2015:auxid:1")):
                names.add(_auxiliary_name(said.decode("latin-1")))
    if b"tmap" in found.kinds.values():
        names.add(GAIN_MAP)
    for number, kind in found.kinds.items():
        content = found.contents.get(number, b"").decode("latin-1")
        if kind == b"uri " or kind == b"mime" and content != "application/rdf+xml":
            names.add(f"metadata ({content or 'of no named kind'})")
    end = 0
    for box in boxes(data):
        kind, start, end = box
        if kind == b"uuid" and data[start : start + 16] == _CREDENTIALS:
            names.add("content credentials (C2PA), which no longer hold for a changed picture")
        elif kind not in _PICTURE and not (kind == b"moov" and data.startswith(b"ftypavis", 4)):  # its frames are said
            names.add(_BOXES.get(kind, f"the box {kind.decode('ascii', 'backslashreplace')!r}"))
    if behind := len(data[end:].rstrip(b"\0\r\n ")):
        names.add(f"{behind} bytes behind the picture")
    return sorted(names)


def _auxiliary_name(urn):
    word = urn.rpartition(":")[2]
    known = {"hdrgainmap": GAIN_MAP, "disparity": "a depth map", "depth": "a depth map", "auxid:2": "a depth map"}
    return known.get(word) or (
        "a depth map" if urn.endswith("auxid:2") else f"an auxiliary picture ({word or 'unnamed'})"
    )
