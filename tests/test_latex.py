import re

from diffretouch import evaluation as ev


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
    tables = re.findall(r"\\begin\{tabular\}\{(l r*)\}(.*?)\\end\{tabular\}".replace(" ", ""), body, re.DOTALL)
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
    assert len(tables) == 2 + 3 * 2 + 1 + 3 + 2
    assert r"{[}0, 1] & " in latex and r"$10^{9}$ MAC" in latex and r"odd$|$\_name" in latex
    assert re.search(r"\[\$-\$\d", latex) and not re.search(r"(?<![\w$.-])-\d", re.sub(r"(?m)^%.*$", "", latex))
    assert latex.count(r"{\footnotesize") == 3


def test_names_of_any_signs_are_latexs(folders):
    odd = [r"a\b", "[x]", "*", "a|b<c>", "é", "-3", "10^9", "{", "&%$#_^~"]
    methods = [ev.Method(name, "odd & even", lambda source, target, pair: (source, {})) for name in odd]
    latex = ev.report_latex(ev.evaluate_methods([ev.untouched(), *methods], ev.pair_names(*folders)))
    check(latex)
    assert r"a\textbackslash{}b & " in latex and "{[}x] & " in latex and "{*} & " in latex
