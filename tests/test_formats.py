import csv
import html
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from diffretouch import evaluation as ev
from diffretouch.evaluation.tables import COLUMNS
from diffretouch.photo.icc import cicp_profile

from . import tiny


def test_differences_and_formats(experts):
    """The paired differences are those of the rows; every format says the same numbers."""
    found = ev.expert_pairs(*experts)
    peers, _ = ev.peer_methods(["autocontrast", "curve"])
    report = ev.evaluate_pairs(tiny.one_step_pipeline(), found, peers=peers, against="input")
    spread = report["uncertainty"]["mean"]["autocontrast"]["psnr"]
    per_photo = [
        np.mean([r["autocontrast"]["psnr"] - r["input"]["psnr"] for r in report["photos"] if r["photo"].startswith(p)])
        for p in ("a0001", "a0002")
    ]
    assert spread["n"] == 2 and spread["difference"] == pytest.approx(np.mean(per_photo))
    bounds = scipy.stats.ttest_1samp(per_photo, 0).confidence_interval(0.95)
    np.testing.assert_allclose([spread["low"], spread["high"]], bounds)
    own = report["uncertainty"]["experts"]["expertB"]["curve"]["delta_e76"]
    rows = [row["curve"]["delta_e76"] for row in report["photos"] if row["expert"] == "expertB"]
    assert own["sd"] == pytest.approx(np.std(rows, ddof=1)) and own["mean"] == pytest.approx(np.mean(rows))
    table, latex = ev.report_table(report), ev.report_latex(report)
    assert "from input" in table and "[" + f"{bounds.low:.2f}, {bounds.high:.2f}]" in table
    value = f"{report['mean']['autocontrast']['psnr']:.2f}"
    assert value + ("~" if bounds.low <= 0 <= bounds.high else " ") in table
    rows = sum(line.endswith(r"\\") for line in latex.splitlines())
    assert rows == 2 * (1 + 4 + 4 * 5) + 4 * 2 * (1 + 5) and r"\textbf{" in latex
    assert r"curve$^{\dagger}$ & " in latex
    lines = list(csv.DictReader(ev.report_csv(report).splitlines()))
    assert len(lines) == len(found) * 5
    for line in lines:
        row = next(r for r in report["photos"] if (r["photo"], r["expert"]) == (line["photo"], line["expert"]))
        assert float(line["psnr"]) == row[line["method"]]["psnr"] and line["oracle"] == str(
            int(line["method"] in ("matched", "curve"))
        )
    with pytest.raises(ValueError, match="`against` must be one of input, autocontrast.*got 'x'"):
        ev.evaluate_pairs(tiny.one_step_pipeline(), found, peers=peers, against="x")


TITLES = (
    *("PSNR dB", "SSIM", "dE76", "dE2000", "structure", "clip", "CSRNet Lab", "PSNR-HC", "dE-HC", "GLC"),
    *("gain dB", "3x4 dB", "curves dB", "light bias", "light SD", "SSIM input", "GMSD input"),
    *("SD", "interval", "better on", "PSNR dB, all experts", "dE76, B", "parameters", "MAC", "peak MiB"),
    *("the best of, c unknown", "the mean of, c = 0", "dE76 of two", "SD over seeds, units of c", "dE76 from c = 0"),
    *("Spearman, worst photo", "pace uneven by", "detour", "reach, c", "autocontrast", "curve", "best", "labels"),
    *("bootstrap interval", "Caution, only 2 photos: a bootstrap interval of so few is too narrow"),
    *("one number for all photos", "series of 2 photos", "noise, whatever the photo", "seeds 0 to 1, 1 step"),
    *(
        "an oracle, it sees the target",
        "CSRNet, other weights",
        "rank correlation of slider",
        "sha256",
        "Not computed",
    ),
)


@pytest.mark.parametrize("name", ["table", "markdown", "latex", "page"])
def test_every_format_tells_all(whole, name):
    if name == "page":
        text = "".join(part for _, part in [*ev.report_sections(whole), *ev.controllability_sections(whole)])
    else:
        text = ev.FORMATS[name](whole)
    plain = html.unescape(text).replace(r" \\ ", " ").replace("\\", "")  # LaTeX's heads of several lines
    assert [title for title in TITLES if title not in plain] == []
    numbers = [whole["mean"]["automatic"]["psnr"], whole["uncertainty"]["experts"]["B"]["curve"]["psnr"]["sd"]]
    numbers += [whole["diversity"]["tiny"]["unknown"]["best"][1], whole["step_table"][1]["psnr"]]
    assert all(f"{number:.2f}" in text for number in numbers)


def test_json_and_csv_hold_all_measures(whole):
    text = json.dumps(ev.without_pictures(whole), allow_nan=False)
    assert {"mean", "uncertainty", "cost", "diversity", "controllability", "step_table"} <= json.loads(text).keys()
    lines = list(csv.DictReader(ev.report_csv(whole).splitlines()))
    assert len(lines) == 4 * len(whole["methods"])
    for line in lines:
        row = next(r for r in whole["photos"] if (r["photo"], r["expert"]) == (line["photo"], line["expert"]))
        own = row[line["method"]]
        assert int(line["parameters"]) == whole["cost"][line["method"]]["parameters"] and line["series"] == "s1"
        assert [float(line["mean_a"]), float(line["mean_b"])] == own["mean_ab"]
        assert float(line["target_brightness"]) == own["target_attributes"][3] and line["psnr_hc"]
    with pytest.raises(ValueError, match="`report` must be of pairs"):
        ev.report_csv({"controllability": whole["controllability"]})


def test_every_key_is_documented(whole):
    """docs/report.md names what a report, its rows and its CSV hold."""
    documented = set(re.findall(r"`(\w+)`", (Path(__file__).parents[1] / "docs" / "report.md").read_text()))
    run, row = whole["diversity"]["tiny"], whole["photos"][0]
    keys = {*whole, *whole["data"], *whole["uncertainty"], *run, *run["unknown"], *run["ranges"][0], *row["matched"]}
    keys |= {*whole["uncertainty"]["mean"]["curve"]["psnr"], *whole["mean"]["curve"], *whole["cost"]["curve"]}
    keys |= {*next(csv.reader(ev.report_csv(whole).splitlines())), "left_out", "sha256", *COLUMNS, "photo", "expert"}
    assert keys - {"c_contrast", "c_temperature"} <= documented


def test_a_json_report_becomes_any_format_later(whole):
    kept = json.loads(json.dumps(ev.without_pictures(whole)))
    assert all(write(kept) == write(whole) for write in ev.FORMATS.values())


def test_sliders_alone_in_every_format(whole):
    alone = {key: whole[key] for key in ("controllability", "step_table")}
    for name in ("table", "markdown", "latex"):
        text = ev.FORMATS[name](alone).replace(r" \\ ", " ")
        assert "detour" in text and "PSNR dB" in text


def test_markdown_rows_have_the_cells_of_their_heads(whole):
    blocks = re.findall(r"(?m)(?:^\|.*\n?)+", ev.report_markdown(whole))
    assert len(blocks) == 2 + 3 * 2 + 1 + 3 + 2
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_names_are_no_markdown(folders):
    names = ["<b>x</b>", "*x*", "_x_", "`x`", "a|b", "a\\", "~x~"]
    methods = [ev.Method(name, f"what {name} is", lambda source, target, pair: (source, {})) for name in names]
    markdown = ev.report_markdown(ev.evaluate_methods([ev.untouched(), *methods], ev.pair_names(*folders)))
    for name in (r"\<b>x\</b>", r"\*x\*", r"\_x\_", r"\`x\`", r"a\|b", r"a\\", r"\~x\~"):
        assert f"| {name} |" in markdown and f"| what {name} is |" in markdown
    assert not re.search(r"(?<!\\)[<*`~]", markdown)


def test_equal_photos_are_said(folders):
    found, note = ev.pair_names(*folders), "equals its target counts as 120 dB"
    reports = [ev.evaluate_methods([ev.untouched()], [(found[0][0], kept), found[1]]) for kept in found[0]]
    assert [note in ev.report_table(report) for report in reports] == [True, False]
    assert reports[0]["photos"][0]["input"]["psnr"] == pytest.approx(120)


def test_what_srgb_does_not_hold_is_said(folders):
    """The greenest green of Display P3 is limited to that of sRGB: equal, but not in silence."""
    pixels = np.zeros((24, 30, 3), np.uint8)
    pixels[..., 1] = 255
    Image.fromarray(pixels).save(folders[0] / "a.png")
    pixels[:12, :, 0] = 255  # white but for its blue
    Image.fromarray(pixels).save(folders[1] / "a.png", icc_profile=cicp_profile(12, 13))
    report = ev.evaluate_methods([ev.untouched()], ev.pair_names(*folders))
    assert [row["input"]["outside_srgb"] for row in report["photos"]] == [[0, 100], [0, 0]]
    assert "1 target with colours outside sRGB, up to 100.0 % of the pixels, measured as limited to it." in (
        ev.report_table(report)
    )
    (folders[1] / "a.png").write_bytes((folders[0] / "a.png").read_bytes())
    assert "outside sRGB" not in ev.report_table(ev.evaluate_methods([ev.untouched()], ev.pair_names(*folders)))


def test_what_is_not_tested_says_so(folders):
    found = ev.pair_names(*folders)
    peers, _ = ev.peer_methods(["autocontrast"])
    report = ev.evaluate_methods([ev.untouched(), *peers], found[:1])
    table, latex = ev.report_table(report), ev.report_latex(report)
    value = f"{report['mean']['autocontrast']['psnr']:.2f}"
    assert f"{value}?" in table and rf"{value}\rlap{{$^{{?}}$}}" in latex and rf"\textbf{{{value}" not in latex
    assert "? not tested: one photo, one number for all photos." in table
    assert "Caution, one photo: no difference can be tested." in table
    assert "paired folder: 1 photo (sha256" in table and "paired over 1 photo: " in table
    report["mean"]["autocontrast"] |= {"brightness_bias": -1e-4, "clipping": -1e-4}
    report["mean"]["input"]["target_clipping"] = -1e-4
    assert not any(re.search(r"-\$?0\.0+\b", write(report)) for write in (ev.report_table, ev.report_latex))
    assert r"\textbf" not in latex and "class=best" not in ev.report_sections(report)[0][1]
    two = ev.evaluate_methods([ev.untouched(), *peers], found)
    assert f"{two['mean']['autocontrast']['brightness_sd']:.3f}?" in ev.report_table(two)
    assert "Caution, only 2 photos: a t interval leans on normal differences" in ev.report_table(two)
    assert "?" not in ev.report_table(ev.evaluate_methods([ev.untouched()], found))  # nothing to be compared


def test_without_scipy_nothing_is_tested(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    peers, _ = ev.peer_methods(["autocontrast"])
    report = ev.evaluate_methods([ev.untouched(), *peers], ev.pair_names(*folders))
    table = ev.report_table(report)
    assert "SciPy is missing" in table and "intervals: need SciPy" in table and "~" not in table


def test_reports_name_no_folder(whole):
    for text in (*(write(whole) for write in ev.FORMATS.values()), json.dumps(ev.without_pictures(whole))):
        assert not re.search(r"(?<![\w.:<])/(?:[\w.-]+/)+", text) and tempfile.gettempdir() not in text
