"""The authors' released checkpoints -> this library's pipelines: strict about every weight, executing nothing."""

import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffretouch.models.adaptive_lut import AdaptiveLut3D
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.models.csrnet import CSRNet
from diffretouch.models.unet import FULL_UNET
from diffretouch.pipelines.pipeline_csrnet import CSRNetPipeline
from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.training.released_names import csrnet_keymap, head_keymap, unet_keymap

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# The released configuration of the full-size UNet, in its own keywords.
RELEASED_UNET = dict(
    image_size=32,  # read nowhere: latents are 64x64
    in_channels=7,
    out_channels=8,
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    attention_resolutions=(4, 2, 1),
    num_head_channels=64,
    use_spatial_transformer=True,
    use_linear_in_transformer=True,
    transformer_depth=1,
    context_dim=4,
    legacy=False,  # changes nothing where num_head_channels is given
    use_checkpoint=False,  # about training
    use_fp16=False,
)

# Released state dicts also hold the noise schedule, which the scheduler computes, and a VAE, which no retouch needs.
_SCHEDULE = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
}
_VAE = "first_stage_model."

_HEAD_LEADING = {"guide_curve.thresholds": (1, 1), "guide_curve.slopes": (1, 1, 1)}  # broadcast axes there


def convert_diffretouch(
    path: str | os.PathLike[str], output_dir: str | os.PathLike[str], *, unet_config: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype = "float32", flip_temperature: bool = False, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Turn a released DiffRetouch checkpoint into a folder for `DiffRetouchPipeline.from_pretrained`.

    The file is memory-mapped, so that of the 10.4 GB of a released checkpoint only the UNet and the grid head are read
    (3.4 GB); optimizer moments and the VAE are left out. The folder appears only when it is complete.

    Args:
        path: the released Lightning checkpoint, or a plain state dict with the released names (.ckpt, .pt, .pth,
            .safetensors). The content decides, not the suffix.
        output_dir: folder for the pipeline; made if it does not exist.
        unet_config (`dict`, *optional*): what differs from the full-size UNet, either in the released keywords (see
            `RELEASED_UNET`) or in those of `UNet2DConditionModel`. The number of attention heads cannot be told from
            the weights: it must be right here.
        dtype (`str`): "float32", "float16" or "bfloat16", how the weights are stored. They are loaded as float32,
            unless `from_pretrained` is given a `dtype`.
        flip_temperature (`bool`): record that the temperature of these weights runs the other way (+ is cooler), so
            that + is warmer in public. Which way the released weights run is not documented.
        overwrite (`bool`): replace the model that `output_dir` holds; other files in it stay.

    Returns:
        `pathlib.Path`: `output_dir`.

    Raises:
        ValueError: `path` is no file, cannot be read without executing code, or does not hold exactly the released
            weights in the shapes of `unet_config`; a weight is not finite in `dtype`; `output_dir` is not empty.
        OSError: a file cannot be read or written.
    """
    path, output_dir = Path(path), Path(output_dir)
    dtype_name = str(dtype).removeprefix("torch.")
    if dtype_name not in DTYPES:
        raise ValueError(f"`dtype` must be {', '.join(DTYPES)}, got {dtype!r}.")
    _check_output_dir(output_dir, overwrite)

    # 1. The networks, without memory for their weights
    with torch.device("meta"):
        unet = _build_unet(unet_config)
        head = AffineGridHead(pixel_range=(-1.0, 1.0))
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        variance_type="fixed_small",
        clip_sample=False,
        prediction_type="epsilon",
    )

    # 2. The released weights: all of them, and nothing that is not known
    state = load_state_dict(path)
    unet_keys, head_keys = unet_keymap(unet), head_keymap(head)
    shapes = {unet_keys[name]: weight.shape for name, weight in unet.state_dict().items()}
    for name, weight in head.state_dict().items():
        shapes[head_keys[name]] = (*_HEAD_LEADING.get(name, ()), *weight.shape)
    _check_weights(path, state, shapes)
    betas = state.get("betas")
    if betas is not None and (betas.shape != (1000,) or not torch.allclose(betas.float(), scheduler.betas, atol=1e-6)):
        warnings.warn(
            f"`path`: {path} was trained with another noise schedule (`betas`) than the released one, which the "
            "converted model will use.",
            stacklevel=2,
        )

    # 3. Into the networks
    for network, keys in ((unet, unet_keys), (head, head_keys)):
        network.load_state_dict(_own_weights(path, state, network, keys, dtype_name), assign=True)
    pipe = DiffRetouchPipeline(
        unet,
        head,
        scheduler,
        attribute_order=("colorfulness", "brightness", "contrast", "temperature"),
        attribute_signs=(1, 1, 1, -1 if flip_temperature else 1),
        thumbnail="nearest",
        timestep_range=(200, 999),
        default_steps=20,
    )
    _save(pipe, output_dir)
    return output_dir


def convert_csrnet(
    path: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    input_space: str = "prophoto",
    overwrite: bool = False,
) -> Path:
    """Turn the released CSRNet weights into a folder for `CSRNetPipeline.from_pretrained`.

    They were trained on ProPhoto pixels (gamma 1.8) with sRGB targets, which the released code does not say: the
    converted model records it, and the pipeline converts sRGB photos. The condition comes from 500 px, as in training.

    Args:
        path: the released `csrnet.pth`, or weights with the same names from its training script (.pth, .safetensors).
        output_dir: folder for the pipeline; made if it does not exist.
        input_space (`str`): "prophoto", or "srgb" for weights that were trained on sRGB inputs.
        overwrite (`bool`): replace the model that `output_dir` holds; other files in it stay.

    Returns:
        `pathlib.Path`: `output_dir`.

    Raises:
        ValueError: as `convert_diffretouch`, or an unknown `input_space`.
        OSError: a file cannot be read or written.
    """
    path, output_dir = Path(path), Path(output_dir)
    _check_output_dir(output_dir, overwrite)
    with torch.device("meta"):
        network = CSRNet(condition_size=500, input_space=input_space)
    keymap = csrnet_keymap(network)
    state = load_state_dict(path)
    if not _is_csrnet(state):
        raise ValueError(f"`path`: {path} is no released CSRNet, it holds {_some(list(state))}.")
    shapes = {keymap[name]: weight.shape for name, weight in network.state_dict().items()}
    _check_shapes(path, "CSRNet", state, shapes, [name for name in state if name not in shapes])
    network.load_state_dict(_own_weights(path, state, network, keymap, "float32"), assign=True)
    _save(CSRNetPipeline(network), output_dir)
    return output_dir


def holds_csrnet(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint file is the released CSRNet's. Raises as `load_state_dict`."""
    return _is_csrnet(load_state_dict(Path(path)))


def _is_csrnet(state):
    return any(name.startswith("cond_scale") for name in state)


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file by name, on the CPU, memory-mapped where the format allows it.

    Args:
        path (`pathlib.Path`): a Lightning checkpoint, a `torch.save`d state dict or safetensors.

    Raises:
        ValueError: no file, damaged, not a state dict, or a pickle that asks for more than tensors.
    """
    checkpoint = _read_checkpoint(path)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state, dict) or not state:
        raise ValueError(f"`path`: {path} holds no state dict, but {_describe(state)}.")
    for name, weight in state.items():
        if not isinstance(name, str) or not torch.is_tensor(weight):
            raise ValueError(f"`path`: {path} holds no state dict: {name!r} is {_describe(weight)}, not a tensor.")
    return state


def load_adaptive_lut(folder: str | os.PathLike[str]) -> AdaptiveLut3D:
    """The released weights of Image-Adaptive 3D LUT (Zeng et al., TPAMI 2020), to be compared with.

    Args:
        folder: holds `LUTs.pth` and `classifier.pth`, as released.

    Returns:
        [`AdaptiveLut3D`], in evaluation mode.

    Raises:
        ValueError: a file is missing, cannot be read without executing code, or holds something else.
    """
    folder = Path(folder)
    classifier = {name: weight.float() for name, weight in load_state_dict(folder / "classifier.pth").items()}
    state = _read_checkpoint(folder / "LUTs.pth")
    tables = []
    for key in sorted(state, key=str) if isinstance(state, dict) else ():
        table = state[key].get("LUT") if isinstance(state[key], dict) else state[key]
        if not torch.is_tensor(table) or table.ndim != 4 or len(table) != 3 or len(set(table.shape[1:])) > 1:
            raise ValueError(f"`folder`: {folder / 'LUTs.pth'} holds {_describe(table)} as {key!r}, not a 3D table.")
        tables.append(table.float())
    last = max(classifier, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    weight = classifier.get(f"{last.rpartition('.')[0]}.weight")
    if not tables or weight is None or len(weight) != len(tables):
        raise ValueError(f"`folder`: {folder} holds {len(tables)} tables, which the classifier does not weigh.")
    network = AdaptiveLut3D(tables=len(tables), size=tables[0].shape[-1]).requires_grad_(False).eval()
    state = {name.replace("model.", "classifier.", 1): weight for name, weight in classifier.items()}
    try:
        network.load_state_dict({**state, "basis": torch.stack(tables)})
    except RuntimeError as error:
        raise ValueError(f"`folder`: {folder} holds another network: {' '.join(str(error).split())}") from error
    return network


def _read_checkpoint(path):
    """What a checkpoint file holds, with nothing executed. Raises ValueError as `load_state_dict`."""
    if not path.is_file():
        what = "the folder" if path.is_dir() else "what is no file:"
        raise ValueError(f"`path` must be a checkpoint file, got {what} {path}.")
    with open(path, "rb") as file:
        start = file.read(9)
    if not start:
        raise ValueError(f"`path`: {path} is empty.")
    mapped = zipfile.is_zipfile(path)  # older pickles and re-compressed archives are read into memory
    try:
        if start[8:] == b"{":  # safetensors: the header's length, then the header in JSON
            return load_file(path)
        if mapped:
            with zipfile.ZipFile(path) as archive:
                mapped = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        # Lightning 1.x writes this class as a key of its callbacks; an empty one stands in for it.
        stand_in = (type("ModelCheckpoint", (), {}), "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
        with torch.serialization.safe_globals([stand_in]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on pickles of other kinds, which then fail
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail in every possible way, OSError among them
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            reason = f"asks for the Python object {refused[1]}; only tensors are loaded, nothing that could run code"
        else:
            reason = "is damaged, truncated or no PyTorch or safetensors checkpoint"
        raise ValueError(f"`path`: {path} {reason}.") from error


def _build_unet(config):
    config = {} if config is None else config
    if not isinstance(config, dict):
        raise TypeError(f"`unet_config` must be a dict or None, got {type(config).__name__}.")
    try:
        if config.keys() <= RELEASED_UNET.keys():
            config = _from_released_config(config)
        return UNet2DConditionModel(**{**FULL_UNET, **config})
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise ValueError(f"`unet_config` does not describe a UNet: {' '.join(str(error).split())}") from error


def _from_released_config(config):
    """Keywords of the released configuration files -> those of `UNet2DConditionModel`."""
    config = {**RELEASED_UNET, **config}
    if not config["use_spatial_transformer"]:
        raise ValueError("use_spatial_transformer must be True")
    channels = tuple(config["model_channels"] * factor for factor in config["channel_mult"])
    attention = [2**level in config["attention_resolutions"] for level in range(len(channels))]
    return dict(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)),
        layers_per_block=config["num_res_blocks"],
        attention_head_dim=tuple(width // config["num_head_channels"] for width in channels),  # the number of heads
        cross_attention_dim=config["context_dim"],
        use_linear_projection=config["use_linear_in_transformer"],
        transformer_layers_per_block=config["transformer_depth"],
    )


def _check_weights(path, state, shapes):
    """Raise unless `state` holds exactly the released weights (name -> shape), beside schedule and VAE."""
    if not any(name.startswith(("model.diffusion_model.", "hdrdecoder.")) for name in state):
        raise ValueError(f"`path`: {path} is no released DiffRetouch checkpoint, it holds {_some(list(state))}.")
    if not any(name.startswith("hdrdecoder.") for name in state):
        kind = "a Stable Diffusion checkpoint" if any(n.startswith("cond_stage_model.") for n in state) else "a UNet"
        raise ValueError(f"`path`: {path} is {kind}, not a released DiffRetouch checkpoint: it has no hdrdecoder.*.")
    unknown = [n for n in state if n not in shapes and n not in _SCHEDULE and not n.startswith(_VAE)]
    _check_shapes(path, "the UNet of `unet_config` and the grid head", state, shapes, unknown)


def _check_shapes(path, what, state, shapes, unknown):
    """Raise unless `state` holds every weight (name -> shape) and nothing is unknown."""
    fits = {name: _fits(state[name], shape) for name, shape in shapes.items() if name in state}
    problems = {
        "missing": [name for name in shapes if name not in state],
        "of another shape or type": [
            f"{name} {_describe(state[name])} instead of {tuple(shapes[name])}" for name in fits if not fits[name]
        ],
        "unknown": unknown,
    }
    found = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"`path`: {path} does not fit {what}; {'; '.join(found)}.")


def _check_output_dir(output_dir, overwrite):
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"`output_dir` must be a folder, got the file {output_dir}.")
    if not overwrite and output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"`output_dir` must be empty unless `overwrite` is given, got {output_dir}.")


def _fits(weight, shape):
    return weight.shape == tuple(shape) and weight.is_floating_point() and weight.layout == torch.strided


def _own_weights(path, state, network, keymap, dtype_name):
    """The network's state dict in `dtype_name`; what need not be changed stays mapped to the file."""
    weights, storages = {}, set()
    for name, meta in network.state_dict().items():
        weight = state.pop(keymap[name]).to(DTYPES[dtype_name]).reshape(meta.shape).contiguous()
        if not weight.isfinite().all():
            raise ValueError(f"`path`: {keymap[name]} in {path} is not finite in {dtype_name}.")
        storage = weight.untyped_storage().data_ptr()
        weights[name] = weight.clone() if storage in storages else weight  # safetensors takes no shared memory
        storages.add(storage)
    return weights


def _save(pipe, output_dir):
    """Save beside or, where it exists, inside `output_dir`, then move into place: a failure leaves it as it was."""
    exists = output_dir.is_dir()
    output_dir = output_dir.resolve()
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    place = output_dir if exists else output_dir.parent
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}-", dir=place) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        try:
            pipe.save_pretrained(new)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(f"`output_dir`: {output_dir} cannot be written: {error}") from error
        if not exists:
            os.rename(new, output_dir)
            return
        old.mkdir()
        parts = sorted(os.listdir(new), key=lambda name: name != "model_index.json")
        for part in parts:  # model_index.json goes first and comes last: a folder without it is no model
            if os.path.lexists(output_dir / part):
                os.rename(output_dir / part, old / part)
        for part in reversed(parts):
            os.rename(new / part, output_dir / part)


def _some(names, most=3):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _describe(value):
    return f"{tuple(value.shape)} {value.dtype}" if torch.is_tensor(value) else type(value).__name__
