"""The command line: `diffretouch retouch | batch | sweep | lut | ...`. It only calls the library."""

import sys
from typing import Annotated

import typer

from . import batch, convert, demo, evaluate, export, lut, retouch
from .loading import say, say_error

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Controllable photo retouching: one photo in, a retouched photo out at full resolution.",
)
for command in (
    *(retouch.retouch, batch.batch, retouch.sweep, lut.lut, evaluate.measure, batch.learn),
    *(evaluate.evaluate, convert.convert, export.export, demo.demo),
):
    app.command()(command)


def _say_version(asked: bool) -> None:
    if asked:
        from diffretouch import __version__

        print(f"diffretouch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say it.")] = False,
):
    pass


def main() -> None:
    """Entry point: failures end in one sentence and exit code 1, wrong usage in 2."""
    import warnings

    warnings.formatwarning = lambda message, *_: f"Note: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # names of files that are no UTF-8 are printed as they are
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    try:
        app()
    except KeyboardInterrupt:
        say("Stopped.")
        sys.exit(130)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        say_error(error)
        sys.exit(1)
    except RuntimeError as error:  # of torch, which has no name of its own for every device
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        say("Error: there is not enough memory for this on the device; --device names another.")
        sys.exit(1)
