"""What of RAW files LibRaw does not tell: whether they are whole, and the metadata that they hold."""

from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from . import jpeg_segments
from .exif import IPTC_TAG, XMP_TAG, Exif, parse_exif, read_exif

_PANASONIC, _JPEG_INSIDE = b"IIU\0", 46


def check_whole(path: Path) -> None:
    """Raises ValueError for a file whose sensor's values end behind its end: LibRaw would make black of them."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            parts = [(page.dataoffsets, page.databytecounts) for page in sensors(tiff)]
    except Exception:  # its directory is none of a TIFF, or damaged: LibRaw's to judge
        return
    if any(max(map(sum, zip(*part, strict=True)), default=0) > path.stat().st_size for part in parts):
        raise ValueError("it is cut off: the sensor's values are not whole")


def check_values(raw: Any) -> None:
    """Raises ValueError where of more than one row in twenty nothing was measured: even darkness has noise.

    Args:
        raw (`rawpy.RawPy`): an open file.
    """
    import rawpy

    if raw.raw_type == rawpy.RawType.Flat and not raw.raw_image_visible.any(1).mean() >= 0.95:
        raise ValueError("it is cut off or damaged: rows of the sensor hold nothing")


def sensors(tiff: Any) -> list[Any]:
    """The pages of a `tifffile.TiffFile` with a sensor's values, among the first and in their directories."""
    pages = [inner for page in islice(tiff.pages, 8) for inner in (page, *(page.pages or ()))]
    return [page for page in pages if int(page.photometric) in (32803, 34892)]


def metadata_of(file: BinaryIO) -> Exif:
    """The directories of an open RAW file. Panasonic has numbers of its own for the tags, and EXIF in a JPEG inside.

    Raises:
        ValueError: there are none.
    """
    exif = read_exif(file)
    file.seek(0)
    if file.read(4) != _PANASONIC:
        return exif
    jpeg = exif.image.get(_JPEG_INSIDE, (0, b""))[1]
    for marker, start, end in jpeg_segments.segments(jpeg)[0]:
        if marker == 0xE1 and jpeg.startswith(b"Exif\0\0", start):
            inside = parse_exif(jpeg[start:end])
            inside.image |= {tag: exif.image[tag] for tag in (XMP_TAG, IPTC_TAG) if tag in exif.image}
            return inside
    raise ValueError("no EXIF in the JPEG inside")
