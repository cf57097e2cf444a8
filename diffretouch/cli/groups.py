"""Options that go together: read by several commands, or many."""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, get_type_hints

from . import options
from .loading import read_settings

if TYPE_CHECKING:
    from diffretouch.photo.write_options import WriteOptions
    from diffretouch.settings import Settings


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its dataclasses' fields as options, each group under its first line of documentation."""
    parameters, groups = [], {}
    for parameter in inspect.signature(command).parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        group = groups[parameter.name] = parameter.annotation
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            option = copy.copy(hints[field.name].__metadata__[0])
            option.rich_help_panel = inspect.getdoc(group).splitlines()[0].rstrip(".")
            kind = Annotated[hints[field.name].__origin__, option]
            parameters.append(
                inspect.Parameter(field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=kind)
            )

    @functools.wraps(command)
    def run(**given):
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    run.__signature__ = inspect.Signature(sorted(parameters, key=lambda p: p.kind))
    return run


@dataclass
class Sliders:
    """Sliders"""

    colorfulness: options.Slider = None
    contrast: options.Slider = None
    temperature: options.Slider = None
    brightness: options.Slider = None

    @property
    def moved(self) -> dict[str, float]:
        """The sliders that were moved, by name."""
        return {name: getattr(self, name) for name in vars(Sliders()) if getattr(self, name) is not None}


@dataclass
class Look(Sliders):
    """The look"""

    strength: options.StrengthOrNone = None
    any_style: options.AnyStyle = None
    like: options.Like = None
    preset: options.Preset = None
    region: options.Region = None
    refine_regions: options.RefineRegions = None
    seed: options.SeedOrNone = None
    steps: options.Steps = None
    model: options.ModelOrNone = None
    device: options.Device = "auto"
    engine: options.Engine = "auto"

    def read(self) -> "tuple[Settings, str]":
        """-> (settings, model): what the options say, over what the file of `--like` or `--preset` says."""
        return read_settings(
            self.like, self.preset, self.model, self.moved, region=self.region, refine_regions=self.refine_regions,
            strength=self.strength, any_style=self.any_style, seed=self.seed, steps=self.steps,
        )  # fmt: skip


def settings_for_torch(settings: "Settings") -> dict[str, bool]:
    """What settings may ask for that only torch can do, in words -> whether they do."""
    return {
        "--refine-regions": bool(settings.regions and settings.refine_regions),
        f"the scheduler {settings.scheduler}": settings.scheduler not in (None, "DDIMScheduler"),
    }


@dataclass
class Writing:
    """The results' files"""

    quality: options.Quality = None
    background: options.Background = None
    dither: options.Dither = False
    srgb: options.Srgb = False
    strip_metadata: options.StripMetadata = False
    sidecar: options.Sidecar = False
    overwrite: options.Overwrite = False

    def read(self) -> "WriteOptions":
        """-> [`WriteOptions`]"""
        from diffretouch.photo.write_options import WriteOptions

        return WriteOptions(
            overwrite=self.overwrite,
            quality=self.quality,
            dither=self.dither,
            background=options.colour(self.background),
            keep_profile=not self.srgb,
            keep_metadata=not self.strip_metadata,
        )
