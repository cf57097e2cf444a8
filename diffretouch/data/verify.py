"""What is wrong with a data set, before an hour of training is lost on it."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffretouch.colour import srgb_to_linear

if TYPE_CHECKING:
    from diffretouch.data.paired import PairedPhotos

# Single pairs: FiveK's inputs differ from an expert's version by up to 0.25 in mean brightness.
_PAIR_BRIGHTNESS, _SAME_PICTURE = 0.3, 0.5

# Medians of a whole set, (lowest, highest) that is not told. 13 pairs of FiveK (camera original to Expert C) have 0.37
# stops, contrast x1.19, colour x1.47, a spread of 0.46 stops, gains of -8.6 and -10.6 dB by gammas. The same with one
# side a stop off: -0.63, -0.47 or 1.37 stops; swapped: -0.37, x0.84, x0.68; linear inputs: 2.0 stops and 10.6 dB;
# linear targets: 6.9 dB; inputs encoded twice: x1.6 and 9.1 dB; inputs rendered flat: x1.7.
_STOPS, _CONTRAST, _SPREAD, _GAMMA_GAIN = (-0.15, 1.1), (0.9, 1.5), 0.85, 2.0


def verify(photos: "PairedPhotos", limit: int = 2000) -> dict[str, Any]:
    """Look through a data set: unpaired names, unreadable files, other sizes, other pictures, mismatch of brightness.

    A mismatch of brightness is the field's commonest mistake: inputs that were exported linear, or by another program
    or with other settings than the experts' versions.

    Args:
        photos: `UnpairedPhotos`, or `PairedPhotos` made with `strict=False`.
        limit (`int`): how many photos are opened, spread over the set.

    Returns:
        `dict`: `errors` and `warnings`, a sentence each; `figures` of the whole set; `description`, see `describe`.
    """
    report: dict[str, Any] = {"errors": [], "warnings": [], "figures": {}}
    paired = hasattr(photos, "targets")
    count = len(photos.ids if paired else photos.paths)
    if paired:
        for name, missing in photos.unpaired.items():
            report["errors"].append(f"{name}: lacks {len(missing)} of the other folders' photos: {_some(missing)}")
        if photos.missing_ids:
            report["warnings"].append(
                f"listed, but in no folder: {len(photos.missing_ids)}: {_some(photos.missing_ids)}"
            )
    if not count:
        report["errors"].append("no photo is left")
        return report

    chosen = sorted({int(i) for i in np.linspace(0, count - 1, min(count, limit)).round()})
    rows = []
    for index in chosen:
        paths = [photos.inputs[index], *photos.targets[index]] if paired else [photos.paths[index]]
        opened = []
        for path in paths:
            try:
                opened.append(photos.thumbnails(path))
            except ValueError as error:
                report["errors"].append(" ".join(str(error).split()))
        if len(opened) < len(paths):
            continue
        size = opened[0][1]
        if min(size) < photos.size:
            report["warnings"].append(f"{paths[0]}: {size[0]}x{size[1]} px is less than samples of {photos.size} px")
        for path, (version, other) in zip(paths[1:], opened[1:], strict=True):
            if other != size:
                report["errors"].append(
                    f"sizes differ: {paths[0]} {size[0]}x{size[1]} px, {path} {other[0]}x{other[1]} px"
                )
                continue
            rows.append(_compare(opened[0][0], version))
            _judge(report, paths[0], path, rows[-1])
    report["figures"]["photos_opened"] = len(chosen)
    if rows:
        _judge_set(report, {key: np.array([row[key] for row in rows]) for key in rows[0]})
    if not report["errors"]:
        report["description"] = photos.describe()
    return report


def _compare(source, version, side=64):
    a, b = (
        np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX), np.float64) / 255
        for image in (source, version)
    )
    error = lambda x: -10 * np.log10(np.mean((x - b) ** 2) + 1e-8)  # noqa: E731
    rank = [np.argsort(np.argsort(x.mean(-1).ravel())) for x in (a, b)]  # ranks: tone curves leave them
    spread = min(a.mean(-1).std(), b.mean(-1).std())
    return {
        "input_brightness": a.mean(),
        "target_brightness": b.mean(),
        "stops": np.log2((srgb_to_linear(b).mean() + 1e-4) / (srgb_to_linear(a).mean() + 1e-4)),
        "contrast": (b.mean(-1).std() + 1e-3) / (a.mean(-1).std() + 1e-3),
        "colour": (np.ptp(b, -1).mean() + 1e-3) / (np.ptp(a, -1).mean() + 1e-3),
        "psnr": error(a),
        "psnr_encoded": error(a ** (1 / 2.2)),
        "psnr_linearised": error(a**2.2),
        "same_picture": np.corrcoef(rank)[0, 1] if spread > 0.01 else 1.0,
    }


def _judge(report, source, version, row):
    difference = row["target_brightness"] - row["input_brightness"]
    if row["same_picture"] < _SAME_PICTURE:
        report["warnings"].append(
            f"other pictures? {source} and {version} hardly correlate ({row['same_picture']:.2f})"
        )
    elif abs(difference) > _PAIR_BRIGHTNESS:
        report["warnings"].append(f"brightness: {version} is {difference:+.2f} from {source}")
    if row["psnr"] > 60:
        report["warnings"].append(f"the same: {source} and {version}")


def _judge_set(report, columns):
    figures = {key: round(float(np.median(values)), 4) for key, values in columns.items()}
    spread = round(float(np.std(columns["stops"])), 4)
    report["figures"] |= {"median": figures, "spread_in_stops": spread, "pairs_compared": len(columns["psnr"])}
    encoded = np.median(columns["psnr_encoded"] - columns["psnr"])
    linearised = np.median(columns["psnr_linearised"] - columns["psnr"])
    stops, contrast, colour = figures["stops"], figures["contrast"], figures["colour"]
    found = []
    if encoded > _GAMMA_GAIN:
        found.append(f"the inputs look linear (not sRGB-encoded): a gamma gains {encoded:.1f} dB")
    if linearised > _GAMMA_GAIN:
        found.append(f"the targets look linear, or the inputs encoded twice: a gamma gains {linearised:.1f} dB")
    if not _STOPS[0] <= stops <= _STOPS[1]:
        swapped = stops < 0 and contrast < 1 and colour < 1
        found.append(
            f"brightness: the targets are {stops:+.2f} stops from the inputs (median; usual are {_STOPS[0]} to "
            f"{_STOPS[1]}), as by another export of one side"
            + ("; or swapped folders? They are flatter and duller, too" if swapped else "")
        )
    if not _CONTRAST[0] <= contrast <= _CONTRAST[1]:
        found.append(
            f"contrast: the targets have x{contrast:.2f} that of the inputs (median; usual are x{_CONTRAST[0]} to "
            f"x{_CONTRAST[1]}), as by another rendering of one side"
        )
    if spread > _SPREAD and len(columns["stops"]) >= 8:
        found.append(f"the pairs differ by {spread:.2f} stops among themselves, as if two renderings were mixed")
    report["warnings"] += [f"mismatch of the whole set: {sentence}" for sentence in found]


def _some(names, most=8):
    return ", ".join(map(str, names[:most])) + (" ..." if len(names) > most else "")
