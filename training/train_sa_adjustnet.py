r"""Train SA-AdjustNet on photos retouched by region: simulated local effects, or the photos of Yan et al.

accelerate launch training/train_sa_adjustnet.py --train_data_dir PHOTOS --effect local_xpro --output_dir runs/xpro

accelerate launch training/train_sa_adjustnet.py --dataset yan --train_data_dir AUTOTONED --target_dir STYLE \
  --split_dir LISTS --backbone_weights RESNET50 --scene_data_dir ADE --scene_weight 0.01 --presets 2 \
  --output_dir runs/s
diffretouch evaluate AUTOTONED STYLE --peer runs/s --protocol yan --split LISTS/uniform_set_test_id.txt
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.colour.lab import srgb_to_lab
from diffretouch.data.local_effects import EFFECTS, REGIONS, LocalEffectPhotos
from diffretouch.data.photo_names import read_names
from diffretouch.data.scene_parsing import CLASSES, SceneParse150
from diffretouch.data.yan import YanPhotos
from diffretouch.losses.adjustment import adjustment_loss, moved_usage, scene_loss
from diffretouch.models.sa_adjustnet import SMALL_ADJUSTNET, SAAdjustNet, load_backbone
from diffretouch.pipelines.pipeline_sa_adjustnet import SAAdjustNetPipeline
from diffretouch.training.checkpoints import leave_signals_to_the_loop
from diffretouch.training.launch import add_launch_arguments, build_optimizer, check_launch_arguments, start
from diffretouch.training.learning_rate import scheduled_share, set_rates
from diffretouch.training.steps import begin, finish, go_on, keep_step, stop_if_not_finite


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--train_data_dir", required=True, help="folder of photos; yan: of the autotoned photos")
    add("--dataset", choices=["effects", "yan"], default="effects")
    add("--effect", choices=list(EFFECTS), default="foreground_pop_out", help="effects: what is simulated")
    add("--target_dir", help="yan: folder of one style's photos")
    add("--split_dir", help="yan: folder of the published id lists")
    add("--exclude", help="text file with photo names to leave out, one a line")
    add("--max_train_samples", type=int, help="so many of the photos at most, drawn by --seed")
    add("--on_bad_file", choices=["stop", "skip"], default="stop")
    add("--size", choices=["full", "small"], default="full", help="ResNet-50 on 512 px, or the bundled model's size")
    add("--backbone_weights", help="saved ResNet to start from: a directory or Hub id; random without")
    add("--loss", choices=["huber", "mse"], default="huber")
    add("--huber_delta", type=float, default=0.04, help="in Lab / 100")
    add("--scene_weight", type=float, default=0.0, help="multi-task loss by scene parsing, 0.01 in the paper")
    add("--scene_data_dir", help="SceneParse150; without it the regions of simulated effects stand in for its classes")
    add("--presets", type=int, default=0, help="K of the adjustment map (2, 4, 2 in the paper), 0 for none")
    add("--preset_influence", type=float, default=0.8, help="of how often a preset is used on its weight")
    add("--preset_mixture", type=float, default=0.0, help="share of the loss that is for soft edges, 0 in the paper")
    add("--usage_momentum", type=float, default=0.99)
    add("--pixels", type=int, default=2048, help="random pixels per photo that are trained on")
    add("--train_batch_size", type=int, default=4)
    add("--learning_rate", type=float, default=1e-4)
    add("--backbone_lr_scale", type=float, default=0.5)
    add("--lr_scheduler", default="constant")
    add("--lr_warmup_steps", type=int, default=0)
    add("--max_grad_norm", type=float, default=1.0)
    add("--dataloader_num_workers", type=int, default=0)
    add_launch_arguments(parser, steps=7500)  # the paper's 500 epochs of 60 photos in batches of 4
    args = parser.parse_args(argv)
    check_launch_arguments(parser, args)
    for name in ("preset_influence", "preset_mixture"):
        if not 0 <= getattr(args, name) <= 1:
            parser.error(f"--{name} must lie in [0, 1]")
    if args.presets == 1 or args.presets < 0:
        parser.error("--presets must be 0 or at least 2")
    if args.preset_mixture and not args.presets:
        parser.error("--preset_mixture needs --presets")
    if args.dataset == "yan" and not (args.target_dir and args.split_dir):
        parser.error("--dataset yan needs --target_dir and --split_dir")
    if args.dataset == "yan" and args.exclude:
        parser.error("--exclude is for --dataset effects: --split_dir says which photos of Yan et al. are trained on")
    if args.dataset == "effects" and (args.target_dir or args.split_dir):
        parser.error("--target_dir and --split_dir are for --dataset yan")
    if args.scene_weight and args.dataset == "yan" and not args.scene_data_dir:
        parser.error("--scene_weight needs --scene_data_dir: the photos of Yan et al. come without scene classes")
    if args.scene_data_dir and not args.scene_weight:
        parser.error("--scene_data_dir needs --scene_weight")
    return args


class SparseModel(torch.nn.Module):
    """`SAAdjustNet.sparse` as a forward, as data-parallel training needs it."""

    def __init__(self, network: SAAdjustNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, view: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return self.network.sparse(view, pixels)


def build_network(args: argparse.Namespace) -> SAAdjustNet:
    settings = dict(SMALL_ADJUSTNET) if args.size == "small" else {}
    classes = 0
    if args.scene_weight:
        classes = CLASSES if args.scene_data_dir else len(REGIONS)
    soft = args.preset_mixture > 0
    network = SAAdjustNet(**settings, presets=args.presets, soft_edges=soft, scene_classes=classes)
    if args.backbone_weights:
        load_backbone(network, args.backbone_weights)
    return network


def build_data(args: argparse.Namespace, size: int) -> tuple[YanPhotos | LocalEffectPhotos, SceneParse150 | None]:
    """The pairs, and the scenes of SceneParse150 or `None`; both endless."""
    common = dict(pixels=args.pixels, seed=args.seed, on_bad_file=args.on_bad_file)
    most = args.max_train_samples
    if args.dataset == "yan":
        folders = args.train_data_dir, args.target_dir, args.split_dir
        pairs = YanPhotos(*folders, "train", size, most=most, **common)
    else:
        exclude = read_names(args.exclude) if args.exclude else ()
        pairs = LocalEffectPhotos(args.train_data_dir, args.effect, size, exclude=exclude, most=most, **common)
    return pairs, SceneParse150(args.scene_data_dir, "training", size, **common) if args.scene_data_dir else None


def loader_of(
    data: torch.utils.data.Dataset | None, args: argparse.Namespace, accelerator: Accelerator, samples: Iterable[int]
) -> Iterator[dict[str, Any]] | None:
    """This process' batches of a data set, or `None` for none."""
    if data is None:
        return None
    workers = {"num_workers": args.dataloader_num_workers, "worker_init_fn": leave_signals_to_the_loop}
    loader = torch.utils.data.DataLoader(data, args.train_batch_size, sampler=samples, **workers)
    return iter(accelerator.prepare(loader))


def at_pixels(maps: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(B,C,S,S) at (B,P) positions -> (B,P,C)."""
    return maps.flatten(2).gather(2, pixels[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)


def training_losses(
    model: torch.nn.Module,
    network: SAAdjustNet,
    batch: dict[str, Any],
    scenes: dict[str, Any] | None,
    args: argparse.Namespace,
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """The losses of one batch, weighted, as a dict; and the probabilities of the presets."""
    target = at_pixels(srgb_to_lab(batch["target"]) / 100, batch["pixels"])
    size = len(target)
    # Scenes run in the same forward: batch norm and data-parallel training want one.
    both = batch if scenes is None else {k: torch.cat([batch[k], scenes[k]]) for k in ("input", "pixels")}
    estimates, probabilities, logits = model(both["input"], both["pixels"])
    estimates, probabilities = estimates[:size], None if probabilities is None else probabilities[:size]
    losses = {
        "regression": adjustment_loss(
            estimates.float(),
            probabilities,
            target,
            kind=args.loss,
            delta=args.huber_delta,
            usage=network.usage,
            influence=args.preset_influence,
            mixture=args.preset_mixture,
        )
    }
    if args.scene_weight:
        labelled, logits = (batch, logits) if scenes is None else (scenes, logits[size:])
        scene = at_pixels(labelled["scene"][:, None], labelled["pixels"])[..., 0]
        losses["scene"] = args.scene_weight * scene_loss(logits.float(), scene)
    return losses, probabilities


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    view = SMALL_ADJUSTNET["view_size"] if args.size == "small" else 512
    accelerator, repository = start(args, epoch=lambda: build_data(args, view)[0].describe()["photos"])

    # 1. Model, optimizer and schedule: the backbone learns more slowly
    network = build_network(args)
    backbone = list(network.resnet.parameters())
    known = {id(p) for p in backbone}
    others = [p for p in network.parameters() if id(p) not in known]
    rates = [args.learning_rate * args.backbone_lr_scale, args.learning_rate]
    optimizer = build_optimizer(args, [{"params": backbone}, {"params": others}])
    share = scheduled_share(args.lr_scheduler, args.lr_warmup_steps, args.max_train_steps)
    model, optimizer = accelerator.prepare(SparseModel(network), optimizer)
    network = accelerator.unwrap_model(model).network

    # 2. Resume, and data from there on: sample k is the same whatever was read before
    first_step = go_on(args, accelerator, optimizer)
    per_step = args.train_batch_size * accelerator.num_processes
    data = build_data(args, network.config.view_size)
    samples = range(first_step * per_step, args.max_train_steps * per_step)
    pairs, scenery = (loader_of(photos, args, accelerator, samples) for photos in data)

    # 3. The loop
    made = {"of": "SAAdjustNetPipeline", "script": "train_sa_adjustnet.py", "call": "pipe(image).images[0]"}
    how = {"repository": repository, "card": {"data": data[0].describe(), **made}}
    pipeline = lambda trained: SAAdjustNetPipeline(trained.network)  # noqa: E731
    run = begin(args, accelerator, model, None, first_step, pipeline, **how)
    model.train()
    for step in range(first_step, args.max_train_steps):
        batch = run.log.next_batch(pairs)
        scenes = run.log.next_batch(scenery) if scenery else None
        with accelerator.autocast():
            losses, probabilities = training_losses(model, network, batch, scenes, args)
        accelerator.backward(stop_if_not_finite(step, losses, batch["name"]))
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        set_rates(optimizer, rates, share(step))
        optimizer.step()
        optimizer.zero_grad()
        if probabilities is not None:
            shares = accelerator.reduce(probabilities.detach().float().mean((0, 1)), "mean")
            network.usage.copy_(moved_usage(network.usage, shares[None], args.usage_momentum))
        run.log.add({**losses, **{f"usage_{k}": share for k, share in enumerate(network.usage.clone())}})
        if keep_step(run, step + 1, rates[1] * share(step)):
            break
    finish(run)


if __name__ == "__main__":
    main()
