"""Folders of photos: retouched, or learned from."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .loading import find_device, follow, load_pipeline, read_settings, say


def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The folder of photos.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the results: the same tree.")],
    colorfulness: options.Slider = None,
    contrast: options.Slider = None,
    temperature: options.Slider = None,
    brightness: options.Slider = None,
    strength: options.StrengthOrNone = None,
    like: options.Like = None,
    preset: options.Preset = None,
    region: options.Region = None,
    refine_regions: options.RefineRegions = None,
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
    seed: options.SeedOrNone = None,
    steps: options.Steps = None,
    model: options.ModelOrNone = None,
    device: options.Device = "auto",
    quality: options.Quality = None,
    background: options.Background = None,
    dither: options.Dither = False,
    srgb: options.Srgb = False,
    strip_metadata: options.StripMetadata = False,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    sidecar: options.Sidecar = False,
):
    """Retouch a folder of photos, each with noise of its own by its name. Files that cannot be used are passed by.

    `accelerate launch -m diffretouch.cli batch IN OUT` splits the work over GPUs and machines, `torchrun
    --nproc_per_node 2 -m diffretouch.cli batch IN OUT` over processes without GPUs.
    """
    from diffretouch.batch import Report, existing_results, plan_batch, remove_unfinished
    from diffretouch.settings import sidecar_path

    c = options.given_sliders(colorfulness, contrast, temperature, brightness)
    settings, model = read_settings(
        like, preset, model, c, region=region, refine_regions=refine_regions, strength=strength, seed=seed, steps=steps
    )
    background = options.colour(background)
    plan = plan_batch(source, target, recursive=recursive, suffix=suffix, format=format)
    existing = existing_results(plan.tasks)
    if existing and not skip_existing and not overwrite:
        raise typer.BadParameter(
            f"{len(existing)} of {len(plan.tasks)} results exist, as {existing[0].target}: --skip-existing leaves "
            "them, --overwrite replaces them.", param_hint="OUT"
        )  # fmt: skip
    if report is not None and not report.parent.is_dir() and report.parent != target:
        raise typer.BadParameter(f"the folder {report.parent} does not exist.", param_hint="--report")

    from accelerate import PartialState
    from accelerate.utils import gather_object

    launched = int(os.environ.get("WORLD_SIZE", 1))
    # Where there is nothing but a CPU, Accelerate must be told so: else every process takes itself for the only one
    state = PartialState(cpu=True) if launched > 1 and find_device(device) == "cpu" else PartialState()
    if state.num_processes != launched:
        raise ValueError(f"{launched} processes were launched, but Accelerate sees {state.num_processes}.")
    first, several = state.is_main_process, state.num_processes > 1
    if report is not None:
        reports = [report.with_name(f"{report.stem}.{n}{report.suffix}") for n in range(state.num_processes)]
        reports = reports if several else [report]
        there = [path for path in reports if path.exists()]
        if there and not skip_existing and not overwrite:
            raise typer.BadParameter(f"{there[0]} exists: --skip-existing goes on with it.", param_hint="--report")
        report = reports[state.process_index]
    if first:
        for note in plan.notes:
            say(f"Note: {note}")
        for sentence in plan.unread:
            say(f"Error: {sentence}")
        bare = [task for task in existing if not sidecar_path(task.target).exists()]
        if sidecar and bare and not overwrite:
            say(f"Note: {len(bare)} results that exist have no sidecar, as {bare[0].target}: they get none.")
        remove_unfinished(plan.tasks)
    state.wait_for_everyone()  # nobody writes before everybody has seen what is there
    if several:
        device = str(state.device) if device == "auto" else device
    pipe = load_pipeline(model, device, progress=False)
    complete = follow(settings, pipe, model)

    series = None
    if consistent:
        with state.split_between_processes(list(plan.tasks)) as share:
            values = _series(pipe, share, complete, jobs, batch_size, max_pixels, quiet=not first)
        from diffretouch.batch import series_target

        series = series_target(gather_object(values) if several else values)
    left = {task.name for task in existing} if skip_existing and not overwrite else set()
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
    with state.split_between_processes([task for task in plan.tasks if task.name not in left]) as share:
        *counts, notes = _run_batch(
            pipe, share, complete, Report(report, append=skip_existing) if report else None,
            [task for task in existing if task.name in left and first],
            {"process": state.process_index, "processes": state.num_processes} if several else {}, quiet=not first,
            overwrite=overwrite, jobs=jobs, batch_size=batch_size, quality=quality, dither=dither,
            background=background, keep_profile=not srgb, keep_metadata=not strip_metadata, max_pixels=max_pixels,
            sidecars=sidecar, series=series,
        )  # fmt: skip
    done, failed, seconds = map(sum, zip(*gather_object([counts]), strict=True)) if several else counts
    seconds = seconds / state.num_processes
    failed += len(plan.unread)
    notes = gather_object(notes) if several else notes
    if first:
        _tell(notes)
        rate = f" in {seconds:.1f} s, {done / max(seconds, 1e-9):.2f} a second" if done else ""
        where = f" by {state.num_processes} processes" if several else ""
        say(f"{done} retouched{where}{rate}; {len(left)} skipped, {failed} failed.")
    if several:
        state.wait_for_everyone()  # the first that ends with an error makes the launcher stop the others
        state.destroy_process_group()
    if failed:
        raise typer.Exit(1)


def _tell(notes):
    """What happened to photos, (name, sentence): one line a sentence, however many photos it is about."""
    names = {}
    for name, note in notes:
        names.setdefault(note, []).append(name)
    for note, about in names.items():
        others = f" and {len(about) - 1} more" if len(about) > 1 else ""
        say(f"Note: {min(about)!r}{others}: {note}")


def _series(pipe, tasks, settings, jobs, batch_size, max_pixels, quiet):
    from tqdm import tqdm

    from diffretouch.batch import series_brightness

    values = series_brightness(pipe, tasks, settings, jobs=jobs, batch_size=batch_size, max_pixels=max_pixels)
    return list(tqdm(values, "Measuring", len(tasks), unit="photo", disable=quiet or None, leave=False))


def _run_batch(pipe, tasks, settings, report, skipped, process, quiet, **call):
    """Retouch, tell and report -> done, failed, seconds, [(name, note)]."""
    import contextlib
    import signal
    import time

    from tqdm import tqdm

    from diffretouch.batch import retouch_batch

    done, failed, notes = 0, 0, []
    started = time.monotonic()
    rows = retouch_batch(pipe, tasks, settings, **call)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: between photos
    try:
        with (
            report or contextlib.nullcontext(),
            contextlib.closing(rows),
            tqdm(desc="Retouching", total=len(tasks), unit="photo", disable=quiet or None, smoothing=0.1) as bar,
        ):
            for task in skipped:
                if report and task.name not in report.done:
                    report.write({"photo": task.name, "status": "skipped", "result": str(task.target)} | process)
            for row in rows:
                if row["status"] == "failed":
                    failed += 1
                    bar.write(f"Error: {row['photo']!r}: {row['error']}", file=sys.stderr)
                done += row["status"] == "done"
                notes += [(row["photo"], note) for note in row.get("notes", ())]
                if report:
                    report.write(row | process)
                bar.update()
    except KeyboardInterrupt:
        if not quiet:
            _tell(notes)
            say("Stopped. Every result that is there is whole; --skip-existing goes on.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return done, failed, time.monotonic() - started, notes


def learn(
    inputs: Annotated[Path, typer.Argument(metavar="IN", help="Folder of untouched photos: a few are enough.")],
    finished: Annotated[Path, typer.Argument(metavar="FINISHED", help="Your versions of them, under the same names.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The preset: a JSON file.")],
    seed: options.Seed = 0,
    steps: options.Steps = None,
    model: options.Model = "small",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
):
    """Fit a preset to your own before and after pairs, and say how close it comes."""
    from diffretouch.evaluation import pair_names
    from diffretouch.settings import write_preset

    options.check_output(output, overwrite, photo=inputs)
    pairs = pair_names(inputs, finished)
    pipe = load_pipeline(model, device, progress=False)
    from diffretouch.fitting import fit_preset

    say(f"Learning from {len(pairs)} pairs ...")
    fit = fit_preset(pipe, pairs, seed=seed, steps=steps)
    write_preset(follow(fit.settings, pipe, model), output, overwrite=overwrite)
    print(", ".join(f"{name} {value:+g}" for name, value in fit.settings.c.items()), end="")
    print(f", strength {fit.settings.strength:g}")
    print("Mean colour difference (CIE 1976) to the finished photos:")
    print(f"{fit.untouched:8.2f}  the photos as they are\n{fit.automatic:8.2f}  without the preset (automatic)")
    print(f"{fit.fitted:8.2f}  with the preset")
    if fit.held_out is not None:
        print(f"{fit.held_out:8.2f}  with what was learned from other pairs only: expect this on new photos")
    if (fit.fitted if fit.held_out is None else fit.held_out) >= fit.automatic:
        say("Note: on new photos the preset is no better than none: the pairs have no common look in its reach.")
    print(output)
