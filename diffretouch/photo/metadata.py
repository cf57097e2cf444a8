"""What stands beside the pixels: cleaned when a photo is read, put together when one is written."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffretouch import __version__

from . import icc, photoshop, xmp
from .exif import HEIGHT, IMAGE_HEIGHT, IMAGE_WIDTH, SOFTWARE, WIDTH, Exif, parse_exif
from .xmp_upkeep import upkept

if TYPE_CHECKING:
    from . import Photo


def clean(photo: "Photo", size: tuple[int, int]) -> int:
    """Leaves out what is damaged or will no longer be true, and turns what counts from the stored picture.

    Args:
        photo (`diffretouch.photo.Photo`): as its reader filled it in.
        size: width and height of its samples, as the reader returned them.

    Returns:
        how the samples must be turned, 1 to 8.
    """
    orientation = 1
    if photo.exif:
        orientation = _clean_exif(photo)
    if orientation == 0:
        orientation = 1
        photo.note("Its orientation is not one of 1 to 8: it was not turned.")
    decoded = photo.decoded_upright is not None
    stored = photo.decoded_upright or orientation
    if decoded and stored >= 5:
        size = size[::-1]
    if stored >= 5 and photo.dpi:
        photo.dpi = photo.dpi[::-1]
    lost = []
    if photo.exif and stored > 1:
        exif = parse_exif(photo.exif)
        lost += [] if exif.turn(stored, size) else ["the subject's place in the EXIF"]
        photo.exif = exif.tobytes()
    if photo.xmp:
        try:
            for name in ("xmp", "xmp_extension") if photo.xmp_extension else ("xmp",):
                packet, gone = upkept(getattr(photo, name), stored, size, decoded, photo.gain_map is not None)
                setattr(photo, name, packet)
                lost += gone
            if photo.xmp_extension:
                photo.xmp = xmp.renamed(photo.xmp, photo.xmp_extension)
        except ValueError as error:
            photo.xmp = photo.xmp_extension = None
            photo.note(f"Its XMP is damaged and was not carried ({error}).")
    if photo.photoshop and stored > 1:
        kept = photoshop.without_places(photo.photoshop)
        lost += ["Photoshop's paths and guides"] if kept != photo.photoshop else []
        photo.photoshop = kept
    if lost:
        photo.note(f"What its metadata say of {', '.join(dict.fromkeys(lost))} no longer holds and was left out.")
    if photo.iptc and not photo.iptc.startswith(b"\x1c"):
        photo.iptc = None
        photo.note("Its IPTC is damaged and was not carried.")
    return 1 if decoded else stored


def _clean_exif(photo):
    try:
        exif = parse_exif(photo.exif)
    except ValueError:
        photo.exif = None
        photo.note("Its EXIF is damaged and was not carried.")
        return 1
    orientation = exif.orientation
    exif.reset_orientation()
    if exif.loses_note:
        photo.note("Its maker note cannot keep its place in the file; some of the camera's own data may be lost.")
    photo.exif = exif.tobytes() if exif.image or exif.photo or exif.gps else None
    if exif.damaged:
        photo.note(f"{exif.damaged} damaged EXIF entries were not carried.")
    if exif.is_adobe_rgb and not photo.icc_profile:
        photo.icc_profile = icc.adobe_rgb_profile()
        photo.note("It has no profile, but its EXIF says Adobe RGB: read and saved as that.")
    return orientation


_NOT_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def carried(source: "Photo | None", shape: Sequence[int], profile: bytes | None, description: str | None) -> dict:
    """What a writer puts beside the pixels; nothing of the source if that is None.

    Raises:
        ValueError: `description` is no text that XML can hold.
    """
    found: dict[str, Any] = {"exif": None, "icc_profile": profile, "xmp": None, "xmp_extension": None, "iptc": None,
             "photoshop": None, "text": {}, "time": None, "dpi": None}  # fmt: skip
    if source:
        found |= {name: getattr(source, name) for name in found.keys() - {"exif", "icc_profile"}}
        exif = parse_exif(source.exif) if source.exif else Exif()
        exif.put(exif.image, SOFTWARE, f"diffretouch {__version__}")
        for directory, *tags in ((exif.photo, HEIGHT, WIDTH), (exif.image, IMAGE_HEIGHT, IMAGE_WIDTH)):
            for tag, side in zip(tags, shape[:2], strict=True):
                if tag in directory:
                    exif.put(directory, tag, side)
        if source.icc_profile not in (None, profile):
            exif.say_srgb()
        found["exif"] = exif
    if description is not None:
        if not isinstance(description, str) or _NOT_XML.search(description):
            raise ValueError(f"`description` must be text that XML can hold, got {description!r}.")
        if found["xmp_extension"] and xmp.description(found["xmp_extension"]) is not None:
            found["xmp_extension"] = xmp.describe(found["xmp_extension"], None)
            found["xmp"] = xmp.renamed(found["xmp"], found["xmp_extension"])
        found["xmp"] = xmp.describe(found["xmp"], description)
    return found
