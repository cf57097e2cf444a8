"""Exported models run by ONNX Runtime: DiffRetouch and CSRNet without torch in the process, for the command line.

Graphs lie beside a model's weights, see `export_beside`; `docs/onnx.md` says what they compute. Photos in, photos out
and every step between are the pipelines' own, as arrays.
"""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.attributes import ATTRIBUTES, Attributes, attribute_rows
from diffretouch.models.colour_map import map_colours
from diffretouch.models.kernels import threads
from diffretouch.models.slice_apply import prepare, slice_apply
from diffretouch.pipelines.layers import apply_grid
from diffretouch.pipelines.pretrained import local_folder
from diffretouch.pixels import (
    Photos,
    SamePhoto,
    as_float,
    as_photos,
    few_pixels,
    is_monochrome,
    nearest_pixels,
    resized,
    retouch_one,
    without_colour,
    without_detail,
)
from diffretouch.regions import Regions, resized_mask, visible_regions
from diffretouch.settings import GRAPHS, model_revision

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

FORMAT = 1


def open_exported(
    name: str | os.PathLike[str], dtype: "DTypeLike | None" = None
) -> "ExportedDiffRetouch | ExportedCSRNet":
    """A model by its graphs.

    Args:
        name: of a bundled model, or a directory.
        dtype (*optional*): of the photo that comes first: what applies grids to it is loaded meanwhile.

    Raises:
        ValueError: it has no graphs, or none that are whole and of the model's present state.
        ImportError: the package onnxruntime is missing (extra "onnx").
    """
    folder = local_folder(name)
    if folder is None or not (folder / GRAPHS / "model.json").is_file():
        raise ValueError(f"the model {str(name)!r} has no graphs beside its weights")
    model = json.loads((folder / GRAPHS / "model.json").read_text())
    if model.get("format") != FORMAT or "tensors" not in model:
        raise ValueError(f"the graphs of {str(name)!r} are of another format")
    for file, of in model["files"].items():
        if not (path := folder / GRAPHS / file).is_file() or path.stat().st_size != of["bytes"]:
            raise ValueError(f"the graphs of {str(name)!r} are not whole: {file} is missing or has another size")
    if model["revision"] != model_revision(SimpleNamespace(name_or_path=folder)):
        raise ValueError(f"the graphs of {str(name)!r} were made of another state of the model: export it again")
    kind = ExportedDiffRetouch if model["kind"] == "diffretouch" else ExportedCSRNet
    if dtype is not None and kind is ExportedDiffRetouch:  # half a second beside half a second, without the lock
        threading.Thread(target=prepare, args=(dtype,), daemon=True).start()
    return kind(folder, model, _sessions(folder, model))


def _sessions(folder, model):
    """Name of a graph -> what runs it, with the weights that the graph names."""
    import onnxruntime
    from safetensors.numpy import load_file

    names = {name for named in model["tensors"].values() for name in named}
    files = {file: load_file(folder / file) for file in {name.partition(":")[0] for name in names}}
    sessions = {}
    for graph, named in model["tensors"].items():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others read and write meanwhile
        options.enable_cpu_mem_arena = False  # it grows by halves, and keeps what it has
        parts = (name.partition(":") for name in named)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(files[file][tensor]) for file, _, tensor in parts]
        options.add_external_initializers(named, values)
        path = folder / GRAPHS / model["graphs"][graph]
        try:
            sessions[graph] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many types of its own
            raise ValueError(f"the graph {path} cannot be used: {str(error).splitlines()[0]}") from error
    return sessions


def noise(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal noise: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))` within 1e-6.

    torch draws 24 bits for a number in [0,1) from the Mersenne Twister (MT19937) and makes eight pairs of them at a
    time normal by Box and Muller's transform; of a number that is no multiple of 16 the last sixteen are drawn anew.

    Args:
        shape: of at least 16 numbers.
    """
    count, twister = int(np.prod(shape)), np.random.RandomState(seed & 0xFFFFFFFF)
    if count < 16:
        raise ValueError(f"`shape` must be of at least 16 numbers, got {tuple(shape)}.")
    values = _normal(twister, count // 16 * 16)
    if count % 16:
        twister.bytes(4 * (count % 16))  # those of the numbers that are drawn anew
        values = np.concatenate([values, np.empty(count % 16, np.float32)])
        values[-16:] = _normal(twister, 16)
    return values.reshape(shape)


def _normal(twister, count):
    bits = np.frombuffer(twister.bytes(4 * count), "<u4")
    uniform = (bits & 0xFFFFFF).reshape(-1, 2, 8).astype(np.float32) * np.float32(2**-24)
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), np.float32(2 * np.pi) * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32).reshape(-1)


class _GridHead:
    """What of `AffineGridHead` applies a grid."""

    def __init__(self, model):
        self.guide, self.pixel_range = model["guide"], model["pixel_range"]

    def apply(self, grid, photo, *, out=None, shoulder=None):
        return slice_apply(grid, photo, self.guide, self.pixel_range, shoulder=shoulder, out=out)


class ExportedDiffRetouch:
    """What the command line needs of `DiffRetouchPipeline`, with arrays for tensors and seeds for generators.

    Args:
        folder: the model's directory.
        model: what its model.json says.
        sessions: "denoiser" and, with a limit to clipping, "keep_in_range".
    """

    has_sliders = has_regions = True
    has_colour_function = False
    scheduler_name = "DDIMScheduler"

    def __init__(self, folder: Path, model: dict, sessions: dict[str, Any]) -> None:
        self.name_or_path, self.model, self.sessions = str(folder), model, sessions
        self.config = SimpleNamespace(
            **{name: model.get(name) for name in ("default_steps", "sampling_steps", "shoulder")}
        )
        self.knows_the_unknown = model["null_token"] is not None
        self.grid_head = _GridHead(model)

    def can_take(self, steps: int) -> bool:
        """Whether the schedule of so many steps was exported."""
        return str(steps) in self.model["schedule"]["steps"]

    @staticmethod
    def seeded(seed: int) -> int:
        """A source of noise, for `generator`."""
        return seed

    def predict_grid(
        self, image: Photos, c: Attributes = None, *, regions: Regions | None = None, num_inference_steps: int,
        num_samples: int = 1, generator: int | list[int],
    ) -> np.ndarray:  # fmt: skip
        """As `DiffRetouchPipeline.predict_grid`.

        Args:
            generator: seeds: one for each result, or one for all of them.

        Returns:
            `numpy.ndarray`: (N,12,D,gh,gw); with regions (N,1+R,12,D,gh,gw).
        """
        photos = as_photos(image)
        c, visible = self._rows(len(photos), c, regions, num_inference_steps)
        c = c.repeat(num_samples, 0)  # (N,4)
        results, layers, form = len(c), 1 + len(visible), self.model["latents"]
        if isinstance(generator, list):
            latents = np.stack([noise(seed, form) for seed in generator])
        else:
            latents = noise(generator, (results, *form))
        if len(latents) != results:
            raise ValueError(f"`generator` must be one or a list of {results}, got {len(latents)}.")
        c = np.stack([c, *(own.repeat(results, 0) for _, own in visible)], 1).reshape(-1, len(ATTRIBUTES))
        seen = np.concatenate([self._thumbnail(photo) for photo in photos]).repeat(len(c) // len(photos), 0)
        grids = self._denoised(latents.repeat(layers, 0), seen, c, num_inference_steps)
        if not np.isfinite(grids).all():
            raise ValueError(
                "The model made a grid that is not finite: its weights are broken or overflow their dtype."
            )
        rows = len(grids) // len(photos)
        for n, photo in enumerate(photos):
            if is_monochrome(photo):
                own = grids[n * rows : (n + 1) * rows]
                own[:] = without_colour(own.reshape(rows, 3, 4, *own.shape[2:]), 1).reshape(own.shape)
        if "keep_in_range" in self.sessions:
            inside = np.ones((len(grids), *seen.shape[2:]), np.float32)
            for n, (mask, _) in enumerate(visible, 1):  # a region's grid is judged where its mask is
                inside[n::layers] = resized_mask(mask, inside.shape[1:])
            given = {"grid": grids, "thumbnail": seen, "inside": inside}
            grids = self.sessions["keep_in_range"].run(None, given)[0]
        return grids if regions is None else grids.reshape(results, layers, *grids.shape[1:])

    def _rows(self, photos, c, regions, steps):
        """-> c of the photos, (B,4), and what can be seen of the regions, (mask, c (1,4)); see `checked_run`."""
        unknown = c is None
        c = attribute_rows(c, batch_size=photos if photos > 1 else None)
        c = np.full_like(c, np.nan) if unknown else c
        below, visible = visible_regions(regions) if regions is not None else (None, [])
        c = c if below is None else below.repeat(len(c), 0)
        if not self.knows_the_unknown or steps == 1:
            c, visible = np.nan_to_num(c), [(mask, np.nan_to_num(own)) for mask, own in visible]
        return c, visible

    def _thumbnail(self, photo):
        """What the model sees of a photo, (1,3,S,S)."""
        size = self.model["thumbnail"]["size"]
        if self.model["thumbnail"]["resample"] == "nearest":
            small = as_float(nearest_pixels(photo, size))
        else:
            small = resized(without_detail(photo), (size, size))
        return np.ascontiguousarray(small.transpose(2, 0, 1))[None]

    def _denoised(self, x, seen, c, steps):
        """The grids of the last of so many DDIM steps without noise of their own (Song et al., 2021, equation 12)."""
        schedule = self.model["schedule"]
        for timestep, alpha, following in np.float32(schedule["steps"][str(steps)]):
            given = {"latents": x, "thumbnail": seen, "c": c, "timestep": timestep[None]}
            output, grids = self.sessions["denoiser"].run(["output", "grid"], given)
            signal, sigma = alpha**0.5, (1 - alpha) ** 0.5
            clean, epsilon = {
                "v_prediction": lambda x, v, s, n: (s * x - n * v, s * v + n * x),
                "epsilon": lambda x, e, s, n: ((x - n * e) / s, e),
                "sample": lambda x, clean, s, n: (clean, (x - s * clean) / n),
            }[schedule["prediction_type"]](x, output, signal, sigma)
            if schedule["clip_sample_range"] is not None:
                clean = clean.clip(-schedule["clip_sample_range"], schedule["clip_sample_range"])
            x = following**0.5 * clean + (1 - following) ** 0.5 * epsilon
        return grids

    def apply_grid(
        self, image: SamePhoto, grid: np.ndarray, *, strength: float = 1.0, regions: Regions | None = None,
        out: np.ndarray | None = None,
    ) -> SamePhoto:  # fmt: skip
        """See `DiffRetouchPipeline.apply_grid`."""
        return apply_grid(self, image, grid, strength, regions, out)


class ExportedCSRNet:
    """What the command line needs of `CSRNetPipeline`, with arrays.

    Args:
        folder: the model's directory.
        model: what its model.json says.
        sessions: "colours".
    """

    has_sliders = has_regions = False
    has_colour_function = True

    def __init__(self, folder: Path, model: dict, sessions: dict[str, Any]) -> None:
        self.name_or_path, self.model, self.sessions = str(folder), model, sessions

    def retouch(self, image: SamePhoto, *, strength: float = 1.0, out: np.ndarray | None = None) -> SamePhoto:
        """See `CSRNetPipeline.retouch`."""
        return retouch_one(self._retouch, image, strength, out)

    def _retouch(self, photo, strength, out):
        size, smallest = (self.model["thumbnail"][name] for name in ("size", "smallest"))
        thumbnail = resized(*few_pixels(photo, size, smallest)).transpose(2, 0, 1)[None]
        made = self.sessions["colours"].run(None, {"thumbnail": np.ascontiguousarray(thumbnail)})
        layers = [(weight[0].T, bias[0]) for weight, bias in zip(made[::2], made[1::2], strict=True)]
        monochrome = is_monochrome(photo)

        def function(colours):
            x = colours
            for k, (matrix, bias) in enumerate(layers):
                x = x @ matrix + bias
                x = np.maximum(x, 0) if k < 2 else x
            x = without_colour(x, 1) if monochrome else x
            if not np.isfinite(x).all():
                raise ValueError("The model made colours that are not finite: its weights are broken.")
            return x if strength == 1 else colours + np.float32(strength) * (x - colours)

        return map_colours(function, photo, out=out, device=None)
