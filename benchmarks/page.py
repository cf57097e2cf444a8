"""Times the page in a real browser, beside an older checkout's page in the same run: a slider's event to its picture.

    python benchmarks/page.py                             # needs playwright and a Chromium
    python benchmarks/page.py --onnxruntime-web node_modules/onnxruntime-web      # and without Python behind it
    git worktree add ../old ae3c8b5 && python benchmarks/page.py --old ../old     # and gradio, for that page

The page before needs gradio; where that must not enter this environment, give it one of its own:

    python -m venv --system-site-packages ../old/env && ../old/env/bin/pip install -c ../old/constraints.txt gradio
    python benchmarks/page.py --old ../old --old-python ../old/env/bin/python

Server, browser and models share one machine; WebGL is computed by the processor. The stage has about a megapixel.
Ours ends when the canvas is drawn, the old page's when the new picture is in place. On slow machines ours draws fewer
pixels while a slider moves: the row "every pixel" forbids that. Ratios are of the medians. "24 MP" is the time from
the choice of a JPEG of 6000 x 4000 pixels to its first retouched picture, by a visitor who has nothing in the
browser's cache, the engine included.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]

# Moves sliders as a hand does, and waits for the picture of each move
MOVES = """async ([count, sliders, place]) => {
  const stage = document.querySelector(place), times = [];
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  for (let i = 0; i < count; i++) {
    const slider = document.querySelectorAll(sliders)[i % 4], shown = Number(stage.dataset.shown);
    const start = performance.now();
    set.call(slider, (((i * 37) % 180) - 90) / 100);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise((done) => {
      const watcher = new MutationObserver(() => {
        if (Number(stage.dataset.shown) > shown) { watcher.disconnect(); requestAnimationFrame(done); }
      });
      watcher.observe(stage, { attributes: true, attributeFilter: ['data-shown'] });
    });
    times.push(performance.now() - start);
    await new Promise((done) => setTimeout(done, 30));
  }
  return times;
}"""


def started(checkout, python):
    """The page of a checkout, in a process of its own -> (process, address)."""
    command = [python, "-m", "diffretouch.cli", "demo", "--no-browser"]
    process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def started_alone(runtime, folder):
    """The built page on a static server in a process of its own -> (process, address)."""
    from diffretouch.demo.build import build

    build(folder, onnxruntime_web=runtime)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, re.search(r"http://\S+/", process.stdout.readline())[0]


def opened_page(browser, address, ours):
    """A new visitor's page and how long it took to be ready, in ms."""
    page = browser.new_context(viewport={"width": 1540, "height": 950}).new_page()
    page.set_default_timeout(240_000)
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("body[data-ready]" if ours else ".viewer .open")
    return page, 1000 * (time.perf_counter() - start)


def retouched(page, photo, ours):
    """Time in ms until a photo is retouched."""
    start = time.perf_counter()
    page.set_input_files("#files" if ours else "#head input[type=file]", photo)
    page.wait_for_selector('#stage[data-final="1"]' if ours else ".viewer .after img")
    return 1000 * (time.perf_counter() - start)


def measured(browser, address, photo, large, moves, ours, every_pixel=False):
    """Times in ms: until the page is ready, until the photos are retouched, of the moves; the picture's size, kB."""
    page, _ = opened_page(browser, address, ours)
    opened_large = retouched(page, large, ours)
    page.context.close()
    page, ready = opened_page(browser, address, ours)
    size = page.evaluate(
        "() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".reduce((sum, one) => sum + one.encodedBodySize, 0) / 1000"
    )
    opened = retouched(page, photo, ours)
    place, sliders = ("#stage", ".slider input[type=range]") if ours else (".viewer", ".middle input[type=range]")
    page.wait_for_selector('#stage[data-points="25"]' if ours else '.viewer[data-final="1"]')
    if every_pixel:
        page.evaluate(
            "async () => { const { app } = await import('./page.js');"
            " Object.defineProperty(app.view, 'quality', { get: () => 1, set: () => {} }); }"
        )
    page.evaluate(MOVES, [12, sliders, place])  # warm up
    times = page.evaluate(MOVES, [moves, sliders, place])
    drawn = page.evaluate(
        "() => { const e = document.querySelector('#canvas') ?? document.querySelector('.after img');"
        " return [e.naturalWidth ?? e.width, e.naturalHeight ?? e.height]; }"
    )
    page.context.close()
    return ready, size, opened, opened_large, times, drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", default=str(ROOT / "examples" / "photo.jpg"))
    parser.add_argument("--onnxruntime-web", help="that package's folder or .tgz: the page without Python, too")
    parser.add_argument("--old", help="a checkout with the page before")
    parser.add_argument("--old-python", default=sys.executable, help="what runs it; by default what runs this")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="by default the one of playwright")
    parser.add_argument("--moves", type=int, default=40)
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {Path(given.photo).name}\n")
    print("| ms | page ready | kB by then | photo retouched | 24 MP | move, median | 95th percentile | drawn |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    medians, engine = {}, ""
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.jpg"
        with Image.open(given.photo) as photo:
            photo.convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC).save(large, quality=90)
        browser = playwright.chromium.launch(executable_path=given.chromium, args=arguments + GL)
        pages = [("this page", ROOT), ("this page, every pixel", ROOT)]
        pages += [("without Python", None)] if given.onnxruntime_web else []
        for name, checkout in pages + ([("the page before", given.old)] if given.old else []):
            alone = checkout is None
            process, address = (
                started_alone(given.onnxruntime_web, Path(folder) / "page")
                if alone
                else started(checkout, sys.executable if checkout == ROOT else given.old_python)
            )
            try:
                ready, size, opened, opened_large, times, drawn = measured(
                    browser, address, given.photo, large, given.moves, checkout in (ROOT, None), name.endswith("pixel")
                )
                if alone:
                    lists = json.loads((Path(folder) / "page" / "engine" / "about.json").read_text())["files"]
                    engine = f"without Python: {sum(file['packed'] for file in lists.values()) / 1e6:.1f} MB of engine"
            finally:
                process.terminate()
                process.wait()
            medians[name] = statistics.median(times)
            late = sorted(times)[int(0.95 * len(times))]
            values = f"{ready:.0f} | {size:.0f} | {opened:.0f} | {opened_large:.0f} | {medians[name]:.0f} | {late:.0f}"
            print(f"| {name} | {values} | {drawn[0]} x {drawn[1]} |", flush=True)
        browser.close()
    if engine:
        print(f"\n{engine}, fetched once and kept")
    if given.old:
        before = medians.pop("the page before")
        for name, median in medians.items():
            print(f"\n{name}: a move is {before / median:.1f} times as fast as on the page before")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
