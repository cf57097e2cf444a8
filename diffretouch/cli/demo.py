"""The page in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .loading import find_device, say


def demo(
    model: Annotated[
        list[Path] | None, typer.Option(help="A model directory to offer beside the bundled ones; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; others can reach the page unless it is local.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: options.Device = "auto",
):
    """A page in the browser: a photo, four sliders, and the picture follows the hand."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the page needs Gradio: pip install 'diffretouch[demo]'") from error
    import signal
    import threading

    from diffusers.utils import logging

    from diffretouch.demo.server import serving

    logging.disable_progress_bar()
    say("Loading the models ...")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files go then, too
    with serving(model or (), host=host, port=port, device=find_device(device), browser=browser) as address:
        print(address, flush=True)
        say("The page is open there; Ctrl+C ends it.")
        threading.Event().wait()
