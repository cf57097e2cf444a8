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
TEXT_WIDTH = 345  # of an `article` in 10 pt, points: no table is wider
_GAP = 8  # between columns, points
_BREAK = r" \\ "
_BEFORE = {**_MARKS, "†": _ORACLE}  # a sentence on a mark begins with it


def report_latex(report: Mapping[str, Any]) -> str:
    """All of a report, see `report_table`: its tables, each with notes below in a smaller size.

    The best value of a column that does not see the target is bold, where the column's differences were tested.
    """
    lines = [r"% needs \usepackage{booktabs}"]
    if "mean" in report:
        lines += _means(report)
        for rows in extra_rows(report):
            lines += _plain_table(rows)
        lines += _notes([*describe_run(report), *table_notes(report), *_meanings(report)])
    for name, run in report.get("controllability", {}).items():
        heads, rows = controllability_rows(run["summary"])
        lines += [*_plain_table([[name, *heads[1:]], *rows]), *_notes(controllability_sentences(run))]
    if "step_table" in report:
        rows = step_rows(report["step_table"])
        lines += _plain_table(rows, 1 + ("model" in rows[0]))
    if "controllability" in report:
        lines += _notes([SLIDER_LEGEND])
    return "\n".join(lines)


def _means(report):
    own, best = marks(report), best_values(report)
    for title, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        lines = [["Method", *(_escaped(COLUMNS[c][0]) + _ARROWS[COLUMNS[c][2]] for c in columns)]]
        block = ""
        for expert, name, values, _ in rows:
            if expert != block:
                block = expert
                lines.append(_escaped(expert))
            cells = [_escaped(name) + _ORACLE * report["methods"][name]["oracle"]]
            for value, column in zip(values, columns, strict=True):
                key = (expert, name, column)
                value = rf"\textbf{{{_escaped(value)}}}" if key in best else _escaped(value)
                cells.append(value + (rf"\rlap{{{_MARKS[own[key]]}}}" if key in own else ""))
            lines.append(cells)
        yield from _table(lines, title)


def _plain_table(rows: Sequence[Sequence[str]], keys: int = 1) -> Iterator[str]:
    return _table([[_escaped(cell) for cell in row] for row in rows], keys=keys)


def _table(lines: Sequence[Sequence[str] | str], title: str = "", keys: int = 1) -> Iterator[str]:
    """A table as one `tabular`, or as several where it would be wider than the text of an article.

    Args:
        lines: cells in LaTeX, the head first, or a text above the rows that follow.
        title: a comment.
        keys: the number of first columns that every `tabular` begins with.
    """
    head, *rows = lines
    columns = list(zip(*(cells for cells in lines if not isinstance(cells, str)), strict=True))
    heads = [*head[:keys], *(_broken(*column) for column in columns[keys:])]
    widths = [max(map(_width, (top, *cells))) for top, (_, *cells) in zip(heads, columns, strict=True)]
    for run in _runs(widths[keys:], TEXT_WIDTH - sum(widths[:keys])):
        kept = [*range(keys), *(keys + k for k in run)]
        yield rf"\noindent{{\small\setlength{{\tabcolsep}}{{{_GAP / 2:g}pt}}" + f"  % {title}" * bool(title)
        yield rf"\begin{{tabular}}{{{'l' * keys}{'r' * len(run)}}}"
        yield from (r"\toprule", _row([heads[k] for k in kept]))
        if not isinstance(rows[0], str):
            yield r"\midrule"
        for cells in rows:
            if isinstance(cells, str):
                yield from (r"\midrule", rf"\multicolumn{{{len(kept)}}}{{l}}{{{cells}}} \\")
            else:
                yield _row([cells[k] for k in kept])
        yield from (r"\bottomrule", r"\end{tabular}}", "")


def _runs(widths, room):
    """The columns in runs that fit the room (each of one column at least): as few as can be, of about as many."""

    def runs_of(most):
        runs, left = [], 0.0
        for k, width in enumerate(widths):
            if not runs or left < width or len(runs[-1]) == most:
                runs.append([])
                left = room
            runs[-1].append(k)
            left -= width
        return runs

    fewest = len(runs_of(len(widths)))
    return next(runs for most in range(1, len(widths) + 1) if len(runs := runs_of(most)) == fewest)


def _broken(head, *cells):
    """A head in lines no wider than what stands below, or than its longest word."""
    words = head.split(" ")
    room, lines = max(map(_width, (*cells, *words))), [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        lines = [*lines[:-1], longer] if _width(longer) <= room else [*lines, word]
    return rf"\shortstack[r]{{{_BREAK.join(lines)}}}" if len(lines) > 1 else head


def _width(cell):
    """About how many points a cell takes in \\small, with the gap between columns; rather more than it does."""
    if cell.startswith(r"\shortstack"):
        return max(map(_width, cell.removeprefix(r"\shortstack[r]").split(_BREAK)))
    text = re.sub(r"\\rlap\{\$.*?\$\}|\\textbf|[{}$^_]", "", cell)  # marks stand in the gap
    text = re.sub(r"\\[a-z]+|\\.", "n", text)
    wide, narrow = sum(c.isupper() or c in "mw%+-<>" for c in text), sum(c in " .,:;'()[]|!fijlrt" for c in text)
    return _GAP + 4.7 * len(text) + 2.2 * wide - 1.4 * narrow


def _row(cells):
    """A row; a first cell in [ or * would be taken for a setting of the row before."""
    first, *rest = cells
    first = f"{{{first[0]}}}{first[1:]}" if first[:1] in ("[", "*") else first
    return rf"{' & '.join([first, *rest])} \\"


def _notes(sentences: Iterable[str]) -> Iterator[str]:
    yield r"{\footnotesize\raggedright"
    for sentence in sentences:
        mark = _BEFORE.get(sentence[:1])
        yield r"\noindent " + (mark + _escaped(sentence[1:]) if mark else _escaped(sentence)) + r"\par"
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
