"""Models as ONNX graphs and one JSON file, for engines without torch: docs/onnx.md specifies the folder."""

import copy
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import DDIMScheduler

from diffretouch import __version__
from diffretouch.attributes import ATTRIBUTES
from diffretouch.colour import LUMA
from diffretouch.models.affine_grid import COUNTS
from diffretouch.models.csrnet import SMALLEST, CSRNet
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    attribute_tokens,
    denoise,
    knows_the_unknown,
    thumbnail_fold_and_size,
)
from diffretouch.pipelines.exported import FORMAT
from diffretouch.pipelines.graph import fold_shapes, name_weights, tensors_by_value
from diffretouch.pipelines.pipeline_csrnet import CSRNetPipeline
from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.pipelines.sampler import check_scheduler, own_scheduler
from diffretouch.settings import GRAPHS, model_revision

OPSET = 18
MOST_STEPS = 50  # whose schedules are written down
_LARGEST = 2**31 - 2**24  # bytes of one protobuf, with room for the graph
_SMALL = 256  # numbers below which weights stay float32


def export_onnx(
    pipeline: DiffRetouchPipeline | CSRNetPipeline, folder: str | os.PathLike, *, half: bool = True,
    overwrite: bool = False,
) -> dict:  # fmt: skip
    """Write a model as ONNX graphs (opset 18, any batch size, computed in float32) and `model.json`.

    Of a `DiffRetouchPipeline`: `denoiser.onnx` (latents, thumbnail, c, timestep -> output, grid), which is called once
    a step, and, with a `clipping_limit`, `keep_in_range.onnx` (grid, thumbnail, inside -> grid). Of a
    `CSRNetPipeline`: `colours.onnx` (thumbnail -> the three layers of the photo's colour function). Slicing stays
    outside. All files are made before the first appears in the folder; `model.json`, which lists them, comes last.

    Args:
        pipeline: on any device, in any dtype; it is not changed.
        folder: made if it does not exist.
        half (`bool`): store weights as float16 (exact for the bundled models, which are kept so); a cast in the graph
            brings them to float32.
        overwrite (`bool`): write into a folder that holds something.

    Returns:
        `dict`: what stands in `model.json`.

    Raises:
        TypeError: another pipeline.
        ValueError: a CSRNet-L or a CSRNet over ProPhoto, a model without a grid head, a scheduler other than DDIM,
            more than 2 GB of weights, weights that overflow float16, a folder that holds something.
        ImportError: the packages onnx and onnxruntime are missing (extra "onnx").
    """
    return _export(pipeline, Path(folder), half, overwrite)


def export_beside(pipeline: DiffRetouchPipeline | CSRNetPipeline, *, overwrite: bool = False) -> dict:
    """Write a model's graphs into the folder `onnx` of its own directory, for the command line without torch.

    As `export_onnx`, but the graphs hold no weights: they name the tensors of the directory's safetensors, from where
    they are read, so this takes 1 MB. `revision` in `model.json` says of which state of the model they were made.

    Args:
        pipeline: of `from_pretrained` with a bundled name or a directory.
        overwrite (`bool`): write into a folder that holds something.

    Returns:
        `dict`: what stands in `model.json`.

    Raises:
        ValueError: the pipeline comes from no directory; and as `export_onnx`.
    """
    revision = model_revision(pipeline)
    if revision is None:
        raise ValueError("`pipeline` must come from a directory, which receives its graphs.")
    folder = Path(pipeline.name_or_path)
    return _export(pipeline, folder / GRAPHS, False, overwrite, weights=folder, revision=revision)


def _export(pipeline, folder, half, overwrite, weights=None, revision=None):
    if isinstance(pipeline, DiffRetouchPipeline):
        write = _write_diffretouch
        _check_diffretouch(pipeline)
    elif isinstance(pipeline, CSRNetPipeline):
        write = _write_csrnet
        if not isinstance(pipeline.network, CSRNet) or pipeline.network.config.input_space != "srgb":
            raise ValueError("`pipeline` must hold a CSRNet over sRGB: CSRNet-L and ProPhoto inputs are not exported.")
    else:
        raise TypeError(f"`pipeline` must be a DiffRetouchPipeline or CSRNetPipeline, got {type(pipeline).__name__}.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"`folder` must be a folder, got the file {str(folder)!r}.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"`overwrite` is False and the folder {str(folder)!r} holds something.")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError("export_onnx needs onnx and onnxruntime: pip install 'diffretouch[onnx]'") from error

    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
    try:
        said = {"format": FORMAT, "kind": "", "diffretouch": __version__, "opset": OPSET}
        said |= {"weights": "float16" if half else "float32"} | write(pipeline, aside, half)
        if weights is not None:
            tensors = tensors_by_value(weights)
            named = {name: name_weights(aside / file, tensors) for name, file in said["graphs"].items()}
            said |= {"weights": "safetensors", "tensors": named, "revision": revision}
        said["files"] = {path.name: _digest(path) for path in sorted(aside.glob("*.onnx"))}
        (aside / "model.json").write_text(json.dumps(said, allow_nan=False) + "\n")
        folder.mkdir(exist_ok=True)
        for name in [*said["files"], "model.json"]:
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside)
    return said


def _check_diffretouch(pipe):
    if pipe.grid_head is None:
        raise ValueError("`pipeline` must have a grid head: this model was trained without one.")
    scheduler = pipe.scheduler
    if not isinstance(scheduler, DDIMScheduler) or scheduler.config.thresholding:
        raise ValueError(
            f"`pipeline` must have a DDIMScheduler without thresholding, got {type(scheduler).__name__}: give it "
            "`DDIMScheduler.from_config(pipeline.scheduler.config, thresholding=False)`."
        )
    check_scheduler(scheduler, pipe.config.noise_offset)
    size = 4 * sum(weight.numel() for weight in pipe.unet.parameters())
    if size > _LARGEST:
        raise ValueError(f"`pipeline` has {size / 1e9:.1f} GB of weights: one ONNX file holds at most 2 GB.")


class _Denoiser(nn.Module):
    """One step, with c in the public order and the thumbnail as a picture."""

    def __init__(self, pipe):
        super().__init__()
        self.unet, self.head = (copy.deepcopy(part).cpu().float().eval() for part in (pipe.unet, pipe.grid_head))
        self.order = [ATTRIBUTES.index(name) for name in pipe.config.attribute_order]
        self.register_buffer("signs", torch.tensor(pipe.config.attribute_signs, dtype=torch.float32))
        self.fold, _ = thumbnail_fold_and_size(pipe.unet.config)
        self.offset = pipe.config.noise_offset

    def forward(self, latents, thumbnail, c, timestep):
        seen = F.pixel_unshuffle(thumbnail, self.fold) * 2 - 1
        own_c = c[:, self.order] * self.signs
        output, affine_latent = denoise(
            self.unet, latents, seen, timestep, own_c, dtype=torch.float32, offset=self.offset
        )
        return output, self.head(affine_latent)


def _hats(pixels, cells):
    """(pixels, cells): linear interpolation along one side as weights, see `slice_grid`."""
    at = (torch.arange(pixels) / (pixels - 1) if pixels > 1 else torch.full((1,), 0.5)) * cells - 0.5
    return F.relu(1 - (at.clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs())


class _KeepInRange(nn.Module):
    """`AffineGridHead.keep_in_range` without grid_sample: where a thumbnail's pixels lie is fixed, a matrix."""

    def __init__(self, head, share, size, grid_shape):
        super().__init__()
        self.head, (_, self.depth, height, width) = copy.deepcopy(head).cpu().float().eval(), grid_shape
        self.low, self.high = head.config.pixel_range
        self.share, self.pixels = share, size * size
        self.register_buffer("rows", _hats(size, height))  # (size,gh)
        self.register_buffer("columns", _hats(size, width).T.contiguous())  # (gw,size)

    def forward(self, grid, thumbnail, inside):
        span = self.high - self.low
        z = (self.head.guide(thumbnail) * self.depth - 0.5).clamp(0, self.depth - 1)  # (B,1,h,w)
        weights = F.relu(1 - (z - torch.arange(self.depth)[None, :, None, None]).abs())  # (B,D,h,w)
        cells = torch.matmul(torch.matmul(self.rows, grid), self.columns)  # (B,12,D,h,w)
        affine = (cells * weights[:, None]).sum(2).unflatten(1, (3, 4))
        pixels = (thumbnail * span + self.low)[:, None]
        retouched = ((affine[:, :, :3] * pixels).sum(2) + affine[:, :, 3] - self.low) / span
        counts = inside.flatten(1) > COUNTS
        counts = counts | ~counts.any(1, keepdim=True)
        darkest = torch.where(thumbnail < 0.5 / 255, torch.ones_like(retouched), retouched).amin(1).flatten(1)
        lightest = torch.where(thumbnail > 254.5 / 255, torch.zeros_like(retouched), retouched).amax(1).flatten(1)
        darkest = self._least(darkest, counts).clamp(max=0)
        lightest = -self._least(-lightest, counts).clamp(max=-1)
        scale = 1 / (lightest - darkest)
        offset = self.low * (1 - scale) - scale * darkest * span
        added = torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(3)  # what is added to red, green and blue
        return grid * scale[..., None, None, None] + added[:, None, None, None] * offset[..., None, None, None]

    def _least(self, values, counts):
        """(B,n) -> (B,1), the quantile `share` of those that count."""
        ordered = torch.where(counts, values, torch.full_like(values, 1e9))
        most = min(int(self.share * (self.pixels - 1)) + 2, self.pixels)
        ordered = -torch.topk(-ordered, most, 1).values
        at = self.share * (counts.float().sum(1, keepdim=True) - 1)
        below, above = at.floor(), at.ceil()
        below_value, above_value = ordered.gather(1, below.long()), ordered.gather(1, above.long())
        return below_value + (at - below) * (above_value - below_value)


def _write_diffretouch(pipe, folder, half):
    config, side = pipe.config, pipe.unet.config.sample_size
    _, size = thumbnail_fold_and_size(pipe.unet.config)
    one = (torch.zeros(2, LATENT_CHANNELS, side, side), torch.full((2, 3, size, size), 0.5), torch.zeros(2, 4))
    denoiser = _Denoiser(pipe)
    with torch.no_grad():
        grid = denoiser.head(one[0])
    names = (("latents", "thumbnail", "c", "timestep"), ("output", "grid"))
    _write_graph(denoiser, (*one, torch.tensor([999.0])), *names, folder / "denoiser.onnx", half, whole=("timestep",))
    graphs, shape = {"denoiser": "denoiser.onnx"}, list(grid.shape[1:])
    if config.clipping_limit is not None:
        keep = _KeepInRange(pipe.grid_head, config.clipping_limit, size, shape)
        names = (("grid", "thumbnail", "inside"), ("grid_in_range",))
        inputs = (grid, one[1], torch.ones(2, size, size))
        _write_graph(keep, inputs, *names, folder / "keep_in_range.onnx", False)
        graphs["keep_in_range"] = "keep_in_range.onnx"
    curve = {name: value.tolist() for name, value in denoiser.head.guide_curve.state_dict().items()}
    width, scheduler = pipe.unet.config.cross_attention_dim, pipe.scheduler.config
    null_token = None
    if knows_the_unknown(pipe.unet.config):
        null_token = attribute_tokens(torch.full((1, 4), torch.nan), width)[0].tolist()
    return {
        "kind": "diffretouch",
        "graphs": graphs,
        "attributes": list(ATTRIBUTES),
        "null_token": null_token,
        "latents": [LATENT_CHANNELS, side, side],
        "thumbnail": {"size": size, "resample": "nearest" if config.thumbnail == "nearest" else "antialias"},
        "grid": shape,
        "pixel_range": list(pipe.grid_head.config.pixel_range),
        "guide": curve,
        "luma": list(LUMA),
        "clipping_limit": config.clipping_limit,
        "shoulder": config.shoulder,
        "default_steps": config.default_steps,
        "sampling_steps": config.sampling_steps,
        "schedule": {
            "method": "ddim",
            "prediction_type": scheduler.prediction_type,
            "clip_sample_range": scheduler.clip_sample_range if scheduler.clip_sample else None,
            "steps": _schedules(pipe),
        },
    }


def _schedules(pipe):
    """Number of steps -> rows [timestep, its alpha_cumprod, that of the step after it], of which a run consists."""
    tables, alphas = {}, pipe.scheduler.alphas_cumprod
    for steps in range(1, min(MOST_STEPS, pipe.scheduler.config.num_train_timesteps) + 1):
        try:
            own = own_scheduler(pipe.scheduler, steps, pipe.config.timestep_range)
        except ValueError:  # pure noise would enter where the model knows none
            continue
        stride, last = own.config.num_train_timesteps // steps, own.final_alpha_cumprod
        tables[str(steps)] = [
            [t, *(float(f"{a:.9g}") for a in (alphas[t].item(), float(alphas[t - stride] if t >= stride else last)))]
            for t in own.timesteps.tolist()
        ]
    return tables


class _Colours(nn.Module):
    """`CSRNet.fold` of a batch."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval()

    def forward(self, thumbnail):
        network, layers = self.network, []
        condition = network.condition(thumbnail)
        for conv, scale, shift in zip(network.convs, network.scales, network.shifts, strict=True):
            s, t = 1 + scale(condition), shift(condition)
            layers += [s[:, :, None] * conv.weight[:, :, 0, 0], s * conv.bias + t]
        return tuple(layers)


def _write_csrnet(pipe, folder, half):
    outputs = tuple(f"{kind}{k}" for k in (1, 2, 3) for kind in ("weight", "bias"))
    size = pipe.network.config.condition_size
    inputs, free = (torch.full((2, 3, size, size * 3 // 4 + SMALLEST), 0.5),), {2: "height", 3: "width"}
    _write_graph(_Colours(pipe.network), inputs, ("thumbnail",), outputs, folder / "colours.onnx", half, free=free)
    return {
        "kind": "csrnet",
        "graphs": {"colours": "colours.onnx"},
        "thumbnail": {"size": size, "smallest": SMALLEST, "resample": "antialias"},
    }


def _write_graph(module, inputs, input_names, output_names, path, half, *, whole=(), free=None):
    """Trace a module into a file. torch's tracing exporter: that of `torch.export` takes three times as long."""
    axes = {name: {0: "batch"} for name in (*input_names, *output_names) if name not in whole}
    axes[input_names[0]] |= free or {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what tracing takes for constant: shapes, which are
        torch.onnx.export(
            module, inputs, str(path), input_names=list(input_names), output_names=list(output_names),
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        made = module(*inputs)
    shapes = [list(value.shape[1:]) for value in (made if isinstance(made, tuple) else (made,))]
    _tidy(path, half, shapes)


def _tidy(path, half, shapes):
    """Fold what is constant, state the outputs' shapes, store weights as float16 if asked, and check the file."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators only
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    fold_shapes(model)
    graph = model.graph
    model.producer_name, model.producer_version = "diffretouch", __version__
    used = [opset for opset in model.opset_import if opset.domain in {node.domain for node in graph.node}]
    del model.opset_import[:], graph.value_info[:]
    model.opset_import.extend(used)
    for value, shape in zip(graph.output, shapes, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", *shape]))
    casts = []
    for tensor in graph.initializer if half else ():
        values, name = numpy_helper.to_array(tensor), tensor.name
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALL:
            continue
        if abs(values).max() > 65504:
            raise ValueError(f"`half`: the weights {name} overflow float16; export with `half=False`.")
        tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _digest(path):
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
