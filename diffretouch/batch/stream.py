"""Photos read, sampled in batches and written at the same time, in bounded memory."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.models.kernels import processors
from diffretouch.photo import read_photo
from diffretouch.photo.headers import pixels_decoded

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from diffretouch.batch.plan import Task
    from diffretouch.settings import Settings

_PIXELS_INSIDE = 100_000_000  # of photos between reading and writing: 3 or 12 bytes each, as much again for moments


def _sample(pipe, photos, settings):
    """What the model makes of photos, each with its settings, for `apply`: (grid, regions) or retouched pixels."""
    if not pipe.has_sliders:
        return [pipe.retouch(photo.pixels, strength=settings[0].strength) for photo in photos]
    generators = [pipe.seeded(own.seed) for own in settings]
    pixels, first = [photo.pixels for photo in photos], settings[0]
    c, steps = first.c, first.steps
    if not first.regions:
        grids = pipe.predict_grid(pixels, c, num_inference_steps=steps, generator=generators)
        return [(grid, None) for grid in grids]

    from diffretouch.settings.region_texts import named_regions

    results = []
    for one, generator in zip(pixels, generators, strict=True):  # every photo has masks of its own
        regions = named_regions(first.regions, one, c, refine=bool(first.refine_regions))
        grid = pipe.predict_grid(one, c, regions=regions, num_inference_steps=steps, generator=generator)
        results.append((grid[0], regions))
    return results


def apply(
    pipe: "DiffusionPipeline", pixels: np.ndarray, retouch: "torch.Tensor | np.ndarray", settings: "Settings"
) -> np.ndarray:
    """The retouched pixels, in place of those given where that can be."""
    if isinstance(retouch, np.ndarray):
        return retouch
    grid, regions = retouch
    if regions is None:
        return pipe.apply_grid(pixels, grid, strength=settings.strength, out=pixels)
    return pipe.apply_grid(pixels, grid, strength=settings.strength, regions=regions)


def stream(
    pipe: "DiffusionPipeline", tasks: "Iterable[Task]", settings: "Settings", finish: Callable[..., Any],
    seeds: Callable[[str], int | None], jobs: int | None, batch_size: int, keep_8_bits: bool, max_pixels: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Read, sample in batches, `finish` in threads; yields the row of every task, in the order they are finished.

    If `keep_8_bits`, photos of 8 bits are retouched as such.
    """
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
            size = pixels_decoded(task.source)  # room is taken before a photo is decoded, not after
            if not room.enter(size):
                return
            started = time.perf_counter()
            try:
                photo = read_photo(task.source, max_pixels, keep_8_bits=keep_8_bits)
            except Exception as error:
                room.leave(size)
                events.put((failed(task, error), None))
                continue
            events.put((task, (photo, round(time.perf_counter() - started, 3), size)))

    def write(task, photo, seconds, size, retouch, own):
        try:
            row = finish(task, photo, retouch, own)
            row["read_seconds"] = seconds
        except Exception as error:  # of this photo: the others go on
            row = failed(task, error)
        room.leave(size)
        events.put((row, None))

    readers, writers = ThreadPoolExecutor(jobs, "read"), ThreadPoolExecutor(jobs, "write")
    torch = sys.modules.get("torch")  # of a pipeline that runs by it
    threads, of_model, of_files = torch.get_num_threads() if torch else 1, 0.0, 0.0  # seconds
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
            if torch:
                torch.set_num_threads(threads if of_model > 2 * of_files / jobs > 0 else 1)
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            own = [replace(settings, seed=seeds(task.name)) for task, *_ in batch]
            started = time.perf_counter()
            retouches = _sample_each(pipe, batch, own)
            of_model += time.perf_counter() - started
            for item, retouch, one in zip(batch, retouches, own, strict=True):
                # 3. Apply and write in threads
                if isinstance(retouch, Exception):
                    room.leave(item[3])
                    events.put((failed(item[0], retouch), None))
                else:
                    writers.submit(write, *item, retouch, one)  # type: ignore[call-arg]
            del batch, item, retouch, retouches  # the pixels live no longer than their file is written
    finally:
        if torch:
            torch.set_num_threads(threads)
        room.close()
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)


def _sample_each(pipe, batch, own):
    """`_sample`, with the error in place of the result for photos that the model cannot take."""
    try:
        return _sample(pipe, [item[1] for item in batch], own)
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for item, one in zip(batch, own, strict=True) for result in _sample_each(pipe, [item], [one])]


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


def _count(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise ValueError(f"`{name}` must be a whole number from 1 to 1024, got {value!r}.")
    return value


def _reason(error):
    """An error of the system with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
