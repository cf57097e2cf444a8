"""Starting and ending the page: local, alone, and leaving nothing behind."""

import contextlib
import os
import shutil
import tempfile
import threading
import warnings

from .models import Models
from .page import MAX_MB, Page, text_of
from .visit import Visits


def _theme(gr):
    """Greys, and the system's own letters: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="neutral",
        secondary_hue="neutral",
        neutral_hue="neutral",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="sm",
        spacing_size="sm",
    )


@contextlib.contextmanager
def serving(models=(), *, host="127.0.0.1", port=None, device="cpu", browser=False):
    """The page, while the context lasts; yields its address.

    All temporary files lie in one folder, which goes with the page.

    Args:
        models: model directories to offer beside the bundled models, or a [`Models`].
        host (`str`): where to listen; the default is for this computer alone.
        port (`int`, *optional*): by default the first free one from 7860.
        device (`str`): where the models work.
        browser (`bool`): open it in the browser.

    Raises:
        ValueError: a directory holds no model.
        OSError: the port is taken.
    """
    folder = tempfile.mkdtemp(prefix="diffretouch-")
    own = {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Gradio sums up all events anew after each, for a page of figures that is not open here
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
        "GRADIO_ANALYTICS_MAX_EVENTS": "100",
    }
    earlier = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    visits, ended, blocks = Visits(), threading.Event(), None
    try:
        import gradio as gr

        warnings.filterwarnings("ignore", message=".*extrapolat.*")  # the page has a switch for it
        models = models if isinstance(models, Models) else Models(models, device)
        models[models.labels[0]]  # loaded before anybody waits for it
        blocks = Page(models, visits, folder).blocks()
        blocks.queue(max_size=32, default_concurrency_limit=1)

        def tidy():
            while not ended.wait(60):
                visits.close_idle()

        threading.Thread(target=tidy, name="diffretouch-tidy", daemon=True).start()
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            show_error=True,
            theme=_theme(gr),
            css=text_of("style.css"),
            allowed_paths=[],
            max_file_size=MAX_MB * 1_000_000,
            state_session_capacity=64,
            enable_monitoring=False,
            strict_cors=True,
            run_history=False,
            footer_links=["api"],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
        yield address
    finally:
        ended.set()
        if blocks is not None:
            blocks.close(verbose=False)
        visits.close_all()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in earlier.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
