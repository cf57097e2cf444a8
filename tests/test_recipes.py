"""The recipes of the papers as they stand, in shells of their own, to their end at toy size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from diffretouch import CSRNetPipeline, DiffRetouchPipeline
from diffretouch.training import train_diffretouch

from .test_recipe_commands import calls_of
from .tiny import recipes_toy, run_here

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "training" / "recipes"
PAIRS = ROOT.parent / "shared" / "data" / "fivek_pairs"  # 13 pairs, Expert C
TOY = ("--resolution", "32", "--max_train_steps", "2", "--dataloader_num_workers", "0")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    recipes_toy().main([str(folder)])
    return folder


def run(name, *arguments, **environment):
    """A recipe as a user starts it, from a folder that is not the checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", **environment}
    command = ["bash", str(RECIPES / name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def settings(folder):
    return json.loads((folder / "checkpoint-2" / "step.json").read_text())["settings"]


@pytest.mark.parametrize("name", ["paper_fivek", "paper_ppr10k"])
def test_papers_of_diffretouch(toys, tmp_path, name):
    data, more = toys / name.removeprefix("paper_"), ()
    if name == "paper_fivek" and PAIRS.is_dir():
        data, more = tmp_path / "fivek", ("--expert", "C")
        data.mkdir()
        (data / "input").symlink_to(PAIRS / "input")
        (data / "expertC").symlink_to(PAIRS / "target")
    launch = {"BASE": str(toys / "stable-diffusion"), "ACCELERATE": "--cpu --num_processes 1", "TEST": "1"}
    flags = (*TOY, "--gradient_accumulation_steps", "2", *more)
    calls = calls_of(RECIPES / f"{name}.sh", tmp_path, data, tmp_path / "out", *flags, **launch)
    ((program, *words, _),) = calls
    launched = launch_command_parser().parse_args(words[1:])
    assert (program, words[0], launched.training_script) == ("accelerate", "launch", train_diffretouch.__name__)
    run_here(train_diffretouch.main, launched.training_script_args)  # `accelerate launch` itself: the last test
    used = settings(tmp_path / "out" / "model")
    published = {"pixel_weight": 0.04, "contrastive_weight": 1.0, "contrastive_anchor": "output", "latent_weight": 1.0}
    published |= {"first_timestep_fraction": 0.0, "branch_fraction": 1.0, "whole_photos": True, "learning_rate": 1e-6}
    assert {key: used[key] for key in published} == published
    pipe = DiffRetouchPipeline.from_pretrained(tmp_path / "out" / "model")
    config = pipe.config
    assert (config.timestep_range, config.default_steps, config.thumbnail) == ([200, 999], 20, "nearest")
    variance = {"paper_fivek": "fixed_small", "paper_ppr10k": "fixed_large"}[name]
    scheduler = pipe.scheduler.config
    assert (scheduler.variance_type, scheduler.prediction_type, scheduler.clip_sample) == (variance, "epsilon", False)
    assert tuple(pipe.grid_head.config.pixel_range) == (-1, 1) and not pipe.grid_head.config.residual
    assert pipe.unet.config.cross_attention_dim == 4 and pipe.unet.config.sample_size == 4
    ids = (tmp_path / "out" / "train_ids.txt").read_text().split()
    assert ids[:2] == {"paper_fivek": ["a0001", "a0002"], "paper_ppr10k": ["0_0", "1_0"]}[name]
    assert len(ids) == {"paper_fivek": 4500, "paper_ppr10k": 3}[name]


def test_paper_of_csrnet(toys, tmp_path):
    run("csrnet_fivek.sh", toys / "csrnet", tmp_path / "out", *TOY[2:], ACCELERATE="--cpu --num_processes 1")
    used = settings(tmp_path / "out")
    assert used["train_batch_size"] == 1 and used["keep_aspect"] and used["halvings"] == 5
    network = CSRNetPipeline.from_pretrained(tmp_path / "out").network
    assert network.config.input_space == "prophoto" and network.config.condition_size == 500
