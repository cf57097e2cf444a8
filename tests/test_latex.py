import re
import shutil
import subprocess

import pytest

from diffretouch import evaluation as ev
from diffretouch.evaluation import latex


def test_names_are_latexs(folders):
    odd = ev.Method("my_50%_~x^2", "an odd name", lambda source, target, pair: (source, {}))
    made = ev.report_latex(ev.evaluate_methods([ev.untouched(), odd], ev.pair_names(*folders)))
    assert r"my\_50\%\_\~{}x\^{}2" in made


def check(latex):
    """What LaTeX asks of a fragment: balanced groups and environments, rows as wide as their tables, signs escaped."""
    body = re.sub(r"(?m)(?<!\\)%.*$", "", latex)
    bare = re.sub(r"\\[\\&%$#_{}^~]", "", body)
    depth = 0
    for sign in re.findall(r"[{}]", bare):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert not re.search(r"[_^#<>|~]", outside), outside
    tables = re.findall(r"\\begin\{tabular\}\{(l+ r*)\}(.*?)\\end\{tabular\}".replace(" ", ""), body, re.DOTALL)
    assert len(tables) == latex.count(r"\begin{tabular}")
    for columns, rows in tables:
        assert rows.count(r"\toprule") == rows.count(r"\bottomrule") == 1 <= rows.count(r"\midrule")
        lines = [line for line in rows.splitlines() if line.endswith(r"\\")]
        for line in lines:
            if r"\multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) + 1 == len(columns), line
            assert line[0] not in "[*", line  # a setting of the row before
    return tables


def test_a_whole_report_is_latex(whole):
    latex = ev.report_latex(whole)
    tables = check(latex)
    assert len(tables) >= 2 + 3 * 2 + 1 + 3 + 2  # some in several
    assert r"{[}0, 1] & " in latex and r"$10^{9}$ MAC" in latex and r"odd$|$\_name" in latex
    assert re.search(r"\[\$-\$\d", latex) and not re.search(r"(?<![\w$.-])-\d", re.sub(r"(?m)^%.*$", "", latex))
    assert latex.count(r"{\footnotesize") == 3


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_tables_fit_an_article(whole, tmp_path):
    """LaTeX takes it all, and no line is wider than the text."""
    fragment = ev.report_latex(whole)
    preamble = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{preamble}\n{fragment}\n\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stdout
    assert "Overfull" not in made.stdout, made.stdout


def test_a_wide_table_is_several():
    """Each with the first columns, all rows in each; a head wider than its numbers stands in lines."""
    head = ["model", "steps", *(f"measure number {n}" for n in range(12))]
    lines = [head, ["all", "", *["0.1234"] * 12], "a title", ["one [x]", "8", *["-0.1234"] * 12]]
    made = list(latex._table(lines, "comment", keys=2))
    tables = check("\n".join(made))
    assert len(tables) == 2 and [len(columns) for columns, _ in tables] == [8, 8]
    for _, rows in tables:
        assert r"model & steps & \shortstack[r]{measure \\ number \\ " in rows
        assert r"\multicolumn{8}{l}{a title} \\" in rows and "\none [x] & 8 & -0.1234" in rows
    assert "comment" in made[0]
    one = list(latex._table([head[:4], ["all", "", "1", "2"]]))
    assert sum("tabular}{" in line for line in one) == 1
    huge = list(latex._table([["method", "a", "b"], ["m" * 200, "1", "2"]]))  # nothing could be done
    assert sum(line.startswith(r"\begin{tabular}{lr}") for line in huge) == 2


def test_names_of_any_signs_are_latexs(folders):
    odd = [r"a\b", "[x]", "*", "a|b<c>", "é", "-3", "10^9", "{", "&%$#_^~"]
    methods = [ev.Method(name, "odd & even", lambda source, target, pair: (source, {})) for name in odd]
    latex = ev.report_latex(ev.evaluate_methods([ev.untouched(), *methods], ev.pair_names(*folders)))
    check(latex)
    assert r"a\textbackslash{}b & " in latex and "{[}x] & " in latex and "{*} & " in latex
