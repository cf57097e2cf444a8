"""Checkpoints that a training comes back from bit-exact, and stops that write one first: for every training script."""

import atexit
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

logger = get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# What a training may change when it goes on without becoming another one
_FREE_SETTINGS = {
    "output_dir",
    "resume_from_checkpoint",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "dataloader_num_workers",
    "report_to",
    "validation_dir",
    "validation_pairs",
    "validation_steps",
    "tracker_project_name",
    "push_to_hub",
    "hub_model_id",
    "hub_private",
    "thumbnail_dir",
    "ema_on_cpu",
}


WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)  # torch reports a full disk as RuntimeError
_READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.PickleError, SafetensorError)


def stop_signals() -> list[bool]:
    """From now on SIGTERM and SIGINT end no step: they fill the list that is returned."""
    stopping = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.append(True))
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)
    return stopping


def _end_workers():
    """Data workers ignore SIGTERM, by which Python would end those that an error left waiting, and wait for ever."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def stop_agreed(stopping: list[bool], accelerator: Accelerator) -> bool:
    """Whether any process was told to stop: all of them hear it at the same step, or some would wait for ever."""
    return not agreed(not stopping, accelerator)


def leave_signals_to_the_loop(worker: int) -> None:
    """A signal to the whole process group must not take the data away under the last step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def check_output_dir(output_dir: str | os.PathLike[str], resuming: object) -> None:
    """Refuse to start a new training over the files of another."""
    output_dir = Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise SystemExit(f"`--output_dir` must be a folder, got the file {output_dir}.")
    if not resuming and output_dir.is_dir() and any(output_dir.iterdir()):
        raise SystemExit(
            f"`--output_dir` {output_dir} is not empty: name another, or go on with `--resume_from_checkpoint latest`."
        )


def share_the_disk(accelerator: Accelerator, output_dir: Path) -> bool:
    """Whether every process finds the output folder of the first one at the same place: machines may not."""
    if accelerator.num_processes == 1:
        return True
    token = broadcast_object_list([f".{uuid.uuid4().hex}"])[0]
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / token).touch()
    accelerator.wait_for_everyone()
    seen = agreed((output_dir / token).exists(), accelerator)
    if accelerator.is_main_process:
        (output_dir / token).unlink()
    return seen


def agreed(own: object, accelerator: Accelerator) -> bool:
    """Whether something is true on every process."""
    if accelerator.num_processes == 1:
        return bool(own)
    missing = torch.tensor(float(not own), device=accelerator.device)
    return accelerator.reduce(missing, "sum").item() == 0


def save_checkpoint(
    output_dir: Path, step: int, accelerator: Accelerator, ema: Any, limit: int, settings: dict[str, Any] | None = None
) -> bool:
    """Write `checkpoint-<step>` aside, rename it when whole, then remove the oldest beyond `limit`.

    Machines without a common disk write one each: `accelerator.project_configuration.save_on_each_node`.

    Args:
        output_dir (`Path`)
        step (`int`): steps done.
        accelerator (`Accelerator`): everything that was prepared by it is written.
        ema (`MovingAverage`, *optional*)
        limit (`int`): how many checkpoints stay.
        settings (`dict`, *optional*): what `resume` compares, e.g. `vars(args)`.

    Returns:
        `bool`: `False` where a disk would not take it: then the checkpoints before stay, and a warning says why.
    """
    final, aside = output_dir / f"checkpoint-{step}", output_dir / f"checkpoint-{step}.tmp"
    keeper, failure = _keeps(accelerator), None
    try:
        accelerator.save_state(str(aside))
        shadow = ema.state() if ema is not None else {}
        if keeper:
            state = {"step": step, "ema_step": ema.steps if ema is not None else None}
            settings = {**(settings or {}), "processes": accelerator.num_processes}
            if shadow:
                save_file(shadow, aside / "ema.safetensors")
            (aside / "step.json").write_text(json.dumps({**state, "settings": settings}, default=str))
    except WRITE_ERRORS as error:
        failure = error
    whole = agreed(failure is None, accelerator)  # each process has written its part
    if keeper and whole:
        try:
            if final.exists():
                shutil.rmtree(final)
            os.replace(aside, final)
            for old in checkpoints(output_dir)[: -max(limit, 1)]:
                shutil.rmtree(old)
        except WRITE_ERRORS as error:
            failure = error
    if failure is not None:
        logger.warning(f"{final} cannot be written, those before stay: {failure}", main_process_only=False)
    if keeper:
        shutil.rmtree(aside, ignore_errors=True)
    return agreed(whole and failure is None, accelerator)


def _keeps(accelerator):
    """Whether this process writes and removes what several see: one for each disk."""
    each_node = accelerator.project_configuration.save_on_each_node
    return accelerator.is_local_main_process if each_node else accelerator.is_main_process


def _leave_later(output_dir, step):
    """Put checkpoints of later steps aside, or the next start would go on from them; remove what a kill cut short."""
    for path in checkpoints(output_dir):
        if step_of(path) > step:
            left = path.with_name(f"{path.name}.left")
            shutil.rmtree(left, ignore_errors=True)
            os.replace(path, left)
            logger.warning(f"{path} is of a later step than {step}, which is gone on from: it is {left.name} now.")
    for path in output_dir.glob("checkpoint-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def checkpoints(output_dir: str | os.PathLike[str]) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """How many steps were done at a checkpoint, by its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def resume(
    name: str, output_dir: Path, accelerator: Accelerator, ema: Any, settings: dict[str, Any] | None = None
) -> int:
    """Load the named checkpoint, or the latest that can be read; return the step to go on from.

    The first process chooses, and every process must find that checkpoint, of the same step, at its place. With other
    `settings` or another number of processes than those of the checkpoint it goes on, and says which. Checkpoints of
    later steps, which are done again, are renamed.
    """
    found = [path.name for path in checkpoints(output_dir)[::-1]] if name == "latest" else [name]
    if accelerator.num_processes > 1:
        found = broadcast_object_list([found])[0]
    for candidate in found:
        path = output_dir / candidate if name == "latest" else Path(candidate)
        state, shadow, failure = {}, {}, None
        try:
            state = json.loads((path / "step.json").read_text())
            if ema is not None and ema.steps is not None:
                shadow = load_file(path / "ema.safetensors")
        except _READ_ERRORS as error:
            failure = error
        steps = gather_object([state.get("step")]) if accelerator.num_processes > 1 else [state.get("step")]
        if failure is None and len(set(steps)) > 1:
            failure = f"it is not the same on every process, which are at steps {', '.join(map(str, steps))}"
        if agreed(failure is None, accelerator):
            try:
                accelerator.load_state(str(path))
                if ema is not None:
                    ema.load(shadow, state["ema_step"])
            except _READ_ERRORS as error:
                failure = error
        if not agreed(failure is None, accelerator):
            reason = failure or "another process cannot read it"
            logger.warning(f"{path} cannot be read, trying the one before: {reason}", main_process_only=False)
            continue
        settings = json.loads(json.dumps({**(settings or {}), "processes": accelerator.num_processes}, default=str))
        for key, before in state.get("settings", {}).items():
            if key not in _FREE_SETTINGS and key in settings and settings[key] != before:
                logger.warning(f"resumed with another `{key}`: {settings[key]!r}, the checkpoint has {before!r}.")
        if _keeps(accelerator):
            _leave_later(output_dir, state["step"])
        return state["step"]
    if name == "latest" and not found:
        return 0
    raise SystemExit(
        f"`--resume_from_checkpoint`: no checkpoint under {output_dir if name == 'latest' else name} can be read."
    )


def write_model(pipe: Any, output_dir: Path, card: str | None = None) -> None:
    """Write a pipeline, and its card, aside, then put each file in its place: a failure leaves the one before.

    Folders of its parts hold nothing else then: an adapter before would be taken for whole weights after it.
    """
    aside = output_dir / "model.tmp"
    try:
        pipe.save_pretrained(aside)
        if card is not None:
            (aside / "README.md").write_text(card)
        for part in (path.name for path in aside.iterdir() if path.is_dir()):
            for path in (output_dir / part).glob("*"):
                if not (aside / part / path.name).exists():
                    path.unlink()
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            place = output_dir / path.relative_to(aside)
            place.parent.mkdir(exist_ok=True)
            os.replace(path, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def best_so_far(output_dir: str | os.PathLike[str]) -> dict | None:
    """The figures of the model under `best`, or `None`; what a kill left of the one before is put back."""
    best, before = Path(output_dir) / "best", Path(output_dir) / "best.old"
    if before.is_dir() and not best.is_dir():
        os.replace(before, best)
    try:
        return json.loads((best / "validation.json").read_text())
    except (OSError, ValueError):
        return None


def keep_best(pipe: Any, output_dir: str | os.PathLike[str], figures: dict[str, Any]) -> None:
    """Put a model, and its figures as `validation.json`, in the place of the best so far; one is whole at any time."""
    aside, best, before = (Path(output_dir) / name for name in ("best.tmp", "best", "best.old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        pipe.save_pretrained(aside)
        (aside / "validation.json").write_text(json.dumps(figures, indent=1) + "\n")
        shutil.rmtree(before, ignore_errors=True)
        if best.is_dir():
            os.replace(best, before)
        os.replace(aside, best)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
