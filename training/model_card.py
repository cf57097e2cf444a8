"""The card of a trained model, with the settings that it was really trained with, and its way to the Hub."""

import argparse
import json
import os
import sys
from importlib.metadata import version
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData, create_repo, upload_folder
from huggingface_hub.errors import HfHubHTTPError

_VERSIONS = ("torch", "diffusers", "accelerate", "transformers")


class Repository(NamedTuple):
    """A repository on the Hub that may be pushed to, and with what."""

    name: str
    token: str | None = None


def model_card(
    args: argparse.Namespace, *, steps: int, data: dict[str, Any], losses: dict[str, float],
    figures: dict[str, float] | None = None, processes: int = 1, parameters: int | None = None, frozen: int = 0,
    of: str = "DiffRetouchPipeline",
    script: str = "train_diffretouch.py", call: str = 'pipe(image, c={"brightness": 0.5}).images[0]',
) -> str:  # fmt: skip
    """The text of `README.md`.

    Args:
        args: the settings of the training.
        steps (`int`): that were done.
        data (`dict`): the data set's `describe`.
        losses (`dict`): of the last step.
        figures (`dict`, *optional*): of the last validation.
        processes (`int`): that trained together.
        parameters (`int`, *optional*): of the model.
        frozen (`int`): how many of them were not trained.
        of, script, call (`str`): what opens the model, what made it, and how it is used.
    """
    import diffretouch

    head = ModelCardData(library_name="diffusers", tags=["photo-retouching", "image-enhancement", "diffretouch"])
    batch = args.train_batch_size * getattr(args, "gradient_accumulation_steps", 1) * processes
    rows = [f"| `{key}` | {_cell(value)} |" for key, value in sorted(vars(args).items()) if value is not None]
    versions = [f"{name} {version(name)}" for name in _VERSIONS]
    size = f" of {parameters:,} parameters" if parameters else ""
    if frozen:
        size += f" ({frozen:,} of them, to which one token gives no effect, were left as they were)"
    text = [
        f"---\n{head.to_yaml()}\n---\n",
        f"# A {of.removesuffix('Pipeline')} model\n",
        f"A retouching model{size}, trained for {steps} of {args.max_train_steps} steps of {batch} pairs by "
        f"`training/{script}` of diffretouch {diffretouch.__version__} ({', '.join(versions)}).\n",
        f"```python\nfrom {'diffretouch' if of.endswith('Pipeline') else 'diffusers'} import {of}\n\n"
        f'pipe = {of}.from_pretrained("...")  # this folder or repository\n'
        f"{call}\n```\n",
        f"## Data\n\n```json\n{json.dumps(data, indent=1, default=str)}\n```\n",
        "## Losses at the last step\n\n| loss | weighted |\n|---|---|",
        *(f"| {name} | {value:.5g} |" for name, value in losses.items()),
    ]
    if figures:
        text += ["\n## Last validation\n\n| figure | |\n|---|---|"]
        text += [f"| {name} | {value:.3f} |" for name, value in figures.items()]
    text += ["\n## Settings\n\n| | |\n|---|---|", *rows]
    return "\n".join(text) + "\n"


def _cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")


def open_repository(args: argparse.Namespace) -> Repository | None:
    """Make sure, before hours of training, that the Hub takes what will be pushed; return the [`Repository`]."""
    if not args.push_to_hub:
        return None
    name = args.hub_model_id or args.output_dir.rstrip("/").rsplit("/", 1)[-1]
    try:
        made = create_repo(name, exist_ok=True, private=args.hub_private, token=args.hub_token)
        return Repository(made.repo_id, args.hub_token)
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SystemExit(f"`--push_to_hub`: the repository {name} cannot be opened: {reason}") from error


def push(repository: Repository, output_dir: str | os.PathLike[str], step: int) -> None:
    """Upload the model, its card and its validation sheets; checkpoints and logs stay here."""
    try:
        upload_folder(
            repo_id=repository.name,
            token=repository.token,
            folder_path=output_dir,
            commit_message=f"{step} steps",
            allow_patterns=["*.json", "*.safetensors", "README.md", "validation/*.png"],
            ignore_patterns=["checkpoint-*", "checkpoint-*/**", "logs/**", "timing.json", "best/**"],
        )
    except (OSError, ValueError, HfHubHTTPError) as error:  # the model is trained and lies in output_dir
        said = f"`--push_to_hub`: {repository.name} was not reached, the model is in {output_dir}: {error}"
        print(said, file=sys.stderr)
