"""Average the last checkpoints of a training into one model (Izmailov et al., UAI 2018).

python -m diffretouch.training.average_checkpoints runs/small --from_step 1200 --save_dir runs/small/averaged
python -m diffretouch.training.average_checkpoints runs/small runs/tuned --from_step 1000 300 --save_dir runs/averaged

Of a model that goes on trading one figure for another, the mean of its weights along the way has most of both. So has,
with several trainings, of which each went on from the one before, the mean of their means.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.training.checkpoints import checkpoints, step_of, write_model


def average_checkpoints(output_dir: str | os.PathLike[str], from_step: int) -> tuple[DiffRetouchPipeline, list[int]]:
    """The pipeline that `train_diffretouch` wrote, with the mean of the EMA weights of its checkpoints.

    Args:
        output_dir: of the training; `--checkpointing_steps` and `--checkpoints_total_limit` say which are still there.
        from_step (`int`): the first checkpoint that counts.

    Returns:
        [`DiffRetouchPipeline`], and the steps of the checkpoints that were averaged.

    Raises:
        ValueError: fewer than two checkpoints lie there, or one is damaged or of another model.
    """
    found = [path for path in checkpoints(output_dir) if step_of(path) >= from_step]
    if len(found) < 2:
        raise ValueError(f"`from_step` {from_step} leaves {len(found)} checkpoints of {output_dir}, 2 are needed.")
    pipe = DiffRetouchPipeline.from_pretrained(output_dir)
    parameters = _parameters(pipe)
    sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    for path in found:
        try:
            weights = load_file(path / "ema.safetensors")
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        shapes = [tuple(weights[str(i)].shape) for i in range(len(weights))]
        if shapes != [tuple(parameter.shape) for parameter in parameters]:
            raise ValueError(f"{path} holds the weights of another model than {output_dir}.")
        for i, total in enumerate(sums):
            total += weights[str(i)]
    with torch.no_grad():
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.copy_(total / len(found))
    return pipe, [step_of(path) for path in found]


def _parameters(pipe):
    """Of UNet and grid head, as the EMA numbers them."""
    modules = [pipe.unet] if pipe.grid_head is None else [pipe.unet, pipe.grid_head]
    return [parameter for module in modules for parameter in module.parameters()]


def mean_of(pipes: Sequence[DiffRetouchPipeline]) -> DiffRetouchPipeline:
    """The first of some pipelines, with the mean of the weights of all.

    Raises:
        ValueError: they are not of one shape.
    """
    first, *others = map(_parameters, pipes)
    for other in others:
        if [parameter.shape for parameter in other] != [parameter.shape for parameter in first]:
            raise ValueError("The trainings hold the weights of different models.")
    with torch.no_grad():
        for same in zip(first, *others, strict=True):
            same[0].copy_(torch.stack([parameter.double() for parameter in same]).mean(0))
    return pipes[0]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dirs", nargs="+", metavar="output_dir", help="of train_diffretouch.py")
    parser.add_argument(
        "--from_step", type=int, nargs="+", default=[0], help="the first checkpoint that counts, of all or of each"
    )
    parser.add_argument("--save_dir", required=True, help="where the model goes: new or empty")
    args = parser.parse_args(argv)
    save_dir = Path(args.save_dir)
    if save_dir.exists() and (not save_dir.is_dir() or any(save_dir.iterdir())):
        raise SystemExit(f"`--save_dir` {save_dir} must be new or an empty folder.")
    folders, first = args.output_dirs, args.from_step
    first = first * len(folders) if len(first) == 1 else first
    if len(first) != len(folders):
        parser.error(f"--from_step takes one number or one for each of {len(folders)} trainings, got {len(first)}")
    try:
        means = [average_checkpoints(*pair) for pair in zip(folders, first, strict=True)]
        pipe = mean_of([pipe for pipe, _ in means])
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    save_dir.mkdir(parents=True, exist_ok=True)
    write_model(pipe, save_dir)
    for folder, (_, steps) in zip(folders, means, strict=True):
        print(f"{save_dir}: the mean of steps {', '.join(map(str, steps))} of {folder}")


if __name__ == "__main__":
    main()
