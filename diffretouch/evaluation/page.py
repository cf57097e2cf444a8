"""The report as one HTML page that needs nothing else: pictures, error maps, histograms, tables, sliders, curves."""

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.photo import load_photo
from diffretouch.sweep import sweep

from .controllability import slider_labels
from .pairs import as_array, as_batch, simulated_camera
from .pictures import ERROR_SCALE, HEAT, curves_svg, data_uri, histogram_svg
from .runs import write_text
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

if TYPE_CHECKING:
    import PIL.Image

    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

_STYLE = (
    """
:root { color-scheme: light dark; --ink: #1d1f22; --soft: #666d75; --paper: #fff; --rule: #d9dde2; --best: #e4f1e6;
  --r: #d33; --g: #2a2; --b: #36d; --m0: #1769c2; --m1: #c2571a; --m2: #2b8a3e; --m3: #8e3bb0; --m4: #a8871c;
  --m5: #555 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa2ab; --paper: #16181b; --rule: #363b41;
  --best: #1f3a26; --r: #f66; --g: #5c5; --b: #7af; --m0: #6db1ff; --m1: #ff9d5c; --m2: #6fcf86; --m3: #d394f0;
  --m4: #e0c04c; --m5: #aaa } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1280px; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid var(--rule); padding-top: 1rem }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem }
h1, h2, h3, p { overflow-wrap: anywhere }
p, figcaption, .note { color: var(--soft); font-size: .875rem; margin: .3rem 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; margin: .5rem 0 }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap }
th:first-child, td:first-child, td.text, th.text { text-align: left }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper) }
td.text { white-space: normal; min-width: 16rem; color: var(--soft) }
td.best { background: var(--best); font-weight: 600 }
.oracle { margin-left: .4em; padding: 0 .35em; border: 1px solid var(--rule); border-radius: 3px; color: var(--soft);
  font-size: .75rem; font-weight: 400 }
.heat { display: inline-block; width: 8rem; height: .7em; margin: 0 .4em; border-radius: 2px; background:
  linear-gradient(90deg, HEAT) }
@media (max-width: 600px) { td:first-child, th:first-child { white-space: normal; min-width: 7rem }
  td.text { min-width: 30rem } .rows { grid-template-columns: repeat(var(--columns), minmax(130px, 1fr)) } }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(210px, 46%), 1fr)); gap: .7rem }
.rows { display: grid; gap: .4rem; grid-template-columns: repeat(var(--columns), minmax(110px, 1fr)) }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)) }
figure { margin: 0 } figure img { width: 100%; height: auto; display: block; border-radius: 3px }
figcaption { line-height: 1.3; overflow-wrap: anywhere }
figcaption b { color: var(--ink) }
.histogram { width: 100%; height: 38px; display: block; background: color-mix(in srgb, var(--rule) 35%, transparent) }
.histogram .r { fill: var(--r) } .histogram .g { fill: var(--g) } .histogram .b { fill: var(--b) }
.histogram polygon { fill-opacity: .45 }
.curves { width: 100%; height: auto } .curves text { fill: var(--soft); font-size: 9px }
.curves polyline { fill: none; stroke-width: 1 } .curves .rule { stroke: var(--rule); stroke-width: .6 }
.curves .photo { opacity: .22 } .curves .mean { stroke-width: 2.4 }
.curves .asked { stroke: var(--soft); stroke-dasharray: 3 3 }
""".replace("HEAT", ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in HEAT))
    + "".join(f".m{n} {{ stroke: var(--m{n}) }} .key{n} {{ color: var(--m{n}) }}\n" for n in range(6))
)
_ORACLE = '<span class="oracle">oracle</span>'  # beside every name that saw the target


def write_page(
    path: str | os.PathLike[str], sections: Iterable[tuple[str, str]], *, title: str = "diffretouch evaluate"
) -> None:
    """Write sections, (heading, HTML) each, as one page, whole or not at all.

    The page holds its pictures and styles, and neither scripts nor addresses: it works offline, on a phone, in light
    and dark.
    """
    body = "".join(f"<section><h2>{escape(heading)}</h2>{html}</section>" for heading, html in sections)
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n",
    )


def report_sections(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sections of an `evaluate_pairs` report: its tables, and the pictures it kept."""
    sections = [("Figures", _report_tables(report))]
    shown = [row for row in report["photos"] if any("picture" in v for v in row.values() if isinstance(v, dict))]
    if shown:
        note = (
            '<p class="note">Error maps: colour difference dE76, 0 <span class="heat"></span> '
            f"{ERROR_SCALE:g} and more.</p>"
        )
        sections.append(("Photos", note + "".join(_photo(row, report) for row in shown)))
    return sections


def _report_tables(report):
    parts, best, own = [], best_values(report), marks(report)
    blocks = {}
    for table, wanted in TABLES.items():
        columns, rows = table_rows(report, wanted)
        for expert, *rest in rows:
            blocks.setdefault((table, expert), (columns, []))[1].append(rest)
    for (_, expert), (columns, block) in blocks.items():
        heads, lines = "".join(f"<th>{escape(COLUMNS[c][0])}</th>" for c in columns), ""
        for name, values, meaning in block:
            cells = "".join(
                f"<td{' class=best' * ((expert, name, c) in best)}>{v}{own.get((expert, name, c), '')}</td>"
                for c, v in zip(columns, values, strict=True)
            )
            mark = _ORACLE if report["methods"][name]["oracle"] else ""
            lines += f"<tr><td>{escape(name)}{mark}</td>{cells}<td class=text>{escape(meaning)}</td></tr>"
        head = f"<tr><th>{escape(expert or 'method')}</th>{heads}<th class=text>what it is</th></tr>"
        parts.append(f'<div class="scroll"><table>{head}{lines}</table></div>')
    parts += [_table(head, lines) for head, *lines in extra_rows(report)]
    notes = [*describe_run(report), *table_notes(report)]
    notes.append(
        "Green: the best that does not see the target, in columns whose differences are tested. Oracle: sees it."
    )
    return "".join(parts) + "".join(f"<p>{escape(note)}</p>" for note in notes)


def _photo(row, report):
    pictures = {name: row[name] for name in report["methods"] if "picture" in row[name]}
    figures = []
    for name, result in pictures.items():
        mark = _ORACLE if report["methods"][name]["oracle"] else ""
        caption = f"<b>{escape(name)}</b>{mark} {result['psnr']:.2f} dB, dE76 {result['delta_e76']:.1f}"
        if "c" in result:
            caption += "<br>c = " + ", ".join(f"{v:+z.2f}" for v in result["c"])
        figures.append(_figure(result["picture"], caption, name))
    first = next(iter(pictures.values()))["picture"]
    figures.insert(1, _figure(first["target"], "<b>the expert's version</b>", "the expert's version"))
    title = f"{row['photo']} {row['expert']}".strip()
    return f'<h3>{escape(title)}</h3><div class="grid">{"".join(figures)}</div>'


def _figure(picture, caption, name):
    alt = escape(name, quote=True)
    error = f'<img alt="error map of {alt}" src="{picture["error"]}">' if "error" in picture else ""
    histogram = histogram_svg(picture["histogram"], f"histogram of {alt}")
    image = f'<img alt="{alt}" src="{picture["image"]}">'
    return f"<figure>{image}{error}{histogram}<figcaption>{caption}</figcaption></figure>"


def controllability_sections(
    report: Mapping[str, Any], sheets: "Iterable[tuple[str, PIL.Image.Image]]" = ()
) -> list[tuple[str, str]]:
    """Sections of a controllability report: tables, the curves of all photos, and slider sheets.

    Args:
        report: with `controllability`, a run of `controllability` by model name, and perhaps `step_table`.
        sheets: (caption, PIL image) of `slider_sheets`.
    """
    runs, parts = report["controllability"], []
    for name, run in runs.items():
        heads, rows = controllability_rows(run["summary"])
        parts.append(_table([name, *heads[1:]], rows))
        parts += [f"<p>{escape(line)}</p>" for line in controllability_sentences(run)]
    parts.append(f"<p>{escape(SLIDER_LEGEND)}</p>")
    sections = [("Controllability", "".join(parts)), ("Curves", _curves(runs))]
    if "step_table" in report:
        head, *rows = step_rows(report["step_table"])
        sections.append(("Denoising steps", _table(head, rows)))
    if sheets:
        figures = "".join(
            f'<figure><img alt="{escape(caption, quote=True)}" src="{data_uri(sheet)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, sheet in sheets
        )
        sections.append(("Slider sheets", figures))
    return sections


def _table(head, rows):
    cells = lambda tag, row: "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)  # noqa: E731
    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", head)}</tr>{lines}</table></div>'


def _curves(runs):
    """Per attribute: what is measured against where the slider stands, relative to c = 0, a line a photo."""
    values = torch.linspace(-1, 1, next(iter(runs.values()))["values"]).tolist()
    labels = {
        name: torch.stack([slider_labels(record, run["scales"]) for record in run["photos"]])
        for name, run in runs.items()
    }
    figures = ""
    for i, attribute in enumerate(ATTRIBUTES):
        lines = {name: table[:, i, :, i].tolist() for name, table in labels.items()}
        figures += curves_svg(attribute, values, lines, "measured against slider")
    key = ", ".join(f'<b class="key{n % 6}">{escape(name)}</b>' for n, name in enumerate(runs))
    note = (
        f'<p class="note">{key}: the measured attribute relative to c = 0, in units of c, against its slider. Thin: '
        "every photo; bold: their mean; dashed: what was asked.</p>"
    )
    return f'{note}<div class="grid plots">{figures}</div>'


def slider_sheets(
    pipe: "DiffRetouchPipeline",
    photos: Iterable[Path],
    *,
    camera: bool = True,
    seed: int = 0,
    steps: int | None = None,
    cell: int = 192,
) -> "list[tuple[str, PIL.Image.Image]]":
    """(caption, sheet) of each photo: every attribute from -1 to 1. With the simulated camera as `controllability`."""
    from diffretouch.pixels import shrink

    sheets = []
    for path in photos:
        photo = as_array(shrink(as_batch(load_photo(path).pixels).clamp(0, 1), 2 * cell))
        if camera:
            photo = simulated_camera(photo, path.name, seed)
        sheets.append((path.name, sweep(pipe, photo, seed=seed, num_inference_steps=steps, cell=cell)))
    return sheets
