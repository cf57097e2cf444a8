"""Train CSRNet or CSRNet-L, from pairs or from a folder of finished photos alone.

accelerate launch training/train_csrnet.py --train_data_dir PHOTOS --output_dir runs/csrnet
accelerate launch training/train_csrnet.py --train_data_dir PHOTOS --network csrnet-l --init runs/csrnet \\
    --output_dir runs/csrnet_l
"""

import argparse
import sys
from pathlib import Path

import torch.nn.functional as F

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.models.csrnet import CSRNet, CSRNetL
from diffretouch.pipelines.pipeline_csrnet import CSRNetPipeline
from diffretouch.training.launch import add_launch_arguments, check_launch_arguments, start
from diffretouch.training.on_pairs import train_on_pairs
from diffretouch.training.pairs import add_pair_arguments, epoch_samples, verify_if_asked


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pair_arguments(parser)
    add("--network", choices=["csrnet", "csrnet-l"], default="csrnet")
    add("--init", help="CSRNetPipeline to start from; csrnet-l also starts from a csrnet, and does what it does")
    add(
        "--train_condition_only",
        action="store_true",
        help="leave the base network as it is: turns one expert's model (--init) into another's",
    )
    add(
        "--keep_aspect",
        action="store_true",
        help="the paper's: whole pairs, each in its own shape and all its bits, the long side --resolution",
    )
    add(
        "--input_space",
        choices=["srgb", "prophoto"],
        default="srgb",
        help="what the network reads, prophoto in the paper",
    )
    add("--untagged_inputs", choices=["srgb", "prophoto"], help="what inputs of 16 bits without a profile are")
    add_launch_arguments(parser, steps=6000, adam_beta2=0.99)
    add("--resolution", type=int, default=128, help="side of the training crops, and of the thumbnails of the model")
    add("--pixel_stride", type=int, default=1, help="csrnet's loss sees every n-th row and column; the condition all")
    add("--train_batch_size", type=int, default=16)
    add("--learning_rate", type=float, default=1e-4)
    add("--halvings", type=int, default=5, help="the learning rate is halved so often, evenly over the training")
    add("--ema_decay", type=float, default=0.998, help="of the weights that are saved; 0: no average")
    add("--dataloader_num_workers", type=int, default=1)
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    if args.train_condition_only and not args.init:
        parser.error("--train_condition_only needs --init: a base network that was trained before.")
    if args.input_space == "prophoto" and not args.keep_aspect:
        parser.error("--input_space prophoto needs --keep_aspect: other samples are 8-bit sRGB.")
    if args.untagged_inputs and args.input_space != "prophoto":
        parser.error("--untagged_inputs is for --input_space prophoto; others without a profile are sRGB.")
    if args.validation_pairs and args.untagged_inputs == "prophoto":
        parser.error("--validation_pairs need profiles: they are opened as any photo is.")
    if args.keep_aspect and args.train_batch_size != 1:
        parser.error("--keep_aspect needs --train_batch_size 1: photos differ in shape.")
    if args.network == "csrnet-l" and args.pixel_stride != 1:
        parser.error("--pixel_stride must be 1 with --network csrnet-l, which looks at neighbouring pixels.")
    return args


def build_network(args: argparse.Namespace) -> CSRNet | CSRNetL:
    """The network that `args` ask for, with what is to be trained marked by `requires_grad`."""
    network = CSRNetPipeline.from_pretrained(args.init).network if args.init else None
    if network is None:
        kind = {"csrnet": CSRNet, "csrnet-l": CSRNetL}[args.network]
        network = kind(condition_size=args.resolution, input_space=args.input_space)
    elif args.network == "csrnet-l" and isinstance(network, CSRNet):
        network = CSRNetL.from_csrnet(network)
    elif isinstance(network, CSRNetL) != (args.network == "csrnet-l"):
        raise SystemExit(f"`--init`: {args.init} holds a {type(network).__name__}, --network asks for {args.network}.")
    if network.config.input_space != args.input_space:
        space = network.config.input_space
        raise SystemExit(f"`--init`: {args.init} takes {space} photos, `--input_space` is {args.input_space}.")
    network.register_to_config(condition_size=args.resolution)
    network.requires_grad_(True).train()
    if args.train_condition_only:
        network.convs.requires_grad_(False)
    return network


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    verify_if_asked(args, args.resolution)
    accelerator, repository = start(args, epoch=lambda: epoch_samples(args, vary=False))

    def losses(retouched, target):  # paper, Sec. 4.1: L1, Adam 1e-4 with beta 0.9 and 0.99, halved in steps
        return {"l1": F.l1_loss(retouched.float(), target)}

    made = {"of": "CSRNetPipeline", "script": "train_csrnet.py"}
    train_on_pairs(args, accelerator, repository, build_network(args), losses, CSRNetPipeline, made)


if __name__ == "__main__":
    main()
