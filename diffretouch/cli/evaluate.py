"""Figures: of photos (`measure`), of models (`evaluate`)."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import grouped
from .loading import load_pipeline, open_photo, say
from .peers import named, open_peers


def measure(
    photos: Annotated[list[Path], typer.Argument(help="One photo or more.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Measure the four attributes of photos."""
    failed = False
    for number, path in enumerate(photos):
        try:
            pixels = open_photo(path).pixels
        except (ValueError, OSError) as error:
            say(f"Error: {error}")
            failed = True
            continue
        import torch

        from diffretouch.attributes import ATTRIBUTES, measure_attributes

        scores = measure_attributes(torch.from_numpy(pixels).permute(2, 0, 1)[None].clamp(0, 1))[0].tolist()
        if as_json:
            print(json.dumps({"photo": str(path), **dict(zip(ATTRIBUTES, scores, strict=True))}))
            continue
        if number == 0:
            print("".join(f"{name:>14}" for name in ATTRIBUTES) + "  photo")
        print("".join(f"{score:14.4f}" for score in scores) + f"  {path}")
    if failed:
        raise typer.Exit(1)


@dataclass
class Data:
    """The photos"""

    simulated: Annotated[Path | None, typer.Option(help="Finished photos: camera and experts simulated.")] = None
    controllability: Annotated[Path | None, typer.Option(help="Finished photos: measure what the sliders do.")] = None
    as_they_are: Annotated[bool, typer.Option("--as-they-are", help="Sliders without the simulated camera.")] = False
    labels: Annotated[
        str | None, typer.Option(help="Also c from labels (an oracle): a JSON file, or 'experts': from the versions.")
    ] = None
    protocol: Annotated[str | None, typer.Option(help="What the data is: fivek-upe, ppr10k-a, yan, ...")] = None
    rendering: Annotated[str | None, typer.Option(help="How the files were made, for the record.")] = None
    split: Annotated[Path | None, typer.Option(help="Text file with names or ids: only these photos.")] = None
    controllability_split: Annotated[Path | None, typer.Option(help="The same for --controllability.")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many photos.")] = None
    masks: Annotated[Path | None, typer.Option(help="Masks of the people, by name: PPR10K's measures of them.")] = None
    groups: Annotated[
        str | None, typer.Option(help="What of a file's name is its series (a regular expression): also their GLC.")
    ] = None


@dataclass
class Methods:
    """The methods"""

    model: Annotated[
        list[str] | None, typer.Option(help="As elsewhere, or NAME=...; again for models side by side.")
    ] = None
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Beside: autocontrast, equalize, clahe, curve, csrnet, csrnet-l, all; sa-adjustnet; a model "
            "directory, the released csrnet.pth, or a folder with the released LUTs.pth and classifier.pth."
        ),
    ] = None
    steps: Annotated[str | None, typer.Option(help="Denoising steps, one or several: 1,2,4.")] = None
    best_of: Annotated[int, typer.Option(min=1, max=64, help="Also the best of so many seeds (an oracle).")] = 1
    seed: options.Seed = 0
    device: options.Device = "auto"


@dataclass
class Measures:
    """The measures"""

    csrnet_lab: Annotated[bool, typer.Option("--csrnet-lab", help="Also CSRNet's Lab error, with its bug.")] = False
    lpips_weights: Annotated[Path | None, typer.Option(help="LPIPS weights (safetensors).")] = None
    fid_weights: Annotated[
        Path | None, typer.Option(help="For the FID: clean-fid's inception-2015-12-05.pt (TorchScript).")
    ] = None
    released_glc: Annotated[bool, typer.Option("--released-glc", help="GLC as the released script divides it.")] = (
        False
    )
    against: Annotated[str | None, typer.Option(help="Compare with this method (default: the first automatic).")] = (
        None
    )
    interval: Annotated[str, typer.Option(help="Of the differences: t or bootstrap.")] = "t"
    cost: Annotated[bool, typer.Option("--cost", help="Also parameters, multiply-adds, time and memory.")] = False
    diversity: Annotated[
        int | None, typer.Option(min=2, max=64, help="Also what so many seeds and c of growing size change.")
    ] = None
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps results: a stopped run goes on.")] = None


@dataclass
class Telling:
    """The report"""

    card: Annotated[bool, typer.Option("--card", help="Print Markdown for a model card.")] = False
    page: Annotated[Path | None, typer.Option(help="Also write one HTML page with pictures.")] = None
    page_photos: Annotated[int | None, typer.Option(min=1, help="Photos on the page (default: 6).")] = None
    figure: Annotated[
        list[str] | None,
        typer.Option(help="Instead, on the page: attributes (paper's fig. 1), grid (3: two models), experts (5)."),
    ] = None
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the report: JSON, or what --format says.")
    ] = None
    format: Annotated[
        str | None, typer.Option(help="table, markdown, latex or csv (a row per photo and method) instead of JSON.")
    ] = None
    overwrite: options.Overwrite = False


@grouped
def evaluate(
    data: Data,
    methods: Methods,
    measures: Measures,
    telling: Telling,
    inputs: Annotated[Path | None, typer.Argument(help="Folder of untouched photos.")] = None,
    targets: Annotated[
        Path | None, typer.Argument(help="An expert's versions, matched by name; or a folder of experts' folders.")
    ] = None,
) -> None:
    """Measure models and other methods against experts' versions, and what the sliders do.

    Only "input", "automatic" and the methods that are no oracles predict blindly; every table says which is which.
    """
    counts = _step_counts(methods.steps)
    _check(inputs, targets, data, methods, measures, telling, counts)

    # 1. The photos, before any model is loaded
    from diffretouch import evaluation as ev

    pairs, photos = _photos(inputs, targets, data, methods.seed)

    # 2. The models, and the methods beside
    device = _own_device(methods.device)
    pipes = {}
    for given in methods.model or ["small"]:
        name, place = named(given)
        if name in pipes:
            raise typer.BadParameter(f"two models are called {name}: NAME=... tells them apart.", param_hint="--model")
        pipes[name] = load_pipeline(place, device, progress=False)
        if not pipes[name].has_sliders:
            raise typer.BadParameter(f"{place} has no sliders: give it as --peer.", param_hint="--model")
    peers, missing = open_peers(methods.peer or [], device)
    cache = ev.Cache(measures.cache) if measures.cache else None

    # 3. Measure
    report = {}
    if pairs and not telling.figure:
        report = ev.evaluate_pairs(
            pipes,
            pairs,
            seed=methods.seed,
            steps=counts,
            best_of=methods.best_of,
            peers=peers,
            protocol=data.protocol,
            rendering=data.rendering,
            csrnet_lab=measures.csrnet_lab,
            lpips_weights=measures.lpips_weights,
            fid_weights=measures.fid_weights,
            pictures=_page_photos(telling) if telling.page else 0,
            cache=cache,
            missing=missing,
            against=measures.against,
            interval=measures.interval,
            groups=data.groups,
            released_glc=measures.released_glc,
            cost=measures.cost,
            device=str(next(iter(pipes.values())).device),
        )
        pairs = [pair for pair in pairs if pair.source.name not in report["left_out"]]
        if measures.diversity:
            from diffretouch.evaluation.words import counted

            settings = {"samples": measures.diversity, "seed": methods.seed, "cache": cache}
            runs = {
                f"{name} {counted(count, 'step')}" if len(counts) > 1 else name: (pipe, count)
                for name, pipe in pipes.items()
                for count in counts
            }
            report["diversity"] = {
                name: ev.diversity(pipe, pairs, steps=count, description=name, **settings)
                for name, (pipe, count) in runs.items()
            }
    if data.controllability is not None:
        settings = {"seed": methods.seed, "camera": not data.as_they_are, "cache": cache}
        report["controllability"] = {
            name: ev.controllability(pipe, photos, steps=counts[0], description=f"Sliders of {name}", **settings)
            for name, pipe in pipes.items()
        }
        if len(counts) > 1:
            report["step_table"] = ev.step_table(pipes, photos, counts, **settings)
    if ev.is_main_process():
        _tell(report, pipes, pairs, photos, data, methods, telling, counts[0])


def _check(inputs, targets, data, methods, measures, telling, counts):
    """Raises for options that do not go together, or that nothing would follow."""
    figures = set(telling.figure or ())
    pairs = inputs is not None or data.simulated is not None
    if (inputs is not None) == (data.simulated is not None) and not (inputs is None and data.controllability):
        raise typer.BadParameter("give INPUTS and TARGETS, --simulated PHOTOS or --controllability PHOTOS.")
    if inputs is not None and targets is None and figures != {"attributes"}:
        raise typer.BadParameter("INPUTS need TARGETS.", param_hint="TARGETS")
    if wrong := sorted(figures - {"attributes", "grid", "experts"}):
        raise typer.BadParameter(f"must be attributes, grid or experts, got {wrong[0]!r}.", param_hint="--figure")
    if figures and telling.page is None:
        raise typer.BadParameter("figures stand on a page: give --page.", param_hint="--figure")
    if "grid" in figures and len(methods.model or ()) < 2:
        raise typer.BadParameter("grid compares models: give --model twice or more.", param_hint="--figure")
    if (wrong := telling.format) not in (None, "table", "markdown", "latex", "csv"):
        raise typer.BadParameter(f"must be table, markdown, latex or csv, got {wrong!r}.", param_hint="--format")
    if (wrong := measures.interval) not in ("t", "bootstrap"):
        raise typer.BadParameter(f"must be t or bootstrap, got {wrong!r}.", param_hint="--interval")
    # What would be passed by in silence
    if telling.card and telling.format is not None and telling.output is None:
        raise typer.BadParameter("both say what is printed: give --format an --output, or one.", param_hint="--card")
    if telling.format == "csv":
        rowless = {"--diversity": measures.diversity, "--controllability": data.controllability}
        why = "has no rows of photos and methods: csv needs an --output, and the terminal shows the rest."
        _refuse(rowless if telling.output is None else {}, why)
        _refuse({} if pairs and not figures else {"--format csv": True}, "needs pairs: a row is a photo and a method.")
    _refuse({"--page-photos": telling.page_photos} if telling.page is None else {}, "is for --page.")
    _refuse({"--labels": data.labels} if data.simulated is not None else {}, "is for pairs: --simulated has its own.")
    series = data.groups or (data.protocol or "").startswith("ppr10k")
    _refuse({} if series else {"--released-glc": measures.released_glc}, "needs series: --groups or ppr10k.")
    alone = {"--controllability-split": data.controllability_split, "--as-they-are": data.as_they_are}
    _refuse(alone if data.controllability is None else {}, "is for --controllability PHOTOS.")
    measured = {"--peer": methods.peer, "--best-of": methods.best_of > 1}
    measured |= {"--protocol": data.protocol, "--rendering": data.rendering, "--csrnet-lab": measures.csrnet_lab}
    measured |= {"--masks": data.masks, "--groups": data.groups, "--against": measures.against}
    measured |= {"--cost": measures.cost, "--diversity": measures.diversity}
    measured |= {"--interval": measures.interval != "t", "--released-glc": measures.released_glc}
    measured |= {"--lpips-weights": measures.lpips_weights, "--fid-weights": measures.fid_weights}
    _refuse({} if pairs else {"--labels": data.labels, "--split": data.split}, "needs pairs.")
    _refuse({} if pairs else measured, "needs pairs to be measured.")
    figures_only = {**measured, "--labels": data.labels, "several --steps": len(counts) > 1}
    told = {"--card": telling.card, "--output": telling.output, "--format": telling.format, "--cache": measures.cache}
    figures_only |= told if data.controllability is None else {}
    _refuse(figures_only if figures else {}, "does not go with --figure, which measures nothing.")
    files = {"--split": data.split, "--controllability-split": data.controllability_split}
    files |= {"--lpips-weights": measures.lpips_weights, "--fid-weights": measures.fid_weights}
    files["--labels"] = None if data.labels in (None, "experts") else Path(data.labels)
    folders = {"--simulated": data.simulated, "--controllability": data.controllability, "--masks": data.masks}
    for hint, path in (files | folders).items():
        kind = "folder" if hint in folders else "file"
        if path is not None and (not path.exists() or path.is_dir() != (kind == "folder")):
            raise typer.BadParameter(f"must be a {kind}, got {path}.", param_hint=hint)
    if None not in (telling.output, telling.page) and telling.output.resolve() == telling.page.resolve():
        raise typer.BadParameter(f"{telling.page} is also the --output.", param_hint="--page")
    for path, hint in ((telling.output, "--output"), (telling.page, "--page")):
        if path is not None:
            options.check_output(path, telling.overwrite, hint=hint)


def _photos(inputs, targets, data, seed):
    """-> (pairs, photos without targets)"""
    from diffretouch import evaluation as ev

    names = ev.read_names(data.split) if data.split else None
    pairs, photos = [], []
    if data.simulated is not None:
        pairs = ev.simulated_pairs(data.simulated, names, seed=seed)
    elif targets is not None:
        pairs = ev.expert_pairs(inputs, targets, names)
    elif inputs is not None:
        photos = list(ev.folder_photos("inputs", inputs, names).values())
    if data.limit and pairs:
        kept = list(dict.fromkeys(pair.source for pair in pairs))[: data.limit]
        pairs = [pair for pair in pairs if pair.source in kept]
    if data.labels is not None:
        pairs = ev.expert_labels(pairs) if data.labels == "experts" else ev.read_labels(data.labels, pairs)
    if data.masks is not None:
        pairs = ev.with_masks(pairs, data.masks)
    if data.controllability is not None:
        names = ev.read_names(data.controllability_split) if data.controllability_split else None
        photos = list(ev.folder_photos("controllability", data.controllability, names).values())
        if not photos:
            why = f"must hold photos, {data.controllability} holds none."
            raise typer.BadParameter(why, param_hint="--controllability")
    if pairs:
        ev.describe_data(pairs, data.protocol, data.rendering)  # a wrong name is told at once
    return pairs, photos[: data.limit]


def _tell(report, pipes, pairs, photos, data, methods, telling, steps):
    """Tables, the report's file, the page."""
    from diffretouch import evaluation as ev
    from diffretouch.evaluation.words import counted

    sections, number = [], _page_photos(telling)
    if report:
        shown = telling.format if telling.output is None else None  # else it goes there
        print(ev.FORMATS[shown or ("markdown" if telling.card else "table")](report))
    if telling.output is not None:
        if telling.format == "csv" and not {"diversity", "controllability"}.isdisjoint(report):
            say(f"Note: {telling.output} holds what each photo and method has; samples and sliders stand above.")
        text = (
            ev.FORMATS[telling.format](report) if telling.format else json.dumps(ev.without_pictures(report), indent=1)
        )
        ev.write_text(telling.output, text + "\n")
    if telling.page is not None:
        sections += ev.report_sections(report) if "mean" in report else []
        if "controllability" in report:
            sheets, measured = [], report["controllability"]
            for name, pipe in pipes.items():
                photos = [photo for photo in photos if photo.name not in measured[name]["left_out"]]
                camera = not data.as_they_are
                own = ev.slider_sheets(pipe, photos[:number], camera=camera, seed=methods.seed, steps=steps)
                sheets += [(f"{name}: {caption}", sheet) for caption, sheet in own]
            sections += ev.controllability_sections(report, sheets)
        sections += _figures(telling.figure or [], pipes, pairs, photos, number, methods.seed, steps)
        ev.write_page(telling.page, sections)
    runs = [report, *(run for key in ("diversity", "controllability") for run in report.get(key, {}).values())]
    if failed := {photo for run in runs for photo in run.get("left_out", ())}:
        say(f"Error: {counted(len(failed), 'photo')} could not be measured and left out, see above.")
        raise typer.Exit(1)


def _page_photos(telling):
    return telling.page_photos or 6


def _refuse(given, why):
    for name, value in given.items():
        if value:
            raise typer.BadParameter(why, param_hint=name)


def _step_counts(text):
    """ "1,2,4" -> [1, 2, 4]; None is the model's own number."""
    if text is None:
        return [None]
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= 1000 for count in counts) or len(set(counts)) < len(counts):
        raise typer.BadParameter(f"must be different numbers in 1..1000, got {text!r}.", param_hint="--steps")
    return counts


def _own_device(device):
    """The device of this process: of several on one machine, each takes a GPU of its own."""
    import torch

    if device == "auto" and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def _figures(names, pipes, pairs, photos, number, seed, steps):
    """The paper's figures as sections of a page."""
    from diffretouch.evaluation import figures

    sources = list(dict.fromkeys(pair.source for pair in pairs))[:number]
    shown = [pair for pair in pairs if pair.source in sources]
    pipe = next(iter(pipes.values()))
    sections = []
    for name in names:
        if name == "attributes":
            sections.append(figures.attributes_figure(pipe, sources or photos[:number], seed=seed, steps=steps))
        elif name == "grid":
            sections.append(figures.models_figure(pipes, shown[:number], seed=seed, steps=steps))
        else:
            sections.append(figures.experts_figure(pipe, shown, seed=seed, steps=steps))
    return sections
