import json
import sys
from itertools import combinations

import numpy as np
import pytest
import torch

from diffretouch import evaluation as ev
from diffretouch import metrics
from diffretouch.attributes import attribute_labels, measure_attributes
from diffretouch.evaluation import pairs

from . import tiny


def test_diversity(folders):
    """Best-of-N, mean-of-N and spread against their definitions, by results of the pipeline itself."""
    found, pipe = ev.pair_names(*folders), tiny.one_step_pipeline()
    run = ev.diversity(pipe, found, samples=3, seed=5)
    best, means, spread, pairwise = [], [], [], []
    for source, target in found:
        image, wanted = (pairs.photo_tensor(path) for path in (source, target))

        def draw(n, c=None, image=image):
            noise = torch.Generator().manual_seed(5 + n)
            return (pipe(image, c, generator=noise, output_type="pt").images * 255).round() / 255

        images = torch.cat([draw(n) for n in range(3)])
        quality = [metrics.psnr(x[None], wanted).item() for x in images]
        couples = [max(a, b) for a, b in combinations(quality, 2)]
        best.append([np.mean(quality), np.mean(couples), max(quality)])
        means.append([np.mean(quality)])
        means[-1] += [np.mean([metrics.psnr(sum(pair)[None] / 2, wanted).item() for pair in combinations(images, 2)])]
        means[-1] += [metrics.psnr(images.mean(0, keepdim=True), wanted).item()]
        pairwise.append(np.mean([metrics.delta_e76(a[None], b[None]) for a, b in combinations(images, 2)]))
        usual = torch.cat([draw(n, [0, 0, 0, 0]) for n in range(3)])
        spread.append(attribute_labels(measure_attributes(usual), limit=100.0).std(0).tolist())
    np.testing.assert_allclose(run["unknown"]["best"], np.mean(best, 0), atol=1e-4)
    np.testing.assert_allclose(run["unknown"]["mean"], np.mean(means, 0), atol=1e-4)
    np.testing.assert_allclose(run["unknown"]["diversity"], np.mean(pairwise), rtol=1e-4)
    np.testing.assert_allclose(list(run["usual"]["spread"].values()), np.mean(spread, 0), rtol=1e-3, atol=1e-5)
    assert [(row["low"], row["high"]) for row in run["ranges"]] == [(0, 1), (1, 2), (2, 3)]
    assert run["ranges"][2]["change"] > run["ranges"][0]["change"]
    json.dumps(run)
    assert run["photos"] == run["pairs"] == 2 and run["steps"] == 2
    own = tiny.one_step_pipeline(sampling_steps=3)
    assert ev.diversity(own, found[:1], samples=2)["steps"] == 3
    once = ev.diversity(own, found[:1], samples=2, steps=1)
    assert once["unknown"] == once["usual"]  # one step draws no style
    report = ev.evaluate_pairs(pipe, found)
    table = ev.report_table({**report, "diversity": {"tiny": run}})
    assert "tiny: PSNR dB of" in table and "(2, 3]" in table and "best of, c unknown" in table


def test_samples_are_kept_and_shared_by_experts(experts, tmp_path, monkeypatch):
    """A stopped run goes on; the samples of a photo are drawn once, whoever's version they are compared with."""
    found, pipe = ev.expert_pairs(*experts), tiny.one_step_pipeline()
    fresh = ev.diversity(pipe, found, samples=2, steps=1)
    single = [ev.diversity(pipe, found[n : n + 2], samples=2, steps=1) for n in (0, 2, 4)]
    for kind in ("unknown", "usual"):
        for key in ("best", "mean"):
            np.testing.assert_allclose(fresh[kind][key], np.mean([run[kind][key] for run in single], 0), rtol=1e-6)
        assert fresh[kind]["diversity"] == pytest.approx(single[0][kind]["diversity"])
    assert (fresh["photos"], fresh["pairs"]) == (2, 6)
    cache = ev.Cache(tmp_path / "cache")
    assert ev.diversity(pipe, found, samples=2, steps=1, cache=cache) == fresh
    assert len(list(cache.folder.iterdir())) == 2

    def never(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr(sys.modules["diffretouch.evaluation.diversity"], "load_pair", never)
    assert ev.diversity(pipe, found, samples=2, steps=1, cache=cache) == fresh
    for other in ({"samples": 3}, {"seed": 1}, {"steps": 2}):
        with pytest.raises(ValueError, match="no photo could be measured; .*drawn again"):
            ev.diversity(pipe, found, **{"samples": 2, "steps": 1, **other}, cache=cache)
    with pytest.raises(ValueError, match="`pairs` must hold at least one pair"):
        ev.diversity(pipe, [])
