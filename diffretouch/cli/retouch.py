"""One photo in: one retouched photo out, several, or a sheet of them."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import Look, Writing, grouped
from .loading import depth_for, follow, load_pipeline, open_photo, say


@grouped
def retouch(
    photo: options.PhotoArgument,
    look: Look,
    writing: Writing,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <photo>_retouched beside it.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A finished photo, best of the same scene: with its four attributes.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Results from different noise: OUT-1, OUT-2, ...")] = 1,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    save_preset: Annotated[Path | None, typer.Option(help="Also write the settings as a preset for others.")] = None,
) -> None:
    """Retouch one photo at its full resolution.

    The result's file tells how it was made: --like repeats that. Options count more than --reference, this more than
    --like or --preset.
    """
    from diffretouch.photo import check_write, encoders, save_photo

    output = output or photo.with_name(f"{photo.stem}_retouched{encoders.result_suffix(photo)}")
    numbered = [output.with_name(f"{output.stem}-{n + 1}{output.suffix}") for n in range(samples)]
    outputs = numbered if samples > 1 else [output]
    written = [save_preset] if save_preset else []
    written += [path.with_name(path.name + ".json") for path in outputs if writing.sidecar]
    options.check_output(output, writing.overwrite, photo=photo, names=outputs + written)

    from diffretouch.batch import exposed
    from diffretouch.settings import sidecar_path, write_preset

    (settings, model), written_as = look.read(), writing.read()
    source = open_photo(photo, max_pixels)
    wanted = open_photo(reference, max_pixels).pixels if reference else None
    bit_depth = depth_for(output, source)
    asked = {"overwrite": writing.overwrite, "quality": written_as.quality, "background": written_as.background}
    for path in outputs:
        check_write(path, source.pixels.shape, source, bit_depth=bit_depth, **asked)
    pipe = load_pipeline(model, look.device)
    complete = follow(settings, pipe, model)
    if wanted is not None:
        complete = follow(_towards(wanted, source.pixels, pipe, complete, look.moved), pipe, model)
    results = _samples(pipe, source.pixels, complete, samples)
    for n, (result, path) in enumerate(zip(results, outputs, strict=True)):
        own = complete if complete.seed is None else replace(complete, seed=complete.seed + n)
        pixels = exposed(result, own.exposure, own.white_balance)
        told = own.without_folders()
        save_photo(pixels, path, like=source, bit_depth=bit_depth, description=told.to_json(), **vars(written_as))
        if writing.sidecar:
            write_preset(replace(told, photo=photo.name), sidecar_path(path), overwrite=writing.overwrite)
        print(path)
    if save_preset:
        write_preset(complete, save_preset, overwrite=writing.overwrite)
        print(save_preset)


def _towards(wanted, pixels, pipe, settings, given):
    """The settings with the c that gives the photo the attributes of another; what the options say stays."""
    import torch

    from diffretouch.attributes import ATTRIBUTES

    if not pipe.has_sliders:
        raise ValueError("`--reference` needs a model with sliders.")
    noise = torch.Generator().manual_seed(settings.seed)
    found = pipe.attributes_of(pixels, wanted, num_inference_steps=settings.steps, generator=noise).tolist()
    c = {name: round(value, 3) for name, value in zip(ATTRIBUTES, found, strict=True)} | given
    say("As the reference: " + ", ".join(f"{name} {value:+g}" for name, value in c.items()))
    return replace(settings, c=c, any_style=None)


def _samples(pipe, pixels, settings, number):
    """Yields the retouched pixels of every sample."""
    import torch

    if not pipe.has_sliders:
        if number > 1:
            raise ValueError("`--samples` needs a model with noise: this one has one result for a photo.")
        yield pipe.retouch(pixels, strength=settings.strength)
        return
    from diffretouch.settings.region_texts import named_regions

    regions = None
    if settings.regions:
        regions = named_regions(settings.regions, pixels, settings.c, refine=bool(settings.refine_regions))
    generators = [torch.Generator().manual_seed(settings.seed + n) for n in range(number)]
    for grid in pipe.predict_grid(
        pixels, settings.c, regions=regions, num_inference_steps=settings.steps, num_samples=number,
        generator=generators,
    ):  # fmt: skip
        yield pipe.apply_grid(pixels, grid, strength=settings.strength, regions=regions)


def sweep(
    photo: options.PhotoArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <photo>_sweep.png beside it.")
    ] = None,
    columns: Annotated[int, typer.Option(min=2, max=21, help="Values from -1 to 1.")] = 5,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Long side of each picture, px.")] = 256,
    seed: options.Seed = 0,
    steps: options.Steps = None,
    model: options.Model = "small",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """A contact sheet: every attribute from -1 to 1, all from the same noise."""
    output = output or photo.with_name(f"{photo.stem}_sweep.png")
    options.check_output(output, overwrite, photo=photo)

    from diffretouch.photo import save_photo

    source = open_photo(photo)
    pipe = load_pipeline(model, device)
    import numpy as np

    from diffretouch.sweep import sweep as sheet

    values = np.linspace(-1, 1, columns).round(3).tolist()
    picture = sheet(pipe, source.pixels, values=values, seed=seed, num_inference_steps=steps, cell=size)
    save_photo(np.asarray(picture, np.float32) / 255, output, overwrite=overwrite)
    print(output)
