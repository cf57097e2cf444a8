"""The training script: what it trains, writes, tells and refuses."""

import json
import math
import shutil

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from diffretouch import CSRNet, CSRNetPipeline, DiffRetouchPipeline, measure_attributes
from diffretouch.attributes import quantile_labels
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.metrics import psnr
from diffretouch.training import pairs, retouch_model
from diffretouch.training.checkpoints import checkpoints

from .toy_training import ALL, PHOTOS, assert_same, fresh, log, state, train


def test_trains_and_saves_a_pipeline(autoencoder, tmp_path, monkeypatch):
    train(monkeypatch, autoencoder, tmp_path / "out")
    rows = log(tmp_path / "out")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert set(rows[0]) == {"step", "lr", "latent", "pixel", "attribute", "contrastive", "obedience"}
    assert [p.name for p in checkpoints(tmp_path / "out")] == [f"checkpoint-{n}" for n in (2, 4, 6)]
    # over one token, queries and keys mean nothing: not moved, and said
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_{}.weight".format
    first, last = (load_file(tmp_path / "out" / f"checkpoint-{n}" / "model.safetensors") for n in (2, 6))
    assert [torch.equal(first[name(x)], last[name(x)]) for x in "qkv"] == [True, True, False]
    settings = json.loads((tmp_path / "out" / "checkpoint-6" / "step.json").read_text())["settings"]
    assert f"{settings['frozen_parameters']:,} of them" in (tmp_path / "out" / "README.md").read_text()
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)
    # what is saved is the EMA, not the raw weights
    raw = load_file(tmp_path / "out" / "checkpoint-6" / "model.safetensors")["unet.conv_in.weight"]
    assert not torch.equal(pipe.unet.conv_in.weight, raw)


def test_overfits_one_pair():
    """The pixel branch alone must be able to learn a retouch: above 40 dB on one pair."""
    model = retouch_model.RetouchModel(*fresh())
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    photo = UnpairedPhotos(PHOTOS, 32)[0]["input"][None]
    target = (0.1 + 0.85 * photo**1.5 * torch.tensor([1.0, 0.9, 0.8])[:, None, None]).clamp(0, 1)
    latents, t, c = torch.randn(1, 4, 8, 8), torch.tensor([999]), torch.zeros(1, 4)
    for _ in range(150):
        retouched = model(latents, photo, photo, t, c)[1]
        loss = (retouched - target).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert psnr(photo, target) < 25
    assert psnr(retouched, target) > 40


@pytest.mark.parametrize(
    "more, terms",
    [
        (("--contrastive_anchor", "output", "--labels", "automatic"), ALL),
        (("--contrastive_weight", "0", "--obedience_weight", "0"), ALL - {"contrastive", "obedience"}),
        (("--branch_fraction", "1", "--pixel_stride", "3", "--snr_gamma", "5"), ALL),
        (("--grid_smoothness_weight", "1", "--clipping_weight", "5"), ALL | {"smoothness", "clipping"}),
        (("--attribute_tokens", "4", "--mixed_precision", "bf16", "--view_spread", "0.1"), ALL),
        (("--simulated_experts", "3", "--train_batch_size", "1", "--gradient_checkpointing"), ALL),
        (("--learning_rate", "0", "--train_batch_size", "12"), ALL),  # more than there are photos
    ],
)
def test_options(autoencoder, tmp_path, monkeypatch, more, terms):
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2", *more)
    row = log(tmp_path)[-1]
    assert set(row) == {"step", "lr"} | terms and all(math.isfinite(value) for value in row.values())
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path)
    assert pipe.unet.config.cross_attention_dim == (8 if "--attribute_tokens" in more else 5)


def test_lpips(autoencoder, tmp_path, monkeypatch):
    from .test_perceptual import write_weights

    write_weights(tmp_path / "alex.safetensors")
    more = ("--max_train_steps", "1", "--lpips_weight", "0.5", "--lpips_weights", str(tmp_path / "alex.safetensors"))
    train(monkeypatch, autoencoder, tmp_path / "out", *more)
    assert log(tmp_path / "out")[0]["lpips"] > 0
    with pytest.raises(SystemExit, match="2"):
        train(monkeypatch, autoencoder, tmp_path / "other", "--lpips_weight", "0.5")


def test_without_a_grid(autoencoder, tmp_path, monkeypatch):
    """The ablation of the paper: the latent is decoded, in training and after."""
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2", "--no_grid")
    assert set(log(tmp_path)[-1]) == {"step", "lr"} | ALL
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.grid_head is None
    photo = UnpairedPhotos(PHOTOS, 40)[0]["input"]
    latents = torch.randn(1, 4, 8, 8)
    result = pipe(photo, latents=latents, output_type="pt").images
    assert result.shape == (1, 3, 40, 40)
    small = pipe.predict_grid(photo, latents=latents)  # what stands for the grid is the decoded picture
    assert small.shape == (1, 3, 32, 32)
    wanted = torch.nn.functional.interpolate(small, (40, 40), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(result, wanted)
    half = pipe(photo, latents=latents, strength=0.5, output_type="pt").images
    raw = torch.nn.functional.interpolate(small, (40, 40), mode="bicubic", antialias=True)
    torch.testing.assert_close(half, torch.lerp(photo[None], raw, 0.5).clamp(0, 1))
    pixels = (photo.permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    assert pipe(pixels, latents=latents).images[0].size == (40, 40)
    assert pipe.attributes_of(photo, photo, iterations=1).shape == (4,)
    torch.testing.assert_close(pipe.apply_grid(photo, small), raw[0])
    with pytest.raises(ValueError, match=r"`grid` must have shape \(1,3,h,w\), got \(1, 12, 8, 16, 16\)"):
        pipe.apply_grid(photo, torch.zeros(1, 12, 8, 16, 16))
    with pytest.raises(ValueError, match="without one"):
        pipe.sliders(photo)


def test_quantile_labels_stay_with_the_model(autoencoder, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "STATISTICS_SAMPLES", 24)
    more = ("--labels", "quantile", "--max_train_steps", "2")
    train(monkeypatch, autoencoder, tmp_path, *more)
    kept = json.loads((tmp_path / "label_statistics.json").read_text())
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.config.label_statistics["quantiles"] == kept["quantiles"]
    photo = UnpairedPhotos(PHOTOS, 40)[0]["target"]
    c = pipe.attributes_of(photo, photo.flip(1), iterations=1)  # upside down it is another picture of the same scores
    wanted = quantile_labels(measure_attributes(photo[None]), kept)[0]
    torch.testing.assert_close(c, wanted)
    # it goes on with these, and not without them
    resumed = (*more[:2], "--max_train_steps", "3", "--resume_from_checkpoint", "latest")
    (tmp_path / "label_statistics.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(SystemExit, match="missing"):
        train(monkeypatch, autoencoder, tmp_path, *resumed)
    (tmp_path / "elsewhere.json").write_text("{}")
    with pytest.raises(SystemExit, match="--label_statistics"):
        train(monkeypatch, autoencoder, tmp_path, *resumed, "--label_statistics", str(tmp_path / "elsewhere.json"))
    (tmp_path / "label_statistics.json").write_text(json.dumps(kept))
    train(monkeypatch, autoencoder, tmp_path, *resumed)
    assert log(tmp_path)[-1]["step"] == 3


def test_teacher_and_clipping_limit(autoencoder, tmp_path, monkeypatch):
    torch.manual_seed(0)
    CSRNetPipeline(CSRNet(condition_size=32)).save_pretrained(tmp_path / "teacher")
    more = ("--max_train_steps", "2", "--labels", "automatic", "--clipping_limit", "0.01")
    train(monkeypatch, autoencoder, tmp_path / "alone", *more)
    train(monkeypatch, autoencoder, tmp_path / "taught", *more, "--teacher", str(tmp_path / "teacher"))
    alone, taught = (log(tmp_path / name) for name in ("alone", "taught"))
    assert alone[1]["pixel"] != taught[1]["pixel"] and math.isfinite(taught[1]["pixel"])
    assert DiffRetouchPipeline.from_pretrained(tmp_path / "taught").config.clipping_limit == 0.01
    CSRNetPipeline(CSRNet(input_space="prophoto")).save_pretrained(tmp_path / "wide")
    with pytest.raises(SystemExit, match="`--teacher` must read sRGB"):
        train(monkeypatch, autoencoder, tmp_path / "other", *more, "--teacher", str(tmp_path / "wide"))


def test_automatic_labels_need_targets_that_are_the_usual_finish(autoencoder, tmp_path, monkeypatch):
    train(monkeypatch, autoencoder, tmp_path / "a", "--labels", "automatic", "--max_train_steps", "2")
    assert len(log(tmp_path / "a")) == 2
    with pytest.raises(SystemExit, match="one expert's"):
        train(monkeypatch, autoencoder, tmp_path / "b", "--labels", "automatic", "--simulated_experts", "3")


def test_pairs_of_experts(autoencoder, tmp_path, monkeypatch):
    from .test_paired import make

    make(tmp_path / "set" / "input", ["a0001", "a0002"])
    for letter, power in (("A", 0.7), ("B", 1.3)):
        make(tmp_path / "set" / f"Expert{letter}", ["a0001", "a0002"], lambda x, power=power: x**power)
    more = ("--train_data_dir", str(tmp_path / "set"), "--dataset", "fivek", "--expert", "A", "B")
    train(monkeypatch, autoencoder, tmp_path / "out", *more, "--max_train_steps", "2", "--rendering", "by hand")
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"expertA"' in card and '"rendering": "by hand"' in card and "| `expert` | [" in card
    assert "2 of 2 steps of 3 pairs" in card and "| latent |" in card


def test_cached_latents(autoencoder, tmp_path, monkeypatch):
    """Targets that stay are encoded once, to the same losses; where they do not stay, that is said."""
    from .test_paired import make

    make(tmp_path / "set" / "input", ["a", "b"])
    for name, power in (("one", 0.7), ("two", 1.3)):
        make(tmp_path / "set" / name, ["a", "b"], lambda x, power=power: x**power)
    folder, experts = ("--train_data_dir", str(tmp_path / "set"), "--dataset", "pairs"), ("--expert", "one", "two")
    data = (*folder, *experts, "--whole_photos", "--max_train_steps", "2")
    train(monkeypatch, autoencoder, tmp_path / "plain", *data)
    train(monkeypatch, autoencoder, tmp_path / "cached", *data, "--cache_latents")
    for a, b in zip(log(tmp_path / "plain"), log(tmp_path / "cached"), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    kept = load_file(tmp_path / "cached" / "latents.safetensors")["latents"]
    assert kept.shape == (4, 4, 8, 8)
    going_on = (*data, "--max_train_steps", "3", "--resume_from_checkpoint", "latest", "--cache_latents")
    train(monkeypatch, autoencoder, tmp_path / "cached", *going_on)
    with pytest.raises(SystemExit, match="another data set"):
        train(monkeypatch, autoencoder, tmp_path / "cached", *going_on, "--expert", "two", "one")
    for n, more in enumerate(((*folder, *experts), (*folder, "--expert", "one", "--whole_photos"))):
        with pytest.raises(SystemExit, match="--cache_latents"):
            train(monkeypatch, autoencoder, tmp_path / str(n), *more, "--cache_latents")


def test_validation_and_tensorboard(autoencoder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(sorted(PHOTOS.glob("*.jpg"))[0], photos / "one.jpg")
    more = ("--validation_dir", str(photos), "--validation_steps", "2", "--report_to", "tensorboard")
    train(monkeypatch, autoencoder, tmp_path / "out", "--max_train_steps", "2", *more)
    names = {p.name for p in (tmp_path / "out" / "validation").iterdir()}
    assert names == {"step-2-sheet-one.png", "step-2-controllability.png", "step-2.json"}
    (events,) = (tmp_path / "out" / "logs").rglob("events.*.0")
    seen = EventAccumulator(str(events), {"images": 0, "scalars": 0}).Reload()
    assert {"latent", "lr", "slope/brightness", "data_wait"} <= set(seen.Tags()["scalars"])
    assert {"sheet/one", "controllability"} <= set(seen.Tags()["images"])
    assert "slope/contrast" in (tmp_path / "out" / "README.md").read_text()
    # showing a model does not change it
    train(monkeypatch, autoencoder, tmp_path / "unseen", "--max_train_steps", "2")
    assert_same(state(tmp_path / "out" / "checkpoint-2"), state(tmp_path / "unseen" / "checkpoint-2"))


def test_corrupt_file_in_an_epoch(autoencoder, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted(PHOTOS.glob("*.jpg"))[:3]:
        shutil.copy(path, photos)
    (photos / "corrupt.jpg").write_bytes(b"\xff\xd8\xff")
    more = ("--train_data_dir", str(photos), "--max_train_steps", "4")
    with pytest.raises(SystemExit, match="the data set failed: bad file: .*corrupt.jpg"):
        train(monkeypatch, autoencoder, tmp_path / "stops", *more)
    train(monkeypatch, autoencoder, tmp_path / "skips", *more, "--on_bad_file", "skip")
    assert log(tmp_path / "skips")[-1]["bad_files"] == 1
    timing = json.loads((tmp_path / "skips" / "timing.json").read_text())
    assert any("corrupt.jpg" in name for name in timing["bad_files"]) and timing["steps"] == 4


def test_not_a_number_stops_and_names_the_files(autoencoder, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"step \d+: the loss is nan .*\.jpg"):
        train(monkeypatch, autoencoder, tmp_path, "--learning_rate", "1e30", "--lr_warmup_steps", "0")


@pytest.mark.parametrize(
    "more, message",
    [
        (("--resolution", "0"), "2"),
        (("--branch_fraction", "0"), "2"),
        (("--train_batch_size", "0"), "2"),
        (("--mask_weight", "5"), "2"),
        (("--label_statistics", "kept.json"), "--label_statistics"),
        (("--report_to", "wandb"), "--report_to wandb"),
        (("--train_data_dir", "/nowhere"), "`folder`"),
        (("--dataset", "pairs"), "`inputs` must be a folder"),
        (("--expert", "C"), "--expert"),
        (("--dataset", "fivek", "--use_masks"), "--use_masks"),
        (("--dataset", "fivek", "--simulated_experts", "3"), "--simulated_experts"),
        (("--push_to_hub",), "--push_to_hub"),
        (("--use_8bit_adam",), "bitsandbytes"),
        (("--lpips_weight", "1", "--lpips_weights", "/nowhere"), "`weights`"),
        (("--teacher_weight", "0"), "2"),
        (("--teacher", "/nowhere"), "/nowhere"),
        (("--teacher", "csrnet", "--cache_latents"), "2"),
        (("--clipping_limit", "1"), "2"),
        (("--noise_offset", "-1"), "2"),
        (("--noise_offset", "1001"), "2"),
        (("--timestep_range", "999", "200"), "2"),
        (("--default_steps", "0"), "2"),
    ],
)
def test_refuses(autoencoder, tmp_path, monkeypatch, more, message, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((SystemExit, ValueError), match=message):
        train(monkeypatch, autoencoder, tmp_path, *more)
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_refuses_a_folder_that_is_not_empty(autoencoder, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        train(monkeypatch, autoencoder, tmp_path)
    with pytest.raises(SystemExit, match="must be a folder"):
        train(monkeypatch, autoencoder, tmp_path / "notes.txt")


def test_the_pipeline_refuses():
    unet, head = fresh()
    with pytest.raises(ValueError, match="`grid_head`"):
        DiffRetouchPipeline(unet, None, DDPMScheduler())
    with pytest.raises(ValueError, match="`statistics`"):
        DiffRetouchPipeline(unet, head, DDPMScheduler(), label_statistics={"quantiles": {}})


def test_verify_only_looks(autoencoder, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(monkeypatch, autoencoder, tmp_path / "out", "--verify")
    assert stopped.value.code == 0 and not (tmp_path / "out").exists()
    assert '"photos": 9' in capsys.readouterr().out
