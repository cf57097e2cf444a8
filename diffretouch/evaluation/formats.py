"""A report as text for terminals, as Markdown for model cards, as LaTeX for papers, as CSV with every measure."""

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

from diffretouch.attributes import ATTRIBUTES

from .latex import report_latex
from .tables import (
    COLUMNS,
    SLIDER_LEGEND,
    TABLES,
    controllability_rows,
    controllability_sentences,
    describe_run,
    extra_rows,
    marks,
    step_rows,
    table_notes,
    table_rows,
    told_name,
)

_COST = ("parameters", "multiply_adds", "seconds", "memory")


def report_table(report: Mapping[str, Any]) -> str:
    """All of a report as tables of text, with what was run, what the columns mean, and what was not computed and why.

    Args:
        report: of `evaluate_methods` or `evaluate_pairs`, and perhaps with `diversity`, `controllability` and
            `step_table`, or of these two alone.
    """
    return _parts(report, _table_of_means, controllability_table)


def report_markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown, for model cards."""
    return _parts(report, _markdown_of_means, controllability_markdown)


def _parts(report, means, sliders):
    return "\n\n".join(
        write(report) for key, write in (("mean", means), ("controllability", sliders)) if key in report
    )


def _table_of_means(report):
    own, lines = marks(report), []
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        first, block = title == "protocol", None
        told = {name: name if first else told_name(report, name) for name in report["methods"]}
        width = max(map(len, (title, *told.values())))
        for expert, name, values, meaning in rows:
            if expert != block:
                block = expert
                heads = " ".join(f"{COLUMNS[c][0]:>{_width(c)}} " for c in columns)
                lines += [""] * bool(lines) + [f"{expert or title:{width}} {heads}".rstrip()]
            cells = " ".join(
                f"{v:>{_width(c)}}{own.get((expert, name, c), ' ')}" for v, c in zip(values, columns, strict=True)
            )
            lines.append(f"{told[name]:{width}} {cells}  {meaning * first}".rstrip())
    for rows in extra_rows(report):
        lines += ["", *_aligned(rows)]
    return "\n".join([*lines, "", *describe_run(report), *table_notes(report)])


def _width(column):
    return max(len(COLUMNS[column][0]), 6)


def _aligned(rows):
    """Rows of cells as lines of text, the first column to the left."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for first, *rest in rows:
        cells = "  ".join(f"{cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True))
        yield f"{first:{widths[0]}}  {cells}"


def _markdown_of_means(report):
    own, lines = marks(report), []
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        several, first = len({expert for expert, *_ in rows}) > 1, title == "protocol"
        heads = ["expert"] * several + ["method" if first else title] + [COLUMNS[c][0] for c in columns]
        heads += ["what it is"] * first
        cells = []
        for expert, name, values, meaning in rows:
            values = [v + own.get((expert, name, c), "") for v, c in zip(values, columns, strict=True)]
            told = name if first else told_name(report, name)
            cells.append([expert] * several + [told, *values] + [meaning] * first)
        lines += ["", *_piped([heads, *cells])]
    for rows in extra_rows(report):
        lines += ["", *_piped(rows)]
    return "\n".join([*lines[1:], "", *map(_plain, [*describe_run(report), *table_notes(report)])])


def _plain(text):
    """Text that Markdown shows as it is: no HTML, emphasis, code or strikes; _ within words is no sign there."""
    return re.sub(r"[\\`*<~|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _piped(rows):
    """Rows of cells as lines of Markdown, the first the head."""
    head, *rows = (list(map(_plain, row)) for row in rows)
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def controllability_table(report: Mapping[str, Any]) -> str:
    """What the sliders of each model do, as text. See `controllability`."""
    lines = []
    for name, run in report["controllability"].items():
        heads, rows = controllability_rows(run["summary"])
        width = max(len(row[0]) for row in [[name], *rows])
        lines += [""] * bool(lines) + [f"{name:{width}} {' '.join(f'{head:>14}' for head in heads[1:])}"]
        lines += [f"{row[0]:{width}} {' '.join(f'{cell:>14}' for cell in row[1:])}" for row in rows]
        lines += controllability_sentences(run)
    if "step_table" in report:
        lines += ["", *_aligned(step_rows(report["step_table"]))]
    return "\n".join([*lines, "", SLIDER_LEGEND])


def controllability_markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown, for model cards."""
    lines = []
    for name, run in report["controllability"].items():
        heads, rows = controllability_rows(run["summary"])
        lines += ["", *_piped([[name, *heads[1:]], *rows])]
        lines += ["", *map(_plain, controllability_sentences(run))]
    if "step_table" in report:
        lines += ["", *_piped(step_rows(report["step_table"]))]
    return "\n".join([*lines, "", SLIDER_LEGEND]).strip()


def report_csv(report: Mapping[str, Any]) -> str:
    """The measures themselves, a row for every photo (and expert) and method; what the method costs in each.

    What is one number for all photos (GLC, FID, diversity, sliders) stands in the other formats.
    """
    if "photos" not in report:
        raise ValueError("`report` must be of pairs to have rows, a photo and a method each.")
    first = next(iter(report["methods"]))
    measures = [c for c in (*COLUMNS, "target_clipping") if c in report["photos"][0][first]]
    costs = [c for c in _COST if "cost" in report]
    series = report["data"].get("series_of")
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    luma = [f"{side}attributes" for side in ("source_", "", "target_")]
    write(
        [
            *("photo", "expert", "method", "oracle", "width", "height", *measures),
            *(f"{side.removesuffix('attributes')}brightness" for side in luma),
            *(*(f"c_{a}" for a in ATTRIBUTES), "seed", *costs),
            *(("series", "mean_a", "mean_b") if series else ()),
        ]
    )
    for row in report["photos"]:
        for name, method in report["methods"].items():
            own, spent = row[name], report.get("cost", {}).get(name, {})
            figures = [own.get(m, "") for m in measures]
            asked = own.get("c", [""] * len(ATTRIBUTES))
            about = [row["photo"], row["expert"], name, int(method["oracle"]), *own["size"]]
            light = [own[side][ATTRIBUTES.index("brightness")] for side in luma]
            grouped = [series[row["photo"]], *own["mean_ab"]] if series else []
            write([*about, *figures, *light, *asked, own.get("seed", ""), *(spent[c] for c in costs), *grouped])
    return text.getvalue().rstrip("\n")


# `--format` -> what writes it; "table" is also what the terminal shows
FORMATS = {"table": report_table, "markdown": report_markdown, "latex": report_latex, "csv": report_csv}
