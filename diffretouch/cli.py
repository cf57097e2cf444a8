"""The command line: `diffretouch retouch | batch | learn | sweep | measure | ...`. It only calls the library."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Controllable photo retouching: one photo in, a retouched photo out at full resolution.",
)

_BUNDLED = ("small", "csrnet", "csrnet-l", "sa-adjustnet")

_Slider = Annotated[float, typer.Option(min=-3, max=3, help="-1 (less) to 1 (more); beyond extrapolates.")]
_Model = Annotated[str, typer.Option(help="'small' (bundled), a model directory, or a Hub id.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda, mps, ...; auto takes the fastest there is.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
_Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; the model's own by default.")]
_Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise: another seed, another retouch.")]

# The same for commands that also take settings from a file: what is not given there or here is the default.
_SliderOrNone = Annotated[float | None, typer.Option(min=-3, max=3, help="-1 (less) to 1 (more). [default: 0]")]
_StrengthOrNone = Annotated[float | None, typer.Option(min=0, max=2, help="0 the photo, 1 the retouch. [default: 1]")]
_SeedOrNone = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Of the noise. [default: 0]")]
_ModelOrNone = Annotated[str | None, typer.Option(help="'small' (the default), a model directory, or a Hub id.")]
_Like = Annotated[Path | None, typer.Option(help="A retouched photo: with the settings that its file tells.")]
_Preset = Annotated[Path | None, typer.Option(help="A preset or sidecar (JSON): with its settings.")]
_Region = Annotated[
    list[str] | None,
    typer.Option(
        help="MASK:NAME=VALUE,...: other values in a part of the photo; what is not named stays. MASK is a file "
        "(white inside), luminosity=0.6-1 (tones) or colour=200-260 (hues in degrees). May be repeated."
    ),
]
_RefineRegions = Annotated[
    bool | None, typer.Option("--refine-regions/--no-refine-regions", help="Masks' edges follow the photo's.")
]
_Quality = Annotated[int | None, typer.Option(min=1, max=100, help="JPEG, WebP, AVIF; as the photo's else.")]
_Background = Annotated[str | None, typer.Option(help="Colour under transparent pixels, for JPEG.")]
_Dither = Annotated[bool, typer.Option("--dither", help="Noise of one level before rounding, against banding.")]
_Sidecar = Annotated[bool, typer.Option("--sidecar", help="Also write the settings beside the result: OUT.json.")]


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
    from diffusers.utils import logging

    from diffretouch.pipelines.pretrained import open_pipeline

    logging.disable_progress_bar()
    pipe = open_pipeline(model).to(_find_device(device))
    pipe.set_progress_bar_config(desc="Denoising", delay=1, leave=False)
    return pipe


def _find_device(device):
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`--device {device}` is not to be had here: {str(error).splitlines()[0]}") from error
    return device


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


def _settings(like, preset, model, colorfulness, contrast, temperature, brightness, **given):
    """What the options say, over what the file of `--like` or `--preset` says -> (settings, model)."""
    from diffretouch.regions import parse_region
    from diffretouch.settings import Settings, read_preset, settings_of

    if like and preset:
        raise typer.BadParameter("--like and --preset cannot be followed both.", param_hint="--preset")
    c = {"colorfulness": colorfulness, "contrast": contrast, "temperature": temperature, "brightness": brightness}
    given = Settings(c={name: value for name, value in c.items() if value is not None} or None, **given)
    if not like and not preset:
        return given, model or "small"
    earlier = settings_of(_load_photo(like)) if like else read_preset(preset)
    for text in earlier.regions or () if given.regions is None else ():
        if isinstance(parse_region(text)[0], str):  # a file that some photo names is not opened
            raise ValueError(f"{like or preset} was made with a mask of its own, {text!r}: give one with --region.")
    if model is None and earlier.model not in (None, *_BUNDLED):  # nor is a model fetched that some photo names
        raise ValueError(f"{like or preset} was made with the model {earlier.model!r}: name it with --model.")
    return given.over(earlier), model or earlier.model or "small"


def _follow(settings, pipe, model):
    """The settings as this model follows them, complete; says so where it is not the model that they are from."""
    from diffretouch.settings import resolved, use_scheduler

    if hasattr(pipe, "predict_grid"):
        use_scheduler(pipe, settings.scheduler)
    complete = resolved(settings, pipe, model)
    if settings.revision not in (None, complete.revision):
        _say(f"Note: the settings are from another model ({settings.model} {settings.revision}): results differ.")
    return complete


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
    colorfulness: _SliderOrNone = None,
    contrast: _SliderOrNone = None,
    temperature: _SliderOrNone = None,
    brightness: _SliderOrNone = None,
    strength: _StrengthOrNone = None,
    reference: Annotated[
        Path | None, typer.Option(help="A finished photo, best of the same scene: with its four attributes.")
    ] = None,
    like: _Like = None,
    preset: _Preset = None,
    region: _Region = None,
    refine_regions: _RefineRegions = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Results from different noise: OUT-1, OUT-2, ...")] = 1,
    seed: _SeedOrNone = None,
    steps: _Steps = None,
    model: _ModelOrNone = None,
    device: _Device = "auto",
    quality: _Quality = None,
    background: _Background = None,
    dither: _Dither = False,
    save_preset: Annotated[Path | None, typer.Option(help="Also write the settings as a preset for others.")] = None,
    sidecar: _Sidecar = False,
    overwrite: _Overwrite = False,
):
    """Retouch one photo at its full resolution.

    The result's file tells how it was made: --like repeats that. Options count more than --reference, this more than
    --like or --preset.
    """
    output = output or photo.with_name(f"{photo.stem}_retouched{photo.suffix}")
    numbered = [output.with_name(f"{output.stem}-{n + 1}{output.suffix}") for n in range(samples)]
    outputs = numbered if samples > 1 else [output]
    written = [save_preset] if save_preset else []
    written += [path.with_name(path.name + ".json") for path in outputs if sidecar]
    _check_output(output, photo, overwrite, outputs + written)

    from diffretouch.batch import exposed
    from diffretouch.photo import save_photo
    from diffretouch.settings import sidecar_path, write_preset

    settings, model = _settings(
        like, preset, model, colorfulness, contrast, temperature, brightness, strength=strength, seed=seed,
        steps=steps, regions=tuple(region) if region else None, refine_regions=refine_regions,
    )  # fmt: skip
    background, source = _colour(background), _load_photo(photo)
    wanted = _load_photo(reference).pixels if reference else None
    bit_depth = _depth_for(output, source)
    pipe = _load_pipeline(model, device)
    complete = _follow(settings, pipe, model)
    if wanted is not None:
        complete = _follow(_towards(wanted, source.pixels, pipe, complete, {
            "colorfulness": colorfulness, "contrast": contrast, "temperature": temperature, "brightness": brightness,
        }), pipe, model)  # fmt: skip
    results = _samples(pipe, source.pixels, complete, samples)
    for n, (result, path) in enumerate(zip(results, outputs, strict=True)):
        own = complete if complete.seed is None else replace(complete, seed=complete.seed + n)
        save_photo(
            exposed(result, own.exposure),
            path,
            like=source,
            overwrite=overwrite,
            quality=quality,
            bit_depth=bit_depth,
            dither=dither,
            background=background,
            description=own.to_json(),
        )
        if sidecar:
            write_preset(replace(own, photo=photo.name), sidecar_path(path), overwrite=overwrite)
        print(path)
    if save_preset:
        write_preset(complete, save_preset, overwrite=overwrite)
        print(save_preset)


def _towards(wanted, pixels, pipe, settings, given):
    """The settings with the c that gives the photo the attributes of another; what the options say stays."""
    import torch

    from diffretouch.attributes import ATTRIBUTES

    if settings.c is None:
        raise ValueError("`--reference` needs a model with sliders.")
    noise = torch.Generator().manual_seed(settings.seed)
    found = pipe.attributes_of(pixels, wanted, num_inference_steps=settings.steps, generator=noise).tolist()
    c = {name: round(value, 3) for name, value in zip(ATTRIBUTES, found, strict=True)}
    c |= {name: value for name, value in given.items() if value is not None}
    _say("As the reference: " + ", ".join(f"{name} {value:+g}" for name, value in c.items()))
    return replace(settings, c=c)


def _samples(pipe, pixels, settings, number):
    """Yields the retouched pixels of every sample."""
    import torch

    if settings.c is None:
        if number > 1:
            raise ValueError("`--samples` needs a model with noise: this one has one result for a photo.")
        from diffretouch.batch import retouched_without_sliders

        yield retouched_without_sliders(pipe, pixels, settings.strength)
        return
    from diffretouch.regions import named_regions

    regions = None
    if settings.regions:
        regions = named_regions(settings.regions, pixels, settings.c, refine=bool(settings.refine_regions))
    generators = [torch.Generator().manual_seed(settings.seed + n) for n in range(number)]
    for grid in pipe.predict_grid(
        pixels, settings.c, regions=regions, num_inference_steps=settings.steps, num_samples=number,
        generator=generators,
    ):  # fmt: skip
        yield pipe.apply_grid(pixels, grid, settings.strength, regions=regions)


@app.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The folder of photos.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the results: the same tree.")],
    colorfulness: _SliderOrNone = None,
    contrast: _SliderOrNone = None,
    temperature: _SliderOrNone = None,
    brightness: _SliderOrNone = None,
    strength: _StrengthOrNone = None,
    like: _Like = None,
    preset: _Preset = None,
    region: _Region = None,
    refine_regions: _RefineRegions = None,
    consistent: Annotated[
        bool, typer.Option("--consistent", help="A series: one noise for all photos, exposures matched.")
    ] = False,
    recursive: Annotated[bool, typer.Option(help="Also the folders inside.")] = True,
    suffix: Annotated[str, typer.Option(help="Behind the names: _retouched makes a_retouched.jpg of a.jpg.")] = "",
    format: Annotated[
        str | None, typer.Option(help="jpg, png, tif, webp or avif; as the photo else, tif for RAW and HEIC.")
    ] = None,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Go on: leave results that exist.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    report: Annotated[Path | None, typer.Option(help="A file with a line of JSON for each photo.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=64, help="Threads that read, and that write. [default: one per processor]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="The most photos in one pass of the model.")] = 8,
    seed: _SeedOrNone = None,
    steps: _Steps = None,
    model: _ModelOrNone = None,
    device: _Device = "auto",
    quality: _Quality = None,
    background: _Background = None,
    dither: _Dither = False,
    sidecar: _Sidecar = False,
):
    """Retouch a folder of photos, each with noise of its own by its name. Files that cannot be used are passed by.

    `accelerate launch -m diffretouch.cli batch IN OUT` splits the work over GPUs and machines.
    """
    from diffretouch.batch import Report, existing_results, plan_batch, remove_unfinished

    settings, model = _settings(
        like, preset, model, colorfulness, contrast, temperature, brightness, strength=strength, seed=seed,
        steps=steps, regions=tuple(region) if region else None, refine_regions=refine_regions,
    )  # fmt: skip
    background = _colour(background)
    plan = plan_batch(source, target, recursive=recursive, suffix=suffix, format=format)
    existing = existing_results(plan.tasks)
    if existing and not skip_existing and not overwrite:
        raise typer.BadParameter(
            f"{len(existing)} of {len(plan.tasks)} results exist, as {existing[0].target}: --skip-existing leaves "
            "them, --overwrite replaces them.", param_hint="OUT"
        )  # fmt: skip
    if report is not None and report.exists() and not skip_existing and not overwrite:
        raise typer.BadParameter(f"{report} exists: --skip-existing goes on with it.", param_hint="--report")

    from accelerate import PartialState
    from accelerate.utils import gather_object

    launched = int(os.environ.get("WORLD_SIZE", 1))
    # Where there is nothing but a CPU, Accelerate must be told so: else every process takes itself for the only one
    state = PartialState(cpu=True) if launched > 1 and _find_device(device) == "cpu" else PartialState()
    if state.num_processes != launched:
        raise ValueError(f"{launched} processes were launched, but Accelerate sees {state.num_processes}.")
    first, several = state.is_main_process, state.num_processes > 1
    if first:
        for note in plan.notes:
            _say(f"Note: {note}")
        for sentence in plan.unread:
            _say(f"Error: {sentence}")
        remove_unfinished(plan.tasks)
    state.wait_for_everyone()  # nobody writes before everybody has seen what is there
    if several:
        device = str(state.device) if device == "auto" else device
        report = report and report.with_name(f"{report.stem}.{state.process_index}{report.suffix}")
    pipe = _load_pipeline(model, device)
    pipe.set_progress_bar_config(disable=True)
    complete = _follow(settings, pipe, model)

    series = None
    if consistent:
        with state.split_between_processes(list(plan.tasks)) as share:
            values = _series(pipe, share, complete, jobs, batch_size, quiet=not first)
        from diffretouch.batch import series_target

        series = series_target(gather_object(values) if several else values)
    left = {task.name for task in existing} if skip_existing and not overwrite else set()
    with state.split_between_processes([task for task in plan.tasks if task.name not in left]) as share:
        counts = _run_batch(
            pipe, share, complete, Report(report, append=skip_existing) if report else None,
            [task for task in existing if task.name in left and first],
            {"process": state.process_index, "processes": state.num_processes} if several else {}, quiet=not first,
            overwrite=overwrite, jobs=jobs, batch_size=batch_size, quality=quality, dither=dither,
            background=background, sidecars=sidecar, series=series,
        )  # fmt: skip
    done, failed, seconds = map(sum, zip(*gather_object([counts]), strict=True)) if several else counts
    if several:
        seconds = seconds / state.num_processes
        state.destroy_process_group()
    failed += len(plan.unread)
    if first:
        rate = f" in {seconds:.1f} s, {done / max(seconds, 1e-9):.2f} a second" if done else ""
        where = f" by {state.num_processes} processes" if several else ""
        _say(f"{done} retouched{where}{rate}; {len(left)} skipped, {failed} failed.")
    if failed:
        raise typer.Exit(1)


def _series(pipe, tasks, settings, jobs, batch_size, quiet):
    from tqdm import tqdm

    from diffretouch.batch import series_brightness

    values = series_brightness(pipe, tasks, settings, jobs=jobs, batch_size=batch_size)
    return list(tqdm(values, "Measuring", len(tasks), unit="photo", disable=quiet or None, leave=False))


def _run_batch(pipe, tasks, settings, report, skipped, process, quiet, **options):
    """Retouch, tell and report -> (done, failed, seconds)."""
    import contextlib
    import signal
    import time

    from tqdm import tqdm

    from diffretouch.batch import retouch_batch

    done = failed = 0
    started = time.monotonic()
    rows = retouch_batch(pipe, tasks, settings, **options)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: between photos
    with (
        report or contextlib.nullcontext(),
        contextlib.ExitStack() as stack,
        contextlib.closing(rows),
        tqdm(desc="Retouching", total=len(tasks), unit="photo", disable=quiet or None, smoothing=0.1) as bar,
    ):
        stack.callback(signal.signal, signal.SIGTERM, before)
        for task in skipped:
            if report and task.name not in report.done:
                report.write({"photo": task.name, "status": "skipped", "result": str(task.target)} | process)
        for row in rows:
            if row["status"] == "failed":
                failed += 1
                bar.write(f"Error: {row['photo']!r}: {row['error']}", file=sys.stderr)
            done += row["status"] == "done"
            if report:
                report.write(row | process)
            bar.update()
    return done, failed, time.monotonic() - started


@app.command()
def learn(
    inputs: Annotated[Path, typer.Argument(metavar="IN", help="Folder of untouched photos: a few are enough.")],
    finished: Annotated[Path, typer.Argument(metavar="FINISHED", help="Your versions of them, under the same names.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The preset: a JSON file.")],
    seed: _Seed = 0,
    steps: _Steps = None,
    model: _Model = "small",
    device: _Device = "auto",
    overwrite: _Overwrite = False,
):
    """Fit a preset to your own before and after pairs, and say how close it comes."""
    from diffretouch.evaluation import pair_names
    from diffretouch.settings import write_preset

    _check_output(output, inputs, overwrite, [output])
    pairs = pair_names(inputs, finished)
    pipe = _load_pipeline(model, device)
    pipe.set_progress_bar_config(disable=True)
    from diffretouch.fitting import fit_preset

    _say(f"Learning from {len(pairs)} pairs ...")
    fit = fit_preset(pipe, pairs, seed=seed, steps=steps)
    write_preset(_follow(fit.settings, pipe, model), output, overwrite=overwrite)
    print(", ".join(f"{name} {value:+g}" for name, value in fit.settings.c.items()), end="")
    print(f", strength {fit.settings.strength:g}")
    print("Mean colour difference (CIE 1976) to the finished photos:")
    print(f"{fit.untouched:8.2f}  the photos as they are\n{fit.automatic:8.2f}  without the preset (automatic)")
    print(f"{fit.fitted:8.2f}  with the preset")
    if fit.held_out is not None:
        print(f"{fit.held_out:8.2f}  with what was learned from other pairs only: expect this on new photos")
    if min(fit.fitted, fit.held_out or 0) >= fit.automatic:
        _say("Note: on new photos the preset is no better than none: the pairs have no common look in its reach.")
    print(output)


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
    inputs: Annotated[Path | None, typer.Argument(help="Folder of untouched photos.")] = None,
    targets: Annotated[
        Path | None, typer.Argument(help="An expert's versions, matched by name; or a folder of experts' folders.")
    ] = None,
    simulated: Annotated[Path | None, typer.Option(help="Finished photos: camera and experts simulated.")] = None,
    controllability: Annotated[Path | None, typer.Option(help="Finished photos: measure what the sliders do.")] = None,
    as_they_are: Annotated[bool, typer.Option("--as-they-are", help="Sliders without the simulated camera.")] = False,
    model: Annotated[
        list[str] | None, typer.Option(help="As elsewhere, or NAME=...; again for models side by side.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Beside: autocontrast, equalize, clahe, curve, csrnet, csrnet-l, sa-adjustnet, all; a model "
            "directory, the released csrnet.pth, or a folder with the released LUTs.pth and classifier.pth."
        ),
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Denoising steps, one or several: 1,2,4.")] = None,
    best_of: Annotated[int, typer.Option(min=1, max=64, help="Also the best of so many seeds (an oracle).")] = 1,
    labels: Annotated[
        str | None, typer.Option(help="Also c from labels (an oracle): a JSON file, or 'experts': from the versions.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="What the data is: fivek-upe, ppr10k-a, yan, ...")] = None,
    rendering: Annotated[str | None, typer.Option(help="How the files were made, for the record.")] = None,
    split: Annotated[Path | None, typer.Option(help="Text file with names or ids: only these photos.")] = None,
    controllability_split: Annotated[Path | None, typer.Option(help="The same for --controllability.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many photos.")] = None,
    csrnet_lab: Annotated[bool, typer.Option("--csrnet-lab", help="Also CSRNet's Lab error, with its bug.")] = False,
    lpips_weights: Annotated[Path | None, typer.Option(help="LPIPS weights (safetensors).")] = None,
    card: Annotated[bool, typer.Option("--card", help="Print Markdown for a model card.")] = False,
    page: Annotated[Path | None, typer.Option(help="Also write one HTML page with pictures.")] = None,
    page_photos: Annotated[int, typer.Option(min=1, help="Photos on the page.")] = 6,
    figure: Annotated[
        list[str] | None,
        typer.Option(help="Instead, on the page: attributes (paper's fig. 1), grid (3: two models), experts (5)."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps results: a stopped run goes on.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the report as JSON.")] = None,
    seed: _Seed = 0,
    device: _Device = "auto",
    overwrite: _Overwrite = False,
):
    """Measure models and other methods against experts' versions, and what the sliders do.

    Only "input", "automatic" and the methods that are no oracles predict blindly; every table says which is which.
    """
    counts = _step_counts(steps)
    if (inputs is not None) == (simulated is not None) and not (inputs is None and controllability):
        raise typer.BadParameter("give INPUTS and TARGETS, --simulated PHOTOS or --controllability PHOTOS.")
    if inputs is not None and targets is None and set(figure or ()) != {"attributes"}:
        raise typer.BadParameter("INPUTS need TARGETS.", param_hint="TARGETS")
    if set(figure or ()) - {"attributes", "grid", "experts"}:
        raise typer.BadParameter("must be attributes, grid or experts.", param_hint="--figure")
    if figure and page is None:
        raise typer.BadParameter("figures stand on a page: give --page.", param_hint="--figure")
    for path, hint in ((output, "--output"), (page, "--page")):
        if path is not None and not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"the folder {path.parent} does not exist.", param_hint=hint)
        if path is not None and path.exists() and not overwrite:
            raise typer.BadParameter(f"{path} exists; --overwrite replaces it.", param_hint=hint)

    # 1. The photos, before any model is loaded
    from diffretouch import evaluation as ev

    names = ev.read_names(split) if split else None
    pairs, photos = [], []
    if simulated is not None:
        pairs = ev.simulated_pairs(simulated, names, seed=seed)
    elif targets is not None:
        pairs = ev.expert_pairs(inputs, targets, names)
    elif inputs is not None:
        photos = list(ev.folder_photos("inputs", inputs, names).values())
    if limit and pairs:
        kept = list(dict.fromkeys(pair.source for pair in pairs))[:limit]
        pairs = [pair for pair in pairs if pair.source in kept]
    if labels is not None:
        pairs = ev.expert_labels(pairs) if labels == "experts" else ev.read_labels(labels, pairs)
    if controllability is not None:
        names = ev.read_names(controllability_split) if controllability_split else None
        photos = list(ev.folder_photos("controllability", controllability, names).values())
    photos = photos[:limit]
    if pairs:
        ev.describe_data(pairs, protocol, rendering)  # a wrong name is told at once

    # 2. The models, and the methods beside
    device = _own_device(device)
    pipes = {}
    for given in model or ["small"]:
        name, place = _named(given)
        if name in pipes:
            raise typer.BadParameter(f"two models are called {name}: NAME=... tells them apart.", param_hint="--model")
        pipes[name] = _load_pipeline(place, device)
        if not hasattr(pipes[name], "attributes_of"):
            raise typer.BadParameter(f"{place} has no sliders: give it as --peer.", param_hint="--model")
        pipes[name].set_progress_bar_config(disable=True)
    peers, missing = _open_peers(peer or [], device)
    keep = ev.Cache(cache) if cache else None

    # 3. Measure
    report, sections = {}, []
    if pairs and not figure:
        report = ev.evaluate_pairs(
            pipes,
            pairs,
            seed=seed,
            steps=counts,
            best_of=best_of,
            peers=peers,
            protocol=protocol,
            rendering=rendering,
            csrnet_lab=csrnet_lab,
            lpips_weights=lpips_weights,
            pictures=page_photos if page else 0,
            cache=keep,
            missing=missing,
            device=str(next(iter(pipes.values())).device),
        )
    if controllability is not None:
        settings = {"seed": seed, "camera": not as_they_are, "cache": keep}
        report["controllability"] = {
            name: ev.controllability(pipe, photos, steps=counts[0], description=f"Sliders of {name}", **settings)
            for name, pipe in pipes.items()
        }
        if len(counts) > 1:
            report["step_table"] = ev.step_table(pipes, photos, counts, **settings)
    if not ev.is_main_process():
        return

    # 4. Tell
    tables = []
    if "mean" in report:
        tables.append(ev.report_markdown(report) if card else ev.report_table(report))
    if "controllability" in report:
        tables.append(ev.controllability_markdown(report) if card else ev.controllability_table(report))
    if tables:
        print("\n\n".join(tables))
    if page is not None:
        sections += ev.report_sections(report) if "mean" in report else []
        if "controllability" in report:
            sheets = []
            for name, pipe in pipes.items():
                own = ev.slider_sheets(pipe, photos[:page_photos], camera=not as_they_are, seed=seed, steps=counts[0])
                sheets += [(f"{name}: {caption}", sheet) for caption, sheet in own]
            sections += ev.controllability_sections(report, sheets)
        sections += _figures(figure or [], pipes, pairs, photos, page_photos, seed, counts[0])
        ev.write_page(page, sections)
    if output is not None:
        ev.write_text(output, json.dumps(ev.without_pictures(report), indent=1) + "\n")


def _step_counts(text):
    """ "1,2,4" -> [1, 2, 4]; None is the model's own number."""
    if text is None:
        return [None]
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= 1000 for count in counts):
        raise typer.BadParameter(f"must be numbers in 1..1000, got {text!r}.", param_hint="--steps")
    return counts


def _named(text):
    """ "NAME=PLACE" or a place, which is then called as its last part is -> (name, place)."""
    name, equals, place = text.partition("=")
    if equals and name and "/" not in name:
        return name, place
    return Path(text).name or text, text


def _own_device(device):
    """The device of this process: of several on one machine, each takes a GPU of its own."""
    import os

    import torch

    if device == "auto" and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def _open_peers(names, device):
    """-> (methods, dict from name to why it cannot be run). Of "all", what is not to be had is passed by, and said."""
    import tempfile

    from diffretouch import evaluation as ev

    pipelines = {
        "csrnet": "CSRNet, the bundled model",
        "csrnet-l": "CSRNet-L (our reconstruction), the bundled model",
        "sa-adjustnet": "SA-AdjustNet, the bundled model",
    }
    everything = "all" in names
    if everything:
        names = [*ev.PEERS, *pipelines, *(name for name in names if name not in (*ev.PEERS, *pipelines, "all"))]
    methods, missing = ev.peer_methods([name for name in names if name in ev.PEERS])
    for given in names:
        name, place = _named(given)
        if given in ev.PEERS:
            continue
        if Path(place).is_dir() and Path(place, "LUTs.pth").is_file():
            from diffretouch.training.convert import load_adaptive_lut

            methods.append(ev.adaptive_lut_method(name, load_adaptive_lut(place), place))
            continue
        try:
            if Path(place).is_file():
                from diffretouch.training.convert import convert_csrnet

                with tempfile.TemporaryDirectory() as folder:
                    pipe = _load_pipeline(str(convert_csrnet(place, Path(folder, "csrnet"))), device)
                meaning = "CSRNet, released weights: ProPhoto input"
            else:
                pipe, meaning = _load_pipeline(place, device), pipelines.get(place, f"{place}")
        except (ValueError, OSError, ImportError, AttributeError) as error:
            if not everything or given not in pipelines:
                raise
            missing[name] = " ".join(str(error).split()).rstrip(".")
            continue
        methods.append(ev.pipeline_method(name, pipe, meaning))
    return methods, missing


def _figures(names, pipes, pairs, photos, number, seed, steps):
    """The paper's figures as sections of a page."""
    from diffretouch.evaluation import figures

    sources = list(dict.fromkeys(pair.source for pair in pairs))[:number]
    shown = [pair for pair in pairs if pair.source in sources]
    pipe = next(iter(pipes.values()))
    sections = []
    for name in names:
        if name == "attributes":
            sections.append(figures.attributes_figure(pipe, sources or photos[:number], seed=seed, steps=steps))
        elif name == "grid":
            sections.append(figures.models_figure(pipes, shown[:number], seed=seed, steps=steps))
        else:
            sections.append(figures.experts_figure(pipe, shown, seed=seed, steps=steps))
    return sections


@app.command()
def lut(
    photo: Annotated[Path, typer.Argument(help="The photo that the table is made for, or with --apply applied to.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .cube file (default: <photo>.cube) or a Hald image (.png, .tif)."),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(help="Instead: apply this .cube file or Hald image to the photo.")
    ] = None,
    size: Annotated[int, typer.Option(min=2, max=256, help="Nodes on an edge; a Hald image needs 16, 64, ...")] = 33,
    photo_domain: Annotated[
        bool, typer.Option("--photo-domain", help="Nodes within the photo's own colours: finer, for this photo only.")
    ] = False,
    interpolation: Annotated[str, typer.Option(help="With --apply: tetrahedral or trilinear.")] = "tetrahedral",
    colorfulness: _SliderOrNone = None,
    contrast: _SliderOrNone = None,
    temperature: _SliderOrNone = None,
    brightness: _SliderOrNone = None,
    strength: Annotated[float, typer.Option(min=0, max=2, help="0 the photo, 1 the retouch.")] = 1.0,
    seed: _Seed = 0,
    steps: _Steps = None,
    model: _Model = "small",
    device: _Device = "auto",
    overwrite: _Overwrite = False,
):
    """The retouch of a photo as a colour table for other software (.cube, Hald image), or such a table applied."""
    suffix = photo.suffix if apply else ".cube"
    output = output or photo.with_name(f"{photo.stem}{'_look' if apply else ''}{suffix}")
    _check_output(output, photo, overwrite, [output])
    c = {"colorfulness": colorfulness, "contrast": contrast, "temperature": temperature, "brightness": brightness}
    c = {name: value for name, value in c.items() if value is not None}
    hald = output.suffix.lower() != ".cube"
    if not apply and hald and (round(size**0.5) ** 2 != size or size < 4):
        raise typer.BadParameter("a Hald image has 4, 9, 16, 25, 36, 49, 64, ... nodes.", param_hint="--size")
    if not apply and hald and photo_domain:
        raise typer.BadParameter("a Hald image has no domain of its own.", param_hint="--photo-domain")

    from diffretouch.photo import save_photo

    source = _load_photo(photo)
    from diffretouch.lut import Lut3D, bake_lut

    if apply:
        table = Lut3D.load(apply) if apply.suffix.lower() == ".cube" else Lut3D.from_hald(_load_photo(apply).pixels)
        bit_depth = _depth_for(output, source)
        result = table.at_strength(strength).apply(source.pixels, interpolation=interpolation)
        save_photo(result, output, like=source, overwrite=overwrite, bit_depth=bit_depth)
        print(output)
        return
    pipe = _load_pipeline(model, device)
    call = {}
    if hasattr(pipe, "predict_grid"):
        import torch

        call = {"c": c, "num_inference_steps": steps, "generator": torch.Generator().manual_seed(seed)}
    elif c:
        raise typer.BadParameter(f"{model} has no sliders.", param_hint=f"--{next(iter(c))}")
    domain = "photo" if photo_domain else "full"
    table = bake_lut(pipe, source.pixels, size=size, strength=strength, domain=domain, **call)
    _say(f"On this photo the table differs from the retouch: {table.error}")
    if hald:
        save_photo(table.hald(round(size**0.5), "float32"), output, overwrite=overwrite, bit_depth=16)
    else:
        table.save(output, overwrite=overwrite)
    print(output)


@app.command()
def demo(
    model: Annotated[
        list[Path] | None, typer.Option(help="A model directory to offer beside the bundled ones; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; others can reach the page unless it is local.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: _Device = "auto",
):
    """A page in the browser: a photo, four sliders, and the picture follows the hand."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the page needs Gradio: pip install 'diffretouch[demo]'") from error
    import signal
    import threading

    from diffusers.utils import logging

    from diffretouch.demo.server import serving

    logging.disable_progress_bar()
    _say("Loading the models ...")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files go then, too
    with serving(model or (), host=host, port=port, device=_find_device(device), browser=browser) as address:
        print(address, flush=True)
        _say("The page is open there; Ctrl+C ends it.")
        threading.Event().wait()


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The released checkpoint (.ckpt, .pth, .safetensors).")],
    output: Annotated[Path, typer.Argument(help="Folder for the converted pipeline.")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    flip_temperature: Annotated[bool, typer.Option(help="The weights' + temperature is cooler.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the folder.")] = False,
):
    """Turn a released DiffRetouch or CSRNet checkpoint into a pipeline of this library."""
    _say(f"Converting {checkpoint} ...")
    from diffretouch.training.convert import convert_csrnet, convert_diffretouch, holds_csrnet

    if holds_csrnet(checkpoint):
        if dtype != "float32" or flip_temperature:
            raise typer.BadParameter("for a DiffRetouch checkpoint, this is a CSRNet.", param_hint="--dtype")
        convert_csrnet(checkpoint, output, overwrite=overwrite)
    else:
        convert_diffretouch(checkpoint, output, dtype=dtype, flip_temperature=flip_temperature, overwrite=overwrite)
    print(output)


if __name__ == "__main__":
    main()
