"""The page for any static host: its files, ONNX Runtime for browsers and exported models in one folder."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

from .guard import POLICY
from .models import LABELS, Models
from .routes import facts

# ONNX Runtime for browsers, as npm has it, of its smallest build (WebAssembly alone), and the files' SHA-256
RUNTIME = "onnxruntime-web@1.30.0"
_BUNDLED = (LABELS["small"], LABELS["csrnet"])  # the models that are exported
_MODULE = "ort.wasm.bundle.min.mjs"
_BINARY = "ort-wasm-simd-threaded.wasm"
_PINNED = {
    _MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    _BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_LICENSE = """ort.wasm.bundle.min.mjs and ort-wasm-simd-threaded.wasm.gz are ONNX Runtime Web, MIT License:

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


def build(
    folder: str | os.PathLike[str],
    models: Iterable[str | os.PathLike[str]] = (),
    *,
    onnxruntime_web: str | os.PathLike[str] | None = None,
) -> Path:
    """Lay the page out so that any static server shows it and the browser does all the work.

    Models and runtime lie in it packed (gzip), so that they are small whatever the server does, and come with their
    sizes and SHA-256. Nothing is asked of other hosts; the policy that forbids it stands in `index.html`.

    Args:
        folder: is made; it must not exist, or be empty.
        models: model directories to offer beside the bundled "small"; the first is the page's first choice.
        onnxruntime_web: the package of that name, version `RUNTIME`, as a folder (`node_modules/onnxruntime-web`) or
            a `.tgz`; by default `npm pack` fetches it.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something; a model that cannot be exported; another version of the runtime; npm
            is missing or fetches nothing.
        ImportError: the packages onnx and onnxruntime are missing (extra "onnx").
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"`folder` must be a new or empty folder, and {str(folder)!r} exists.")
    from diffusers.utils import logging as bars

    bars.disable_progress_bar()
    models = Models(models)
    runtime = _runtime(onnxruntime_web)
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=parent) as aside:
        page = Path(aside) / "page"
        for name in ("web", "samples"):
            with as_file(files("diffretouch.demo") / name) as own:
                shutil.copytree(own, page if name == "web" else page / name)
        _write_index(page / "index.html")
        _write_engine(page / "engine", models, runtime)
        folder.mkdir(exist_ok=True)
        for path in sorted(page.iterdir()):
            os.replace(path, folder / path.name)
    return folder


def _write_index(path):
    """The page with its own engine and policy: where a server sends no headers the policy stands in the file."""
    policy = re.sub(r"; frame-ancestors [^;]+", "", POLICY)  # of headers alone
    html = path.read_text(encoding="utf-8").replace('data-engine="server"', 'data-engine="onnx"', 1)
    line = '<meta charset="utf-8">\n'
    html = html.replace(line, f'{line}<meta http-equiv="Content-Security-Policy" content="{policy}">\n', 1)
    path.write_text(html, encoding="utf-8")


def _write_engine(folder, models, runtime):
    from diffretouch.pipelines.export_onnx import export_onnx

    folder.mkdir()
    (folder / "LICENSE.txt").write_text(_LICENSE, encoding="utf-8")
    (folder / _MODULE).write_bytes(runtime[_MODULE])
    listed = {f"{_BINARY}.gz": _pack(runtime[_BINARY], folder / f"{_BINARY}.gz")}
    described = {}
    for label in models.labels:
        if label not in models.own and label not in _BUNDLED:
            continue
        own = folder / f"model{len(described) + 1}"
        said = export_onnx(models[label], own)
        (own / "keep_in_range.onnx").unlink(missing_ok=True)  # done by the page
        graph = "denoiser.onnx" if models.is_steered(label) else "colours.onnx"
        names = [f"{own.name}/{name}" for name in ("model.json", graph)]
        for name in names:
            path = folder / name
            listed[f"{name}.gz"] = _pack(path.read_bytes(), folder / f"{name}.gz")
            path.unlink()
        fetched = [*(f"{name}.gz" for name in names), f"{_BINARY}.gz"]
        described[label] = models.described(label) | {"files": fetched, "thumbnail": said["thumbnail"]}
    about = facts(described) | {"files": listed}
    (folder / "about.json").write_text(json.dumps(about, allow_nan=False) + "\n", encoding="utf-8")


def _pack(data, path):
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "packed": path.stat().st_size}


def _runtime(source):
    """-> the two files of ONNX Runtime that a browser needs, as bytes, checked."""
    if source is None:
        return _runtime_by_npm()
    path = Path(source)
    if path.is_dir():
        found = {name: (path / "dist" / name).read_bytes() for name in _PINNED if (path / "dist" / name).is_file()}
    else:
        try:
            with tarfile.open(path) as archive:
                members = {name: _member(archive, f"package/dist/{name}") for name in _PINNED}
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"`onnxruntime_web`: {str(path)!r} is no folder and no .tgz ({error}).") from error
        found = {name: data for name, data in members.items() if data is not None}
    for name, wanted in _PINNED.items():
        if name not in found:
            raise ValueError(f"`onnxruntime_web`: {str(path)!r} lacks dist/{name}; it must be {RUNTIME}.")
        if hashlib.sha256(found[name]).hexdigest() != wanted:
            raise ValueError(f"`onnxruntime_web`: dist/{name} of {str(path)!r} is not that of {RUNTIME}.")
    return found


def _member(archive, name):
    try:
        file = archive.extractfile(name)
    except KeyError:
        return None
    return file.read() if file else None


def _runtime_by_npm():
    npm = shutil.which("npm")
    other = f"give `onnxruntime_web` (--onnxruntime-web): the folder or .tgz of {RUNTIME}"
    if npm is None:
        raise ValueError(f"npm is not on the PATH to fetch ONNX Runtime: {other}.")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, RUNTIME]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packed = next(Path(folder).glob("*.tgz"), None)
        if made.returncode or packed is None:
            why = " ".join((made.stderr or made.stdout).split())[-300:]
            raise ValueError(f"npm could not fetch {RUNTIME} ({why or 'it said nothing'}): {other}.")
        return _runtime(packed)
