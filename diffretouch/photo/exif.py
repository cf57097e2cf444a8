"""EXIF: the directories of a TIFF, taken apart and put together with every payload byte by byte as it was."""

import io
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from .orientation import turn_subject

# Tag -> (TIFF type, payload in the file's byte order). Payloads are never interpreted, so nothing changes on the way.
Directory = dict[int, tuple[int, bytes]]

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_ASCII, _SHORT, _LONG = 2, 3, 4

ORIENTATION, SOFTWARE, MAKER_NOTE, COLOR_SPACE, WIDTH, HEIGHT, INTEROP_INDEX = 274, 305, 37500, 40961, 40962, 40963, 1
XMP_TAG, IPTC_TAG, ICC_TAG, PHOTOSHOP_TAG, DNG_PRIVATE = 700, 33723, 34675, 34377, 50740
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 257
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965

# What DNG says of raw values and their development, except names, numbers and times of camera, lens, film and file
DNG = {*range(50706, 51182), *range(52525, 52560)} - {
    50708, 50709, 50735, 50736, 50827, 51043, 51044, 51058, 51081, 51089, 51090, 51091, 51105}  # fmt: skip

# Tags of a TIFF directory that say how its pixels lie in that file; Photoshop's layers and resources; DNG's.
_STRUCTURE = {254, 255, *range(256, 267), 273, *range(276, 282), 284, *range(288, 293), 301, *range(317, 328),
              *range(330, 348), *range(512, 522), *range(529, 533), 559, 33421, 33422, 34377, 37724,
              XMP_TAG, IPTC_TAG, ICC_TAG, _EXIF, _GPS, _INTEROP} | DNG  # fmt: skip

# A maker note may hold offsets counted from the start of the block: it stays where it was if that is not too far in.
_PINNED = 1 << 20
# These count from themselves
_MOVABLE = (b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"Apple iOS\0", b"PENTAX \0", b"GENERALE")
_SUBJECT_AREA, _SUBJECT_LOCATION = 37396, 41492
_PAIRS = (("image", 282, 283), ("photo", 41486, 41487))  # resolutions across and down, of the photo and the sensor
_DAMAGE = (struct.error, KeyError, ValueError, OverflowError, OSError)  # what reading damaged directories raises


@dataclass
class Exif:
    """An EXIF block taken apart. The thumbnail's directory is left out: it shows the photo as it was."""

    order: str = "<"
    image: Directory = field(default_factory=dict)
    photo: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interop: Directory = field(default_factory=dict)
    note_offset: int = 0
    damaged: int = 0  # entries that point outside the file

    @property
    def orientation(self) -> int:
        """1 to 8 as in the TIFF standard, 1 if the tag is missing, 0 if it says nothing of the kind."""
        kind, payload = self.image.get(ORIENTATION, (_SHORT, struct.pack(self.order + "H", 1)))
        whole = {1: "B", _SHORT: "H", _LONG: "L", 8: "h", 9: "l"}.get(kind)  # some programs write others than SHORT
        value = struct.unpack_from(self.order + whole, payload)[0] if whole else 0
        return value if 0 <= value <= 8 else 0

    @property
    def is_adobe_rgb(self) -> bool:
        """True for cameras' untagged Adobe RGB files: DCF's optional colour space, or a ColorSpace of 2."""
        said = self.photo.get(COLOR_SPACE, (0, b""))[1][:2] == struct.pack(self.order + "H", 2)
        return said or self.interop.get(INTEROP_INDEX, (0, b""))[1][:3] == b"R03"

    def put(self, directory: dict[int, tuple[int, bytes]], tag: int, value: str | int) -> None:
        """Write text or a small whole number into `directory`."""
        if isinstance(value, str):
            directory[tag] = (_ASCII, value.encode("ascii", "replace") + b"\0")
        else:
            kind = _SHORT if value < 65536 else _LONG
            directory[tag] = (kind, struct.pack(self.order + ("H" if kind == _SHORT else "L"), value))

    def reset_orientation(self) -> None:
        if ORIENTATION in self.image:
            self.put(self.image, ORIENTATION, 1)

    def turn(self, orientation: int, size: tuple[int, int]) -> bool:
        """What counts from the stored picture of `size` (width, height) counts from the upright one.

        Returns:
            whether all of it could be turned; what could not is left out.
        """
        if orientation >= 5:
            for name, across, down in _PAIRS:
                directory = getattr(self, name)
                pair = directory.pop(across, None), directory.pop(down, None)
                directory |= {tag: entry for tag, entry in zip((down, across), pair, strict=True) if entry}
        whole = True
        for tag in (_SUBJECT_AREA, _SUBJECT_LOCATION):
            kind, payload = self.photo.get(tag, (0, b""))
            if not payload or orientation == 1:
                continue
            values = struct.unpack(f"{self.order}{len(payload) // 2}H", payload) if kind == _SHORT else ()
            turned = turn_subject(values, orientation, size) if 2 <= len(values) <= 4 else [-1]
            if all(0 <= value < 65536 for value in turned):
                self.photo[tag] = kind, struct.pack(f"{self.order}{len(turned)}H", *turned)
            else:
                del self.photo[tag]
                whole = False
        return whole

    @property
    def loses_note(self) -> bool:
        """True if the maker note cannot keep its place, and what it points to goes with that."""
        note = self.photo.get(MAKER_NOTE, (7, b""))[1]
        return bool(note) and self.note_offset > _PINNED and not note.startswith(_MOVABLE)

    def say_srgb(self) -> None:
        """For colours that were converted: what the camera said of Adobe RGB no longer holds."""
        if COLOR_SPACE in self.photo:
            self.put(self.photo, COLOR_SPACE, 1)
        if self.is_adobe_rgb:
            self.put(self.interop, INTEROP_INDEX, "R98")

    def tobytes(self) -> bytes:
        """The block without the leading `Exif\\0\\0`."""
        file = io.BytesIO()
        fixed = self.start(file)
        self.finish(file, self.image, fixed)
        if fixed:  # without a gap, if all else fits in front of the maker note
            front = io.BytesIO()
            front.write(file.getvalue()[:8])
            self.finish(front, self.image, fixed)
            if len(front.getvalue()) <= self.note_offset:
                return front.getvalue().ljust(self.note_offset, b"\0") + self.photo[MAKER_NOTE][1]
        return file.getvalue()

    def start(self, file: BinaryIO, big: bool = False) -> dict[int, int]:
        """Write the header of a TIFF file, BigTIFF if `big`, and the maker note if it has its place near it.

        Returns:
            `dict`: for `finish`, where the maker note is.
        """
        head = b"II" if self.order == "<" else b"MM"
        file.write(struct.pack(self.order + "2s3HQ", head, 43, 8, 0, 0) if big else
                   struct.pack(self.order + "2sHL", head, 42, 0))  # fmt: skip
        note = self.photo.get(MAKER_NOTE, (7, b""))[1]
        if not file.tell() <= self.note_offset <= _PINNED or len(note) <= 4:
            return {}
        file.write(bytes(self.note_offset - file.tell()) + note)
        return {MAKER_NOTE: self.note_offset}

    def finish(
        self, file: BinaryIO, image: dict[int, tuple[int, bytes]], fixed: dict[int, int], big: bool = False
    ) -> None:
        """Append the directories, inner ones first, with `image` as the outermost, and enter it in the header."""
        image, photo = dict(image), dict(self.photo)
        pointer = "Q" if big else "L"
        for outer, tag, inner in ((photo, _INTEROP, self.interop), (image, _GPS, self.gps), (image, _EXIF, photo)):
            outer.pop(tag, None)
            if inner:
                offset = _append(file, inner, self.order, fixed, big)
                outer[tag] = (16 if big else _LONG, struct.pack(self.order + pointer, offset))
        offset = _append(file, image, self.order, {}, big)
        file.seek(8 if big else 4)
        file.write(struct.pack(self.order + pointer, offset))


def read_directory(
    file: BinaryIO, offset: int, order: str, big: bool = False, base: int = 0
) -> tuple[dict[int, tuple[int, bytes]], dict[int, int], int]:
    """One directory -> (itself, {tag: offset of its payload}, number of damaged entries); offsets from `base`."""
    count_format, entry_format, inline = ("Q", "HHQ8s", 8) if big else ("H", "HHL4s", 4)
    size = struct.calcsize(order + entry_format)
    file.seek(base + offset)
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
    if count > 65535:
        raise ValueError(f"a directory of {count} entries")
    table = file.read(count * size)
    largest = file.seek(0, io.SEEK_END)
    directory, offsets, damaged, total = {}, {}, count - len(table) // size, 0
    for tag, kind, number, value in struct.iter_unpack(order + entry_format, table[: len(table) // size * size]):
        length = number * _TYPE_SIZES.get(kind, 0)
        if not length:
            damaged += bool(number)  # an unknown type; an empty entry says nothing and is no loss
            continue
        if length > inline:
            offsets[tag] = struct.unpack(order + "QL"[not big], value)[0]
            file.seek(base + offsets[tag])
            value = file.read(length)
            total += length
            if total > largest:  # many entries that share their bytes: an attack
                raise ValueError("directory entries of more bytes than the file has")
        if len(value) < length:
            damaged += 1
            continue
        directory[tag] = (kind, value[:length])
    return directory, offsets, damaged


def _append(file, directory, order, fixed, big):
    """Append a directory, its payloads behind it or at the offsets in `fixed` -> its offset."""
    file.seek(0, io.SEEK_END)
    file.write(bytes(file.tell() % 2))
    offset = file.tell()
    inline, pointer = (8, "Q") if big else (4, "L")
    entries, payloads = [], bytearray()
    start = offset + (16 if big else 6) + (20 if big else 12) * len(directory)
    for tag, (kind, payload) in sorted(directory.items()):
        value = payload
        if len(payload) > inline:
            value = struct.pack(order + pointer, fixed.get(tag, start + len(payloads)))
            if tag not in fixed:
                payloads += payload + bytes(len(payload) % 2)
        entries.append(struct.pack(order + "HH" + pointer, tag, kind, len(payload) // _TYPE_SIZES[kind])
                       + value.ljust(inline, b"\0"))  # fmt: skip
    count = struct.pack(order + "QH"[not big], len(directory))
    file.write(count + b"".join(entries) + bytes(inline) + payloads)
    return offset


def tiff_header(file: BinaryIO, base: int = 0) -> tuple[str, int, bool]:
    """-> (byte order, offset of the first directory, BigTIFF?)."""
    file.seek(base)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    return order, struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "L", head[4:8])[0], big


def read_exif(file: BinaryIO, offset: int | None = None) -> Exif:
    """The EXIF of an open TIFF file (a RAW file of that kind, or an EXIF block in `io.BytesIO`).

    Args:
        file: binary file, seekable.
        offset (`int`, *optional*): where the photo's directory begins; the first one if not given.

    Raises:
        ValueError: there is no directory to read.
    """
    try:
        order, first, big = tiff_header(file)
        image, _, damaged = read_directory(file, offset or first, order, big)
    except _DAMAGE as error:
        raise ValueError(f"damaged EXIF ({error})") from error
    exif, seen = Exif(order, image, damaged=damaged), {offset or first}
    for tag, outer, name in ((_EXIF, "image", "photo"), (_GPS, "image", "gps"), (_INTEROP, "photo", "interop")):
        payload = getattr(exif, outer).pop(tag, (0, None))[1]
        if payload is None:
            continue
        try:
            inner = struct.unpack(order + {4: "L", 8: "Q"}[len(payload)], payload)[0]
            if inner in seen:
                raise ValueError("directories in a ring")
            seen.add(inner)
            directory, offsets, damaged = read_directory(file, inner, order, big)
        except _DAMAGE:
            exif.damaged += 1
            continue
        for pointer in (_EXIF, _GPS) if name == "photo" else (_EXIF, _GPS, _INTEROP):
            directory.pop(pointer, None)
        setattr(exif, name, directory)
        exif.damaged += damaged
        exif.note_offset = offsets.get(MAKER_NOTE, exif.note_offset)
    return exif


def parse_exif(block: bytes) -> Exif:
    """`read_exif` of an EXIF block, with or without the leading `Exif\\0\\0`."""
    return read_exif(io.BytesIO(block.removeprefix(b"Exif\0\0")))


def describing(directory: dict[int, tuple[int, bytes]]) -> dict[int, tuple[int, bytes]]:
    """The tags of a TIFF's directory that describe the photo, not how that file stores it."""
    return {tag: entry for tag, entry in directory.items() if tag not in _STRUCTURE}


def join_tiff(
    file: BinaryIO, base: int, exif: Exif, tags: dict[int, tuple[int, bytes]], fixed: dict[int, int]
) -> None:
    """Make one TIFF of what `exif.start` wrote and of the TIFF of one page that was written behind it, at `base`.

    Args:
        file: binary file, for reading and writing.
        base (`int`): where the inner TIFF begins; its offsets count from there. It has the byte order of `exif`.
        tags (`Directory`): further entries of the page.
        fixed: what `exif.start` returned.
    """
    order, first, big = tiff_header(file, base)
    page = read_directory(file, first, order, big, base)[0]
    for tag in (273, 324):  # offsets of strips and tiles
        if tag in page:
            kind, payload = page[tag]
            offsets = np.frombuffer(payload, order + {_SHORT: "u2", _LONG: "u4", 16: "u8"}[kind]).astype(np.uint64)
            page[tag] = (16 if big else _LONG, (offsets + base).astype(order + ("u8" if big else "u4")).tobytes())
    exif.finish(file, {**page, **describing(exif.image), **tags}, fixed, big)
