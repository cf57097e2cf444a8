"""Times `diffretouch batch` beside a loop that reads, retouches and writes one photo after the other.

    python benchmarks/batch.py                                # four minutes: 16 photos of 12 megapixels, two models
    python benchmarks/batch.py --megapixels 1 --photos 64     # one minute
    python benchmarks/batch.py --models small --rounds 1

Both ways run in one process, in turns; medians are printed as a table, with what each stage of the loop takes. The
loop works on floats, which is what `load_photo` gives; a batch keeps 8 bits as such, and of ten thousand values in its
files less than one differs, by one level. Trust the ratios: times depend on the machine and on what else it does.
Processor time (of all threads, a photo) depends on that the least.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # also from a checkout that is not installed

from diffretouch.batch import plan_batch, processors, retouch_batch  # noqa: E402
from diffretouch.photo import load_photo, save_photo  # noqa: E402
from diffretouch.photo.write_options import WriteOptions  # noqa: E402
from diffretouch.pipelines.pretrained import open_pipeline  # noqa: E402
from diffretouch.settings import Settings, resolved, seed_of  # noqa: E402


def make_photos(folder, source, number, megapixels):
    """`number` JPEGs as cameras write them: 4:2:0, quality 92."""
    photo = PIL.Image.open(source).convert("RGB")
    scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), PIL.Image.Resampling.BICUBIC)
    for n in range(number):
        photo.save(folder / f"{n:04}.jpg", quality=92, subsampling=2)
    return photo.size


def one_by_one(pipe, tasks, settings, stages):
    """The loop that one would write by hand; adds up the seconds of its stages."""
    for task in tasks:
        started = time.perf_counter()
        photo = load_photo(task.source)
        read = time.perf_counter()
        if settings.c is None:
            result = pipe(photo.pixels, strength=settings.strength, output_type="np").images[0]
        else:
            noise = torch.Generator().manual_seed(seed_of(task.name, settings.seed))
            result = pipe(photo.pixels, settings.c, generator=noise, output_type="np").images[0]
        retouched = time.perf_counter()
        save_photo(result, task.target, like=photo, overwrite=True, description=settings.to_json())
        written = time.perf_counter()
        for name, seconds in (("read", read - started), ("retouch", retouched - read), ("write", written - retouched)):
            stages.setdefault(name, []).append(seconds)


def in_batch(pipe, tasks, settings, jobs):
    for row in retouch_batch(pipe, tasks, settings, WriteOptions(overwrite=True), jobs=jobs):
        if row["status"] != "done":
            raise SystemExit(f"{row['photo']}: {row['error']}")


def clocked(way, *arguments):
    """-> (seconds, processor seconds of all threads) of a call."""
    started, before = time.perf_counter(), time.process_time()
    way(*arguments)
    return time.perf_counter() - started, time.process_time() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["small", "csrnet"])
    parser.add_argument("--photo", type=Path, default=ROOT / "examples" / "photo.jpg")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--jobs", type=int, help="threads that read, and that write; one per processor by default")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir(), target.mkdir()
        width, height = make_photos(source, args.photo, args.photos, args.megapixels)
        tasks = plan_batch(source, target).tasks
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(f"{args.photos} JPEGs of {width} x {height}, {processors()} processors, torch {torch.__version__} with "
              f"{torch.get_num_threads()} thread(s){load}\n")  # fmt: skip
        print("| | one by one, photos/s | batch | times faster | processor ms, one by one | batch | read, ms | "
              "retouch, ms | write, ms | limited by |")  # fmt: skip
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
        for name in args.models:
            pipe = open_pipeline(name)
            pipe.set_progress_bar_config(disable=True)
            settings, stages = resolved(Settings(), pipe, name), {}
            one_by_one(pipe, tasks[:1], settings, {})  # compiles, and warms up
            in_batch(pipe, tasks[:2], settings, args.jobs)
            times = []
            for _ in range(args.rounds):
                loop = clocked(one_by_one, pipe, tasks, settings, stages)
                times.append((loop, clocked(in_batch, pipe, tasks, settings, args.jobs)))
            (loop, of_loop), (batch, of_batch) = np.median(times, 0) / args.photos
            read, retouch, write = (statistics.median(stages[stage]) * 1e3 for stage in ("read", "retouch", "write"))
            limit = "reading and writing" if read + write > retouch else "the model"
            print(f"| {name} | {1 / loop:.2f} | {1 / batch:.2f} | {loop / batch:.2f} | {of_loop * 1e3:.0f} | "
                  f"{of_batch * 1e3:.0f} | {read:.0f} | {retouch:.0f} | {write:.0f} | {limit} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
