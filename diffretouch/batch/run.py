"""Whole folders: every photo once, read and written beside the model's work, whatever some of the files hold."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffretouch.photo import encoders, read_photo, write_photo
from diffretouch.photo.write_options import AS_THE_PHOTO, WriteOptions
from diffretouch.settings import Settings, read_preset, seed_of, settings_of, sidecar_path

from .plan import Plan, Task, remove_unfinished
from .report import Report, report_paths
from .series import MOST_EXPOSURE, SeriesLook, exposed, match, series_looks, series_target
from .stream import apply, stream

if TYPE_CHECKING:
    from accelerate import PartialState
    from diffusers import DiffusionPipeline


def retouch_batch(
    pipe: "DiffusionPipeline", tasks: Iterable[Task], settings: Settings, options: WriteOptions = AS_THE_PHOTO, *,
    jobs: int | None = None, batch_size: int = 8, max_pixels: int = 300_000_000, sidecars: bool = False,
    series: SeriesLook | None = None,
) -> Generator[dict[str, Any], None, None]:  # fmt: skip
    """Retouch many photo files: read, sampled in batches and written at the same time, in bounded memory.

    A file that cannot be read, retouched or written is told and passed by. Whatever ends the generator (also
    `KeyboardInterrupt`), every result is whole or not there.

    Args:
        pipe: [`DiffRetouchPipeline`], or any pipeline with the call `(image, *, strength, output_type)`; colours
            outside sRGB's gamut are kept where it has a method `retouch` that takes float32 and uint8 arrays, as
            [`CSRNetPipeline`] has.
        tasks: see `plan_batch`.
        settings ([`Settings`]): complete, see `settings.resolved`; the seed of each photo is
            `seed_of(name, settings.seed)`.
        options ([`WriteOptions`]): how results are written. Without `overwrite`, those that are there count as
            failures.
        jobs (`int`, *optional*): threads that read, and as many that write. By default one per processor.
        batch_size (`int`): the most photos in one pass of the model.
        max_pixels (`int`): see `load_photo`.
        sidecars (`bool`): also write the settings into a file beside each result: both appear, or neither.
        series ([`SeriesLook`], *optional*): see `series_looks`: every result is brought to it, and all photos get the
            same noise.

    Yields:
        `dict`: for each photo, as it is finished: `photo` (its name), `status` ("done" or "failed"), then `result`
        (the file), `seed`, `exposure` and `white_balance` (of a series), `notes`, `read_seconds`, `write_seconds`; or
        `error`.
    """

    def finish(task, photo, retouch, own):
        started, notes = time.perf_counter(), list(photo.notes)
        result = apply(pipe, photo.pixels, retouch, own)
        if series is not None:
            exposure, balance = match(result, series)
            own = replace(own, exposure=exposure, white_balance=balance)
            if abs(exposure) == MOST_EXPOSURE:
                notes.append(f"Its exposure was moved by {exposure:+g} EV, the most that is: it is not the series'.")
        result = exposed(result, own.exposure, own.white_balance)
        kind = encoders.SUFFIXES[task.target.suffix.lower()]
        depth = min(photo.bit_depth, max(encoders.DEPTHS[kind]))
        if depth < photo.bit_depth:
            notes.append(f"{kind} holds {depth} bits a channel, the photo has {photo.bit_depth}.")
        task.target.parent.mkdir(parents=True, exist_ok=True)
        written = replace(options, quality=None) if kind in ("PNG", "TIFF") else options
        with _sidecar(task, own, options.overwrite) if sidecars else nullcontext():
            told = own.without_folders().to_json()
            lost = write_photo(result, task.target, like=photo, bit_depth=depth, description=told, **vars(written))
        if lost:
            notes.append(f"{kind} could not hold {', '.join(lost)}.")
        row = {"photo": task.name, "status": "done", "result": str(task.target), "seed": own.seed}
        if series is not None:
            row |= {"exposure": round(exposure, 3), "white_balance": [round(ev, 3) for ev in balance]}
        return {**row, "notes": notes, "write_seconds": round(time.perf_counter() - started, 3)}

    seed = settings.seed
    seeds = (lambda name: seed_of(name, seed)) if series is None and seed is not None else (lambda name: seed)
    alone = series is None and kept_as_8_bits(settings, options)
    yield from stream(pipe, tasks, settings, finish, seeds, jobs, batch_size, alone, max_pixels)


def kept_as_8_bits(settings: Settings, options: WriteOptions) -> bool:
    """Whether photos of 8 bits are retouched as such: what else happens to them would round integers once more."""
    more = options.dither or options.background is not None or settings.exposure or settings.white_balance
    return not (more or settings.regions)


@contextmanager
def _sidecar(task, own, overwrite):
    """The settings beside a result, under their name as soon as the result has its own; not if that fails.

    A sidecar that is there is replaced if it is this photo's and its result is gone.
    """
    path, photo = sidecar_path(task.target), Path(task.name).name.encode("utf-8", "replace").decode()
    overwrite = overwrite or (not os.path.lexists(task.target) and _photo_of(path) == photo)
    if not overwrite and os.path.lexists(path):
        raise ValueError(f"`overwrite` is False and {str(path)!r} exists.")
    with encoders.new_file(path, overwrite) as file:
        file.write((replace(own, photo=photo).to_json(indent=1) + "\n").encode())
        file.flush()  # a full disk is noticed before the result has its name
        yield


def _photo_of(path):
    try:
        return read_preset(path).photo
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Summary:
    """What a batch did, over all of its processes.

    Attributes:
        done, failed, skipped: numbers of photos; folders that cannot be read count as failed.
        seconds: of retouching, the mean of the processes.
        notes: pairs (name of a photo, sentence).
    """

    done: int
    failed: int
    skipped: int
    seconds: float
    notes: tuple[tuple[str, str], ...]


class OneProcess:
    """What of accelerate's `PartialState` is used here, for a process that nothing launched with others: no torch."""

    is_main_process, num_processes, process_index = True, 1, 0

    def wait_for_everyone(self) -> None:
        """Nobody else is there."""

    @contextmanager
    def split_between_processes(self, inputs: list) -> Iterator[list]:
        """All of it."""
        yield inputs


# What launchers say of their processes: Accelerate's and torch's, and those of MPI that Accelerate knows
_LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def launched() -> bool:
    """Whether a launcher started this process, perhaps with others."""
    return any(name in os.environ for name in _LAUNCHERS)


def join_processes(device: str | None = None) -> "PartialState | OneProcess":
    """The group of processes that this one was launched in by Accelerate or torchrun, as accelerate's `PartialState`.

    Args:
        device (`str`, *optional*): on "cpu", Accelerate must be told so the first time: else every process takes
            itself for the only one.

    Raises:
        ValueError: the group is smaller than the launcher said.
    """
    if not launched():
        return OneProcess()
    from accelerate import PartialState

    number = int(os.environ.get("WORLD_SIZE", 1))
    state = PartialState(cpu=True) if number > 1 and device == "cpu" else PartialState()
    if state.num_processes != number:
        raise ValueError(f"{number} processes were launched, but Accelerate sees {state.num_processes}.")
    return state


_COMPARED = 8  # results that are read, evenly among those that are there


def check_existing(tasks: Sequence[Task], settings: Settings, *, consistent: bool = False) -> None:
    """Compare what results say of their settings with those that others will now be made with; a few are read.

    Args:
        tasks: whose results are there.
        settings ([`Settings`]): complete.
        consistent (`bool`): a series: noise is not each photo's own, exposure and white balance are.

    Raises:
        ValueError: a result was made otherwise; says how.
    """
    ignored = {"model", "photo", "version"} | ({"exposure", "white_balance"} if consistent else set())
    for task in tasks[:: max(-(-len(tasks) // _COMPARED), 1)]:
        try:
            before = settings_of(read_photo(task.target, keep_8_bits=True))
        except ValueError:  # without metadata, or no result of this library: left as it is
            continue
        own = seed_of(task.name, settings.seed) if settings.seed is not None and not consistent else settings.seed
        now = Settings.from_json(replace(settings, seed=own).without_folders().to_json())
        named = {name: (getattr(before, name), getattr(now, name)) for name in vars(now) if name not in ignored}
        differ = [f"{name} {_words(old)}, now {_words(new)}" for name, (old, new) in named.items() if old != new]
        if differ:
            raise ValueError(
                f"`skip_existing` would mix two looks: {str(task.target)!r} was made with {'; '.join(differ)}. Take "
                "the same settings, or `overwrite`."
            )


def _words(value):
    if isinstance(value, dict):
        return " ".join(f"{name} {number:+g}" for name, number in value.items() if number) or "0"
    return "none" if value is None else str(value)


def _gather(rows):
    from accelerate.utils import gather_object

    return gather_object(rows)


def run_batch(
    pipe: "DiffusionPipeline", plan: Plan, settings: Settings, options: WriteOptions = AS_THE_PHOTO,
    report: Path | None = None, *, skip_existing: bool = False, consistent: bool = False, sidecars: bool = False,
    jobs: int | None = None, batch_size: int = 8, max_pixels: int = 300_000_000,
    progress: Callable[..., Any] | None = None, tell: Callable[[str], Any] | None = None,
) -> Summary:  # fmt: skip
    """Do what a plan says, in all processes that were launched together, each with its share.

    Every process calls this with a plan that it made before: nobody writes until all have come here.

    Args:
        pipe, settings, options, sidecars, jobs, batch_size, max_pixels: see `retouch_batch`.
        plan ([`Plan`]): see `plan_batch`.
        report (path, *optional*): a file with a line of JSON for each photo, see `report_paths`.
        skip_existing (`bool`): go on where a batch was stopped: leave the results that the plan found, add to the
            report. Without it they are replaced, or count as failures, as `options.overwrite` says. Settings that
            stand in some of them are compared with those of this batch.
        consistent (`bool`): a series: one noise for all photos, exposures and white balances matched.
        progress (*optional*): shows how far it is, called as tqdm is: `progress(photos, description, total)`.
        tell (*optional*): called with every row of this process, as it is finished.

    Returns:
        [`Summary`]: the same in every process.

    Raises:
        ValueError: `skip_existing` with `overwrite`, or with results that were made with other settings.
    """
    state, progress = join_processes(), progress or (lambda photos, description, total: photos)
    several = state.num_processes > 1
    gather = _gather if several else list
    left = {task.name for task in plan.existing} if skip_existing else set()
    if skip_existing and options.overwrite:
        raise ValueError("`skip_existing` leaves results that exist, and `overwrite` replaces them: one of both.")
    if skip_existing and state.is_main_process:
        check_existing(plan.existing, settings, consistent=consistent)
    process = {"process": state.process_index, "processes": state.num_processes} if several else {}
    if state.is_main_process:
        remove_unfinished(plan.tasks)
    state.wait_for_everyone()
    limits: dict[str, Any] = {"jobs": jobs, "batch_size": batch_size, "max_pixels": max_pixels}

    series = None
    if consistent:
        with state.split_between_processes(list(plan.tasks)) as share:
            looks = list(progress(series_looks(pipe, share, settings, **limits), "Measuring", len(share)))
        series = series_target(gather(looks))
    if report is not None:
        report = report_paths(Path(report), state.num_processes)[state.process_index]
        report.parent.mkdir(parents=True, exist_ok=True)
    done, failed, notes, started = 0, 0, [], time.monotonic()
    with (
        Report(report, append=skip_existing) if report else nullcontext() as told,
        state.split_between_processes([task for task in plan.tasks if task.name not in left]) as share,
        closing(retouch_batch(pipe, share, settings, options, sidecars=sidecars, series=series, **limits)) as rows,
    ):
        for task in plan.existing if left and told and state.is_main_process else ():
            if task.name not in told.done:
                told.write({"photo": task.name, "status": "skipped", "result": str(task.target)} | process)
        for row in progress(rows, "Retouching", len(share)):
            done, failed = done + (row["status"] == "done"), failed + (row["status"] == "failed")
            notes += [(row["photo"], note) for note in row.get("notes", ())]
            if told:
                told.write(row | process)
            if tell:
                tell(row)
    done, failed, seconds = map(sum, zip(*gather([(done, failed, time.monotonic() - started)]), strict=True))
    failed += len(plan.unread)
    return Summary(done, failed, len(left), seconds / state.num_processes, tuple(gather(notes)))
