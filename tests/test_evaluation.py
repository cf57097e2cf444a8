import json

import numpy as np
import pytest
import skimage.metrics
from PIL import Image

from diffretouch.evaluation import evaluate_pairs, pair_names, report_table

from .tiny import tiny_pipeline


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for side in ("input", "target"):
        (tmp_path / side).mkdir()
        for name in ("b", "a"):
            pixels = rng.integers(40, 200, (24, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{name}.png")
    return tmp_path / "input", tmp_path / "target"


def test_report(folders):
    pairs = pair_names(*folders)
    assert [p.name for p, _ in pairs] == ["a.png", "b.png"]
    report = evaluate_pairs(tiny_pipeline(), pairs, seed=3)
    assert report["steps"] == 2 and report["seed"] == 3 and len(report["photos"]) == 2
    for (source, target), row in zip(pairs, report["photos"], strict=True):
        a, b = (np.asarray(Image.open(path)) for path in (source, target))
        np.testing.assert_allclose(row["input"]["psnr"], skimage.metrics.peak_signal_noise_ratio(b, a), rtol=1e-5)
        assert row["automatic"]["psnr"] != row["input"]["psnr"]
    mean = np.mean([row["matched"]["delta_e76"] for row in report["photos"]])
    np.testing.assert_allclose(report["mean"]["matched"]["delta_e76"], mean)
    json.dumps(report)
    table = report_table(report)
    assert f"{report['mean']['automatic']['psnr']:.2f}" in table and "oracle" in table
    again = evaluate_pairs(tiny_pipeline(), pairs, seed=3)
    assert again == report


def test_refuses(folders):
    inputs, targets = folders
    with pytest.raises(ValueError, match="`inputs` must be a folder"):
        pair_names(inputs / "none", targets)
    (targets / "c.png").write_bytes((targets / "a.png").read_bytes())
    with pytest.raises(ValueError, match="unpaired: c"):
        pair_names(inputs, targets)
    (targets / "c.png").unlink()
    Image.new("RGB", (24, 30)).save(targets / "a.png")
    with pytest.raises(ValueError, match="differ in size"):
        evaluate_pairs(tiny_pipeline(), pair_names(inputs, targets))
