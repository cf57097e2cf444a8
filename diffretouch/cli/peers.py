"""Methods beside (`evaluate --peer`), by name, by file and by folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .loading import load_pipeline, say_error

if TYPE_CHECKING:
    from diffretouch.evaluation.methods import Method


def named(text: str) -> tuple[str, str]:
    """ "NAME=PLACE" or a place, which is then called as its last part is -> (name, place)."""
    name, equals, place = text.partition("=")
    if not (equals and name and "/" not in name):
        name, place = Path(text).name or text, text
    if not name.isprintable():
        raise typer.BadParameter(f"a name must be one line of text, got {name!r}: NAME=... gives another.")
    return name, place


def open_peers(names: Sequence[str], device: str) -> "tuple[list[Method], dict[str, str]]":
    """-> (methods, dict from name to why it cannot be run). Of "all", what is not to be had is passed by, and said."""
    import tempfile

    from diffretouch import evaluation as ev

    pipelines = {
        "csrnet": "CSRNet, the bundled model",
        "csrnet-l": "CSRNet-L (our reconstruction), the bundled model",
        "sa-adjustnet": "SA-AdjustNet, the bundled model",
    }
    everything = "all" in names
    if everything:
        everyone = [*ev.PEERS, *(name for name in pipelines if name != "sa-adjustnet")]  # trained for another task
        names = [*everyone, *(name for name in names if name not in (*everyone, "all"))]
    called = [named(given)[0] for given in names]
    if twice := [name for name in called if called.count(name) > 1]:
        raise typer.BadParameter(f"two methods are called {twice[0]}: NAME=... tells them apart.", param_hint="--peer")
    methods, missing = ev.peer_methods([name for name in names if name in ev.PEERS])
    for given in names:
        name, place = named(given)
        if given in ev.PEERS:
            continue
        if place in ev.PEERS:
            raise typer.BadParameter(f"{place} goes by its own name, got {given!r}.", param_hint="--peer")
        if place not in (*pipelines, "small") and "/" not in place and not Path(place).exists():
            allowed = ", ".join([*ev.PEERS, *pipelines, "all"])
            raise typer.BadParameter(f"must be {allowed}, a file or a folder, got {place!r}.", param_hint="--peer")
        if Path(place).is_dir() and Path(place, "LUTs.pth").is_file():
            from diffretouch.pipelines.pipeline_adaptive_lut import AdaptiveLut3DPipeline
            from diffretouch.training.convert import load_adaptive_lut

            pipe = AdaptiveLut3DPipeline(load_adaptive_lut(place)).to(device)
            methods.append(ev.pipeline_method(name, pipe, "Image-Adaptive 3D LUT, released weights for sRGB input"))
            continue
        try:
            if Path(place).is_file():
                from diffretouch.training.convert import convert_csrnet

                with tempfile.TemporaryDirectory() as folder:
                    pipe = load_pipeline(str(convert_csrnet(place, Path(folder, "csrnet"))), device)
                meaning = "CSRNet, released weights: ProPhoto input"
            else:
                pipe = load_pipeline(place, device)
                meaning = pipelines.get(place, f"{type(pipe).__name__.removesuffix('Pipeline')}, other weights")
        except (ValueError, OSError, ImportError, AttributeError) as error:
            if not everything or given not in pipelines:
                raise
            say_error(error)
            missing[name] = "its bundled model cannot be loaded"
            continue
        if pipe.has_sliders:
            raise typer.BadParameter(f"{place} has sliders and a seed: give it as --model.", param_hint="--peer")
        methods.append(ev.pipeline_method(name, pipe, meaning))
    return methods, missing
