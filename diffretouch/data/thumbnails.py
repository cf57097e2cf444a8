"""Photos of a data set, decoded once and kept small."""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from diffretouch.photo import PhotoError, encoders, load_photo
from diffretouch.photo.icc import is_srgb

if TYPE_CHECKING:
    import PIL.Image

SUFFIXES = set(encoders.SUFFIXES)


def photo_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """Photos under a folder by their suffix, searched recursively, sorted."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


class Thumbnails:
    """Opens photos as 8-bit sRGB copies with a long side of at most `side` px, upright, and keeps them.

    Copies stay in memory until `memory` bytes are full; the first stay, as an endless shuffle re-uses all alike. With
    a `folder` they are also kept there as PNG, for sets of large files that every process would decode anew.

    Args:
        side (`int`): the most pixels along the long side.
        memory (`int`): bytes of pixels kept, in each data worker.
        folder (*optional*): where copies are kept across processes and runs.
    """

    def __init__(self, side: int, *, memory: int = 2**29, folder: str | os.PathLike[str] | None = None) -> None:
        self.side, self.memory = side, memory
        self.folder = Path(folder) if folder else None
        self._kept = {}

    def __call__(self, path: Path) -> "tuple[PIL.Image.Image, tuple[int, int]]":
        """-> (PIL image: RGB, size of the file's photo).

        Raises:
            ValueError: the file cannot be read as a photo.
        """
        if path in self._kept:
            return self._kept[path]
        try:
            found = self._from_folder(path) if self.folder else self._decode(path)
        except PhotoError:
            raise
        except Exception as error:  # decoders raise whatever they like on broken files
            raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
        used = found[0].width * found[0].height * 3
        if used <= self.memory:
            self.memory -= used
            self._kept[path] = found
        return found

    def _decode(self, path):
        try:
            photo, size = _from_small_jpeg(path, self.side)
        except Exception:  # what is no plain JPEG, or a broken one
            pixels = load_photo(path).pixels
            size = pixels.shape[1], pixels.shape[0]
            photo = Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        photo.thumbnail((self.side, self.side), Image.Resampling.BOX)
        return photo, size

    def _from_folder(self, path):
        state = os.stat(path)
        key = f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns} {self.side}"
        kept = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.png"
        if kept.exists():
            with Image.open(kept) as photo:
                size = tuple(int(n) for n in photo.text["size"].split("x"))
                return photo.convert("RGB"), size
        photo, size = self._decode(path)
        text = PngImagePlugin.PngInfo()
        text.add_text("size", f"{size[0]}x{size[1]}")
        aside = kept.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            photo.save(aside, "PNG", pnginfo=text, compress_level=1)
            os.replace(aside, kept)
        except OSError as error:  # a full disk costs time, not the training
            aside.unlink(missing_ok=True)
            warnings.warn(f"{self.folder}: the copy of {path} cannot be kept: {error}", stacklevel=2)
        return photo, size


def _from_small_jpeg(path, side):
    """An sRGB JPEG, which its decoder shrinks while it decodes -> (PIL image, full size). It raises for all else."""
    with Image.open(path, formats=["JPEG"]) as photo:
        profile, exif = photo.info.get("icc_profile"), photo.getexif()
        if photo.mode not in ("RGB", "L") or profile and not is_srgb(profile):
            raise ValueError("not sRGB")
        details = exif.get_ifd(0x8769)
        index = exif.get_ifd(0xA005).get(1, "R98") if 0xA005 in details else "R98"  # Pillow raises where there is none
        if not profile and (details.get(0xA001, 1) != 1 or str(index)[:3] != "R98"):
            raise ValueError("its EXIF tells of other colours")
        size = photo.size
        # The decoder keeps at least what is asked for along both sides: asked for a square, it keeps too much
        share = min(side / max(size), 1)
        photo.draft("RGB", tuple(math.ceil(n * share) for n in size))
        photo = ImageOps.exif_transpose(photo.convert("RGB"))
        turned = (photo.width < photo.height) != (size[0] < size[1])
        return photo, size[::-1] if turned else size


def crop_side(size: int) -> int:
    """The long side of copies that crops of `size` px are cut from: 60 % of it, of a photo of 3:2, is still that."""
    return math.ceil(size * 3 / 2 / 0.6)


def describe_file(thumbnails: Thumbnails, path: Path) -> str:
    """Name and size of a photo, for the `describe` of data sets."""
    try:
        return f"{path.name}, {'x'.join(map(str, thumbnails(path)[1]))} px"
    except ValueError:
        return f"{path.name}, cannot be read"


def first_readable(
    candidates: Iterable[Any], read: Callable[[Any], Any], on_bad_file: str = "stop"
) -> tuple[Any, Any, list[str]]:
    """Read the first of `candidates` that can be read.

    Args:
        candidates: what to try, in this order; as many as may be passed by.
        read: candidate -> anything; raises ValueError for files that cannot be used, which it names.
        on_bad_file (`str`): "stop" raises at the first bad file, "skip" names it in a warning and tries the next.

    Returns:
        (candidate, what was read, reasons of those passed by)

    Raises:
        ValueError: a bad file with "stop", or nothing that can be read.
    """
    if on_bad_file not in ("stop", "skip"):
        raise ValueError(f'`on_bad_file` must be "stop" or "skip", got {on_bad_file!r}.')
    passed = []
    for candidate in candidates:
        try:
            return candidate, read(candidate), passed
        except ValueError as error:
            if on_bad_file == "stop":
                raise ValueError(f"bad file: {error}") from error
            passed.append(" ".join(str(error).split()))
            warnings.warn(f"passed by: {passed[-1]}", stacklevel=2)
    raise ValueError(f"no photo of the data set can be read, the last: {passed[-1] if passed else 'none'}")
