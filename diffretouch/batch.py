"""Whole folders: every photo once, read and written beside the model's work, whatever some of the files hold."""

import json
import os
import queue
import statistics
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffretouch.photo import decoders, encoders, read_photo, write_photo
from diffretouch.settings import read_preset, seed_of, sidecar_path

SUFFIXES = {*encoders.SUFFIXES, *decoders.RAW_SUFFIXES, ".heic", ".heif", ".hif"}
_MOST_EXPOSURE = 1.5  # EV by which photos of a series are brought together
_PIXELS_INSIDE = 100_000_000  # of photos between reading and writing: 3 or 12 bytes each, as much again for moments


@dataclass(frozen=True)
class Task:
    """One photo of a batch.

    Attributes:
        name: path of the photo relative to its folder, with "/": what seeds and reports go by.
        source, target: the file, and the file to be.
    """

    name: str
    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What a batch will do.

    Attributes:
        tasks: in the order of their names.
        notes: sentences on what is left out.
        unread: sentences on folders that cannot be read.
    """

    tasks: tuple[Task, ...]
    notes: tuple[str, ...]
    unread: tuple[str, ...]


def plan_batch(source, target, *, recursive=True, suffix="", format=None):
    """Find the photos of a folder and name their results: the same tree in another folder.

    Files count as photos by their suffix. Hidden files and the target folder are left out; links to folders are
    followed, but no folder is entered twice. RAW and HEIC files become TIFFs if no format is named.

    Args:
        source, target (paths): two folders; the target need not exist.
        recursive (`bool`): also the folders inside.
        suffix (`str`): goes behind the stem: "_retouched" makes a_retouched.jpg of a.jpg.
        format (`str`, *optional*): "jpg", "png", "tif", "webp" or "avif" for all results; by default as the photo.

    Returns:
        [`Plan`]

    Raises:
        ValueError: no folder, no photos, folders that are one, two photos with one result, results that would lie
            outside the target or on a photo.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise ValueError(f"`source` must be a folder, got {str(source)!r}.")
    if os.path.lexists(target) and not target.is_dir():
        raise ValueError(f"`target` must be a folder, got the file {str(target)!r}.")
    if os.path.realpath(source) == os.path.realpath(target):
        raise ValueError(f"`target` must be another folder than the photos' {str(source)!r}.")
    if not isinstance(suffix, str) or {"/", "\\", "\0"} & set(suffix):
        raise ValueError(f"`suffix` must be text without / and \\, got {suffix!r}.")
    ending = None if format is None else f".{format}"
    if ending is not None and ending.lower() not in encoders.SUFFIXES:
        raise ValueError(f"`format` must be {', '.join(s[1:] for s in encoders.SUFFIXES)}, got {format!r}.")

    names, notes, unread = _find(source, os.path.realpath(target), recursive)
    if not names:
        raise ValueError(f"`source`: {str(source)!r} holds no photos ({', '.join(sorted(encoders.SUFFIXES))}, ...).")
    tasks = []
    for name in names:
        path = Path(name)
        kept = path.suffix if path.suffix.lower() in encoders.SUFFIXES else ".tif"
        result = path.with_name(f"{path.stem}{suffix}{ending or kept}")
        tasks.append(Task(name, source / path, target / result))
    _check_results(tasks, target)
    return Plan(tuple(tasks), tuple(notes), tuple(unread))


def _find(source, target, recursive):
    """-> (names of the photos, sorted; notes; what could not be read). `target` is a real path."""
    names, notes, unread, entered, others = [], [], [], set(), 0

    def unreadable(error):
        unread.append(f"{error.filename!r} cannot be read: {error.strerror}.")

    for here, folders, files in os.walk(source, followlinks=True, onerror=unreadable):
        real = os.path.realpath(here)
        if real in entered:
            notes.append(f"{here!r} leads to a folder that was entered already: left out.")
            folders.clear()
            continue
        entered.add(real)
        links = {name for name in folders if os.path.islink(os.path.join(here, name))}
        inside = [name for name in folders if os.path.realpath(os.path.join(here, name)) != target]
        # Links last: of a folder and a link to it beside it, the folder is entered
        folders[:] = sorted((n for n in inside if not n.startswith(".")), key=lambda name: (name in links, name))
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in SUFFIXES:
                names.append(Path(os.path.relpath(os.path.join(here, name), source)).as_posix())
            else:
                others += 1
        if not recursive:
            folders.clear()
    if others:
        notes.append(f"{others} other files, no photos by their suffix, are left out.")
    return sorted(names), notes, unread


def _check_results(tasks, target):
    """Raises ValueError where results would meet each other, a photo, or lie outside the target."""
    by_result, folded = {}, {}
    for task in tasks:
        if task.target in by_result:
            raise ValueError(
                f"{by_result[task.target]!r} and {task.name!r} would both become {str(task.target)!r}: keep their "
                "formats, or rename one."
            )
        by_result[task.target] = task.name
        key = unicodedata.normalize("NFC", str(task.target)).casefold()
        folded.setdefault(key, []).append(task.name)
    for folder in {parent for task in tasks for parent in task.target.parents} & by_result.keys():
        raise ValueError(f"the result {str(folder)!r} has the name of a folder that other results need.")
    alike = next((names for names in folded.values() if len(names) > 1), None)
    if alike and not _tells_case(target):
        raise ValueError(f"{alike[0]!r} and {alike[1]!r} would become one file where {str(target)!r} lies.")
    root, photos = os.path.realpath(target), {os.path.realpath(task.source) for task in tasks}
    for folder in {task.target.parent for task in tasks}:
        real = os.path.realpath(folder)
        if real != root and os.path.commonpath([real, root]) != root:
            raise ValueError(f"{str(folder)!r} leads out of the target folder, to {real!r}.")
    for task in tasks:
        if os.path.realpath(task.target) in photos:
            raise ValueError(f"the result {str(task.target)!r} would lie on a photo.")


def _tells_case(target):
    """Whether "a" and "A" are two files there: asked of the first folder above that exists."""
    folder = next(path for path in (target, *target.absolute().parents) if path.is_dir())
    swapped = folder.absolute().as_posix().swapcase()
    return not (os.path.exists(swapped) and os.path.samefile(folder, swapped))


def existing_results(tasks):
    """The tasks whose results are there already."""
    return [task for task in tasks if os.path.lexists(task.target)]


def remove_unfinished(tasks):
    """Remove what killed runs on this machine left between the results -> number of files."""
    return sum(encoders.remove_abandoned(folder) for folder in {task.target.parent for task in tasks})


def retouch_batch(pipe, tasks, settings, *, overwrite=False, jobs=None, batch_size=8, quality=None, dither=False,
                  background=None, keep_profile=True, keep_metadata=True, max_pixels=300_000_000, sidecars=False,
                  series=None):  # fmt: skip
    """Retouch many photo files: read, sampled in batches and written at the same time, in bounded memory.

    A file that cannot be read, retouched or written is told and passed by. Whatever ends the generator (also
    `KeyboardInterrupt`), every result is whole or not there.

    Args:
        pipe: [`DiffRetouchPipeline`], or any pipeline with the call `(image, *, strength, output_type)`; colours
            outside sRGB's gamut are kept where it has a method `retouch` that takes float32 and uint8 arrays, as
            [`CSRNetPipeline`] has.
        tasks: see `plan_batch`.
        settings ([`Settings`]): complete, see `settings.resolved`; the seed of each photo is
            `seed_of(name, settings.seed)`.
        overwrite (`bool`): replace results that are there; without it they count as failures.
        jobs (`int`, *optional*): threads that read, and as many that write. By default one per processor.
        batch_size (`int`): the most photos in one pass of the model.
        quality, dither, background, keep_profile, keep_metadata: see `save_photo`.
        max_pixels (`int`): see `load_photo`.
        sidecars (`bool`): also write the settings into a file beside each result: both appear, or neither.
        series (`float`, *optional*): the brightness of a series, see `series_brightness`: every result is brought to
            it, and all photos get the same noise.

    Yields:
        `dict`: for each photo, as it is finished: `photo` (its name), `status` ("done" or "failed"), then `result`
        (the file), `seed`, `exposure` (of a series), `notes`, `read_seconds`, `write_seconds`; or `error`.
    """

    def finish(task, photo, retouch, own):
        started, notes = time.perf_counter(), list(photo.notes)
        result = _apply(pipe, photo.pixels, retouch, own)
        if series is not None:
            exposure = _exposure_to(series, result)
            own = replace(own, exposure=exposure)
            if abs(exposure) == _MOST_EXPOSURE:
                notes.append(f"Its exposure was moved by {exposure:+g} EV, the most that is: it is not the series'.")
        result = exposed(result, own.exposure)
        kind = encoders.SUFFIXES[task.target.suffix.lower()]
        depth = min(photo.bit_depth, max(encoders.DEPTHS[kind]))
        if depth < photo.bit_depth:
            notes.append(f"{kind} holds {depth} bits a channel, the photo has {photo.bit_depth}.")
        task.target.parent.mkdir(parents=True, exist_ok=True)
        with _sidecar(task, own, overwrite) if sidecars else nullcontext():
            lost = write_photo(
                result, task.target, like=photo, overwrite=overwrite, bit_depth=depth, dither=dither,
                quality=None if kind in ("PNG", "TIFF") else quality, background=background,
                keep_profile=keep_profile, keep_metadata=keep_metadata, description=own.to_json(),
            )  # fmt: skip
        if lost:
            notes.append(f"{kind} could not hold {', '.join(lost)}.")
        row = {"photo": task.name, "status": "done", "result": str(task.target), "seed": own.seed}
        if series is not None:
            row["exposure"] = round(exposure, 3)
        return {**row, "notes": notes, "write_seconds": round(time.perf_counter() - started, 3)}

    seeded = series is None and settings.seed is not None
    seeds = (lambda name: seed_of(name, settings.seed)) if seeded else (lambda name: settings.seed)
    # Whatever else happens to a photo would round its integers once more
    alone = not (dither or background is not None or series is not None or settings.exposure)
    yield from _stream(pipe, tasks, settings, finish, seeds, jobs, batch_size, alone, max_pixels)


@contextmanager
def _sidecar(task, own, overwrite):
    """The settings beside a result, under their name as soon as the result has its own; not if that fails.

    A sidecar that is there is replaced if it is this photo's and its result is gone.
    """
    path, photo = sidecar_path(task.target), Path(task.name).name.encode("utf-8", "replace").decode()
    overwrite = overwrite or (not os.path.lexists(task.target) and _photo_of(path) == photo)
    if not overwrite and os.path.lexists(path):
        raise ValueError(f"`overwrite` is False and {str(path)!r} exists.")
    with encoders.new_file(path, overwrite) as file:
        file.write((replace(own, photo=photo).to_json(indent=1) + "\n").encode())
        file.flush()  # a full disk is noticed before the result has its name
        yield


def _photo_of(path):
    try:
        return read_preset(path).photo
    except (OSError, ValueError):
        return None


def series_brightness(pipe, tasks, settings, *, jobs=None, batch_size=8, max_pixels=300_000_000):
    """How bright each photo of a series would become with one c and one noise for all of them.

    Yields:
        `float`: the mean luma of a small copy of the result; nothing for a file that cannot be used.
    """

    def finish(task, photo, retouch, own):
        from diffretouch.pixels import as_tensor, shrink

        small = shrink(as_tensor(photo.pixels), 256)[0].permute(1, 2, 0).contiguous().numpy()
        result = _apply(pipe, small, retouch, own)
        return {"photo": task.name, "status": "done", "brightness": _brightness(result)(1.0)}

    of_grids = hasattr(pipe, "predict_grid")  # other models retouch the whole photo: 8 bits would hold it in [0,1]
    seed = settings.seed
    rows = _stream(pipe, tasks, settings, finish, lambda name: seed, jobs, batch_size, of_grids, max_pixels)
    yield from (row["brightness"] for row in rows if row["status"] == "done")


def series_target(values):
    """The brightness that a series is brought to: the middle one of its photos'."""
    if not values:
        raise ValueError("no photo of the series can be read.")
    return statistics.median(values)


def exposed(pixels, exposure):
    """(H,W,3) sRGB float -> the same array, brighter by `exposure` EV on a display of gamma 2.2."""
    if exposure:
        np.multiply(pixels, np.float32(2 ** (exposure / 2.2)), out=pixels)
    return pixels


def _brightness(pixels):
    """-> function: factor -> mean luma of a small copy of `pixels` times that factor, as a screen shows it."""
    from diffretouch.attributes import measure_attributes
    from diffretouch.pixels import as_tensor, shrink

    small = shrink(as_tensor(pixels), 128)
    return lambda factor: measure_attributes((small * factor).clamp(0, 1))[0, 3].item()


def _exposure_to(brightness, pixels):
    """The exposure, within +-1.5 EV, that brings pixels to a brightness."""
    of, low, high = _brightness(pixels), -_MOST_EXPOSURE, _MOST_EXPOSURE
    for end in (low, high):
        if (of(2 ** (end / 2.2)) - brightness) * end <= 0:
            return end
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if of(2 ** (middle / 2.2)) < brightness else (low, middle)
    return (low + high) / 2


def _sample(pipe, photos, settings):
    """What the model makes of photos, each with its settings, for `_apply`: (grid, regions) or retouched pixels."""
    import torch

    if not hasattr(pipe, "predict_grid"):
        return [retouched_without_sliders(pipe, photo.pixels, settings[0].strength) for photo in photos]
    generators = [torch.Generator().manual_seed(own.seed) for own in settings]
    pixels, first = [photo.pixels for photo in photos], settings[0]
    c, steps = first.c, first.steps
    if not first.regions:
        grids = pipe.predict_grid(pixels, c, num_inference_steps=steps, generator=generators)
        return [(grid, None) for grid in grids]

    from diffretouch.regions import named_regions

    results = []
    for one, generator in zip(pixels, generators, strict=True):  # every photo has masks of its own
        regions = named_regions(first.regions, one, c, refine=bool(first.refine_regions))
        grid = pipe.predict_grid(one, c, regions=regions, num_inference_steps=steps, generator=generator)
        results.append((grid[0], regions))
    return results


def retouched_without_sliders(pipe, pixels, strength):
    """(H,W,3) float32 -> the same, retouched by any pipeline; not limited to [0,1] where it has a `retouch`.

    One with a `retouch` also takes integers, and returns them.
    """
    if hasattr(pipe, "retouch"):
        return pipe.retouch(pixels, strength=strength)
    return pipe(pixels, strength=strength, output_type="np").images[0]


def _apply(pipe, pixels, retouch, settings):
    """The retouched pixels, in place of those given where that can be."""
    if isinstance(retouch, np.ndarray):
        return retouch
    grid, regions = retouch
    if regions is None:
        return pipe.apply_grid(pixels, grid, settings.strength, out=pixels)
    return pipe.apply_grid(pixels, grid, settings.strength, regions=regions)


def _stream(pipe, tasks, settings, finish, seeds, jobs, batch_size, keep_8_bits, max_pixels):
    """Read, sample in batches, `finish` in threads; yields the row of every task, in the order they are finished.

    If `keep_8_bits`, photos of 8 bits are retouched as such where the pipeline does that in one step.
    """
    import torch

    in_one_step = not settings.regions if hasattr(pipe, "predict_grid") else hasattr(pipe, "retouch")
    keep_8_bits = keep_8_bits and in_one_step

    jobs = _count("jobs", jobs or processors())
    batch_size = _count("batch_size", batch_size)
    tasks, events = list(tasks), queue.SimpleQueue()
    pending, turn = iter(tasks), threading.Lock()
    room = _Room(batch_size + 2 * jobs, _PIXELS_INSIDE)

    def failed(task, error):
        reason = str(error) if isinstance(error, (ValueError, TypeError)) else _reason(error)
        return {"photo": task.name, "status": "failed", "error": " ".join(reason.split()) or type(error).__name__}

    def read():
        while not room.closed:
            with turn:
                task = next(pending, None)
            if task is None:
                return
            started = time.perf_counter()
            try:
                photo = read_photo(task.source, max_pixels, keep_8_bits=keep_8_bits)
            except Exception as error:
                events.put((failed(task, error), None))
                continue
            seconds = round(time.perf_counter() - started, 3)
            if room.enter(photo.pixels.size // 3):
                events.put((task, (photo, seconds)))

    def write(task, photo, seconds, retouch, own):
        size = photo.pixels.size // 3
        try:
            row = finish(task, photo, retouch, own)
            row["read_seconds"] = seconds
        except Exception as error:  # of this photo: the others go on
            row = failed(task, error)
        room.leave(size)
        events.put((row, None))

    readers, writers = ThreadPoolExecutor(jobs, "read"), ThreadPoolExecutor(jobs, "write")
    threads, of_model, of_files = torch.get_num_threads(), 0.0, 0.0  # seconds
    try:
        for _ in range(jobs):
            readers.submit(read)
        waiting, rows = [], 0
        while rows < len(tasks):
            # 1. What has happened meanwhile; wait only where there is nothing to sample
            while not waiting or not events.empty():
                what, photo = events.get()
                if photo is None:
                    rows += 1
                    of_files += what.get("read_seconds", 0) + what.get("write_seconds", 0)
                    yield what
                    if rows == len(tasks):
                        return
                else:
                    waiting.append((what, *photo))
            # 2. One pass of the model for as many photos as are there. Beside busy readers and writers a second thread
            # of it would mostly wait (OpenMP's wait by spinning): there are more only where they wait for the model.
            torch.set_num_threads(threads if of_model > 2 * of_files / jobs > 0 else 1)
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            own = [replace(settings, seed=seeds(task.name)) for task, *_ in batch]
            started = time.perf_counter()
            retouches = _sample_each(pipe, batch, own)
            of_model += time.perf_counter() - started
            for item, retouch, one in zip(batch, retouches, own, strict=True):
                # 3. Apply and write in threads
                if isinstance(retouch, Exception):
                    room.leave(item[1].pixels.size // 3)
                    events.put((failed(item[0], retouch), None))
                else:
                    writers.submit(write, *item, retouch, one)
            del batch, item, retouch, retouches  # the pixels live no longer than their file is written
    finally:
        torch.set_num_threads(threads)
        room.close()
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)


def _sample_each(pipe, batch, own):
    """`_sample`, with the error in place of the result for photos that the model cannot take."""
    try:
        return _sample(pipe, [photo for _, photo, _ in batch], own)
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for item, one in zip(batch, own, strict=True) for result in _sample_each(pipe, [item], [one])]


class Report:
    """A file with one JSON object a line, written as things happen; after a kill it is gone on with.

    Args:
        path: the file.
        append (`bool`): keep what is there, but for a last line that was cut off.

    Attributes:
        done: names of the photos that it tells of as done.
    """

    def __init__(self, path, *, append=False):
        self.done = set()
        self.file = open(path, "a+b" if append else "wb")
        if append:
            self.file.seek(0)
            lines = self.file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
                self.file.truncate(sum(map(len, lines)))
            for line in lines:
                try:
                    row = json.loads(line)
                    if row["status"] == "done":
                        self.done.add(row["photo"])
                except (ValueError, KeyError, TypeError) as error:
                    self.file.close()
                    raise ValueError(f"{str(path)!r} is no report of a batch.") from error

    def write(self, row):
        self.file.write((json.dumps(row) + "\n").encode())
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class _Room:
    """Holds so many photos with so many pixels; one that is larger than that comes in alone."""

    def __init__(self, photos, pixels):
        self.photos, self.pixels, self.closed = photos, pixels, False
        self.inside, self.pixels_inside = 0, 0
        self.changed = threading.Condition()

    def enter(self, pixels):
        """Wait for a place -> False if the room was closed instead."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or not self.inside or (
                self.inside < self.photos and self.pixels_inside + pixels <= self.pixels))  # fmt: skip
            self.inside, self.pixels_inside = self.inside + 1, self.pixels_inside + pixels
            return not self.closed

    def leave(self, pixels):
        with self.changed:
            self.inside, self.pixels_inside = self.inside - 1, self.pixels_inside - pixels
            self.changed.notify_all()

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def processors():
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise ValueError(f"`{name}` must be a whole number from 1 to 1024, got {value!r}.")
    return value


def _reason(error):
    """An error of the system with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
