"""The command line: `diffretouch retouch | batch | sweep | lut | ...`. It only calls the library."""

import sys

import typer

from . import batch, convert, demo, evaluate, lut, retouch
from .loading import say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Controllable photo retouching: one photo in, a retouched photo out at full resolution.",
)
for command in (
    *(retouch.retouch, batch.batch, retouch.sweep, lut.lut, evaluate.measure, batch.learn),
    *(evaluate.evaluate, convert.convert, demo.demo),
):
    app.command()(command)


def main():
    """Entry point: failures end in one sentence and exit code 1, wrong usage in 2."""
    import warnings

    warnings.formatwarning = lambda message, *_: f"Note: {message}\n"
    try:
        app()
    except KeyboardInterrupt:
        say("Stopped.")
        sys.exit(130)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        say(f"Error: {' '.join(str(error).split()) or type(error).__name__}")
        sys.exit(1)
