"""How sure a difference is: paired comparisons of methods over photos, with intervals, p and wins (SciPy)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEVEL = 0.95
ROUNDING = 1e-9  # of the largest difference: a spread below is none
FEW = 8  # photos below which an interval is hardly one
INTERVALS = {
    "t": "Student's t interval and test",
    "bootstrap": "bootstrap interval (BCa, 9999 draws) and sign-flip permutation test",
}


def uncertainty(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    metrics: Mapping[str, int],
    against: str,
    *,
    interval: str = "t",
) -> dict:
    """The spread over photos of every method's measures, and its paired difference from another method.

    What is drawn at random are the photos: several experts' versions of one photo count as their mean.

    Args:
        rows: of a report's `photos`, one a pair.
        names: of the methods in them.
        metrics: dict from a measure to 1 (higher is better), -1 (lower is better) or 0 (neither).
        against (`str`): the method that the others are compared with.
        interval (`str`): of `INTERVALS`.

    Returns:
        `dict`: method -> metric -> `mean`, `sd` (None for one photo), `n`, and for all others than `against` what
        `paired_difference` says of it.
    """
    values = {name: {m: photo_means(rows, name, m) for m in metrics if m in rows[0][name]} for name in names}
    result = {}
    for name in names:
        result[name] = {}
        for metric, own in values[name].items():
            spread = {"mean": own.mean().item(), "n": len(own)}
            spread["sd"] = own.std(ddof=1).item() if len(own) > 1 else None
            if name != against:
                spread |= paired_difference(own - values[against][metric], metrics[metric], interval=interval)
            result[name][metric] = spread
    return result


def photo_means(rows: Sequence[Mapping[str, Any]], name: str, metric: str) -> np.ndarray:
    """One value a photo, in the order of the rows: the mean over the experts' versions of it."""
    by_photo = {}
    for row in rows:
        by_photo.setdefault(row["photo"], []).append(row[name][metric])
    return np.array([np.mean(values) for values in by_photo.values()])


def paired_difference(differences: np.ndarray, better: int = 1, *, interval: str = "t") -> dict:
    """What can be said of a mean difference, from one difference for each photo.

    Args:
        differences (`numpy.ndarray`): (n,).
        better (`int`): 1 where a positive difference is a win, -1 where a negative one is, 0 for neither.
        interval (`str`): of `INTERVALS`.

    Returns:
        `dict`: `difference` (mean), `wins` and `losses` (photos), and with SciPy and two photos or more `low`, `high`
        (the interval of `LEVEL`; not where the bootstrap degenerates) and `p`, two-sided, not corrected for the number
        of comparisons.
    """
    if interval not in INTERVALS:
        raise ValueError(f"`interval` must be one of {', '.join(INTERVALS)}, got {interval!r}.")
    result = {"difference": differences.mean().item()}
    if better:
        result |= {"wins": int((better * differences > 0).sum()), "losses": int((better * differences < 0).sum())}
    if len(differences) < 2 or not has_scipy():
        return result
    if np.ptp(differences) <= ROUNDING * np.abs(differences).max():  # t is infinite, all signs are still as likely
        same, extreme = result["difference"], 2.0 ** (1 - len(differences))
        p = 1.0 if same == 0 else 0.0 if interval == "t" else extreme
        return {**result, "low": same, "high": same, "p": p}
    from scipy import stats

    if interval == "t":
        test = stats.ttest_1samp(differences, 0)
        bounds = test.confidence_interval(LEVEL)
    else:
        options = {"n_resamples": 9999, "rng": 0, "vectorized": True}
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # told by NaN
            bounds = stats.bootstrap((differences,), np.mean, confidence_level=LEVEL, **options).confidence_interval
        sides = (differences, np.zeros_like(differences))
        mean = lambda x, y, axis: (x - y).mean(axis)  # noqa: E731
        test = stats.permutation_test(sides, mean, permutation_type="samples", **options)
    result["p"] = float(test.pvalue)
    if np.isfinite([bounds.low, bounds.high]).all():
        result |= {"low": float(bounds.low), "high": float(bounds.high)}
    return result


def has_scipy() -> bool:
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        return False
    return True


def within_noise(spread: Mapping[str, Any]) -> bool:
    """Whether a difference of `uncertainty` may as well be none: its interval holds 0, or its test does not reject it.

    Both, because the bootstrap interval of few photos is too narrow: that of two is no wider than their difference.
    """
    return "p" in spread and (spread.get("low", 0) <= 0 <= spread.get("high", 0) or spread["p"] >= 1 - LEVEL)


def caution(count: int, interval: str) -> str:
    """What to keep in mind about intervals from `count` photos; empty where there are enough."""
    if count < 2:
        return "one photo: no difference can be tested"
    if count >= FEW:
        return ""
    weak = {
        "t": "a t interval leans on normal differences, which so few cannot show",
        "bootstrap": "a bootstrap interval of so few is too narrow",
    }
    return f"only {count} photos: {weak[interval]}; {FEW} or more are a start"
