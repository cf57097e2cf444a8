"""What a request says about a look and its areas, checked."""

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from diffretouch.attributes import ATTRIBUTES
from diffretouch.pixels import check_strength
from diffretouch.regions import as_mask, colour_mask, luminosity_mask

from .models import Area, Look

_MASK_BYTES = 8 << 20  # of a painted mask, as it is sent
_MASK_PIXELS = 4_000_000


def look_of(asked: Mapping[str, Any]) -> Look:
    """JSON or a query -> [`Look`]: `c` as four numbers, or the attributes by name; what is left out is the default."""
    c = asked.get("c")
    c = [asked.get(name) or 0 for name in ATTRIBUTES] if c is None else c
    strength = asked.get("strength", 1)
    strength = as_numbers("strength", [1 if strength in (None, "") else strength], 1)[0]
    check_strength(strength)
    c = tuple(as_numbers("c", c, 4))
    for name, value in zip(ATTRIBUTES, c, strict=True):
        if abs(value) > 3:
            raise ValueError(f"`{name}` must lie in [-3, 3], got {value:g}.")
    return Look(str(asked.get("model")), c, strength, as_seed(asked.get("seed") or 0))


def as_numbers(name: str, values: Any, count: int) -> list[float]:
    """Returns `count` finite floats; numbers may come as text."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        what = "a number" if count == 1 else f"{count} numbers"
        raise ValueError(f"`{name}` must be {what}, got {values if count > 1 else values[0]!r}.")
    return numbers


def as_seed(seed: Any) -> int:
    """Returns a seed as an `int`; raises unless it is a whole number that JSON carries exactly."""
    try:
        number = float(seed) if not isinstance(seed, bool) else -1
    except (TypeError, ValueError):
        number = -1
    if not (0 <= number < 2**53 and number == int(number)):
        raise ValueError(f"The variation (`seed`) must be a whole number from 0, got {seed!r}.")
    return int(number)


def area_of(asked: Mapping[str, Any], pixels: np.ndarray) -> Area:
    """JSON -> [`Area`]: `kind` "tone" or "colour" with `low`, `high`, `softness`, or "paint" with a `mask` as a PNG
    data URL; `c`, `invert`, `name`."""
    if not isinstance(asked, dict):
        raise ValueError("An area must be a JSON object.")
    kind, c = asked.get("kind"), tuple(as_numbers("c", asked.get("c") or (), 4))
    words = None
    if kind in ("tone", "colour"):
        low, high, softness = as_numbers("low, high, softness", [asked.get(n) for n in ("low", "high", "softness")], 3)
        make = luminosity_mask if kind == "tone" else colour_mask
        mask = make(pixels, low, high, softness=softness)
        if not asked.get("invert") and softness == (0.15 if kind == "tone" else 20):  # what the words stand for
            words = f"{'luminosity' if kind == 'tone' else 'colour'}={low:g}-{high:g}"
    elif kind == "paint":
        mask = as_mask(decode_mask(asked.get("mask")))
    else:
        raise ValueError(f'`kind` must be "paint", "tone" or "colour", got {kind!r}.')
    if asked.get("invert"):
        mask = 1 - mask
    return Area(str(asked.get("name", "Area")), mask, c, words)


def decode_mask(data: Any) -> PIL.Image.Image:
    """A PNG data URL of a grey picture -> PIL image.

    Raises:
        ValueError: not that, or larger than what is shown could be.
    """
    start = "data:image/png;base64,"
    if not isinstance(data, str) or not data.startswith(start) or len(data) > _MASK_BYTES:
        raise ValueError("The painted area did not arrive as a picture: paint it again.")
    try:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(data[len(start) :], validate=True)), formats=["PNG"])
        if picture.width * picture.height > _MASK_PIXELS:
            raise ValueError("it has too many pixels")
        return PIL.Image.fromarray(np.asarray(picture.convert("L")))
    except Exception as error:  # broken files raise many types
        raise ValueError(f"The painted area cannot be read ({error}): paint it again.") from error
