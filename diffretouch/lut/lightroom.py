"""`.xmp` profiles of Lightroom and Camera Raw: a look that they apply after the raw converter's tone curve.

The table stands in them as text: a block of little-endian numbers, compressed, its length before it, in base 85.
"""

import hashlib
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from .xml_files import walk

if TYPE_CHECKING:
    from diffretouch.lut.table import Lut3D

MOST_NODES = 32  # that these programs read
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?`'|()[]{}@%$#"
_VALUES = np.full(256, -1)
_VALUES[list(_DIGITS.encode())] = np.arange(85)
_CRS, _RDF = "http://ns.adobe.com/camera-raw-settings/1.0/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SPACES = ("sRGB", "Adobe RGB", "ProPhoto RGB", "Display P3", "BT.2020")
_ABOUT = re.compile("Table_.*|Supports.*|Requires.*|ShowIn.*|.*Version|PresetType|Cluster|UUID|RGBTable|HasSettings"
                    "|Copyright|ContactInfo|CameraModelRestriction|ConvertToGrayscale")  # fmt: skip
_PROFILE = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">
<rdf:Description rdf:about="" xmlns:crs="{crs}" crs:PresetType="Look" crs:Cluster="" crs:UUID="{uuid}"
 crs:SupportsAmount="True" crs:SupportsColor="True" crs:SupportsMonochrome="True" crs:SupportsHighDynamicRange="True"
 crs:SupportsNormalDynamicRange="True" crs:SupportsSceneReferred="True" crs:SupportsOutputReferred="True"
 crs:RequiresRGBTables="False" crs:CameraModelRestriction="" crs:Copyright="" crs:ContactInfo="" crs:Version="14.3"
 crs:ProcessVersion="11.0" crs:RGBTable="{md5}" crs:Table_{md5}="{table}" crs:HasSettings="True">
<crs:Name><rdf:Alt><rdf:li xml:lang="x-default">{name}</rdf:li></rdf:Alt></crs:Name>
<crs:Group><rdf:Alt><rdf:li xml:lang="x-default">diffretouch</rdf:li></rdf:Alt></crs:Group>
</rdf:Description></rdf:RDF></x:xmpmeta>
"""


def write(lut: "Lut3D", path: Path, file: BinaryIO) -> None:
    """Write a [`Lut3D`] over [0,1] into a binary file: sRGB, clipped to [0,1], with amounts from 0 to 200 %."""
    codes = np.rint(lut.table.clip(0, 1) * 65535).astype(np.int64) - _identity(lut.size)
    samples = (codes % 65536).astype("<u2").transpose(2, 1, 0, 3)  # blue runs fastest
    block = struct.pack("<4I", 1, 1, 3, lut.size) + samples.tobytes() + struct.pack("<3I2d", 0, 1, 0, 0.0, 2.0)
    md5 = hashlib.md5(block, usedforsecurity=False).hexdigest().upper()
    table = _to_base85(struct.pack("<I", len(block)) + zlib.compress(block))
    uuid = hashlib.md5(f"{path.stem} {md5}".encode(), usedforsecurity=False).hexdigest().upper()
    profile = _PROFILE.format(rdf=_RDF, crs=_CRS, uuid=uuid, md5=md5, table=table, name=escape(lut.title or path.stem))
    file.write(profile.encode())


def read(path: Path) -> tuple[np.ndarray, tuple, tuple, str]:
    """-> table (N,N,N,3), domain_min, domain_max, title."""
    said, name = _parse(path)
    md5 = said.get("RGBTable")
    if md5 is None or f"Table_{md5}" not in said:
        raise ValueError("is no profile with a table (crs:RGBTable and crs:Table_...)")
    block = _unpack(said[f"Table_{md5}"])
    found = hashlib.md5(block, usedforsecurity=False).hexdigest()
    if found != md5.lower():
        raise ValueError(f"is damaged: its table has the MD5 {found}, not {md5.lower()}")
    table = _table(block)
    more = sorted(key for key, value in said.items() if not _ABOUT.fullmatch(key) and value not in ("", "0", "False"))
    if more:
        warnings.warn(f"{path} holds more than a table, which is left out: {', '.join(more)[:200]}.", stacklevel=4)
    return table, (0.0,) * 3, (1.0,) * 3, name


def _identity(size):
    """What the table that changes nothing holds, (N,N,N,3): as Adobe rounds it."""
    ramp = (np.arange(size, dtype=np.int64) * 65535 + size // 2) // (size - 1)
    return np.stack(np.meshgrid(ramp, ramp, ramp, indexing="ij")[::-1], -1)


def _table(block):
    """The block of numbers -> (N,N,N,3) in [0,1]."""
    if len(block) < 16 or struct.unpack("<3I", block[:12]) != (1, 1, 3):
        raise ValueError("holds another kind of table: none of three dimensions in version 1")
    (size,) = struct.unpack("<I", block[12:16])
    if not 2 <= size <= MOST_NODES:
        raise ValueError(f"has {size} nodes on an edge, 2 to {MOST_NODES} are allowed")
    end = 16 + 6 * size**3
    if len(block) < end + 28:
        raise ValueError(f"is cut off: {size} nodes on an edge take {end + 28} bytes, it has {len(block)}")
    colours, gamma, _, least, most = struct.unpack("<3I2d", block[end : end + 28])
    if (colours, gamma) != (0, 1):
        space = _SPACES[colours] if colours < len(_SPACES) else f"the space {colours}"
        raise ValueError(f"is a table for {space} with the curve {gamma}, only sRGB's can be read")
    if not least <= 1 <= most:
        raise ValueError(f"has an amount from {least:g} to {most:g}, without 1")
    samples = np.frombuffer(block[16:end], "<u2").reshape(size, size, size, 3).transpose(2, 1, 0, 3)
    return (samples + _identity(size)) % 65536 / 65535


def _unpack(text):
    data = _from_base85(text)
    if len(data) < 5:
        raise ValueError("has an empty table")
    (length,) = struct.unpack("<I", data[:4])
    if length > 16 + 6 * MOST_NODES**3 + 1024:
        raise ValueError(f"says that its table has {length} bytes, more than {MOST_NODES} nodes on an edge take")
    inflate = zlib.decompressobj()
    try:
        block = inflate.decompress(data[4:], length + 1)
    except zlib.error as error:
        raise ValueError(f"is damaged: its table cannot be unpacked ({error})") from error
    if len(block) != length:
        raise ValueError(f"is cut off: its table should have {length} bytes")
    return block


def _to_base85(data):
    """Four bytes, least significant first, as five digits, least significant first; k bytes at the end as k + 1."""
    groups = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.int64)
    digits = groups[:, None] // 85 ** np.arange(5) % 85
    return "".join(_DIGITS[digit] for digit in digits.ravel()[: len(data) + -(-len(data) // 4)])


def _from_base85(text):
    values = _VALUES[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
    if (values < 0).any():
        raise ValueError(f"has {text[int((values < 0).argmax())]!r} in its table, which is no digit of base 85")
    groups = np.pad(values, (0, -len(values) % 5)).reshape(-1, 5) @ 85 ** np.arange(5)
    if len(values) % 5 == 1 or (groups >= 1 << 32).any():
        raise ValueError("is damaged: its table is not in base 85")
    return groups.astype("<u4").tobytes()[: len(values) * 4 // 5]


def _parse(path):
    """-> (crs attributes and elements by name, the profile's name)."""
    said, name = {}, []

    def start(_, attributes):
        said.update({key.removeprefix(_CRS + "}"): value for key, value in attributes.items() if key.startswith(_CRS)})

    def text(inside, part):
        if f"{_CRS}}}Name" in inside:
            name.append(part)

    walk(path, "profile", start, text, markup="XMP", separator="}")
    return said, "".join(name).strip()
