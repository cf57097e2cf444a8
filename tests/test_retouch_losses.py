"""What the losses of a retouch are made of."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler

from diffretouch import AffineGridHead, CSRNet, DiffRetouchPipeline, measure_attributes
from diffretouch.attributes import attribute_labels
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.models.unet import with_offset
from diffretouch.training import retouch_losses, retouch_model, train_diffretouch

from .tiny import tiny_unet
from .toy_training import PHOTOS, arguments


def test_the_unet_sees_tones_a_little_off():
    photo = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(retouch_losses.seen(photo, range(40), 0, 0.0), photo)
    view = retouch_losses.seen(photo, range(40), 0, 0.1)
    assert torch.equal(view[7:], retouch_losses.seen(photo[7:], range(7, 40), 0, 0.1))  # by (seed, k) alone
    assert not torch.equal(view, retouch_losses.seen(photo, range(40), 1, 0.1))
    off = (view - photo).mean((2, 3))
    assert 0 <= view.min() and view.max() <= 1 and abs(off.mean()) < 0.02 and 0.02 < off.std() < 0.08


def test_automatic_labels_start_from_what_the_model_makes(autoencoder, tmp_path, monkeypatch):
    photos = UnpairedPhotos(PHOTOS, 40)
    batch = torch.utils.data.default_collate([photos[k] for k in range(10)])
    args = train_diffretouch.parse_args(arguments(autoencoder, tmp_path, "--labels", "automatic"))
    model = retouch_model.RetouchModel(tiny_unet(cross_attention_dim=8), AffineGridHead(residual=True))
    torch.nn.init.zeros_(model.grid_head.prediction2.weight)  # such a head leaves the photo as it is
    scheduler = DDPMScheduler()
    c = retouch_losses.automatic_labels(
        model,
        None,
        scheduler,
        batch["input"].flip(0),  # what the UNet sees is not what is retouched
        batch["input"],
        batch["target"],
        batch["c"],
        batch["k"].tolist(),
        torch.randn(10, 4, 8, 8),
        args,
    )
    scores = measure_attributes(batch["target"])[:, None], measure_attributes(batch["input"])
    wanted = attribute_labels(*scores, limit=2.5)[:, 0]
    finished = (batch["c"] == 0).all(1)
    assert finished.any() and not finished.all()
    torch.testing.assert_close(c[~finished], wanted[~finished])
    plain = (c == 0).all(1)
    assert plain.any() and not (plain & ~finished).any()
    torch.testing.assert_close(c[~plain], wanted[~plain])


def test_the_unet_sees_noise_of_the_models_own_mean(autoencoder, tmp_path):
    photos = UnpairedPhotos(PHOTOS, 32)
    batch = torch.utils.data.default_collate([photos[k] for k in range(4)])
    args = train_diffretouch.parse_args(arguments(autoencoder, tmp_path, "--first_timestep_fraction", "1"))
    scheduler, noisy = DDIMScheduler(**retouch_model.SCHEDULER), {}
    vae = AutoencoderKL.from_pretrained(autoencoder)
    keep = lambda module, inputs: noisy.update({module.settings["noise_offset"]: inputs[0]})  # noqa: E731
    for offset in (0.0, 12.0):
        unet = tiny_unet(cross_attention_dim=8)
        model = retouch_model.RetouchModel(unet, AffineGridHead(residual=True), noise_offset=offset)
        model.register_forward_pre_hook(keep)
        losses = retouch_losses.training_losses(model, vae, scheduler, batch, args)
        assert all(loss.isfinite() for loss in losses.values())
    white = noisy[0.0]  # at the noisiest timestep there is nothing else
    assert 0.05 < white.mean((2, 3)).std() < 0.3
    torch.testing.assert_close(noisy[12.0], with_offset(white, 12))


def test_without_a_grid_latents_are_decoded_as_the_pipeline_does(autoencoder, tmp_path):
    unet, vae = tiny_unet(cross_attention_dim=8), AutoencoderKL.from_pretrained(autoencoder)
    scheduler = DDIMScheduler(**retouch_model.SCHEDULER)
    model = retouch_model.RetouchModel(unet, noise_offset=12.0, default_steps=1)
    args = train_diffretouch.parse_args(arguments(autoencoder, tmp_path, "--no_grid"))
    pipe = retouch_model.build_pipeline(model, vae, scheduler, args, None)
    assert isinstance(pipe, DiffRetouchPipeline) and pipe.config.noise_offset == 12
    pipe.set_progress_bar_config(disable=True)
    photo, white, c = torch.rand(1, 3, 32, 32), torch.randn(1, 4, 8, 8), torch.tensor([[0.4, -0.3, 0.8, 0.6]])
    with torch.no_grad():
        noise, last = with_offset(white, 12), torch.tensor([999])
        trained = retouch_losses.retouch(model, vae, scheduler, noise, photo, photo, last, c, args)[1]
    torch.testing.assert_close(pipe.predict_grid(photo, c, latents=white), trained, atol=1e-5, rtol=1e-5)


def test_a_teacher_moves_targets_of_c_0():
    torch.manual_seed(0)
    teacher = CSRNet(condition_size=20)
    photo, target = torch.rand(4, 3, 40, 40), torch.rand(4, 3, 40, 40)
    target[1] = photo[1]  # needs nothing
    c = torch.zeros(4, 4)
    c[2, 3] = 0.5
    moved = retouch_losses.taught(target, photo, c, teacher, 0.25)
    torch.testing.assert_close(moved[1:3], target[1:3], rtol=0, atol=0)
    thumbnail = torch.nn.functional.interpolate(photo, (20, 20), mode="bilinear", antialias=True)
    wanted = 0.75 * target + 0.25 * teacher(photo, thumbnail).clamp(0, 1)
    torch.testing.assert_close(moved[::3], wanted[::3].detach())
    assert not moved.requires_grad and retouch_losses.taught(target, photo, c + 1, teacher, 1.0) is target
