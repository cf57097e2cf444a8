"""How every training script starts and ends: the accelerator, its precision, the output folder, the Hub."""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import ProjectConfiguration, set_seed

from diffretouch.training.checkpoints import check_output_dir, share_the_disk

logger = get_logger(__name__)


def add_launch_arguments(parser: argparse.ArgumentParser, *, steps: int, checkpointing_steps: int = 500) -> None:
    """The flags that every training script has, with the same meaning.

    Args:
        steps: default of `--max_train_steps`.
        checkpointing_steps: default of `--checkpointing_steps`.
    """
    add = parser.add_argument
    add("--output_dir", help="empty, or that of the training to go on with")
    add("--max_train_steps", type=int, default=steps)
    add(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        help="default: what `accelerate launch --mixed_precision` or `accelerate config` says",
    )
    add("--checkpointing_steps", type=int, default=checkpointing_steps)
    add("--checkpoints_total_limit", type=int, default=2)
    add("--resume_from_checkpoint", help='"latest" or a checkpoint directory')
    add("--seed", type=int, default=0)


def check_launch_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raise by `parser.error` unless the training has a folder to write to; looking (`--verify`) needs none."""
    if not args.output_dir and not getattr(args, "verify", False):
        parser.error("--output_dir is needed: an empty folder, or that of the training to go on with")
    if args.max_train_steps < 1:
        parser.error(f"--max_train_steps must be at least 1, got {args.max_train_steps}")


def start(args: argparse.Namespace, *, accumulation: int = 1, log_with: list[str] | None = None) -> Accelerator:
    """Seed, accelerator, and an output folder that may be written to; machines without a common disk keep one each.

    Args:
        args: of `add_launch_arguments`.
        accumulation: batches of a step.
        log_with: Accelerate's trackers.

    Raises:
        SystemExit: the output folder holds another training.
    """
    set_seed(args.seed)
    output_dir = Path(args.output_dir)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=accumulation,
        log_with=log_with or None,
        project_config=ProjectConfiguration(args.output_dir, logging_dir=str(output_dir / "logs")),
    )
    if accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not has_bf16_instructions():
        logger.warning("bf16 on a processor without bf16 instructions is 10 to 15 times slower than float32.")
    if accelerator.is_local_main_process:
        check_output_dir(output_dir, args.resume_from_checkpoint)
    accelerator.wait_for_everyone()
    accelerator.project_configuration.save_on_each_node = not share_the_disk(accelerator, output_dir)
    return accelerator


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bf16 itself; `True` where torch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx10_1", "bf16", "arm_bf16"))
