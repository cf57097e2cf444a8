"""What happened to every photo of a batch, as a file."""

import json
from pathlib import Path
from typing import Any


def report_paths(path: Path, processes: int) -> list[Path]:
    """Each process writes a file of its own: report.jsonl, or report.0.jsonl, report.1.jsonl, ..."""
    if processes == 1:
        return [path]
    return [path.with_name(f"{path.stem}.{n}{path.suffix}") for n in range(processes)]


class Report:
    """A file with one JSON object a line, written as things happen; after a kill it is gone on with.

    Args:
        path: the file.
        append (`bool`): keep what is there, but for a last line that was cut off.

    Attributes:
        done: names of the photos that it tells of as done.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.done = set()
        self.file = open(path, "a+b" if append else "wb")
        if append:
            self.file.seek(0)
            lines = self.file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
                self.file.truncate(sum(map(len, lines)))
            for line in lines:
                try:
                    row = json.loads(line)
                    if row["status"] == "done":
                        self.done.add(row["photo"])
                except (ValueError, KeyError, TypeError) as error:
                    self.file.close()
                    raise ValueError(f"{str(path)!r} is no report of a batch.") from error

    def write(self, row: dict[str, Any]) -> None:
        self.file.write((json.dumps(row) + "\n").encode())
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
