"""From photo files to samples: one reader per format, through Pillow, tifffile, imagecodecs, pillow-heif and rawpy.

A reader takes a `diffretouch.photo.Photo`, fills in what its file carries and returns the samples (H,W,C) as stored,
the value of full intensity, and the number of colours (1 grey, 3 RGB, 4 CMYK); one more channel is alpha. It raises
whatever its library raises on broken files, and ValueError for what it refuses.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from . import (
    apart,
    boxes,
    gain_map,
    headers,
    high_range,
    icc,
    jpeg_segments,
    jpeg_xl,
    photoshop,
    png_chunks,
    raw_files,
    webp_chunks,
    xmp,
)
from . import tiff_samples as tiffs
from .exif import DNG, DNG_PRIVATE, ICC_TAG, IPTC_TAG, MAKER_NOTE, PHOTOSHOP_TAG, XMP_TAG, describing, read_exif

if TYPE_CHECKING:
    from . import Photo

_MOST_PAGES = 100  # of a TIFF are looked at


def read(photo: "Photo", max_pixels: int) -> tuple[np.ndarray, float, int]:
    """-> samples, peak, colours of the file `photo.path`; sets `photo.format` first."""
    path: Any = photo.path  # what is read has one
    photo.format = headers.kind_of(path)
    headers.check_length(path, photo.format, max_pixels)
    readers = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WebP": _webp, "AVIF": _avif, "HEIC": _heic,
               "JPEG XL": jpeg_xl.read, "RAW": _raw}  # fmt: skip
    return readers[photo.format](photo, max_pixels)


def _check_size(width, height, max_pixels):
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than `max_pixels` = {max_pixels}")


def _open_with_pillow(photo, plugin, max_pixels, load=True, data=None):
    """-> (image, bytes of the file). `Image.open` would judge the size by a limit that is global to the process."""
    data = photo.path.read_bytes() if data is None else data
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
    jpeg_segments.check_scans(data, image.size)
    _jpeg_metadata(photo, data, image.size)
    if image.info.get("jfif_unit") == 0:
        _say_shape(photo, *image.info["jfif_density"])
    if photo.icc_profile is None and any(data.startswith(b"ICC_PROFILE\0") for _, data in image.applist):
        photo.note("Its ICC profile is incomplete; its colours are taken as sRGB.")
    return _jpeg_samples(image, data)


def _jpeg_metadata(photo, data, size):
    """What Pillow does not tell of a JPEG, or not all of it."""
    found, end = jpeg_segments.segments(data)
    held = {marker: [data[s:e] for m, s, e in found if m == marker] for marker in (0xE1, 0xED, 0xFE)}
    _take_resources(photo, photoshop.of_segments(held[0xED]))
    comments = []
    for comment in held[0xFE]:
        try:
            comments.append(comment.decode("utf-8"))
        except UnicodeDecodeError:
            comments.append(comment.decode("latin-1"))
            photo.note("Its comment is not UTF-8: it was read as Latin-1 and is saved as UTF-8.")
    _take_texts(photo, [("Comment", comment.rstrip("\0")) for comment in comments])
    if extended := [part.removeprefix(xmp.EXTENSION) for part in held[0xE1] if part.startswith(xmp.EXTENSION)]:
        try:
            photo.xmp_extension = xmp.extension(photo.xmp or b"", extended)
            xmp.joined(photo.xmp, photo.xmp_extension)
        except ValueError as error:
            photo.xmp_extension = None
            photo.note(f"Its extended XMP was not carried ({error}).")
    if others := jpeg_segments.not_carried(data, found):
        photo.note(f"JPEG segments that were not carried: {', '.join(others)}.")
    pictures, map_end = jpeg_segments.pictures(data, found)[1:], 0
    try:
        photo.gain_map, map_end = gain_map.of_jpeg(data, photo, size)
    except (ValueError, OSError, SyntaxError) as error:  # Pillow's for damaged files are these
        photo.note(f"Its HDR gain map was not carried ({error}).")
    if len(pictures) > (photo.gain_map is not None):
        photo.note("Further images in the file (a preview or a gain map) were not carried.")
    if end is not None:
        end = max([end, map_end, *(start + size for _, start, size in pictures if end <= start + size <= len(data))])
        if behind := jpeg_segments.behind(data, end):
            photo.note(f"{behind} was not carried.")


def _take_resources(photo, blob):
    iptc, photo.photoshop, whole = photoshop.iptc_and_others(blob)
    photo.iptc = photo.iptc or iptc
    if not whole:
        photo.note("Some of Photoshop's resources are damaged and were not carried.")


def _take_texts(photo, texts):
    for key, text in texts:
        if key in photo.text:
            photo.note(f"Its texts named {key!r} became one.")
            text = f"{photo.text[key]}\n{text}"
        photo.text[key] = text


def _say_shape(photo, across, down):
    """A density without a unit tells the shape of the pixels alone."""
    if across != down and across > 0 and down > 0:
        photo.note(f"Its pixels are said not to be square ({across:g} to {down:g}); that was not carried.")


def _jpeg_samples(image, data):
    """`_pillow_samples` of a JPEG. The same decoder fills an array without the three copies that Pillow would make."""
    if image.mode in ("RGB", "L") and jpeg_segments.segments(data)[1] is not None:
        from imagecodecs import Jpeg8Error, jpeg8_decode

        samples = np.empty((image.height, image.width) + (3,) * (image.mode == "RGB"), np.uint8)
        try:
            return np.atleast_3d(jpeg8_decode(data, out=samples)), 255, 1 if image.mode == "L" else 3
        except (Jpeg8Error, ValueError):  # Pillow reads it, or says what is wrong
            pass
    return _pillow_samples(image)


def _png(photo, max_pixels):
    from PIL.PngImagePlugin import PngImageFile

    data = photo.path.read_bytes()
    plain = png_chunks.without(data, _PNG_ASIDE)
    image, _ = _open_with_pillow(photo, PngImageFile, max_pixels, data=plain)
    _png_metadata(photo, data)
    _png_colours(photo, data)
    if data[24] == 16:  # bits per channel
        from imagecodecs import png_decode

        samples = np.atleast_3d(png_decode(plain))
        return samples, 65535, 1 if samples.shape[2] < 3 else 3
    samples, peak, colours = _pillow_samples(image)
    clear = png_chunks.first(data, b"tRNS")
    if data[25] == 0 and data[24] in (2, 4) and clear and len(clear) == 2:  # Pillow compares it with 8 bits
        step = 255 // (2 ** data[24] - 1)
        alpha = np.where(samples[..., :1] == int.from_bytes(clear, "big") * step, 0, 255).astype(np.uint8)
        samples = np.concatenate([samples[..., :1], alpha], 2)
    return samples, peak, colours


# What is read here from the chunks themselves: Pillow refuses files with profiles and texts of more than a megabyte
_PNG_ASIDE = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")


def _png_colours(photo, data):
    """The profile by the first of cICP, iCCP, sRGB, and gAMA with cHRM that is there (PNG, third edition)."""
    chunks = {name: png_chunks.first(data, name) for name in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")}
    cicp, gama, chrm = chunks[b"cICP"], chunks[b"gAMA"], chunks[b"cHRM"]
    if cicp and len(cicp) == 4:
        if not cicp[3]:
            photo.note("Its values are said to be of a narrow range; they are taken as they are.")
        high_range.take_code_points(photo, *cicp[:2])
    elif chunks[b"iCCP"]:
        photo.icc_profile = png_chunks.profile(chunks[b"iCCP"])
        if photo.icc_profile is None:
            photo.note("Its ICC profile is damaged; its colours are taken as sRGB.")
    elif not (photo.icc_profile or chunks[b"sRGB"]) and (gama or chrm):
        try:
            photo.icc_profile = icc.png_profile(gama, chrm)
        except ValueError as error:
            photo.note(f"Its gAMA and cHRM were not used ({error}); its colours are taken as sRGB.")
        if photo.icc_profile:
            photo.note("Its colours are those of its gAMA and cHRM; it is saved with a profile of them.")


def _png_metadata(photo, data):
    texts, lost = png_chunks.texts(data)
    profiles = {}
    for key, text in texts:
        if key.startswith("Raw profile type "):
            profiles.setdefault(key.removeprefix("Raw profile type "), photoshop.profile_bytes(text))
    _take_texts(photo, [(key, text) for key, text in texts
                        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type ")])  # fmt: skip
    photo.xmp = next((text.encode() for key, text in texts if key == "XML:com.adobe.xmp"), None)
    blob = b""
    for kind, profile in profiles.items():
        is_xmp = profile.startswith(b"http://ns.adobe.com/xap/1.0/\0")
        if kind == "xmp" or kind == "APP1" and is_xmp:
            photo.xmp = photo.xmp or profile.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
        elif kind in ("exif", "APP1"):
            photo.exif = photo.exif or profile
        elif kind in ("icc", "icm"):
            photo.icc_profile = photo.icc_profile or profile
        elif kind == "iptc" and not profile.startswith(b"8BIM"):
            photo.iptc = profile
        elif kind in ("iptc", "8bim"):
            blob += profile
        else:
            lost.append(f"the raw profile {kind!r}")
    if blob:
        _take_resources(photo, blob)
    physical = png_chunks.first(data, b"pHYs") or b""
    if len(physical) == 9 and not physical[8]:
        _say_shape(photo, int.from_bytes(physical[:4], "big"), int.from_bytes(physical[4:8], "big"))
    photo.time = next((data[start:end] for name, start, end in png_chunks.chunks(data) if name == b"tIME"), None)
    if lost:
        photo.note(f"Of its texts these were not carried: {', '.join(lost)}.")
    if others := png_chunks.not_carried(data):
        photo.note(f"PNG chunks that were not carried: {', '.join(others)}.")


def _webp(photo, max_pixels):
    from PIL.WebPImagePlugin import WebPImageFile

    image, data = _open_with_pillow(photo, WebPImageFile, max_pixels)
    photo.lossless = webp_chunks.coding(data) == b"VP8L"
    if others := webp_chunks.not_carried(data):
        photo.note(f"WebP chunks that were not carried: {', '.join(others)}.")
    return _pillow_samples(image)


def _avif(photo, max_pixels):
    from PIL.AvifImagePlugin import AvifImageFile

    data = photo.path.read_bytes()
    items = boxes.items(data)
    _check_size(*(boxes.size(data, items) or (0, 0)), max_pixels)  # libavif allocates as soon as it opens
    image, _ = _open_with_pillow(photo, AvifImageFile, max_pixels, data=data)
    if photo.icc_profile is None and (points := boxes.nclx(data, items)):
        high_range.take_code_points(photo, *points)
    _take_gain_map(photo, lambda: gain_map.of_items(data, items, photo, image.size, _decode_avif))
    configuration = boxes.of_main(data, items, b"av1C")
    depth = 8 if not configuration else (8, 8, 10, 12)[configuration[2] >> 5 & 3]
    _say_boxes(photo, data, items)
    if depth == 8:
        return _pillow_samples(image)
    if getattr(image, "n_frames", 1) > 1:  # imagecodecs' decoder writes beyond its memory
        photo.note(f"Of the {depth} bits per channel of its frame 8 are used.")
        return _pillow_samples(image)
    photo.note(f"It has {depth} bits per channel; AVIF is written with 8.")
    samples = np.atleast_3d(apart.decode("avif_decode", photo.path))
    return samples, 2**depth - 1, 1 if samples.shape[2] < 3 else 3


def _decode_avif(data):
    from PIL.AvifImagePlugin import AvifImageFile

    return np.asarray(AvifImageFile(io.BytesIO(data)))


def _decode_heic(data):
    import pillow_heif

    return np.asarray(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True))


def _take_gain_map(photo, read):
    try:
        photo.gain_map = read()
    except Exception as error:  # decoders raise whatever they like
        photo.note(f"Its HDR gain map was not carried ({error}).")


def _say_boxes(photo, data, items):
    others = boxes.not_carried(data, items)
    if photo.gain_map and boxes.GAIN_MAP in others:
        others.remove(boxes.GAIN_MAP)
    if others:
        photo.note(f"Beside the picture the file holds what was not carried: {', '.join(others)}.")


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
    photo.exif = file.info.get("exif")
    data = photo.path.read_bytes()
    items = boxes.items(data)
    photo.decoded_upright = boxes.orientation(data, items)  # the decoder obeys the container's own turn
    _take_gain_map(photo, lambda: gain_map.of_items(data, items, photo, file.size, _decode_heic)
                   or gain_map.of_heic(data, items, photo, file))  # fmt: skip
    _say_boxes(photo, data, items)
    nclx = file.info.get("nclx_profile")
    if photo.icc_profile is None and nclx:
        high_range.take_code_points(photo, nclx["color_primaries"], nclx["transfer_characteristics"])
    samples, peak = np.atleast_3d(np.asarray(file)), 2 ** file.info["bit_depth"] - 1
    if file.mode.startswith(("RGBa", "La")):
        photo.note("Its colours were multiplied by alpha; they no longer are.")
        samples = tiffs.divided_by_alpha(samples, peak)
    return samples, peak, 1 if samples.shape[2] < 3 else 3


def _raw(photo, max_pixels):
    photo.format = "RAW"
    try:
        import rawpy
    except ImportError as error:
        raise ValueError('RAW files need rawpy: pip install "diffretouch[raw]"') from error

    raw_files.check_whole(photo.path)
    try:
        with rawpy.imread(str(photo.path)) as raw:
            _check_size(raw.sizes.width, raw.sizes.height, max_pixels)
            raw_files.check_values(raw)
            photo.decoded_upright = {3: 3, 5: 8, 6: 6}.get(raw.sizes.flip, 1)
            samples = raw.postprocess(output_bps=16, use_camera_wb=True, no_auto_bright=True, gamma=(2.4, 12.92),
                                      output_color=rawpy.ColorSpace.sRGB)  # fmt: skip
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        cut = " (it is cut off or damaged)" * reason.startswith("Input/output error")
        raise ValueError(f"LibRaw reports {reason}{cut}") from error
    photo.note("Developed by LibRaw with the camera's white balance; other raw converters give another look.")
    try:
        with open(photo.path, "rb") as file:
            exif = raw_files.metadata_of(file)
        _take_tags(photo, exif)
        if DNG_PRIVATE in exif.image and MAKER_NOTE not in exif.photo:
            photo.note("The camera's own data (DNG's private data) were not carried.")
        exif.image = describing(exif.image)
        photo.exif = exif.tobytes()
    except ValueError:
        photo.note("Its EXIF is not in a TIFF directory and was not carried.")
    return samples, 65535, 3


def _tiff(photo, max_pixels):
    import tifffile

    with tifffile.TiffFile(photo.path) as tiff:
        pages = _full_pages(tiff)
        page = pages[0]
        if 50706 in page.tags or page.is_reduced and raw_files.sensors(tiff):  # a RAW file under another name
            return _raw(photo, max_pixels)
        if len(pages) > 1:
            photo.note(f"The first of {len(pages)}{' or more' * (len(pages) == _MOST_PAGES)} pages is used.")
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        tiffs.check(page, max_pixels)
        _tiff_metadata(photo, page)
        return tiffs.read(photo, page)


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
        exif = read_exif(file, page.offset)
    _take_tags(photo, exif)
    photo.icc_profile = exif.image.get(ICC_TAG, (0, None))[1]
    if photo.icc_profile is None and int(page.photometric) in (2, 3, 6):
        tiffs.take_chromaticities(photo, exif)
    if exif.damaged:
        photo.note(f"{exif.damaged} damaged TIFF entries were not carried.")
    if DNG & exif.image.keys():
        photo.note("What its metadata say of raw values was not carried.")
    exif.image = describing(exif.image)
    photo.exif = exif.tobytes()
    unit = {2: 1.0, 3: 2.54}.get(int(page.resolutionunit or 0))  # inch, centimetre
    if 282 in page.tags and 283 in page.tags:
        x, y = page.get_resolution()
        photo.dpi = (x * unit, y * unit) if unit and x > 0 and y > 0 else None
        if not unit:
            _say_shape(photo, x, y)


def _take_tags(photo, exif):
    """The metadata that a TIFF's directory holds beside EXIF."""
    photo.xmp, photo.iptc, blob = (exif.image.get(tag, (0, None))[1] for tag in (XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG))
    if blob:
        _take_resources(photo, blob)
    if photo.iptc and exif.image[IPTC_TAG][0] == 4:  # written as longs, whose last one is filled up with zeros
        photo.iptc = _iptc_of_longs(photo.iptc, exif.order)
    if 37724 in exif.image:
        photo.note("Photoshop's layers were not carried.")
    if 52545 in exif.image:
        photo.note("Its content credentials (C2PA) no longer hold for a changed picture and were not carried.")


def _iptc_of_longs(payload, order):
    if not payload.startswith(b"\x1c") and order == "<":
        payload = np.frombuffer(payload, "<u4").astype(">u4").tobytes()
    return payload.rstrip(b"\0")
