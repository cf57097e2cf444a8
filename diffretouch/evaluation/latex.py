r"""A report as tables of a paper: LaTeX with booktabs, all that the other formats tell, to be read by \input."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .tables import (
    COLUMNS,
    SLIDER_LEGEND,
    TABLES,
    best_values,
    controllability_rows,
    controllability_sentences,
    describe_run,
    extra_rows,
    marks,
    step_rows,
    table_notes,
    table_rows,
)

_SIGNS = {sign: "\\" + sign for sign in "&%$#_{}"}
_SIGNS |= {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$"}
_ARROWS = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}
_MARKS = {"~": r"$^{\sim}$", "?": r"$^{?}$"}
_ORACLE = r"$^{\dagger}$"
_BEFORE = {**_MARKS, "†": _ORACLE}  # a sentence on a mark begins with it


def report_latex(report: Mapping[str, Any]) -> str:
    """All of a report, see `report_table`: its tables, each with notes below in a smaller size.

    The best value of a column that does not see the target is bold, where the column's differences were tested.
    """
    lines = [r"% needs \usepackage{booktabs}"]
    if "mean" in report:
        lines += _means(report)
        for rows in extra_rows(report):
            lines += _tabular(rows)
        lines += _notes([*describe_run(report), *table_notes(report), *_meanings(report)])
    for name, run in report.get("controllability", {}).items():
        heads, rows = controllability_rows(run["summary"])
        lines += [*_tabular([[name, *heads[1:]], *rows]), *_notes(controllability_sentences(run))]
    if "step_table" in report:
        lines += _tabular(step_rows(report["step_table"]))
    if "controllability" in report:
        lines += _notes([SLIDER_LEGEND])
    return "\n".join(lines)


def _means(report):
    own, best = marks(report), best_values(report)
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        heads = [_escaped(COLUMNS[c][0]) + _ARROWS[COLUMNS[c][2]] for c in columns]
        yield from (rf"\begin{{tabular}}{{l{'r' * len(columns)}}}  % {title}", r"\toprule", _row(["Method", *heads]))
        block = None
        for expert, name, values, _ in rows:
            if expert != block:
                block = expert
                yield r"\midrule"
                if expert:
                    yield rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{{_escaped(expert)}}} \\"
            cells = [_escaped(name) + _ORACLE * report["methods"][name]["oracle"]]
            for value, column in zip(values, columns, strict=True):
                key = (expert, name, column)
                value = rf"\textbf{{{_escaped(value)}}}" if key in best else _escaped(value)
                cells.append(value + (rf"\rlap{{{_MARKS[own[key]]}}}" if key in own else ""))
            yield _row(cells)
        yield from (r"\bottomrule", r"\end{tabular}", "")


def _tabular(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *rows = ([_escaped(cell) for cell in row] for row in rows)
    yield from (rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", _row(head), r"\midrule")
    yield from map(_row, rows)
    yield from (r"\bottomrule", r"\end{tabular}", "")


def _row(cells):
    """A row; a first cell in [ or * would be taken for a setting of the row before."""
    first, *rest = cells
    first = f"{{{first[0]}}}{first[1:]}" if first[:1] in ("[", "*") else first
    return rf"{' & '.join([first, *rest])} \\"


def _notes(sentences: Iterable[str]) -> Iterator[str]:
    yield r"{\footnotesize"
    for sentence in sentences:
        mark = _BEFORE.get(sentence[:1])
        yield (mark + _escaped(sentence[1:]) if mark else _escaped(sentence)) + r"\par"
    yield from ("}", "")


def _meanings(report):
    """What each method is, and what bold and the dagger say."""
    yield "Methods: " + "; ".join(f"{name}: {method['meaning']}" for name, method in report["methods"].items()) + "."
    yield "† an oracle, it sees the target."
    yield "Bold: the best that does not see the target, in columns whose differences are tested."


def _escaped(text):
    """Text as LaTeX prints it: its own signs, minus signs before numbers, powers of ten; a lone - is a dash."""
    text = "--" if text == "-" else "".join(_SIGNS.get(sign, sign) for sign in text)
    text = re.sub(r"10\\\^\{\}(\d+)", r"$10^{\1}$", text)
    return re.sub(r"(?<![\w.$-])-(?=\.?\d)", "$-$", text)
