"""Looks as colour tables for other software."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .groups import Sliders, grouped
from .loading import depth_for, load_pipeline, open_photo, say


@grouped
def lut(
    photo: Annotated[Path, typer.Argument(help="The photo that the table is made for, or with --apply applied to.")],
    sliders: Sliders,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .cube file (default: <photo>.cube) or a Hald image (.png, .tif)."),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(help="Instead: apply this .cube file or Hald image to the photo.")
    ] = None,
    size: Annotated[int, typer.Option(min=2, max=256, help="Nodes on an edge; a Hald image needs 16, 64, ...")] = 33,
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
):
    """The retouch of a photo as a colour table for other software (.cube, Hald image), or such a table applied."""
    suffix = photo.suffix if apply else ".cube"
    output = output or photo.with_name(f"{photo.stem}{'_look' if apply else ''}{suffix}")
    options.check_output(output, overwrite, photo=photo)
    c = sliders.moved
    hald = output.suffix.lower() != ".cube"
    if not apply and hald and (round(size**0.5) ** 2 != size or size < 4):
        raise typer.BadParameter("a Hald image has 4, 9, 16, 25, 36, 49, 64, ... nodes.", param_hint="--size")
    if not apply and hald and photo_domain:
        raise typer.BadParameter("a Hald image has no domain of its own.", param_hint="--photo-domain")

    from diffretouch.photo import save_photo

    source = open_photo(photo)
    from diffretouch.lut import Lut3D, bake_lut

    if apply:
        table = Lut3D.load(apply) if apply.suffix.lower() == ".cube" else Lut3D.from_hald(open_photo(apply).pixels)
        bit_depth = depth_for(output, source)
        result = table.at_strength(strength).apply(source.pixels, interpolation=interpolation)
        save_photo(result, output, like=source, overwrite=overwrite, bit_depth=bit_depth)
        print(output)
        return
    pipe = load_pipeline(model, device)
    call = {}
    if pipe.has_sliders:
        import torch

        call = {"c": c, "num_inference_steps": steps, "generator": torch.Generator().manual_seed(seed)}
    elif c:
        raise typer.BadParameter(f"{model} has no sliders.", param_hint=f"--{next(iter(c))}")
    domain = "photo" if photo_domain else "full"
    table = bake_lut(pipe, source.pixels, size=size, strength=strength, domain=domain, **call)
    say(f"On this photo the table differs from the retouch: {table.error}")
    if hald:
        save_photo(table.hald(round(size**0.5), "float32"), output, overwrite=overwrite, bit_depth=16)
    else:
        table.save(output, overwrite=overwrite)
    print(output)
