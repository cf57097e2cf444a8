"""Runs over many photos: progress, results kept by content so that a stopped run goes on, several processes."""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
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


class PhotoFailed(Exception):
    """A photo cannot be measured: the others go on. One sentence."""


@contextlib.contextmanager
def of_photo(*paths: Path, who: str = "") -> Iterator[None]:
    """What fails inside is this photo's failure: raised as `PhotoFailed`.

    Args:
        paths: of the photo's files, whose folders' places the sentence leaves out: reports are handed on.
        who (`str`): whose failure it is, to be told.
    """
    try:
        yield
    except Exception as error:  # whatever it is
        reason = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
        for place in sorted({f"{path.parent.parent}{os.sep}" for path in paths}, key=len, reverse=True):
            reason = reason.replace(place, "")
        reason = " ".join(reason.split()) or type(error).__name__
        raise PhotoFailed(reason if not who or reason.startswith(f"{who}: ") else f"{who}: {reason}") from error


def for_each_photo(
    function: Callable[[Any], Any], items: Sequence[Any], *, name: Callable[[Any], str], description: str
) -> tuple[list[Any], dict[str, str]]:
    """`for_each` that passes by photos that raise `PhotoFailed` -> (results of the others, photo's name -> why).

    All items of a photo are passed by together: whatever is compared is measured on the same photos.

    Args:
        name: item -> its photo's name.

    Raises:
        ValueError: no photo is left.
    """

    def attempt(item):
        try:
            return function(item), ""
        except PhotoFailed as why:
            return None, str(why)

    done, left_out = for_each(attempt, items, description=description), {}
    for item, (_, why) in zip(items, done, strict=True):
        if why:
            left_out.setdefault(name(item), why)
    results = [result for item, (result, _) in zip(items, done, strict=True) if name(item) not in left_out]
    if not results:
        photo, why = next(iter(left_out.items()))
        raise ValueError(f"no photo could be measured; {photo}: {why}")
    return results, left_out


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
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:  # names that are no UTF-8
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


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, read again once it has changed."""
    about = os.stat(path)
    return _file_digest(os.fspath(path), about.st_ino, about.st_size, about.st_mtime_ns)


@functools.cache
def _file_digest(path, *version):
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
