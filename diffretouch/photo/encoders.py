"""From code values to photo files: one writer per format, rounding, and the file that appears at once or not at all.

A writer takes an open binary file, codes (H,W,C) of uint8, uint16 or float32, and a dict `carried` with `exif`
(`exif.Exif` or None), `icc_profile`, `xmp`, `xmp_extension`, `iptc`, `photoshop`, `text`, `time` and `dpi`. It returns
what the format could not hold.
"""

import io
import os
import re
import secrets
import shutil
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import gain_map as gain_maps
from . import icc, jpeg_xl, photoshop, png_chunks, xmp
from .exif import DNG, IPTC_TAG, MAKER_NOTE, ORIENTATION, PHOTOSHOP_TAG, XMP_TAG, Exif, join_tiff

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF",
            ".webp": "WebP", ".avif": "AVIF", ".jxl": "JPEG XL"}  # fmt: skip
_RESULTS = {".jfif": ".jpg", ".jif": ".jpg", ".jfi": ".jpg", ".mpo": ".jpg", ".jps": ".jpg", ".thm": ".jpg",
            ".apng": ".png", ".avifs": ".avif"}  # of what is read, and written under the usual suffix  # fmt: skip
READ_SUFFIXES = {*SUFFIXES, *_RESULTS, ".heic", ".heif", ".hif"}
DEPTHS = {"JPEG": (8,), "PNG": (8, 16), "TIFF": (8, 16, 32), "WebP": (8,), "AVIF": (8,), "JPEG XL": (8, 16)}
LONGEST_SIDE = {"JPEG": 65500, "WebP": 16383, "AVIF": 65536}

_JPEG_SEGMENT = 65533  # bytes that one segment of a JPEG holds
_STRIP = 1 << 20  # values that are rounded at a time


def result_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a photo's result: its own if that is written, else that of its format, or .tif."""
    suffix = Path(path).suffix
    return suffix if suffix.lower() in SUFFIXES else _RESULTS.get(suffix.lower(), ".tif")


def quantise(values: np.ndarray, bit_depth: int, dither: bool = False) -> np.ndarray:
    """Values (H,W,C) -> codes: rounded and held in [0,1] for 8 and 16 bits, untouched float32 for 32.

    Integers of that many bits are codes already: they stay as they are.

    `dither` adds triangular noise of one level before rounding, always the same; black and white stay clean.
    """
    if bit_depth == 32:
        return np.asarray(values, np.float32)
    if values.dtype.kind == "u":
        return np.ascontiguousarray(values)
    peak = 2**bit_depth - 1
    codes = np.empty(values.shape, np.uint8 if bit_depth == 8 else np.uint16)
    random = np.random.default_rng(0)
    rows = max(1, _STRIP // (values.shape[1] * values.shape[2]))
    for start in range(0, len(values), rows):
        strip = values[start : start + rows] * np.float32(peak)
        if dither:
            noise = random.random(strip.shape, np.float32) - random.random(strip.shape, np.float32)
            strip += np.where((strip > 0) & (strip < peak), noise, 0)
        codes[start : start + rows] = np.rint(strip.clip(0, peak, out=strip), out=strip)
    return codes


@contextmanager
def new_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[BinaryIO]:
    """An open binary file that gets its name `path` when it is complete; an error leaves nothing behind.

    Raises:
        ValueError: `path` exists and `overwrite` is False.
        OSError: the file cannot be written.
    """
    path = Path(os.path.realpath(path)) if overwrite else Path(path)  # a link stays a link
    temporary = path.with_name(f"{_mark()}{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        else:
            _name_if_free(temporary, path)
    except OSError as error:
        if not error.errno:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the temporary file's name
    finally:
        with suppress(OSError):  # as on a file system that is read-only: the first error is the one to tell
            temporary.unlink(missing_ok=True)


def _mark():
    """The start of this machine's temporary names."""
    return f".diffretouch-{re.sub('[^A-Za-z0-9.]', '_', socket.gethostname())[:64]}-"


def remove_abandoned(folder: str | os.PathLike[str]) -> int:
    """Remove the unfinished files that killed processes of this machine left in a folder -> how many."""
    import psutil

    number = 0
    for path in Path(folder).glob(f"{_mark()}*.tmp"):
        process = path.name.removeprefix(_mark()).split("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            with suppress(OSError):  # a folder that is read-only: they hinder nobody
                path.unlink()
                number += 1
    return number


def _name_if_free(temporary, path):
    try:
        os.link(temporary, path)  # unlike a rename it fails if another process was faster
    except FileExistsError:
        raise ValueError(f"`overwrite` is False and {str(path)!r} exists.") from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise ValueError(f"`overwrite` is False and {str(path)!r} exists.") from None
        os.replace(temporary, path)


def write(
    kind: str,
    file: BinaryIO,
    codes: np.ndarray,
    carried: dict[str, Any],
    *,
    quality: int | None = None,
    jpeg: Any = None,
    gain_map: Any = None,
) -> list[str]:
    """Write a file of the format `kind`. `jpeg`: settings of a source JPEG. -> names of what could not be held."""
    lost = []
    gain_map = gain_map and _fitting(gain_map, kind, codes, carried, lost)
    if carried["xmp_extension"] and kind != "JPEG":
        carried["xmp"] = xmp.joined(carried["xmp"], carried["xmp_extension"])
    if kind == "JPEG":
        _jpeg(file, codes, carried, quality, jpeg, gain_map, lost)
    elif kind == "PNG":
        _png(file, codes, carried)
    elif kind == "TIFF":
        _tiff(file, codes, carried, lost)
    elif kind == "JPEG XL":
        _jpeg_xl(file, codes, carried, quality, lost)
    else:
        _webp_or_avif(kind, file, codes, carried, quality, lost)
    if carried["time"] and kind != "PNG":
        lost.append("the time of change")
    return lost


def _fitting(gain_map, kind, codes, carried, lost):
    """The gain map, or None where the file to be cannot hold it or it does not belong to that file's pixels."""
    if kind != "JPEG":
        lost.append("the HDR gain map (JPEG can)")
    elif codes.shape[:2] != gain_map.photo_size:
        lost.append("the HDR gain map of a photo of another size")
    elif (
        gain_map.has_colours
        and gain_map.in_base_colours
        and not icc.same_colours(gain_map.photo_profile, carried["icc_profile"])
    ):
        lost.append("the HDR gain map in another profile than the photo's")
    else:
        return gain_map
    return None


def _jpeg(file, codes, carried, quality, jpeg, gain_map, lost):
    from PIL import Image

    exif, packet, extension = carried["exif"], carried["xmp"], carried["xmp_extension"]
    options = dict(jpeg) if jpeg and quality is None else {"quality": quality or 95, "subsampling": 0}
    if jpeg and quality is not None:
        options["subsampling"] = jpeg["subsampling"]
    block = b"Exif\0\0" + exif.tobytes() if exif else b""
    if len(block) > _JPEG_SEGMENT and exif.photo.pop(MAKER_NOTE, None):
        lost.append("the maker note")
        block = b"Exif\0\0" + exif.tobytes()
    if len(block) > _JPEG_SEGMENT:
        lost.append(f"EXIF of {len(block)} bytes")
        block = b""
    if packet and len(packet) > _JPEG_SEGMENT - 29 - (1024 if gain_map else 0):
        try:
            packet, extension = xmp.split(xmp.joined(packet, extension) if extension else packet)
        except ValueError:
            lost.append(f"XMP of {len(packet)} bytes")
            packet = extension = None
    segment, too_long = photoshop.segments(carried["iptc"], carried["photoshop"])
    lost += too_long
    text = dict(carried["text"])
    comment = text.pop("Comment", "").encode()
    if len(comment) > _JPEG_SEGMENT:
        lost.append(f"a comment of {len(comment)} bytes")
        comment = b""
    _lose_text(text, lost)
    behind = gain_map.tobytes() if gain_map else b""
    if gain_map:
        packet = gain_maps.announced(packet, len(behind))
    if extension:
        segment, packet = segment + xmp.segments(packet, extension), None
    image = Image.fromarray(codes.squeeze(2) if codes.shape[2] == 1 else codes)
    options |= {"exif": block, "xmp": packet, "icc_profile": carried["icc_profile"], "extra": segment,
                "comment": comment, "dpi": carried["dpi"] or (0, 0)}  # fmt: skip
    try:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", **options)
    except OSError:  # Pillow's buffer for a progressive file is too small for noise
        if not options.pop("progressive", False):
            raise
        lost.append("the progressive order of this photo")
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", **options)
    if gain_map:
        file.writelines(gain_maps.joined(encoded.getvalue(), behind))
    else:
        file.write(encoded.getbuffer())


def _jpeg_xl(file, codes, carried, quality, lost):
    _lose_without_place(carried, lost)
    exif = carried["exif"]
    if exif:
        exif.image.pop(ORIENTATION, None)  # the coded picture says it
    profile = carried["icc_profile"]
    profile = None if not profile or icc.is_srgb(profile) else profile
    file.write(jpeg_xl.encoded(codes, quality or 90, exif.tobytes() if exif else None, carried["xmp"], profile))


def _webp_or_avif(kind, file, codes, carried, quality, lost):
    from PIL import Image

    exif = carried["exif"]
    options = {"quality": quality or 90}
    if kind == "WebP":
        options |= {"lossless": quality == 100, "exact": True}
    elif options["quality"] >= 90:
        options["subsampling"] = "4:4:4"
    if kind == "AVIF" and exif:
        exif.image.pop(ORIENTATION, None)  # AVIF says it in its container, and Pillow would write EXIF anew
    _lose_without_place(carried, lost)
    encoded = io.BytesIO()
    Image.fromarray(codes).save(
        encoded, kind, exif=b"Exif\0\0" + exif.tobytes() if exif else b"", xmp=carried["xmp"] or b"",
        icc_profile=carried["icc_profile"] or b"", **options)  # fmt: skip
    file.write(encoded.getbuffer())


def _png(file, codes, carried):
    from imagecodecs import png_encode

    encoded = png_encode(codes.squeeze(2) if codes.shape[2] == 1 else codes)
    chunks = []
    if carried["icc_profile"]:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(carried["icc_profile"])))
    if carried["dpi"]:
        chunks.append((b"pHYs", struct.pack(">LLB", *(round(value / 0.0254) for value in carried["dpi"]), 1)))
    if carried["exif"]:
        chunks.append((b"eXIf", carried["exif"].tobytes()))
    if carried["time"]:
        chunks.append((b"tIME", carried["time"]))
    for kind, found in (("iptc", carried["iptc"] and photoshop.pack([(photoshop.IPTC, b"", carried["iptc"])])),
                        ("8bim", carried["photoshop"])):  # fmt: skip
        if found:
            content = zlib.compress(photoshop.profile_text(kind, found).encode())
            chunks.append((b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + content))
    texts = {key: text.encode("utf-8") for key, text in carried["text"].items()}
    if carried["xmp"]:
        texts["XML:com.adobe.xmp"] = carried["xmp"]
    for key, text in texts.items():
        chunks.append((b"iTXt", key.encode("latin-1", "replace") + b"\0\0\0\0\0" + text))
    header = 33  # signature and IHDR
    file.write(encoded[:header])
    for name, data in chunks:
        file.write(png_chunks.chunk(name, data))
    file.write(memoryview(encoded)[header:])


def _tiff(file, codes, carried, lost):
    import tifffile

    exif = carried["exif"] or Exif()
    big = codes.nbytes > 2**32 - 2**26
    channels = codes.shape[2]
    fixed = exif.start(file, big)
    file.write(bytes(-file.tell() % 16))
    base = file.tell()
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=exif.order) as tiff:
        tiff.write(
            codes.squeeze(2) if channels == 1 else codes,
            photometric="minisblack" if channels < 3 else "rgb",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            compression="adobe_deflate",
            predictor=True,
            resolution=carried["dpi"],
            resolutionunit="inch" if carried["dpi"] else None,
            iccprofile=carried["icc_profile"],
            metadata=None,
            software=False,
        )
    tags = {tag: (kind, carried[name]) for tag, kind, name in ((XMP_TAG, 1, "xmp"), (IPTC_TAG, 7, "iptc"),
            (PHOTOSHOP_TAG, 7, "photoshop")) if carried[name]}  # fmt: skip
    join_tiff(file, base, exif, tags, fixed)
    if DNG & exif.image.keys():
        lost.append("what its metadata say of raw values")
    _lose_text(carried["text"], lost)


def _lose_without_place(carried, lost):
    lost += [name for key, name in (("iptc", "IPTC"), ("photoshop", "Photoshop's resources")) if carried[key]]
    _lose_text(carried["text"], lost)


def _lose_text(text, lost):
    if text:
        lost.append(f"text ({', '.join(text)})")
