"""Sharded weights as they are trained: FSDP2 by Accelerate, two processes over gloo."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from diffretouch import DiffRetouchPipeline
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.training.launch import tell_deepspeed
from diffretouch.training.sharding import shardable

from .toy_training import arguments, log, ranks, train

CONFIGS = Path(__file__).parents[1] / "training" / "accelerate"

# Accelerate shards only where it knows of GPUs; what it then does runs over gloo as well.
SHARDED = f"""
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
flags = ["--config_file", {str(CONFIGS / "fsdp2.yaml")!r}, "--mixed_precision", "no", "_"]
as_launched = launch_command_parser().parse_args(flags)
environment = prepare_multi_gpu_env(_validate_launch_command(as_launched)[0])
import os
os.environ.update({{name: value for name, value in environment.items() if "FSDP" in name}})
from accelerate import PartialState
from accelerate.utils import DistributedType
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
"""


def run(tmp_path, vae, name, *more, before=SHARDED):
    own = arguments(vae, tmp_path / name, *more)
    (first, said), (second, _) = ranks(tmp_path, own, own, before=before)
    return first or second, said


def test_trains_resumes_and_saves_a_whole_pipeline(autoencoder, tmp_path, monkeypatch):
    # automatic labels: a process whose batch asks for none must still take part in the forward
    more = ("--train_batch_size", "1", "--labels", "automatic", "--max_train_steps", "4")
    code, errors = run(tmp_path, autoencoder, "straight", *more)
    assert code == 0, errors[-3000:]
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    code, errors = run(tmp_path, autoencoder, "resumed", *more, "--resume_from_checkpoint", "latest")
    assert code == 0, errors[-3000:]
    assert log(tmp_path / "straight") == log(tmp_path / "resumed")
    weights, resumed = (DiffRetouchPipeline.from_pretrained(tmp_path / name) for name in ("straight", "resumed"))
    for module in ("unet", "grid_head"):
        pairs = zip(*(getattr(pipe, module).state_dict().values() for pipe in (weights, resumed)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert weights.grid_head.guide_curve.bias.shape == ()
    weights.set_progress_bar_config(disable=True)
    assert weights(torch.rand(3, 40, 30), output_type="pt").images.isfinite().all()
    # the same model as two processes make that each keep all of it
    code, errors = run(tmp_path, autoencoder, "whole", *more, before="")
    assert code == 0, errors[-3000:]
    for a, b in zip(log(tmp_path / "straight"), log(tmp_path / "whole"), strict=True):
        assert a == pytest.approx(b, abs=1e-4, rel=2e-4)  # some losses are large


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_accelerates(path):
    config = load_config_from_file(str(path))  # it refuses what it does not know
    kind = {"multi_gpu": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED"}[path.stem]
    assert config.distributed_type == kind and config.mixed_precision == "bf16"


def test_sharding_that_would_not_happen_is_refused(autoencoder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SystemExit, match="FSDP 1"):
        train(monkeypatch, autoencoder, tmp_path)
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(SystemExit, match="does not shard here"):
        train(monkeypatch, autoencoder, tmp_path)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_what_deepspeed_is_told(precision):
    """It sends weights as bytes, so each has a dimension; they stay float32, or what is saved would be rounded."""
    plugin = SimpleNamespace(deepspeed_config={"bf16": {"enabled": True}}, zero_stage=2)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(deepspeed_plugin=plugin), mixed_precision=precision, distributed_type="DEEPSPEED"
    )
    tell_deepspeed(accelerator, SimpleNamespace(train_batch_size=3, max_grad_norm=0.5, ema_decay=0.9), 2)
    told = plugin.deepspeed_config
    plugin.zero_stage = 3
    with pytest.raises(SystemExit, match="`--ema_decay 0`"):
        tell_deepspeed(accelerator, SimpleNamespace(train_batch_size=3, ema_decay=0.9), 1)
    assert (told["train_micro_batch_size_per_gpu"], told["gradient_accumulation_steps"]) == (3, 2)
    assert told["gradient_clipping"] == 0.5
    if precision == "bf16":
        assert not told["bf16"]["enabled"] and told["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    model = torch.nn.ModuleDict({"head": AffineGridHead()})
    shapes = {name: own.shape for name, own in model.state_dict().items()}
    form = shardable(model, accelerator)
    assert all(own.ndim for own in model.parameters())
    assert {name: own.shape for name, own in form.state_dict().items()} == shapes
