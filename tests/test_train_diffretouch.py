"""The training script as users start it: real processes, real checkpoints, a real kill."""

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from diffretouch import AffineGridHead, CSRNet, CSRNetPipeline, DiffRetouchPipeline, measure_attributes
from diffretouch.attributes import attribute_labels, quantile_labels
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.metrics import psnr
from diffretouch.training import launch as launching
from diffretouch.training import pairs, retouch_losses, retouch_model, steps, train_diffretouch
from diffretouch.training.checkpoints import checkpoints
from diffretouch.training.convert import convert_diffretouch
from diffretouch.training.model_card import Repository
from diffretouch.training.released_names import head_keymap, unet_keymap
from diffretouch.training.train_autoencoder import SMALL_AUTOENCODER

from .ranks import run_ranks
from .tiny import TINY_UNET, recipes_toy, tiny_unet

PHOTOS = Path(__file__).parent / "photos"
TINY_UNET = {**TINY_UNET, "in_channels": 16, "cross_attention_dim": 8}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(**{**SMALL_AUTOENCODER, "block_out_channels": (8, 8, 8)}).save_pretrained(folder)
    return folder


def arguments(autoencoder, output_dir, *more):
    return [
        *("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir)),
        *(("--vae", str(autoencoder), "--resolution", "32") if autoencoder else ()),
        *("--train_batch_size", "3", "--lr_warmup_steps", "2", "--max_train_steps", "6"),
        *("--checkpointing_steps", "2", "--checkpoints_total_limit", "3", "--dataloader_num_workers", "0"),
        *more,
    ]


def train(monkeypatch, *args):
    monkeypatch.setattr(retouch_model, "SMALL_UNET", TINY_UNET)
    AcceleratorState._reset_state(reset_partial_state=True)  # or the precision of the training before stays
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        train_diffretouch.main(arguments(*args))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def state(checkpoint):
    """Weights and EMA of a checkpoint as tensors, and the file of the Adam moments as its bytes."""
    weights, ema = (load_file(checkpoint / name) for name in ("model.safetensors", "ema.safetensors"))
    moments = torch.frombuffer(bytearray((checkpoint / "optimizer.bin").read_bytes()), dtype=torch.uint8)
    return {**weights, **{f"ema.{name}": value for name, value in ema.items()}, "moments": moments}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


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


def test_from_stable_diffusion(autoencoder, tmp_path, monkeypatch):
    base = tiny_unet(in_channels=4, out_channels=4, cross_attention_dim=24)
    base.save_pretrained(tmp_path / "base" / "unet")
    DDPMScheduler(prediction_type="epsilon").save_pretrained(tmp_path / "base" / "scheduler")
    more = ("--pretrained_model_name_or_path", str(tmp_path / "base"), "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "out", "--max_train_steps", "2", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    assert pipe.scheduler.config.prediction_type == "epsilon" and pipe.unet.config.in_channels == 7
    assert pipe.scheduler.config.timestep_spacing == "trailing" and pipe.config.default_steps == 20
    assert torch.equal(pipe.unet.conv_in.weight[:, :4], base.conv_in.weight)
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)


def test_goes_on_from_a_trained_model(autoencoder, tmp_path, monkeypatch):
    own = ("--attribute_tokens", "4", "--clipping_limit", "0.01")
    train(monkeypatch, autoencoder, tmp_path / "first", "--max_train_steps", "2", *own)
    still = ("--max_train_steps", "2", "--learning_rate", "0")
    train(monkeypatch, autoencoder, tmp_path / "second", *still, "--init", str(tmp_path / "first"))
    first, second = (DiffRetouchPipeline.from_pretrained(tmp_path / name) for name in ("first", "second"))
    for module in ("unet", "grid_head"):
        assert_same(getattr(first, module).state_dict(), getattr(second, module).state_dict())
    assert second.unet.config.cross_attention_dim == 8 and second.config.clipping_limit == 0.01
    assert dict(second.scheduler.config) == dict(first.scheduler.config)
    for more, message in (
        (("--init", str(tmp_path / "second"), "--no_grid"), "has a grid head"),
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


@pytest.mark.parametrize("broken, accumulation", [(False, "1"), (False, "2"), (True, "2")])
def test_resume_is_bit_exact(autoencoder, tmp_path, monkeypatch, accumulation, broken):
    more = ("--gradient_accumulation_steps", accumulation)
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more)
    # back to step 4: 9 photos in batches of 3, so this is inside an epoch; or, with step 4 damaged, to step 2
    last = tmp_path / "resumed" / "checkpoint-6"
    for path in sorted(last.rglob("*")):
        path.unlink()
    last.rmdir()
    if broken:
        damaged = tmp_path / "resumed" / "checkpoint-4" / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:100])
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))
    assert log(tmp_path / "straight") == log(tmp_path / "resumed")  # no line twice


def test_resume_at_the_end_of_an_epoch(autoencoder, tmp_path, monkeypatch):
    more = ("--checkpointing_steps", "3")  # 9 photos in batches of 3
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))


PROGRAM = """
import json, os, sys
from accelerate import PartialState
from diffretouch.training import retouch_model, train_diffretouch as t
retouch_model.SMALL_UNET = json.loads(sys.argv[1])
t.main(sys.argv[2:])
os.write(1, f"processes: {PartialState().num_processes}\\n".encode())  # whole, whatever another process writes
"""


# As on a loaded machine: the last call is done, and its thread still owns the tensors when the group ends
CALLS_LEFT = """
import accelerate, torch
end = accelerate.Accelerator.end_training
def with_calls_left(accelerator):
    for _ in range(2):
        torch.distributed.all_reduce(torch.zeros(20_000_000), async_op=True)
    end(accelerator)
accelerate.Accelerator.end_training = with_calls_left
"""


STARTED = []


@pytest.fixture(autouse=True)
def nothing_stays():
    """A test that fails or is interrupted leaves no training behind, which would wait for another for ever."""
    yield
    while STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(STARTED.pop().pid, signal.SIGKILL)


def launch(program, *arguments, processes=1, before=""):
    """The script in processes of its own, with the tiny UNet and the threads of this one."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    program.write_text(before + PROGRAM)
    threads = str(torch.get_num_threads())
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    environment["ACCELERATE_USE_CPU"] = "true"
    process = subprocess.Popen(
        [*command, str(program), json.dumps(TINY_UNET), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def ranks(folder, *arguments, before="", machines=False):
    """The script once for each rank's arguments: (exit code, what it said) of each, see `run_ranks`."""
    own = [[json.dumps(TINY_UNET), *one] for one in arguments]
    return run_ranks(before + PROGRAM, folder, *own, threads=torch.get_num_threads(), machines=machines)


def wait_for(condition, seconds=600):
    """A bound for what hangs; how long a condition may take, no test says."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


KILLED = """
import os, signal, sys
def die(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]).endswith("checkpoint-4"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
"""


def test_killed_training_comes_back_bit_exact(autoencoder, tmp_path, monkeypatch):
    """Killed when the second checkpoint is written but has no name yet: whatever the load, at that place."""
    killed = launch(tmp_path / "program.py", *arguments(autoencoder, tmp_path / "killed"), before=KILLED)
    train(monkeypatch, autoencoder, tmp_path / "straight")
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path / "killed")] == ["checkpoint-2"]
    assert (tmp_path / "killed" / "checkpoint-4.tmp" / "step.json").exists()
    train(monkeypatch, autoencoder, tmp_path / "killed", "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "killed" / "checkpoint-6"))
    assert [row["step"] for row in log(tmp_path / "killed")] == [1, 2, 3, 4, 5, 6]


def test_sigterm_stops_with_a_checkpoint(autoencoder, tmp_path):
    endless = ("--max_train_steps", "100000", "--checkpointing_steps", "100000", "--dataloader_num_workers", "2")
    process = launch(tmp_path / "program.py", *arguments(autoencoder, tmp_path / "out", *endless))
    lines = tmp_path / "out" / "log.jsonl"
    wait_for(lambda: lines.exists() and len(log(tmp_path / "out")) > 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a scheduler does: the data workers get it too
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()[-2000:]
    (checkpoint,) = checkpoints(tmp_path / "out")
    assert json.loads((checkpoint / "step.json").read_text())["step"] == len(log(tmp_path / "out"))
    DiffRetouchPipeline.from_pretrained(tmp_path / "out")


def test_two_processes_make_the_weights_of_one(autoencoder, tmp_path, monkeypatch):
    """The same batches of 4 in one process and in two, with accumulation, and only some samples branched.

    And two end, though threads of their group are not done: they stood for ever, each waiting for the other.
    """
    labels = ("--labels", "automatic")
    more = (*labels, "--max_train_steps", "3", "--checkpointing_steps", "3", "--gradient_accumulation_steps", "2")
    half = arguments(autoencoder, tmp_path / "two", *more, "--train_batch_size", "2")
    two = launch(tmp_path / "program.py", *half, processes=2, before=CALLS_LEFT)
    train(monkeypatch, autoencoder, tmp_path / "one", *more, "--train_batch_size", "4")
    output, errors = two.communicate(timeout=600)
    assert two.returncode == 0, errors.decode()[-3000:]
    assert output.decode().count("processes: 2") == 2
    weights, other = (load_file(tmp_path / n / "checkpoint-3" / "model.safetensors") for n in ("one", "two"))
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, atol=1e-5, rtol=0, msg=name)
    start = retouch_model.RetouchModel(*fresh()).state_dict()
    assert any((weights[name] - value).abs().max() > 1e-4 for name, value in start.items())  # something was learned
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_two_processes_then_one_then_two(autoencoder, tmp_path, monkeypatch):
    """A training that moves to another number of processes, and back, with the same batch keeps its losses."""
    more = ("--labels", "automatic", "--lr_scheduler", "cosine", "--checkpoints_total_limit", "9")
    latest = ("--resume_from_checkpoint", "latest")

    def of_two(name, *flags):
        own = arguments(autoencoder, tmp_path / name, *more, "--train_batch_size", "2", *flags)
        ends = ranks(tmp_path, own, own)
        assert [code for code, _ in ends] == [0, 0], ends[0][1][-3000:]

    of_two("unbroken")
    shutil.copytree(tmp_path / "unbroken", tmp_path / "one")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "one" / f"checkpoint-{step}")
    train(monkeypatch, autoencoder, tmp_path / "one", *more, "--train_batch_size", "4", *latest)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoint-6")
    of_two("two", *latest)
    unbroken = log(tmp_path / "unbroken")
    for moved in (log(tmp_path / "one"), log(tmp_path / "two")):
        assert [row["step"] for row in moved] == [1, 2, 3, 4, 5, 6]
        for a, b in zip(unbroken, moved, strict=True):
            assert a == pytest.approx(b, abs=1e-4)


def fresh():
    torch.manual_seed(0)
    return UNet2DConditionModel(**TINY_UNET), AffineGridHead(splat_strides=(2, 1), residual=True)


def test_machines_without_a_common_disk(autoencoder, tmp_path, monkeypatch):
    """Each keeps its own checkpoints; the first chooses which to go on from, and a machine that lacks it is told."""
    batch = ("--train_batch_size", "2", "--max_train_steps", "4")
    resumed = (*batch, "--resume_from_checkpoint", "latest")
    folders = [tmp_path / "machine0" / "out", tmp_path / "machine1" / "out"]

    def run(*more):
        return ranks(tmp_path, *(arguments(autoencoder, folder, *more) for folder in folders), machines=True)

    ends = run(*batch)
    assert [code for code, _ in ends] == [0, 0], ends[0][1][-2000:]
    names = [[path.name for path in checkpoints(folder)] for folder in folders]
    assert names == [["checkpoint-2", "checkpoint-4"]] * 2
    first = state(folders[0] / "checkpoint-4")
    assert_same(first, state(folders[1] / "checkpoint-4"))

    shutil.rmtree(folders[1] / "checkpoint-4")  # lost on one machine: both go back to step 2
    ends = run(*resumed)
    assert [code for code, _ in ends] == [0, 0] and "trying the one before" in ends[0][1]
    assert_same(first, state(folders[0] / "checkpoint-4"))
    assert_same(first, state(folders[1] / "checkpoint-4"))


def test_only_what_is_complete_is_pushed(autoencoder, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(launching, "open_repository", lambda args: Repository("someone/mine", args.hub_token))
    monkeypatch.setattr(steps, "push", lambda *of: pushed.append(of))
    with monkeypatch.context() as stopped:
        stopped.setattr(steps, "stop_agreed", lambda *_: True)
        train(monkeypatch, autoencoder, tmp_path / "out")
    assert not pushed and [p.name for p in checkpoints(tmp_path / "out")] == ["checkpoint-1"]
    for _ in range(2):  # the second time nothing is left to do
        more = ("--resume_from_checkpoint", "latest", "--hub_token", "hf_secret")
        train(monkeypatch, autoencoder, tmp_path / "out", *more)
    assert [(repository.token, done) for repository, _, done in pushed] == [("hf_secret", 6)] * 2
    written = (path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not any(b"hf_secret" in content for content in written)


def test_nothing_to_resume_from(autoencoder, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no checkpoint"):
        train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", str(tmp_path / "checkpoint-7"))


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


ALL = {"latent", "pixel", "attribute", "contrastive", "obedience"}


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
    for call in (lambda: pipe.sliders(photo), lambda: pipe.apply_grid(photo, small)):
        with pytest.raises(ValueError, match="without one"):
            call()


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


def test_streamed_shards_resume(autoencoder, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    from .test_shards import encoded, write_shard

    for shard in range(2):
        write_shard(tmp_path / f"set-{shard}.tar", [(f"p{shard}{n}.jpg", encoded(shard + n)) for n in range(4)])
    more = ("--train_data_dir", str(tmp_path), "--dataset", "shards", "--max_train_steps", "4")
    train(monkeypatch, autoencoder, tmp_path / "straight", *more)
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more)
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-4"), state(tmp_path / "resumed" / "checkpoint-4"))


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


def test_a_full_disk_leaves_the_checkpoint_before(autoencoder, tmp_path, monkeypatch, caplog):
    """Files may not grow beyond 16 kB, as on a full disk: nothing is lost, and the failure is said."""
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2")
    before = state(tmp_path / "checkpoint-2"), load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(SystemExit, match="could not be written"):
            train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", "latest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not list(tmp_path.glob("*.tmp"))
    assert_same(before[0], state(tmp_path / "checkpoint-2"))
    assert_same(before[1], load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors"))
    assert "checkpoint-4 cannot be written" in caplog.text
    train(monkeypatch, autoencoder, tmp_path, "--resume_from_checkpoint", "latest")
    assert log(tmp_path)[-1]["step"] == 6


def test_resumed_with_other_arguments(autoencoder, tmp_path, monkeypatch, caplog):
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "2")
    path = tmp_path / "checkpoint-2" / "step.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "settings": {**kept["settings"], "processes": 4}}))
    more = ("--learning_rate", "0.01", "--pixel_weight", "2", "--resume_from_checkpoint", "latest")
    train(monkeypatch, autoencoder, tmp_path, "--max_train_steps", "3", *more)
    said = [record.message for record in caplog.records if "resumed with another" in record.message]
    changed = ["learning_rate", "max_train_steps", "pixel_weight", "processes"]
    assert sorted(sentence.split("`")[1] for sentence in said) == changed
    assert "2.0, the checkpoint has 8.0" in "".join(said)


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


def test_without_an_average(autoencoder, tmp_path, monkeypatch):
    more = ("--ema_decay", "0", "--max_train_steps", "4")
    train(monkeypatch, autoencoder, tmp_path / "out", *more)
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out")
    last = tmp_path / "out" / "checkpoint-4"
    assert torch.equal(pipe.unet.conv_in.weight, load_file(last / "model.safetensors")["unet.conv_in.weight"])
    assert not (last / "ema.safetensors").exists()
    shutil.copytree(tmp_path / "out", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    train(monkeypatch, autoencoder, tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert log(tmp_path / "out") == log(tmp_path / "resumed")
    with pytest.raises(SystemExit, match="no checkpoint"):  # there is no average to go on with
        train(monkeypatch, autoencoder, tmp_path / "out", "--resume_from_checkpoint", "latest")


def test_trained_weights_are_moved_gently():
    def rate(*more):
        args = ["--train_data_dir", "d", "--output_dir", "o", "--vae", "v", *more]
        return train_diffretouch.parse_args(args).learning_rate

    stable_diffusion = ("--pretrained_model_name_or_path", "sd")
    assert rate() == 1e-3 and rate(*stable_diffusion) == 1e-5 and rate(*stable_diffusion, "--lora_rank", "8") == 1e-4
    assert rate(*stable_diffusion, "--learning_rate", "0") == 0
