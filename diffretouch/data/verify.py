"""What is wrong with a data set, before an hour of training is lost on it."""

import numpy as np
from PIL import Image

# Inputs of FiveK differ from an expert's version by 0.12 in mean brightness on average, single photos by up to 0.25.
_PAIR_BRIGHTNESS, _SET_BRIGHTNESS, _GAMMA_GAIN, _SAME_PICTURE = 0.3, 0.2, 3.0, 0.5


def verify(photos, limit=2000):
    """Look through a data set: unpaired names, unreadable files, other sizes, other pictures, mismatch of brightness.

    A mismatch of brightness is the field's commonest mistake: inputs that were exported linear, or by another program
    or with other settings than the experts' versions.

    Args:
        photos: `UnpairedPhotos`, or `PairedPhotos` made with `strict=False`.
        limit (`int`): how many photos are opened, spread over the set.

    Returns:
        `dict`: `errors` and `warnings`, a sentence each; `figures` of the whole set; `description`, see `describe`.
    """
    report = {"errors": [], "warnings": [], "figures": {}}
    paired = hasattr(photos, "targets")
    count = len(photos.ids if paired else photos.paths)
    if paired:
        for name, missing in photos.unpaired.items():
            report["errors"].append(
                f"{name}: {len(missing)} photos of the other folders are missing: {_some(missing)}"
            )
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
    report["figures"] |= {"median": figures, "pairs_compared": len(columns["psnr"])}
    difference = figures["target_brightness"] - figures["input_brightness"]
    gains = {
        "the inputs look linear (not sRGB-encoded)": np.median(columns["psnr_encoded"] - columns["psnr"]),
        "the targets look linear, or the inputs encoded twice": np.median(
            columns["psnr_linearised"] - columns["psnr"]
        ),
    }
    for meaning, gain in gains.items():
        if gain > _GAMMA_GAIN:
            report["warnings"].append(f"brightness mismatch of the whole set: {meaning}; a gamma gains {gain:.1f} dB")
    if abs(difference) > _SET_BRIGHTNESS:
        report["warnings"].append(
            f"brightness mismatch of the whole set: targets are {difference:+.2f} from the inputs (median), as by "
            "another export of one side"
        )


def _some(names, most=8):
    return ", ".join(map(str, names[:most])) + (" ..." if len(names) > most else "")
