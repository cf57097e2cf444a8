"""Times a PIL photo through `apply_grid` beside the same pixels as an array.

    python benchmarks/pil.py                     # 24 megapixels
    python benchmarks/pil.py --megapixels 6 --repeats 21

Both ways run in one process, in turns, on one thread. The least and the median of their process times are printed,
which hold on a busy machine, too, and the ratios. What a picture costs more is that Pillow keeps four bytes a pixel:
three are packed for the retouch, and unpacked again after it, in memory that is new.
Both ways must make the same pixels.
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

from benchmarks.slice_apply import make_photo  # noqa: E402
from diffretouch import DiffRetouchPipeline  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    pixels = make_photo(args.megapixels)
    picture = PIL.Image.fromarray(pixels)
    grid = pipe.predict_grid(pixels[::16, ::16], [0.3, 0.1, -0.2, 0.4], generator=torch.Generator().manual_seed(0))
    ways = {
        "array": lambda: pipe.apply_grid(pixels, grid),
        "PIL image": lambda: pipe.apply_grid(picture, grid),
        "PIL image to array and back, alone": lambda: PIL.Image.fromarray(np.asarray(picture)),
    }
    if not np.array_equal(ways["PIL image"](), ways["array"]()):
        raise SystemExit("The picture's pixels differ from the array's.")
    times = {name: [] for name in ways}
    for turn in range(args.repeats + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - started)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    height, width = pixels.shape[:2]
    print(f"{width} x {height}, torch {torch.__version__}, one thread{load}\n")
    print("| | least, ms | median, ms | of the array's least | of its median |\n|---|---:|---:|---:|---:|")
    least, median = min(times["array"]), statistics.median(times["array"])
    for name, seconds in times.items():
        low, middle = min(seconds), statistics.median(seconds)
        print(f"| {name} | {low * 1e3:.0f} | {middle * 1e3:.0f} | {low / least:.2f} | {middle / median:.2f} |")


if __name__ == "__main__":
    main()
