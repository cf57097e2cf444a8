"""Lists of photos: one meaning wherever a list says which photos are taken or left out."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_COMMENT = re.compile(r"(?:^|\s)#")
_SUFFIX = re.compile(r"\.(jpe|jpe?g|png|tiff?|dng|webp|avif|jxl|hei[cf])$", re.I)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of a text file in UTF-8, one a line, each once; a # that begins a word begins a comment.

    Raises:
        ValueError: the file cannot be read, or lists nothing.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors begin a file by a mark
        lines = [_COMMENT.split(line)[0].strip() for line in text.splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list {path} cannot be read: {error}") from error
    if not any(lines):
        raise ValueError(f"the list {path} names no photos.")
    return list(dict.fromkeys(line for line in lines if line))


def stem(name: str) -> str:
    """A name without the extension of a photo: "a0001.jpg" -> "a0001", "v1.2" stays."""
    return _SUFFIX.sub("", name)


def named(
    paths: Iterable[Path],
    names: Iterable[str],
    folder: str | os.PathLike[str],
    *,
    parameter: str = "exclude",
    id_of: Callable[[str], str] | None = None,
) -> set[Path]:
    """Those of the photos that a list names: by file name or path below the folder, with or without extension, or id.

    Args:
        paths: photos, all under `folder`.
        names: of `read_names`, for example.
        folder: what names with a slash are relative to.
        parameter: what errors call the list.
        id_of (*optional*): stem of a file name -> id, where the data set has such.

    Raises:
        ValueError: a name that no photo has: it was meant to do something.
    """
    found, unmatched = {}, []
    for path in paths:
        below = path.relative_to(folder).as_posix()
        forms = {path.name, below, stem(path.name), stem(below)} | ({id_of(path.stem)} if id_of else set())
        for form in forms:
            found.setdefault(form, set()).add(path)
    chosen = set()
    for name in names:
        match = found.get(name) or found.get(stem(name)) or found.get(_id(name, id_of))
        chosen |= match or set()
        if not match:
            unmatched.append(name)
    if unmatched:
        some = ", ".join(unmatched[:5]) + (" ..." if len(unmatched) > 5 else "")
        raise ValueError(f"`{parameter}` must name photos of {folder}; {len(unmatched)} have none there: {some}.")
    return chosen


def _id(name, id_of):
    """The id that a name means, or `None`: lists may be of originals, whose names say more than the photos'."""
    try:
        return id_of(stem(name.rpartition("/")[2])) if id_of else None
    except ValueError:
        return None
