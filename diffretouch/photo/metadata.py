"""What a photo file says beside its pixels: EXIF directories, XMP packets and IPTC records, carried byte by byte."""

import hashlib
import html
import io
import re
import struct
from dataclasses import dataclass, field

import numpy as np

# Tag -> (TIFF type, payload in the file's byte order). Payloads are never interpreted, so nothing changes on the way.
Directory = dict[int, tuple[int, bytes]]

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_ASCII, _SHORT, _LONG = 2, 3, 4

ORIENTATION, SOFTWARE, MAKER_NOTE, COLOR_SPACE, WIDTH, HEIGHT, INTEROP_INDEX = 274, 305, 37500, 40961, 40962, 40963, 1
XMP, IPTC, ICC = 700, 33723, 34675
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965

# Tags of a TIFF directory that say how its pixels lie in that file; Photoshop's layers; everything of DNG (>= 0xC000).
_STRUCTURE = {254, 255, *range(256, 267), 273, *range(276, 282), 284, *range(288, 293), 301, *range(317, 328),
              *range(330, 348), *range(512, 522), *range(529, 533), 559, 33421, 33422, 34377, 37724,
              XMP, IPTC, ICC, _EXIF, _GPS}  # fmt: skip

# A maker note may hold offsets counted from the start of the block: it stays where it was if it lay near the start.
_PINNED = 8192
_DAMAGE = (struct.error, KeyError, ValueError, OverflowError, OSError)  # what reading damaged directories raises
_LARGEST = 1 << 28  # bytes in one directory; more is an attack


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
    def orientation(self):
        """1 to 8 as in the TIFF standard, 1 if the tag is missing, 0 if it says nothing of the kind."""
        kind, payload = self.image.get(ORIENTATION, (_SHORT, struct.pack(self.order + "H", 1)))
        value = struct.unpack_from(self.order + "HL"[kind == _LONG], payload)[0] if kind in (_SHORT, _LONG) else 0
        return value if value <= 8 else 0

    @property
    def is_adobe_rgb(self):
        """True for cameras' untagged Adobe RGB files (DCF optional colour space)."""
        return self.interop.get(INTEROP_INDEX, (0, b""))[1][:3] == b"R03"

    def put(self, directory, tag, value):
        """Write text or a small whole number into `directory`."""
        if isinstance(value, str):
            directory[tag] = (_ASCII, value.encode("ascii", "replace") + b"\0")
        else:
            kind = _SHORT if value < 65536 else _LONG
            directory[tag] = (kind, struct.pack(self.order + ("H" if kind == _SHORT else "L"), value))

    def reset_orientation(self):
        if ORIENTATION in self.image:
            self.put(self.image, ORIENTATION, 1)

    def say_srgb(self):
        """For colours that were converted: what the camera said of Adobe RGB no longer holds."""
        if COLOR_SPACE in self.photo:
            self.put(self.photo, COLOR_SPACE, 1)
        if self.is_adobe_rgb:
            self.put(self.interop, INTEROP_INDEX, "R98")

    def tobytes(self):
        """The block without the leading `Exif\\0\\0`."""
        file = io.BytesIO()
        fixed = self.start(file)
        self.finish(file, self.image, fixed)
        return file.getvalue()

    def start(self, file, big=False):
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

    def finish(self, file, image, fixed, big=False):
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


def _read_directory(file, offset, order, big=False, base=0):
    """-> (directory, {tag: offset of its payload}, number of damaged entries). Offsets count from `base`."""
    count_format, entry_format, inline = ("Q", "HHQ8s", 8) if big else ("H", "HHL4s", 4)
    size = struct.calcsize(order + entry_format)
    file.seek(base + offset)
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
    if count > 65535:
        raise ValueError(f"a directory of {count} entries")
    table = file.read(count * size)
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
            if total > _LARGEST:
                raise ValueError(f"directory entries of more than {_LARGEST} bytes")
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


def _header(file, base=0):
    """-> (byte order, offset of the first directory, BigTIFF?)."""
    file.seek(base)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    return order, struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "L", head[4:8])[0], big


def read_exif(file, offset=None):
    """The EXIF of an open TIFF file (a RAW file of that kind, or an EXIF block in `io.BytesIO`).

    Args:
        file: binary file, seekable.
        offset (`int`, *optional*): where the photo's directory begins; the first one if not given.

    Raises:
        ValueError: there is no directory to read.
    """
    try:
        order, first, big = _header(file)
        image, _, damaged = _read_directory(file, offset or first, order, big)
    except _DAMAGE as error:
        raise ValueError(f"damaged EXIF ({error})") from error
    exif = Exif(order, image, damaged=damaged)
    for tag, outer, name in ((_EXIF, "image", "photo"), (_GPS, "image", "gps"), (_INTEROP, "photo", "interop")):
        payload = getattr(exif, outer).pop(tag, (0, None))[1]
        if payload is None:
            continue
        try:
            inner = struct.unpack(order + {4: "L", 8: "Q"}[len(payload)], payload)[0]
            directory, offsets, damaged = _read_directory(file, inner, order, big)
        except _DAMAGE:
            exif.damaged += 1
            continue
        setattr(exif, name, directory)
        exif.damaged += damaged
        exif.note_offset = offsets.get(MAKER_NOTE, exif.note_offset)
    return exif


def parse_exif(block):
    """`read_exif` of an EXIF block, with or without the leading `Exif\\0\\0`."""
    return read_exif(io.BytesIO(block.removeprefix(b"Exif\0\0")))


def describing(directory):
    """The tags of a TIFF's directory that describe the photo, not how that file stores it."""
    return {tag: entry for tag, entry in directory.items() if tag not in _STRUCTURE and tag < 0xC000}


def join_tiff(file, base, exif, tags, fixed):
    """Make one TIFF of what `exif.start` wrote and of the TIFF of one page that was written behind it, at `base`.

    Args:
        file: binary file, for reading and writing.
        base (`int`): where the inner TIFF begins; its offsets count from there. It has the byte order of `exif`.
        tags (`Directory`): further entries of the page.
        fixed: what `exif.start` returned.
    """
    order, first, big = _header(file, base)
    page = _read_directory(file, first, order, big, base)[0]
    for tag in (273, 324):  # offsets of strips and tiles
        if tag in page:
            kind, payload = page[tag]
            offsets = np.frombuffer(payload, order + {_SHORT: "u2", _LONG: "u4", 16: "u8"}[kind]).astype(np.uint64)
            page[tag] = (16 if big else _LONG, (offsets + base).astype(order + ("u8" if big else "u4")).tobytes())
    exif.finish(file, {**page, **describing(exif.image), **tags}, fixed, big)


# XMP: only what must change is changed, as text; parsing and writing the XML anew would lose what others put there.

_END = "</rdf:RDF>"
_NAMESPACE = "http://ns.diffretouch/1.0/"
_RETOUCH = re.compile("diffretouch:Retouch(?:>([^<]*)<|=\"([^\"]*)\"|='([^']*)')")  # as an element or an attribute
_DESCRIPTION = re.compile(r"<rdf:Description[^>]*xmlns:diffretouch=[^>]*>.*?</rdf:Description>\s*", re.S)
_EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
{_END}</x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_text(xmp):
    """The packet as text. Raises ValueError for one that is not UTF-8 or has no RDF."""
    text = xmp.rstrip(b"\0").decode("utf-8")
    if _END not in text:
        raise ValueError("no rdf:RDF")
    return text


def xmp_upright(xmp):
    """The packet of a photo that was turned upright: orientation 1."""
    text = re.sub(r"(tiff:Orientation(?:>|=[\"']))\s*\d+", r"\g<1>1", xmp_text(xmp))
    return text.encode("utf-8")


def xmp_without_thumbnail(xmp):
    """The packet without the small pictures of the photo as it was."""
    return re.sub(r"<(xmp|xap):Thumbnails>.*?</\1:Thumbnails>\s*", "", xmp_text(xmp), flags=re.S).encode("utf-8")


def xmp_describe(xmp, description):
    """The packet (a new one for None) with `description` as what was done to the photo, in place of an older one."""
    before, _, after = _DESCRIPTION.sub("", xmp_text(xmp) if xmp else _EMPTY).rpartition(_END)
    element = (f'<rdf:Description rdf:about="" xmlns:diffretouch="{_NAMESPACE}"><diffretouch:Retouch>'
               f"{html.escape(description)}</diffretouch:Retouch></rdf:Description>\n")  # fmt: skip
    return (before + element + _END + after).encode("utf-8")


def xmp_description(xmp):
    """What `xmp_describe` wrote, or None."""
    found = _RETOUCH.search(xmp_text(xmp)) if xmp else None
    return html.unescape(found[found.lastindex]) if found else None


# Extended XMP: what one segment of a JPEG cannot hold, a packet of its own that the first one names by its MD5.

XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENDED = r"xmpNote:HasExtendedXMP(?:>|=[\"'])\s*([0-9A-Fa-f]{32})"
_EXTENSION_NOTE = re.compile(
    r"<xmpNote:HasExtendedXMP>[^<]*</xmpNote:HasExtendedXMP>\s*|\s*xmpNote:HasExtendedXMP=(\"[^\"]*\"|'[^']*')"
)
_RDF = re.compile(r"<rdf:RDF\s+xmlns:rdf=(?:\"[^\"]*\"|'[^']*')\s*>(.*)</rdf:RDF>", re.S)


def xmp_extension(xmp, segments):
    """The packet in extension segments (without `XMP_EXTENSION`) that `xmp` names, whole.

    Raises:
        ValueError: it names none, or parts are missing.
    """
    name = re.search(_EXTENDED, xmp_text(xmp))
    parts = [part for part in segments if name and part[:32].decode("latin-1") == name[1]]
    places = {int.from_bytes(part[36:40], "big"): part[40:] for part in parts}
    packet = b"".join(places[place] for place in sorted(places))
    if not parts or len(packet) != int.from_bytes(parts[0][32:36], "big"):
        raise ValueError("parts of the extended XMP are missing")
    return packet


def xmp_renamed(xmp, extension):
    """The packet that names `extension`, after that has changed."""
    found, text = re.search(_EXTENDED, xmp_text(xmp)), xmp_text(xmp)
    return (text[: found.start(1)] + _name(extension) + text[found.end(1) :]).encode("utf-8")


def xmp_joined(xmp, extension):
    """One packet of the two, for files that hold packets of any length. Raises ValueError where that cannot be."""
    inner = _RDF.search(xmp_text(extension))
    if not inner:
        raise ValueError("no plain rdf:RDF")
    before, _, after = _EXTENSION_NOTE.sub("", xmp_text(xmp)).rpartition(_END)
    return (before + inner[1] + _END + after).encode("utf-8")


def xmp_split(xmp):
    """A long packet as a short one, which says what this library did, and its extension, which says the rest.

    Raises ValueError where it has no plain rdf:RDF.
    """
    text = xmp_text(xmp)
    own, rest = _DESCRIPTION.search(text), _DESCRIPTION.sub("", text)
    found = _RDF.search(rest)
    if not found:
        raise ValueError("no plain rdf:RDF")
    extension = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{found[0]}</x:xmpmeta>'.encode()
    note = (f'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" '
            f'xmpNote:HasExtendedXMP="{_name(extension)}"/>\n')  # fmt: skip
    before, _, after = _EMPTY.rpartition(_END)
    return (before + note + (own[0] if own else "") + _END + after).encode("utf-8"), extension


def xmp_segments(xmp, extension):
    """APP1 segments of a JPEG for the packet and its extension."""
    payloads, step = [b"http://ns.adobe.com/xap/1.0/\0" + xmp], 65000
    for place in range(0, len(extension), step):
        head = XMP_EXTENSION + _name(extension).encode() + struct.pack(">2L", len(extension), place)
        payloads.append(head + extension[place : place + step])
    return b"".join(b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload for payload in payloads)


def _name(extension):
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()


# IPTC-IIM: Photoshop's resource in JPEG, ImageMagick's and exiftool's text chunk in PNG.


def iptc_segment(iptc):
    """APP13 segment of a JPEG. At most 65 505 bytes fit."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc + bytes(len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", 16 + len(resource)) + b"Photoshop 3.0\0" + resource


def iptc_text(iptc):
    """The text of PNG's `Raw profile type iptc`."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc + bytes(len(iptc) % 2)
    digits = resource.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return f"\niptc\n{len(resource):8d}\n{lines}\n"


def iptc_of_text(text):
    """IPTC from PNG's `Raw profile type iptc`; a damaged one comes out as other bytes than IPTC's."""
    data = raw_profile(text)
    start = data.find(b"8BIM\x04\x04")
    if start < 0 or len(data) < start + 12:
        return data
    name = data[start + 6]  # length of the resource's name, which is padded to an even number of bytes
    start += 7 + name + (name + 1) % 2
    size = int.from_bytes(data[start : start + 4], "big")
    return data[start + 4 : start + 4 + size]


def raw_profile(text):
    """The bytes of a PNG text chunk `Raw profile type ...`: name, length and hexadecimal digits in lines."""
    try:
        return bytes.fromhex("".join(text.split()[2:])) or b"damaged"
    except ValueError:
        return b"damaged"
