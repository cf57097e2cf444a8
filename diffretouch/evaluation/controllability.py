"""What the sliders do: order, span, cross-talk, and what else a retouch changes. The figures of a model card."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES, attribute_labels, measure_attributes
from diffretouch.metrics import (
    clipped_share,
    delta_e76,
    gradient_correlation,
    psnr,
    sample_diversity,
    spearman,
    srgb_to_lab,
)
from diffretouch.pixels import shrink

from .pairs import as_array, as_batch, photo_tensor, simulated_camera
from .runs import Cache, file_digest, for_each_photo, model_digest, of_photo, versions
from .words import counted

if TYPE_CHECKING:
    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline


def controllability(
    pipe: "DiffRetouchPipeline", photos: Sequence[Path], *, values: int = 9, seed: int = 0, steps: int | None = None,
    samples: int = 4, size: int = 256, camera: bool = True, cache: Cache | None = None,
    description: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Move every slider of a model through its range on every photo, all with the same noise, and measure the results.

    Args:
        pipe ([`DiffRetouchPipeline`]).
        photos: paths of finished photos.
        values (`int`): positions of each slider from -1 to 1, odd.
        seed (`int`): of the noise and of the simulated camera.
        steps (`int`, *optional*): denoising steps; the model's own by default.
        samples (`int`): seeds whose results at c = 0 are compared.
        size (`int`): long side of the photos, px.
        camera (`bool`): take the finish away with the simulated camera first; `False` for photos that have none.
        cache ([`Cache`], *optional*): where results are kept and found again.

    Returns:
        `dict`: `photos` (one record each), `left_out` (photos that failed -> why), `summary` (see `summarise`) and the
        settings.
    """
    if isinstance(values, bool) or values < 3 or values % 2 == 0:
        raise ValueError(f"`values` must be an odd number of at least 3, got {values!r}.")
    if samples < 2:
        raise ValueError(f"`samples` must be at least 2, got {samples!r}.")
    photos = [Path(photo) for photo in photos]
    if not photos:
        raise ValueError("`photos` must name at least one photo.")
    steps = steps or pipe.config.default_steps
    settings = {"values": values, "seed": seed, "steps": steps, "samples": samples, "size": size, "camera": camera}
    model, made_with = model_digest(pipe), versions(str(pipe.device))

    def measure(path):
        with of_photo(path):
            key = cache and ["controllability", settings, model, made_with, file_digest(path), path.name]
        record = cache.get(key) if cache else None
        if record is None:
            with of_photo(path):
                record = {"photo": path.name, **_one_photo(pipe, path, **settings)}
            if cache:
                cache.put(key, record)
        return record

    name, description = (lambda path: path.name), description or "Moving the sliders"
    records, left_out = for_each_photo(measure, photos, name=name, description=description)
    names = "\n".join(sorted(record["photo"] for record in records))
    return {
        **settings,
        "scales": list(pipe.config.attribute_scales),
        "split_sha256": hashlib.sha256(os.fsencode(names)).hexdigest()[:16],
        "model_sha256": model[:16],
        "versions": made_with,
        "summary": summarise(records, values, pipe.config.attribute_scales),
        "photos": records,
        "left_out": left_out,
    }


@torch.no_grad()
def _one_photo(pipe, path, *, values, seed, steps, samples, size, camera):
    finished = shrink(photo_tensor(path), size)
    source = as_batch(simulated_camera(as_array(finished), path.name, seed)) if camera else finished
    noise = lambda n=0: torch.Generator().manual_seed(seed + n)  # noqa: E731

    usual = [0.0] * len(ATTRIBUTES)  # not None: that is unknown attributes

    def retouch(image, c, generator, **kwargs):
        images = pipe(image, c, num_inference_steps=steps, generator=generator, output_type="pt", **kwargs).images
        return (images.cpu() * 255).round() / 255

    # 1. c = 0, its time, and other seeds
    start = time.perf_counter()
    automatic = retouch(source, usual, noise())
    seconds = time.perf_counter() - start
    others = retouch(source, usual, [noise(n) for n in range(samples)], num_samples=samples)

    # 2. Every slider, one batch each
    scores, warmth, structure, clipping, paces, reaches = [], [], [], [], [], []
    for i in range(len(ATTRIBUTES)):
        c = torch.zeros(values, len(ATTRIBUTES))
        c[:, i] = torch.linspace(-1, 1, values)
        images = retouch(source, c, [noise() for _ in range(values)])
        scores.append(measure_attributes(images).tolist())
        warmth.append(srgb_to_lab(images)[:, 2].mean((1, 2)).tolist())
        structure.append(gradient_correlation(images, source.expand_as(images)).tolist())
        paces.append(delta_e76(images[1:], images[:-1]).tolist())
        reaches.append(delta_e76(images[-1:], images[:1]).item())
        clipping.append((100 * (clipped_share(images) - clipped_share(source))).tolist())

    # 3. The finished photo itself, which needs no retouch
    untouched = retouch(finished, usual, noise())
    return {
        "scores": scores,  # [slider][value][attribute]
        "b": warmth,
        "structure": structure,
        "clipping": clipping,
        "paces": paces,  # [slider]: dE76 from each position to the next
        "reaches": reaches,  # [slider]: dE76 from end to end
        "clipping_finished": (100 * (clipped_share(finished) - clipped_share(source))).item(),
        "diversity": sample_diversity(others).item(),
        "drift": delta_e76(untouched, finished).item(),
        "psnr_input": psnr(source, finished).item(),
        "delta_e76_input": delta_e76(source, finished).item(),
        "psnr": psnr(automatic, finished).item(),
        "delta_e76": delta_e76(automatic, finished).item(),
        "seconds": seconds,
    }


_MEANS = ("clipping_finished", "diversity", "drift", "psnr_input", "delta_e76_input", "psnr", "delta_e76")


def slider_labels(record: Mapping[str, Any], scales: Sequence[float]) -> torch.Tensor:
    """(slider, value, attribute): how far each result's attributes lie from those of c = 0, in units of c."""
    scores = torch.tensor(record["scores"])
    centre = scores[:, scores.shape[1] // 2]  # (4,4): the same result four times
    return attribute_labels(scores, centre, scales=scales, limit=100.0)


def summarise(records: Sequence[Mapping[str, Any]], values: int, scales: Sequence[float]) -> dict[str, Any]:
    """Means over the photos.

    * `spearman_mean`, `spearman_worst`: rank correlation of slider and measured attribute; a slider without any effect
      counts as 0.
    * `span`: from -1 to 1: colorfulness and contrast by ratio (geometric mean), mean b* of CIELAB, mean luma.
    * `moves[slider][attribute]`, units of c: what a slider moves from -1 to 1: its own attribute with its sign, the
      others' absolute values. `crosstalk`: the largest other by its own.
    * `unevenness`: SD over mean of the dE76 from each position of a slider to the next: 0 for a slider that moves at
      one pace, about 1 for one that jumps. `detour`: the sum of those steps over the dE76 from end to end, less 1: 0
      for a straight way. What papers on continuous editing (SliderEdit, 2025) ask of a slider, in terms of colour.
    * `diversity`: mean dE76 between seeds at c = 0; `drift`: dE76 by which a finished photo is changed at c = 0.
    * `structure_mean`, `structure_worst`: correlation of luma gradients with the input, over all slider positions.
    * `clipping`, `clipping_worst`: growth of the clipped share in % of the picture, at c = 0 and at the worst end of a
      slider (mean over the photos); `clipping_finished`: what the photographer's own finish clips more than the input.
    """
    position = torch.linspace(-1, 1, values)
    scores = torch.tensor([record["scores"] for record in records])  # (P, slider, value, attribute)
    own = torch.stack([scores[:, i, :, i] for i in range(4)], 1)  # (P,4,values)
    ranks = spearman(position, own).nan_to_num(0.0)  # (P,4)
    moves = torch.stack([slider_labels(record, scales) for record in records])
    moves = moves[:, :, -1] - moves[:, :, 0]  # (P, slider, attribute)
    signed, absolute = moves.mean(0), moves.abs().mean(0)
    table = torch.where(torch.eye(4).bool(), signed, absolute)
    ratio = (own[..., -1].clamp(min=1e-6) / own[..., 0].clamp(min=1e-6)).log().mean(0).exp()
    b = torch.tensor([record["b"] for record in records])[:, 2]
    structure, clipping = (torch.tensor([r[key] for r in records]) for key in ("structure", "clipping"))
    paces, reaches = (torch.tensor([record[key] for record in records]) for key in ("paces", "reaches"))
    mean = lambda key: sum(record[key] for record in records) / len(records)  # noqa: E731
    named = lambda row: dict(zip(ATTRIBUTES, row.tolist(), strict=True))  # noqa: E731
    share = absolute.masked_fill(torch.eye(4).bool(), 0).amax(1) / signed.diagonal().abs().clamp(min=1e-6)
    return {
        "photos": len(records),
        "spearman_mean": named(ranks.mean(0)),
        "spearman_worst": named(ranks.amin(0)),
        "span": {
            "colorfulness": ratio[0].item(),
            "contrast": ratio[1].item(),
            "temperature": (b[:, -1] - b[:, 0]).mean().item(),
            "brightness": (own[:, 3, -1] - own[:, 3, 0]).mean().item(),
        },
        "moves": {name: named(row) for name, row in zip(ATTRIBUTES, table, strict=True)},
        "crosstalk": named(share),
        "unevenness": named((paces.std(2, correction=0) / paces.mean(2).clamp(min=1e-6)).mean(0)),
        "detour": named((paces.sum(2) / reaches.clamp(min=1e-6) - 1).clamp(0, 10).mean(0)),
        "structure_mean": structure.mean().item(),
        "structure_worst": structure.min().item(),
        "clipping": clipping[:, 0, values // 2].mean().item(),
        "clipping_worst": clipping[:, :, [0, -1]].mean(0).max().item(),
        **{key: mean(key) for key in _MEANS},
        "seconds": float(np.median([record["seconds"] for record in records])),
    }


def step_table(
    pipes: "Mapping[str, DiffRetouchPipeline]",
    photos: Sequence[Path],
    steps: Sequence[int] = (1, 2, 4, 8, 20),
    **settings: Any,
) -> list[dict[str, Any]]:
    """What more denoising steps change: a row for every model and number of steps, means over the four sliders.

    Args:
        pipes: dict of [`DiffRetouchPipeline`] by name.
        photos, settings: as for `controllability`.

    Returns:
        list of `dict`: `model`, `steps`, `psnr` and `delta_e76` against the finished photo (with the simulated
        camera), `spearman`, `reach` (what a slider moves its attribute from -1 to 1, units of c), `crosstalk`,
        `diversity`, `drift`, `seconds` for one photo at c = 0 (median).
    """
    rows = []
    for name, pipe in pipes.items():
        for count in steps:
            run = controllability(pipe, photos, steps=count, description=counted(count, "step"), **settings)
            summary = run["summary"]
            mean = lambda key, of=summary: sum(of[key].values()) / len(ATTRIBUTES)  # noqa: E731
            row = {"model": name, "steps": count}
            if run["camera"]:
                row |= {"psnr": summary["psnr"], "delta_e76": summary["delta_e76"]}
            row |= {"spearman": mean("spearman_mean"), "crosstalk": mean("crosstalk")}
            row["reach"] = sum(summary["moves"][a][a] for a in ATTRIBUTES) / len(ATTRIBUTES)
            rows.append(row | {key: summary[key] for key in ("diversity", "drift", "seconds")})
    return rows
