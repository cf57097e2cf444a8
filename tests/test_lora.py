"""Adapters on a Stable Diffusion's attention: what moves, what is saved, and what is loaded again."""

import json
import shutil

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffretouch import DiffRetouchPipeline
from diffretouch.models.unet import build_retouch_unet
from diffretouch.training.lora import add_lora, merged, saves_adapter
from diffretouch.training.train_diffretouch import parse_args

from .tiny import tiny_pipeline, tiny_unet
from .toy_training import arguments, assert_same, log, state, train

pytest.importorskip("peft")


def stable_diffusion(folder):
    base = tiny_unet(in_channels=4, out_channels=4, cross_attention_dim=24)
    base.save_pretrained(folder / "unet")
    DDPMScheduler(prediction_type="epsilon").save_pretrained(folder / "scheduler")
    return base


def named(folder):
    return {"base": str(folder), "revision": None, "variant": None}


def is_new(name):
    return name.startswith(("conv_in.", "conv_out.")) or ".attn2.to_k." in name or ".attn2.to_v." in name


@pytest.fixture
def adapted(tmp_path):
    """A pipeline whose UNet is a Stable Diffusion with adapters that do something."""
    torch.manual_seed(0)
    unet = build_retouch_unet(stable_diffusion(tmp_path / "base"), cross_attention_dim=8)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    add_lora(unet, 2)
    for name, own in unet.named_parameters():
        if "lora_B" in name or name == "conv_in.weight":
            torch.nn.init.normal_(own, std=0.2)
    pipe = tiny_pipeline()
    pipe.register_modules(unet=unet)
    return pipe, before


@torch.no_grad()
def output(unet):
    torch.manual_seed(1)
    return unet(torch.randn(2, 7, 8, 8), torch.tensor([3, 700]), encoder_hidden_states=torch.randn(2, 4, 8)).sample


def test_merged_and_adapter_do_the_same(adapted, tmp_path):
    pipe, before = adapted
    wanted = output(pipe.unet)
    plain = UNet2DConditionModel.from_config(pipe.unet.config)
    plain.load_state_dict(before)
    assert (output(plain) - wanted).abs().max() > 1e-3  # the adapters do something
    whole = merged(pipe.unet)
    assert set(whole.state_dict()) == set(before)
    torch.testing.assert_close(output(whole), wanted, atol=1e-5, rtol=0)
    pipe.register_modules(unet=saves_adapter(pipe.unet, named(tmp_path / "base")))
    pipe.save_pretrained(tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter" / "unet").iterdir()}
    assert files == {"adapter.json", "adapter.safetensors"}
    loaded = DiffRetouchPipeline.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(output(loaded.unet), wanted, atol=1e-5, rtol=0)


def test_an_adapter_opens_in_the_precision_that_is_asked_for(adapted, tmp_path):
    pipe, _ = adapted
    pipe.register_modules(unet=saves_adapter(pipe.unet, named(tmp_path / "base")))
    pipe.save_pretrained(tmp_path / "adapter")
    for asked in (torch.bfloat16, {"unet": torch.bfloat16}, {"default": torch.bfloat16}):
        loaded = DiffRetouchPipeline.from_pretrained(tmp_path / "adapter", dtype=asked)
        assert {own.dtype for own in loaded.unet.parameters()} == {torch.bfloat16}, asked


def test_foreign_adapters_are_refused(adapted, tmp_path):
    pipe, _ = adapted
    pipe.register_modules(unet=saves_adapter(pipe.unet, named(tmp_path / "base")))
    pipe.save_pretrained(tmp_path / "adapter")
    file, about = (tmp_path / "adapter" / "unet" / name for name in ("adapter.safetensors", "adapter.json"))
    kept, said = load_file(file), about.read_text()

    def refused(match):
        with pytest.raises(ValueError, match=match):
            DiffRetouchPipeline.from_pretrained(tmp_path / "adapter")

    save_file({**kept, "strange.weight": torch.zeros(1)}, file)
    refused("no place for: strange.weight")
    save_file(kept, file)
    about.write_text(json.dumps({**json.loads(said), "base": str(tmp_path / "nowhere")}))
    refused("nowhere")
    about.write_text("{")
    refused("cannot be loaded")
    about.write_text(said)
    other = tiny_unet(in_channels=4, out_channels=4, cross_attention_dim=24)
    torch.nn.init.normal_(other.conv_norm_out.weight)
    other.save_pretrained(tmp_path / "base" / "unet")
    refused("not the Stable Diffusion")


def test_trains_adapters_and_new_layers_alone(autoencoder, tmp_path, monkeypatch):
    base = stable_diffusion(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    start = ("--pretrained_model_name_or_path", "base", "--lora_rank", "2", "--max_train_steps", "4")
    more = (*start, "--lora_save", "adapter")
    train(monkeypatch, autoencoder, tmp_path / "out", *more)
    first, last = (load_file(tmp_path / "out" / f"checkpoint-{n}" / "model.safetensors") for n in (2, 4))
    moved = {name.removeprefix("unet.") for name in first if not torch.equal(first[name], last[name])}
    moved = {name for name in moved if not name.startswith("grid_head.")}
    assert moved and all(".lora_" in name or is_new(name) for name in moved)
    assert any(".lora_A." in name for name in moved) and {"conv_in.weight", "conv_out.weight"} <= moved
    for name, value in base.state_dict().items():
        if not is_new(name):
            plain = f"unet.{name}"
            ends = name.rpartition(".")
            kept = last[plain] if plain in last else last[f"unet.{ends[0]}.base_layer.{ends[2]}"]
            assert torch.equal(kept, value), name
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    said = json.loads((tmp_path / "out" / "unet" / "adapter.json").read_text())
    assert said["base"] == str(tmp_path / "base")  # whatever folder it was named from
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.isfinite().all()
    shutil.copytree(tmp_path / "out", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "out" / "checkpoint-4"), state(tmp_path / "resumed" / "checkpoint-4"))
    assert log(tmp_path / "out") == log(tmp_path / "resumed")
    # whole weights after an adapter: it does not stay beside them, where it would be taken for them
    going_on = (*start, "--lora_save", "merged", "--max_train_steps", "6", "--resume_from_checkpoint", "latest")
    train(monkeypatch, autoencoder, tmp_path / "out", *going_on)
    assert {path.name for path in (tmp_path / "out" / "unet").iterdir()} == {
        "config.json", "diffusion_pytorch_model.safetensors"}  # fmt: skip


@pytest.mark.parametrize("more", [("--lora_rank", "4"), ("--lora_rank", "-1")])
def test_refuses(tmp_path, more):
    with pytest.raises(SystemExit, match="2"):
        parse_args(arguments("vae", tmp_path, *more))
