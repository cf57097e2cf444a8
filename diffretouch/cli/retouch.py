"""Photos in: each retouched, in one way or several, or on a sheet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import Look, Writing, grouped, settings_for_torch
from .loading import depth_for, follow, open_model, open_photo, say, say_error
from .piping import piped


@grouped
def retouch(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="The photos; - is standard input.")],
    look: Look,
    writing: Writing,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Default: <photo>_retouched beside it. A folder for several; - for standard output."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A finished photo, best of the same scene: with its four attributes.")
    ] = None,
    samples: Annotated[
        int,
        typer.Option(min=1, max=64, help="Results from different noise, OUT-1, OUT-2, ...: alike but by --any-style."),
    ] = 1,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    save_preset: Annotated[Path | None, typer.Option(help="Also write the settings as a preset for others.")] = None,
) -> None:
    """Retouch photos at their full resolution: one, or several with the same options.

    The result's file tells how it was made: --like repeats that. Options count more than --reference, this more than
    --like or --preset.
    """
    if reference and len(photos) > 1:
        raise typer.BadParameter("goes with one photo.", param_hint="--reference")
    with piped(photos, output) as (photos, output, hand_on):
        results = _results(photos, output, samples)
        if hand_on is not print and (samples > 1 or writing.sidecar):
            raise typer.BadParameter("holds one file: no --samples, no --sidecar.", param_hint="standard output")
        for photo, paths in results.items():
            sidecars = [path.with_name(path.name + ".json") for path in paths if writing.sidecar]
            names = [*paths, *sidecars, *([save_preset] if save_preset else [])]
            options.check_output(paths[0], writing.overwrite, photo=photo, names=names)

        from diffretouch.batch import kept_as_8_bits
        from diffretouch.settings import write_preset

        (settings, model), written_as = look.read(), writing.read()
        wanted = open_photo(reference, max_pixels).pixels if reference else None
        pipe, failed = None, []
        keep_8_bits = kept_as_8_bits(settings, written_as)
        for photo, source, bit_depth in _opened(results, written_as, max_pixels, failed, keep_8_bits):
            if pipe is None:  # nothing is loaded before there is a photo for it
                wishes = {"--reference": reference, **settings_for_torch(settings)}
                form = source.pixels.dtype
                pipe = open_model(model, look.device, look.engine, wishes, steps=settings.steps, dtype=form)
                complete = follow(settings, pipe, model)
                if wanted is not None:
                    complete = follow(_towards(wanted, source.pixels, pipe, complete, look.moved), pipe, model)
            with _passing_by(photo, results, failed):
                made = _samples(pipe, source.pixels, complete, samples)
                for n, (pixels, path) in enumerate(zip(made, results[photo], strict=True)):
                    own = complete if complete.seed is None else replace(complete, seed=complete.seed + n)
                    _save(pixels, path, source, bit_depth, own, written_as, sidecar_of=writing.sidecar and photo)
                    hand_on(path)
        if save_preset and pipe:
            write_preset(complete, save_preset, overwrite=writing.overwrite)
            (print if hand_on is print else say)(save_preset)
    if failed:
        say(f"{len(failed)} of {len(photos)} photo{'s' * (len(photos) != 1)} failed.")
        raise typer.Exit(1)


def _results(photos, output, samples):
    """-> {photo: its results}"""
    from diffretouch.photo.encoders import result_suffix

    if len(photos) > 1 and output and not output.is_dir():
        raise typer.BadParameter(f"{output} must be a folder, for several photos.", param_hint="--output")
    results = {}
    for photo in photos:
        path = output or photo.with_name(f"{photo.stem}_retouched{result_suffix(photo)}")
        if len(photos) > 1 and output:
            path = output / f"{photo.stem}{result_suffix(photo)}"
        numbered = [path.with_name(f"{path.stem}-{n + 1}{path.suffix}") for n in range(samples)]
        results[photo] = numbered if samples > 1 else [path]
    if len({path for paths in results.values() for path in paths}) < samples * len(photos):
        raise typer.BadParameter("two of the photos would have one result.", param_hint="PHOTO")
    return results


def _opened(results, written_as, max_pixels, failed, keep_8_bits) -> Iterator:
    """Yields each photo that can be read, and its results written: its path, itself, their bit depth."""
    from diffretouch.photo import check_write

    asked = {"overwrite": written_as.overwrite, "quality": written_as.quality, "background": written_as.background}
    for photo, paths in results.items():
        with _passing_by(photo, results, failed):
            source = open_photo(photo, max_pixels, keep_8_bits=keep_8_bits)
            bit_depth = depth_for(paths[0], source)
            for path in paths:
                check_write(path, source.pixels.shape, source, bit_depth=bit_depth, **asked)
            yield photo, source, bit_depth


@contextmanager
def _passing_by(photo, photos, failed):
    """One of several that cannot be used is told, and the others go on."""
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        if len(photos) == 1:
            raise
        failed.append(photo)
        say_error(error)


def _save(pixels, path, source, bit_depth, settings, written_as, *, sidecar_of):
    from diffretouch.batch import exposed
    from diffretouch.photo import save_photo
    from diffretouch.settings import sidecar_path, write_preset

    pixels, told = exposed(pixels, settings.exposure, settings.white_balance), settings.without_folders()
    save_photo(pixels, path, like=source, bit_depth=bit_depth, description=told.to_json(), **vars(written_as))
    if sidecar_of:
        write_preset(replace(told, photo=sidecar_of.name), sidecar_path(path), overwrite=written_as.overwrite)


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
    if not pipe.has_sliders:
        if number > 1:
            raise ValueError("`--samples` needs a model with noise: this one has one result for a photo.")
        yield pipe.retouch(pixels, strength=settings.strength)
        return
    from diffretouch.settings.region_texts import named_regions

    regions = None
    if settings.regions:
        regions = named_regions(settings.regions, pixels, settings.c, refine=bool(settings.refine_regions))
    generators = [pipe.seeded(settings.seed + n) for n in range(number)]
    grids = pipe.predict_grid(
        pixels, settings.c, regions=regions, num_inference_steps=settings.steps, num_samples=number,
        generator=generators,
    )  # fmt: skip
    for n, grid in enumerate(grids, 1):
        out = pixels if n == number else None  # the last takes the photo's place
        yield pipe.apply_grid(pixels, grid, strength=settings.strength, regions=regions, out=out)


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
    engine: options.Engine = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """A contact sheet: every attribute from -1 to 1, all from the same noise."""
    output = output or photo.with_name(f"{photo.stem}_sweep.png")
    options.check_output(output, overwrite, photo=photo)

    from diffretouch.photo import Photo, check_write, save_photo

    source = open_photo(photo)
    check_write(output, (1, 1), Photo(source.pixels), overwrite=overwrite)  # the sheet is small
    pipe = open_model(model, device, engine, {}, steps=steps)
    if not pipe.has_sliders:
        raise ValueError(f"{model!r} has no sliders: there is nothing to sweep.")
    import numpy as np

    from diffretouch.sweep import sweep as sheet

    values = np.linspace(-1, 1, columns).round(3).tolist()
    steps = steps or pipe.config.default_steps
    picture = sheet(pipe, source.pixels, values=values, seed=seed, num_inference_steps=steps, cell=size)
    save_photo(np.asarray(picture, np.float32) / 255, output, overwrite=overwrite)
    print(output)
