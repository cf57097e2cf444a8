"""What a photo file says before it is decoded: its kind and how much it will take."""

import os
import stat
import struct
import warnings
from pathlib import Path

from . import jpeg_xl

RAW_SUFFIXES = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos",
                ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
                ".x3f"}  # fmt: skip

_UNKNOWN = 50_000_000  # pixels of a file whose header is not read here: RAW, HEIC


def pixels_decoded(path: str | os.PathLike[str]) -> int:
    """How many pixels, of 12 bytes each, a file takes while it is decoded: by its header, of the first page."""
    try:
        kind = kind_of(Path(path))
        if kind == "JPEG XL":
            with open(path, "rb") as file:
                found = jpeg_xl.header(jpeg_xl.codestream(file.read(1 << 26)))
            return found.width * found.height
        if kind == "TIFF":
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages[0]
                stored = page.samplesperpixel * (page.dtype.itemsize if page.dtype else 1)
                return page.imagewidth * page.imagelength * max(stored, 12) // 12
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return image.width * image.height
    except Exception:  # RAW and HEIC; a broken file is told when it is read
        return _UNKNOWN


def usual_suffix(path: Path) -> str:
    """The suffix that files of this kind have, "" for what is no photo."""
    usual = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG XL": ".jxl"}
    try:
        kind = kind_of(path)
    except ValueError:
        return ""
    return usual.get(kind, f".{kind.lower()}")


def kind_of(path: Path) -> str:
    """The format by the first bytes; the suffix only tells RAW files from the TIFFs that they look like."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError("it is empty")
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if jpeg_xl.is_jpeg_xl(head):
        return "JPEG XL"
    if head[4:8] == b"ftyp":
        brands = head[8 : struct.unpack(">L", head[:4])[0]]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1")):
            return "HEIC"
    if path.suffix.lower() in RAW_SUFFIXES or head[:2] == b"II" and head[8:10] == b"CR":  # Canon's CR2
        return "RAW"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    raise ValueError("it is no JPEG, PNG, TIFF, WebP, AVIF, JPEG XL, HEIC or RAW file")


def check_length(path: Path, kind: str, max_pixels: int) -> None:
    """Raises ValueError for a file that is longer than pixels of 16 bits and alpha, never packed, would make it.

    Of TIFF and RAW only what is needed is read; the others are held whole.
    """
    length = os.stat(path).st_size
    if kind not in ("TIFF", "RAW") and length > 8 * max_pixels + (1 << 26):
        raise ValueError(f"it is {length / 1e9:.1f} GB long, too much for a photo of `max_pixels` = {max_pixels}")
