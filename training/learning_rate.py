"""The learning rate as a function of the step alone, for every training script.

A schedule that lives in an object which is stepped and saved depends on how often it was stepped: by Accelerate once
for every process, so that a training that goes on with another number of processes gets another curve.
"""

from collections.abc import Callable

import torch
from diffusers.optimization import get_scheduler

Share = Callable[[int], float]


def scheduled_share(name: str, warmup: int, steps: int) -> Share:
    """Step -> share of the full rate, by one of diffusers' schedules.

    Args:
        name: "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts" or "polynomial".
        warmup: steps over which it rises from 0.
        steps: steps of the whole training.

    Raises:
        ValueError: an unknown name.
    """
    unit = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    return get_scheduler(name, unit, num_warmup_steps=warmup, num_training_steps=steps).lr_lambdas[0]


def halved_share(halvings: int, steps: int) -> Share:
    """Step -> share of the full rate, halved so often, evenly over the training (CSRNet, Sec. 4.1)."""
    return lambda step: 0.5 ** int(step * (halvings + 1) / steps)


def set_rates(optimizer: torch.optim.Optimizer, rates: list[float], share: float) -> float:
    """Give each group of the optimizer its full rate times `share`; return the first group's."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * share
    return rates[0] * share
