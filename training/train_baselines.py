"""Train HDRNet or the image-adaptive 3D LUT on the same pairs as CSRNet, to be compared with.

accelerate launch training/train_baselines.py --train_data_dir PHOTOS --network hdrnet --output_dir runs/hdrnet
accelerate launch training/train_baselines.py --train_data_dir PHOTOS --network 3dlut --output_dir runs/3dlut
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.models.adaptive_lut import AdaptiveLut3D, look_up
from diffretouch.models.hdrnet import HDRNet
from diffretouch.pipelines.pipeline_adaptive_lut import AdaptiveLut3DPipeline
from diffretouch.pipelines.pipeline_hdrnet import HDRNetPipeline
from diffretouch.training.launch import add_launch_arguments, build_optimizer, check_launch_arguments, start
from diffretouch.training.learning_rate import halved_share, set_rates
from diffretouch.training.moving_average import MovingAverage
from diffretouch.training.pairs import add_pair_arguments, batches, epoch_samples, verify_if_asked
from diffretouch.training.steps import begin, finish, go_on, keep_step, stop_if_not_finite

NETWORKS = {"hdrnet": (HDRNet, HDRNetPipeline), "3dlut": (AdaptiveLut3D, AdaptiveLut3DPipeline)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pair_arguments(parser)
    add("--network", choices=list(NETWORKS), required=True)
    add("--init", help="pipeline of the same network to start from")
    add_launch_arguments(parser, steps=6000)
    add("--resolution", type=int, default=256, help="side of the training crops")
    add("--pixel_stride", type=int, default=1, help="the loss sees every n-th row and column; the network all")
    add("--train_batch_size", type=int, default=16)
    add("--learning_rate", type=float, default=1e-4)
    add("--halvings", type=int, default=0, help="the learning rate is halved so often, evenly over the training")
    add("--smoothness", type=float, default=1e-4, help="3dlut: weight of uneven tables (paper)")
    add("--monotonicity", type=float, default=10.0, help="3dlut: weight of tables that fall (paper)")
    add("--ema_decay", type=float, default=0.998, help="of the weights that are saved; 0: no average")
    add("--dataloader_num_workers", type=int, default=1)
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    return args


class LutLoss(torch.nn.Module):
    """AdaptiveLut3D with its penalties, as one forward, which is what several processes need."""

    def __init__(self, network: AdaptiveLut3D, **weights: float) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, image: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tables, weights = self.network.table(seen)
        return look_up(tables, image), self.network.regularisation(weights, **self.weights)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    accelerator, repository = start(args, epoch=lambda: epoch_samples(args, vary=False))

    # 1. Network and optimizer (both papers: mean squared error, Adam, 1e-4)
    network_class, pipeline_class = NETWORKS[args.network]
    network = pipeline_class.from_pretrained(args.init).network if args.init else network_class()
    network.train()
    if args.network == "3dlut":
        network = LutLoss(network, smoothness=args.smoothness, monotonicity=args.monotonicity)
    optimizer = build_optimizer(args, network.parameters())
    share = halved_share(args.halvings, args.max_train_steps)
    network, optimizer = accelerator.prepare(network, optimizer)
    ema = MovingAverage(accelerator.unwrap_model(network).parameters(), args.ema_decay)

    # 2. Resume, and data from there on
    first_step = go_on(args, accelerator, optimizer, ema)
    photos, loader = batches(args, accelerator, first_step, vary=False)
    stride = args.pixel_stride

    # 3. The loop
    made = {"of": pipeline_class.__name__, "script": "train_baselines.py", "call": "pipe(image).images[0]"}
    card = {"data": photos.describe(), **made}
    pipeline = lambda trained: pipeline_class(getattr(trained, "network", trained))  # noqa: E731
    run = begin(args, accelerator, network, ema, first_step, pipeline, repository=repository, card=card)
    for step in range(first_step, args.max_train_steps):
        batch = run.log.next_batch(loader)
        # What is dropped out is drawn by the step alone: a resumed training draws the same
        torch.manual_seed(
            int(np.random.SeedSequence((args.seed, step, accelerator.process_index)).generate_state(1)[0])
        )
        with accelerator.autocast():
            retouched = network(batch["input"][..., ::stride, ::stride], batch["input"])
        losses = {}
        if isinstance(retouched, tuple):
            retouched, losses["penalty"] = retouched
        losses["mse"] = F.mse_loss(retouched.float(), batch["target"][..., ::stride, ::stride])
        accelerator.backward(stop_if_not_finite(step, losses, batch["name"]))
        rate = set_rates(optimizer, [args.learning_rate], share(step))
        optimizer.step()
        optimizer.zero_grad()
        ema.step()
        run.log.add(losses)
        if keep_step(run, step + 1, rate):
            break
    finish(run)


if __name__ == "__main__":
    main()
