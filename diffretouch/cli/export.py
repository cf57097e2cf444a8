"""Models for engines without torch."""

from pathlib import Path
from typing import Annotated

import typer

from .loading import load_pipeline, say


def export(
    model: Annotated[str, typer.Argument(help="small, csrnet, a model directory, or a Hub id.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the graphs and model.json. Default: the model's own, `onnx`."),
    ] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Store weights as float32, not float16.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds something.")] = False,
) -> None:
    """Write a model as ONNX graphs and one JSON file: for browsers and programs without torch (docs/onnx.md).

    Without --output the graphs lie beside a model's weights and hold none: with them this command line needs no torch
    for the model (--engine).
    """
    if output is None and float32:
        raise typer.BadParameter("the graphs beside a model's weights hold none.", param_hint="--float32")
    if output is not None and output.is_dir() and any(output.iterdir()) and not overwrite:
        raise typer.BadParameter(f"{output} holds something; --overwrite writes into it.", param_hint="--output")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError("the export needs onnx and onnxruntime: pip install 'diffretouch[onnx]'") from error
    pipe = load_pipeline(model, "cpu", progress=False)
    from diffretouch.pipelines.export_onnx import export_beside, export_onnx
    from diffretouch.settings import GRAPHS

    say(f"Exporting {model} ...")
    if output is None:
        export_beside(pipe, overwrite=overwrite)
        output = Path(pipe.name_or_path, GRAPHS)
    else:
        export_onnx(pipe, output, half=not float32, overwrite=overwrite)
    print(output)
