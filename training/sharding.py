"""Weights that are dealt out to the processes (FSDP2, DeepSpeed's ZeRO-3), and how a whole model is made of them."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from diffretouch.training.moving_average import MovingAverage


def sharded(accelerator: Accelerator) -> bool:
    """Whether `accelerator.prepare` deals weights out, or moments that it flattens (DeepSpeed, of any stage)."""
    return accelerator.distributed_type == DistributedType.FSDP or accelerator.state.deepspeed_plugin is not None


def all_must_run(model: torch.nn.Module) -> bool:
    """Whether a forward of the prepared model waits for the other processes: one that leaves it out stops them all."""
    return isinstance(model, FSDPModule) or type(model).__name__ == "DeepSpeedEngine"


def shardable(model: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module | None:
    """Make a model ready to be sharded, before its optimizer is built; return its form without weights.

    FSDP2 deals out rows, and DeepSpeed sends weights as bytes: parameters without a dimension get one of length 1,
    until they are saved. `None` is returned where the weights stay as they are.
    """
    if not sharded(accelerator):
        return None
    empty = {
        id(p): torch.nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    form = copy.deepcopy(model, empty)
    for module in model.modules():
        for name, own in list(module.named_parameters(recurse=False)):
            if not own.ndim:
                setattr(module, name, torch.nn.Parameter(own.detach()[None], requires_grad=own.requires_grad))
    return form


@contextlib.contextmanager
def averaged_model(
    model: torch.nn.Module, ema: MovingAverage | None, accelerator: Accelerator, form: torch.nn.Module | None = None
) -> Iterator[torch.nn.Module | None]:
    """The whole model with averaged weights on the main process, for as long as the block lasts; elsewhere `None`.

    Every process must come here: where weights are sharded they are gathered, one process keeping them all.

    Args:
        model: as it was prepared.
        form: of `shardable`.
    """
    if form is None and not accelerator.is_main_process:
        yield None
        return
    with ema.in_place() if ema is not None else contextlib.nullcontext():
        if form is None:
            yield accelerator.unwrap_model(model)
            return
        weights = accelerator.get_state_dict(model)
    whole = None
    if accelerator.is_main_process:
        whole = copy.deepcopy(form)
        shapes = {name: own.shape for name, own in whole.state_dict().items()}
        whole.load_state_dict({name: own.reshape(shapes[name]) for name, own in weights.items()}, assign=True)
    yield whole
