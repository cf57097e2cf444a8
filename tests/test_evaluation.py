import json
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import skimage.metrics
import torch
from PIL import Image, ImageOps

from diffretouch import AdaptiveLut3D, AdaptiveLut3DPipeline, HDRNet, HDRNetPipeline
from diffretouch import evaluation as ev
from diffretouch.attributes import attribute_labels, measure_attributes
from diffretouch.cli.peers import open_peers
from diffretouch.evaluation import pairs, report, runs
from diffretouch.metrics import frechet_distance, inception_features
from diffretouch.training.convert import load_adaptive_lut

from . import tiny
from .test_metrics import write_inception

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "tests" / "photos").glob("*.jpg"))


def test_report(folders):
    found = ev.pair_names(*folders)
    assert [p.name for p, _ in found] == ["a.png", "b.png"]
    report = ev.evaluate_pairs(tiny.one_step_pipeline(), found, seed=3)
    assert (
        report["steps"] == 2
        and report["seed"] == 3
        and list(report["models"]) == ["model"]
        and len(report["photos"]) == 2
    )
    for (source, target), row in zip(found, report["photos"], strict=True):
        a, b = (np.asarray(Image.open(path)) for path in (source, target))
        expected = skimage.metrics.peak_signal_noise_ratio(b, a)
        np.testing.assert_allclose(row["input"]["psnr"], expected, atol=1e-4, rtol=0)
        assert row["input"]["structure"] == pytest.approx(1) and row["input"]["clipping"] == 0
        assert row["automatic"]["psnr"] != row["input"]["psnr"]
        # c = 0, which None is not: attributes that are unknown
        c, noise = [0.0] * 4, torch.Generator().manual_seed(3)
        by_hand = tiny.one_step_pipeline()(Image.open(source), c, generator=noise, output_type="np").images[0]
        expected = skimage.metrics.peak_signal_noise_ratio(b / 255, (255 * by_hand).round() / 255, data_range=1)
        assert row["automatic"]["psnr"] == pytest.approx(expected, abs=1e-3)
        clipped = [((image == 0) | (image == 255)).any(-1).mean() for image in (a, b)]
        assert row["input"]["target_clipping"] == pytest.approx(100 * (clipped[1] - clipped[0]))
    for metric in ("psnr", "ssim", "delta_e76", "delta_e2000", "structure", "clipping"):
        mean = np.mean([row["matched"][metric] for row in report["photos"]])
        np.testing.assert_allclose(report["mean"]["matched"][metric], mean)
    json.dumps(report)
    assert {"lpips", "fid"} <= report["missing"].keys() and "lpips" not in report["mean"]["automatic"]
    table = ev.report_table(report)
    assert f"{report['mean']['automatic']['psnr']:.2f}" in table and "oracle" in table
    assert "The targets themselves clip" in table
    assert "Not computed: FID: needs 100 photos" in table and "as the files are; 30x24 px" in table
    assert "Not computed: to expert: needs 5 photos, got 2" in table
    markdown = ev.report_markdown(report)  # each table says that it is an oracle
    assert markdown.count("| matched |") == 1 and markdown.count("| matched (oracle) |") == 3
    assert ev.evaluate_pairs(tiny.one_step_pipeline(), found, seed=3) == report


def test_every_method_in_one_run(experts):
    found = ev.expert_labels(ev.expert_pairs(*experts))
    assert [pair.expert for pair in found] == ["expertA"] * 2 + ["expertB"] * 2 + ["expertC"] * 2
    found = [found[0], *found[2:5]]  # two photos of one expert, one of the others
    peers, missing = ev.peer_methods(["autocontrast", "equalize", "curve", "clahe"])
    assert not missing
    pipes = {"x": tiny.one_step_pipeline(), "y": tiny.one_step_pipeline(fold=2)}
    report = ev.evaluate_pairs(pipes, found, steps=[1, 2], best_of=2, peers=peers, csrnet_lab=True, rendering="tiny")
    modes = "automatic", "best", "labels", "matched"
    protocols = [f"{mode} {name} {n} step{'s' * (n > 1)}" for name in "xy" for n in (1, 2) for mode in modes]
    assert list(report["methods"]) == ["input", "autocontrast", "equalize", "clahe", *protocols, "curve"]
    blind = {name for name, method in report["methods"].items() if not method["oracle"]}
    assert blind == {"input", "autocontrast", "equalize", "clahe", *(n for n in protocols if "automatic" in n)}
    assert list(report["experts"]) == ["expertA", "expertB", "expertC"] and report["data"]["rendering"] == "tiny"
    rows = [row["curve"]["csrnet_lab"] for row in report["photos"] if row["expert"] == "expertB"]
    np.testing.assert_allclose(report["experts"]["expertB"]["curve"]["csrnet_lab"], np.mean(rows))
    told = report["uncertainty"]["mean"]["curve"]["psnr"]["mean"]  # over photos, also where one has more experts
    assert report["mean"]["curve"]["psnr"] == pytest.approx(told)
    for row in report["photos"]:
        assert row["best x 1 step"]["psnr"] >= row["automatic x 1 step"]["psnr"]
        assert row["best x 1 step"]["seed"] in (0, 1)
        label = next(p.label for p in found if (p.source.name, p.expert) == (row["photo"], row["expert"]))
        np.testing.assert_allclose(row["labels y 2 steps"]["c"], label, atol=6e-4)
    table = ev.report_table(report)
    assert table.count("expertC  ") == 4 and "all experts" in table and "1, 2 steps" in table


@pytest.mark.parametrize(("steps", "taken"), [(None, 3), (1, 1), (2, 2)])
def test_the_best_sample_takes_the_steps_of_samples(steps, taken):
    """One step draws no style: without `steps` the best of several is of as many as the model takes for samples."""
    pipe = tiny.one_step_pipeline(sampling_steps=3)
    methods = {m.name: m for m in ev.retouch_methods(pipe, steps=steps, best_of=2)}
    photo = torch.rand(1, 3, 24, 30, generator=torch.Generator().manual_seed(5))
    image, said = methods["best"].retouch(photo, photo, None)
    noise = [torch.Generator().manual_seed(n) for n in range(2)]
    wanted = pipe(photo, num_inference_steps=taken, num_samples=2, generator=noise, output_type="pt").images
    torch.testing.assert_close(image[0], wanted[said["seed"]])
    assert f"in {taken} steps" in methods["best"].meaning


def test_where_the_error_is(folders):
    """Exposure alone is wrong: one gain mends it all, and the brightness error says by how much."""
    inputs, targets = folders
    rng = np.random.default_rng(3)
    for n in range(4):
        tiny.save_pattern(inputs / f"{n}.png", rng)
        pixels = np.asarray(Image.open(inputs / f"{n}.png")) * np.float64(0.4 + 0.1 * n)
        Image.fromarray(pixels.round().astype(np.uint8)).save(targets / f"{n}.png")
    for name in "ab":
        (inputs / f"{name}.png").unlink()
        (targets / f"{name}.png").unlink()
    peers, _ = ev.peer_methods(["autocontrast", "curve"])
    report = ev.evaluate_methods([ev.untouched(), *peers], ev.pair_names(inputs, targets))
    mean = report["mean"]["input"]
    assert mean["psnr"] < 25 and min(mean["psnr_gain"], mean["psnr_affine"]) > 45
    assert (
        mean["psnr_affine"] >= mean["psnr_gain"] - 1e-3
        and mean["ssim_input"] == pytest.approx(1)
        and mean["gmsd"] == 0
    )
    assert mean["psnr_curves"] >= report["mean"]["curve"]["psnr"] > 45  # which is rounded to 8 bits
    luma = lambda name, folder: np.mean(  # noqa: E731
        np.asarray(Image.open(folder / name)) @ np.array([0.299, 0.587, 0.114]) / 255
    )
    errors = [luma(f"{n}.png", inputs) - luma(f"{n}.png", targets) for n in range(4)]
    assert mean["brightness_bias"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert mean["brightness_sd"] == pytest.approx(np.std(errors, ddof=1), abs=1e-6)
    assert "brightness_correlation" not in mean  # it made no change
    curve = report["mean"]["curve"]
    assert curve["brightness_correlation"] == pytest.approx(1, abs=1e-3) and abs(curve["brightness_bias"]) < 1e-3
    assert "where the error is" in ev.report_table(report)


def test_labels(experts, tmp_path):
    found = ev.expert_pairs(*experts)
    own = [pair for pair in ev.expert_labels(found) if pair.source.name.startswith("a0002")]
    scores = torch.cat([measure_attributes(pairs.photo_tensor(pair.target)) for pair in own])
    np.testing.assert_allclose([pair.label for pair in own], attribute_labels(scores), atol=1e-6)
    with pytest.raises(ValueError, match="two or more experts"):
        ev.expert_labels(found[:2])
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"expertA": {"a0001": [0, 0.1, 0.2, 0.3], "a0002-kme_01.png": {"contrast": -1}}}))
    read = ev.read_labels(file, found[:2])
    np.testing.assert_allclose([pair.label for pair in read], [[0, 0.1, 0.2, 0.3], [0, -1, 0, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="no c for a0001-kme_01.png expertB"):
        ev.read_labels(file, found[2:])
    twice = json.dumps({"a0001": [[0, 0, 0, 0], [0, 0, 0, 1]]})
    for text, message in (
        *(("[1]", "must hold an object"), ("{", "is no JSON file"), (twice, "`labels`:.*a0001-kme_01.png expertA: ")),
        ('{"a0001": [0, 0, 0]}', "`labels`:.*a0001-kme_01.png expertA: `c` must hold 4 numbers"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            ev.read_labels(file, found)


def test_peers_against_their_libraries():
    rng = np.random.default_rng(0)
    pixels = rng.integers(30, 220, (32, 40, 3)).astype(np.uint8)
    wanted = np.clip(np.round(255 * (pixels / 255) ** [0.6, 1.0, 1.5]), 0, 255).astype(np.uint8)
    source, target = (pairs.as_batch(np.float32(x) / 255) for x in (pixels, wanted))
    methods = {method.name: method for method in ev.peer_methods(["autocontrast", "equalize", "clahe", "curve"])[0]}
    result = {name: method.retouch(source, target, None)[0] for name, method in methods.items()}
    for name, operation in (("autocontrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)):
        expected = np.asarray(operation(Image.fromarray(pixels)), np.float32) / 255
        np.testing.assert_allclose(pairs.as_array(result[name]), expected)
    expected = skimage.exposure.equalize_adapthist(pixels / 255.0)
    np.testing.assert_allclose(pairs.as_array(result["clahe"]), expected, atol=1e-3)
    np.testing.assert_allclose(result["curve"], target, atol=1e-6)  # gamma is a curve of each channel
    scrambled = target[..., torch.randperm(40)]  # no curve fits this: the best one is the mean at each level
    fitted = methods["curve"].retouch(source, scrambled, None)[0]
    level = (source[0, 0] == source[0, 0, 5, 7]).numpy()
    np.testing.assert_allclose(fitted[0, 0, 5, 7], scrambled[0, 0].numpy()[level].mean(), atol=1e-6)


def test_other_pipelines():
    class Output:
        def __init__(self, images):
            self.images = images

    def darker(image, *, output_type):
        assert output_type == "pt"
        return Output(image * 0.5)

    image, extra = ev.pipeline_method("darker", darker, "half").retouch(torch.ones(1, 3, 12, 12), None, None)
    assert image.shape == (1, 3, 12, 12) and (image == 0.5).all() and extra == {}


@pytest.mark.parametrize("pipeline, network", [(HDRNetPipeline, HDRNet), (AdaptiveLut3DPipeline, AdaptiveLut3D)])
def test_trained_baselines_are_peers(pipeline, network, tmp_path):
    """By the directory that the training writes, under its name or another."""
    torch.manual_seed(0)
    own = pipeline(network())
    own.save_pretrained(tmp_path / "mine")
    methods, missing = open_peers([str(tmp_path / "mine"), f"other={tmp_path / 'mine'}"], "cpu")
    assert [method.name for method in methods] == ["mine", "other"] and not missing
    photo = torch.rand(1, 3, 20, 31)
    image, _ = methods[0].retouch(photo, None, None)
    torch.testing.assert_close(image, own(photo, output_type="pt").images)
    assert methods[0].parameters == sum(p.numel() for p in own.network.parameters()) and not methods[0].oracle
    assert "other weights" in methods[0].meaning and len(methods[0].weights()) == 64


@pytest.fixture
def adaptive_lut(tmp_path):
    """Stand-ins with the released names and shapes: an identity table, one that swaps red and blue, one of zeros."""
    torch.manual_seed(0)
    classifier, channels = {}, (3, 16, 32, 64, 128, 128)
    for n, layer in enumerate((1, 4, 7, 10, 13)):
        classifier[f"model.{layer}.weight"] = 0.1 * torch.randn(channels[n + 1], channels[n], 3, 3)
        classifier[f"model.{layer}.bias"] = 0.1 * torch.randn(channels[n + 1])
        if layer < 13:
            for leaf in ("weight", "bias"):
                classifier[f"model.{layer + 2}.{leaf}"] = torch.rand(channels[n + 1])
    classifier["model.16.weight"] = 0.01 * torch.randn(3, 128, 8, 8)
    classifier["model.16.bias"] = torch.tensor([1.0, 0.2, -0.1])
    steps = torch.linspace(0, 1, 33)
    b, g, r = torch.meshgrid(steps, steps, steps, indexing="ij")
    tables = [torch.stack([r, g, b]), torch.stack([b, g, r]), torch.zeros(3, 33, 33, 33)]
    torch.save({str(n): {"LUT": table} for n, table in enumerate(tables)}, tmp_path / "LUTs.pth")
    torch.save(classifier, tmp_path / "classifier.pth")
    return tmp_path, classifier


def test_adaptive_lut(adaptive_lut):
    folder, weights = adaptive_lut
    layers = [torch.nn.Upsample((256, 256), mode="bilinear")]  # the released sequence, with its numbers
    for n, (before, after) in enumerate([(3, 16), (16, 32), (32, 64), (64, 128), (128, 128)]):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.LeakyReLU(0.2)]
        layers += [torch.nn.InstanceNorm2d(after, affine=True)] if n < 4 else [torch.nn.Dropout(0.5)]
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(128, 3, 8)).eval()
    network.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    photo = torch.rand(1, 3, 20, 31)
    with torch.no_grad():
        first, second, _ = network(photo).flatten()
    (method,), missing = open_peers([f"3dlut={folder}"], "cpu")
    assert method.name == "3dlut" and not method.oracle and not missing
    image, _ = method.retouch(photo, None, None)
    torch.testing.assert_close(image, (first * photo + second * photo.flip(1)).clamp(0, 1), atol=1e-5, rtol=0)
    torch.save({"0": {"LUT": torch.zeros(3, 33, 33, 32)}}, folder / "LUTs.pth")
    with pytest.raises(ValueError, match="not a 3D table"):
        load_adaptive_lut(folder)
    torch.save({"0": {"LUT": torch.zeros(3, 33, 33, 33)}}, folder / "LUTs.pth")
    with pytest.raises(ValueError, match="holds 1 tables"):
        load_adaptive_lut(folder)
    (folder / "LUTs.pth").unlink()
    with pytest.raises(ValueError, match="must be a checkpoint file"):
        load_adaptive_lut(folder)


def test_simulated_pairs(tmp_path):
    for path in PHOTOS[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = ev.simulated_pairs(tmp_path, experts=1, seed=5)
    assert [pair.expert for pair in found] == ["photographer"] * 2 + ["1"] * 2
    loaded = [ev.load_pair(pair) for pair in found]
    torch.testing.assert_close(loaded[0][1], pairs.photo_tensor(found[0].target), atol=1e-6, rtol=0)
    assert torch.equal(loaded[0][0], loaded[2][0]) and not torch.equal(loaded[0][1], loaded[2][1])
    np.testing.assert_allclose(loaded[0][2].label, 0, atol=1e-6)
    scores = [measure_attributes(x) for x in (loaded[3][1], loaded[1][1])]
    np.testing.assert_allclose(loaded[3][2].label, attribute_labels(scores[0], scores[1][0], limit=2.5)[0], atol=0.02)
    again = ev.load_pair(ev.simulated_pairs(tmp_path, experts=1, seed=6)[0])
    assert not torch.equal(again[0], loaded[0][0])
    report = ev.evaluate_pairs(tiny.one_step_pipeline(), found[2:])
    assert {"labels", "automatic"} <= report["methods"].keys() and report["data"]["experts"] == ["1"]
    assert report["data"]["protocol"] == "simulated"


def test_data_protocols():
    photos = [ev.Pair(Path(f"a{n}-kme.tif"), Path("x")) for n in range(4501, 5001)]
    data = ev.describe_data(photos, "fivek-upe")
    assert data["split"] == "the 500 published test photos" and data["split_sha256"] == "d3c5d449c3318ddb"
    assert "do not compare" in ev.describe_data(photos[1:], "fivek-upe")["split"]
    assert "do not compare" in ev.describe_data(photos, "fivek-480p")["split"]
    assert ev.describe_data(photos, "fivek-csrnet", "sRGB PNG")["rendering_stated_by"] == "user"
    assert pairs.describe_sizes([(720, 480), (480, 853)], "fivek-480p") == (
        "long side 720 to 853 px, short side 480 px (1 landscape, 1 portrait)"
    )
    assert pairs.describe_sizes([(512, 340)], "yan") == "512x340 px"
    assert "short side is 480 px: do not compare" in pairs.describe_sizes([(720, 480), (512, 340)], "fivek-480p")
    with pytest.raises(ValueError, match="`protocol` must be one of paired, simulated, fivek-upe"):
        ev.describe_data(photos, "fivek")


@pytest.mark.parametrize(
    "protocol, list_name",
    [
        ("fivek-upe", "fivek/upe_test_500.txt"),
        ("fivek-dpe", "fivek/dpe_3dlut_test.txt"),
        ("fivek-480p", "fivek/dpe_3dlut_test.txt"),
        *((f"ppr10k-{expert}", "ppr10k/test.txt") for expert in "abc"),
        ("yan", "yan2016/uniform_set_test_id.txt"),
    ],
)
def test_published_splits(protocol, list_name):
    path = ROOT.parent / "shared" / "data" / "splits" / list_name
    if not path.is_file():
        pytest.skip("no lists")
    photos = [ev.Pair(Path(f"{Path(name).stem}.tif"), Path("x")) for name in ev.read_names(path)]
    data = ev.describe_data(photos, protocol)
    assert data["split"] == f"the {len(photos)} published test photos"
    assert data["title"] == ev.DATA_PROTOCOLS[protocol].title and data["rendering_stated_by"] == "protocol"


def test_names(folders, experts, tmp_path):
    (tmp_path / "split.txt").write_text("# test photos\na0002  # the second\n\n")
    names = ev.read_names(tmp_path / "split.txt")
    assert names == ["a0002"]
    assert [pair.source.stem for pair in ev.expert_pairs(*experts, names)] == ["a0002-kme_01"] * 3
    assert list(ev.folder_photos("inputs", folders[1], ["b.png"])) == ["b"]
    with pytest.raises(ValueError, match="none.txt cannot be read"):
        ev.read_names(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="lacks 1 of 2 names: a0009"):
        ev.expert_pairs(*experts, ["a0001", "a0009"])


def test_expert_distance_and_fid_are_of_the_whole_set(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for n in range(6):
        for side in ("input", "target"):
            tiny.save_pattern(tmp_path / side / f"{n}.png", rng)
    network = write_inception(tmp_path / "inception-2015-12-05.pt")
    features = inception_features(network)
    monkeypatch.setattr("diffretouch.evaluation.report.FID_PHOTOS", 6)
    found = ev.pair_names(tmp_path / "input", tmp_path / "target")
    report = ev.evaluate_methods([ev.untouched()], found, fid_weights=network)
    sides = [torch.stack([features(pairs.photo_tensor(pair[side])) for pair in found]) for side in (0, 1)]
    np.testing.assert_allclose(report["mean"]["input"]["fid"], frechet_distance(*sides), rtol=1e-4)
    same = ev.evaluate_methods([ev.untouched()], [(target, target) for _, target in found])
    assert same["mean"]["input"]["expert_distance"] == pytest.approx(0, abs=1e-3)
    assert report["mean"]["input"]["expert_distance"] > 0.1
    assert "features" not in report["photos"][0]["input"] and "fid" not in report["missing"]
    assert f"{report['mean']['input']['fid']:.1f}" in ev.report_table(report)
    assert report["weights"] == {"fid": runs.file_digest(network)[:16]}
    assert f"FID weights (sha256 {report['weights']['fid']})" in ev.report_table(report)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    missing = ev.evaluate_methods([ev.untouched()], found)["missing"]["fid"]
    assert "inception-2015-12-05.pt" in missing and str(tmp_path) not in missing


def test_what_is_not_finite_is_named(folders, monkeypatch):
    broken = ev.Method("broken", "makes NaN", lambda source, target, pair: (source * np.nan, {}))
    with pytest.raises(ValueError, match="broken: what it makes of .*a.png is not finite"):
        ev.evaluate_methods([broken], ev.pair_names(*folders))
    monkeypatch.setattr(report, "gmsd", lambda image, source: image.sum() * np.nan)
    with pytest.raises(ValueError, match="input: gmsd of .*a.png is not finite"):
        ev.evaluate_methods([ev.untouched()], ev.pair_names(*folders))


def test_refuses(folders):
    inputs, targets = folders
    with pytest.raises(ValueError, match="`inputs` must be a folder"):
        ev.pair_names(inputs / "none", targets)
    (targets / "c.png").write_bytes((targets / "a.png").read_bytes())
    with pytest.raises(ValueError, match="unpaired: c"):
        ev.pair_names(inputs, targets)
    (targets / "c.png").unlink()
    (targets / "a.jpg").write_bytes((targets / "a.png").read_bytes())
    with pytest.raises(ValueError, match="holds a.jpg and a.png"):
        ev.pair_names(inputs, targets)
    (targets / "a.jpg").unlink()
    Image.new("RGB", (25, 30)).save(targets / "a.png")
    with pytest.raises(ValueError, match="no photo could be measured; a.png: .* differ in size: 30x24 and 25x30"):
        ev.evaluate_methods([ev.untouched()], ev.pair_names(inputs, targets)[:1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ev.evaluate_methods([], []), "`pairs` must hold at least one"),
        (lambda: ev.evaluate_methods([ev.untouched()] * 2, [("a", "b")]), "`methods` must have different names"),
        (lambda: ev.evaluate_methods([ev.Method("a\nb", "", None)], [("a", "b")]), "names of one line, got 'a.nb'"),
        (lambda: ev.peer_methods(["magic"]), "`peer` must be one of autocontrast.*'magic'"),
        (lambda: ev.controllability(None, PHOTOS, values=4), "`values` must be an odd number"),
        (lambda: ev.controllability(None, PHOTOS, samples=1), "`samples` must be at least 2"),
        (lambda: ev.controllability(None, []), "`photos` must name at least one"),
        (lambda: ev.simulated_pairs(ROOT / "tests" / "photos", []), "`folder` must hold photos"),
    ],
)
def test_refuses_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
