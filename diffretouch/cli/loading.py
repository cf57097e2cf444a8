"""What commands open: models, devices, photos, and the settings of files. What is worth a word goes to stderr."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import MAX_PIXELS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from numpy.typing import DTypeLike

    from diffretouch.photo import Photo
    from diffretouch.pipelines.exported import ExportedCSRNet, ExportedDiffRetouch
    from diffretouch.settings import Settings


def say(text: object) -> None:
    """To stderr, one line; what could steer the terminal, as files' names may hold, is shown by its number."""
    print(re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], str(text)), file=sys.stderr)


def say_error(error: Exception) -> None:
    say(f"Error: {' '.join(str(error).split()) or type(error).__name__}")


def load_pipeline(model: str, device: str, *, progress: bool = True) -> "DiffusionPipeline":
    """The model on the device by torch, its denoising steps with or without a bar."""
    say(f"Loading the model {model} ...")
    return _by_torch(model, device, progress)


def open_model(
    model: str, device: str, engine: str, wishes: Mapping[str, Any], *, steps: int | None = None,
    progress: bool = True, dtype: "DTypeLike | None" = None,
) -> "DiffusionPipeline | ExportedDiffRetouch | ExportedCSRNet":  # fmt: skip
    """The model by ONNX Runtime, without torch in the process, where that can be; else as `load_pipeline`.

    Args:
        engine: "auto", "onnx" (or an error that says why not) or "torch".
        wishes: what only torch can do, in words -> whether it is asked for.
        steps: that are asked for.
        dtype: of the first photo, where it is known.
    """
    say(f"Loading the model {model} ...")
    if engine != "torch":
        try:
            return _by_onnxruntime(model, device, [wish for wish, asked in wishes.items() if asked], steps, dtype)
        except (ValueError, ImportError) as error:
            if engine == "onnx":
                reason = "install 'diffretouch[onnx]'" if isinstance(error, ImportError) else error
                raise ValueError(f"`--engine onnx` does not serve here: {reason}.") from error
    return _by_torch(model, device, progress)


def _by_onnxruntime(model, device, wishes, steps, dtype):
    if device not in ("auto", "cpu"):
        wishes = [f"--device {device}", *wishes]
    if wishes:
        raise ValueError(f"{wishes[0]} needs torch")
    from diffretouch.pipelines.exported import open_exported

    pipe = open_exported(model, dtype)
    if pipe.has_sliders and steps and not pipe.can_take(steps):
        raise ValueError(f"the graphs of {model!r} have no schedule of {steps} steps")
    return pipe


def _by_torch(model, device, progress):
    from diffusers.utils import logging

    from diffretouch.pipelines.pretrained import open_pipeline

    logging.disable_progress_bar()
    pipe = open_pipeline(model).to(find_device(device))
    if progress:
        pipe.set_progress_bar_config(desc="Denoising", delay=1, leave=False)
    else:
        pipe.set_progress_bar_config(disable=True)
    return pipe


def find_device(device: str) -> str:
    """The name of a device that is there; "auto" is the fastest."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`--device {device}` is not to be had here: {str(error).splitlines()[0]}") from error
    return device


def open_photo(path: Path, max_pixels: int = MAX_PIXELS, *, keep_8_bits: bool = False) -> "Photo":
    """The photo, with a word about what of its file is not carried. Before the model: a wrong file is told at once."""
    from diffretouch.photo import read_photo

    photo = read_photo(path, max_pixels, keep_8_bits=keep_8_bits)
    for note in photo.notes:
        say(f"Note: {path}: {note}")
    return photo


def depth_for(path: Path, source: "Photo") -> int:
    """The source's bit depth, or the deepest that the output format can hold, with a word about it."""
    from diffretouch.photo.encoders import DEPTHS, SUFFIXES

    depths = DEPTHS.get(SUFFIXES.get(path.suffix.lower()), (source.bit_depth,))
    if source.bit_depth in depths:
        return source.bit_depth
    say(f"Note: {path} holds {max(depths)} bits a channel, the photo has {source.bit_depth}: TIFF keeps them.")
    return max(depths)


def read_settings(
    like: Path | None,
    preset: Path | None,
    model: str | None,
    c: dict[str, float],
    *,
    region: Sequence[str] | None,
    **given: Any,
) -> "tuple[Settings, str]":
    """What the options say, over what the file of `--like` or `--preset` says -> (settings, model)."""
    from diffretouch.settings import Settings, read_preset, settings_of
    from diffretouch.settings.region_texts import parse_region, region_mask

    if like and preset:
        raise typer.BadParameter("--like and --preset cannot be followed both.", param_hint="--preset")
    for text in region or ():  # as a wrong photo, a wrong mask is told at once
        source, _ = parse_region(text)
        if isinstance(source, str):
            region_mask(source, None)
    given = Settings(c=c or None, regions=tuple(region) if region else None, **given)
    if not like and not preset:
        return given, model or "small"
    earlier = settings_of(open_photo(like)) if like else read_preset(preset)
    for text in earlier.regions or () if given.regions is None else ():
        if isinstance(parse_region(text)[0], str):  # a file that some photo names is not opened
            raise ValueError(f"{like or preset} was made with a mask of its own, {text!r}: give one with --region.")
    if model is None and earlier.model is not None:
        from diffretouch.pipelines.pretrained import BUNDLED

        if earlier.model not in BUNDLED:  # nor is a model fetched that some photo names
            raise ValueError(f"{like or preset} was made with the model {earlier.model!r}: name it with --model.")
    return given.over(earlier), model or earlier.model or "small"


def follow(settings: "Settings", pipe: "DiffusionPipeline", model: str) -> "Settings":
    """The settings as this model follows them, complete; says so where it is not the model that they are from."""
    from diffretouch.settings import resolved, use_scheduler

    if pipe.has_sliders:
        use_scheduler(pipe, settings.scheduler)
    complete = resolved(settings, pipe, model)
    if settings.revision not in (None, complete.revision):
        say(f"Note: the settings are from another model ({settings.model} {settings.revision}): results differ.")
    return complete
