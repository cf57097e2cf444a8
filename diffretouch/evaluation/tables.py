"""Reports as rows of cells and sentences, which every format and the page write in their own way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffretouch.attributes import ATTRIBUTES
from diffretouch.metrics import EQUAL_PSNR

from .cost import COST_SIZE
from .diversity import diversity_rows
from .intervals import INTERVALS, LEVEL, caution, within_noise
from .words import counted

# Column of the tables -> (title, decimals, 1 if higher is better, -1 if lower is, 0); in the report by the same names.
COLUMNS = {
    "psnr": ("PSNR dB", 2, 1),
    "ssim": ("SSIM", 3, 1),
    "delta_e76": ("dE76", 2, -1),
    "delta_e2000": ("dE2000", 2, -1),
    "lpips": ("LPIPS", 3, -1),
    "fid": ("FID", 1, -1),
    "structure": ("structure", 3, 0),
    "clipping": ("clip %", 2, 0),
    "expert_distance": ("to expert", 2, -1),
    "csrnet_lab": ("CSRNet Lab", 2, -1),
    "psnr_hc": ("PSNR-HC", 2, 1),
    "delta_e76_hc": ("dE-HC", 2, -1),
    "glc": ("GLC", 2, -1),
    "psnr_gain": ("gain dB", 2, 1),
    "psnr_affine": ("3x4 dB", 2, 1),
    "psnr_curves": ("curves dB", 2, 1),
    "brightness_bias": ("light bias", 3, 0),
    "brightness_sd": ("light SD", 3, -1),
    "brightness_correlation": ("light corr", 2, 1),
    "ssim_input": ("SSIM input", 3, 0),
    "gmsd": ("GMSD input", 3, 0),
}
SECOND = list(COLUMNS).index("psnr_gain")  # from here on the columns stand in a second table
TABLES = {"protocol": list(COLUMNS)[:SECOND], "where the error is": list(COLUMNS)[SECOND:]}
LEGEND = {
    "psnr_gain": "gain, 3x4, curves dB: PSNR after one optimal gain, a global 3x4 colour transform, a curve of each "
    "channel, each the closest to the target after the limits: how much of the error is exposure, colour, local",
    "brightness_bias": "light: error of the mean luma, its mean and SD over the results, and the correlation of the "
    "change made with the change needed",
    "ssim_input": "SSIM, GMSD input: against the input, what a retouch keeps of it (1 and 0: all)",
    "psnr_hc": "HC: PPR10K's, people weigh 1 and the rest 0.5",
    "delta_e76": "dE76 is also the mean L2 in Lab of Yan et al. and SA-AdjustNet",
    "structure": "structure: correlation of luma gradients with the input",
    "clipping": "clip %: share of pixels clipped beyond the input's",
    "expert_distance": "to expert: distance of the results' and the targets' distributions of attributes, units of c "
    "(5 photos or more)",
    "csrnet_lab": "CSRNet Lab: the released CSRNet script's 8-bit Lab error with its uint8 wrap-around, for its table "
    "only",
}

SLIDER_LEGEND = (
    "Spearman: rank correlation of slider and measured attribute. Moves: by how much a slider (column) moves an "
    "attribute (row) from -1 to 1, its own with its sign. Pace uneven by: SD over mean of the dE76 from each position "
    "to the next, 0 for an even pace. Detour: the sum of these over the dE76 from end to end, less 1, 0 for a "
    "straight way."
)
COMPARED = ("psnr", "delta_e76")  # the columns whose differences the tables spell out


def table_rows(report: Mapping[str, Any], columns: Sequence[Any] = COLUMNS) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """(columns, [(expert, method, values, meaning)]) of a report, of those columns that it has."""
    columns = [c for c in columns if any(c in mean for mean in report["mean"].values())]
    rows = []
    for title, means, _ in _blocks(report):
        for name, mean in means.items():
            values = [f"{mean[c]:z.{COLUMNS[c][1]}f}" if c in mean else "-" for c in columns]
            rows.append((title, name, values, report["methods"][name]["meaning"]))
    return columns, rows


def told_name(report: Mapping[str, Any], name: str) -> str:
    """The method's name, and whether it is an oracle, for tables that do not say what the methods are."""
    return f"{name} (oracle)" if report["methods"][name]["oracle"] else name


def _blocks(report):
    """(title, means by method, uncertainty by method) of all pairs and of each expert's."""
    experts = report.get("experts", {})
    spreads = report["uncertainty"]
    yield "all experts" if experts else "", report["mean"], spreads["mean"]
    for expert, means in experts.items():
        yield expert, means, spreads["experts"][expert]


def marks(report: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    """{(expert, method, column): mark} of the means that are not shown to differ from those compared with.

    "~": within noise, they may as well be those of that method. "?": not tested.
    """
    against, found = report["uncertainty"]["against"], {}
    for title, means, spreads in _blocks(report):
        for name, mean in means.items():
            for column in [] if name == against else [c for c in COLUMNS if c in mean]:
                spread = spreads[name].get(column, {})
                if within_noise(spread):
                    found[title, name, column] = "~"
                elif "p" not in spread:
                    found[title, name, column] = "?"
    return found


def best_values(report: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """{(expert, method, column)} of the best that do not see the target, where a column has a better side.

    Only of columns whose differences are tested: a best of one photo, or of one number for all, says little.
    """
    columns, rows = table_rows(report)
    tested = {
        (title, column)
        for title, _, spreads in _blocks(report)
        for measures in spreads.values()
        for column, spread in measures.items()
        if "p" in spread
    }
    best = set()
    for expert in dict.fromkeys(expert for expert, *_ in rows):
        for k, column in enumerate(columns):
            blind = [
                (float(values[k]) * COLUMNS[column][2], name)
                for title, name, values, _ in rows
                if title == expert and values[k] != "-" and not report["methods"][name]["oracle"]
            ]
            if blind and COLUMNS[column][2] and (expert, column) in tested:
                best |= {(expert, name, column) for value, name in blind if value == max(blind)[0]}
    return best


def extra_rows(report: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """Further tables of cells, the head first: differences, cost, diversity."""
    yield from comparison_rows(report)
    yield from filter(None, [cost_rows(report)])
    for name, run in report.get("diversity", {}).items():
        for head, *rows in diversity_rows(run):
            yield [[f"{name}: {head[0]}", *head[1:]], *rows]


def comparison_rows(report: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """Rows of cells, the head first, of each `COMPARED` column: spread, difference, interval, p and wins."""
    against, level = report["uncertainty"]["against"], report["uncertainty"]["level"]
    for title, _, spreads in _blocks(report):
        for column in COMPARED:
            name, decimals, _ = COLUMNS[column]
            name = f"{name}, {title}" if title else name
            rows = [[name, "mean", "SD", f"from {against}", f"{level:.0%} interval", "p", "better on"]]
            for method, measures in spreads.items():
                spread = measures[column]
                cells = [told_name(report, method), f"{spread['mean']:.{decimals}f}"]
                cells.append("-" if spread["sd"] is None else f"{spread['sd']:.{decimals}f}")
                cells.append(f"{spread['difference']:+z.{decimals}f}" if "difference" in spread else "-")
                bounds = "low" in spread and f"[{spread['low']:z.{decimals}f}, {spread['high']:z.{decimals}f}]"
                cells.append(bounds or "-")
                p = "p" in spread and ("< 0.001" if spread["p"] < 0.001 else f"{spread['p']:.3f}")
                cells.append(p or "-")
                rows.append([*cells, f"{spread['wins']} of {spread['n']}" if "wins" in spread else "-"])
            yield rows


def cost_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows of cells, the head first, of what each method costs; empty where it was not measured."""
    rows = []
    for name, cost in report.get("cost", {}).items():
        memory = "-" if cost["memory"] is None else f"{cost['memory'] / 2**20:.0f}"
        cells = [f"{cost['parameters']:,}", f"{cost['multiply_adds'] / 1e9:.3f}", f"{1000 * cost['seconds']:.1f}"]
        rows.append([told_name(report, name), *cells, memory])
    return [[f"cost at {COST_SIZE} px", "parameters", "10^9 MAC", "ms", "peak MiB"], *rows] if rows else []


def describe_run(report: Mapping[str, Any]) -> list[str]:
    """Sentences on what was run, for tables and pages."""
    data, steps = report["data"], report.get("steps")
    what = f"{data['title']}: {data['split']} (sha256 {data['split_sha256']})"
    lines = [f"{what}. Rendering: {data['rendering']}; {data['sizes']}."]
    settings = []
    if steps is not None:
        taken = f"{', '.join(map(str, steps))} steps" if isinstance(steps, list) else counted(steps, "step")
        settings.append(f"seed {report['seed']}, {taken}")
        settings += [f"{name} (sha256 {digest})" for name, digest in report["models"].items()]
    settings += [f"{name} (sha256 {m['sha256']})" for name, m in report["methods"].items() if "sha256" in m]
    settings += [f"{COLUMNS[name][0]} weights (sha256 {digest})" for name, digest in report["weights"].items()]
    versions = report["versions"]
    settings.append(", ".join(f"{name} {versions[name]}" for name in ("diffretouch", "torch", "device")))
    missing = [
        f"Not computed: {COLUMNS[name][0]}: {why}." if name in COLUMNS else f"Not run: {name}: {why}."
        for name, why in report["missing"].items()
    ]
    clipped = next(iter(report["mean"].values()))["target_clipping"]
    targets = f"The targets themselves clip {clipped:+z.2f} % of their pixels beyond the inputs'."
    if "series" in data:
        how = ", divided by one series more, as the released script does" * data["released_glc"]
        alone = f", {data['series_of_one']} of one photo, which count as 0" * bool(data["series_of_one"])
        targets += f" GLC over {data['series']} series of {counted(data['photos'], 'photo')}{alone}{how}: "
        targets += f"the targets' is {data['target_glc']:.2f}."
    return [*lines, ", ".join(settings) + ".", *_left_out(report), *_outside(report), *missing, targets]


def _outside(report):
    """A sentence on colours that sRGB does not hold, if there are any."""
    shares = {}
    for row in report["photos"]:
        own = next(row[name].get("outside_srgb", (0, 0)) for name in report["methods"])
        shares |= {("input", row["photo"], ""): own[0], ("target", row["photo"], row["expert"]): own[1]}
    shares = {key: share for key, share in shares.items() if share > 0}
    if shares:
        sides = [side for side, *_ in shares]
        counts = [counted(sides.count(side), side) for side in dict.fromkeys(sides)]
        yield (
            f"{' and '.join(counts)} with colours outside sRGB, up to {max(shares.values()):.1f} % of the pixels, "
            "measured as limited to it."
        )


def _left_out(run, title=""):
    """A sentence on the photos that could not be measured, if there are any."""
    left_out = run.get("left_out", {})
    if left_out:
        some = "; ".join(f"{' '.join(photo.split())}: {why.rstrip('.')}" for photo, why in list(left_out.items())[:8])
        yield f"{title}Left out of all figures: {counted(len(left_out), 'photo')}: {some}" + (
            f"; and {len(left_out) - 8} more." if len(left_out) > 8 else "."
        )


def table_notes(report: Mapping[str, Any]) -> list[str]:
    """What the columns and marks of a table mean, and how far they can be trusted."""
    spreads, (columns, _) = report["uncertainty"], table_rows(report)
    against, interval, own = spreads["against"], spreads["interval"], marks(report)
    count = {title: next(iter(block.values()))["psnr"]["n"] for title, _, block in _blocks(report)}
    photos, notes = next(iter(count.values())), []
    if len(report["methods"]) > 1:
        notes.append(
            f"Differences from {against}, paired over {counted(photos, 'photo')}: "
            f"{INTERVALS[interval]}, each comparison by itself, p not corrected for their number"
        )
        if "~" in own.values():
            notes.append(f"~ within noise: that {LEVEL:.0%} interval holds 0, or p is {1 - LEVEL:.2f} or more")
        if "?" in own.values():
            notes.append(f"? not tested: {', '.join(_untested(report))}")
        cautions = {title: caution(n, interval) for title, n in count.items()}
        cautions = {title: text for title, text in cautions.items() if text}
        if len(set(cautions.values())) == 1:
            cautions = {"": next(iter(cautions.values()))}
        notes += [f"Caution, {f'{title}: ' if title else ''}{text}" for title, text in cautions.items()]
    equal = any(row[name]["psnr"] > EQUAL_PSNR - 0.01 for row in report["photos"] for name in report["methods"])
    if equal:
        notes.append(f"A result that equals its target counts as {EQUAL_PSNR:g} dB, which a mean of PSNRs leans on")
    notes += [LEGEND[c] for c in columns if c in LEGEND]
    if "cost" in report:
        width, height = next(iter(report["cost"].values()))["size"]
        notes.append(
            f"10^9 MAC: multiply-adds of convolutions and matrix products on a square of {COST_SIZE} px of noise, "
            "whatever the photo (lookups, slicing and methods without a network count none); ms and peak MiB: of "
            f"{report['photos'][0]['photo']} at {width}x{height} px and 8 bits, the median of three calls, and the "
            "memory beyond what was held before"
        )
    for name, run in report.get("diversity", {}).items():
        notes += [sentence.removesuffix(".") for sentence in _left_out(run, f"{name}: ")]
        photos, first = counted(run["photos"], "photo"), run["seed"]
        notes.append(
            f"{name}: {run['samples']} samples of {'each of ' * (run['photos'] > 1)}{photos}, seeds {first} to "
            f"{first + run['samples'] - 1}, {counted(run['steps'], 'step')}; the best of is an oracle: the target "
            f"chooses; dE76 of two: between two samples; for each range of c {run['samples']} random c with one noise"
        )
    return [f"{note}." for note in notes]


def _untested(report):
    """Why differences are not tested."""
    reasons = {}
    for title, name, column in (key for key, mark in marks(report).items() if mark == "?"):
        spread = next(spreads for other, _, spreads in _blocks(report) if other == title)[name].get(column)
        if spread is None:
            reasons["one number for all photos"] = True
        else:
            reasons["one photo" if spread["n"] < 2 else "SciPy is missing"] = True
    return list(reasons)


def controllability_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    by = lambda key, form: [form.format(summary[key][name]) for name in ATTRIBUTES]  # noqa: E731
    span = summary["span"]
    rows = [
        ["Spearman, mean", *by("spearman_mean", "{:z.3f}")],
        ["Spearman, worst photo", *by("spearman_worst", "{:z.3f}")],
        [
            "from -1 to 1",
            f"x{span['colorfulness']:.2f}",
            f"x{span['contrast']:.2f}",
            f"b* {span['temperature']:+z.1f}",
            f"{span['brightness']:+z.3f}",
        ],
        *(
            [f"moves {name}, units of c", *(f"{summary['moves'][slider][name]:z.2f}" for slider in ATTRIBUTES)]
            for name in ATTRIBUTES
        ),
        ["pace uneven by", *by("unevenness", "{:.0%}")],
        ["detour", *by("detour", "{:.0%}")],
        ["largest cross-talk", *(_share(summary["crosstalk"][name]) for name in ATTRIBUTES)],
    ]
    return ["", *ATTRIBUTES], rows


def _share(value):
    return f"{value:.0%}" if value < 10 else "> 1000%"  # a slider without an effect of its own


def controllability_sentences(run: Mapping[str, Any]) -> list[str]:
    s = run["summary"]
    made = "Finished photos taken down by the simulated camera" if run["camera"] else "Photos as they are"
    versions = [f"{name} {run['versions'][name]}" for name in ("diffretouch", "torch", "device")]
    versions = ", ".join([f"model sha256 {run['model_sha256']}", *versions])
    lines = [
        f"{made}: {s['photos']} (sha256 {run['split_sha256']}), long side {run['size']} px, {run['values']} values of "
        f"each slider with one noise, seed {run['seed']}, {counted(run['steps'], 'step')}, "
        f"{versions}.",
        *_left_out(run),
        f"Another seed changes the result by dE76 {s['diversity']:.2f}. Structure kept: {s['structure_mean']:z.4f}, "
        f"worst {s['structure_worst']:z.4f}. Clipped pixels: {s['clipping']:+z.2f} % of the picture at c = 0, at most "
        f"{s['clipping_worst']:+z.2f} % on average at the end of a slider. A finished photo is changed by dE76 "
        f"{s['drift']:.2f} at c = 0.",
    ]
    if run["camera"]:
        lines.append(
            f"Against the photographer's own finish: {s['psnr_input']:.2f} dB / dE76 {s['delta_e76_input']:.2f} "
            f"before, {s['psnr']:.2f} dB / dE76 {s['delta_e76']:.2f} at c = 0. That finish itself clips "
            f"{s['clipping_finished']:+z.2f} %."
        )
    return lines


def step_rows(table: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of cells, the head first, of the table over numbers of steps (see `step_table`)."""
    columns = {
        "steps": ("steps", "{}"),
        "psnr": ("PSNR dB", "{:.2f}"),
        "delta_e76": ("dE76", "{:.2f}"),
        "spearman": ("Spearman", "{:z.3f}"),
        "reach": ("reach, c", "{:z.2f}"),
        "crosstalk": ("cross-talk", "{:.0%}"),
        "diversity": ("seeds, dE76", "{:.2f}"),
        "drift": ("drift, dE76", "{:.2f}"),
        "seconds": ("seconds", "{:z.3f}"),
    }
    columns = {name: column for name, column in columns.items() if name in table[0]}
    several = len({row["model"] for row in table}) > 1
    return [
        ["model"] * several + [title for title, _ in columns.values()],
        *([row["model"]] * several + [form.format(row[name]) for name, (_, form) in columns.items()] for row in table),
    ]
