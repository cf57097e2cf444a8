"""Times slider moves beside sampling afresh, and tells how much of a call is the UNet and how true the sliders are.

    python benchmarks/sliders.py                          # one minute
    python benchmarks/sliders.py --photos *.jpg --probes 64

All ways run in one process, in turns; medians are printed as a table. Trust the ratios: times depend on the machine
and on what else it does.
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

PHOTOS = sorted((Path(__file__).resolve().parents[1] / "tests" / "photos").glob("*.jpg"))


class Stopwatch:
    """Sums up the time that a module's calls take."""

    def __init__(self, module):
        self.total = 0.0
        module.register_forward_pre_hook(self.start)
        module.register_forward_hook(self.stop)

    def start(self, *_):
        self.started = time.perf_counter()

    def stop(self, *_):
        self.total += time.perf_counter() - self.started


def open_photo(path, megapixels):
    photo = PIL.Image.open(path).convert("RGB")
    scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), PIL.Image.Resampling.BICUBIC)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--photos", nargs="+", default=PHOTOS, help="fidelity on all, times on the first")
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--probes", type=int, default=24, help="random c per photo for the fidelity")
    args = parser.parse_args()

    pipe = DiffRetouchPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    own_steps = pipe.config.default_steps
    photo = open_photo(args.photos[0], args.megapixels)
    pixels = np.asarray(photo)
    started = time.perf_counter()
    sliders = pipe.sliders(photo, size=None, generator=torch.Generator().manual_seed(0), background=True)
    first = time.perf_counter() - started
    sliders.wait()
    filled = time.perf_counter() - started

    out, unet = np.empty_like(pixels), Stopwatch(pipe.unet)

    def afresh(c, steps):
        return pipe(photo, c, num_inference_steps=steps, generator=torch.Generator().manual_seed(0))

    centre = sliders.grid()
    ways = {
        "slider move, into an array": lambda c: sliders(c, out=out),
        "slider move, PIL image": lambda c: sliders(c),
        "the pixels alone, into an array": lambda c: pipe.apply_grid(pixels, centre, out=out),
        f"sampling afresh, {own_steps} steps (the model's own)": lambda c: afresh(c, own_steps),
        "sampling afresh, 20 steps": lambda c: afresh(c, 20),
    }
    times, shares = {name: [] for name in ways}, {name: [] for name in ways}
    for turn in range(args.rounds + 1):
        c = (torch.rand(4, generator=torch.Generator().manual_seed(turn)) * 2 - 1).tolist()
        for name, way in ways.items():
            unet.total, started = 0.0, time.perf_counter()
            way(c)
            elapsed = time.perf_counter() - started
            if turn:  # the first turn warms up
                times[name].append(elapsed)
                shares[name].append(unet.total / elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    *_, own, twenty = medians.values()

    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{photo.width} x {photo.height}, torch {torch.__version__}, {torch.get_num_threads()} thread(s){load}")
    print(f"sliders ready (c = 0): {first * 1e3:.0f} ms; all {len(sliders.points)} points: {filled * 1e3:.0f} ms\n")
    print(f"| | ms | faster than {own_steps} steps | faster than 20 steps | share of the UNet |")
    print("|---|---:|---:|---:|---:|")
    for name, median in medians.items():
        share = f"{100 * statistics.median(shares[name]):.1f}%"
        print(f"| {name} | {median * 1e3:.1f} | {own / median:.1f} | {twenty / median:.1f} | {share} |")

    print(f"\nFidelity: colour difference (CIE 1976) to true sampling at {args.probes} random c, {own_steps} steps\n")
    print("| photo | mean | worst c |\n|---|---:|---:|")
    means = []
    for path in args.photos:
        found = pipe.sliders(open_photo(path, 0.1), generator=torch.Generator().manual_seed(0)).fidelity(args.probes)
        means.append(found.mean)
        print(f"| {Path(path).stem} | {found.mean:.2f} | {found.worst:.2f} |")
    print(f"| all | {statistics.mean(means):.2f} | |")


if __name__ == "__main__":
    main()
