import numpy as np
import pytest
import scipy.stats

from diffretouch.evaluation import paired_difference, uncertainty
from diffretouch.evaluation.intervals import caution, within_noise


def rows(rng, photos=9, experts=("",)):
    a, b = rng.normal(20, 3, (2, photos, len(experts)))
    return [
        {
            "photo": f"{n}.png",
            "expert": expert,
            "ours": {"psnr": a[n, k]},
            "theirs": {"psnr": b[n, k], "clipping": 1.0},
        }
        for n in range(photos)
        for k, expert in enumerate(experts)
    ]


def test_against_scipy():
    table = rows(np.random.default_rng(0))
    ours, theirs = ([row[name]["psnr"] for row in table] for name in ("ours", "theirs"))
    found = uncertainty(table, ["ours", "theirs"], {"psnr": 1, "clipping": 0}, "theirs")
    test = scipy.stats.ttest_rel(ours, theirs)
    bounds = test.confidence_interval(0.95)
    own = found["ours"]["psnr"]
    np.testing.assert_allclose([own["low"], own["high"], own["p"]], [bounds.low, bounds.high, test.pvalue])
    np.testing.assert_allclose([own["mean"], own["sd"]], [np.mean(ours), np.std(ours, ddof=1)])
    difference = np.subtract(ours, theirs)
    assert own["wins"] == (difference > 0).sum() and own["losses"] == (difference < 0).sum() and own["n"] == 9
    assert found["theirs"]["psnr"] == {"mean": np.mean(theirs), "sd": np.std(theirs, ddof=1), "n": 9}
    assert "clipping" not in found["ours"] and "difference" not in found["theirs"]["clipping"]


def test_bootstrap_covers_as_often_as_it_says():
    """And its test is the exact one over all signs, counted out here."""
    rng = np.random.default_rng(1)
    differences = rng.normal(0.5, 1, 8)
    found = paired_difference(differences, interval="bootstrap")
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    means = (signs * differences[:, None]).mean(0)
    more = (means >= differences.mean() - 1e-12).mean()
    assert found["p"] == pytest.approx(2 * min(more, (means <= differences.mean() + 1e-12).mean()))
    covered = 0
    for _ in range(60):
        one = paired_difference(rng.exponential(1, 25) - 1, interval="bootstrap")
        covered += one["low"] <= 0 <= one["high"]
    assert 48 <= covered <= 60
    assert paired_difference(differences, interval="bootstrap") == found


def test_versions_of_one_photo_count_as_one():
    table = rows(np.random.default_rng(2), photos=4, experts=("A", "B", "C"))
    found = uncertainty(table, ["ours", "theirs"], {"psnr": 1}, "theirs")["ours"]["psnr"]
    means = [np.mean([r["ours"]["psnr"] - r["theirs"]["psnr"] for r in table[3 * n : 3 * n + 3]]) for n in range(4)]
    assert found["n"] == 4
    bounds = scipy.stats.ttest_1samp(means, 0).confidence_interval(0.95)
    np.testing.assert_allclose([found["low"], found["high"]], bounds)


def test_a_bootstrap_of_few_photos_makes_nothing_real():
    """Its interval of two or three that agree in sign leaves 0 out, always; the exact test over signs does not."""
    rng = np.random.default_rng(3)
    for count in (2, 3, 5):
        for _ in range(10):
            found = paired_difference(1 + 0.1 * rng.normal(size=count), interval="bootstrap")
            assert found["low"] > 0 and found["p"] >= 2 / 2**count and within_noise(found)
    assert not within_noise(paired_difference(1 + 0.1 * rng.normal(size=8), interval="bootstrap"))
    assert within_noise({"difference": 1.0, "p": 0.5}) and not within_noise({"difference": 1.0})
    assert "low" not in paired_difference(np.array([0.0, 0.0, 0.0, 1e-300]), interval="bootstrap")


def test_few_photos_are_cautioned():
    for interval, why in (("t", "leans on normal"), ("bootstrap", "too narrow")):
        assert caution(8, interval) == "" and caution(1, interval).startswith("one photo")
        assert caution(7, interval).startswith("only 7 photos: ") and why in caution(7, interval)


@pytest.mark.filterwarnings("error")
def test_a_spread_of_rounding_is_none():
    """SciPy would warn of lost precision, in the middle of a table."""
    rounded = np.array([0.1, 0.1, 0.1 + 2e-16])
    for interval, p in (("t", 0), ("bootstrap", 0.25)):
        found = paired_difference(rounded, interval=interval)
        assert found["low"] == found["high"] == found["difference"] and found["p"] == p and found["wins"] == 3


def test_what_cannot_be_tested():
    assert paired_difference(np.array([2.0]), -1) == {"difference": 2.0, "wins": 0, "losses": 1}
    same = paired_difference(np.zeros(3), 0)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert paired_difference(np.ones(3))["p"] == 0
    assert paired_difference(np.ones(3), interval="bootstrap")["p"] == 0.25
    with pytest.raises(ValueError, match="`interval` must be one of t, bootstrap, got 'z'"):
        paired_difference(np.zeros(3), interval="z")
