"""Looks as colour tables for other software."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import Sliders, grouped
from .loading import depth_for, load_pipeline, open_photo, say


@grouped
def lut(
    photos: Annotated[
        list[Path], typer.Argument(help="The photo that the table is made for; several: one look for a series.")
    ],
    sliders: Sliders,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Default: <photo>.cube. Also .xmp (Lightroom), .pp3 (RawTherapee), .dtstyle "
            "(darktable), .clf, .3dl (Flame, Lustre), or a Hald image (.png, .tif).",
        ),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(help="Instead: apply this look, of any such file, to the photo.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=2, max=256, help="Nodes on an edge. [default: 33; .xmp 32, Hald images 64]"),
    ] = None,
    error_picture: Annotated[
        Path | None, typer.Option(help="Also a picture (PNG) of where the table differs from the retouch.")
    ] = None,
    photo_domain: Annotated[
        bool, typer.Option("--photo-domain", help="Nodes within the photo's own colours: finer, for this photo only.")
    ] = False,
    interpolation: Annotated[str, typer.Option(help="With --apply: tetrahedral or trilinear.")] = "tetrahedral",
    strength: Annotated[float, typer.Option(min=0, max=2, help="0 the photo, 1 the retouch.")] = 1.0,
    seed: options.Seed = 0,
    steps: options.Steps = None,
    model: options.Model = "small",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """The retouch of a photo as a colour table for other software, or such a table applied."""
    from diffretouch.lut.files import lut_files, nodes_for

    photo = photos[0]
    suffix = photo.suffix if apply else ".cube"
    output = output or photo.with_name(f"{photo.stem}{'_look' if apply else ''}{suffix}")
    if apply and len(photos) > 1:
        raise typer.BadParameter("--apply is for one photo.", param_hint="PHOTOS")
    written = [output] if apply else lut_files(output)
    options.check_output(output, overwrite, photo=photo, names=written + ([error_picture] if error_picture else []))
    if error_picture and (apply or error_picture.suffix.lower() != ".png" or error_picture in written):
        raise typer.BadParameter("must be a .png of its own, and goes not with --apply.", param_hint="--error-picture")
    if not apply:
        wanted = size or (64 if output.suffix.lower() in (".png", ".tif", ".tiff", ".pp3") else 33)
        size, asked = nodes_for(output, wanted), size
        if asked not in (None, size):
            raise typer.BadParameter(f"{output.suffix} holds {size} nodes for this, not {asked}.", param_hint="--size")
        if photo_domain and output.suffix.lower() not in (".cube", ".dtstyle"):
            raise typer.BadParameter(f"{output.suffix} has no domain of its own.", param_hint="--photo-domain")

    sources = [open_photo(path) for path in photos]
    from diffretouch.lut import Lut3D, bake_lut
    from diffretouch.lut import error_picture as picture_of
    from diffretouch.photo import save_photo

    if apply:
        bit_depth = depth_for(output, sources[0])
        result = Lut3D.load(apply).at_strength(strength).apply(sources[0].pixels, interpolation=interpolation)
        save_photo(result, output, like=sources[0], overwrite=overwrite, bit_depth=bit_depth)
        print(output)
        return
    pipe = load_pipeline(model, device)
    call = {}
    if pipe.has_sliders:
        import torch

        call = {"c": sliders.moved, "num_inference_steps": steps, "generator": torch.Generator().manual_seed(seed)}
    elif sliders.moved:
        raise typer.BadParameter(f"{model} has no sliders.", param_hint=f"--{next(iter(sliders.moved))}")
    kept = output.suffix.lower() == ".pp3" and strength <= 1  # as the profile's own control
    baked = 1.0 if kept else strength
    domain = "photo" if photo_domain else "full"
    table = bake_lut(pipe, [s.pixels for s in sources], size=size, strength=baked, domain=domain, **call)
    table.title = output.stem
    about = "On this photo" if len(photos) == 1 else f"On these {len(photos)} photos"
    say(f"{about} the table differs from the retouch: {table.error}")
    table.save(output, strength=strength if kept else 1.0, overwrite=overwrite)
    if error_picture:
        if pipe.has_sliders:
            call["generator"].manual_seed(seed)
        shown = picture_of(table, pipe, sources[0].pixels, strength=baked, **call)
        save_photo(shown, error_picture, overwrite=overwrite)
        written = [*written, error_picture]
    if output.suffix.lower() in _HOW:
        say(_HOW[output.suffix.lower()])
    for path in written:
        print(path)


_HOW = {
    ".xmp": "Note: Lightroom and Camera Raw apply the profile after the raw converter's tone curve; it holds no local "
    "part of the retouch. Import it as a profile; its amount goes from 0 to 200 %.",
    ".pp3": "Note: RawTherapee looks for the image in the folder for film simulation that its preferences name.",
    ".dtstyle": "Note: darktable looks for the .cube in the folder for lut 3D that its preferences name.",
}
