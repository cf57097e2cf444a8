"""Reports as tables: text for terminals, Markdown for model cards."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffretouch.attributes import ATTRIBUTES

from .cost import COST_SIZE
from .diversity import diversity_rows
from .intervals import INTERVALS, within_noise

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
    "channel, all fitted to the target: how much of the error is exposure, colour, local",
    "brightness_bias": "light: error of the mean luma, its mean and SD over the photos, and the correlation of the "
    "change made with the change needed",
    "ssim_input": "SSIM, GMSD input: against the input, what a retouch keeps of it (1 and 0: all)",
    "psnr_hc": "HC: PPR10K's, people weigh 1 and the rest 0.5",
    "delta_e76": "dE76 is also the mean L2 in Lab of Yan et al. and SA-AdjustNet",
    "structure": "structure: correlation of luma gradients with the input",
    "clipping": "clip %: share of pixels clipped beyond the input's",
    "expert_distance": "to expert: distance of the results' and the targets' distributions of attributes, units of c "
    "(5 results or more)",
    "csrnet_lab": "CSRNet Lab: the released CSRNet script's 8-bit Lab error with its uint8 wrap-around, for its table "
    "only",
}


COMPARED = ("psnr", "delta_e76")  # the columns whose differences the tables spell out


def table_rows(report: Mapping[str, Any], columns: Sequence[Any] = COLUMNS) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """(columns, [(expert, method, values, meaning)]) of a report, of those columns that it has."""
    columns = [c for c in columns if any(c in mean for mean in report["mean"].values())]
    rows = []
    for title, means, _ in _blocks(report):
        for name, mean in means.items():
            values = [f"{mean[c]:.{COLUMNS[c][1]}f}" if c in mean else "-" for c in columns]
            rows.append((title, name, values, report["methods"][name]["meaning"]))
    return columns, rows


def _blocks(report):
    """(title, means by method, uncertainty by method) of all pairs and of each expert's."""
    experts = report.get("experts", {})
    spreads = report["uncertainty"]
    yield "all experts" if experts else "", report["mean"], spreads["mean"]
    for expert, means in experts.items():
        yield expert, means, spreads["experts"][expert]


def noise_marks(report: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """{(expert, method, column)} of the means that may as well be those of the method that is compared against."""
    return {
        (title, name, column)
        for title, _, spreads in _blocks(report)
        for name, measures in spreads.items()
        for column, spread in measures.items()
        if within_noise(spread)
    }


def best_values(report: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """{(expert, method, column)} of the best that do not see the target, where a column has a better side."""
    columns, rows = table_rows(report)
    best = set()
    for expert in dict.fromkeys(expert for expert, *_ in rows):
        for k, column in enumerate(columns):
            blind = [
                (float(values[k]) * COLUMNS[column][2], name)
                for title, name, values, _ in rows
                if title == expert and values[k] != "-" and not report["methods"][name]["oracle"]
            ]
            if blind and COLUMNS[column][2]:
                best |= {(expert, name, column) for value, name in blind if value == max(blind)[0]}
    return best


def extra_rows(report: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """Further tables of cells, the head first: differences, cost, diversity."""
    yield from comparison_rows(report)
    yield from filter(None, [cost_rows(report)])
    for name, run in report.get("diversity", {}).items():
        first, *rest = diversity_rows(run)
        yield [[f"{name}: {first[0][0]}", *first[0][1:]], *first[1:]]
        yield from rest


def comparison_rows(report: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """Rows of cells, the head first, of each `COMPARED` column: spread, difference, interval, p and wins."""
    spreads = report["uncertainty"]
    for column in COMPARED:
        name, decimals, _ = COLUMNS[column]
        heads = [
            name,
            "mean",
            "SD",
            f"from {spreads['against']}",
            f"{spreads['level']:.0%} interval",
            "p",
            "better on",
        ]
        rows = []
        for method, measures in spreads["mean"].items():
            spread = measures[column]
            cells = [method, f"{spread['mean']:.{decimals}f}"]
            cells.append("-" if spread["sd"] is None else f"{spread['sd']:.{decimals}f}")
            cells.append(f"{spread['difference']:+.{decimals}f}" if "difference" in spread else "-")
            if "low" in spread:
                cells.append(f"[{spread['low']:.{decimals}f}, {spread['high']:.{decimals}f}]")
                cells.append("< 0.001" if spread["p"] < 0.001 else f"{spread['p']:.3f}")
            else:
                cells += ["-", "-"]
            rows.append([*cells, f"{spread['wins']} of {spread['n']}" if "wins" in spread else "-"])
        yield [heads, *rows]


def cost_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows of cells, the head first, of what each method costs; empty where it was not measured."""
    rows = []
    for name, cost in report.get("cost", {}).items():
        memory = "-" if cost["memory"] is None else f"{cost['memory'] / 2**20:.0f}"
        cells = [f"{cost['parameters']:,}", f"{cost['multiply_adds'] / 1e9:.3f}", f"{1000 * cost['seconds']:.1f}"]
        rows.append([name, *cells, memory])
    return [[f"cost at {COST_SIZE} px", "parameters", "10^9 MAC", "ms", "peak MiB"], *rows] if rows else []


def _aligned(rows):
    """Rows of cells as lines of text, the first column to the left."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for first, *rest in rows:
        cells = "  ".join(f"{cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True))
        yield f"{first:{widths[0]}}  {cells}"


def _piped(rows):
    """Rows of cells as lines of Markdown, the first the head."""
    head, *rows = rows
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def describe_run(report: Mapping[str, Any]) -> list[str]:
    """Sentences on what was run, for tables and pages."""
    data, steps = report["data"], report.get("steps")
    what = f"{data['title']}: {data['split']} (sha256 {data['split_sha256']})"
    lines = [f"{what}. Rendering: {data['rendering']}; {data['sizes']}."]
    settings = []
    if steps is not None:
        settings.append(f"seed {report['seed']}, {steps} step{'s' if steps != 1 else ''}")
        settings += [f"{name} (sha256 {digest})" for name, digest in report["models"].items()]
    settings += [f"{COLUMNS[name][0]} weights (sha256 {digest})" for name, digest in report["weights"].items()]
    versions = report["versions"]
    settings.append(", ".join(f"{name} {versions[name]}" for name in ("diffretouch", "torch", "device")))
    missing = [
        f"Not computed: {COLUMNS[name][0]}: {why}." if name in COLUMNS else f"Not run: {name}: {why}."
        for name, why in report["missing"].items()
    ]
    clipped = next(iter(report["mean"].values()))["target_clipping"]
    targets = f"The targets themselves clip {clipped:+.2f} % of their pixels beyond the inputs'."
    if "series" in data:
        how = ", divided by one series more, as the released script does" * data["released_glc"]
        targets += f" GLC over {data['series']} series{how}: the targets' is {data['target_glc']:.2f}."
    return [*lines, ", ".join(settings) + ".", *missing, targets]


def table_notes(report: Mapping[str, Any]) -> list[str]:
    """What the columns and marks of a table mean."""
    spreads, (columns, _) = report["uncertainty"], table_rows(report)
    photos = next(iter(spreads["mean"].values()))["psnr"]["n"]
    marked = f"its paired {spreads['level']:.0%} interval of the difference from {spreads['against']} holds 0"
    notes = [
        f"~ within noise: {marked} ({photos} photos, {INTERVALS[spreads['interval']]}, each comparison by itself)"
    ]
    notes = [*notes * bool(noise_marks(report)), *(LEGEND[c] for c in columns if c in LEGEND)]
    return [f"{note}." for note in notes]


def report_table(report: Mapping[str, Any]) -> str:
    """The means as tables of text, with what was run, what the columns mean, and what was not computed and why."""
    marks, lines = noise_marks(report), []
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        width, block = max(len(title), *(len(name) for _, name, _, _ in rows)), None
        for expert, name, values, meaning in rows:
            if expert != block:
                block = expert
                heads = " ".join(f"{COLUMNS[c][0]:>{_width(c)}} " for c in columns)
                lines += [""] * bool(lines) + [f"{expert or title:{width}} {heads}".rstrip()]
            cells = " ".join(
                f"{v:>{_width(c)}}{'~' if (expert, name, c) in marks else ' '}"
                for v, c in zip(values, columns, strict=True)
            )
            lines.append(f"{name:{width}} {cells}  {meaning if title == 'protocol' else ''}".rstrip())
    for rows in extra_rows(report):
        lines += ["", *_aligned(rows)]
    return "\n".join([*lines, "", *describe_run(report), *table_notes(report)])


def _width(column):
    return max(len(COLUMNS[column][0]), 6)


def report_markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown, for model cards."""
    marks, lines = noise_marks(report), []
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        several, first = len({expert for expert, *_ in rows}) > 1, title == "protocol"
        heads = ["expert"] * several + ["method" if first else title] + [COLUMNS[c][0] for c in columns]
        heads += ["what it is"] * first
        lines += ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for expert, name, values, meaning in rows:
            # A bare ~ may strike through
            values = [v + r"\~" * ((expert, name, c) in marks) for v, c in zip(values, columns, strict=True)]
            lines.append(f"| {' | '.join([expert] * several + [name, *values] + [meaning] * first)} |")
    for rows in extra_rows(report):
        lines += ["", *_piped(rows)]
    notes = [note.replace("~", r"\~", 1) for note in table_notes(report)]
    return "\n".join([*lines[1:], "", *describe_run(report), *notes])


def report_latex(report: Mapping[str, Any]) -> str:
    """The means as LaTeX tables (booktabs), the best blind value of each column bold; what was run as comments."""
    marks, best = noise_marks(report), best_values(report)
    lines = [f"% {line}" for line in [*describe_run(report), *table_notes(report)]]
    arrows = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        heads = " & ".join(_latex(COLUMNS[c][0]) + arrows[COLUMNS[c][2]] for c in columns)
        lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}  % {title}", r"\toprule", rf"Method & {heads} \\"]
        block = None
        for expert, name, values, _ in rows:
            if expert != block:
                block = expert
                lines.append(r"\midrule")
                if expert:
                    lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{{_latex(expert)}}} \\")
            cells = []
            for value, column in zip(values, columns, strict=True):
                key = (expert, name, column)
                value = rf"\textbf{{{value}}}" if key in best else value
                cells.append(value + r"\rlap{$^{\sim}$}" * (key in marks))
            oracle = r"$^{\dagger}$" * report["methods"][name]["oracle"]
            lines.append(rf"{_latex(name)}{oracle} & {' & '.join(cells)} \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, r"% $^{\dagger}$: an oracle, it sees the target"])


def _latex(text):
    for sign in "\\&%$#_{}":  # the backslash first
        text = text.replace(sign, {"\\": "/"}.get(sign, "\\" + sign))
    return text.replace("^", r"\^{}").replace("~", r"\~{}")


def report_csv(report: Mapping[str, Any]) -> str:
    """The measures themselves, a row for every photo (and expert) and method."""
    first = next(iter(report["methods"]))
    measures = [c for c in (*COLUMNS, "target_clipping") if c in report["photos"][0][first]]
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(
        ["photo", "expert", "method", "oracle", "width", "height", *measures, *(f"c_{a}" for a in ATTRIBUTES), "seed"]
    )
    for row in report["photos"]:
        for name, method in report["methods"].items():
            own = row[name]
            figures = [own.get(m, "") for m in measures]
            asked = own.get("c", [""] * len(ATTRIBUTES))
            write(
                [
                    row["photo"],
                    row["expert"],
                    name,
                    int(method["oracle"]),
                    *own["size"],
                    *figures,
                    *asked,
                    own.get("seed", ""),
                ]
            )
    return text.getvalue().rstrip("\n")


# `--format` -> what writes it; "table" is also what the terminal shows
FORMATS = {"table": report_table, "markdown": report_markdown, "latex": report_latex, "csv": report_csv}


def controllability_table(report: Mapping[str, Any]) -> str:
    """What the sliders of each model do, as text. See `controllability`."""
    lines = []
    for name, run in report["controllability"].items():
        heads, rows = controllability_rows(run["summary"])
        width = max(len(row[0]) for row in rows)
        lines += [""] * bool(lines) + [f"{name:{width}} {' '.join(f'{head:>14}' for head in heads[1:])}"]
        lines += [f"{row[0]:{width}} {' '.join(f'{cell:>14}' for cell in row[1:])}" for row in rows]
        lines += controllability_sentences(run)
    if "step_table" in report:
        lines += ["", *(" ".join(f"{cell:>12}" for cell in row) for row in step_rows(report["step_table"]))]
    return "\n".join(lines)


def controllability_markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown, for model cards."""
    lines = []
    for name, run in report["controllability"].items():
        heads, rows = controllability_rows(run["summary"])
        lines += ["", *_piped([[name, *heads[1:]], *rows])]
        lines += ["", *controllability_sentences(run)]
    if "step_table" in report:
        lines += ["", *_piped(step_rows(report["step_table"]))]
    return "\n".join(lines).strip()


def controllability_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    by = lambda key, form: [form.format(summary[key][name]) for name in ATTRIBUTES]  # noqa: E731
    span = summary["span"]
    rows = [
        ["Spearman, mean", *by("spearman_mean", "{:.3f}")],
        ["Spearman, worst photo", *by("spearman_worst", "{:.3f}")],
        [
            "from -1 to 1",
            f"x{span['colorfulness']:.2f}",
            f"x{span['contrast']:.2f}",
            f"b* {span['temperature']:+.1f}",
            f"{span['brightness']:+.3f}",
        ],
        *(
            [f"moves {name}, units of c", *(f"{summary['moves'][slider][name]:.2f}" for slider in ATTRIBUTES)]
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
        f"each slider with one noise, seed {run['seed']}, {run['steps']} step{'s' if run['steps'] > 1 else ''}, "
        f"{versions}.",
        f"Another seed changes the result by dE76 {s['diversity']:.2f}. Structure kept: {s['structure_mean']:.4f}, "
        f"worst {s['structure_worst']:.4f}. Clipped pixels: {s['clipping']:+.2f} % of the picture at c = 0, at most "
        f"{s['clipping_worst']:+.2f} % on average at the end of a slider. A finished photo is changed by dE76 "
        f"{s['drift']:.2f} at c = 0.",
    ]
    if run["camera"]:
        lines.append(
            f"Against the photographer's own finish: {s['psnr_input']:.2f} dB / dE76 {s['delta_e76_input']:.2f} "
            f"before, {s['psnr']:.2f} dB / dE76 {s['delta_e76']:.2f} at c = 0. That finish itself clips "
            f"{s['clipping_finished']:+.2f} %."
        )
    return lines


def step_rows(table: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of cells, the head first, of the table over numbers of steps (see `step_table`)."""
    columns = {
        "steps": ("steps", "{}"),
        "psnr": ("PSNR dB", "{:.2f}"),
        "delta_e76": ("dE76", "{:.2f}"),
        "spearman": ("Spearman", "{:.3f}"),
        "reach": ("reach, c", "{:.2f}"),
        "crosstalk": ("cross-talk", "{:.0%}"),
        "diversity": ("seeds, dE76", "{:.2f}"),
        "drift": ("drift, dE76", "{:.2f}"),
        "seconds": ("seconds", "{:.3f}"),
    }
    columns = {name: column for name, column in columns.items() if name in table[0]}
    several = len({row["model"] for row in table}) > 1
    return [
        ["model"] * several + [title for title, _ in columns.values()],
        *([row["model"]] * several + [form.format(row[name]) for name, (_, form) in columns.items()] for row in table),
    ]
