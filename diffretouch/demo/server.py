"""Starting and ending the page: local, alone, and leaving nothing behind."""

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
import warnings
import webbrowser
from collections.abc import Iterable, Iterator
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from .guard import Guard, check_key, is_loopback
from .models import Models
from .opened import OpenPhotos
from .routes import Routes

_FIRST_PORT = 7860


@contextlib.contextmanager
def serving(
    models: Iterable[str | os.PathLike[str]] | Models = (), *, host: str = "127.0.0.1", port: int | None = None,
    device: str = "cpu", browser: bool = False, key: str | None = None, names: Iterable[str] = (),
) -> Iterator[str]:  # fmt: skip
    """The page, while the context lasts; yields its address.

    All temporary files lie in one folder, which goes with the page.

    Args:
        models: model directories to offer beside the bundled models, or a [`Models`].
        host (`str`): where to listen; the default is for this computer alone.
        port (`int`, *optional*): by default the first free one from 7860.
        device (`str`): where the models work.
        browser (`bool`): open it in the browser.
        key (`str`, *optional*): what visitors must know, at least 8 characters. Where other computers can reach the
            page, one is made up.
        names (list of `str`): further names of this computer by which visitors reach it.

    Raises:
        ValueError: a directory holds no model; a key that is too short.
        OSError: the port is taken.
    """
    check_key(key)
    if key is None and not is_loopback(host):
        key = secrets.token_urlsafe(12)
    folder = tempfile.mkdtemp(prefix="diffretouch-")
    photos, ended, server, thread = OpenPhotos(), threading.Event(), None, None
    try:
        warnings.filterwarnings("ignore", message=".*extrapolat.*")  # the page says it
        from diffusers.utils import logging as bars

        bars.disable_progress_bar()
        models = models if isinstance(models, Models) else Models(models, device)
        models.described(models.labels[0], True)  # loaded before anybody waits for it
        page = Mount("/", StaticFiles(packages=[("diffretouch.demo", "web")], html=True))
        guard = Middleware(Guard, host=host, names=names, key=key)
        app = Starlette(routes=[*Routes(models, photos, folder).routes(), samples(), page], middleware=[guard])
        listening = bind(host, port)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}/"
        own = {"log_level": "error", "lifespan": "off", "server_header": False, "proxy_headers": False}
        server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=3, **own))
        thread = threading.Thread(target=server.run, args=([listening],), name="diffretouch-page", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        if not server.started:
            raise OSError(f"The page cannot be served at {address}.")

        def tidy():
            while not ended.wait(60):
                photos.close_idle()

        threading.Thread(target=tidy, name="diffretouch-tidy", daemon=True).start()
        if key is not None:
            reached = "Others can reach this page" if not is_loopback(host) else "The page"
            print(f"{reached}: it asks for the key {key}", file=sys.stderr, flush=True)
        if browser:
            webbrowser.open(address)
        yield address
    finally:
        ended.set()
        if server is not None:
            server.should_exit = True
            thread.join(5)
        shutil.rmtree(folder, ignore_errors=True)


def samples() -> Mount:
    return Mount("/samples", StaticFiles(directory=str(files("diffretouch.demo") / "samples")))


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket at that port, or at the first free one from 7860.

    Raises:
        OSError: it is taken, or this computer has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port else range(_FIRST_PORT, _FIRST_PORT + 100):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            return listening
        except OSError as error:
            listening.close()
            if port or number == _FIRST_PORT + 99 or error.errno in (99, 13):
                raise
    raise OSError(f"No port from {_FIRST_PORT} is free.")
