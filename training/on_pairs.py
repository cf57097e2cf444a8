"""The training of networks that make one retouch of a photo, from pairs of photos."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from diffretouch.training.launch import build_optimizer
from diffretouch.training.learning_rate import halved_share, set_rates
from diffretouch.training.model_card import Repository
from diffretouch.training.moving_average import MovingAverage
from diffretouch.training.pairs import batches
from diffretouch.training.steps import begin, finish, go_on, keep_step, stop_if_not_finite


def train_on_pairs(
    args: argparse.Namespace,
    accelerator: Accelerator,
    repository: Repository | None,
    network: torch.nn.Module,
    losses: Callable[[Any, torch.Tensor], dict[str, torch.Tensor]],
    pipeline: Callable[[torch.nn.Module], Any],
    made: dict[str, str],
) -> None:
    """Train what of a network is marked by `requires_grad`, from pairs, with a learning rate that is halved in steps.

    Args:
        args: with those of `add_pair_arguments` and `add_launch_arguments`, and `pixel_stride`, `train_batch_size`,
            `learning_rate`, `halvings`, `ema_decay` and `dataloader_num_workers`.
        accelerator, repository: of `start`.
        network: pixels of the photos (B,3,h,w), whole photos (B,3,H,W) -> what `losses` takes, with the targets.
        losses: all of them, weighted, by name.
        pipeline: the trained network -> what is saved and shown.
        made: "of" and "script" for the model card.
    """
    # 1. Optimizer and schedule
    optimizer = build_optimizer(args, [parameter for parameter in network.parameters() if parameter.requires_grad])
    share = halved_share(args.halvings, args.max_train_steps)
    network, optimizer = accelerator.prepare(network, optimizer)
    ema = MovingAverage(accelerator.unwrap_model(network).parameters(), args.ema_decay)

    # 2. Resume, and data from there on
    first_step = go_on(args, accelerator, optimizer, ema)
    photos, loader = batches(args, accelerator, first_step, vary=False)
    stride = args.pixel_stride

    # 3. The loop
    card = {"data": photos.describe(), "call": "pipe(image).images[0]", **made}
    run = begin(args, accelerator, network, ema, first_step, pipeline, repository=repository, card=card)
    for step in range(first_step, args.max_train_steps):
        batch = run.log.next_batch(loader)
        # What is dropped out is drawn by the step alone: a resumed training draws the same
        torch.manual_seed(
            int(np.random.SeedSequence((args.seed, step, accelerator.process_index)).generate_state(1)[0])
        )
        with accelerator.autocast():
            retouched = network(batch["input"][..., ::stride, ::stride], batch["input"])
        parts = losses(retouched, batch["target"][..., ::stride, ::stride])
        accelerator.backward(stop_if_not_finite(step, parts, batch["name"]))
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        optimizer.step()
        optimizer.zero_grad()
        ema.step()
        run.log.add(parts)
        if keep_step(run, step + 1, rate):
            break
    finish(run)
