"""Times `diffretouch retouch` from a cold start: by ONNX Runtime without torch, beside torch, in turns.

    python benchmarks/cold.py                                       # needs onnxruntime
    python benchmarks/cold.py photo.tif --repeats 9 --model csrnet

Every run is a process of its own that ends when the result is written. The first of each engine is not counted: it
compiles the slice, and brings files into the system's cache. Ratios are of the medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("torch", "onnx")


def measured(photo, output, engine, model):
    """One process -> seconds, seconds of the processor, MiB at the peak."""
    command = [sys.executable, "-m", "diffretouch.cli", "retouch", photo, "-o", output, "--overwrite"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--engine", engine, "--model", model], cwd=ROOT, stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)  # what resource.getrusage tells of this child alone
    seconds = time.perf_counter() - start
    if status:
        sys.exit(said)
    kilobytes = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return seconds, used.ru_utime + used.ru_stime, kilobytes / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path, default=ROOT / "examples" / "photo.jpg")
    parser.add_argument("--model", default="small")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, f"result{args.photo.suffix}")
        for repeat in range(args.repeats + 1):
            for engine in ENGINES:
                row = measured(args.photo.resolve(), output, engine, args.model)
                if repeat:
                    rows[engine].append(row)
    medians = {engine: [statistics.median(column) for column in zip(*rows[engine], strict=True)] for engine in ENGINES}
    print(f"{args.photo.name}, model {args.model}, {args.repeats} runs each, load {load:.1f} before, "
          f"{os.getloadavg()[0]:.1f} after")  # fmt: skip
    for engine, (seconds, of_processor, peak) in medians.items():
        print(f"{engine:6} {seconds:7.2f} s   {of_processor:7.2f} s of the processor   {peak:6.0f} MiB at the peak")
    ratios = [a / b for a, b in zip(medians["torch"], medians["onnx"], strict=True)]
    print("onnx: {:.1f} times faster, {:.1f} times less of the processor, {:.1f} times less memory".format(*ratios))


if __name__ == "__main__":
    main()
