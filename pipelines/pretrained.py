"""Opening saved pipelines: bundled, from a directory or from the Hub, and nothing but safetensors and json of them."""

import json
import os
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffretouch.outside import outside

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# One name for every bundled model: its pipeline, what `from_pretrained` calls it, its folder in `diffretouch/weights`
BUNDLED = {
    "small": ("DiffRetouchPipeline", "small", "small"),
    "csrnet": ("CSRNetPipeline", "small", "csrnet_small"),
    "csrnet-l": ("CSRNetPipeline", "small-l", "csrnet_l_small"),
    "sa-adjustnet": ("SAAdjustNetPipeline", "small", "sa_adjustnet_small"),
}
_FOLDERS = {name: folder for name, (_, _, folder) in BUNDLED.items()}

UNBUNDLED = ("HDRNetPipeline", "AdaptiveLut3DPipeline")  # baselines: to be trained

_OURS = {*UNBUNDLED, *(class_name for class_name, _, _ in BUNDLED.values())}

HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


def load_pretrained(cls: type, name: str | os.PathLike[str], **kwargs: Any) -> Any:
    """An instance of the pipeline class `cls`.

    `DiffusionPipeline.from_pretrained` itself finds no classes but diffusers' own, unless a folder brings code that it
    then runs; folders of this library bring none, so they are opened by their class, or by `open_pipeline`.

    Args:
        cls: a subclass of `DiffusionPipeline`.
        name: of a model that is bundled for it, a directory, or a Hub id.
        kwargs: handed on to `DiffusionPipeline.from_pretrained`.

    Raises:
        TypeError: the name is none.
        ValueError: the directory holds no model, one that cannot be read, or one of another pipeline; weights that are
            not safetensors are asked for.
        OSError: the Hub id is unknown or cannot be reached.
    """
    from diffusers import DiffusionPipeline  # takes seconds: not for the names of the models alone

    from diffretouch.pipelines.adapter import is_adapter, load_adapter

    if kwargs.pop("use_safetensors", True) is not True:
        raise ValueError("`use_safetensors` must be True: pickles, which run code, are not read.")
    kinds = {kind.__name__ for kind in cls.__mro__}
    bundled = {own: folder for kind, own, folder in BUNDLED.values() if kind in kinds}
    path = _folder(name, bundled, {k: kwargs.pop(k) for k in HUB_ARGUMENTS if k in kwargs})
    saved = _class_name(path)
    if saved in _OURS and saved not in kinds:
        raise ValueError(f"`name`: {path} holds a {saved}, which {cls.__name__} cannot open.")
    try:
        if is_adapter(os.path.join(path, "unet")) and "unet" not in kwargs:
            kwargs["unet"] = load_adapter(os.path.join(path, "unet"), kwargs.get("dtype", kwargs.get("torch_dtype")))
        return DiffusionPipeline.from_pretrained.__func__(cls, path, use_safetensors=True, **kwargs)
    except Exception as error:  # diffusers raises many types for a broken folder: one clear sentence for all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"`name`: the model in {path} cannot be loaded: {reason}") from error


def open_pipeline(name: str | os.PathLike[str]) -> "DiffusionPipeline":
    """The pipeline that is called `name`, whichever of this library's it is.

    Args:
        name: a key of `BUNDLED`, a directory, or a Hub id: its model_index.json says which pipeline it is.

    Raises:
        ValueError, OSError: as `load_pretrained`, and where the model belongs to another pipeline.
    """
    import diffretouch

    if name in BUNDLED:
        class_name, own_name, _ = BUNDLED[name]
        return getattr(diffretouch, class_name).from_pretrained(own_name)
    path = _folder(name, _FOLDERS)
    class_name = _class_name(path)
    if class_name is None:
        raise ValueError(f"`name`: the model_index.json in {path} names no pipeline.")
    if class_name not in _OURS:
        raise ValueError(f"`name`: {path} holds a {class_name}, which is not a pipeline of this library.")
    return getattr(diffretouch, class_name).from_pretrained(path)


def _class_name(path):
    """What the model_index.json of a folder calls its pipeline; `None` where it does not."""
    try:
        return str(json.loads(Path(path, "model_index.json").read_bytes())["_class_name"])
    except (ValueError, KeyError, TypeError):
        return None


def local_folder(name: str | os.PathLike[str]) -> Path | None:
    """Where a bundled model or a directory's lies; `None` for other names, which only the Hub may know.

    Raises:
        ValueError: the directory holds no model.
    """
    return Path(_folder(name, _FOLDERS)) if name in BUNDLED or os.path.isdir(name) else None


def _folder(name, bundled, hub_arguments=None):
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"`name` must be a bundled model's, a directory or a Hub id, got {type(name).__name__}.")
    path = str(name)
    if path in bundled and os.path.isfile(os.path.join(path, "model_index.json")):
        warnings.warn(
            f"`name`: {path!r} is the bundled model; the folder of that name here is ./{path}.", stacklevel=outside()
        )
    if path in bundled:
        return str(files("diffretouch") / "weights" / bundled[path])
    if os.path.isfile(path):
        raise ValueError(
            f"`name` must be a model directory, a Hub id{' or ' * bool(bundled)}{_choice(bundled)}, got the file "
            f"{path}; a released checkpoint is converted with `diffretouch convert`."
        )
    if not os.path.isdir(path):
        path = _download(path, bundled, hub_arguments or {})
    if not os.path.isfile(os.path.join(path, "model_index.json")):
        raise ValueError(f"`name`: {path} holds no model (no model_index.json).")
    return path


def _choice(bundled):
    return " or ".join(f"'{name}'" for name in bundled)


def _download(name, bundled, arguments):
    """The local folder of a Hub model: json and safetensors files only, whatever else the repository holds."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **arguments)
    except HFValidationError as error:
        raise ValueError(
            f"`name` must be {_choice(bundled)}{', ' * bool(bundled)}a directory or a Hub id, got {name!r}."
        ) from error
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"`name`: {name!r} is neither a directory nor a Hub model that can be reached: {reason}"
        ) from error
