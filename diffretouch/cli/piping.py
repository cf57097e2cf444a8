"""`-` for a file: standard input and output, by way of files in a folder of their own."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

PIPE = Path("-")


@contextmanager
def piped(
    photos: list[Path], output: Path | None
) -> Iterator[tuple[list[Path], Path | None, Callable[[Path], object]]]:
    """-> photos and output with files in place of `-`, and what is done with a finished result.

    Its name is printed; what is for standard output goes there, in the format of the photo. Without an output, a photo
    from standard input goes to standard output.
    """
    outward = output == PIPE or (output is None and PIPE in photos)
    if PIPE not in photos and not outward:
        yield photos, output, print
        return
    if len(photos) > 1:
        raise typer.BadParameter("- goes with one photo.")
    from diffretouch.photo import encoders, headers

    photo = photos[0]
    with tempfile.TemporaryDirectory(prefix="diffretouch-") as folder:
        if photo == PIPE:
            photo = Path(folder, "standard input")
            photo.write_bytes(sys.stdin.buffer.read())
            photo = photo.rename(photo.with_suffix(headers.usual_suffix(photo)))
        if outward:
            output = Path(folder, f"result{encoders.result_suffix(photo)}")
        try:
            yield [photo], output, _write_out if outward else print
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(f"{folder}/", "")) from error


def _write_out(path):
    sys.stdout.buffer.write(path.read_bytes())
    sys.stdout.buffer.flush()
