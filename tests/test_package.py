"""The package as a whole: what an import costs, and that it can be found in every way it is run."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffretouch

from .ranks import run_ranks

ROOT = Path(__file__).parents[1]


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options).stdout


def test_import_is_light():
    code = "import sys, diffretouch; print([m for m in ('torch', 'diffusers', 'numpy', 'numba') if m in sys.modules])"
    assert run(code, cwd=ROOT) == "[]\n"
    code = "import sys, diffretouch.cli; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    assert run(code, cwd=ROOT) == "[]\n"


def test_import_needs_no_torchvision_nor_network():
    code = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("network on import")
socket.socket.connect = socket.getaddrinfo = refuse
import diffretouch
for name in diffretouch.__all__: getattr(diffretouch, name)
print([m for m in ("torchvision", "lpips", "kornia") if m in sys.modules])
"""
    assert run(code, cwd=ROOT) == "[]\n"


def test_public_names():
    for name in diffretouch.__all__:
        value = getattr(diffretouch, name)
        assert value.__doc__ or not callable(value), name
    assert set(diffretouch.__all__) <= set(dir(diffretouch))
    with pytest.raises(AttributeError, match="'no_such_name'"):
        diffretouch.no_such_name  # noqa: B018


def test_found_from_the_checkout_root():
    modules = {"diffretouch.pipelines.pipeline_csrnet": "pipelines", "diffretouch.training.convert": "training"}
    code = f"from importlib.util import find_spec; print([find_spec(name).origin for name in {[*modules]}])"
    found = [str(ROOT / folder / f"{name.rpartition('.')[2]}.py") for name, folder in modules.items()]
    assert run(code, cwd=ROOT) == f"{found}\n"


SCRIPTS = sorted(path for path in (ROOT / "training").glob("*.py") if "__main__" in path.read_text())

# One process for all, forked from one that has imported torch and diffusers, which takes long. sys.path is as Python
# makes it for a file.
START = """
import contextlib, io, os, runpy, sys
os.chdir(sys.argv.pop(1))
installed = [path for path in sys.path if path and os.path.abspath(path) != os.getcwd()]
for script in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffretouch"]:
        del sys.modules[name]
    sys.path[:] = [os.path.dirname(script), *installed]
    sys.argv, printed = [script, "--help"], io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            assert not end.code, script
    assert printed.getvalue().startswith("usage: " + os.path.basename(script)), script
sys.path.insert(0, os.getcwd())
sys.argv = ["", "--help"]
runpy.run_module("diffretouch.training.train_diffretouch", run_name="__main__")
"""


def test_training_scripts_start(tmp_path):
    """As files, with nothing installed, and as modules."""
    ((code, said),) = run_ranks(START, tmp_path, [ROOT, *SCRIPTS])
    assert code == 0, said
    assert len(SCRIPTS) >= 7 and "--train_data_dir" in said


def test_pickles_and_spawned_workers():
    from diffretouch.data.unpaired import UnpairedPhotos

    photos = UnpairedPhotos(Path(__file__).parent / "photos", 16)
    assert torch.equal(pickle.loads(pickle.dumps(photos))[3]["target"], photos[3]["target"])
    loader = torch.utils.data.DataLoader(photos, 2, sampler=range(4), num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))["target"][1], photos[1]["target"])


def test_only_the_converter_loads_pickles():
    words = ("torch." + "load(", "pickle." + "load(", "weights_only=" + "False", " ev" + "al(")
    for folder in ("diffretouch", "pipelines", "training", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "convert.py":
                assert not any(word in path.read_text() for word in words), path


def test_every_public_function_is_annotated():
    """As `py.typed` promises. mypy (.ci/run) checks what the annotations say."""
    bare = []

    def look(path, body, inside=""):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                look(path, node.body, f"{inside}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
                    continue
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                given = given[1:] if inside and given and given[0].arg in ("self", "cls") else given
                given += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
                if node.returns is None or any(one.annotation is None for one in given):
                    bare.append(f"{path.relative_to(ROOT)}: {inside}{node.name}")

    for folder in ("diffretouch", "pipelines", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            look(path, ast.parse(path.read_text()).body)
    assert not bare


def test_no_import_climbs():
    """training, pipelines, diffretouch: one way; only the package itself, its command line and its page reach back."""
    may = {"__init__.py", "cli", "demo"}
    climbing = []
    for folder, above in (("diffretouch", ("pipelines", "training")), ("pipelines", ("training",))):
        for path in (ROOT / folder).rglob("*.py"):
            if folder == "diffretouch" and path.relative_to(ROOT / folder).parts[0] in may:
                continue
            nodes = list(ast.walk(ast.parse(path.read_text())))
            types = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
            types = {id(node) for one in types for node in ast.walk(one)}
            for node in nodes:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                if id(node) not in types and any(
                    name.startswith(f"diffretouch.{up}") for name in names for up in above
                ):
                    climbing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not climbing


def test_the_stub_names_what_the_package_does():
    stub = ast.parse((ROOT / "diffretouch" / "__init__.pyi").read_text())
    named = {one.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for one in node.names}
    assert named == diffretouch._PUBLIC
