"""Released checkpoints into models of this library."""

from pathlib import Path
from typing import Annotated

import typer

from .loading import say


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The released checkpoint (.ckpt, .pth, .safetensors).")],
    output: Annotated[Path, typer.Argument(help="Folder for the converted pipeline.")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    flip_temperature: Annotated[bool, typer.Option(help="The weights' + temperature is cooler.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the folder.")] = False,
) -> None:
    """Turn a released DiffRetouch or CSRNet checkpoint into a pipeline of this library."""
    say(f"Converting {checkpoint} ...")
    from diffretouch.training.convert import convert_csrnet, convert_diffretouch, holds_csrnet

    if holds_csrnet(checkpoint):
        if dtype != "float32" or flip_temperature:
            raise typer.BadParameter("for a DiffRetouch checkpoint, this is a CSRNet.", param_hint="--dtype")
        convert_csrnet(checkpoint, output, overwrite=overwrite)
    else:
        convert_diffretouch(checkpoint, output, dtype=dtype, flip_temperature=flip_temperature, overwrite=overwrite)
    print(output)
