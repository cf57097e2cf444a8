"""Reports as tables: text for terminals, Markdown for model cards."""

from diffretouch.attributes import ATTRIBUTES

# Column of the tables -> (title, decimals); in the report by the same names.
COLUMNS = {
    "psnr": ("PSNR dB", 2),
    "ssim": ("SSIM", 3),
    "delta_e76": ("dE76", 2),
    "delta_e2000": ("dE2000", 2),
    "lpips": ("LPIPS", 3),
    "fid": ("FID", 1),
    "structure": ("structure", 3),
    "clipping": ("clip %", 2),
    "expert_distance": ("to expert", 2),
    "csrnet_lab": ("CSRNet Lab", 2),
}
LEGEND = {
    "delta_e76": "dE76 is also the mean L2 in Lab of Yan et al. and SA-AdjustNet",
    "structure": "structure: correlation of luma gradients with the input",
    "clipping": "clip %: share of pixels clipped beyond the input's",
    "expert_distance": "to expert: distance of the results' and the targets' distributions of attributes, units of c "
    "(5 results or more)",
    "csrnet_lab": "CSRNet Lab: the released CSRNet script's 8-bit Lab error with its uint8 wrap-around, for its table "
    "only",
}


def table_rows(report):
    """(columns, [(expert, method, values, meaning)]) of a report."""
    blocks = {"": report["mean"], **report.get("experts", {})}
    columns = [c for c in COLUMNS if any(c in mean for mean in report["mean"].values())]
    rows = []
    for expert, means in blocks.items():
        title = expert or ("all experts" if len(blocks) > 1 else "")
        for name, mean in means.items():
            values = [f"{mean[c]:.{COLUMNS[c][1]}f}" if c in mean else "-" for c in columns]
            rows.append((title, name, values, report["methods"][name]["meaning"]))
    return columns, rows


def describe_run(report):
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
    return [*lines, ", ".join(settings) + ".", *missing, targets]


def report_table(report):
    """The means as a table of text, with what was run, what the columns mean, and what was not computed and why."""
    columns, rows = table_rows(report)
    width = max(10, *(len(name) for _, name, _, _ in rows))
    lines, block = [], None
    for expert, name, values, meaning in rows:
        if expert != block:
            block = expert
            heads = " ".join(f"{COLUMNS[c][0]:>{_width(c)}}" for c in columns)
            lines += [""] * bool(lines) + [f"{expert or 'protocol':{width}} {heads}"]
        cells = " ".join(f"{v:>{_width(c)}}" for v, c in zip(values, columns, strict=True))
        lines.append(f"{name:{width}} {cells}   {meaning}")
    lines += ["", *describe_run(report), *(f"{LEGEND[c]}." for c in columns if c in LEGEND)]
    return "\n".join(lines)


def _width(column):
    return max(len(COLUMNS[column][0]), 6)


def report_markdown(report):
    """The same as Markdown, for model cards."""
    columns, rows = table_rows(report)
    several = len({expert for expert, *_ in rows}) > 1
    heads = ["expert"] * several + ["method"] + [COLUMNS[c][0] for c in columns] + ["what it is"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for expert, name, values, meaning in rows:
        lines.append(f"| {' | '.join([expert] * several + [name, *values, meaning])} |")
    return "\n".join([*lines, "", *describe_run(report), *(f"{LEGEND[c]}." for c in columns if c in LEGEND)])


def controllability_table(report):
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


def controllability_markdown(report):
    """The same as Markdown, for model cards."""
    lines = []
    for name, run in report["controllability"].items():
        heads, rows = controllability_rows(run["summary"])
        lines += ["", f"| {' | '.join([name, *heads[1:]])} |", "|" + "---|" * len(heads)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *controllability_sentences(run)]
    if "step_table" in report:
        head, *rows = step_rows(report["step_table"])
        lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines).strip()


def controllability_rows(summary):
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
        ["largest cross-talk", *(_share(summary["crosstalk"][name]) for name in ATTRIBUTES)],
    ]
    return ["", *ATTRIBUTES], rows


def _share(value):
    return f"{value:.0%}" if value < 10 else "> 1000%"  # a slider without an effect of its own


def controllability_sentences(run):
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


def step_rows(table):
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
