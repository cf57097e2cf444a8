"""The command line: `diffretouch retouch | sweep | measure | evaluate | convert`. It only calls the library."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Controllable photo retouching: one photo in, a retouched photo out at full resolution.",
)

_Slider = Annotated[float, typer.Option(min=-3, max=3, help="-1 (less) to 1 (more); beyond extrapolates.")]
_Model = Annotated[str, typer.Option(help="'small' (bundled), a model directory, or a Hub id.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda, mps, ...; auto takes the fastest there is.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
_Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; the model's own by default.")]
_Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise: another seed, another retouch.")]


def main():
    """Entry point: failures end in one sentence and exit code 1, wrong usage in 2."""
    import warnings

    warnings.formatwarning = lambda message, *_: f"Note: {message}\n"
    try:
        app()
    except KeyboardInterrupt:
        _say("Stopped.")
        sys.exit(130)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        _say(f"Error: {' '.join(str(error).split()) or type(error).__name__}")
        sys.exit(1)


def _say(text):
    print(text, file=sys.stderr)


def _load_pipeline(model, device):
    _say(f"Loading the model {model} ...")
    import torch
    from diffusers.utils import logging

    from diffretouch import DiffRetouchPipeline

    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`--device {device}` is not to be had here: {str(error).splitlines()[0]}") from error
    pipe = DiffRetouchPipeline.from_pretrained(model).to(device)
    pipe.set_progress_bar_config(desc="Denoising", delay=1, leave=False)
    return pipe


def _check_output(output, photo, overwrite, names):
    if not output.parent.is_dir():
        raise typer.BadParameter(f"the folder {output.parent} does not exist.", param_hint="--output")
    for name in names:
        if name.exists() and name.resolve() == photo.resolve() and not overwrite:
            raise typer.BadParameter(f"{name} is the input photo; --overwrite replaces it.", param_hint="--output")
        if name.exists() and not overwrite:
            raise typer.BadParameter(f"{name} exists; --overwrite replaces it.", param_hint="--output")


def _load_photo(path):
    """The photo, with a word about what of its file is not carried. Before the model: a wrong file is told at once."""
    from diffretouch.photo import load_photo

    photo = load_photo(path)
    for note in photo.notes:
        _say(f"Note: {path}: {note}")
    return photo


def _depth_for(path, source):
    """The source's bit depth, or the deepest that the output format can hold, with a word about it."""
    from diffretouch.photo.encoders import DEPTHS, SUFFIXES

    depths = DEPTHS.get(SUFFIXES.get(path.suffix.lower()), (source.bit_depth,))
    if source.bit_depth in depths:
        return source.bit_depth
    _say(f"Note: {path} holds {max(depths)} bits a channel, the photo has {source.bit_depth}: TIFF keeps them.")
    return max(depths)


def _colour(name):
    """ "white" or "#f0f0f0" -> three numbers in [0,1]."""
    if name is None:
        return None
    from PIL import ImageColor

    try:
        return tuple(channel / 255 for channel in ImageColor.getrgb(name)[:3])
    except ValueError as error:
        raise typer.BadParameter(f"{name!r} is no colour: white, '#f0f0f0', ...", param_hint="--background") from error


@app.command()
def retouch(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <photo>_retouched beside it.")
    ] = None,
    colorfulness: _Slider = 0.0,
    contrast: _Slider = 0.0,
    temperature: _Slider = 0.0,
    brightness: _Slider = 0.0,
    strength: Annotated[float, typer.Option(min=0, max=2, help="0 the photo, 1 the retouch.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Results from different noise: OUT-1, OUT-2, ...")] = 1,
    seed: _Seed = 0,
    steps: _Steps = None,
    model: _Model = "small",
    device: _Device = "auto",
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="JPEG, WebP, AVIF; as the photo's else.")] = None,
    background: Annotated[str | None, typer.Option(help="Colour under transparent pixels, for JPEG.")] = None,
    overwrite: _Overwrite = False,
):
    """Retouch one photo at its full resolution."""
    output = output or photo.with_name(f"{photo.stem}_retouched{photo.suffix}")
    numbered = [output.with_name(f"{output.stem}-{n + 1}{output.suffix}") for n in range(samples)]
    outputs = numbered if samples > 1 else [output]
    _check_output(output, photo, overwrite, outputs)

    from diffretouch.photo import save_photo

    background, source = _colour(background), _load_photo(photo)
    bit_depth = _depth_for(output, source)
    pipe = _load_pipeline(model, device)
    import torch

    c = {"colorfulness": colorfulness, "contrast": contrast, "temperature": temperature, "brightness": brightness}
    grids = pipe.predict_grid(
        source.pixels,
        c,
        num_inference_steps=steps,
        num_samples=samples,
        generator=[torch.Generator().manual_seed(seed + n) for n in range(samples)],
    )
    settings = {**c, "strength": strength, "steps": steps or pipe.config.default_steps, "model": model}
    for n, (grid, path) in enumerate(zip(grids, outputs, strict=True)):
        save_photo(
            pipe.apply_grid(source.pixels, grid, strength),
            path,
            like=source,
            overwrite=overwrite,
            quality=quality,
            bit_depth=bit_depth,
            background=background,
            description=json.dumps({**settings, "seed": seed + n}),
        )
        print(path)


@app.command()
def sweep(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <photo>_sweep.png beside it.")
    ] = None,
    columns: Annotated[int, typer.Option(min=2, max=21, help="Values from -1 to 1.")] = 5,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Long side of each picture, px.")] = 256,
    seed: _Seed = 0,
    steps: _Steps = None,
    model: _Model = "small",
    device: _Device = "auto",
    overwrite: _Overwrite = False,
):
    """A contact sheet: every attribute from -1 to 1, all from the same noise."""
    output = output or photo.with_name(f"{photo.stem}_sweep.png")
    _check_output(output, photo, overwrite, [output])

    from diffretouch.photo import save_photo

    source = _load_photo(photo)
    pipe = _load_pipeline(model, device)
    import numpy as np

    from diffretouch.sweep import sweep as sheet

    values = np.linspace(-1, 1, columns).round(3).tolist()
    picture = sheet(pipe, source.pixels, values=values, seed=seed, num_inference_steps=steps, cell=size)
    save_photo(np.asarray(picture, np.float32) / 255, output, overwrite=overwrite)
    print(output)


@app.command()
def measure(
    photos: Annotated[list[Path], typer.Argument(help="One photo or more.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
):
    """Measure the four attributes of photos."""
    failed = False
    for number, path in enumerate(photos):
        try:
            pixels = _load_photo(path).pixels
        except (ValueError, OSError) as error:
            _say(f"Error: {error}")
            failed = True
            continue
        import torch

        from diffretouch.attributes import ATTRIBUTES, measure_attributes

        scores = measure_attributes(torch.from_numpy(pixels).permute(2, 0, 1)[None].clamp(0, 1))[0].tolist()
        if as_json:
            print(json.dumps({"photo": str(path), **dict(zip(ATTRIBUTES, scores, strict=True))}))
            continue
        if number == 0:
            print("".join(f"{name:>14}" for name in ATTRIBUTES) + "  photo")
        print("".join(f"{score:14.4f}" for score in scores) + f"  {path}")
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    inputs: Annotated[Path, typer.Argument(help="Folder of untouched photos.")],
    targets: Annotated[Path, typer.Argument(help="Folder of an expert's versions, matched by name.")],
    seed: _Seed = 0,
    steps: _Steps = None,
    model: _Model = "small",
    device: _Device = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the report as JSON.")] = None,
):
    """PSNR and colour difference to an expert: untouched, automatic (c = 0), and with c from the expert's version."""
    from diffretouch.evaluation import evaluate_pairs, pair_names, report_table

    pairs = pair_names(inputs, targets)
    report = evaluate_pairs(_load_pipeline(model, device), pairs, seed=seed, steps=steps)
    print(report_table(report))
    if output is not None:
        output.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The released checkpoint (.ckpt, .pth, .safetensors).")],
    output: Annotated[Path, typer.Argument(help="Folder for the converted pipeline.")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    flip_temperature: Annotated[bool, typer.Option(help="The weights' + temperature is cooler.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the folder.")] = False,
):
    """Turn a released DiffRetouch checkpoint into a pipeline of this library."""
    _say(f"Converting {checkpoint} ...")
    from diffretouch.training.convert import convert_diffretouch

    convert_diffretouch(checkpoint, output, dtype=dtype, flip_temperature=flip_temperature, overwrite=overwrite)
    print(output)


if __name__ == "__main__":
    main()
