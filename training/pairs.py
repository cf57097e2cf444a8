"""Which pairs a training sees: the arguments of every training script that name a data set, and the data set."""

import argparse
import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import send_to_device

from diffretouch.attributes import check_statistics, label_statistics, measure_attributes
from diffretouch.data.fivek import fivek
from diffretouch.data.paired import PairedPhotos, read_ids
from diffretouch.data.photo_names import read_names
from diffretouch.data.ppr10k import ppr10k
from diffretouch.data.shards import Shards
from diffretouch.data.tastes import draw_tastes, load_looks
from diffretouch.data.thumbnails import Thumbnails, crop_side
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.data.verify import verify
from diffretouch.training.checkpoints import leave_signals_to_the_loop

logger = get_logger(__name__)


def add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--train_data_dir", required=True, help="folder of the data set, photos are searched recursively")
    add(
        "--dataset",
        choices=["photos", "pairs", "fivek", "ppr10k", "shards"],
        default="photos",
        help="photos: finished photos, simulated experts; pairs: folders with the same names; shards: WebDataset",
    )
    add("--expert", nargs="+", help="fivek: letters A-E; ppr10k: a-c; pairs: target folders (target); default all")
    add("--input_folder", help="folder of the inputs: fivek: the one named input; ppr10k: source; pairs: input")
    add("--split", help="text file with the ids to train on, one a line")
    add(
        "--exclude",
        help="text file with names of photos to leave out, one a line; each must be there",
    )
    add("--max_train_samples", type=int, help="so many of the photos at most, drawn by --seed")
    add("--rendering", default="not stated", help="how the files were made, e.g. the program and its settings")
    add("--whole_photos", action="store_true", help="pairs, fivek, ppr10k: no random crops, no flips")
    add("--use_masks", action="store_true", help="ppr10k: also the people's masks")
    add(
        "--simulated_experts",
        type=int,
        default=0,
        help="photos: so many experts of consistent tastes make the targets",
    )
    add("--lut_dir", help="folder of film looks (.cube, .npz) that the simulated experts may use")
    add(
        "--labels",
        choices=["relative", "automatic", "quantile"],
        default="relative",
        help="c by the versions of one photo (the paper); by the distance to what the model itself makes of the photo "
        "with c = 0; or by the place among all photos (the paper's successor)",
    )
    add("--label_statistics", help="json of the quantiles; without it they are measured on the data set")
    add("--on_bad_file", choices=["stop", "skip"], default="stop", help="what a file that cannot be read does")
    add("--thumbnail_dir", help="keep small copies of the photos here: for sets of large files")
    add("--thumbnail_memory", type=int, default=512, help="MiB of small copies kept by each data worker")
    add("--verify", action="store_true", help="report what is wrong with the data set, and exit")


def training_pairs(
    args: argparse.Namespace,
    size: int,
    vary: bool = True,
    statistics: dict | None = None,
    *,
    start: int = 0,
    batch_size: int = 1,
    process: int = 0,
    processes: int = 1,
) -> torch.utils.data.Dataset:
    """The endless data set that `args` name; sample k is `input`, `target` (3,size,size) and `c` (4,), by (seed, k).

    Args:
        args: of `add_pair_arguments`, and `seed`.
        size (`int`): side of the samples.
        vary (`bool`): `False` makes the target the photographer's or expert's own finish and c = 0, for networks that
            take no c.
        statistics (`dict`, *optional*): of `label_statistics`, for quantile labels.
        start, batch_size, process, processes: for shards, which are streams: see `Shards`. The other data sets are
            read at any k: the sampler says which.

    Raises:
        ValueError: what the arguments name is not there or does not fit together.
    """
    strict = not getattr(args, "verify", False)
    options = {"seed": args.seed, "vary": vary, "statistics": statistics, "on_bad_file": args.on_bad_file}
    options["rendering"] = args.rendering
    thumbnails = Thumbnails(crop_side(size), memory=args.thumbnail_memory * 2**20, folder=args.thumbnail_dir)
    folder, experts = Path(args.train_data_dir), args.expert
    exclude = read_names(args.exclude) if args.exclude else ()

    tastes = {}
    if args.simulated_experts or args.lut_dir:
        if args.dataset not in ("photos", "shards"):
            raise ValueError("`--simulated_experts` make targets from finished photos: use `--dataset photos`.")
        looks = load_looks(args.lut_dir) if args.lut_dir else None
        count = args.simulated_experts or 5
        tastes = {"tastes": draw_tastes(count, args.seed, looks=len(looks or ())), "looks": looks}
    if args.label_statistics and args.labels != "quantile":
        raise ValueError(f"`--label_statistics` are for `--labels quantile`, got `--labels {args.labels}`.")
    _refuse(args, "use_masks", ("ppr10k",))
    _refuse(args, "expert", ("pairs", "fivek", "ppr10k"))
    _refuse(args, "whole_photos", ("pairs", "fivek", "ppr10k"))
    _refuse(args, "input_folder", ("pairs", "fivek", "ppr10k"))
    _refuse(args, "keep_aspect", ("pairs", "fivek", "ppr10k"))

    if args.dataset == "shards":
        _refuse(args, "split", ())
        _refuse(args, "exclude", ())
        _refuse(args, "max_train_samples", ())
        place = {"start": start, "batch_size": batch_size, "process": process, "processes": processes}
        return Shards(args.train_data_dir, size, **place, **tastes, **options)
    options |= {"exclude": exclude, "thumbnails": thumbnails, "styled": getattr(args, "unknown_share", 0.0)}
    options["most"] = args.max_train_samples
    if args.dataset == "photos":
        _refuse(args, "split", ())
        if args.exclude:
            options["split"] = f"all but {Path(args.exclude).name}"
        return UnpairedPhotos(folder, size, **tastes, **options)
    options |= {"strict": strict, "crops": not args.whole_photos}
    if getattr(args, "keep_aspect", False):
        options |= {
            "crops": False,
            "squeeze": False,
            "input_space": args.input_space,
            "untagged": args.untagged_inputs,
        }
    if args.dataset == "fivek":
        names = {"input_folder": args.input_folder, "split": args.split}
        return fivek(folder, size, experts=experts or ("ABCDE" if vary else "C"), **names, **options)
    if args.dataset == "ppr10k":
        names = {"input_folder": args.input_folder, "split": args.split, "masks": args.use_masks}
        return ppr10k(folder, size, experts=experts or ("abc" if vary else "a"), **names, **options)
    if args.split:
        options |= {"ids": read_ids(args.split), "split": Path(args.split).name}
    targets = {name: folder / name for name in experts or ["target"]}
    return PairedPhotos(folder / (args.input_folder or "input"), targets, size, **options)


def sample_numbers(n: int, size: int, process: int, processes: int, branch_fraction: float = 0.0) -> range:
    """Which samples make the n-th batch of a process.

    Processes take their parts of the same batch. Every `1/branch_fraction`-th sample costs more, as the UNet runs on
    it again: where a batch is too small to hold its whole part of these, each process takes as many batches in a row
    as do, so that all of them have the same to do at every step and none waits for another.

    Args:
        size: samples of a batch.
        branch_fraction: share of the samples that is run again.
    """
    row = Fraction(branch_fraction * size).limit_denominator(64).denominator
    turn, within = divmod(n, row)
    first = ((turn * processes + process) * row + within) * size
    return range(first, first + size)


def batches(
    args: argparse.Namespace,
    accelerator: Accelerator,
    first_step: int,
    *,
    accumulation: int = 1,
    vary: bool = True,
    statistics: dict | None = None,
    branch_fraction: float = 0.0,
) -> tuple[torch.utils.data.Dataset, Iterator[dict[str, Any]]]:
    """-> the data set, and this process' batches on its device, from `first_step` on.

    Sample k is the same whatever was read before, so a training goes on at any step; and each process takes its part
    of the same batch, so their number changes nothing but speed. (Shards are streams: see `Shards`.)

    Args:
        args: of `add_pair_arguments`, and `seed`, `resolution`, `train_batch_size`, `max_train_steps` and
            `dataloader_num_workers`.
        accumulation (`int`): batches of a step.
        vary, statistics: see `training_pairs`.
        branch_fraction: see `sample_numbers`.
    """
    size, process, processes = args.train_batch_size, accelerator.process_index, accelerator.num_processes
    done, end = (n * accumulation for n in (first_step, args.max_train_steps))
    place = {"start": done * size, "batch_size": size, "process": process, "processes": processes}
    photos = training_pairs(args, args.resolution, vary, statistics, **place)
    if missing := getattr(photos, "missing_ids", ()):  # of a part of the data set, that is as it should be
        some = ", ".join(missing[:5])
        logger.warning(f"`--split` {args.split} lists {len(missing)} photos that are in no folder: {some} ...")
    several = len(getattr(photos, "experts", None) or getattr(photos, "tastes", None) or ()) > 1
    if vary and args.labels == "automatic" and several:
        raise SystemExit("`--labels automatic` needs targets that are c = 0: finished photos or one expert's pairs.")
    if isinstance(photos, torch.utils.data.IterableDataset):
        how = {"batch_size": size}
    else:
        own = (sample_numbers(n, size, process, processes, branch_fraction) for n in range(done, end))
        how = {"batch_sampler": own}
    workers = {"num_workers": args.dataloader_num_workers, "worker_init_fn": leave_signals_to_the_loop}
    loader = torch.utils.data.DataLoader(photos, pin_memory=accelerator.device.type == "cuda", **how, **workers)
    return photos, (send_to_device(batch, accelerator.device, non_blocking=True) for batch in loader)


def epoch_samples(args: argparse.Namespace, *, vary: bool = True) -> int:
    """How many samples go once through the data set: every photo in every expert's version.

    Raises:
        SystemExit: shards, which are streams.
    """
    if args.dataset == "shards":
        raise SystemExit("`--num_train_epochs`: shards are streams, say `--max_train_steps`.")
    return training_pairs(args, args.resolution, vary).order.count


def _refuse(args, name, datasets):
    if getattr(args, name, None) and args.dataset not in datasets:
        fit = f"is for `--dataset {' or '.join(datasets)}`" if datasets else "does not fit"
        raise ValueError(f"`--{name}` {fit}, got `--dataset {args.dataset}`.")


def verify_if_asked(args: argparse.Namespace, size: int) -> None:
    """With `--verify`: print what is wrong with the data set and exit, with code 1 where anything was found."""
    if not args.verify:
        return
    if args.dataset == "shards":
        raise SystemExit("`--verify` looks at folders; shards are checked while they are read (`--on_bad_file`).")
    report = verify(training_pairs(args, size))
    for kind in ("errors", "warnings"):
        for sentence in report[kind]:
            print(f"{kind[:-1]}: {sentence}")
    print(json.dumps({key: report[key] for key in ("figures", "description") if key in report}, indent=1))
    print(f"{len(report['errors'])} errors, {len(report['warnings'])} warnings")
    raise SystemExit(1 if report["errors"] or report["warnings"] else 0)


STATISTICS_SAMPLES = 512


def statistics_for(args: argparse.Namespace, size: int, output_dir: str | os.PathLike[str]) -> dict | None:
    """The statistics of quantile labels: from `--label_statistics`, the output folder, or measured; else `None`.

    They belong to the model, so a training that goes on takes those it began with.
    """
    if args.labels != "quantile":
        return None
    kept = Path(output_dir) / "label_statistics.json"
    if args.label_statistics or kept.is_file():
        path = Path(args.label_statistics or kept)
        try:
            statistics = json.loads(path.read_text())
            check_statistics(statistics)
        except (OSError, ValueError) as error:
            raise SystemExit(f"`--label_statistics` {path} cannot be used: {error}") from error
        return statistics
    if args.resume_from_checkpoint and any(Path(output_dir).glob("checkpoint-*")):
        raise SystemExit(f"{kept} is missing: a training with quantile labels goes on with its own statistics only.")
    photos = training_pairs(args, size)
    if isinstance(photos, PairedPhotos) and len(photos.experts) > 1:
        chosen = [photos.order(k) // len(photos.experts) for k in range(STATISTICS_SAMPLES)]
        scores = torch.cat([photos.scores(photo) for photo in dict.fromkeys(chosen)])
    else:
        samples = iter(photos) if args.dataset == "shards" else (photos[k] for k in range(STATISTICS_SAMPLES))
        scores = torch.cat([measure_attributes(next(samples)["target"][None]) for _ in range(STATISTICS_SAMPLES)])
    statistics = label_statistics(scores)
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(".tmp")
    aside.write_text(json.dumps(statistics) + "\n")
    os.replace(aside, kept)
    return statistics
