"""What another noise changes, and how far c reaches: a model as a source of several good retouches, not of one."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes
from diffretouch.metrics import EQUAL_PSNR, clipped_share, delta_e76, gradient_correlation, psnr, sample_diversity

from .figures import random_attributes
from .pairs import Pair, load_pair
from .runs import Cache, file_digest, for_each_photo, model_digest, of_photo, versions

if TYPE_CHECKING:
    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

RANGES = ((0, 1), (1, 2), (2, 3))  # of the largest |value| of c, as in figure 1 of the paper


def diversity(
    pipe: "DiffRetouchPipeline",
    pairs: Sequence[Pair],
    *,
    samples: int = 8,
    seed: int = 0,
    steps: int | None = None,
    cache: Cache | None = None,
    description: str = "Drawing samples",
) -> dict:
    """Several retouches of every photo by their noise alone, and by random c of growing size.

    Args:
        pipe ([`DiffRetouchPipeline`]).
        pairs: of [`Pair`], or (input path, target path).
        samples (`int`): N, at least 2; also the number of c in each range.
        seed (`int`): of the first noise and of the c.
        steps (`int`, *optional*): denoising steps; by default the model's own for several samples. In one, c = None is
            c = 0.
        cache ([`Cache`], *optional*): where results are kept and found again.

    Returns:
        `dict`: `samples`, `seed`, `steps`, `photos` and `pairs` (their numbers), `left_out` (failed photo -> why), and
        means over the photos, of which several experts' versions count as their mean. For "unknown" (c = None) and
        "usual" (c = 0): `best`, expected PSNR of the best of 1..N samples (an oracle: the target chooses); `mean`,
        expected PSNR of the mean of 1..N; `diversity`, dE76 between two samples; `spread`, SD of each attribute over
        the samples, units of c. `ranges`: for random c by the size of its largest value, `change` (dE76 from c = 0),
        `structure` and `clipping` as in the tables.
    """
    if isinstance(samples, bool) or samples < 2:
        raise ValueError(f"`samples` must be at least 2, got {samples!r}.")
    steps = steps or pipe.config.sampling_steps or pipe.config.default_steps
    settings = {"samples": samples, "seed": seed, "steps": steps}
    by_photo: dict[Path, list[Pair]] = {}
    for pair in (Pair(*pair) for pair in pairs):
        by_photo.setdefault(pair.source, []).append(pair)
    if not by_photo:
        raise ValueError("`pairs` must hold at least one pair.")
    model, made_with = model_digest(pipe), versions(str(pipe.device))

    def measure(own):
        files = [path for pair in own for path in (pair.source, pair.target)]
        with of_photo(*files):
            key = cache and ["diversity", settings, model, made_with, *map(_identity, own)]
        record = cache.get(key) if cache else None
        if record is None:
            with of_photo(*files):
                record = _one_photo(pipe, own, **settings)
            if cache:
                cache.put(key, record)
        return record

    name = lambda own: own[0].source.name  # noqa: E731
    records, left_out = for_each_photo(measure, list(by_photo.values()), name=name, description=description)
    mean = lambda kind, key: np.mean([r[kind][key] for r in records], axis=0).tolist()  # noqa: E731
    number = sum(len(own) for source, own in by_photo.items() if source.name not in left_out)
    result = {**settings, "photos": len(records), "pairs": number, "left_out": left_out}
    for kind in ("unknown", "usual"):
        result[kind] = {key: mean(kind, key) for key in ("best", "mean", "diversity")}
        result[kind]["spread"] = dict(zip(ATTRIBUTES, mean(kind, "spread"), strict=True))
    result["ranges"] = [
        {"low": low, "high": high, **{key: mean(str(high), key) for key in ("change", "structure", "clipping")}}
        for low, high in RANGES
    ]
    return result


def _identity(pair):
    """What of a pair decides the results, for the cache. The name seeds the simulated camera."""
    own = [file_digest(pair.source), file_digest(pair.target), pair.simulated]
    return own if pair.simulated is None else [*own, pair.expert, pair.source.name]


@torch.no_grad()
def _one_photo(pipe, own, *, samples, seed, steps):
    """What one photo's samples are like, and how close they come to each expert's version of it."""
    source, target, _ = load_pair(own[0])
    targets = [target, *(load_pair(other)[1] for other in own[1:])]
    noise = [torch.Generator().manual_seed(seed + n) for n in range(samples)]
    start = [generator.get_state() for generator in noise]

    def retouch(c, seeds):
        generators = [noise[n].set_state(start[n]) for n in seeds]
        # One by one: a batch of large photos is a lot of memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about extrapolation: it is what is measured
            images = [
                pipe(source, one, num_inference_steps=steps, generator=g, output_type="pt").images.cpu()
                for one, g in zip(c, generators, strict=True)
            ]
        return (torch.cat(images) * 255).round() / 255

    record = {}
    for kind, c in (("unknown", None), ("usual", [0.0] * len(ATTRIBUTES))):
        images = retouch([c] * samples, range(samples))
        quality = [psnr(images, target.expand_as(images)).double().tolist() for target in targets]
        scores = measure_attributes(images)
        labels = attribute_labels(scores, scales=pipe.config.attribute_scales, limit=100.0)
        record[kind] = {
            "best": np.mean([best_of(values) for values in quality], 0).tolist(),
            "mean": np.mean([mean_of(images - target) for target in targets], 0).tolist(),
            "diversity": sample_diversity(images).item(),
            "spread": labels.std(0).tolist(),
        }
    usual = retouch([[0.0] * len(ATTRIBUTES)], [0])
    for low, high in RANGES:
        asked = random_attributes(low, high, samples, seed)
        images = retouch([c[None] for c in asked], [0] * samples)
        record[str(high)] = {
            "change": delta_e76(images, usual.expand_as(images)).mean().item(),
            "structure": gradient_correlation(images, source.expand_as(images)).mean().item(),
            "clipping": (100 * (clipped_share(images) - clipped_share(source))).mean().item(),
        }
    return record


def best_of(values: Iterable[float]) -> list[float]:
    """The expected largest of n of N values drawn without repetition, for n = 1..N: no luck of the order in it."""
    values, count = sorted(values), len(values)
    return [
        sum(value * math.comb(k, n - 1) for k, value in enumerate(values)) / math.comb(count, n)
        for n in range(1, count + 1)
    ]


def mean_of(errors: torch.Tensor) -> list[float]:
    """The expected PSNR of the mean of n of N samples, n = 1..N: over the N runs of n in a ring, all counting alike.

    Args:
        errors (`torch.Tensor`): (N,...), what each sample differs by from the target.
    """
    flat, count = errors.flatten(1), len(errors)
    products = (flat @ flat.T).double() / flat.shape[1]
    place, curve = torch.arange(count), []
    for n in range(1, count + 1):
        ring = (place[:, None] + place[:n]) % count
        squares = products[ring[:, :, None], ring[:, None]].mean((1, 2))  # of the mean's error
        curve.append(-10 * squares.clamp(min=10 ** (-EQUAL_PSNR / 10)).log10().mean().item())
    return curve


def diversity_rows(run: Mapping[str, Any]) -> list[list[list[str]]]:
    """Tables of cells, the head first: curves over the number of samples, spread, ranges of c."""
    kinds = {"unknown": "c unknown", "usual": "c = 0"}
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < run["samples"]] + [run["samples"]]
    curves = [["PSNR dB of", *map(str, counts), "dE76 of two"]]
    for kind, title in kinds.items():
        for key, name in (("best", "the best of"), ("mean", "the mean of")):
            cells = [f"{run[kind][key][n - 1]:.2f}" for n in counts]
            curves.append([f"{name}, {title}", *cells, f"{run[kind]['diversity']:.2f}"])
    spread = [["SD over seeds, units of c", *ATTRIBUTES]]
    spread += [[title, *(f"{run[kind]['spread'][a]:.3f}" for a in ATTRIBUTES)] for kind, title in kinds.items()]
    ranges = [["largest |c|", "dE76 from c = 0", "structure", "clip %"]]
    for row in run["ranges"]:
        head = f"{'[' if row['low'] == 0 else '('}{row['low']}, {row['high']}]"
        ranges.append([head, f"{row['change']:.2f}", f"{row['structure']:z.3f}", f"{row['clipping']:+z.2f}"])
    return [curves, spread, ranges]
