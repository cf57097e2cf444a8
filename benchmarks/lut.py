"""Times the application of lookup tables beside Pillow's, and tells how well tables of several sizes hold a CSRNet.

    python benchmarks/lut.py                              # 24 megapixels: a minute
    python benchmarks/lut.py --megapixels 2

All ways run in one process, in turns; medians are printed as tables. Trust the ratios.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from csrnet import PHOTO, make_photo  # noqa: E402

from diffretouch import CSRNetPipeline, Lut3D, bake_lut  # noqa: E402

INTERPOLATIONS = ("tetrahedral", "trilinear")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[17, 33, 65])
    args = parser.parse_args()

    pipe = CSRNetPipeline.from_pretrained(args.model)
    pixels = make_photo(args.photo, args.megapixels)
    picture, out = PIL.Image.fromarray(pixels), np.empty_like(pixels)
    lut = bake_lut(pipe, pixels, size=33)
    others = {"uint16": pixels.astype(np.uint16) * 257, "float32": pixels.astype(np.float32) / 255}
    filters = PIL.ImageFilter.Color3DLUT(33, lut.table.clip(0, 1).ravel().tolist())
    ways = {"Pillow Color3DLUT, trilinear": lambda: picture.filter(filters)}
    for name in INTERPOLATIONS:
        ways[f"Lut3D.apply, {name}"] = lambda name=name: lut.apply(pixels, interpolation=name)
        ways[f"Lut3D.apply, {name}, `out=`"] = lambda name=name: lut.apply(pixels, interpolation=name, out=out)
    for dtype, photo in others.items():
        target = np.empty_like(photo)
        ways[f"Lut3D.apply, tetrahedral, {dtype}, `out=`"] = lambda a=photo, b=target: lut.apply(a, out=b)

    load = os.getloadavg()[0]
    times, cpu = {}, {}
    for turn in range(args.rounds + 1):  # the first turn compiles
        for name, way in ways.items():
            wall, own = time.perf_counter(), time.process_time()
            way()
            if turn:
                times.setdefault(name, []).append(time.perf_counter() - wall)
                cpu.setdefault(name, []).append(time.process_time() - own)
    height, width = pixels.shape[:2]
    print(f"{width} x {height}, 33 nodes, torch {torch.__version__}, {torch.get_num_threads()} thread(s), ", end="")
    print(f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    print("| | ms | processor ms | times faster | by processor time |\n|---|---:|---:|---:|---:|")
    walls, owns = ({name: statistics.median(values) for name, values in t.items()} for t in (times, cpu))
    first = next(iter(ways))
    for name in ways:
        ratios = f"{walls[first] / walls[name]:.1f} | {owns[first] / owns[name]:.1f}"
        print(f"| {name} | {walls[name] * 1e3:,.0f} | {owns[name] * 1e3:,.0f} | {ratios} |")

    print("\nAgainst the exact colour function, in levels of 255\n")
    print("| nodes | domain | interpolation | worst | mean |\n|---:|---|---|---:|---:|")
    exact = pipe.retouch(pixels).astype(np.int16)
    for size in args.sizes:
        for domain in ("full", "photo"):
            table = bake_lut(pipe, pixels, size=size, domain=domain)
            clamped = Lut3D(table.table.clip(0, 1), table.domain_min, table.domain_max)
            tried = [(name, table, name) for name in INTERPOLATIONS]
            tried.append(("tetrahedral, nodes clamped", clamped, "tetrahedral"))
            for label, made, interpolation in tried:
                difference = np.abs(made.apply(pixels, interpolation=interpolation) - exact)
                print(f"| {size} | {domain} | {label} | {difference.max()} | {difference.mean():.3f} |")


if __name__ == "__main__":
    main()
