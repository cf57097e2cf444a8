"""Trainings that begin at other weights: a Stable Diffusion's, our own, the authors'."""

import json
from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffretouch import AffineGridHead, DiffRetouchPipeline
from diffretouch.training import retouch_model, train_diffretouch
from diffretouch.training.convert import convert_diffretouch
from diffretouch.training.released_names import head_keymap, unet_keymap

from .tiny import recipes_toy, tiny_unet
from .toy_training import ALL, arguments, assert_same, log, train


def test_from_stable_diffusion(autoencoder, tmp_path, monkeypatch):
    base = tiny_unet(in_channels=4, out_channels=4, cross_attention_dim=24)
    base.save_pretrained(tmp_path / "base" / "unet")
    DDPMScheduler(prediction_type="epsilon").save_pretrained(tmp_path / "base" / "scheduler")
    more = ("--pretrained_model_name_or_path", str(tmp_path / "base"), "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "out", "--max_train_steps", "2", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    assert pipe.scheduler.config.prediction_type == "epsilon" and pipe.unet.config.in_channels == 7
    assert pipe.scheduler.config.timestep_spacing == "trailing" and pipe.config.default_steps == 20
    assert pipe.config.noise_offset == 0
    assert torch.equal(pipe.unet.conv_in.weight[:, :4], base.conv_in.weight)
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)


def test_goes_on_from_a_trained_model(autoencoder, tmp_path, monkeypatch):
    own = ("--attribute_tokens", "4", "--clipping_limit", "0.01", "--noise_offset", "3")
    train(monkeypatch, autoencoder, tmp_path / "first", "--max_train_steps", "2", *own)
    still = ("--max_train_steps", "2", "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "second", *still, "--init", str(tmp_path / "first"))
    first, second = (DiffRetouchPipeline.from_pretrained(tmp_path / name) for name in ("first", "second"))
    for module in ("unet", "grid_head"):
        assert_same(getattr(first, module).state_dict(), getattr(second, module).state_dict())
    assert second.unet.config.cross_attention_dim == 8 and second.config.clipping_limit == 0.01
    assert dict(second.scheduler.config) == dict(first.scheduler.config)
    assert first.config.noise_offset == second.config.noise_offset == 3
    said = json.loads((tmp_path / "second" / "checkpoint-2" / "step.json").read_text())["settings"]
    assert said["noise_offset"] == 3
    again = arguments(autoencoder, tmp_path / "third", "--init", str(tmp_path / "second"), "--noise_offset", "3")
    model, _, _ = retouch_model.build_models(train_diffretouch.parse_args(again))
    assert model.settings["noise_offset"] == 3
    for more, message in (
        (("--init", str(tmp_path / "second"), "--no_grid"), "has a grid head"),
        (("--init", str(tmp_path / "second"), "--noise_offset", "2"), "`--noise_offset` must be 3, .* got 2"),
        (("--init", "small"), "takes 32 px"),
        (("--init", "small", "--pretrained_model_name_or_path", "base"), "2"),
    ):
        with pytest.raises(SystemExit, match=message):
            train(monkeypatch, autoencoder, tmp_path / "third", *more)
    assert not (tmp_path / "third").exists()


def test_goes_on_without_an_autoencoder(tmp_path, monkeypatch):
    """The bundled model on pairs, as `learn` says it: its noisiest timestep sees nothing of latents."""
    from .test_paired import make

    make(tmp_path / "pairs" / "input", ["a0001", "a0002"])
    make(tmp_path / "pairs" / "target", ["a0001", "a0002"], lambda x: x**0.5)
    command = ["--init", "small", "--dataset", "pairs", "--train_data_dir", str(tmp_path / "pairs")]
    few = ["--train_batch_size", "2", "--max_train_steps", "2", "--dataloader_num_workers", "0", "--ema_decay", "0"]
    train_alone = partial(train, monkeypatch)
    train_alone(None, tmp_path / "mine", *command, *few)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "mine")
    assert pipe.config.default_steps == 1 and pipe.config.sampling_steps is None
    assert set(log(tmp_path / "mine")[0]) >= ALL - {"latent"} and "latent" not in log(tmp_path / "mine")[0]
    for more, message in (
        (("--latent_weight", "0.5"), "2"),
        (("--first_timestep_fraction", "0.5"), "2"),
        (("--cache_latents", "--whole_photos"), "2"),
        (("--resolution", "64"), "gives latents of 16 px"),
        (("--no_grid",), "has a grid head"),
    ):
        with pytest.raises(SystemExit, match=message):
            train_alone(None, tmp_path / "other", *command, *few, *more)
    start = DiffRetouchPipeline.from_pretrained("small")
    scheduler = DDIMScheduler.from_config(start.scheduler.config, rescale_betas_zero_snr=False)
    start.register_modules(scheduler=scheduler)
    start.save_pretrained(tmp_path / "leaves_some")
    with pytest.raises(SystemExit, match="`--vae` is needed"):
        train_alone(None, tmp_path / "other", *command, *few, "--init", str(tmp_path / "leaves_some"))


def test_goes_on_from_the_authors_checkpoint(autoencoder, tmp_path, monkeypatch):
    """What a converted checkpoint knows stays as it is: order and sign of c, thumbnail, timesteps, eps-prediction."""
    config = dict(block_out_channels=(8, 16), attention_head_dim=(1, 2), norm_num_groups=4, layers_per_block=1)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    blocks["up_block_types"] = ("UpBlock2D", "CrossAttnUpBlock2D")
    unet, head = tiny_unet(**config, **blocks), AffineGridHead(pixel_range=(-1.0, 1.0))
    keys = [(unet, unet_keymap(unet)), (head, head_keymap(head))]
    released = {there: net.state_dict()[own] for net, keymap in keys for own, there in keymap.items()}
    for name, leading in (("thresholds", (1, 1)), ("slopes", (1, 1, 1))):
        name = f"hdrdecoder.guide.{name}"
        released[name] = released[name].reshape(*leading, *released[name].shape)
    torch.save(released, tmp_path / "released.pth")
    made = {**config, **blocks, "sample_size": 8}
    convert_diffretouch(tmp_path / "released.pth", tmp_path / "start", unet_config=made, flip_temperature=True)
    own = ("--init", str(tmp_path / "start"), "--unknown_share", "0", "--max_train_steps", "2", "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "out", *own)
    start, after = (DiffRetouchPipeline.from_pretrained(tmp_path / name) for name in ("start", "out"))
    for key in ("attribute_order", "attribute_signs", "thumbnail", "timestep_range", "default_steps"):
        assert after.config[key] == start.config[key], key
    assert list(after.config.attribute_order)[1] == "brightness" and after.config.attribute_signs[3] == -1
    assert after.scheduler.config.prediction_type == "epsilon" and type(after.scheduler) is type(start.scheduler)
    for module in ("unet", "grid_head"):
        assert_same(getattr(start, module).state_dict(), getattr(after, module).state_dict())
    # with c in the public order, training sees what the pipeline does
    model = retouch_model.RetouchModel(start.unet, start.grid_head, **{k: start.config[k] for k in SETTINGS})
    photo, latents, c = torch.rand(1, 3, 32, 32), torch.randn(1, 4, 8, 8), torch.tensor([[0.4, -0.3, 0.8, 0.6]])
    start.register_to_config(default_steps=1)
    start.set_progress_bar_config(disable=True)
    with torch.no_grad():
        grid = model(latents, photo, photo, torch.tensor([999]), c)[2]
    torch.testing.assert_close(grid, start.predict_grid(photo, c, latents=latents))
    assert (grid - model(latents, photo, photo, torch.tensor([999]), c[:, [0, 3, 1, 2]])[2]).abs().max() > 1e-6


SETTINGS = ("attribute_order", "attribute_signs", "thumbnail")


def test_from_a_stable_diffusion_of_another_size(tmp_path, monkeypatch):
    """2.1 for 768 px, at another size: no weight depends on it, and it goes on predicting velocity."""
    recipes_toy().stable_diffusion(tmp_path / "sd", prediction_type="v_prediction", sample_size=96)
    more = ("--pretrained_model_name_or_path", str(tmp_path / "sd"), "--max_train_steps", "1")
    train(monkeypatch, tmp_path / "sd" / "vae", tmp_path / "out", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    assert pipe.scheduler.config.prediction_type == "v_prediction" and pipe.unet.config.sample_size == 4


def test_trained_weights_are_moved_gently():
    def rate(*more):
        args = ["--train_data_dir", "d", "--output_dir", "o", "--vae", "v", *more]
        return train_diffretouch.parse_args(args).learning_rate

    stable_diffusion = ("--pretrained_model_name_or_path", "sd")
    assert rate() == 1e-3 and rate(*stable_diffusion) == 1e-5 and rate(*stable_diffusion, "--lora_rank", "8") == 1e-4
    assert rate(*stable_diffusion, "--learning_rate", "0") == 0
