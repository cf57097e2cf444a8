"""Checkpoints that a training comes back from bit-exact, and stops that write one first: for every training script."""

import json
import os
import shutil
import signal
from pathlib import Path

from accelerate.logging import get_logger
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

logger = get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_signals():
    """From now on SIGTERM and SIGINT end no step: they fill the list that is returned."""
    stopping = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.append(True))
    return stopping


def leave_signals_to_the_loop(worker):
    """A signal to the whole process group must not take the data away under the last step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def save_checkpoint(output_dir, step, accelerator, ema, limit):
    """Write `checkpoint-<step>` aside, rename it when whole, then remove the oldest beyond `limit`."""
    final, aside = output_dir / f"checkpoint-{step}", output_dir / f"checkpoint-{step}.tmp"
    accelerator.save_state(str(aside))
    if accelerator.is_main_process:
        save_file(
            {str(i): p.detach().cpu().contiguous() for i, p in enumerate(ema.shadow_params)}, aside / "ema.safetensors"
        )
        (aside / "step.json").write_text(json.dumps({"step": step, "ema_step": ema.optimization_step}))
        if final.exists():
            shutil.rmtree(final)
        os.replace(aside, final)
        for old in checkpoints(output_dir)[:-limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints(output_dir):
    """Whole checkpoints, oldest first."""
    found = [p for p in output_dir.glob("checkpoint-*") if p.suffix != ".tmp"]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def resume(name, output_dir, accelerator, ema):
    """Load the named checkpoint, or the latest that can be read; return the step to go on from."""
    candidates = checkpoints(output_dir)[::-1] if name == "latest" else [Path(name)]
    for path in candidates:
        try:
            state = json.loads((path / "step.json").read_text())
            shadow = load_file(path / "ema.safetensors")
            accelerator.load_state(str(path))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            logger.warning(f"{path} cannot be read, trying the one before: {error}")
            continue
        ema.shadow_params = [shadow[str(i)].to(accelerator.device) for i in range(len(shadow))]
        ema.optimization_step = state["ema_step"]
        return state["step"]
    if name == "latest" and not candidates:
        return 0
    raise SystemExit(
        f"`--resume_from_checkpoint`: no checkpoint under {output_dir if name == 'latest' else name} can be read."
    )
