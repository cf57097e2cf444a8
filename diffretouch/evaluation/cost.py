"""What a retouch costs: parameters, multiply-adds, time and peak memory, for all methods in one run."""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffretouch.evaluation.methods import Method
    from diffretouch.evaluation.pairs import Pair

COST_SIZE = 512  # long side of the photo, px
_VAE = ("vae",)  # components that take no part in a retouch


def count_parameters(pipe: "DiffusionPipeline") -> int:
    """Parameters of the networks of a pipeline that a retouch runs."""
    parts = getattr(pipe, "components", {})
    networks = [part for name, part in parts.items() if name not in _VAE and hasattr(part, "parameters")]
    return sum(p.numel() for p in {p for network in networks for p in network.parameters()})  # shared ones once


def measure_costs(
    methods: "Sequence[Method]", source: torch.Tensor, target: torch.Tensor, pair: "Pair", *, repeats: int = 3,
    device: str = "cpu",
) -> dict:  # fmt: skip
    """The cost of each method at `COST_SIZE` px, after one call to warm up.

    Multiply-adds are counted on noise that no colour or edge of a photo decides: a square of `COST_SIZE` px, of more
    levels than 8 bits (photos of 8 bits may be retouched by their colours, fewer the fewer there are). Time and memory
    are those of the photo.

    Args:
        methods: of [`Method`].
        source, target (`torch.Tensor`): (1,3,H,W) in [0,1]; brought to a long side of `COST_SIZE` and 8 bits.
        pair ([`Pair`]): where they come from.
        repeats (`int`): calls of which the median time is taken.
        device (`str`): where the methods run: whose memory is measured.

    Returns:
        `dict`: method -> `parameters`; `multiply_adds` (half of what torch's FlopCounterMode counts: the convolutions
        and matrix products of torch; lookups and slicing by compiled loops are not counted); `seconds`; `memory`
        (bytes beyond what was held before the call, at the peak; None where the system does not tell); `size` (width,
        height) of the photo.
    """
    ratio = COST_SIZE / max(source.shape[-2:])
    shape = [max(round(side * ratio), 1) for side in source.shape[-2:]]
    fit = lambda x: torch.nn.functional.interpolate(x, shape, mode="bilinear", antialias=True)  # noqa: E731
    source, target = ((fit(x) * 255).round() / 255 for x in (source, target))
    noise = torch.rand(2, 1, 3, COST_SIZE, COST_SIZE, generator=torch.Generator().manual_seed(0))
    costs = {}
    for method in methods:
        with FlopCounterMode(display=False) as counter:
            method.retouch(*noise, pair)
        method.retouch(source, target, pair)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            method.retouch(source, target, pair)
            _finish(device)
            seconds.append(time.perf_counter() - start)
        costs[method.name] = {
            "parameters": method.parameters,
            "multiply_adds": counter.get_total_flops() // 2,
            "seconds": statistics.median(seconds),
            "memory": _peak_memory(lambda method=method: method.retouch(source, target, pair), device),
            "size": shape[::-1],
        }
    return costs


def _finish(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(function, device):
    """Bytes that a call holds at its peak, beyond those held before: of the device, if that is one of CUDA."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else the call would take again, unseen, what was freed before
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0)


def _status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))
