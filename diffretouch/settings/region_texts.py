"""Regions as texts, in settings and on the command line: "sky.png:brightness=0.4", "luminosity=0.6-1:contrast=-1"."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import PIL.Image

from diffretouch.attributes import ATTRIBUTES, attribute_rows
from diffretouch.regions import as_mask, colour_mask, luminosity_mask, refine_mask

if TYPE_CHECKING:
    import numpy as np

    from diffretouch.pixels import OnePhoto

_RANGE = re.compile(r"(luminosity|colou?r)=([\d.]+)-([\d.]+)")


def parse_region(text: str) -> tuple[str | tuple[str, float, float], dict[str, float]]:
    """ "sky.png:brightness=0.4,temperature=-0.2" -> ("sky.png", {"brightness": 0.4, "temperature": -0.2}).

    Instead of a file: `luminosity=0.6-1` (tones) or `colour=200-260` (hues), which come as tuples
    ("luminosity", 0.6, 1.0) and ("colour", 200.0, 260.0). See `region_mask`.
    """
    source, colon, settings = text.rpartition(":")
    form = "MASK:NAME=VALUE,... with MASK a file, luminosity=LOW-HIGH or colour=LOW-HIGH"
    if not colon or not source or not settings:
        raise ValueError(f"`region` must be {form}, got {text!r}.")
    c = {}
    for setting in settings.split(","):
        name, equals, value = (part.strip() for part in setting.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = None
        if name not in ATTRIBUTES or name in c or not equals or number is None:
            raise ValueError(f"`region` settings must be {', '.join(ATTRIBUTES)} with a number, got {setting!r}.")
        c[name] = number
    attribute_rows(c)  # raises outside [-3, 3]
    match = _RANGE.fullmatch(source)
    if match is None and re.match("(luminosity|colou?r)=", source):
        raise ValueError(f"`region` must be {form}, got {text!r}.")
    if match is None:
        return source, c
    kind, low, high = match.groups()
    try:
        return ("luminosity" if kind == "luminosity" else "colour", float(low), float(high)), c
    except ValueError as error:
        raise ValueError(f"`region` must be {form}, got {text!r}.") from error


def region_mask(source: str | tuple[str, float, float], image: "OnePhoto") -> "np.ndarray":
    """The mask that `parse_region` names: read from a file, or made from the photo's tones or hues.

    Raises:
        ValueError: the file cannot be read, or is no mask, see `as_mask`.
    """
    if isinstance(source, tuple):
        kind, low, high = source
        return (luminosity_mask if kind == "luminosity" else colour_mask)(image, low, high)
    from PIL import ImageOps

    try:
        with PIL.Image.open(source) as picture:
            picture = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"`region`: the mask {source} cannot be read: {error}") from error
    return as_mask(picture, name=str(source))


def named_regions(
    texts: Iterable[str], image: "np.ndarray", c: Mapping[str, float] | None = None, *, refine: bool = False
) -> "list[tuple[np.ndarray, dict[str, float]]]":
    """Regions in the words of the command line -> pairs (mask, c) for a pipeline's `regions`.

    Args:
        texts (list of `str`): see `parse_region`.
        image: (H,W,3) pixels of the photo, for masks that are made of it.
        c (`dict`, *optional*): that of the whole photo; a region keeps what it does not name.
        refine (`bool`): see `refine_mask`.
    """
    regions = []
    for text in texts:
        source, own = parse_region(text)
        mask = region_mask(source, image)
        regions.append((refine_mask(mask, image) if refine else mask, {**(c or {}), **own}))
    return regions
