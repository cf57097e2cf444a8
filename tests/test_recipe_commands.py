"""Every command in training/recipes/*.sh is one that its program takes, and what their Python imports is there.

The recipes run as they stand, minutes to weeks long; here each program on the path writes down how it was called.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys

import pytest

from diffretouch.training import train_diffretouch

from .test_readme import ROOT, parse

RECIPES = sorted((ROOT / "training" / "recipes").glob("*.sh"))
RECORDER = """#!{python}
import json, os, sys
text = sys.stdin.read() if sys.argv[1:2] == ["-"] else ""
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:], text]) + "\\n")
"""


def calls_of(recipe, folder, *arguments, **environment):
    """What the recipe calls: lists of words, and the text that `python -` reads last. It runs in `folder`."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("python", "accelerate", "diffretouch", "torchrun"):
        (programs / name).write_text(RECORDER.format(python=sys.executable))
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        **environment,
    }
    command = ["bash", str(recipe), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def calls_as_its_usage_says(recipe, folder):
    usage = re.search(rf"^# .*{recipe.name} ([^\[\n]*)", recipe.read_text(), re.M)
    arguments = [name.lower() for name in usage[1].split()]
    for name in arguments:
        (folder / name / "target_a").mkdir(parents=True)  # of PPR10K, of which a recipe makes a list
    return calls_of(recipe, folder, *arguments)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_commands_are_taken(recipe, tmp_path, monkeypatch):
    calls = calls_as_its_usage_says(recipe, tmp_path)
    assert calls
    monkeypatch.chdir(tmp_path)
    for program, *words, text in calls:
        if program == "python" and words[:1] == ["-"]:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    missing = [name.name for name in node.names if not hasattr(module, name.name)]
                    assert not missing, f"{node.module} has no {missing}"
        elif program == "python":
            assert words[0] == "-m" and words[1].startswith("diffretouch."), words
            importlib.import_module(words[1]).parse_args(words[2:])
        else:
            parse([program, *words])


def trainings(recipe, folder):
    """The last part of the name of what it trains -> the arguments of train_diffretouch."""
    folder.mkdir()
    found = {}
    for program, *words, _ in calls_as_its_usage_says(recipe, folder):
        if program == "accelerate" and "diffretouch.training.train_diffretouch" in words:
            rest = words[words.index("diffretouch.training.train_diffretouch") + 1 :]
            arguments = vars(train_diffretouch.parse_args(rest))
            found[arguments["output_dir"].split("/")[-1]] = arguments
    return found


def test_ablation_changes_one_thing_in_the_recipe(tmp_path):
    recipes = RECIPES[0].parent
    bundled = trainings(recipes / "small.sh", tmp_path / "small")["taught"]
    rows = trainings(recipes / "ablation.sh", tmp_path / "ablation")

    def changed(row, other):
        return {name: row[name] for name in row if row[name] != other[name] and name not in ("output_dir", "seed")}

    own = {"vae", "init", "teacher", "learning_rate", "max_train_steps"}  # its places and its length
    own |= {"checkpointing_steps", "checkpoints_total_limit"}
    assert changed(rows["recipe_0"], bundled).keys() <= own
    for seed in range(3):
        assert rows[f"recipe_{seed}"]["seed"] == seed and not changed(rows[f"recipe_{seed}"], rows["recipe_0"])
        published = rows[f"published_{seed}"]
        assert published["seed"] == seed and not changed(published, rows["published_0"])
        # The paper's beta, on [0,1], and sampler; nothing of ours
        assert (published["pixel_weight"], published["timestep_range"]) == (0.04, [200, 999])
        assert not any(published[f"{name}_weight"] for name in ("attribute", "obedience", "daylight", "pixel_l1"))
    for name, change in {
        "no_teacher": {"teacher": None},
        "no_grid": {"no_grid": True},
        "four_tokens": {"attribute_tokens": 4},
        "no_contrastive": {"contrastive_weight": 0},
        "no_daylight": {"daylight_weight": 0},
    }.items():
        assert changed(rows[name], rows["recipe_0"]) == change
    assert changed(rows["published_no_contrastive"], rows["published_0"]) == {"contrastive_weight": 0}
    assert len(rows) == 12
