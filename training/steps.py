"""What the steps of every training share once it is under way: log, validation, the best model, checkpoints, the end.

A script builds its models and data, calls `begin`, ends each step by `keep_step`, and the training by `finish`.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch.distributed.tensor import DTensor

from diffretouch.training.checkpoints import (
    WRITE_ERRORS,
    agreed,
    best_so_far,
    keep_best,
    resume,
    save_checkpoint,
    stop_agreed,
    stop_signals,
    write_model,
)
from diffretouch.training.log import Log
from diffretouch.training.model_card import Repository, model_card, push
from diffretouch.training.sharding import averaged_model
from diffretouch.training.validation import judged, pairs_digest, read_pairs, show

logger = get_logger(__name__)


@dataclass
class Run:
    """A training under way: made by `begin`, for `keep_step` and `finish`.

    Args:
        args, accelerator, model, ema: as the script has them; the model as it was prepared, `ema` or `None`.
        form: of `shardable`.
        pipeline: unwrapped model -> what is saved and shown.
        retouch: that, a photo (1,3,H,W) in [0,1] -> the retouched one.
        log, stopping: of the loop.
        settings: what `resume` compares.
        card: what the model card says beside the settings, by the names of `model_card`.
        repository: to be pushed to, or `None`.
        pairs: of `read_pairs`, or `None`.
        done, written, figures, best: how far it is; whether the last files could be written; of the last validation.
    """

    args: argparse.Namespace
    accelerator: Accelerator
    model: torch.nn.Module
    ema: object
    pipeline: Callable
    retouch: Callable
    log: Log
    stopping: list
    settings: dict
    card: dict
    form: torch.nn.Module | None = None
    repository: Repository | None = None
    pairs: list | None = None
    done: int = 0
    written: bool = True
    figures: dict = field(default_factory=dict)
    best: dict | None = None

    @property
    def output_dir(self) -> Path:
        return Path(self.args.output_dir)


def go_on(
    args: argparse.Namespace,
    accelerator: Accelerator,
    optimizer: torch.optim.Optimizer,
    ema: Any = None,
    settings: dict | None = None,
) -> int:
    """The step to go on from, everything that was prepared being as it was then; 0 for a new training.

    The optimizer keeps its moments and takes its other settings from the arguments.
    """
    if not args.resume_from_checkpoint:
        return 0
    step = resume(args.resume_from_checkpoint, Path(args.output_dir), accelerator, ema, settings or vars(args))
    for group in optimizer.param_groups:
        group |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        group["weight_decay"] = args.adam_weight_decay
    return step


def retouched(pipe: Any, photo: torch.Tensor) -> torch.Tensor:
    """What a pipeline makes of a photo (1,3,H,W), without being asked for anything: of DiffRetouch, c = 0."""
    asked = {"c": [0.0] * 4, "generator": torch.Generator().manual_seed(0)} if pipe.has_sliders else {}
    pipe.set_progress_bar_config(disable=True)
    return pipe(photo, output_type="pt", **asked).images


def begin(
    args: argparse.Namespace,
    accelerator: Accelerator,
    model: torch.nn.Module,
    ema: Any,
    first_step: int,
    pipeline: Callable,
    *,
    repository: Repository | None = None,
    settings: dict | None = None,
    card: dict | None = None,
    retouch: Callable = retouched,
    form: torch.nn.Module | None = None,
) -> Run:
    """Get a training under way: from now on a signal ends it after the step that is being done."""
    pairs = read_pairs(args.validation_pairs) if args.validation_pairs else None
    best = best_so_far(args.output_dir) if pairs else None
    if best and best.get("pairs") != pairs_digest(pairs):
        logger.warning(
            "the model under `best` was judged by other pairs: the next one that is judged takes its place."
        )
        best = None
    log = Log(accelerator, args, first_step)
    settings = settings or dict(vars(args))
    return Run(args, accelerator, model, ema, pipeline, retouch, log, stop_signals(), settings, card or {},
               form, repository, pairs, done=first_step, best=best)  # fmt: skip


def stop_if_not_finite(step: int, losses: dict[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    """The sum of the losses; one that is NaN or infinite ends the training, and names what was seen."""
    loss = sum(losses.values())
    if not loss.isfinite():
        parts = {name: value.item() for name, value in losses.items()}
        raise SystemExit(f"step {step}: the loss is {loss.item()} {parts}, on these files: {', '.join(names)}")
    return loss


def keep_step(run: Run, done: int, rate: float) -> bool:
    """End a step: log it, validate, write what is due. True where it was the last, or the training is told to stop."""
    args, accelerator = run.args, run.accelerator
    run.done, means = done, run.log.step(done, rate)
    last = done == args.max_train_steps or stop_agreed(run.stopping, accelerator)
    looks = args.validation_dir or run.pairs
    look = looks and (done % args.validation_steps == 0 or last)
    write = done % args.checkpointing_steps == 0 or last
    whole = run.model, run.ema, accelerator, run.form
    if write and not agreed(_all_finite(run.model), accelerator):  # a loss may be finite where its gradient is not
        raise SystemExit(f"step {done}: weights are NaN or infinite; the checkpoints and the model before stay.")
    if look:
        with averaged_model(*whole) as trained:
            if trained is not None:
                training = trained.training
                _look(run, run.pipeline(trained.eval()))
                trained.train(training)
    if write:
        run.written = save_checkpoint(run.output_dir, done, accelerator, run.ema, args.checkpoints_total_limit,
                                      run.settings)  # fmt: skip
    if write:
        with averaged_model(*whole) as trained:
            if trained is not None:
                card = model_card(args, steps=done, losses=means, figures=run.figures,
                                  processes=accelerator.num_processes, **run.card)  # fmt: skip
                run.written = _save(run.pipeline(trained), run.output_dir, card) and run.written
    return last


def _all_finite(model):
    """Whether all weights that this process holds are finite numbers."""
    held = (own.detach() for own in model.parameters())
    return all((part.to_local() if isinstance(part, DTensor) else part).isfinite().all() for part in held)


def _look(run, pipe):
    """Figures and pictures of a validation to log and trackers; the best model so far stays under `best`."""
    if run.args.validation_dir:
        try:
            run.figures |= show(pipe, run.args, run.done, run.log, lambda photo: run.retouch(pipe, photo))
        except OSError as error:  # without its sheets a training goes on
            logger.warning(f"the sheets of step {run.done} cannot be written to {run.output_dir}: {error}")
    if run.pairs is None:
        return
    figures = judged(run.pairs, lambda photo: run.retouch(pipe, photo))
    run.figures |= figures
    run.log.validation(run.done, figures)
    if not math.isnan(figures["psnr"]) and (run.best is None or figures["psnr"] > run.best["psnr"]):
        try:
            keep_best(pipe, run.output_dir, {"step": run.done, "pairs": pairs_digest(run.pairs), **figures})
            run.best = figures
        except WRITE_ERRORS as error:
            logger.warning(f"the best model cannot be written to {run.output_dir}: {error}")


def _save(pipe, output_dir, card):
    """Write a model and its card; `False` where the disk is full."""
    try:
        write_model(pipe, output_dir, card)
    except WRITE_ERRORS as error:
        logger.warning(f"the model cannot be written to {output_dir}: {error}")
        return False
    return True


def finish(run: Run) -> None:
    """Close the log; push what is complete: what was stopped half-way stays here.

    Raises:
        SystemExit: the last checkpoint or model could not be written.
    """
    run.log.close()
    if not run.written:
        raise SystemExit(f"{run.output_dir}: the last checkpoint or model could not be written, see the warnings.")
    if run.repository and run.done == run.args.max_train_steps:
        push(run.repository, run.output_dir, run.done)
