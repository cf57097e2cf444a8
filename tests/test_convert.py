import json
import os
import pickle
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from safetensors.torch import load_file, save_file

from diffretouch import (
    AffineGridHead,
    CSRNet,
    CSRNetPipeline,
    DiffRetouchPipeline,
    convert_csrnet,
    convert_diffretouch,
)
from diffretouch.cli import main
from diffretouch.models.unet import FULL_UNET, denoise, unet_thumbnail
from diffretouch.training.convert import RELEASED_UNET, holds_csrnet
from diffretouch.training.released_names import csrnet_keymap, head_keymap, unet_keymap

GOLDEN = Path(__file__).parent / "golden/diffretouch"
SET_A = Path(__file__).parents[2] / "shared/golden/diffretouch/set_a"  # 8 MB, see golden/README.md
whole_set = pytest.mark.skipif(not SET_A.is_dir(), reason="the released UNet's weights are not there")

TINY_UNET = dict(
    sample_size=16,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=(1, 2),
)
SET_A_UNET = dict(  # the same shape as set_a/config.json, in the keywords of UNet2DConditionModel
    block_out_channels=(32, 32, 64, 64), attention_head_dim=(4, 4, 8, 8)
)


def tiny_networks(seed=0, **changes):
    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**FULL_UNET, **TINY_UNET, **changes}), AffineGridHead(pixel_range=(-1.0, 1.0))


def released_state(unet, head):
    """The networks' weights as the released code would have saved them."""
    own = {**unet.state_dict(), **head.state_dict()}
    state = {released: own[name] for name, released in [*unet_keymap(unet).items(), *head_keymap(head).items()]}
    state["hdrdecoder.guide.thresholds"] = state["hdrdecoder.guide.thresholds"][None, None]
    state["hdrdecoder.guide.slopes"] = state["hdrdecoder.guide.slopes"][None, None, None]
    return state


def assert_equal_weights(actual, expected):
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], weight) for name, weight in expected.items())


def save_lightning(state, path):
    """A checkpoint as Lightning 1.4 writes it, with one of its classes as a key."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    packages = [name.rsplit(".", n)[0] for n in range(3)]
    model_checkpoint = type("ModelCheckpoint", (), {"__module__": name})
    with pytest.MonkeyPatch.context() as patch:
        for package in packages:
            patch.setitem(sys.modules, package, types.ModuleType(package))
        sys.modules[name].ModelCheckpoint = model_checkpoint
        moments = {n: {"step": 7, "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)} for n in range(2)}
        checkpoint = {
            "epoch": 3,
            "global_step": 1234,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": state,
            "callbacks": {model_checkpoint: {"monitor": "val/loss", "best_model_score": None, "dirpath": "logs"}},
            "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-6, "params": [0, 1]}]}],
            "lr_schedulers": [],
        }
        torch.save(checkpoint, path)


def with_schedule_and_vae(state):
    betas = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").betas
    vae = {"first_stage_model.quant_conv.weight": torch.ones(8, 8, 1, 1)}
    return {"betas": betas, "posterior_variance": betas, **state, **vae}


def save_lightning_complete(state, path):
    save_lightning(with_schedule_and_vae(state), path)


def save_old_pickle(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_recompressed(state, path):
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def save_safetensors(state, path):
    save_file({name: weight.contiguous() for name, weight in state.items()}, path)


def save_shared_and_transposed(state, path):
    """Two names share memory, one weight is not contiguous: safetensors itself would take neither."""
    state = dict(state)
    first, second = "model.diffusion_model.out.0.bias", "hdrdecoder.guide.bias"
    both = torch.cat([state[first], state[second][None]])
    state[first], state[second] = both[:-1], both[-1]
    conv = "model.diffusion_model.out.2.weight"
    state[conv] = state[conv].to(memory_format=torch.channels_last)
    torch.save(state, path)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def checkpoint(networks, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "tiny.ckpt"
    save_lightning_complete(released_state(*networks), path)
    return path


# Names


def test_names_equal_the_recorded_ones_of_the_full_size_model():
    with torch.device("meta"):
        unet, head = UNet2DConditionModel(**FULL_UNET), AffineGridHead(pixel_range=(-1.0, 1.0))
    assert unet_keymap(unet) == json.loads((GOLDEN / "diffusers_to_official_keymap.json").read_text())

    entries = [line.split("\t") for line in (GOLDEN / "set_full_keys.txt").read_text().splitlines()]
    recorded = {name: tuple(json.loads(f"[{shape.strip('(),')}]")) for name, shape, _ in entries}
    state = {name: tuple(weight.shape) for name, weight in released_state(unet, head).items()}
    assert len(state) == 686 + 13
    assert state == {n: s for n, s in recorded.items() if n.startswith(("model.", "hdrdecoder."))}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(layers_per_block=3),
        dict(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=1,
            transformer_layers_per_block=2,
        ),
    ],
)
def test_names_of_other_shapes_equal_those_of_diffusers_own_converter(changes):
    unet, head = tiny_networks(**changes)
    back = convert_ldm_unet_checkpoint(released_state(unet, head), unet.config)
    assert_equal_weights(back, unet.state_dict())


def test_released_keywords_describe_the_same_full_size_unet():
    from diffretouch.training.convert import _build_unet

    with torch.device("meta"):
        ours, released = UNet2DConditionModel(**FULL_UNET), _build_unet(RELEASED_UNET)
    private = "_use_default_values"
    assert {k: v for k, v in released.config.items() if k != private} == {
        k: v for k, v in ours.config.items() if k != private
    }


# What comes out


@pytest.mark.parametrize(
    "save",
    [
        save_lightning_complete,
        torch.save,
        save_old_pickle,
        save_recompressed,
        save_safetensors,
        save_shared_and_transposed,
    ],
)
def test_every_kind_of_file_keeps_every_weight(networks, tmp_path, save):
    save(released_state(*networks), tmp_path / "weights.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = convert_diffretouch(tmp_path / "weights.pth", tmp_path / "out", unet_config=TINY_UNET)
    assert folder == tmp_path / "out"
    assert sorted(os.listdir(folder)) == ["grid_head", "model_index.json", "scheduler", "unet"]
    assert sorted(os.listdir(tmp_path)) == ["out", "weights.pth"]
    pipe = DiffRetouchPipeline.from_pretrained(folder)
    for network, original in zip((pipe.unet, pipe.grid_head), networks, strict=True):
        assert_equal_weights(network.state_dict(), original.state_dict())


def test_the_config_says_how_the_released_model_works(checkpoint, tmp_path):
    pipe = DiffRetouchPipeline.from_pretrained(
        convert_diffretouch(str(checkpoint), str(tmp_path / "new" / "out"), unet_config=TINY_UNET)
    )
    assert pipe.config.attribute_order == ["colorfulness", "brightness", "contrast", "temperature"]
    assert pipe.config.attribute_signs == [1, 1, 1, 1]
    assert pipe.config.thumbnail == "nearest"
    assert pipe.config.timestep_range == [200, 999]
    assert pipe.config.default_steps == 20
    assert tuple(pipe.grid_head.config.pixel_range) == (-1, 1) and not pipe.grid_head.config.residual
    assert isinstance(pipe.scheduler, DDPMScheduler)
    wanted = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", variance_type="fixed_small")
    assert wanted.items() <= pipe.scheduler.config.items()
    assert not pipe.scheduler.config.clip_sample and pipe.scheduler.config.prediction_type == "epsilon"
    assert str(tmp_path) not in (tmp_path / "new/out/model_index.json").read_text()


def test_flipped_temperature_sees_the_opposite_c(checkpoint, tmp_path):
    as_is = convert_diffretouch(checkpoint, tmp_path / "as_is", unet_config=TINY_UNET)
    flipped = convert_diffretouch(checkpoint, tmp_path / "flipped", unet_config=TINY_UNET, flip_temperature=True)
    photo = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))

    def grid(folder, temperature):
        pipe = DiffRetouchPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        c = {"temperature": temperature, "contrast": 0.5}
        return pipe.predict_grid(photo, c, num_inference_steps=2, generator=generator)

    assert torch.equal(grid(as_is, 1.0), grid(flipped, -1.0))
    assert not torch.equal(grid(as_is, 1.0), grid(flipped, 1.0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float16])
def test_weights_are_stored_in_the_dtype(networks, checkpoint, tmp_path, dtype):
    folder = convert_diffretouch(checkpoint, tmp_path / "out", unet_config=TINY_UNET, dtype=dtype)
    expected = getattr(torch, str(dtype).removeprefix("torch."))
    for part, original in zip(("unet", "grid_head"), networks, strict=True):
        stored = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        assert_equal_weights(stored, {name: weight.to(expected) for name, weight in original.state_dict().items()})


def test_overwrite_replaces_the_model_and_nothing_else(checkpoint, tmp_path):
    folder = convert_diffretouch(checkpoint, tmp_path / "out", unet_config=TINY_UNET)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="`output_dir` must be empty"):
        convert_diffretouch(checkpoint, folder, unet_config=TINY_UNET)

    unet, head = tiny_networks(seed=1)
    save_safetensors(released_state(unet, head), tmp_path / "other.safetensors")
    convert_diffretouch(tmp_path / "other.safetensors", folder, unet_config=TINY_UNET, overwrite=True)
    pipe = DiffRetouchPipeline.from_pretrained(folder)
    assert torch.equal(pipe.unet.conv_in.weight, unet.conv_in.weight)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(os.listdir(folder)) == 5


def test_an_empty_folder_is_filled(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    inode = (tmp_path / "out").stat().st_ino
    convert_diffretouch(checkpoint, tmp_path / "out", unet_config=TINY_UNET)
    assert (tmp_path / "out").stat().st_ino == inode  # it may be a mount point, or where the caller stands
    assert len(os.listdir(tmp_path / "out")) == 4


def test_another_noise_schedule_is_told(networks, tmp_path):
    torch.save({"betas": torch.linspace(1e-4, 0.02, 1000), **released_state(*networks)}, tmp_path / "w.ckpt")
    with pytest.warns(UserWarning, match="another noise schedule"):
        convert_diffretouch(tmp_path / "w.ckpt", tmp_path / "out", unet_config=TINY_UNET)


# What is refused

OUT = "model.diffusion_model.out.0.bias"
GUIDE = "hdrdecoder.guide.slopes"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({OUT: None}, rf"1 missing: {OUT}\."),
        ({GUIDE: None}, rf"1 missing: {GUIDE}\."),
        ({OUT: torch.zeros(9)}, rf"1 of another shape or type: {OUT} \(9,\) torch.float32 instead of \(8,\)"),
        ({GUIDE: torch.zeros(3, 16)}, rf"{GUIDE} \(3, 16\) torch.float32 instead of \(1, 1, 1, 3, 16\)"),
        ({OUT: torch.zeros(8, dtype=torch.int64)}, r"torch.int64 instead of"),
        ({"model_ema.decay": torch.zeros(())}, r"1 unknown: model_ema.decay\."),
        ({f"extra.{n}": torch.zeros(1) for n in range(5)}, r"5 unknown: extra.0, extra.1, extra.2 and 2 more\."),
        ({OUT: torch.full((8,), torch.nan)}, rf"{OUT} in .* is not finite in float32"),
        ({OUT: 3}, rf"'{OUT}' is int, not a tensor"),
    ],
)
def test_every_weight_must_fit(networks, tmp_path, changes, sentence):
    state = {**released_state(*networks), **changes}
    torch.save({n: w for n, w in state.items() if w is not None}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=sentence) as raised:
        convert_diffretouch(tmp_path / "weights.ckpt", tmp_path / "out", unet_config=TINY_UNET)
    assert str(raised.value).startswith("`path`: ")
    assert os.listdir(tmp_path) == ["weights.ckpt"]


def test_weights_that_overflow_the_dtype_are_refused(networks, tmp_path):
    torch.save({**released_state(*networks), OUT: torch.full((8,), 1e5)}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="not finite in float16"):
        convert_diffretouch(tmp_path / "weights.ckpt", tmp_path / "out", unet_config=TINY_UNET, dtype="float16")
    assert os.listdir(tmp_path) == ["weights.ckpt"]


class Forbidden:
    """Its pickle would make a folder when it is read without care."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def write_json(path):
    path.write_text('{"a": 1}\n')


def write_truncated(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def write_truncated_safetensors(path):
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def write_forbidden(path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Forbidden()}, path)


def write_stable_diffusion(path):
    names = ("model.diffusion_model.out.0.bias", "cond_stage_model.model.logit_scale", "first_stage_model.x")
    torch.save({"state_dict": {name: torch.zeros(8) for name in names}}, path)


def write_unet_alone(path):
    torch.save({"model.diffusion_model.out.0.bias": torch.zeros(8)}, path)


def write_csrnet(path):
    torch.save({"base_net.conv1.weight": torch.zeros(64, 3, 1, 1), "cond_net.conv1.weight": torch.zeros(32)}, path)


WRONG_FILES = [
    (lambda path: None, "must be a checkpoint file, got what is no file"),
    (lambda path: path.mkdir(), "must be a checkpoint file, got the folder"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (write_json, "is damaged, truncated or no PyTorch or safetensors checkpoint"),
    (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 9), "is damaged, truncated or no"),
    (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is damaged, truncated or no"),
    (write_truncated, "is damaged, truncated or no"),
    (write_truncated_safetensors, "is damaged, truncated or no"),
    (write_forbidden, r"asks for the Python object \S+\.mkdir; only tensors are loaded"),
    (lambda path: torch.save([torch.zeros(1)], path), "holds no state dict, but list"),
    (lambda path: torch.save({}, path), "holds no state dict, but dict"),
    (lambda path: torch.save({"model": {"a": 1}}, path), "holds no state dict: 'model' is dict, not a tensor"),
    (write_stable_diffusion, "is a Stable Diffusion checkpoint, not a released DiffRetouch checkpoint"),
    (write_unet_alone, r"is a UNet, not a released DiffRetouch checkpoint: it has no hdrdecoder"),
    (write_csrnet, "is no released DiffRetouch checkpoint, it holds base_net.conv1.weight, cond_net.conv1.weight"),
]


@pytest.mark.parametrize(("write", "sentence"), WRONG_FILES)
def test_wrong_files_end_in_one_sentence(tmp_path, monkeypatch, capsys, write, sentence):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "wrong.ckpt"
    write(path)
    before = os.listdir(tmp_path)
    with pytest.raises(ValueError, match=sentence) as raised:
        convert_diffretouch(path, tmp_path / "out")
    assert str(raised.value).startswith("`path`") and str(path) in str(raised.value)

    monkeypatch.setattr(sys, "argv", ["diffretouch", "convert", str(path), str(tmp_path / "out")])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines() == [f"Converting {path} ...", f"Error: {raised.value}"]
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (dict(dtype="int8"), ValueError, "`dtype` must be float32, float16, bfloat16, got 'int8'"),
        (dict(unet_config="tiny"), TypeError, "`unet_config` must be a dict or None, got str"),
        (dict(unet_config=dict(colour=1)), ValueError, "`unet_config` does not describe a UNet: .*colour"),
        (dict(unet_config=dict(block_out_channels=(8,))), ValueError, "`unet_config` does not describe a UNet"),
        (dict(unet_config=dict(num_head_channels=0)), ValueError, "`unet_config` does not describe a UNet"),
        (dict(unet_config=dict(use_spatial_transformer=False)), ValueError, "use_spatial_transformer must be True"),
        (dict(unet_config=dict(layers_per_block=[1, 2, 2, 2])), ValueError, "layers_per_block must be one number"),
        (dict(unet_config=dict(class_embed_type="timestep")), ValueError, "has no class_embedding"),
        (dict(unet_config=None), ValueError, r"does not fit .* missing: .*; \d+ of another shape or type: "),
    ],
)
def test_wrong_arguments(checkpoint, tmp_path, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        convert_diffretouch(checkpoint, tmp_path / "out", **arguments)
    assert os.listdir(tmp_path) == []


def test_output_must_not_be_a_file(checkpoint, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="`output_dir` must be a folder, got the file"):
        convert_diffretouch(checkpoint, tmp_path / "out", unet_config=TINY_UNET, overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_write_leaves_what_was_there(checkpoint, tmp_path, exists):
    resource = pytest.importorskip("resource")  # limits of the operating system: not on Windows
    folder = tmp_path / "out"
    if exists:
        convert_diffretouch(checkpoint, folder, unet_config=TINY_UNET)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # files cannot grow, as on a full disk
    try:
        with pytest.raises(OSError):
            convert_diffretouch(checkpoint, folder, unet_config=TINY_UNET, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == (["out"] if exists else [])


# The released model's numbers


@pytest.fixture(scope="module")
def set_a(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set_a")
    state = {name: w.float() for name, w in load_file(SET_A / "tiny_official.safetensors").items()}
    save_lightning_complete(state, folder / "set_a.ckpt")
    config = json.loads((GOLDEN / "set_a/config.json").read_text())["unet_config"]
    return DiffRetouchPipeline.from_pretrained(
        convert_diffretouch(folder / "set_a.ckpt", folder / "out", unet_config=config)
    )


def recorded(name):
    return {key: torch.from_numpy(value) for key, value in np.load(SET_A / f"{name}.npz").items()}


def assert_close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert ((actual - expected).abs().max() / expected.abs().max()).item() < tolerance


@whole_set
def test_released_half_precision_safetensors_with_our_keywords(set_a, tmp_path):
    source = SET_A / "tiny_official.safetensors"
    folder = convert_diffretouch(source, tmp_path / "out", unet_config=SET_A_UNET)
    for part, same in (("unet", set_a.unet), ("grid_head", set_a.grid_head)):
        assert_equal_weights(load_file(folder / part / "diffusion_pytorch_model.safetensors"), same.state_dict())
    config = json.loads((folder / "unet/config.json").read_text())
    assert config["attention_head_dim"] == set_a.unet.config.attention_head_dim


@whole_set
@pytest.mark.parametrize("name", ["single_reg", "single_odd"])
def test_one_call_equals_the_released_model(set_a, name):
    want = recorded(name)
    photo = want["image_u8"].permute(0, 3, 1, 2).float() / 255
    thumbnail = unet_thumbnail(photo, set_a.unet.config, set_a.config.thumbnail)
    with torch.no_grad():
        out = torch.cat(denoise(set_a.unet, want["latent"], thumbnail, want["timestep"], want["c"]), 1)
        grid = set_a.grid_head(out[:, 4:])
        applied = set_a.grid_head.apply_reference(grid, photo)
    assert_close(thumbnail, want["image_64"], 1e-6)
    assert_close(out, want["unet_out"], 1e-5)
    assert_close(grid, want["grid"], 1e-5)
    assert_close(applied * 2 - 1, want["applied"], 1e-5)


class RecordedNoise(DDPMScheduler):
    """Adds given noises instead of drawn ones: what the parent drew is known by its seed, and is exchanged."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        drawn = randn_tensor(model_output.shape, generator=torch.Generator().manual_seed(0))
        out = super().step(model_output, timestep, sample, generator=torch.Generator().manual_seed(0))
        index = (self.timesteps == timestep).nonzero().item()
        out.prev_sample += self._get_variance(timestep) ** 0.5 * (self.noises[index] - drawn)
        return out


@whole_set
@pytest.mark.parametrize("name", ["sampler_reg", "sampler_odd"])
def test_a_complete_run_equals_the_released_model(set_a, name):
    want, source = recorded(name), recorded(name.replace("sampler", "single"))
    photo = source["image_u8"].permute(0, 3, 1, 2).float() / 255
    scheduler = RecordedNoise.from_config(set_a.scheduler.config)
    scheduler.noises = want["noises"].float()
    pipe = DiffRetouchPipeline(
        set_a.unet,
        set_a.grid_head,
        scheduler,
        attribute_order=set_a.config.attribute_order,
        attribute_signs=set_a.config.attribute_signs,
        thumbnail=set_a.config.thumbnail,
        timestep_range=set_a.config.timestep_range,
    )
    pipe.set_progress_bar_config(disable=True)
    timesteps, latents = [], []

    def record(pipe, step, timestep, tensors):
        timesteps.append(int(timestep))
        latents.append(tensors["latents"])

    colorfulness, brightness, contrast, temperature = want["c"][0].tolist()
    c = {"colorfulness": colorfulness, "contrast": contrast, "temperature": temperature, "brightness": brightness}
    out = pipe(
        photo, c, num_inference_steps=5, latents=want["x_T"], output_type="pt", callback_on_step_end=record
    )  # fmt: skip
    assert timesteps == want["timesteps"].tolist()
    for actual, expected in zip(latents, want["x_prev"], strict=True):
        assert_close(actual, expected)
    assert_close(out.images, ((want["x0_affine"] + 1) / 2).clamp(0, 1))
    with torch.no_grad():
        assert_close(out.grids, set_a.grid_head(want["unet_out"][-1, :, 4:]))
    assert out.c.tolist() == [[*c.values()]]
    shown = (out.images * 255).to(torch.uint8).permute(0, 2, 3, 1)  # the released code truncates
    assert (shown.int() - want["result_u8"].int()).abs().max() <= 1


def test_the_structure_of_the_public_checkpoints_is_read(tmp_path):
    config = json.loads((GOLDEN / "set_a/config.json").read_text())["unet_config"]
    with pytest.raises(
        ValueError,
        match=r"does not fit the UNet of `unet_config` and the grid head; \d+ missing: model\.diffusion_model\.",
    ):
        convert_diffretouch(GOLDEN / "pl_structure_example.ckpt", tmp_path / "out", unet_config=config)
    assert os.listdir(tmp_path) == []


# CSRNet


def released_csrnet(seed=0):
    """Weights with the released names and shapes."""
    torch.manual_seed(seed)
    network = CSRNet()
    return network, {name: network.state_dict()[own] for own, name in csrnet_keymap(network).items()}


@pytest.mark.parametrize("save", [torch.save, save_old_pickle, save_safetensors])
def test_csrnet_converts(tmp_path, save):
    network, state = released_csrnet()
    save(state, tmp_path / "csrnet.pth")
    assert holds_csrnet(tmp_path / "csrnet.pth")
    assert convert_csrnet(tmp_path / "csrnet.pth", tmp_path / "out") == tmp_path / "out"
    pipe = CSRNetPipeline.from_pretrained(tmp_path / "out")
    assert_equal_weights(pipe.network.state_dict(), network.state_dict())
    assert pipe.network.config.input_space == "prophoto" and pipe.network.config.condition_size == 500
    convert_csrnet(tmp_path / "csrnet.pth", tmp_path / "out", input_space="srgb", overwrite=True)
    assert CSRNetPipeline.from_pretrained(tmp_path / "out").network.config.input_space == "srgb"


CSRNET_GOLDEN = GOLDEN.parent / "csrnet"


def test_csrnet_names_equal_the_recorded_ones(tmp_path):
    recorded = np.load(CSRNET_GOLDEN / "random_weights.npz")
    torch.save({name: torch.from_numpy(recorded[name]) for name in recorded}, tmp_path / "csrnet.pth")
    convert_csrnet(tmp_path / "csrnet.pth", tmp_path / "out", input_space="srgb")
    network = CSRNetPipeline.from_pretrained(tmp_path / "out").network
    photo = Image.open(CSRNET_GOLDEN / "rand_odd_51x37.in.png").convert("RGB")
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    wanted = np.load(CSRNET_GOLDEN / "rand_odd_51x37.npz")["output"]
    assert np.abs(network(image)[0].detach().numpy() - wanted).max() < 2e-5


def _without(state, name):
    return {key: weight for key, weight in state.items() if key != name}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: _without(state, "conv2.bias"), "does not fit CSRNet; 1 missing: conv2.bias"),
        (lambda state: {**state, "conv4.bias": torch.zeros(3)}, "1 unknown: conv4.bias"),
        (lambda state: {**state, "conv3.bias": torch.zeros(4)}, "1 of another shape or type: conv3.bias"),
        (lambda state: {**state, "conv3.bias": torch.full((3,), torch.nan)}, "conv3.bias in .* is not finite"),
        (lambda state: {"weight": torch.zeros(3)}, "is no released CSRNet, it holds weight"),
    ],
)
def test_csrnet_refuses(tmp_path, change, words):
    torch.save(change(released_csrnet()[1]), tmp_path / "csrnet.pth")
    with pytest.raises(ValueError, match=f"`path`: .*{words}"):
        convert_csrnet(tmp_path / "csrnet.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_csrnet_refuses_other_spaces_and_full_folders(tmp_path):
    torch.save(released_csrnet()[1], tmp_path / "csrnet.pth")
    with pytest.raises(ValueError, match="`input_space` must be one of srgb, prophoto"):
        convert_csrnet(tmp_path / "csrnet.pth", tmp_path / "out", input_space="adobe")
    with pytest.raises(ValueError, match="`output_dir` must be empty"):
        convert_csrnet(tmp_path / "csrnet.pth", tmp_path)


def test_the_command_recognises_the_checkpoint(tmp_path, monkeypatch, capsys):
    torch.save(released_csrnet()[1], tmp_path / "csrnet.pth")
    command = ["diffretouch", "convert", str(tmp_path / "csrnet.pth"), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert CSRNetPipeline.from_pretrained(tmp_path / "out").network.config.input_space == "prophoto"
    monkeypatch.setattr(sys, "argv", [*command, "--flip-temperature", "--overwrite"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
