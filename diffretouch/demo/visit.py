"""One visitor's photo: opened once, shown small, retouched as the hand moves, kept apart from all others."""

import base64
import io
import math
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from diffretouch.attributes import as_attributes, measure_attributes
from diffretouch.photo import PhotoError, load_photo, save_photo
from diffretouch.photo.encoders import DEPTHS, SUFFIXES
from diffretouch.pixels import as_tensor
from diffretouch.regions import as_mask, as_regions, refine_mask
from diffretouch.settings.region_texts import parse_region, region_mask
from diffretouch.sliders import screen_copy

from .models import Area, noise, regions_of

MAX_PIXELS = 64_000_000
SHOWN_PIXELS = 1_000_000
MOST_AREAS = 4
_MASK_BYTES = 8 << 20  # of a painted mask, as it is sent


class Visit:
    """A photo, its small copy on the screen, its areas, and the sliders that answer for it.

    The photo's pixels lie in a temporary file without a name, so that a visit takes little memory.

    Args:
        path: the photo's file.
        name (`str`): what the visitor calls it.
        folder: where a folder for results is made. A photo that lies in it was sent here: it is deleted when
            the visit is closed.

    Raises:
        PhotoError: it cannot be read, or has too many pixels; the message says `name`, not `path`.
    """

    def __init__(self, path, name, folder):
        self.name = Path(name).name
        try:
            self.photo = load_photo(path, max_pixels=MAX_PIXELS)
        except PhotoError as error:
            raise PhotoError(str(error).replace(repr(str(path)), self.name)) from error
        self.photo.pixels = _on_disk(self.photo.pixels)
        height, width = self.photo.pixels.shape[:2]
        self.shown = screen_copy(self.photo.pixels, _long_side(height, width))
        self.c, self.areas = (0.0, 0.0, 0.0, 0.0), []  # of the whole photo, and its parts
        self._folder = Path(folder)
        self._sent = Path(path) if Path(path).is_relative_to(self._folder) else None
        self._results = None
        self._sliders = None, None
        self._making = threading.Lock()
        self._closed = False

    @property
    def size(self):
        """Width and height of the photo."""
        return self.photo.pixels.shape[1], self.photo.pixels.shape[0]

    def close(self):
        """Ends what works in the background and deletes the visit's files."""
        with self._making:
            self._closed = True
            if self._sliders[1] is not None:
                self._sliders[1].close()
            if self._results is not None:
                shutil.rmtree(self._results, ignore_errors=True)
                self._results = None
            if self._sent is not None:
                self._sent.unlink(missing_ok=True)

    def result_path(self, name):
        """A path of that name in a folder that nobody can guess."""
        with self._making:
            if self._closed:
                raise ValueError("This photo was closed meanwhile.")
            if self._results is None:
                self._results = self._folder / secrets.token_hex(16)
                self._results.mkdir(mode=0o700)
            return self._results / name

    def moved(self, models, look):
        """The photo as it is shown, at once: by interpolation, or outright where the model is fast.

        Returns:
            `numpy.ndarray`: (h,w,3) uint8.
        """
        pipe = models[look.model]
        if not models.is_steered(look.model):
            return models.retouch(look, self.shown)
        sliders = self._sliders_of(pipe, look)
        regions = regions_of(self.areas)
        below, visible = as_regions(regions or [])
        rows = torch.cat([as_attributes(look.c) if below is None else below, *(c for _, c in visible)])
        return pipe.apply_grid(self.shown, sliders.grid(rows), look.strength, regions=visible or None)

    def _sliders_of(self, pipe, look):
        with self._making:
            made_for, sliders = self._sliders
            if made_for == (look.model, look.seed):
                return sliders
            if self._closed:
                raise ValueError("This photo was closed meanwhile.")
            if sliders is not None:
                sliders.close()
            # Of the copy: a slider's answer is an interpolation anyway, and this is ready ten times sooner
            sliders = pipe.sliders(self.shown, size=None, generator=noise(look.seed), background=True)
            self._sliders = (look.model, look.seed), sliders
            return sliders

    def sampled(self, models, look):
        """The photo as it is shown, truly sampled: the grid is that of the whole photo. (h,w,3) uint8."""
        if not models.is_steered(look.model):
            return models.retouch(look, self.shown)
        grids = models.grids(look, self.photo.pixels, self.areas)
        return models[look.model].apply_grid(self.shown, grids, look.strength, regions=regions_of(self.areas))

    def samples(self, models, look, seeds, size=480):
        """Small copies with other noise, one for each seed: a list of (h,w,3) uint8."""
        if not models.is_steered(look.model):
            raise ValueError(f"{look.model} always makes the same retouch: variations need DiffRetouch.")
        small = screen_copy(self.shown, size)
        regions = regions_of(self.areas)
        grids = models.grids(look, self.photo.pixels, self.areas, seeds)
        pipe = models[look.model]
        return [pipe.apply_grid(small, grid, look.strength, regions=regions) for grid in grids]

    def save(self, models, look, suffix=None):
        """Retouch the whole photo and write it, with all that its file carried.

        Args:
            suffix (`str`, *optional*): ".jpg", ".png", ".tif", ...; by default the photo's own kind of file, or TIFF
                where that cannot be written.

        Returns:
            The path, and sentences on what the file could not hold.
        """
        return save_retouch(models, look, self.photo, self.name, self.result_path, suffix, self.areas)

    def add_area(self, look, words=None, mask=None, name=None):
        """A new area with the sliders of the whole photo, made from the photo's tones or hues, or from a mask.

        Args:
            words (`str`, *optional*): such as "luminosity=0.6-1" or "colour=200-260", see `parse_region`.
            mask (*optional*): see `as_mask`; without both, nothing is inside yet.
        """
        if len(self.areas) >= MOST_AREAS:
            raise ValueError(f"There can be {MOST_AREAS} areas: remove one first.")
        if words is not None:
            source, _ = parse_region(f"{words}:brightness=0")
            if isinstance(source, str):
                raise ValueError(f"{words!r} is neither a range of tones nor of colours.")
            mask = region_mask(source, self.shown)
        height, width = self.shown.shape[:2]
        mask = np.zeros((height, width), np.float32) if mask is None else as_mask(mask, (height, width))
        taken = {area.name for area in self.areas}
        name = name or "Area"
        names = [name] if name != "Area" else []
        names += [f"{name} {number}" for number in range(1 if name == "Area" else 2, MOST_AREAS + 2)]
        area = Area(next(own for own in names if own not in taken), mask, tuple(look.c), words)
        self.areas.append(area)
        return area

    def area(self, name):
        """Its place among the areas.

        Raises:
            ValueError: there is none of that name.
        """
        for number, area in enumerate(self.areas):
            if area.name == name:
                return number
        raise ValueError(f"There is no area {name!r} any more.")

    def paint(self, name, data, follow_edges=False):
        """Give an area the mask that was painted: a PNG data URL, white inside."""
        mask = as_mask(decode_mask(data), self.shown.shape[:2])
        if follow_edges and mask.any():
            mask = as_mask(refine_mask(mask, self.shown, size=512), self.shown.shape[:2])
        number = self.area(name)
        self.areas[number] = self.areas[number]._replace(mask=mask, words=None)


class Visits:
    """The visits that are open, at most so many: the one that was quiet longest makes room, and quiet ones end.

    Args:
        most (`int`): how many.
        idle (`float`): seconds after which a quiet visit ends.
        clock: returns seconds.
    """

    def __init__(self, most=12, idle=1800.0, clock=time.monotonic):
        self._most, self._idle, self._clock = most, idle, clock
        self._open = OrderedDict()  # session -> (visit, time of the last use), the quietest first
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._open)

    def __contains__(self, session):
        return session in self._open

    def __getitem__(self, session):
        with self._lock:
            if session not in self._open:
                raise ValueError("No photo is open here. One that was left alone for long is closed: open it again.")
            visit, _ = self._open.pop(session)
            self._open[session] = visit, self._clock()
            return visit

    def open(self, session, visit):
        """Put a visit in the place of that session's earlier one."""
        with self._lock:
            leaving = [self._open.pop(session)] if session in self._open else []
            self._open[session] = visit, self._clock()
            while len(self._open) > self._most:
                leaving.append(self._open.popitem(last=False)[1])
        for old, _ in leaving:
            old.close()

    def close(self, session):
        with self._lock:
            visit, _ = self._open.pop(session, (None, None))
        if visit is not None:
            visit.close()

    def close_idle(self):
        """End the visits that were quiet for too long."""
        now = self._clock()
        with self._lock:
            quiet = [session for session, (_, used) in self._open.items() if now - used > self._idle]
        for session in quiet:
            self.close(session)

    def close_all(self):
        for session in list(self._open):
            self.close(session)


def save_retouch(models, look, photo, name, path_of, suffix=None, areas=()):
    """Retouch a `Photo` and write it under a name made from `name`; see `Visit.save`."""
    import warnings

    kinds = {kind: own for own, kind in reversed(SUFFIXES.items())}
    if suffix is None:
        own = Path(name).suffix.lower()
        suffix = own if SUFFIXES.get(own) == photo.format else kinds.get(photo.format, ".tif")
    depths = DEPTHS[SUFFIXES[suffix]]
    result = models.retouch(look, photo.pixels, areas)
    path = path_of(f"{safe_stem(name)}_retouched{suffix}")
    transparent = photo.alpha is not None and SUFFIXES[suffix] == "JPEG"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        save_photo(
            result,
            path,
            like=photo,
            overwrite=True,
            bit_depth=photo.bit_depth if photo.bit_depth in depths else max(depths),
            background=(1.0, 1.0, 1.0) if transparent else None,
            description=models.settings(look, areas).to_json(),
        )
    notes = [str(one.message).replace(f"{str(path)!r}: ", "") for one in told if one.category is UserWarning]
    if transparent:
        notes.append("JPEG has no transparency: it was laid on white.")
    if photo.bit_depth not in depths:
        notes.append(f"{SUFFIXES[suffix]} holds {max(depths)} bits a channel, the photo has {photo.bit_depth}.")
    return path, notes


def check_seed(seed):
    """Returns a seed as an `int`; raises unless it is a whole number that JSON carries exactly."""
    if isinstance(seed, bool) or not isinstance(seed, (int, float)) or not 0 <= seed < 2**53 or seed != int(seed):
        raise ValueError(f"The variation (`seed`) must be a whole number from 0, got {seed!r}.")
    return int(seed)


def safe_stem(name):
    """ "../My photo.jpg" -> "My_photo": a name that any system takes."""
    return re.sub(r"[^\w.-]+", "_", Path(str(name)).stem).strip("._")[:80] or "photo"


def decode_mask(data):
    """A PNG data URL of a grey picture -> PIL image.

    Raises:
        ValueError: not that, or larger than what is shown could be.
    """
    start = "data:image/png;base64,"
    if not isinstance(data, str) or not data.startswith(start) or len(data) > _MASK_BYTES:
        raise ValueError("The painted area did not arrive as a picture: paint it again.")
    try:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(data[len(start) :], validate=True)), formats=["PNG"])
        if picture.width * picture.height > 4 * SHOWN_PIXELS:
            raise ValueError("it has too many pixels")
        return picture.convert("L")
    except Exception as error:  # broken files raise many types
        raise ValueError(f"The painted area cannot be read ({error}): paint it again.") from error


def data_url(pixels, lossless=True):
    """(h,w,3) or (h,w) uint8 -> a PNG, or a JPEG of high quality that is made ten times faster, for `src`."""
    file = io.BytesIO()
    picture = PIL.Image.fromarray(pixels)
    if lossless:
        picture.save(file, "PNG", compress_level=1)
    else:
        picture.save(file, "JPEG", quality=92, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def measured(pixels):
    """The four attributes of what is shown, (h,w,3) uint8."""
    return measure_attributes(as_tensor(pixels))[0].tolist()


def _long_side(height, width):
    return max(math.floor(max(height, width) * min(math.sqrt(SHOWN_PIXELS / (height * width)), 1)), 1)


def _on_disk(pixels):
    with tempfile.TemporaryFile() as file:
        moved = np.memmap(file, pixels.dtype, "w+", shape=pixels.shape)
    moved[...] = pixels
    return moved
