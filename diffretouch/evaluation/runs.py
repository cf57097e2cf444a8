"""Runs over many photos: progress, results kept by content so that a stopped run goes on, several processes."""

import atexit
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

import diffretouch

if TYPE_CHECKING:
    from accelerate import PartialState
    from diffusers import DiffusionPipeline


def for_each(function: Callable[[Any], Any], items: Sequence[Any], *, description: str) -> list[Any]:
    """`[function(item) for item in items]` with progress; split over the processes of `accelerate launch`, if several.

    Every process gets the whole list back, in order.
    """
    items = list(items)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        with tqdm(items, desc=description, delay=1, leave=False) as progress:  # gone before an error is told
            return [function(item) for item in progress]
    from accelerate.utils import gather_object

    state = process_state()
    own = range(state.process_index, len(items), state.num_processes)
    with tqdm(own, desc=description, delay=1, leave=False, disable=not state.is_main_process) as progress:
        done = [(n, function(items[n])) for n in progress]
    done = gather_object(done)
    return [result for _, result in sorted(done, key=lambda pair: pair[0])]


@functools.cache
def process_state() -> "PartialState":
    """The group of processes this one was launched in. Raises unless it has the size that the launcher said."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise RuntimeError(f"{os.environ['WORLD_SIZE']} processes were launched, {state.num_processes} are joined.")
    atexit.register(state.destroy_process_group)  # left to the interpreter's end, its threads may abort the process
    return state


def is_main_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


class Cache:
    """Results as small JSON files in a folder, found again by what they were made of.

    The key of a result holds hashes of the photos' bytes, of the model's weights and of this library's own source, and
    all settings: another photo, model, setting or version is another result. Deleting the folder is always safe.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise ValueError(f"`cache` must be a folder, or a name for one, got the file {folder}.") from error

    def path(self, key: Any) -> Path:
        text = json.dumps([source_digest(), key], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def get(self, key: Any) -> Any:
        """What was kept under `key`, or None; a damaged file counts as none."""
        try:
            return json.loads(self.path(key).read_text())
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None

    def put(self, key: Any, result: Any) -> None:
        write_text(self.path(key), json.dumps(result))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all."""
    path = Path(path)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@functools.cache
def file_digest(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def source_digest() -> str:
    """SHA-256 over the source of the library and its pipelines: results of other code are not reused."""
    digest = hashlib.sha256(diffretouch.__version__.encode())
    for folder in diffretouch.__path__:
        for room in (".", "colour", "data", "evaluation", "losses", "lut", "models", "photo", "pipelines", "settings"):
            for path in sorted(Path(folder, room).glob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def model_digest(pipe: "DiffusionPipeline") -> str:
    """SHA-256 over the weights and settings of all networks of a pipeline."""
    digest = hashlib.sha256(json.dumps(dict(pipe.config), sort_keys=True, default=str).encode())
    for name, component in sorted(pipe.components.items()):
        digest.update(f"{name} {sorted(dict(getattr(component, 'config', {})).items(), key=str)}".encode())
        if hasattr(component, "state_dict"):
            for key, weight in component.state_dict().items():
                digest.update(key.encode())
                digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def versions(device: str) -> dict[str, Any]:
    """What a report records about the software and the machine."""
    found = {"diffretouch": diffretouch.__version__, "torch": torch.__version__}
    for package in ("diffusers", "numpy", "pillow", "scikit-image", "lpips"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return {**found, "python": platform.python_version(), "machine": platform.machine(), "device": device}
