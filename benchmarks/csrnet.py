"""Times CSRNet's retouch of a large photo beside the network run in one piece, as the released code runs it.

    python benchmarks/csrnet.py                           # 24 megapixels: some minutes and 18 GB of memory
    python benchmarks/csrnet.py --megapixels 4

All ways take and give uint8 and run in one process, in turns; medians are printed as a table. The peak memory of each
is that of a process of its own. Trust the ratios: times depend on the machine and on what else it does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from diffretouch import CSRNetPipeline, bake_lut  # noqa: E402
from diffretouch.pipelines.pipeline_csrnet import condition_thumbnail  # noqa: E402

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photo.jpg"
PLAIN = "the network in one piece"


def make_photo(path, megapixels):
    """A real photo at that size, with grain of two levels: enlarging alone would leave too few colours."""
    photo = PIL.Image.open(path).convert("RGB")
    scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    size = round(photo.width * scale), round(photo.height * scale)
    pixels = np.array(photo.resize(size, PIL.Image.Resampling.BICUBIC))
    generator = np.random.default_rng(0)
    for start in range(0, len(pixels), 64):
        grain = generator.normal(0, 2, pixels[start : start + 64].shape)
        pixels[start : start + 64] = np.clip(np.rint(pixels[start : start + 64] + grain), 0, 255)
    return pixels


@torch.no_grad()
def in_one_piece(pipe, pixels):
    """What the released code does: the whole photo as floats, the condition from all of it, 64 channels of it."""
    # In one piece torch's oneDNN convolution crashes beyond 4 GiB of output: above 16 megapixels it is switched off.
    with torch.backends.mkldnn.flags(enabled=pixels.size < 3 * 16e6):
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        result = pipe.network(image)[0].permute(1, 2, 0)
    return (result.clamp(0, 1) * 255).round().numpy().astype(np.uint8)


@torch.no_grad()
def by_table_file(pipe, pixels, interpolation):
    return bake_only(pipe, pixels).apply(pixels, interpolation=interpolation)


def bake_only(pipe, pixels):
    """The nodes alone, without the error that `bake_lut` measures on the whole photo."""
    return bake_lut(_Frozen(pipe, pixels), pixels[:64, :64])


class _Frozen:
    """A pipeline whose condition comes from another photo than the one it is asked about."""

    is_local = False

    def __init__(self, pipe, photo):
        self.pipe, self.photo, self.device = pipe, photo, pipe.device

    def colour_function(self, image, **call):
        self.function = self.pipe.colour_function(self.photo, **call)
        return self.function

    def retouch(self, image, **call):
        return image


def make_ways(pipe, pixels):
    out = np.empty_like(pixels)
    return {
        PLAIN: lambda: in_one_piece(pipe, pixels),
        "retouch, by unique colours": lambda: pipe.retouch(pixels),
        "retouch, by unique colours, `out=`": lambda: pipe.retouch(pixels, out=out),
        "33-node table, baked and applied, tetrahedral": lambda: by_table_file(pipe, pixels, "tetrahedral"),
        "33-node table, baked and applied, trilinear": lambda: by_table_file(pipe, pixels, "trilinear"),
    }


@torch.no_grad()
def exact_result(pipe, pixels):
    """The plain network, not folded, with the condition of the pipeline's thumbnail, in strips."""
    network = pipe.network
    condition = network.condition(condition_thumbnail(pixels, network.config.condition_size))
    result = np.empty_like(pixels)
    for start in range(0, len(pixels), 64):
        strip = torch.from_numpy(pixels[start : start + 64]).permute(2, 0, 1)[None].float() / 255
        strip = network.modulated(strip, condition)[0].permute(1, 2, 0)
        result[start : start + 64] = (strip.clamp(0, 1) * 255).round().numpy()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=5, help="of the fast ways; the plain network runs once")
    parser.add_argument("--skip-plain", action="store_true", help="where there is no memory for it")
    parser.add_argument("--only", help="run this way once and print the process' peak memory in MiB")
    args = parser.parse_args()

    pipe = CSRNetPipeline.from_pretrained(args.model)
    pixels = make_photo(args.photo, args.megapixels)
    ways = make_ways(pipe, pixels)
    if args.only:
        if args.only != "nothing":
            ways[args.only]()
        # Not ru_maxrss: a child process starts with its parent's there
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) // 1024)
        return
    if args.skip_plain:
        del ways[PLAIN]

    load = os.getloadavg()[0]
    exact, times, cpu, results = exact_result(pipe, pixels), {}, {}, {}
    for name, way in ways.items():
        if name != PLAIN:
            way()  # compiles
    for turn in range(args.rounds):
        for name, way in ways.items():
            if name == PLAIN and turn:
                continue
            wall, own = time.perf_counter(), time.process_time()
            results[name] = way()
            times.setdefault(name, []).append(time.perf_counter() - wall)
            cpu.setdefault(name, []).append(time.process_time() - own)

    def peak(name):
        command = [sys.executable, __file__, "--only", name, "--megapixels", str(args.megapixels)]
        command += ["--photo", str(args.photo), "--model", args.model]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    codes = pixels.reshape(-1, 3).astype(np.uint32) @ np.uint32([65536, 256, 1])
    height, width = pixels.shape[:2]
    print(f"{width} x {height}, {len(np.unique(codes)):,} colours, torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} thread(s), load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"peak memory of a process that only loads model and photo: {peak('nothing')} MiB\n")
    print("| | ms | processor ms | times faster | by processor time | worst level | mean level | peak memory, MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in ways:
        wall, own = statistics.median(times[name]), statistics.median(cpu[name])
        ratio = [f"{statistics.median(t[PLAIN]) / own_time:.0f}" if PLAIN in t else "" for t, own_time in
                 ((times, wall), (cpu, own))]  # fmt: skip
        if name == PLAIN:  # its condition is that of the full size: another retouch
            error = ["", ""]
        else:
            difference = np.abs(results[name].astype(np.int16) - exact)
            error = [f"{difference.max()}", f"{difference.mean():.3f}"]
        cells = [f"{wall * 1e3:,.0f}", f"{own * 1e3:,.0f}", *ratio, *error, f"{peak(name):,}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
