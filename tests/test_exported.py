"""The engine without torch, beside torch's: noise, grids, pictures, and the command line's processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from diffretouch import CSRNetPipeline, DiffRetouchPipeline, load_photo
from diffretouch.pipelines.export_onnx import export_beside
from diffretouch.pipelines.exported import noise, open_exported
from diffretouch.settings import model_revision

from .tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
PHOTOS = [ROOT / "tests" / "photos" / f"gb82_{name}-lossless.jpg" for name in ("city", "dog", "sumac")]
BRIGHT, FLAT = {"brightness": 0.9}, {"contrast": -1.0}


def small_photo(path, size=(151, 97)):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize(size))


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(16,), (17,), (31,), (4, 5, 5), (4, 32, 32), (3, 4, 64, 64)])
def test_noise_is_that_of_torch(seed, shape):
    want = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(noise(seed, shape), want, atol=3e-6)


def test_noise_of_few_numbers_is_refused():
    with pytest.raises(ValueError, match="`shape`"):
        noise(0, (3, 5))


@pytest.fixture(scope="module")
def both():
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    return pipe, open_exported("small")


def photos_of_all_kinds():
    photo = small_photo(PHOTOS[0])
    yield "8 bits", photo
    yield "16 bits", small_photo(PHOTOS[1]).astype(np.uint16) * 257 + 40
    yield "float", small_photo(PHOTOS[2]).astype(np.float32) / 255
    yield "one row", photo[:1]
    yield "few pixels", photo[:3, :5]
    yield "grey", np.repeat(photo[..., :1], 3, 2)
    yield "black", np.zeros((9, 7, 3), np.uint8)


KINDS = dict(photos_of_all_kinds())
MASK = np.zeros((97, 151), np.float32)
MASK[20:60] = np.linspace(0, 1, 151, dtype=np.float32)
FULL = np.ones((97, 151), np.float32)


def same(one, other):
    assert one.dtype == other.dtype
    assert abs(one.astype(float) - other).max() <= (1e-5 if one.dtype.kind == "f" else 1)


@pytest.mark.filterwarnings("ignore:.*is stretched")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "c, regions, steps, samples",
    [
        (None, None, 8, 2),
        (None, [(MASK, None)], 1, 1),  # in one step, unknown is the usual finish
        ([0.3, -0.5, 0.2, 1.0], None, 1, 1),
        (BRIGHT, [(MASK, FLAT), (MASK[:, ::-1], None)], 2, 1),
        (BRIGHT, [(FULL, FLAT)], 1, 1),  # nothing is seen of what lies below
        (BRIGHT, [(FULL, None)], 2, 1),
    ],
    ids=["unknown", "one step", "sliders", "regions", "hidden", "hidden by unknown"],
)
def test_pictures_are_those_of_torch(both, kind, c, regions, steps, samples):
    pipe, light = both
    photo, seeds = KINDS[kind], [3 + n for n in range(samples)]
    call = {"regions": regions, "num_inference_steps": steps, "num_samples": samples}
    want = pipe.predict_grid(photo, c, generator=[pipe.seeded(seed) for seed in seeds], **call)
    own = light.predict_grid(photo, c, generator=[light.seeded(seed) for seed in seeds], **call)
    np.testing.assert_allclose(own, want, atol=1e-5)
    for strength in (0.0, 0.7, 1.0):
        same(light.apply_grid(photo, own[-1], regions=regions, strength=strength),
             pipe.apply_grid(photo, want[-1], regions=regions, strength=strength))  # fmt: skip


def test_several_photos_have_their_own_noise_and_one_generator_that_of_all(both):
    pipe, light = both
    photos = [KINDS["8 bits"], KINDS["grey"], KINDS["float"]]
    for seeds in ([1, 2, 3], 4):
        generators = [pipe.seeded(s) for s in seeds] if isinstance(seeds, list) else pipe.seeded(seeds)
        want = pipe.predict_grid(photos, BRIGHT, num_inference_steps=1, generator=generators)
        np.testing.assert_allclose(
            light.predict_grid(photos, BRIGHT, num_inference_steps=1, generator=seeds), want, atol=1e-5
        )
    with pytest.raises(ValueError, match="`generator`"):
        light.predict_grid(photos, BRIGHT, num_inference_steps=1, generator=[1])


def test_colours_are_those_of_torch():
    pipe, light = CSRNetPipeline.from_pretrained("small"), open_exported("csrnet")
    for photo in [*KINDS.values(), small_photo(PHOTOS[0], (500, 400))]:  # the last by a table
        for strength in (0.6, 1.0):
            same(light.retouch(photo, strength=strength), pipe.retouch(photo, strength=strength))


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """A model of one's own with its graphs: the paper's order otherwise, nearest thumbnails, the noise predicted."""
    folder = tmp_path_factory.mktemp("models") / "mine"
    order = ["brightness", "contrast", "colorfulness", "temperature"]
    own = {"attribute_order": order, "attribute_signs": [1, -1, 1, 1], "thumbnail": "nearest", "noise_offset": 2.0}
    pipe = tiny_pipeline(4, **own, shoulder=0.5)
    pipe.save_pretrained(folder)
    export_beside(DiffRetouchPipeline.from_pretrained(folder))
    return folder


def test_a_model_of_ones_own(own_folder):
    pipe, light = DiffRetouchPipeline.from_pretrained(own_folder), open_exported(own_folder)
    photo, call = KINDS["16 bits"], {"c": [0.5, -0.2, 1, 0.1], "num_inference_steps": 3}
    assert light.can_take(3) and not light.can_take(51)
    want, own = (
        pipe.predict_grid(photo, generator=pipe.seeded(1), **call),
        light.predict_grid(photo, generator=1, **call),
    )
    np.testing.assert_allclose(own, want, atol=1e-5)
    same(light.apply_grid(photo, own), pipe.apply_grid(photo, want))
    assert model_revision(light) == model_revision(pipe)
    held = onnx.load(own_folder / "onnx" / "denoiser.onnx", load_external_data=False).graph.initializer
    assert sum(len(tensor.raw_data) for tensor in held) < 8192 < sum(p.numel() for p in pipe.unet.parameters())
    with pytest.raises(ValueError, match="`overwrite`"):
        export_beside(pipe)
    with pytest.raises(ValueError, match="directory"):
        export_beside(tiny_pipeline())


DAMAGE = {
    "no graphs": ("no graphs", lambda f: shutil.rmtree(f / "onnx")),
    "half a graph": ("not whole", lambda f: (f / "onnx" / "denoiser.onnx").write_bytes(b"half")),
    "a newer format": ("another format", lambda f: change(f / "onnx" / "model.json", format=2)),
    "another state": ("another state", lambda f: change(f / "scheduler" / "scheduler_config.json", beta_end=0.021)),
    "no graph": ("cannot be used", lambda f: (f / "onnx" / "denoiser.onnx").write_bytes(
        bytes((f / "onnx" / "denoiser.onnx").stat().st_size))),
}  # fmt: skip


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_graphs_are_left_to_torch(own_folder, run, tmp_path, damage):
    said, harm = DAMAGE[damage]
    folder, photo, out = tmp_path / "mine", tmp_path / "photo.png", tmp_path / "out.png"
    shutil.copytree(own_folder, folder)
    Image.fromarray(KINDS["few pixels"]).save(photo)
    harm(folder)
    with pytest.raises(ValueError, match=said):
        open_exported(folder)
    code, _, err = run("retouch", photo, "-o", out, "--model", folder, "--engine", "onnx")
    assert code == 1 and "`--engine onnx`" in err and said in err and not out.exists()
    code, _, err = run("retouch", photo, "-o", out, "--model", folder)
    assert code == 0 and out.exists(), err


REFUSED = {
    "device": ["--device", "cuda"],
    "model": ["--model", "csrnet-l"],
    "steps": ["--steps", "60"],
    "refined masks": ["--region", "luminosity=0-0.5:contrast=1", "--refine-regions"],
}


@pytest.mark.parametrize("wish", REFUSED)
def test_what_needs_torch_is_said(run, tmp_path, wish):
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    Image.fromarray(KINDS["few pixels"]).save(photo)
    code, _, err = run("retouch", photo, "-o", out, "--engine", "onnx", *REFUSED[wish])
    assert code == 1 and "`--engine onnx`" in err and "Traceback" not in err and not out.exists()


# Runs commands in one process -> what of heavy modules it imported
LIGHT = """
import json, sys
from diffretouch import cli
codes = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["diffretouch", *command]
    try:
        cli.main()
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps([codes, sorted({"torch", "diffusers", "transformers", "accelerate"} & set(sys.modules))]))
"""


def test_the_commands_need_no_torch(run, tmp_path):
    """The same files, by either engine; a bad photo is passed by, with the same exit code and sentence."""
    shoot, mask = tmp_path / "shoot", tmp_path / "mask.png"
    shoot.mkdir()
    for path in PHOTOS[:2]:
        Image.fromarray(small_photo(path)).save(shoot / f"{path.stem}.png")
    (shoot / "bad.png").write_bytes(b"no photo")
    Image.fromarray((MASK * 255).astype(np.uint8)).save(mask)
    deep = tmp_path / "deep.tif"
    from diffretouch import save_photo

    save_photo(KINDS["16 bits"] / np.float32(65535), deep, bit_depth=16)
    photo = shoot / f"{PHOTOS[0].stem}.png"

    def commands(out):
        out.mkdir()
        return [
            ["retouch", photo, "-o", out / "c.png", "--brightness", "0.4", "--seed", "7", "--strength", "0.8"],
            ["retouch", photo, "-o", out / "any.png", "--any-style", "--samples", 2, "--save-preset", out / "p.json"],
            ["retouch", deep, "-o", out / "deep.tif", "--region", f"{mask}:contrast=1",
             "--region", "colour=20-200:brightness=-1"],
            ["retouch", photo, "-o", out / "like.png", "--like", out / "c.png"],
            ["retouch", photo, "-o", out / "preset.png", "--preset", out / "p.json", "--dither"],
            ["retouch", photo, "-o", out / "csrnet.png", "--model", "csrnet"],
            ["retouch", shoot / "bad.png", "-o", out / "bad.png"],
            ["batch", shoot, out / "batch", "--temperature", "0.5", "--report", out / "report.jsonl", "--sidecar"],
            ["batch", shoot, out / "csrnet", "--model", "csrnet"],
            ["sweep", photo, "-o", out / "sweep.png", "--columns", "3", "--size", "64"],
        ]  # fmt: skip

    light, heavy = tmp_path / "light", tmp_path / "heavy"
    listed = json.dumps([[*map(str, command)] for command in commands(light)])
    done = subprocess.run([sys.executable, "-c", LIGHT, listed], capture_output=True, text=True, cwd=ROOT)
    codes, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == [], done.stderr
    said = ""
    for code, command in zip(codes, commands(heavy), strict=True):
        got, _, err = run(*command, "--engine", "torch")
        said += err
        assert got == code, (command, err, done.stderr)
    assert codes.count(0) == 7
    tell = lambda text: [line for line in text.splitlines() if line.startswith(("Error", "Note"))]  # noqa: E731
    assert tell(done.stderr.replace(str(light), "")) == tell(said.replace(str(heavy), ""))
    files = sorted(path.relative_to(heavy) for path in heavy.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(light) for path in light.rglob("*") if path.is_file())
    assert len([name for name in files if name.suffix in (".png", ".tif")]) >= 12
    for name in files:
        if name.suffix in (".png", ".tif"):
            one, other = load_photo(light / name), load_photo(heavy / name)
            assert abs(one.pixels - other.pixels).max() <= 1.01 / (65535 if name.suffix == ".tif" else 255), name
            assert one.description == other.description
        elif name.suffix == ".json":
            assert (light / name).read_text() == (heavy / name).read_text()
