"""Train HDRNet or the image-adaptive 3D LUT on the same pairs as CSRNet, to be compared with.

accelerate launch training/train_baselines.py --train_data_dir PHOTOS --network hdrnet --output_dir runs/hdrnet
accelerate launch training/train_baselines.py --train_data_dir PHOTOS --network 3dlut --output_dir runs/3dlut
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.models.adaptive_lut import AdaptiveLut3D, look_up
from diffretouch.models.hdrnet import HDRNet
from diffretouch.pipelines.pipeline_adaptive_lut import AdaptiveLut3DPipeline
from diffretouch.pipelines.pipeline_hdrnet import HDRNetPipeline
from diffretouch.training.launch import add_launch_arguments, check_launch_arguments, start
from diffretouch.training.on_pairs import train_on_pairs
from diffretouch.training.pairs import add_pair_arguments, epoch_samples, verify_if_asked

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

    network_class, pipeline_class = NETWORKS[args.network]
    network = pipeline_class.from_pretrained(args.init).network if args.init else network_class()
    network.train()
    if args.network == "3dlut":
        network = LutLoss(network, smoothness=args.smoothness, monotonicity=args.monotonicity)

    def losses(made, target):  # both papers: mean squared error, Adam, 1e-4
        retouched, penalty = made if isinstance(made, tuple) else (made, None)
        return ({} if penalty is None else {"penalty": penalty}) | {"mse": F.mse_loss(retouched.float(), target)}

    pipeline = lambda trained: pipeline_class(getattr(trained, "network", trained))  # noqa: E731
    made = {"of": pipeline_class.__name__, "script": "train_baselines.py"}
    train_on_pairs(args, accelerator, repository, network, losses, pipeline, made)


if __name__ == "__main__":
    main()
