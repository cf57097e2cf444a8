import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from diffretouch import evaluation as ev
from diffretouch.attributes import attribute_labels, measure_attributes
from diffretouch.evaluation import pairs
from diffretouch.evaluation.controllability import summarise
from diffretouch.metrics import delta_e76, psnr, sample_diversity

from . import tiny

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def test_controllability():
    pipe = tiny.one_step_pipeline()
    run = ev.controllability(pipe, PHOTOS[:3], values=3, samples=2, size=48)
    summary, records = run["summary"], run["photos"]
    assert [record["photo"] for record in records] == [path.name for path in PHOTOS[:3]]

    # The second photo, temperature slider at -1, by hand
    finished = pairs.shrink(pairs.photo_tensor(PHOTOS[1]), 48)
    rng = np.random.default_rng([0, zlib.crc32(PHOTOS[1].name.encode())])
    source = pairs.as_batch(pairs.camera_input(pairs.as_array(finished), rng))
    generator = torch.Generator().manual_seed(0)
    image = pipe(source, [0, 0, -1, 0], generator=generator, output_type="pt").images
    image = (image * 255).round() / 255
    np.testing.assert_allclose(records[1]["scores"][2][0], measure_attributes(image)[0], rtol=1e-3, atol=1e-4)

    # What is said to be at c = 0 is: None are unknown attributes
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    usual = (pipe(source, [0.0] * 4, num_samples=2, generator=seeds, output_type="pt").images * 255).round() / 255
    assert records[1]["psnr"] == pytest.approx(psnr(usual[:1], finished).item(), abs=1e-4)
    assert records[1]["diversity"] == pytest.approx(sample_diversity(usual).item(), rel=1e-3)
    own = pipe(finished, [0.0] * 4, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert records[1]["drift"] == pytest.approx(delta_e76((own * 255).round() / 255, finished).item(), rel=1e-3)

    for n, name in enumerate(run_names := list(summary["spearman_mean"])):
        ranks = [scipy.stats.spearmanr([-1, 0, 1], [v[n] for v in r["scores"][n]]).statistic for r in records]
        ranks = np.nan_to_num(ranks)
        np.testing.assert_allclose(summary["spearman_mean"][name], ranks.mean(), atol=1e-12)
        np.testing.assert_allclose(summary["spearman_worst"][name], ranks.min(), atol=1e-12)
    span = np.mean([record["scores"][3][2][3] - record["scores"][3][0][3] for record in records])
    np.testing.assert_allclose(summary["span"]["brightness"], span, atol=1e-6)
    ratio = np.exp(np.mean([np.log(record["scores"][0][2][0] / record["scores"][0][0][0]) for record in records]))
    np.testing.assert_allclose(summary["span"]["colorfulness"], ratio, rtol=1e-5)
    moved = []
    for record in records:
        scores = torch.tensor(record["scores"][1])
        labels = attribute_labels(scores, scores[1], limit=100.0)
        moved.append((labels[2] - labels[0]).abs().numpy())
    others = {name: summary["moves"]["contrast"][name] for name in run_names if name != "contrast"}
    np.testing.assert_allclose(list(others.values()), np.delete(np.mean(moved, 0), 1), atol=1e-5)
    json.dumps(run)
    table = ev.controllability_table({"controllability": {"tiny": run}})
    assert "Finished photos taken down by the simulated camera: 3 (sha256" in table


def test_controllability_of_a_perfect_and_of_a_dead_slider():
    values = torch.linspace(-1, 1, 5)
    scores = torch.full((4, 5, 4), 0.4)
    scores[3, :, 3] = 0.5 + 0.1 * values  # brightness obeys, the others do nothing
    record = dict.fromkeys(
        ("clipping_finished", "diversity", "drift", "psnr_input", "delta_e76_input", "psnr", "delta_e76"), 1.0
    )
    record |= {"scores": scores.tolist(), "seconds": 1.0, "b": [[0.0] * 5] * 4}
    record |= {"structure": [[1.0] * 5] * 4, "clipping": [[0.0] * 5] * 4}
    paces = [[1.0, 1.0, 1.0, 1.0], [0.0, 4.0, 0.0, 0.0], [1.0, 2.0, 1.0, 2.0], [0.0] * 4]
    record |= {"paces": paces, "reaches": [4.0, 4.0, 3.0, 0.0]}
    summary = summarise([record], 5, (0.3, 0.45, 0.13, 0.6))
    assert summary["spearman_mean"] == dict(colorfulness=0, contrast=0, temperature=0, brightness=pytest.approx(1))
    assert summary["span"]["brightness"] == pytest.approx(0.2, abs=1e-6) and summary["span"]["contrast"] == 1
    assert summary["crosstalk"]["brightness"] == 0
    # One pace on a straight way; one jump; a way that goes back and forth; no way at all
    assert list(summary["unevenness"].values()) == pytest.approx([0, 3**0.5, 1 / 3, 0])
    assert list(summary["detour"].values()) == pytest.approx([0, 0, 1, 0], abs=1e-6)


def test_step_table():
    rows = ev.step_table(
        {"tiny": tiny.one_step_pipeline()}, PHOTOS[:1], (1, 3), values=3, samples=2, size=32, camera=False
    )
    assert [row["steps"] for row in rows] == [1, 3] and "psnr" not in rows[0]
    assert rows[0]["reach"] != rows[1]["reach"]
