"""What a batch will do: the photos of a folder, and the files they become."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffretouch.photo import encoders, headers

SUFFIXES = {*encoders.READ_SUFFIXES, *headers.RAW_SUFFIXES}


@dataclass(frozen=True)
class Task:
    """One photo of a batch.

    Attributes:
        name: path of the photo relative to its folder, with "/": what seeds and reports go by.
        source, target: the file, and the file to be.
    """

    name: str
    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What a batch will do.

    Attributes:
        tasks: in the order of their names.
        notes: sentences on what is left out.
        unread: sentences on folders that cannot be read.
        existing: the tasks whose results were there when the plan was made.
    """

    tasks: tuple[Task, ...]
    notes: tuple[str, ...]
    unread: tuple[str, ...]
    existing: tuple[Task, ...] = ()


def plan_batch(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    recursive: bool = True,
    suffix: str = "",
    format: str | None = None,
) -> Plan:
    """Find the photos of a folder and name their results: the same tree in another folder.

    Files count as photos by their suffix. Hidden files and the target folder are left out; links to folders are
    followed, but no folder is entered twice. RAW and HEIC files become TIFFs if no format is named.

    Args:
        source, target (paths): two folders; the target need not exist.
        recursive (`bool`): also the folders inside.
        suffix (`str`): goes behind the stem: "_retouched" makes a_retouched.jpg of a.jpg.
        format (`str`, *optional*): "jpg", "png", "tif", "webp", "avif" or "jxl" for all; by default as the photo.

    Returns:
        [`Plan`]

    Raises:
        ValueError: no folder, no photos, folders that are one, two photos with one result, results that would lie
            outside the target or on a photo.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise ValueError(f"`source` must be a folder, got {str(source)!r}.")
    if os.path.lexists(target) and not target.is_dir():
        raise ValueError(f"`target` must be a folder, got the file {str(target)!r}.")
    if os.path.realpath(source) == os.path.realpath(target):
        raise ValueError(f"`target` must be another folder than the photos' {str(source)!r}.")
    if not isinstance(suffix, str) or {"/", "\\", "\0"} & set(suffix):
        raise ValueError(f"`suffix` must be text without / and \\, got {suffix!r}.")
    ending = None if format is None else f".{format}"
    if ending is not None and ending.lower() not in encoders.SUFFIXES:
        raise ValueError(f"`format` must be {', '.join(s[1:] for s in encoders.SUFFIXES)}, got {format!r}.")

    names, notes, unread = _find(source, os.path.realpath(target), recursive)
    if not names:
        raise ValueError(f"`source`: {str(source)!r} holds no photos ({', '.join(sorted(encoders.SUFFIXES))}, ...).")
    tasks = []
    for name in names:
        path = Path(name)
        result = path.with_name(f"{path.stem}{suffix}{ending or encoders.result_suffix(path)}")
        tasks.append(Task(name, source / path, target / result))
    _check_results(tasks, target)
    return Plan(tuple(tasks), tuple(notes), tuple(unread), tuple(existing_results(tasks)))


def _find(source, target, recursive):
    """-> (names of the photos, sorted; notes; what could not be read). `target` is a real path."""
    names, notes, unread, entered, others = [], [], [], set(), 0

    def unreadable(error):
        unread.append(f"{error.filename!r} cannot be read: {error.strerror}.")

    for here, folders, files in os.walk(source, followlinks=True, onerror=unreadable):
        real = os.path.realpath(here)
        if real in entered:
            notes.append(f"{here!r} leads to a folder that was entered already: left out.")
            folders.clear()
            continue
        entered.add(real)
        links = {name for name in folders if os.path.islink(os.path.join(here, name))}
        inside = [name for name in folders if os.path.realpath(os.path.join(here, name)) != target]
        # Links last: of a folder and a link to it beside it, the folder is entered
        folders[:] = sorted((n for n in inside if not n.startswith(".")), key=lambda name: (name in links, name))
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in SUFFIXES:
                names.append(Path(os.path.relpath(os.path.join(here, name), source)).as_posix())
            else:
                others += 1
        if not recursive:
            folders.clear()
    if others:
        notes.append(f"{others} other files, no photos by their suffix, are left out.")
    return sorted(names), notes, unread


def _check_results(tasks, target):
    """Raises ValueError where results would meet each other, a photo, or lie outside the target."""
    by_result, folded = {}, {}
    for task in tasks:
        if task.target in by_result:
            raise ValueError(
                f"{by_result[task.target]!r} and {task.name!r} would both become {str(task.target)!r}: keep their "
                "formats, or rename one."
            )
        by_result[task.target] = task.name
        key = unicodedata.normalize("NFC", str(task.target)).casefold()
        folded.setdefault(key, []).append(task.name)
    for folder in {parent for task in tasks for parent in task.target.parents} & by_result.keys():
        raise ValueError(f"the result {str(folder)!r} has the name of a folder that other results need.")
    alike = next((names for names in folded.values() if len(names) > 1), None)
    if alike and not _tells_case(target):
        raise ValueError(f"{alike[0]!r} and {alike[1]!r} would become one file where {str(target)!r} lies.")
    root, photos = os.path.realpath(target), {os.path.realpath(task.source) for task in tasks}
    for task in tasks:
        if os.path.realpath(task.target) in photos:
            raise ValueError(f"the result {str(task.target)!r} would lie on a photo.")
    links = {task.target for task in tasks if os.path.islink(task.target)}  # they would be followed
    for folder in {task.target.parent for task in tasks} | links:
        real = os.path.realpath(folder)
        if real != root and os.path.commonpath([real, root]) != root:
            raise ValueError(f"{str(folder)!r} leads out of the target folder, to {real!r}.")


def _tells_case(target):
    """Whether "a" and "A" are two files there: asked of the first folder above that exists."""
    folder = next(path for path in (target, *target.absolute().parents) if path.is_dir())
    swapped = folder.absolute().as_posix().swapcase()
    return not (os.path.exists(swapped) and os.path.samefile(folder, swapped))


def existing_results(tasks: Iterable[Task]) -> list[Task]:
    """The tasks whose results are there already."""
    return [task for task in tasks if os.path.lexists(task.target)]


def remove_unfinished(tasks: Iterable[Task]) -> int:
    """Remove what killed runs on this machine left between the results -> number of files."""
    return sum(encoders.remove_abandoned(folder) for folder in {task.target.parent for task in tasks})
