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
    key: Annotated[
        str | None,
        typer.Option(
            envvar="DIFFRETOUCH_KEY",
            help="What visitors must know. Made up and shown where other computers can reach the page.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A name of this computer by which visitors reach it; may be repeated.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    build: Annotated[
        Path | None, typer.Option(help="Write the page into this new folder, for any static host, and end.")
    ] = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web", help="For --build: that package as a folder or .tgz. [default: npm fetches it]"
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """A page in the browser: a photo, four sliders, and the picture follows the hand.

    Where other computers can reach it (--host), it asks for a key. --build makes a folder that works without Python:
    the browser runs the models.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError("the page needs Starlette and uvicorn: pip install 'diffretouch[demo]'") from error
    if build is not None:
        from diffretouch.demo.build import build as build_page

        say("Exporting the models ...")
        print(build_page(build, model or (), onnxruntime_web=onnxruntime_web))
        return
    if onnxruntime_web is not None:
        raise ValueError("--onnxruntime-web is for --build")
    import signal
    import threading

    from diffretouch.demo.server import serving

    say("Loading the models ...")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files go then, too
    given = {"host": host, "port": port, "device": find_device(device), "key": key, "names": name or ()}
    with serving(model or (), browser=browser, **given) as address:
        print(address, flush=True)
        say("The page is open there; Ctrl+C ends it.")
        threading.Event().wait()
