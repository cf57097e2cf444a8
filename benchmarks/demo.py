"""Times the page in a real browser: from a slider's event to the changed picture, beside sampling afresh.

    python benchmarks/demo.py                             # one minute; needs playwright and a Chromium
    python benchmarks/demo.py --chromium /usr/bin/chromium --moves 50

Server, browser and models share one machine. A move ends with the first frame after the new picture is decoded and
in place. Sampling afresh is `pipe(image, c)` on the same pixels in a process of its own, without the browser.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
import torch  # noqa: E402

from diffretouch import DiffRetouchPipeline  # noqa: E402

# Moves a slider as a hand does, and waits for the picture of that move
MOVES = """async ([count, pause]) => {
  const viewer = document.querySelector('.viewer'), times = [];
  const sliders = [...document.querySelectorAll('#controls .middle input[type=range]')];
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  for (let i = 0; i < count; i++) {
    const slider = sliders[i % 4], shown = Number(viewer.dataset.shown);
    const value = (((i * 37) % 180) - 90) / 100;
    const start = performance.now();
    set.call(slider, value);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise((done) => {
      const look = () => Number(viewer.dataset.shown) > shown && (watcher.disconnect(), requestAnimationFrame(done));
      const watcher = new MutationObserver(look);
      watcher.observe(viewer, { attributes: true, attributeFilter: ['data-shown'] });
    });
    times.push(performance.now() - start);
    await new Promise((done) => setTimeout(done, pause));
  }
  return times;
}"""

# The hand rests after a move: the time until the true sample is there, less the time that the page waits first
RESTS = """async (count) => {
  const viewer = document.querySelector('.viewer'), times = [];
  const slider = document.querySelector('#controls .middle input[type=range]');
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  for (let i = 0; i < count; i++) {
    let moved = 0;
    set.call(slider, (((i * 37) % 180) - 90) / 100);
    const ended = new Promise((done) => {
      const watcher = new MutationObserver(() => {
        if (viewer.dataset.final === '0') moved = performance.now();
        else if (moved) { watcher.disconnect(); requestAnimationFrame(() => done(performance.now() - moved - 250)); }
      });
      watcher.observe(viewer, { attributes: true, attributeFilter: ['data-shown', 'data-final'] });
    });
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    times.push(await ended);
  }
  return times;
}"""


def in_browser(address, photo, chromium, moves):
    """Times in ms: of moves, and of true samples after them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector(".viewer .open")
        page.set_input_files("#head input[type=file]", photo)
        page.wait_for_selector('.viewer[data-final="1"]')
        page.evaluate(MOVES, [5, 30])  # warm up
        times = page.evaluate(MOVES, [moves, 30])
        page.wait_for_selector('.viewer[data-final="1"]')
        rests = page.evaluate(RESTS, 10)
        browser.close()
    return times, rests


def afresh(pixels, steps, repeats):
    """Times in ms of whole calls of the pipeline on the same pixels."""
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    photo, times = PIL.Image.fromarray(pixels), []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        pipe(
            photo, {"brightness": 0.01 * repeat}, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)
        )
        times.append(1000 * (time.perf_counter() - start))
    return times[1:]


def row(name, times):
    p95 = np.percentile(times, 95)
    print(f"| {name} | {len(times)} | {statistics.median(times):.0f} | {p95:.0f} | {max(times):.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", default=str(Path(__file__).resolve().parents[1] / "examples" / "photo.jpg"))
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="by default the one of playwright")
    parser.add_argument("--moves", type=int, default=50)
    given = parser.parse_args()

    from diffretouch.demo.server import serving
    from diffretouch.demo.visit import Visit

    shown = Visit(given.photo, "photo.jpg", ".").shown
    print(f"{shown.shape[1]} x {shown.shape[0]}, {torch.get_num_threads()} threads, torch {torch.__version__}, load "
          f"{os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print("| ms | n | median | 95th percentile | worst |\n|---|---:|---:|---:|---:|")
    with serving() as address:
        moves, rests = in_browser(address, given.photo, given.chromium, given.moves)
    row("slider event to changed picture, in the browser", moves)
    row("the true sample after the hand rests, in the browser, without loss", rests)
    row("sampling afresh, the model's own steps, no browser", afresh(shown, None, 10))
    row("sampling afresh, 20 steps, no browser", afresh(shown, 20, 3))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
