"""Measure a pipeline against experts' versions of photos it was not trained on."""

import hashlib
import platform
from pathlib import Path

import torch
from tqdm.auto import tqdm

import diffretouch
from diffretouch.metrics import delta_e76, psnr
from diffretouch.photo import load_photo

PROTOCOLS = {
    "input": "the untouched photo",
    "automatic": "c = 0",
    "matched": "c by attributes_of(input, reference=target): an oracle, it sees the target's four scores",
}


def pair_names(inputs, targets):
    """Pairs (input path, target path) with the same stem in both folders, sorted; unpaired names are an error."""
    sides = []
    for name, folder in (("inputs", inputs), ("targets", targets)):
        if not Path(folder).is_dir():
            raise ValueError(f"`{name}` must be a folder, got {folder}.")
        sides.append({p.stem: p for p in sorted(Path(folder).iterdir()) if p.is_file() and not p.name.startswith(".")})
    unpaired = sorted(sides[0].keys() ^ sides[1].keys())
    if unpaired or not sides[0]:
        raise ValueError(
            f"`inputs` and `targets` must hold the same names; unpaired: {', '.join(unpaired[:8]) or 'all'}."
        )
    return [(sides[0][stem], sides[1][stem]) for stem in sides[0]]


def evaluate_pairs(pipe, pairs, *, seed=0, steps=None):
    """PSNR (dB) and mean CIE76 colour difference of every protocol on every pair.

    Args:
        pipe ([`DiffRetouchPipeline`]).
        pairs: (input path, target path), see `pair_names`.
        seed (`int`): the same noise seed for every photo.
        steps (`int`, *optional*): denoising steps; the model's own by default.

    Returns:
        `dict`: `photos` (a row each), `mean`, and what was run (`seed`, `steps`, `pairs_sha256`, versions).
    """
    steps = steps or pipe.config.default_steps
    noise = lambda: torch.Generator().manual_seed(seed)  # noqa: E731
    rows = []
    for source_path, target_path in tqdm(pairs, desc="Evaluating", delay=1, leave=False):
        source, target = (_tensor(path) for path in (source_path, target_path))
        if source.shape != target.shape:
            raise ValueError(f"{source_path} and {target_path} differ in size: {source.shape} and {target.shape}.")
        matched = pipe.attributes_of(source, target, num_inference_steps=steps, generator=noise())
        retouched = {
            "input": source,
            "automatic": _retouch(pipe, source, None, steps, noise()),
            "matched": _retouch(pipe, source, matched, steps, noise()),
        }
        rows.append({"photo": source_path.name, "c": [round(v, 3) for v in matched.tolist()]})
        for name, image in retouched.items():
            rows[-1][name] = {"psnr": psnr(image, target).item(), "delta_e76": delta_e76(image, target).item()}
    digest = hashlib.sha256("\n".join(p.name for p, _ in pairs).encode()).hexdigest()[:16]
    return {
        "mean": {
            name: {metric: sum(row[name][metric] for row in rows) / len(rows) for metric in ("psnr", "delta_e76")}
            for name in PROTOCOLS
        },
        "photos": rows,
        "seed": seed,
        "steps": steps,
        "pairs_sha256": digest,
        "versions": {
            "diffretouch": diffretouch.__version__,
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
    }


def report_table(report):
    """The means as a small table of text."""
    lines = [f"{'protocol':10} {'PSNR dB':>8} {'dE76':>6}   {len(report['photos'])} photos, "
             f"seed {report['seed']}, {report['steps']} steps"]  # fmt: skip
    for name, meaning in PROTOCOLS.items():
        mean = report["mean"][name]
        lines.append(f"{name:10} {mean['psnr']:8.2f} {mean['delta_e76']:6.2f}   {meaning}")
    return "\n".join(lines)


def _tensor(path):
    return torch.from_numpy(load_photo(path).pixels).permute(2, 0, 1)[None].clamp(0, 1)


def _retouch(pipe, photo, c, steps, generator):
    """As a file would hold it: rounded to 8 bits."""
    image = pipe(photo, c, num_inference_steps=steps, generator=generator, output_type="pt").images
    return (image.cpu() * 255).round() / 255
