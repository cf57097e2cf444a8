"""Batches for the tests."""

from pathlib import Path

from diffretouch.batch import retouch_batch
from diffretouch.photo.write_options import WriteOptions
from diffretouch.settings import Settings, resolved

PHOTOS = sorted((Path(__file__).parent / "photos").glob("gb82_*.jpg"))


def settings_for(pipe, **values):
    return resolved(Settings(**values), pipe, "tiny")


def run(pipe, plan, settings, **options):
    """With the options of writing and of the batch together."""
    written = WriteOptions(**{name: options.pop(name) for name in vars(WriteOptions()).keys() & options.keys()})
    return {row["photo"]: row for row in retouch_batch(pipe, plan.tasks, settings, written, **options)}


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
