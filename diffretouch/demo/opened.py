"""The photos that visitors have open: each read once, kept apart from all others, and gone when its visitor is."""

import contextlib
import os
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from diffretouch.photo import Photo, PhotoError, read_photo

if TYPE_CHECKING:
    import torch

    from diffretouch.demo.models import Models

MAX_PIXELS = 64_000_000


class OpenPhoto:
    """A photo whose pixels lie in a temporary file without a name, so that it takes little memory.

    Args:
        path: the photo's file, not needed afterwards.
        name (`str`): what the visitor calls it.
        folder: where temporary files go.

    Raises:
        PhotoError: it cannot be read, or has too many pixels; the message says `name`, not `path`.
    """

    def __init__(self, path: Path, name: str, folder: Path) -> None:
        self.name = Path(name).name or "photo"
        self.photo = read_named(path, self.name)
        self.photo.pixels = on_disk(self.photo.pixels, folder)
        self._seen = {}  # model's label -> what it sees of the photo

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.photo.pixels.shape[1], self.photo.pixels.shape[0]

    def seen_by(self, models: "Models", label: str) -> "torch.Tensor":
        """See `Models.seen`; found once."""
        if label not in self._seen:
            self._seen[label] = models.seen(label, self.photo.pixels)
        return self._seen[label]

    def rows(self, retouched: np.ndarray | None = None, alpha: np.ndarray | None = None) -> Iterator[bytes]:
        """The pixels, or a retouch of them, as 8 bits, in strips of bytes; alpha (H,W) in [0,1] as a fourth."""
        pixels = self.photo.pixels if retouched is None else retouched
        for start in range(0, len(pixels), 256):
            strip = pixels[start : start + 256]
            if strip.dtype == np.uint16:
                strip = strip / 65535
            if strip.dtype != np.uint8:
                strip = np.rint(np.clip(strip, 0, 1) * 255).astype(np.uint8)
            if alpha is not None:
                own = np.rint(alpha[start : start + 256, :, None] * 255).astype(np.uint8)
                strip = np.concatenate([strip, own], 2)
            yield strip.tobytes()


class Gone(LookupError):
    """A photo is not open, or no longer."""


class OpenPhotos:
    """What all visitors have open, at most so many photos: the one that was quiet longest makes room.

    A photo belongs to the visitor who sent it: nobody else can name, see or close it.

    Args:
        most (`int`): how many.
        idle (`float`): seconds after which a quiet photo is closed.
        clock: returns seconds.
    """

    def __init__(self, most: int = 16, idle: float = 1800.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._idle, self._clock = most, idle, clock
        self._open = OrderedDict()  # (visitor, number) -> (photo, time of the last use), the quietest first
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._open)

    def add(self, visitor: str, photo: OpenPhoto) -> str:
        """Returns the number by which that visitor asks for the photo."""
        number = secrets.token_urlsafe(12)
        with self._lock:
            self._open[visitor, number] = photo, self._clock()
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return number

    def get(self, visitor: str, number: Any) -> OpenPhoto:
        """
        Raises:
            Gone: that visitor has no such photo open.
        """
        with self._lock:
            if (visitor, number) not in self._open:
                raise Gone("This photo is not open here any more: it is opened again.")
            photo, _ = self._open.pop((visitor, number))
            self._open[visitor, number] = photo, self._clock()
            return photo

    def close(self, visitor: str, number: Any = None) -> None:
        """Close a photo of a visitor, or all."""
        with self._lock:
            for own in [key for key in self._open if key[0] == visitor and number in (None, key[1])]:
                del self._open[own]

    def close_idle(self) -> None:
        now = self._clock()
        with self._lock:
            for own in [key for key, (_, used) in self._open.items() if now - used > self._idle]:
                del self._open[own]


def read_named(path: Path, name: str) -> Photo:
    """Read a photo that a visitor sent; 8 bits stay 8 bits.

    Raises:
        PhotoError: as `load_photo`, with the visitor's name for it, and megapixels where it has too many.
    """
    try:
        return read_photo(path, MAX_PIXELS, keep_8_bits=True)
    except PhotoError as error:
        text = str(error).replace(repr(str(path)), name)
        most = f"{MAX_PIXELS // 1_000_000} megapixels, the most that this page takes"
        raise PhotoError(text.replace(f"`max_pixels` = {MAX_PIXELS}", most)) from error


def on_disk(pixels: np.ndarray, folder: Path) -> np.ndarray:
    """The pixels in a mapped file without a name; as they are where the disk has no room for them.

    Room is taken before it is mapped: writing into a hole of a mapped file on a full disk ends the process (SIGBUS).
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            take_room(file, pixels.nbytes)
            moved = np.memmap(file, pixels.dtype, "r+", shape=pixels.shape)
    except OSError:
        return pixels
    moved[...] = pixels
    return moved


def take_room(file: BinaryIO, size: int) -> None:
    """Make a file `size` bytes long, all of them allocated.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)
    for start in range(0, size, len(zeros)):
        file.write(zeros[: size - start])
    file.flush()


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """A folder that nobody can guess, for what one answer needs; gone with all in it afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        yield Path(own)
