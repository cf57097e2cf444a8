"""From photo files to samples: one reader per format, through Pillow, tifffile, imagecodecs, pillow-heif and rawpy.

A reader takes a `diffretouch.photo.Photo`, fills in what its file carries and returns the samples (H,W,C) as stored,
the value of full intensity, and the number of colours (1 grey, 3 RGB, 4 CMYK); one more channel is alpha. It raises
whatever its library raises on broken files, and ValueError for what it refuses.
"""

import io
import os
import re
import stat
import struct

import numpy as np

from . import apart, icc, metadata, tiff_samples

RAW_SUFFIXES = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos",
                ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
                ".x3f"}  # fmt: skip
_MOST_PAGES = 100  # of a TIFF are looked at


def read(photo, max_pixels):
    """-> samples, peak, colours of the file `photo.path`; sets `photo.format` first."""
    photo.format = _sniff(photo.path)
    readers = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WebP": _webp, "AVIF": _avif, "HEIC": _heic, "RAW": _raw}
    return readers[photo.format](photo, max_pixels)


def _sniff(path):
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
    if head[4:8] == b"ftyp":
        brands = head[8 : struct.unpack(">L", head[:4])[0]]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1")):
            return "HEIC"
    if path.suffix.lower() in RAW_SUFFIXES:
        return "RAW"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    raise ValueError("it is no JPEG, PNG, TIFF, WebP, AVIF, HEIC or RAW file")


def _check_size(width, height, max_pixels):
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than `max_pixels` = {max_pixels}")


def _open_with_pillow(photo, plugin, max_pixels, load=True):
    """-> (image, bytes of the file). `Image.open` would judge the size by a limit that is global to the process."""
    data = photo.path.read_bytes()
    image = plugin(io.BytesIO(data))
    _check_size(*image.size, max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        photo.note(f"The first of {image.n_frames} frames is used.")
    if load:
        image.load()
    photo.exif, photo.icc_profile = image.info.get("exif"), image.info.get("icc_profile")
    photo.xmp, photo.dpi = image.info.get("xmp"), image.info.get("dpi")
    return image, data


def _pillow_samples(image):
    if image.mode == "CMYK":
        return np.asarray(image), 255, 4
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    mode = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
    samples = np.asarray(image if image.mode == mode else image.convert(mode))
    return np.atleast_3d(samples), 255, 1 if grey else 3


def _jpeg(photo, max_pixels):
    from PIL.JpegImagePlugin import JpegImageFile, get_sampling

    image, data = _open_with_pillow(photo, JpegImageFile, max_pixels, load=False)
    if image.mode != "CMYK":
        tables = [image.quantization[number] for number in sorted(image.quantization)]
        photo.jpeg = tables and {"qtables": tables, "subsampling": max(get_sampling(image), 0),
                      "progressive": "progressive" in image.info} or None  # fmt: skip
    if image.info.get("jfif_unit") not in (1, 2):  # Pillow fills in 72
        photo.dpi = None
    photo.iptc = image.info.get("photoshop", {}).get(0x0404)
    if comment := image.info.get("comment"):
        photo.text["Comment"] = comment.decode("utf-8", "replace")
    known = {"APP0": b"", "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/", metadata.XMP_EXTENSION),
             "APP2": (b"ICC_PROFILE\0", b"MPF\0"), "APP13": b"Photoshop", "APP14": b"Adobe", "COM": b""}  # fmt: skip
    if others := sorted({name for name, data in image.applist if not data.startswith(known.get(name, ()))}):
        photo.note(f"JPEG segments that were not carried: {', '.join(others)}.")
    if extended := [data.removeprefix(metadata.XMP_EXTENSION) for _, data in image.applist
                    if data.startswith(metadata.XMP_EXTENSION)]:  # fmt: skip
        try:
            photo.xmp_extension = metadata.xmp_extension(photo.xmp or b"", extended)
            metadata.xmp_joined(photo.xmp, photo.xmp_extension)
        except ValueError as error:
            photo.xmp_extension = None
            photo.note(f"Its extended XMP was not carried ({error}).")
    if photo.icc_profile is None and any(data.startswith(b"ICC_PROFILE\0") for _, data in image.applist):
        photo.note("Its ICC profile is incomplete; its colours are taken as sRGB.")
    if "mp" in image.info:
        photo.note("Further images in the file (a preview or a gain map) were not carried.")
    return _jpeg_samples(image, data)


def _jpeg_samples(image, data):
    """`_pillow_samples` of a JPEG. The same decoder fills an array without the three copies that Pillow would make."""
    if image.mode in ("RGB", "L") and _is_whole(data):
        from imagecodecs import Jpeg8Error, jpeg8_decode

        samples = np.empty((image.height, image.width) + (3,) * (image.mode == "RGB"), np.uint8)
        try:
            return np.atleast_3d(jpeg8_decode(data, out=samples)), 255, 1 if image.mode == "L" else 3
        except (Jpeg8Error, ValueError):  # Pillow reads it, or says what is wrong
            pass
    return _pillow_samples(image)


_AFTER_SCAN = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")


def _is_whole(data):
    """Whether a JPEG's segments and scans lead to its end marker: the decoder fills up with grey what is missing."""
    place = 2
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1 : place + 2]
        if marker == b"\xd9":
            return True
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == b"\xda":
            found = _AFTER_SCAN.search(data, place)
            place = found.start() if found else len(data)
    return False


def _png(photo, max_pixels):
    from PIL.PngImagePlugin import PngImageFile

    image, data = _open_with_pillow(photo, PngImageFile, max_pixels)
    photo.text = {key: str(text) for key, text in image.text.items() if key != "XML:com.adobe.xmp"}
    if profile := photo.text.pop("Raw profile type iptc", None):
        photo.iptc = metadata.iptc_of_text(profile)
    if (profile := photo.text.pop("Raw profile type exif", None)) and not photo.exif:
        photo.exif = metadata.raw_profile(profile)
    header = data[: data.find(b"IDAT")]
    if photo.icc_profile is None and b"iCCP" in header:
        photo.note("Its ICC profile is damaged; its colours are taken as sRGB.")
    cicp = header.find(b"cICP", 33)
    if cicp > 0:
        photo.icc_profile = icc.cicp_profile(*header[cicp + 4 : cicp + 6])
    elif photo.icc_profile is None and abs(image.info.get("gamma", 1 / 2.2) - 1 / 2.2) > 0.01:
        photo.note("Its gAMA chunk is not that of sRGB; as in most viewers, the colours are taken as sRGB.")
    if data[24] < 16:  # bits per channel
        return _pillow_samples(image)
    from imagecodecs import png_decode

    samples = np.atleast_3d(png_decode(data))
    return samples, 65535, 1 if samples.shape[2] < 3 else 3


def _webp(photo, max_pixels):
    from PIL.WebPImagePlugin import WebPImageFile

    image, data = _open_with_pillow(photo, WebPImageFile, max_pixels)
    photo.lossless = _webp_coding(data) == b"VP8L"
    return _pillow_samples(image)


def _webp_coding(data):
    """The name of the chunk that holds a WebP's first picture: `VP8 ` or, without loss, `VP8L`."""
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name
        place += 24 if name == b"ANMF" else 8 + size + size % 2  # a frame's chunks stand behind its measures
    return b""


def _avif(photo, max_pixels):
    from PIL.AvifImagePlugin import AvifImageFile

    image, data = _open_with_pillow(photo, AvifImageFile, max_pixels)
    if photo.icc_profile is None and (box := data.find(b"colrnclx")) > 0:
        photo.icc_profile = icc.cicp_profile(*struct.unpack_from(">HH", data, box + 8))
    configuration = data.find(b"av1C")
    depth = 8 if configuration < 0 else (8, 8, 10, 12)[data[configuration + 6] >> 5 & 3]
    if depth == 8:
        return _pillow_samples(image)
    if getattr(image, "n_frames", 1) > 1:  # imagecodecs' decoder writes beyond its memory
        photo.note(f"Of the {depth} bits per channel of its frame 8 are used.")
        return _pillow_samples(image)
    photo.note(f"It has {depth} bits per channel; AVIF is written with 8.")
    samples = np.atleast_3d(apart.decode("avif_decode", photo.path))
    return samples, 2**depth - 1, 1 if samples.shape[2] < 3 else 3


def _heic(photo, max_pixels):
    try:
        import pillow_heif
    except ImportError as error:
        raise ValueError('HEIC files need pillow-heif: pip install "diffretouch[heic]"') from error

    file = pillow_heif.open_heif(photo.path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    _check_size(*file.size, max_pixels)
    if len(file) > 1:
        photo.note(f"The main one of {len(file)} images is used.")
    photo.icc_profile, photo.xmp = file.info.get("icc_profile"), file.info.get("xmp")
    photo.exif = _upright(file.info.get("exif"))  # the decoder obeys the container's own turn
    nclx = file.info.get("nclx_profile")
    if photo.icc_profile is None and nclx:
        photo.icc_profile = icc.cicp_profile(nclx["color_primaries"], nclx["transfer_characteristics"])
    samples, peak = np.atleast_3d(np.asarray(file)), 2 ** file.info["bit_depth"] - 1
    if file.mode.startswith(("RGBa", "La")):
        photo.note("Its colours were multiplied by alpha; they no longer are.")
        samples = tiff_samples.divided_by_alpha(samples, peak)
    return samples, peak, 1 if samples.shape[2] < 3 else 3


def _upright(block):
    """An EXIF block with orientation 1, for photos that their decoder has turned."""
    try:
        exif = metadata.parse_exif(block or b"")
    except ValueError:  # none or damaged, which is noticed where all EXIF is checked
        return block
    exif.reset_orientation()
    return exif.tobytes()


def _raw(photo, max_pixels):
    photo.format = "RAW"
    try:
        import rawpy
    except ImportError as error:
        raise ValueError('RAW files need rawpy: pip install "diffretouch[raw]"') from error

    try:
        with rawpy.imread(str(photo.path)) as raw:
            _check_size(raw.sizes.width, raw.sizes.height, max_pixels)
            samples = raw.postprocess(output_bps=16, use_camera_wb=True, no_auto_bright=True, gamma=(2.4, 12.92),
                                      output_color=rawpy.ColorSpace.sRGB)  # fmt: skip
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"LibRaw reports {reason}") from error
    photo.note("Developed by LibRaw with the camera's white balance; other raw converters give another look.")
    try:
        with open(photo.path, "rb") as file:
            exif = metadata.read_exif(file)
        exif.image = metadata.describing(exif.image)
        photo.exif = _upright(exif.tobytes())
    except ValueError:
        photo.note("Its EXIF is not in a TIFF directory and was not carried.")
    return samples, 65535, 3


def _tiff(photo, max_pixels):
    import tifffile

    with tifffile.TiffFile(photo.path) as tiff:
        pages = _full_pages(tiff)
        page = pages[0]
        if 50706 in page.tags:  # a DNG under another name
            return _raw(photo, max_pixels)
        if len(pages) > 1:
            photo.note(f"The first of {len(pages)}{' or more' * (len(pages) == _MOST_PAGES)} pages is used.")
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        _check_size(page.tilewidth, page.tilelength, max(max_pixels, 1 << 24))
        tiff_samples.check(page, max_pixels)
        _tiff_metadata(photo, page)
        return tiff_samples.read(photo, page)


def _full_pages(tiff):
    """The pages, up to a hundred, that are no small versions of others; in a damaged file they may form a ring."""
    pages = {}
    for n in range(_MOST_PAGES):
        try:
            page = tiff.pages[n]
        except IndexError:
            break
        if page.offset in pages:
            raise ValueError("its pages follow each other in a ring")
        pages[page.offset] = page
    return [page for page in pages.values() if not page.is_reduced] or [tiff.pages[0]]


def _tiff_metadata(photo, page):
    with open(photo.path, "rb") as file:
        exif = metadata.read_exif(file, page.offset)
    for tag, name in ((metadata.ICC, "icc_profile"), (metadata.XMP, "xmp"), (metadata.IPTC, "iptc")):
        setattr(photo, name, exif.image.get(tag, (0, None))[1])
    if {34377, 37724} & exif.image.keys():
        photo.note("Photoshop's layers and resources were not carried.")
    if exif.damaged:
        photo.note(f"{exif.damaged} damaged TIFF entries were not carried.")
    exif.image = metadata.describing(exif.image)
    photo.exif = exif.tobytes()
    unit = {2: 1.0, 3: 2.54}.get(int(page.resolutionunit or 0))  # inch, centimetre
    if unit and 282 in page.tags and 283 in page.tags:
        x, y = page.get_resolution()
        photo.dpi = (x * unit, y * unit) if x > 0 and y > 0 else None
