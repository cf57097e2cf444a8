"""Options that several commands have, and what they must hold before any model is loaded."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

MAX_PIXELS = 300_000_000

PhotoArgument = Annotated[Path, typer.Argument(help="The photo.")]
Model = Annotated[str, typer.Option(help="'small' (bundled), a model directory, or a Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, ...; auto takes the fastest there is.")]
Engine = Annotated[
    Literal["auto", "onnx", "torch"],
    typer.Option(help="onnx starts at once, for models with graphs, on the CPU; auto: onnx where it can, else torch."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; the model's own by default.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise: another seed, another retouch.")]
Slider = Annotated[float | None, typer.Option(min=-3, max=3, help="-1 (less) to 1 (more). [default: 0]")]

MaxPixels = Annotated[int, typer.Option(min=1, help="Photos of more pixels are refused before they are decoded.")]

# The same for commands that also take settings from a file: what is not given there or here is the default.
StrengthOrNone = Annotated[float | None, typer.Option(min=0, max=2, help="0 the photo, 1 the retouch. [default: 1]")]
AnyStyle = Annotated[
    bool | None,
    typer.Option("--any-style", help="No sliders: the seed decides among the finishes that experts would give."),
]
SeedOrNone = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Of the noise. [default: 0]")]
ModelOrNone = Annotated[str | None, typer.Option(help="'small' (the default), a model directory, or a Hub id.")]
Like = Annotated[Path | None, typer.Option(help="A retouched photo: with the settings that its file tells.")]
Preset = Annotated[Path | None, typer.Option(help="A preset or sidecar (JSON): with its settings.")]
Region = Annotated[
    list[str] | None,
    typer.Option(
        help="MASK:NAME=VALUE,...: other values in a part of the photo; what is not named stays. MASK is a file "
        "(white inside), luminosity=0.6-1 (tones) or colour=200-260 (hues in degrees). May be repeated."
    ),
]
RefineRegions = Annotated[
    bool | None, typer.Option("--refine-regions/--no-refine-regions", help="Masks' edges follow the photo's.")
]

# How results are written
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="JPEG, WebP, AVIF, JPEG XL; as the photo's else.")]
Background = Annotated[str | None, typer.Option(help="Colour under transparent pixels, for JPEG.")]
Dither = Annotated[bool, typer.Option("--dither", help="Noise of one level before rounding, against banding.")]
Srgb = Annotated[bool, typer.Option("--srgb", help="Write sRGB, not the colour space of the photo's file.")]
StripMetadata = Annotated[
    bool, typer.Option("--strip-metadata", help="Without the photo's EXIF, XMP, IPTC and texts: no camera, no place.")
]
Sidecar = Annotated[bool, typer.Option("--sidecar", help="Also write the settings beside the result: OUT.json.")]


def colour(name: str | None) -> tuple[float, ...] | None:
    """ "white" or "#f0f0f0" -> three numbers in [0,1]."""
    if name is None:
        return None
    from PIL import ImageColor

    try:
        return tuple(channel / 255 for channel in ImageColor.getrgb(name)[:3])
    except ValueError as error:
        raise typer.BadParameter(f"{name!r} is no colour: white, '#f0f0f0', ...", param_hint="--background") from error


def check_output(
    output: Path,
    overwrite: bool,
    *,
    photo: Path | None = None,
    names: Iterable[Path] | None = None,
    hint: str = "--output",
) -> None:
    """The output's folder must be there; the files `names` (the output alone, if None) must not, nor be the photo."""
    for name in {output: None, **dict.fromkeys(names or ())}:
        if not name.parent.is_dir():
            raise typer.BadParameter(f"the folder {name.parent} does not exist.", param_hint=hint)
        if not os.access(name.parent, os.W_OK | os.X_OK):
            raise typer.BadParameter(f"nothing can be written into the folder {name.parent}.", param_hint=hint)
        if name.is_dir():
            raise typer.BadParameter(f"{name} is a folder, not the name of a file.", param_hint=hint)
    if overwrite:
        return
    for name in names or [output]:
        if name.exists() and photo is not None and name.resolve() == photo.resolve():
            raise typer.BadParameter(f"{name} is the input photo; --overwrite replaces it.", param_hint=hint)
        if name.exists():
            raise typer.BadParameter(f"{name} exists; --overwrite replaces it.", param_hint=hint)
