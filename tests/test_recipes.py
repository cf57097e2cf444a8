"""The recipes as they stand, in shells of their own: the papers' to their end at toy size, the flags of the others."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffretouch import CSRNetPipeline, DiffRetouchPipeline

from .tiny import recipes_toy

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
    run(f"{name}.sh", data, tmp_path / "out", *TOY, "--gradient_accumulation_steps", "2", *more, **launch)
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


@pytest.mark.parametrize("name", ["small", "csrnet", "sa_adjustnet", "ablation"])
def test_the_others_name_flags_that_there_are(tmp_path, name):
    """With programs that write down what they are asked for: each call is one that its training script takes."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for program in ("accelerate", "diffretouch", "python"):
        path = programs / program
        noted = f'printf "%s\\037" "$@" >> {calls} && echo >> {calls}' if program == "accelerate" else "true"
        path.write_text(f"#!/bin/sh\n{noted}\n")
        path.chmod(0o755)
    shutil.copytree(RECIPES, tmp_path / "recipes")
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(tmp_path / "recipes" / f"{name}.sh"), *(str(tmp_path / n) for n in "abcde")]
    command = command[: {"small": 4, "csrnet": 4, "sa_adjustnet": 4, "ablation": 7}[name]]
    subprocess.run(command, env=environment, check=True, timeout=60)
    trainings = [line.split("\037")[:-1] for line in calls.read_text().splitlines()]
    assert len(trainings) >= 2
    for words in trainings:
        start = words.index("-m")
        script = importlib.import_module(words[start + 1])
        args = script.parse_args(words[start + 2 :])
        if name == "ablation" and "/published" in args.output_dir:
            assert (args.pixel_weight, args.timestep_range, args.contrastive_anchor) == (0.04, [200, 999], "output")
            assert args.clipping_limit is None and args.unknown_share == 0 and args.first_timestep_fraction == 0
