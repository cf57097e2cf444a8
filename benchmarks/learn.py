"""What `diffretouch learn` makes of few pairs and of many, and what training the model on them does.

    python benchmarks/learn.py PHOTOS                         # ten minutes: 300 of the photos, four tastes
    python benchmarks/learn.py PHOTOS --pairs INPUT TARGET    # also on real pairs
    python benchmarks/learn.py PHOTOS --train --tastes 1      # `--init small --dataset pairs` instead

Finished photos of PHOTOS become pairs: a simulated camera takes the finish away, a simulated photographer of one
taste (`diffretouch.data.tastes`; the last one has another taste for every photo) finishes them. Presets are learned
from 5 to 200 of the pairs and judged on 60 others, once with the prior's weight fixed (the way before) and once chosen
by leave-one-out; printed are mean CIE 1976 colour differences. A photo's grids are interpolated between 25 c, as the
sliders do. `--train` trains the model on the pairs, in a process of its own; other arguments are that training's.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from diffretouch import DiffRetouchPipeline, fitting  # noqa: E402
from diffretouch.colour.lab import srgb_to_lab  # noqa: E402
from diffretouch.data.simulated_experts import camera_input, with_black_point  # noqa: E402
from diffretouch.data.tastes import draw_tastes, taste_version  # noqa: E402
from diffretouch.data.thumbnails import photo_paths  # noqa: E402
from diffretouch.evaluation import pair_names  # noqa: E402
from diffretouch.settings import seed_of  # noqa: E402
from diffretouch.sliders import interpolation_weights, slider_points  # noqa: E402

POINTS = torch.cat(slider_points())
OLD = (1.0,)


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).permute(2, 0, 1)[None]


def sampled(pipe, path, side):
    """-> name, finished photo, what the camera left, and its retouch at any c, whose grids the first call samples."""
    with Image.open(path) as image:
        image.draft("RGB", (4 * side, 4 * side))
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BOX)
    rng = np.random.default_rng(seed_of(path.name))
    pixels = np.asarray(small, np.float32) / 255
    finished = with_black_point(pixels, pixels, rng)
    source = as_tensor(camera_input(finished, rng))

    @cache
    def grids():
        noise = [torch.Generator().manual_seed(seed_of(path.name)) for _ in POINTS]
        return pipe.predict_grid(source, POINTS, generator=noise).half()

    def retouch(c):
        mixed = interpolation_weights(c, POINTS).float() @ grids().flatten(1).float()
        grid = mixed.unflatten(1, grids().shape[1:])
        return pipe.grid_head.apply(grid, source.expand(len(c), -1, -1, -1))

    return path.name, finished, source, retouch


def judged(pairs, others, factors):
    """-> the fit, and its error on the others."""
    fit = fitting._fit_and_judge(pairs, 0, 1, 8, factors)
    values = np.array([*fit.settings.c.values(), fit.settings.strength])
    return fit, mean_error(others, values)


def made_pairs(photos, taste, t):
    """-> a pair of each photo, and its finished version as pixels."""
    pairs, targets = [], []
    for name, finished, source, retouch in photos:
        rng = np.random.default_rng([seed_of(name), t])
        own = taste or draw_tastes(1, int(rng.integers(1 << 31)))[0]
        targets.append(taste_version(finished, own, rng))
        pairs.append(fitting._Pair(name, source, srgb_to_lab(as_tensor(targets[-1])), retouch))
    return pairs, targets


def mean_error(pairs, values):
    return float(np.mean([fitting._error(one, values) for one in pairs]))


def curve(photos, tastes, counts, held_out, draws):
    """Prints a row for each number of pairs."""
    rows = {number: [] for number in counts}
    for t, taste in enumerate(tastes):
        pairs, _ = made_pairs(photos, taste, t)
        others, pool = pairs[:held_out], pairs[held_out:]
        default = mean_error(others, fitting._NEUTRAL)
        for number in counts:
            for draw in range(max(draws // number, 1)):
                order = np.random.default_rng([t, number, draw]).permutation(len(pool))[:number]
                chosen = [pool[n] for n in order]
                before, (fit, now) = judged(chosen, others, OLD)[1], judged(chosen, others, fitting._FACTORS)
                rows[number].append((default, before, now, fit.pays, fit.held_out < fit.automatic, fit.shrink))
                print(f"taste {t}, {number} pairs: {default:.2f} {before:.2f} {now:.2f} written {fit.pays} "
                      f"(falls {fit.held_out < fit.automatic}), shrunk {fit.shrink:g}", file=sys.stderr)  # fmt: skip
    print("| pairs | default | prior fixed | chosen | written | as `learn` leaves it | worst loss | before |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for number, found in rows.items():
        default, before, now, pays = (np.array(column, float) for column in list(zip(*found, strict=True))[:4])
        left = np.where(pays > 0, now, default)
        print(f"| {number} | {default.mean():.2f} | {before.mean():.2f} | {now.mean():.2f} | {pays.sum():.0f} of "
              f"{len(pays)} | {left.mean():.2f} | {(left - default).max():+.2f} | {(before - default).max():+.2f} |",
              flush=True)  # fmt: skip


def trained(pairs, targets, folder, model, settings):
    """-> the model after a training on the pairs: the command that `learn` names, in a process of its own."""
    for side in ("input", "target"):
        (folder / "pairs" / side).mkdir(parents=True)
    for pair, target in zip(pairs, targets, strict=True):
        source = pair.photo[0].permute(1, 2, 0).numpy()
        for side, pixels in (("input", source), ("target", target)):
            path = folder / "pairs" / side / f"{Path(pair.name).stem}.png"
            Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)).save(path)
    command = [sys.executable, "-m", "diffretouch.training.train_diffretouch", "--init", model, "--dataset", "pairs"]
    where = ["--train_data_dir", str(folder / "pairs"), "--output_dir", str(folder / "model")]
    subprocess.run([*command, *where, *settings], check=True, stdout=sys.stderr)
    return quiet(DiffRetouchPipeline.from_pretrained(folder / "model"))


def trained_curve(pipe, photos, tastes, counts, held_out, model, settings):
    """Prints a row for each taste and number of pairs."""
    print("| taste | pairs | default | trained |\n|---:|---:|---:|---:|")
    for t, taste in enumerate(tastes):
        pairs, targets = made_pairs(photos, taste, t)
        for number in counts:
            chosen = held_out + np.random.default_rng([t, number, 0]).permutation(len(pairs) - held_out)[:number]
            with tempfile.TemporaryDirectory() as folder:
                learned = [pairs[n] for n in chosen], [targets[n] for n in chosen]
                own = trained(*learned, Path(folder), model, settings)
            default, after = (
                mean_error([retouched_by(one, pair) for pair in pairs[:held_out]], fitting._NEUTRAL)
                for one in (pipe, own)
            )
            print(f"| {t} | {number} | {default:.2f} | {after:.2f} |", flush=True)


def retouched_by(pipe, one):
    """The pair, retouched by another model."""

    def retouch(c):
        noise = [torch.Generator().manual_seed(seed_of(one.name)) for _ in c]
        return pipe.grid_head.apply(pipe.predict_grid(one.photo, c, generator=noise), one.photo)

    return fitting._Pair(one.name, one.photo, one.lab, retouch)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pairs", nargs=2, type=Path, metavar=("INPUT", "TARGET"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--most", type=int, default=300, help="of the photos")
    parser.add_argument("--held_out", type=int, default=60, help="of them, to judge by")
    parser.add_argument("--tastes", type=int, default=4)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10, 25, 50, 100, 200])
    parser.add_argument("--draws", type=int, default=40, help="pairs in all draws of one number, at least one draw")
    parser.add_argument("--side", type=int, default=96, help="px")
    parser.add_argument("--train", action="store_true", help="train the model, by other arguments given")
    args, settings = parser.parse_known_args()
    if settings and not args.train:
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    warnings.simplefilter("ignore")

    pipe = quiet(DiffRetouchPipeline.from_pretrained(args.model))
    if args.pairs:
        pairs = pair_names(*args.pairs)
        examples = [fitting._load_pair(pipe, *pair, 256, 0, pipe.config.default_steps) for pair in pairs]
        for name, factors in (("fixed", OLD), ("chosen", fitting._FACTORS)):
            fit = fitting._fit_and_judge(examples, 0, pipe.config.default_steps, 8, factors)
            print(f"{len(pairs)} real pairs, prior {name}: default {fit.automatic:.2f}, fitted {fit.fitted:.2f}, held "
                  f"out {fit.held_out:.2f} (gain {fit.gain[0]:.2f}, standard error {fit.gain[1]:.2f}), shrunk "
                  f"{fit.shrink:g}, written {fit.pays}", flush=True)  # fmt: skip
    paths = photo_paths(args.photos)
    paths = [paths[n] for n in np.random.default_rng(0).permutation(len(paths))[: args.most]]
    photos = [sampled(pipe, path, args.side) for path in paths]
    tastes = draw_tastes(12, seed=1)[:: math.ceil(12 / args.tastes)]
    if args.train:
        trained_curve(pipe, photos, tastes, args.counts, args.held_out, args.model, settings)
        return
    print("One taste:")
    curve(photos, tastes, args.counts, args.held_out, args.draws)
    print("Another taste for every photo:")
    curve(photos, [None], args.counts[:4], args.held_out, 2 * args.draws)


if __name__ == "__main__":
    with torch.no_grad():
        main()
