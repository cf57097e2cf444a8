"""Folders of photos: retouched, or learned from."""

import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import Look, Writing, grouped, settings_for_torch
from .loading import find_device, follow, load_pipeline, open_model, say


@grouped
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The folder of photos.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the results: the same tree.")],
    look: Look,
    writing: Writing,
    consistent: Annotated[
        bool,
        typer.Option("--consistent", help="A series: one noise for all photos, exposures and white balances matched."),
    ] = False,
    recursive: Annotated[bool, typer.Option(help="Also the folders inside.")] = True,
    suffix: Annotated[str, typer.Option(help="Behind the names: _retouched makes a_retouched.jpg of a.jpg.")] = "",
    format: Annotated[
        str | None, typer.Option(help="jpg, png, tif, webp, avif or jxl; as the photo else, tif for RAW and HEIC.")
    ] = None,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Go on: leave results that exist.")] = False,
    report: Annotated[Path | None, typer.Option(help="A file with a line of JSON for each photo.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=64, help="Threads that read, and that write. [default: one per processor]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="The most photos in one pass of the model.")] = 8,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
) -> None:
    """Retouch a folder of photos, each with noise of its own by its name. Files that cannot be used are passed by.

    `accelerate launch -m diffretouch.cli batch IN OUT` splits the work over GPUs and machines, `torchrun
    --nproc_per_node 2 -m diffretouch.cli batch IN OUT` over processes without GPUs.
    """
    from diffretouch.batch import join_processes, launched, plan_batch, report_paths, run_batch
    from diffretouch.settings import sidecar_path

    (settings, model), written, overwrite = look.read(), writing.read(), writing.overwrite
    if skip_existing and overwrite:
        raise typer.BadParameter("--skip-existing leaves results, --overwrite replaces them: one of both.")
    plan = plan_batch(source, target, recursive=recursive, suffix=suffix, format=format)
    if plan.existing and not skip_existing and not overwrite:
        raise typer.BadParameter(
            f"{len(plan.existing)} of {len(plan.tasks)} results exist, as {str(plan.existing[0].target)!r}: "
            "--skip-existing leaves them, --overwrite replaces them.", param_hint="OUT"
        )  # fmt: skip
    if report is not None and not report.parent.is_dir() and report.parent != target:
        raise typer.BadParameter(f"the folder {report.parent} does not exist.", param_hint="--report")
    if report is not None and os.path.realpath(report) in {
        os.path.realpath(path) for task in plan.tasks for path in (task.source, task.target)
    }:
        raise typer.BadParameter(f"{str(report)!r} is a photo, or a photo's result.", param_hint="--report")
    known = look.device in ("auto", "cpu") and not launched()
    state = join_processes(None if known else find_device(look.device))
    first, several = state.is_main_process, state.num_processes > 1
    there = [path for path in report_paths(report, state.num_processes) if path.exists()] if report else []
    if there and not skip_existing and not overwrite:
        raise typer.BadParameter(f"{there[0]} exists: --skip-existing goes on with it.", param_hint="--report")
    if first:
        for note in plan.notes:
            say(f"Note: {note}")
        for sentence in plan.unread:
            say(f"Error: {sentence}")
        bare = [task for task in plan.existing if not sidecar_path(task.target).exists()]
        if writing.sidecar and bare and not overwrite:
            say(f"Note: {len(bare)} results that exist have no sidecar, as {bare[0].target}: they get none.")
    device = str(state.device) if several and look.device == "auto" else look.device
    wishes = {"--consistent": consistent, "a launcher": launched(), **settings_for_torch(settings)}
    pipe = open_model(model, device, look.engine, wishes, steps=settings.steps, progress=False)
    settings = follow(settings, pipe, model)
    with _telling(quiet=not first) as shown:
        summary = run_batch(
            pipe, plan, settings, written, report, skip_existing=skip_existing,
            consistent=consistent, sidecars=writing.sidecar, jobs=jobs, batch_size=batch_size, max_pixels=max_pixels,
            **shown,
        )  # fmt: skip
    if first:
        _tell(summary.notes)
        rate = f" in {summary.seconds:.1f} s, {summary.done / max(summary.seconds, 1e-9):.2f} a second"
        where = f" by {state.num_processes} processes" if several else ""
        say(f"{summary.done} retouched{where}{rate if summary.done else ''}; {summary.skipped} skipped, "
            f"{summary.failed} failed.")  # fmt: skip
    if several:
        state.wait_for_everyone()  # the first that ends with an error makes the launcher stop the others
        state.destroy_process_group()
    if summary.failed:
        raise typer.Exit(1)


_PAIRS = "10 to 25 pairs of one consistent look"  # benchmarks/learn.py


@contextmanager
def _telling(quiet):
    """-> what `run_batch` shows and tells, as it goes. A stop is told with what it leaves."""
    import signal

    from tqdm import tqdm

    notes = []

    def tell(row):
        if row["status"] == "failed":
            tqdm.write(f"Error: {row['photo']!r}: {row['error']}", file=sys.stderr)
        notes.extend((row["photo"], note) for note in row.get("notes", ()))

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: between photos
    try:
        yield {"progress": partial(tqdm, unit="photo", disable=quiet or None, smoothing=0.1), "tell": tell}
    except KeyboardInterrupt:
        if not quiet:
            _tell(notes)
            say("Stopped. Every result that is there is whole; --skip-existing goes on.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(notes):
    """What happened to photos, (name, sentence): one line a sentence, however many photos it is about."""
    names = {}
    for name, note in notes:
        names.setdefault(note, []).append(name)
    for note, about in names.items():
        others = f" and {len(about) - 1} more" if len(about) > 1 else ""
        say(f"Note: {min(about)!r}{others}: {note}")


def learn(
    inputs: Annotated[Path, typer.Argument(metavar="IN", help="Folder of untouched photos: a few are enough.")],
    finished: Annotated[Path, typer.Argument(metavar="FINISHED", help="Your versions of them, under the same names.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The preset: a JSON file.")],
    seed: options.Seed = 0,
    steps: options.Steps = None,
    model: options.Model = "small",
    device: options.Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Write the preset also where it does not pay.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fit a preset to your own before and after pairs, and say how close it comes.

    The preset is written if it does better than none on pairs that it was not fitted to. Of one consistent look
    10 pairs are usually enough, and 25 teach most of what 200 do. From 50 pairs a model of your own may go further:
    train_diffretouch --init small --dataset pairs. `benchmarks/README.md` has both curves.
    """
    from diffretouch.evaluation import pair_names
    from diffretouch.settings import write_preset

    options.check_output(output, overwrite, photo=inputs)
    pairs = pair_names(inputs, finished)
    pipe = load_pipeline(model, device, progress=False)
    from diffretouch.evaluation.words import counted
    from diffretouch.fitting import fit_preset

    say(f"Learning from {counted(len(pairs), 'pair')} ...")
    fit = fit_preset(pipe, pairs, seed=seed, steps=steps)
    print(", ".join(f"{name} {value:+g}" for name, value in fit.settings.c.items()), end="")
    print(f", strength {fit.settings.strength:g}")
    print("Mean colour difference (CIE 1976) to the finished photos:")
    print(f"{fit.untouched:8.2f}  the photos as they are\n{fit.automatic:8.2f}  without the preset (automatic)")
    print(f"{fit.fitted:8.2f}  with the preset")
    judged = "One pair cannot tell whether it holds for others."
    if fit.held_out is not None:
        (gain, error), less = fit.gain, sum(row["held_out"] < row["automatic"] for row in fit.photos)
        print(f"{fit.held_out:8.2f}  with what was learned from other pairs only: expect this on new photos")
        judged = (f"On pairs left out the error is {fit.held_out:.2f} with it and {fit.automatic:.2f} without, "
                  f"less in {less} of {len(pairs)}: by {gain:.2f}, with a standard error of {error:.2f}.")  # fmt: skip
    if fit.pays or force:
        write_preset(follow(fit.settings, pipe, model), output, overwrite=overwrite)
        print(output)
        return
    say(f"The preset was not written: it does not pay. {judged} It usually takes {_PAIRS}; with 50 or more, a "
        "model of your own may go further: accelerate launch -m diffretouch.training.train_diffretouch --init small "
        "--dataset pairs (see --help; it needs no --vae). --force writes the preset all the same.")  # fmt: skip
    raise typer.Exit(1)
