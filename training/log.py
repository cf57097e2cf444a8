"""What a training says of itself: a line a step in `log.jsonl`, and the trackers that were asked for."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image
from tqdm.auto import tqdm

TRACKERS = ("tensorboard", "wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless the trackers are installed: Accelerate would leave out what is not, in silence."""
    available = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    missing = [name for name in names if name not in available]
    if missing:
        raise SystemExit(f"`--report_to {missing[0]}`: it is not installed: pip install {missing[0]}")


def _forget(path, first_step):
    """Leave only the lines of steps before `first_step`, and none that a kill cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= first_step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(line + "\n" for line in kept))
    os.replace(aside, path)


class Log:
    """Means of the losses over the micro-batches and processes of each step, and how long the step waited for data.

    Args:
        accelerator (`Accelerator`)
        args: settings for the trackers, and `output_dir`: `log.jsonl` is continued there from `first_step` on, lines
            of steps that are done again are left out; `timing.json` is written at the end.
        first_step (`int`): that the training goes on with.
    """

    def __init__(self, accelerator: Accelerator, args: argparse.Namespace, first_step: int = 0) -> None:
        output_dir = Path(args.output_dir)
        self.accelerator, self.output_dir = accelerator, output_dir
        self.file, self.losses, self.bad_files = None, [], Counter()
        self.waited, self.shares, self.started = 0.0, [], time.perf_counter()
        if accelerator.is_main_process:
            output_dir.mkdir(parents=True, exist_ok=True)
            _forget(output_dir / "log.jsonl", first_step)
            self.file = open(output_dir / "log.jsonl", "a")
        self.bar = tqdm(total=args.max_train_steps, initial=first_step, disable=not accelerator.is_local_main_process)
        if accelerator.log_with:
            simple = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in vars(args).items()}
            accelerator.init_trackers(args.tracker_project_name, config=simple)

    def next_batch(self, loader: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch, with the time it took counted."""
        start = time.perf_counter()
        try:
            batch = next(loader)
        except (ValueError, OSError) as error:  # a worker's error carries its whole traceback: its last line says it
            raise SystemExit(f"the data set failed: {str(error).strip().splitlines()[-1]}") from error
        self.waited += time.perf_counter() - start
        for sentence in filter(None, "\n".join(batch["bad"]).split("\n")):
            self.bad_files[sentence] += 1
        return batch

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """The losses of one micro-batch, tensors by name."""
        self.losses.append({name: loss.detach() for name, loss in losses.items()})

    def step(self, step: int, lr: float) -> dict[str, float]:
        """Write the means of one step, and return them."""
        means = torch.stack(
            [torch.stack([row[name] for row in self.losses]).float().mean() for name in self.losses[0]]
        )
        if self.accelerator.num_processes > 1:
            means = self.accelerator.reduce(means, "mean")
        losses = dict(zip(self.losses[0], means.tolist(), strict=True))
        now = time.perf_counter()
        self.shares.append(self.waited / max(now - self.started, 1e-9))
        if self.file:
            bad = {"bad_files": len(self.bad_files)} if self.bad_files else {}
            self.file.write(json.dumps({"step": step, "lr": lr, **losses, **bad}) + "\n")
            self.file.flush()
            self.bar.set_postfix({**{k: f"{v:.3g}" for k, v in losses.items()}, "waits": f"{self.shares[-1]:.0%}"})
        self.bar.update()
        self.accelerator.log({"lr": lr, **losses, "data_wait": self.shares[-1]}, step=step)
        self.losses, self.waited, self.started = [], 0.0, now
        return losses

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """A line with the figures of a validation, on the main process alone."""
        self.file.write(json.dumps({"step": step, "validation": figures}) + "\n")
        self.file.flush()
        self.accelerator.log({f"validation/{name}": value for name, value in figures.items()}, step=step)

    def images(self, pictures: dict[str, Image.Image], step: int) -> None:
        """PIL images by name to the trackers that show images."""
        arrays = {name: np.asarray(picture)[None] for name, picture in pictures.items()}  # (1,H,W,3)
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images(arrays, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images(arrays, step=step)
            elif tracker.name == "trackio":
                import trackio

                tracker.log({name: trackio.Image(array[0]) for name, array in arrays.items()}, step=step)

    def close(self) -> None:
        self.bar.close()
        if self.file:
            shares = sorted(self.shares)
            summary = {
                "steps": len(shares),
                "steps_that_wait_less_than_5_percent": sum(s < 0.05 for s in shares) / max(len(shares), 1),
                "median_wait": shares[len(shares) // 2] if shares else None,
                "bad_files": dict(self.bad_files),
            }
            (self.output_dir / "timing.json").write_text(json.dumps(summary, indent=1) + "\n")
            self.file.close()
            if self.bad_files:
                print(f"{len(self.bad_files)} bad files were passed by, named in timing.json", file=sys.stderr)
        self.accelerator.wait_for_everyone()  # or the group is left while another process is still in its last call
        self.accelerator.end_training()
