"""How every training script starts: its common arguments, the accelerator and its precision, the output folder."""

import argparse
import atexit
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, ProjectConfiguration, parse_flag_from_env, set_seed
from torch.distributed.fsdp import MixedPrecisionPolicy

from diffretouch.training.checkpoints import check_output_dir, share_the_disk
from diffretouch.training.log import TRACKERS, check_trackers
from diffretouch.training.model_card import Repository, open_repository

logger = get_logger(__name__)


def add_launch_arguments(
    parser: argparse.ArgumentParser,
    *,
    steps: int,
    checkpointing_steps: int = 500,
    adam_beta2: float = 0.999,
    weight_decay: float = 0.0,
) -> None:
    """The flags that every training script has, with the same meaning, as diffusers' scripts name them.

    Args:
        steps: default of `--max_train_steps`.
        checkpointing_steps: default of `--checkpointing_steps`.
        adam_beta2, weight_decay: defaults of the optimizer.
    """
    add = parser.add_argument
    add("--output_dir", help="empty, or that of the training to go on with")
    add("--max_train_steps", type=int, help=f"{steps} without --num_train_epochs, which it overrides")
    add("--num_train_epochs", type=int, help="so many times through the data set")
    parser.set_defaults(_steps=steps)
    add(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        help="default: what `accelerate launch --mixed_precision` or `accelerate config` says",
    )
    add("--checkpointing_steps", type=int, default=checkpointing_steps)
    add("--checkpoints_total_limit", type=int, default=2)
    add("--resume_from_checkpoint", help='"latest" or a checkpoint directory')
    add("--seed", type=int, default=0)
    add("--allow_tf32", action="store_true", help="matrix products of 10 bits on Ampere GPUs and later: faster")
    add("--adam_beta1", type=float, default=0.9)
    add("--adam_beta2", type=float, default=adam_beta2)
    add("--adam_weight_decay", "--weight_decay", type=float, default=weight_decay)
    add("--adam_epsilon", type=float, default=1e-8)
    add("--report_to", nargs="+", choices=TRACKERS, default=[], help="beside log.jsonl, which is always written")
    add("--tracker_project_name", default="diffretouch")
    add("--validation_dir", help="photos on which the model is shown while it learns")
    add("--validation_pairs", help="folder of `input` and `target`: PSNR and dE76, and the best model under `best`")
    add("--validation_steps", type=int, default=500)
    add("--push_to_hub", action="store_true")
    add("--hub_model_id", help="default: the name of the output folder")
    add("--hub_private", action="store_true")
    add("--hub_token", help="default: that of `hf auth login`; it is written nowhere")


def check_launch_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raise by `parser.error` unless the training has a folder to write to; looking (`--verify`) needs none."""
    if not args.output_dir and not getattr(args, "verify", False):
        parser.error("--output_dir is needed: an empty folder, or that of the training to go on with")
    steps = vars(args).pop("_steps")
    if args.max_train_steps is None and args.num_train_epochs is None:
        args.max_train_steps = steps
    counts = ("max_train_steps", "num_train_epochs", "max_train_samples", "train_batch_size")
    for name in (*counts, "validation_steps", "checkpointing_steps", "checkpoints_total_limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(args, name) < 1:
            parser.error(f"--{name} must lie in [0, 1), got {getattr(args, name)}")


def start(
    args: argparse.Namespace, *, accumulation: int = 1, epoch: Callable[[], int]
) -> tuple[Accelerator, Repository | None]:
    """Seed, accelerator, and an output folder that may be written to; machines without a common disk keep one each.

    Epochs become steps here; and the Hub, where it is wanted, is asked for a repository.

    Args:
        args: of `add_launch_arguments`.
        accumulation: batches of a step.
        epoch: tells how many samples go once through the data set.

    Raises:
        SystemExit: the output folder holds another training; a tracker is not installed; the Hub is not reached.
    """
    check_trackers(args.report_to)
    set_seed(args.seed)
    if args.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    output_dir = Path(args.output_dir)
    sharding = parse_flag_from_env("ACCELERATE_USE_FSDP")
    accelerator = Accelerator(
        fsdp_plugin=fsdp_plugin() if sharding else None,
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=accumulation,
        log_with=args.report_to or None,
        project_config=ProjectConfiguration(args.output_dir, logging_dir=str(output_dir / "logs")),
    )
    if sharding and accelerator.distributed_type != DistributedType.FSDP:
        raise SystemExit("FSDP was asked for, but Accelerate does not shard here: it needs two processes and GPUs.")
    keep_group(accelerator)
    tell_deepspeed(accelerator, args, accumulation)
    if accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not has_bf16_instructions():
        logger.warning("bf16 on a processor without bf16 instructions is 10 to 15 times slower than float32.")
    if accelerator.is_local_main_process:
        check_output_dir(output_dir, args.resume_from_checkpoint)
    accelerator.wait_for_everyone()
    accelerator.project_configuration.save_on_each_node = not share_the_disk(accelerator, output_dir)
    if args.max_train_steps is None:
        batch = args.train_batch_size * accumulation * accelerator.num_processes
        args.max_train_steps = math.ceil(args.num_train_epochs * epoch() / batch)
    repository = open_repository(args) if accelerator.is_main_process else None
    vars(args).pop("hub_token")  # settings are written into checkpoints, cards and trackers
    return accelerator, repository


def keep_group(accelerator: Accelerator) -> None:
    """Hold the processes' group until Python ends, so that no model is its last owner.

    A group's end waits for its threads. What DistributedDataParallel holds ends with the interpreter's lock held, for
    which a thread that still owns a tensor of the last call waits in turn: the process would stand for ever. What
    Python holds ends without the lock.
    """
    if accelerator.num_processes > 1 and torch.distributed.is_initialized():
        atexit.register(lambda group: None, torch.distributed.group.WORLD)


def build_optimizer(args: argparse.Namespace, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """AdamW, which without decay is Adam; with moments in 8 bits where that was asked for.

    Raises:
        SystemExit: `--use_8bit_adam` without bitsandbytes, or without a GPU that it supports.
    """
    adam = torch.optim.AdamW
    if getattr(args, "use_8bit_adam", False):
        try:
            from bitsandbytes.optim import AdamW8bit as adam
        except (ImportError, RuntimeError) as error:
            raise SystemExit(f"`--use_8bit_adam` needs bitsandbytes and a GPU that it supports: {error}") from error
    more = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    return adam(parameters, args.learning_rate, weight_decay=args.adam_weight_decay, **more)


def fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """FSDP2 as `accelerate launch` configures it, but with float32 weights and photos under autocast.

    Accelerate's own policy would cast what goes into the model: photos in bf16 are off by a level or more, and so is
    the guide.

    Raises:
        SystemExit: FSDP1, which flattens weights that are averaged and saved by name here.
    """
    if os.environ.get("FSDP_VERSION", "1") != "2":  # Accelerate's own default is 1
        raise SystemExit("FSDP 1 is not supported: set `fsdp_version: 2`, see training/accelerate/fsdp2.yaml.")
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def tell_deepspeed(accelerator: Accelerator, args: argparse.Namespace, accumulation: int) -> None:
    """What DeepSpeed would read off a loader and a config file, before `prepare`: batch, accumulation, clipping.

    The loader itself is not prepared: each process already takes its own part of a batch. Weights stay float32 under
    autocast, as with FSDP: in bf16 DeepSpeed would cast them, and the model that is saved would be rounded to that.
    """
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        if plugin.zero_stage == 3 and getattr(args, "ema_decay", 0):
            raise SystemExit("DeepSpeed's ZeRO-3 keeps no average of its weights: use `--ema_decay 0`, or FSDP2.")
        plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": args.train_batch_size,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": getattr(args, "max_grad_norm", 0.0),
        }
        if accelerator.mixed_precision == "bf16":
            autocast = {"enabled": True, "dtype": "bfloat16"}
            plugin.deepspeed_config |= {"bf16": {"enabled": False}, "torch_autocast": autocast}


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bf16 itself; `True` where torch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx10_1", "bf16", "arm_bf16"))
