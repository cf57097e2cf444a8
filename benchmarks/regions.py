"""Times n regions in one call beside a call for the photo and each region, and counts what the models are asked for.

    python benchmarks/regions.py                          # two minutes

Both ways take and give uint8, use the same noise, and run in one process, in turns; medians are printed as a table.
Trust the ratios: times depend on the machine and on what else it does.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from diffretouch import DiffRetouchPipeline  # noqa: E402
from diffretouch.regions import as_mask, blend  # noqa: E402

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photo.jpg"


class Counts:
    """How often the UNet and the full-resolution pass are called, and for how many rows the UNet is."""

    def __init__(self, pipe):
        self.calls = self.rows = self.passes = 0
        self.apply = pipe.grid_head.apply
        pipe.unet.register_forward_pre_hook(self.count_call)
        pipe.grid_head.apply = self.count_pass

    def count_call(self, module, inputs):
        self.calls += 1
        self.rows += len(inputs[0])

    def count_pass(self, *inputs, **options):
        self.passes += 1
        return self.apply(*inputs, **options)

    def taken(self):
        taken, self.calls, self.rows, self.passes = (self.calls, self.rows, self.passes), 0, 0, 0
        return taken


def soft_masks(number, size):
    """(mask, c) pairs of soft columns, each partly over the one before, at the photo's own size."""
    height, width = size
    x, c = (np.arange(width, dtype=np.float32) + 0.5) / width, np.random.default_rng(0).uniform(-1, 1, (number, 4))
    shapes = [1 / (1 + np.exp(-(x - (n + 1) / (number + 1)) * 30)) for n in range(number)]
    return [
        (np.tile(shape.astype(np.float32), (height, 1)), own.tolist()) for shape, own in zip(shapes, c, strict=True)
    ]


def in_one_call(pipe, pixels, regions, steps):
    noise = torch.Generator().manual_seed(0)
    grids = pipe.predict_grid(pixels, regions=regions, num_inference_steps=steps, generator=noise)
    return pipe.apply_grid(pixels, grids, regions=regions)


def one_after_the_other(pipe, pixels, regions, steps):
    def retouch(c):
        noise = torch.Generator().manual_seed(0)
        return pipe.apply_grid(pixels, pipe.predict_grid(pixels, c, num_inference_steps=steps, generator=noise))

    result = retouch(None)
    for mask, c in regions:
        blend(result, retouch(c), as_mask(mask, pixels.shape[:2]))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--photo", default=PHOTO)
    parser.add_argument("--megapixels", type=float, default=2.0)
    parser.add_argument("--regions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of this process: for a CPU that is busy otherwise")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter

    pipe = DiffRetouchPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    photo = PIL.Image.open(args.photo).convert("RGB")
    scale = (args.megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    pixels = np.asarray(photo.resize((round(photo.width * scale), round(photo.height * scale))))
    counts, ways = Counts(pipe), {"one": in_one_call, "separate": one_after_the_other}

    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    height, width = pixels.shape[:2]
    print(f"{width} x {height}, torch {torch.__version__}, {torch.get_num_threads()} thread(s){load}\n")
    print("| steps | regions | one call, ms | separate, ms | times faster | UNet calls (rows) | separate | passes |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    worst, unequal = 0, 0.0
    for steps in args.steps:
        for number in args.regions:
            regions = soft_masks(number, pixels.shape[:2])
            times, taken, results = {name: [] for name in ways}, {}, {}
            for turn in range(args.rounds + 1):
                for name, way in ways.items():
                    counts.taken()
                    started = clock()
                    results[name] = way(pipe, pixels, regions, steps)
                    if turn:  # the first turn warms up
                        times[name].append(clock() - started)
                    taken[name] = counts.taken()
            one, separate = (statistics.median(values) for values in times.values())
            (calls, rows, passes), (calls_apart, _, passes_apart) = taken["one"], taken["separate"]
            assert passes == passes_apart == number + 1, "one pass of slicing for the photo and for each region"
            print(
                f"| {steps} | {number} | {one * 1e3:.0f} | {separate * 1e3:.0f} | {separate / one:.2f} "
                f"| {calls} ({rows // calls}) | {calls_apart} | {passes} |"
            )
            difference = np.abs(results["one"].astype(int) - results["separate"])
            worst, unequal = max(worst, difference.max()), max(unequal, (difference > 0).mean())
    print(f"\nThe ways differ by at most {worst} of 255 levels, in {1e6 * unequal:.1f} of a million values at most.")


if __name__ == "__main__":
    main()
