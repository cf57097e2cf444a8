"""The report: every method on every pair, the means, and what was run."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTE_SCALES, ATTRIBUTES, attribute_coordinates, measure_attributes
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.metrics import (
    MetricUnavailable,
    after_affine,
    after_curves,
    after_gain,
    clipped_share,
    csrnet_lab_l2,
    delta_e76,
    delta_e2000,
    frechet_distance,
    gmsd,
    gradient_correlation,
    group_consistency,
    human_centred,
    inception_features,
    lpips_metric,
    psnr,
    ssim,
)

from .cost import measure_costs
from .intervals import INTERVALS, LEVEL, has_scipy, photo_means, uncertainty
from .methods import Method, retouch_methods, untouched
from .pairs import DATA_PROTOCOLS, Pair, describe_data, describe_sizes, load_mask, load_pair, open_pair, photo_groups
from .pictures import picture
from .runs import Cache, file_digest, for_each_photo, model_digest, of_photo, versions
from .tables import COLUMNS
from .words import counted

if TYPE_CHECKING:
    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

AFTER = {"psnr_gain": after_gain, "psnr_affine": after_affine, "psnr_curves": after_curves}
BRIGHTNESS = ATTRIBUTES.index("brightness")
FID_PHOTOS = 100  # fewer say nothing: the FID is biased by the number of photos


def evaluate_pairs(
    pipe: "DiffRetouchPipeline | Mapping[str, DiffRetouchPipeline]", pairs: Sequence[Any], *, seed: int = 0,
    steps: int | None = None, best_of: int = 1, peers: Sequence[Any] = (), **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Every protocol of one pipeline or several on every pair; the untouched photo and other methods beside.

    Args:
        pipe: a [`DiffRetouchPipeline`], or a dict of several by name.
        pairs: of [`Pair`], or (input path, target path), see `expert_pairs` and `pair_names`.
        seed (`int`): the same noise seed for every photo.
        steps: denoising steps, a number or several; the model's own by default.
        best_of (`int`): from 2 on, also the best of this many seeds (an oracle).
        peers: of [`Method`], see `peer_methods` and `pipeline_method`.
        settings: see `evaluate_methods`.

    Returns:
        `dict`: see `evaluate_methods`; also `seed`, `steps`, and `models`: name -> SHA-256 (16 digits) of its weights.
    """
    pipes = pipe if isinstance(pipe, Mapping) else {"model": pipe}
    pairs = [Pair(*pair) for pair in pairs]
    counts = list(steps) if isinstance(steps, (list, tuple)) else [steps]
    labels = bool(pairs) and all(pair.label is not None or pair.simulated is not None for pair in pairs)
    own = []
    for name, one in pipes.items():
        for count in counts:
            model = f" {name}" if len(pipes) > 1 else ""
            taken = f" {counted(count or one.config.default_steps, 'step')}" if len(counts) > 1 else ""
            own += retouch_methods(one, suffix=model + taken, seed=seed, steps=count, best_of=best_of, labels=labels)
    blind, oracles = ([peer for peer in peers if peer.oracle == sees] for sees in (False, True))
    methods = [untouched(), *blind, *own, *oracles]
    if own:
        settings["against"] = settings.get("against") or own[0].name
        settings.setdefault("device", str(next(iter(pipes.values())).device))
    report = evaluate_methods(methods, pairs, **settings)
    used = [count or one.config.default_steps for one in pipes.values() for count in counts]
    used = list(dict.fromkeys(used))
    models = {name: model_digest(one)[:16] for name, one in pipes.items()}
    return {**report, "seed": seed, "steps": used[0] if len(used) == 1 else used, "models": models}


def evaluate_methods(
    methods: Sequence[Method], pairs: Sequence[Any], *, protocol: str | None = None, rendering: str | None = None,
    csrnet_lab: bool = False, lpips_weights: str | os.PathLike[str] | None = None,
    fid_weights: str | os.PathLike[str] | None = None, pictures: int = 0, cache: Cache | None = None,
    missing: Mapping[str, str] | None = None, against: str | None = None, interval: str = "t",
    groups: str | None = None, released_glc: bool = False, cost: bool = False, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Measure methods on pairs.

    Results are rounded to 8 bits before they are measured, as a file would hold them. A photo that cannot be read or
    measured, or that a method fails on, is left out for all methods and experts, and said: the others go on.

    Args:
        methods: of [`Method`], with different names.
        pairs: of [`Pair`], or (input path, target path).
        protocol, rendering (`str`, *optional*): what data this is, see `describe_data`.
        csrnet_lab (`bool`): also the error of the released CSRNet script, with its bug.
        lpips_weights (*optional*): a weights file for LPIPS, see [`diffretouch.losses.perceptual.Lpips`].
        fid_weights (*optional*): the Inception network for the FID, see [`diffretouch.metrics.inception_features`].
        pictures (`int`): keep small pictures, error maps and histograms of the first so many pairs, for `write_page`.
        cache ([`Cache`], *optional*): where results are kept and found again.
        missing (`dict`): method -> why it could not be run, to be recorded.
        against (`str`, *optional*): the method that the others are compared with, photo by photo; the first by
            default (of `evaluate_pairs`, the first model at c = 0).
        interval (`str`): of that comparison, "t" or "bootstrap", see `paired_difference`.
        groups (`str`, *optional*): a regular expression: what of a photo's stem it matches names its series, whose
            consistency is measured; the protocol's own by default. See [`diffretouch.metrics.group_consistency`].
        released_glc (`bool`): that consistency as the released script divides it.
        cost (`bool`): also what each method costs for one photo, see
            [`diffretouch.evaluation.cost.measure_costs`]; measured anew in every run.
        device (`str`): where the methods run (of `evaluate_pairs`, the first model's by default), to be recorded.

    Returns:
        `dict`: `photos` (a row per pair), `mean` and, with several experts, `experts` (means by method), `methods`
        (`meaning`, `oracle`, and of other pipelines `sha256`, 16 digits, of the weights), `cost` where asked for,
        `uncertainty` (`against`, `interval`, `level`, and blocks as of `mean` and `experts`: see
        [`diffretouch.evaluation.intervals.uncertainty`]), `missing` (metric or method -> reason), `left_out` (photo ->
        reason), `data` (of the photos measured), `weights` (metric -> SHA-256, 16 digits), `versions`.

    Raises:
        ValueError: an argument is none of the above, or no photo at all can be measured.
    """
    pairs = [Pair(*pair) for pair in pairs]
    if not pairs:
        raise ValueError("`pairs` must hold at least one pair.")
    if len({method.name for method in methods}) != len(methods):
        raise ValueError(f"`methods` must have different names, got {', '.join(m.name for m in methods)}.")
    for method in methods:
        if not method.name.isprintable() or not method.name:
            raise ValueError(f"`methods` must have names of one line, got {method.name!r}.")
    reserved = {"photo", "expert"} & {method.name for method in methods}
    if reserved:  # a row holds these beside the methods
        raise ValueError(f"`methods` must not be named {reserved.pop()!r}: rows hold that beside them.")
    if against is not None and against not in {method.name for method in methods}:
        raise ValueError(f"`against` must be one of {', '.join(m.name for m in methods)}, got {against!r}.")
    if interval not in INTERVALS:
        raise ValueError(f"`interval` must be one of {', '.join(INTERVALS)}, got {interval!r}.")
    sources = {pair.source for pair in pairs}
    if len({source.name for source in sources}) < len(sources):
        raise ValueError("`pairs` must hold photos of different names.")
    if len({(pair.source, pair.expert) for pair in pairs}) < len(pairs):
        raise ValueError("`pairs` must tell versions of one photo apart by `expert`.")
    describe_data(pairs, protocol, rendering)  # a wrong name is told at once
    missing = dict(missing or {})
    measures, features = _measures(csrnet_lab, lpips_weights, fid_weights, len(sources), missing)
    shown = set(pairs[:pictures])
    # What else decides the results: the kept ones are of these versions and weights
    weights = {"lpips": lpips_weights, "fid": fid_weights if features else None}
    weights = {name: file_digest(os.fspath(path)) for name, path in weights.items() if path is not None}
    made_with = [versions(device), weights, sorted(measures), features is not None]

    def measure(pair):
        return _row(methods, pair, measures, features, pair in shown, cache, made_with)

    name = lambda pair: pair.source.name  # noqa: E731
    rows, left_out = for_each_photo(measure, pairs, name=name, description="Evaluating")
    pairs = [pair for pair in pairs if pair.source.name not in left_out]
    data, count = describe_data(pairs, protocol, rendering), len({pair.source for pair in pairs})
    if count <= len(ATTRIBUTES):
        missing["expert_distance"] = f"needs {len(ATTRIBUTES) + 1} photos, got {count}"
    if count < FID_PHOTOS:
        missing["fid"] = _too_few(count)
        _drop_features(rows, methods)
    names = [method.name for method in methods]
    sizes = {row["photo"]: tuple(row[names[0]]["size"]) for row in rows}
    data["sizes"] = describe_sizes(sizes.values(), data["protocol"])
    report = {
        "mean": {method.name: _mean(rows, method) for method in methods},
        "photos": rows,
        "methods": {
            m.name: {"meaning": m.meaning, "oracle": m.oracle} | ({"sha256": m.weights()[:16]} if m.weights else {})
            for m in methods
        },
        "missing": missing,
        "left_out": left_out,
        "data": data,
        "pairs_sha256": data["split_sha256"],
        "weights": {name: digest[:16] for name, digest in weights.items()},
        "versions": versions(device),
    }
    if cost:
        report["cost"] = measure_costs(methods, *load_pair(pairs[0]), device=device)
    against = against or names[0]
    better = {column: direction for column, (*_, direction) in COLUMNS.items()}
    if not has_scipy():
        missing["intervals"] = "need SciPy: pip install scipy"
    report["uncertainty"] = {"against": against, "interval": interval, "level": LEVEL}
    report["uncertainty"]["mean"] = uncertainty(rows, names, better, against, interval=interval)
    own_rows = {expert: [row for row in rows if row["expert"] == expert] for expert in data["experts"]}
    if own_rows:
        report["uncertainty"]["experts"] = {
            expert: uncertainty(own, names, better, against, interval=interval) for expert, own in own_rows.items()
        }
        report["experts"] = {
            expert: {method.name: _mean(own, method) for method in methods} for expert, own in own_rows.items()
        }
    pattern = groups or DATA_PROTOCOLS[data["protocol"]].group_pattern
    if pattern:
        series = dict(zip((row["photo"] for row in rows), photo_groups(pairs, pattern), strict=True))
        _add_consistency(report, methods, series, own_rows or {"": rows}, released_glc)
    _drop_features(rows, methods)
    return report


def _drop_features(rows, methods):
    for row in rows:
        for method in methods:
            row[method.name].pop("features", None)


def _too_few(count):
    return f"needs {FID_PHOTOS} photos to mean anything, got {count}"


def _measures(csrnet_lab, lpips_weights, fid_weights, count, missing):
    """Metric -> function (image, target) -> (B,), and the feature extractor; what is unavailable goes to `missing`."""
    measures = {"psnr": psnr, "ssim": ssim, "delta_e76": delta_e76, "delta_e2000": delta_e2000}
    if csrnet_lab:
        measures["csrnet_lab"] = csrnet_lab_l2
    try:
        measures["lpips"] = lpips_metric(lpips_weights)
    except MetricUnavailable as why:
        missing["lpips"] = str(why)
    features = None
    if count < FID_PHOTOS:
        missing["fid"] = _too_few(count)
    else:
        try:
            features = inception_features(fid_weights)
        except MetricUnavailable as why:
            missing["fid"] = str(why)
    return measures, features


def _row(methods, pair, measures, features, shown, cache, made_with):
    """What all methods reach on one pair; the photos are read only if something is not in the cache."""
    row, photos = {"photo": pair.source.name, "expert": pair.expert}, None
    files = [path for path in (pair.source, pair.target, pair.mask) if path]
    with of_photo(*files):
        digests = [file_digest(path) for path in files] if cache else []
    for method in methods:
        key = cache and [
            *(method.name, method.identity(), made_with, shown, digests, pair.expert, pair.label, pair.simulated),
            pair.simulated is not None and pair.source.name,  # it seeds the simulated camera
        ]
        result = cache.get(key) if cache else None
        if result is None:
            if photos is None:
                with of_photo(*files):
                    photos = _open(pair)
            with of_photo(*files, who=method.name):
                result = _measure(method, *photos, measures, features, shown)
            if cache:
                cache.put(key, result)
        row[method.name] = result
    return row


def _open(pair):
    """-> (source, target, pair, shares outside sRGB, mask or None)"""
    photos = open_pair(pair)
    if min(photos[0].shape[-2:]) < 11:
        raise ValueError(f"{pair.source} must have sides of at least 11 px to be measured.")
    return *photos, pair.mask and load_mask(pair.mask, photos[0].shape[-2:])


@torch.no_grad()
def _measure(method, source, target, pair, outside, mask, measures, features, shown):
    image, extra = method.retouch(source, target, pair)
    if not image.isfinite().all():
        raise ValueError(f"{method.name}: what it makes of {pair.source} is not finite.")
    image = (image.clamp(0, 1) * 255).round() / 255  # as a file would hold it
    result = {name: function(image, target).item() for name, function in measures.items()}
    result |= {name: psnr(fit(image, target), target).item() for name, fit in AFTER.items()}
    if mask is not None:
        result["psnr_hc"], result["delta_e76_hc"] = (value.item() for value in human_centred(image, target, mask))
    result["structure"] = gradient_correlation(image, source).item()
    result["ssim_input"], result["gmsd"] = ssim(image, source).item(), gmsd(image, source).item()
    for name, photo in (("clipping", image), ("target_clipping", target)):
        result[name] = 100 * (clipped_share(photo) - clipped_share(source)).item()
    result["outside_srgb"] = [100 * share for share in outside]
    result["size"] = [image.shape[3], image.shape[2]]
    scores = measure_attributes(torch.cat([source, image, target])).tolist()
    result["source_attributes"], result["attributes"], result["target_attributes"] = scores
    result["mean_ab"], result["target_mean_ab"] = (
        srgb_to_lab(x)[0, 1:].mean((1, 2)).tolist() for x in (image, target)
    )
    for name, value in result.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{method.name}: {name} of {pair.source} is not finite.")
    if features is not None:
        result["features"] = [features(x).tolist() for x in (image, target)]
    if shown:
        result["picture"] = picture(image, target)
    return {**result, **extra}


def _distinct(rows, method):
    """The rows that hold what a method made: of a blind one each photo once, whatever the number of experts."""
    return rows if method.oracle else list({row["photo"]: row for row in rows}.values())


def _add_consistency(report, methods, series, rows, released):
    """GLC of every method, and of the targets, in which each photo counts once: of oracles for each expert, the mean.

    Args:
        series: photo -> the name of its series.
        rows: of each expert.
    """

    def consistency(rows, name, key="mean_ab"):
        return group_consistency([r[name][key] for r in rows], [series[r["photo"]] for r in rows], released=released)

    every = [row for own in rows.values() for row in own]
    for method in methods:
        found = {expert: consistency(own, method.name) for expert, own in rows.items()}
        mean = sum(found.values()) / len(found)
        report["mean"][method.name]["glc"] = (
            mean if method.oracle else consistency(_distinct(every, method), method.name)
        )
        for expert, means in report.get("experts", {}).items():
            means[method.name]["glc"] = found[expert]
    wanted = {expert: consistency(own, methods[0].name, "target_mean_ab") for expert, own in rows.items()}
    members = list(series.values())
    report["data"] |= {
        "series": len(set(members)),
        "series_of": series,
        "series_of_one": sum(members.count(name) == 1 for name in set(members)),
        "released_glc": released,
        "target_glc": sum(wanted.values()) / len(wanted),
    }


def _mean(rows, method):
    """The means over photos of what all have; the two distribution distances instead of their features."""
    results, distinct = ([row[method.name] for row in some] for some in (rows, _distinct(rows, method)))
    measured = (*COLUMNS, "target_clipping")
    mean = {name: photo_means(rows, method.name, name).mean().item() for name in measured if name in results[0]}
    if len({row["photo"] for row in rows}) > len(ATTRIBUTES):
        own = torch.tensor([r["attributes"] for r in distinct])
        wanted = torch.tensor([r["target_attributes"] for r in results])
        own, wanted = (attribute_coordinates(x) / torch.tensor(ATTRIBUTE_SCALES) for x in (own, wanted))
        mean["expert_distance"] = frechet_distance(own, wanted).sqrt().item()
    before, after, wanted = (
        np.array([r[f"{side}attributes"][BRIGHTNESS] for r in results]) for side in ("source_", "", "target_")
    )
    mean["brightness_bias"] = (after - wanted).mean().item()
    if len(results) > 1:
        mean["brightness_sd"] = (after - wanted).std(ddof=1).item()
        made, needed = after - before, wanted - before
        if len(results) > 2 and np.ptp(made) > 1e-6 and np.ptp(needed) > 1e-6:  # of two it is always 1 or -1
            mean["brightness_correlation"] = np.corrcoef(made, needed)[0, 1].item()
    if "features" in results[0]:
        sides = (torch.tensor([r["features"][side] for r in some]) for side, some in ((0, distinct), (1, results)))
        mean["fid"] = frechet_distance(*sides).item()
    return mean


def without_pictures(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report without the pictures that `write_page` shows, for JSON."""
    rows = [
        {name: {k: v for k, v in value.items() if k != "picture"} if isinstance(value, dict) else value
         for name, value in row.items()}
        for row in report.get("photos", [])
    ]  # fmt: skip
    return {**report, "photos": rows} if rows else dict(report)
