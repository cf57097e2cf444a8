"""Times the full-resolution pass (guide + slice + affine) beside the released arithmetic and a plain copy.

    python benchmarks/slice_apply.py                      # 24 megapixels: some minutes and 12 GB of memory
    python benchmarks/slice_apply.py --megapixels 2

All ways run in one process, in turns; medians are printed as a table, with the peak memory of each way from a process
of its own. Trust the ratios: times depend on the machine and on what else it does.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from diffretouch.models.slice_apply import slice_apply  # noqa: E402

KNOTS = 16
RANGE = (-1.0, 1.0)  # the released head's


class Curve:
    """The guide's parameters, away from their initial values as in a trained head."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.eye(3) + 0.1 * torch.randn(3, 3, generator=generator)
        self.matrix_bias = 0.05 * torch.randn(3, generator=generator)
        self.thresholds = (torch.arange(KNOTS) / KNOTS).repeat(3, 1) + 0.02 * torch.randn(
            3, KNOTS, generator=generator
        )
        self.slopes = 0.1 * torch.randn(3, KNOTS, generator=generator)
        self.slopes[:, 0] += 1
        self.bias = torch.tensor(0.05)


def make_grid():
    noise = torch.randn(1, 12, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    return torch.eye(3, 4).flatten()[None, :, None, None, None] + 0.1 * noise


def make_photo(megapixels, dtype=np.uint8):
    """Gradients with grain, 3:2."""
    width = round((megapixels * 1.5e6) ** 0.5)
    height = round(megapixels * 1e6 / width)
    photo = np.empty((height, width, 3), dtype)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    columns = np.linspace(0.05, 0.95, width, dtype=np.float32)[:, None]
    generator = np.random.default_rng(2)
    grain = generator.normal(0, 0.03, (64, width, 3)).astype(np.float32)
    for start in range(0, height, 64):  # in strips: the peak of memory is not to come from here
        rows = photo[start : start + 64]
        rows[...] = ((0.5 * columns + 0.5 * start / height + grain[: len(rows)]).clip(0, 1)) * white
    return photo


def released_strip(grid, photo, curve, first_row, height):
    """The arithmetic of the released DiffRetouch, re-stated, on rows of a photo: uint8 (h,W,3) -> uint8 (h,W,3)."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1
    # guide: sixteen ReLUs per channel on a permuted copy
    y = torch.matmul(x.permute(0, 2, 3, 1), curve.matrix) + curve.matrix_bias
    ramps = F.relu(y[..., None] - curve.thresholds)
    guide = ((curve.slopes * ramps).sum(-1).mean(-1) + curve.bias).clamp(0, 1)
    del y, ramps
    # slice: the full coordinates, one five-dimensional grid_sample, twelve channels
    rows, width = photo.shape[:2]
    y, x_position = torch.meshgrid(torch.arange(first_row, first_row + rows), torch.arange(width), indexing="ij")
    y, x_position = y / (height - 1) * 2 - 1, x_position / (width - 1) * 2 - 1
    coordinates = torch.stack([x_position, y, guide[0] * 2 - 1], -1)[None, None]
    coefficients = F.grid_sample(grid, coordinates, padding_mode="border", align_corners=False)[:, :, 0]
    # affine
    result = torch.stack(
        [(coefficients[:, 4 * c : 4 * c + 3] * x).sum(1) + coefficients[:, 4 * c + 3] for c in range(3)], 1
    )
    result = ((result + 1) / 2).clamp(0, 1) * 255
    return result[0].permute(1, 2, 0).numpy().astype(np.uint8)  # truncates


def released(grid, photo, curve, out):
    out[...] = released_strip(grid, photo, curve, 0, len(photo))


def tiled(grid, photo, curve, out, rows=64):
    for start in range(0, len(photo), rows):
        strip = slice(start, start + rows)
        out[strip] = released_strip(grid, photo[strip], curve, start, len(photo))


def ours_torch(grid, photo, curve, out):
    slice_apply(grid, photo, curve, RANGE, out=out, backend="torch")


def ours_numba(grid, photo, curve, out):
    slice_apply(grid, photo, curve, RANGE, out=out, backend="numba")


def ours_numba_fresh(grid, photo, curve, out):
    slice_apply(grid, photo, curve, RANGE, backend="numba")


def copy(grid, photo, curve, out):
    np.copyto(out, photo)


WAYS = {
    "released": (released, "released arithmetic"),
    "tiled": (tiled, "the same in strips of 64 rows"),
    "torch": (ours_torch, "slice_apply, torch"),
    "fresh": (ours_numba_fresh, "slice_apply, numba, new output"),
    "numba": (ours_numba, "slice_apply, numba, `out=`"),
    "copy": (copy, "copy of the photo"),
}
SLOW = ("released", "tiled")


def once(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


@torch.no_grad()
def time_ways(names, photo, repeats):
    """Seconds of each way, the median of interleaved repetitions (three at most of the slow ones)."""
    grid, curve, out = make_grid(), Curve(), np.empty_like(photo)
    seconds = {name: [] for name in names}
    for name in names:  # compile, load, touch the output
        if name not in SLOW:
            WAYS[name][0](grid, photo, curve, out)
    for repeat in range(repeats):
        for name in names:
            if name not in SLOW:
                seconds[name].append(once(WAYS[name][0], grid, photo, curve, out))
            elif repeat < 3:
                seconds[name].append(once(WAYS[name][0], grid, photo, curve, out))
    return {name: statistics.median(values) for name, values in seconds.items()}


def memory_status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field}")


@torch.no_grad()
def measure_memory(name, megapixels):
    """In a fresh process: peak resident MiB of one call beyond photo and result, the loading of code included."""
    grid, curve, photo = make_grid(), Curve(), make_photo(megapixels)
    out = np.zeros_like(photo)
    out[...] = 1
    if name == "fresh":  # the result is the way's own
        del out
        out = None
    before = memory_status("VmRSS")
    WAYS[name][0](grid, photo, curve, out)
    return memory_status("VmHWM") - before - (photo.nbytes / 2**20 if name == "fresh" else 0)


def peak_memory(name, megapixels):
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, __file__, "--measure", name, "--megapixels", str(megapixels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def as_memory(mebibytes):
    return "–" if mebibytes is None else f"{mebibytes:,.0f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--memory", type=float, nargs="*", default=[], help="more sizes to measure the memory at")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure_memory(arguments.measure, arguments.megapixels))
        return

    photo = make_photo(arguments.megapixels)
    height, width = photo.shape[:2]
    print(f"{width} x {height}, uint8 to uint8, guide of {KNOTS} ramps per channel, grid of 16 x 16 x 8.")
    print(f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, load before:", end=" ")
    print(", ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown")
    ours_numba(make_grid(), photo[:2], Curve(), np.empty_like(photo[:2]))  # compiled once, then kept on disk
    memory = {name: peak_memory(name, arguments.megapixels) for name in WAYS}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        seconds = time_ways(WAYS, photo, arguments.repeats)
        print(f"\n{threads} thread{'s' if threads > 1 else ''}\n")
        print("| way | ms | MP/s | times faster | of copy speed | peak memory beyond the two photos |")
        print("|---|---:|---:|---:|---:|---:|")
        for name, value in seconds.items():
            print(
                f"| {WAYS[name][1]} | {value * 1e3:,.1f} | {height * width / value / 1e6:,.1f} "
                f"| {seconds['released'] / value:,.1f} | {seconds['copy'] / value:.1%} | {as_memory(memory[name])} |"
            )
        print(f"\nCopy: {2 * photo.nbytes / seconds['copy'] / 1e9:.1f} GB/s read and written, one thread.")

    print("\n| slice_apply, numba, `out=` | threads | ms | MP/s | copy of the photo, ms |\n|---|---:|---:|---:|---:|")
    for dtype in (np.uint8, np.uint16, np.float32):
        other = make_photo(arguments.megapixels, dtype)
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            seconds = time_ways(("numba", "copy"), other, arguments.repeats)
            print(
                f"| {np.dtype(dtype)} | {threads} | {seconds['numba'] * 1e3:,.1f} "
                f"| {height * width / seconds['numba'] / 1e6:,.1f} | {seconds['copy'] * 1e3:,.1f} |"
            )
    if arguments.memory:
        print("\n| megapixels | numba, `out=` | torch |\n|---:|---:|---:|")
        for megapixels in arguments.memory:
            cells = [as_memory(peak_memory(name, megapixels)) for name in ("numba", "torch")]
            print(f"| {megapixels:g} | {' | '.join(cells)} |")
    if hasattr(os, "getloadavg"):
        print("\nLoad after:", ", ".join(f"{value:.2f}" for value in os.getloadavg()))


if __name__ == "__main__":
    main()
