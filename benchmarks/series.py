"""What `--consistent` does for a series: how alike its photos come out, with and without it.

    python benchmarks/series.py PHOTOS [SPLIT]

Every finished photo of PHOTOS (of those that the text file SPLIT names) becomes a series of six shots: views of it
that overlap, each left by a simulated camera with its own exposure and white balance. Each series is retouched by
`retouch_batch` twice. Printed are GLC (the variance of mean a and b in a series, PPR10K; less is more alike), the
standard deviation of mean luma in it, and the mean dE76 to the photographer's own finish, with 95 % intervals of the
paired differences.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import stats

from diffretouch import DiffRetouchPipeline
from diffretouch.batch import plan_batch, retouch_batch, series_looks, series_target
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.data.simulated_experts import camera_input
from diffretouch.photo import load_photo, save_photo
from diffretouch.settings import Settings, resolved

SHOTS = 6


def lab_of(pixels):
    return srgb_to_lab(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None])[0]


def retouched(pipe, source, out, consistent):
    plan = plan_batch(source, out, format="png")
    settings = resolved(Settings(seed=0), pipe, "small")
    looks = list(series_looks(pipe, plan.tasks, settings, jobs=1)) if consistent else None
    rows = list(retouch_batch(pipe, plan.tasks, settings, series=series_target(looks) if consistent else None, jobs=1))
    assert all(row["status"] == "done" for row in rows), rows
    return [load_photo(row["result"]).pixels for row in sorted(rows, key=lambda row: row["photo"])]


def main(folder, split=None):
    names = Path(split).read_text().split() if split else sorted(path.name for path in Path(folder).iterdir())
    pipe, rows = DiffRetouchPipeline.from_pretrained("small"), []
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        photo = Image.open(Path(folder) / name).convert("RGB")
        photo.thumbnail((512, 512))
        with tempfile.TemporaryDirectory() as folder_of_series:
            source, finished = Path(folder_of_series) / "in", []
            for shot in range(SHOTS):  # 85 % of each side: one motif, framed a little otherwise
                width, height = (round(0.85 * side) for side in photo.size)
                x, y = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
                finished.append(np.asarray(photo.crop((x, y, x + width, y + height)), np.float32) / 255)
                source.mkdir(exist_ok=True)
                save_photo(camera_input(finished[-1], rng), source / f"{shot}.png")
            row = []
            for consistent in (False, True):
                results = retouched(pipe, source, Path(folder_of_series) / str(consistent), consistent)
                labs = [lab_of(pixels) for pixels in results]
                means = torch.stack([lab.mean((1, 2)) for lab in labs])
                error = [(lab - lab_of(wanted)).norm(dim=0).mean() for lab, wanted in zip(labs, finished, strict=True)]
                row.append([means[:, 1:].var(0, unbiased=False).mean(), means[:, 0].std(), np.mean(error)])
        rows.append(row)
    rows = np.array(rows, float)  # (series, without and with, measures)
    for measure, title in enumerate(("GLC", "SD of mean L*", "dE76 to the finish")):
        without, with_it = rows[:, 0, measure], rows[:, 1, measure]
        low, high = stats.ttest_rel(with_it, without).confidence_interval()
        print(f"{title}: {without.mean():.2f} -> {with_it.mean():.2f}, difference 95 % [{low:+.2f}, {high:+.2f}], "
              f"less in {(with_it < without).sum()} of {len(rows)} series")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
