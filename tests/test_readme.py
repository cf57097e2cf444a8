"""The commands and code blocks of README.md and training/README.md, on toy photos and with a tiny model."""

import glob
import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from accelerate.commands.launch import launch_command_parser
from diffusers import DDIMScheduler
from PIL import Image
from torch.distributed.run import parse_args as torchrun_arguments

from diffretouch import CSRNet, CSRNetPipeline, cli
from diffretouch.training import retouch_model, train_autoencoder
from diffretouch.training.released_names import csrnet_keymap

from .tiny import TINY_UNET, run_here, tiny_pipeline

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((Path(__file__).parent / "photos").glob("gb82_*.jpg"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)

# Run by others; here at most the options are parsed
ELSEWHERE = {
    "python3 -m venv": "installs: .ci/run",
    "pip install": "installs: .ci/run",
    "curl": "asks a running page: tests/test_demo.py",
    "diffretouch demo": "does not end by itself, or asks npm: tests/browser",
    "python -m http.server": "does not end by itself: tests/browser/test_alone.py",
    "diffretouch convert adobe.ckpt": "a checkpoint of 10 GB: tests/test_convert.py",
    "diffretouch export": "half a minute of tracing: tests/test_onnx.py",
    "accelerate launch --": "several processes: tests/test_cli_batch.py, test_evaluation.py, test_processes.py",
    "training/recipes/": "tests/test_recipes.py",
    "torchrun": "several processes: tests/test_evaluation.py by its launcher, test_cli_batch.py, test_processes.py",
}


def blocks(page, *languages):
    return [text for language, text in FENCE.findall((ROOT / page).read_text()) if language in languages]


def commands(page):
    for block in blocks(page, "", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s)#.*$", "", line).strip()
            if line:
                yield line


COMMANDS = [*commands("README.md"), *commands("training/README.md")]


def elsewhere(command):
    return [start for start in ELSEWHERE if command.startswith(start)]


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A folder that holds what the README names."""
    small = [Image.open(path).convert("RGB").resize((96, 72)) for path in PHOTOS[:2]]
    for name in ("photo.jpg", "other.jpg", "photo.tif", "finished.jpg", "as_i_like_it.jpg", "examples/photo.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        small[0].save(tmp_path / name)
    small[1].convert("L").save(tmp_path / "sky.png")
    for folder in ("shoot", "before", "after"):
        (tmp_path / folder).mkdir()
        for n, photo in enumerate(small):
            photo.save(tmp_path / folder / f"{n}.png")
    scheduler = DDIMScheduler(
        clip_sample=False, timestep_spacing="trailing"
    )  # as trainings set it: one step is enough
    tiny_pipeline(scheduler=scheduler).save_pretrained(tmp_path / "runs" / "mine")
    CSRNetPipeline.from_pretrained("small").save_pretrained(tmp_path / "mine")
    network = CSRNet()
    keymap = csrnet_keymap(network)
    torch.save({keymap[name]: weight for name, weight in network.state_dict().items()}, tmp_path / "csrnet.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, command, *more):
    words = [name for word in shlex.split(command) for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    monkeypatch.setattr(sys, "argv", [*words, *more])
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, command


def test_commands_of_the_command_line(toys, monkeypatch):
    mine = [command for command in COMMANDS if command.startswith("diffretouch ") and not elsewhere(command)]
    mine = [command for command in mine if not command.startswith("diffretouch evaluate")]
    first = COMMANDS[0].rpartition(".venv/bin/")[2]
    assert first.startswith("diffretouch retouch") and len(mine) >= 15
    run(monkeypatch, "diffretouch learn before/ after/ -o me.json --model runs/mine")
    for command in [first, *mine]:
        verb, more = command.split()[1], []
        if verb not in ("measure", "convert") and not any(f" --{o}" in command for o in ("model", "apply")):
            more += ["--model", "runs/mine"]
        if verb in ("retouch", "sweep", "lut", "learn", "convert"):
            more.append("--overwrite")
        run(monkeypatch, command, *more)
    assert (toys / "retouched.jpg").is_file() and (toys / "look.cube").is_file() and (toys / "finished").is_dir()


def test_evaluations(toys, monkeypatch, capsys):
    """Each with a tiny model in the place of the default one; that of several processes by one."""
    for name in ("input", "target", "experts/a", "experts/b", "PHOTOS"):
        shutil.copytree("after", name)
    Path("PHOTOS", "1.png").unlink()  # one photo is asked hundreds of times
    for name in ("a", "b"):
        (toys / "runs" / name).symlink_to("mine")
    launched = [command.partition(" -m diffretouch.cli ")[2] for command in COMMANDS if ".cli evaluate" in command]
    own = [command for command in COMMANDS if command.startswith("diffretouch evaluate")]
    assert len(own) >= 7 and launched
    for command in [*own, *(f"diffretouch {command}" for command in launched)]:
        run(monkeypatch, command, *(() if " --model" in command else ("--model", "runs/mine")))
        said = capsys.readouterr().out
        assert "PSNR" in said or any(f" --{kind}" in command for kind in ("format", "controllability", "figure")), (
            command
        )
    assert {path.name for path in toys.glob("*.html")} == {"report.html", "figure.html"}
    assert (toys / "table.tex").is_file() and (toys / "runs" / "evaluation").is_dir()


def test_trainings(toys, monkeypatch):
    """Those of the README one after the other, a step each: an autoencoder, then a model that it opens."""
    shutil.rmtree("runs")
    shutil.copytree("after", "PHOTOS")
    small = {**train_autoencoder.SMALL_AUTOENCODER, "block_out_channels": (8, 8, 8)}
    monkeypatch.setattr(train_autoencoder, "SMALL_AUTOENCODER", small)
    monkeypatch.setattr(retouch_model, "SMALL_UNET", {**TINY_UNET, "in_channels": 16, "cross_attention_dim": 8})
    toy = ("--resolution", "32", "--train_batch_size", "2", "--max_train_steps", "1", "--dataloader_num_workers", "0")
    trainings = [command for command in COMMANDS if command.startswith("accelerate launch training/")]
    trainings = [command for command in trainings if not command.endswith("--verify")]
    assert len(trainings) >= 2
    for command in trainings:
        script, *arguments = shlex.split(command)[2:]
        run_here(program(script).main, [*arguments, *toy])
    run(monkeypatch, "diffretouch retouch photo.jpg -o trained.jpg --model runs/mine")
    assert (toys / "trained.jpg").is_file()


def test_code(toys, monkeypatch):
    """Block after block in one namespace, with the bundled models."""
    names = {"drawn": np.ones((72, 96), np.float32), "another_photo": Image.open("other.jpg")}
    code = blocks("README.md", "python") + blocks("training/README.md", "python")
    assert len(code) >= 4
    for block in code:
        exec(compile(block, "README.md", "exec"), names)


def program(script):
    """A script's file as the module that it is."""
    return importlib.import_module("diffretouch." + script.removesuffix(".py").replace("/", "."))


def parse(words):
    """Words of a command line through the parsers of all programs that read them."""
    if words[0] == "diffretouch":
        command = typer.main.get_command(cli.app)
        with command.make_context("diffretouch", words[1:2]) as context:
            own = command.commands[words[1]]
            own.make_context(words[1], words[2:], parent=context).close()
        return
    if words[0] == "accelerate":
        assert words[1] == "launch"
        launched = launch_command_parser().parse_args(words[2:])
    else:
        launched = torchrun_arguments(words[1:])
    name, rest = launched.training_script, launched.training_script_args
    if name == "diffretouch.cli":
        return parse(["diffretouch", *rest])
    if not launched.module:
        assert (ROOT / name).is_file(), name
        name = "diffretouch." + name.removesuffix(".py").replace("/", ".")
    assert name.startswith("diffretouch.training."), name
    if rest == ["…"]:
        rest = ["--train_data_dir", "PHOTOS", "--vae", "runs/autoencoder", "--output_dir", "runs/mine"]
    assert importlib.import_module(name).parse_args(rest).train_data_dir


PARSED = [command for command in COMMANDS if command.split()[0] in ("diffretouch", "accelerate", "torchrun")]


def test_options_are_those_of_the_programs(toys):
    for folder in ("input", "target", "experts", "PHOTOS"):
        (toys / folder).mkdir()
    (toys / "adobe.ckpt").touch()
    for command in PARSED:
        parse(shlex.split(command))


def test_every_command_is_run_somewhere():
    for command in COMMANDS:
        here = command.startswith(("diffretouch ", "accelerate launch training/"))
        assert here or elsewhere(command), f"no test runs: {command}"
    for start in ELSEWHERE:
        assert any(command.startswith(start) for command in COMMANDS), f"no longer there: {start}"


def test_verify_as_the_readme_says(toys, capsys):
    """`--verify` needs neither `--output_dir` nor `--vae`."""
    (command,) = (command for command in COMMANDS if command.endswith("--verify"))
    for folder in ("input", *(f"0{n}-Experts-{letter}" for n, letter in enumerate("ABCDE", 1))):
        (toys / "FIVEK" / folder).mkdir(parents=True)
        shutil.copy(PHOTOS[0], toys / "FIVEK" / folder / "a0001-test.jpg")
    (toys / "upe_train_4500.txt").write_text("a0001\n")
    script, *arguments = shlex.split(command)[2:]
    with pytest.raises(SystemExit) as stopped:
        program(script).main(arguments)
    assert stopped.value.code in (0, 1) and "0 errors" in capsys.readouterr().out


def test_files_that_are_named_are_there():
    folders = ("diffretouch", "pipelines", "training", "tests", "benchmarks", "examples", "recipes", ".ci")
    for page in ("README.md", "training/README.md", "CONTRIBUTING.md"):
        for name in re.findall(r"[`(]([\w.*]+/[\w./*]*)[`)]", (ROOT / page).read_text()):
            if name.split("/")[0] in folders:
                assert any(list(folder.glob(name)) for folder in (ROOT, (ROOT / page).parent)), f"{page}: {name}"
