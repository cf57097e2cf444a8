"""What was done to a photo: written into every result, kept as presets, repeated on other photos."""

import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from diffretouch import __version__
from diffretouch.attributes import ATTRIBUTES

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffretouch.photo import Photo

FORMAT = 1
GRAPHS = "onnx"  # folder in a model's, of graphs that were made of it: no part of its state
_LARGEST = 1 << 20  # bytes of a preset; more is something else


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one retouch. None: not said, so that the caller or the model decides.

    Attributes:
        c: numbers in [-3,3] by attribute name; attributes that are not named are 0.
        any_style: c is unknown, the noise decides among the finishes that experts would give; no `c` beside it, and
            more than one step.
        strength: in [0,2].
        exposure: in EV, in [-4,4]: the retouched photo is multiplied by 2^(EV / 2.2), see `batch.exposed`.
        white_balance: EV in [-1,1] by which red and blue are made stronger beside green, as exposure is.
        seed: of the noise, 0 to 2^63 - 1.
        steps: of the sampler, 1 to 1000.
        scheduler: class name of the diffusers scheduler.
        model: "small", a directory or a Hub id.
        revision: which state of the model it was, see `model_revision`.
        regions: areas with sliders of their own, in the words of the command line, see `region_texts.parse_region`.
        refine_regions: their masks' edges follow the photo's.
        photo: file name of the photo, in sidecars.
        version: of this library.

    Raises:
        ValueError: a value that is not allowed; the message names it.
    """

    c: dict[str, float] | None = None
    any_style: bool | None = None
    strength: float | None = None
    exposure: float | None = None
    white_balance: tuple[float, float] | None = None
    seed: int | None = None
    steps: int | None = None
    scheduler: str | None = None
    model: str | None = None
    revision: str | None = None
    regions: tuple[str, ...] | None = None
    refine_regions: bool | None = None
    photo: str | None = None
    version: str | None = None

    def __post_init__(self):
        if self.c is not None:
            if not isinstance(self.c, Mapping):
                raise ValueError(f"`c` must be numbers by attribute name, got {self.c!r}.")
            for name, value in self.c.items():
                if name not in ATTRIBUTES:
                    raise ValueError(f"`c` may name {', '.join(ATTRIBUTES)}; got {name!r}.")
                _check_number(f"c: {name}", value, -3, 3)
            c = {name: float(self.c[name]) for name in ATTRIBUTES if name in self.c}
            object.__setattr__(self, "c", c)  # frozen: in the order of ATTRIBUTES, a copy
        _check_number("strength", self.strength, 0, 2)
        _check_number("exposure", self.exposure, -4, 4)
        if isinstance(self.white_balance, list):
            object.__setattr__(self, "white_balance", tuple(self.white_balance))
        if self.white_balance is not None:
            if not isinstance(self.white_balance, tuple) or len(self.white_balance) != 2:
                raise ValueError(
                    f"`white_balance` must be two numbers, of red and of blue, got {self.white_balance!r}."
                )
            for value in self.white_balance:
                _check_number("white_balance", value, -1, 1)
        _check_number("seed", self.seed, 0, 2**63 - 1, int)
        _check_number("steps", self.steps, 1, 1000, int)
        if isinstance(self.regions, list):
            object.__setattr__(self, "regions", tuple(self.regions))
        if self.regions is not None and not (
            isinstance(self.regions, tuple) and all(isinstance(region, str) for region in self.regions)
        ):
            raise ValueError(f"`regions` must be a list of texts, got {self.regions!r}.")
        for name in ("refine_regions", "any_style"):
            if getattr(self, name) not in (None, True, False):
                raise ValueError(f"`{name}` must be true or false, got {getattr(self, name)!r}.")
        if self.any_style and (self.c is not None or self.regions):
            raise ValueError(
                "`any_style` leaves the attributes to the noise: `c` or `regions` cannot be given beside it."
            )
        for name in ("scheduler", "model", "revision", "photo", "version"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"`{name}` must be text, got {value!r}.")

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Read what `to_json` wrote.

        Raises:
            ValueError: no such text, an unknown key, a value that is not allowed, or a newer format.
        """
        try:
            said = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no settings in JSON: {_first_words(text)!r}") from error
        if not isinstance(said, dict) or "format" not in said:
            raise ValueError(f'no settings of this library, they have a "format": {_first_words(text)!r}')
        found = said.pop("format")
        if found != FORMAT or isinstance(found, bool):
            newer = isinstance(found, int) and found > FORMAT
            advice = ": a newer diffretouch wrote them" if newer else ""
            raise ValueError(f"settings of format {found!r}, this version knows {FORMAT}{advice}")
        unknown = sorted(said.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"settings may hold {', '.join(cls.__dataclass_fields__)}; got {', '.join(unknown)}")
        return cls(**said)

    def to_json(self, indent: int | None = None) -> str:
        """As text; what is None is left out."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps({"format": FORMAT, **said}, indent=indent, allow_nan=False)

    def without_folders(self) -> "Settings":
        """These settings as they stand in a result's file: of masks the file's name, not where it lies."""
        if self.regions is None:
            return self
        parts = (text.rpartition(":") for text in self.regions)
        return replace(self, regions=tuple(f"{PureWindowsPath(mask).name}:{c}" for mask, _, c in parts))

    def over(self, base: "Settings") -> "Settings":
        """These settings where they say something, those of `base` elsewhere; of c every attribute by itself."""
        said = {key: value for key, value in vars(self).items() if value is not None}
        if self.any_style:
            said |= {"c": None, "regions": None}
        elif self.c is not None or self.regions:
            said["any_style"] = None
        if self.c is not None and base.c is not None:
            said["c"] = {**base.c, **self.c}
        return replace(base, **said)


def _check_number(name, value, low, high, kind=float):
    if value is None:
        return
    kinds = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high or not math.isfinite(value):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"`{name}` must be {what} in [{low}, {high}], got {value!r}.")


def _first_words(text):
    return text[:40] + ("..." if len(text) > 40 else "")


def settings_of(photo: "Photo") -> Settings:
    """The settings that are written in a retouched photo (`load_photo`).

    Raises:
        ValueError: there are none, or none that can be read.
    """
    description = photo.description
    if description is None:
        raise ValueError(f"{str(photo.path)!r} does not say how it was retouched: its file holds no settings.")
    try:
        return Settings.from_json(description)
    except ValueError as error:
        raise ValueError(f"{str(photo.path)!r}: {error}") from error


def read_preset(path: str | os.PathLike[str]) -> Settings:
    """Settings from a JSON file: a preset or a sidecar.

    Raises:
        ValueError: the file holds no settings.
        OSError: it cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"{str(path)!r} is no preset: it has more than {_LARGEST} bytes.")
    try:
        return Settings.from_json(data.decode("utf-8-sig"))
    except ValueError as error:  # a UnicodeDecodeError is one too
        raise ValueError(f"{str(path)!r} is no preset: {error}") from error


def write_preset(settings: Settings, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write settings as a JSON file, whole or not at all.

    Raises:
        ValueError: the file exists and `overwrite` is False.
        OSError: it cannot be written.
    """
    from diffretouch.photo.encoders import new_file

    if not overwrite and os.path.lexists(path):
        raise ValueError(f"`overwrite` is False and {str(path)!r} exists.")
    with new_file(path, overwrite) as file:
        file.write((settings.to_json(indent=1) + "\n").encode())


def sidecar_path(photo: Path) -> Path:
    """photo.jpg -> photo.jpg.json: beside the photo, one file each."""
    photo = Path(photo)
    return photo.with_name(photo.name + ".json")


def seed_of(name: str, seed: int = 0) -> int:
    """The seed of one photo of many: by its name, so that no order, number or process changes it.

    Args:
        name (`str`): path relative to the folder, with "/"; Unicode forms of one name count as the same.
        seed (`int`): of the whole run.
    """
    encoded = unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(b"%d\0%s" % (seed, encoded)).digest()[:8], "big") >> 1


def model_revision(pipe: "DiffusionPipeline") -> str | None:
    """Which state of a model this is: the commit of a Hub model, else the first 16 digits of its files' SHA-256.

    Returns:
        `str`, or None for a pipeline that was not loaded from files.
    """
    folder = Path(str(getattr(pipe, "name_or_path", "") or ""))
    if not (folder / "model_index.json").is_file():
        return None
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors") and path.is_file() and path.parent != folder / GRAPHS:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]


def use_scheduler(pipe: "DiffusionPipeline", name: str) -> None:
    """Give a pipeline the scheduler of that class name, with the model's own configuration.

    Raises:
        ValueError: the model's scheduler cannot be exchanged for one of that name.
    """
    if name is None or name == pipe.scheduler_name:
        return
    found = {scheduler.__name__: scheduler for scheduler in pipe.scheduler.compatibles}
    if name not in found:
        raise ValueError(f"`scheduler` must be {', '.join(sorted(found))} with this model, got {name!r}.")
    pipe.scheduler = found[name].from_config(pipe.scheduler.config)


def resolved(settings: Settings, pipe: "DiffusionPipeline", model: str) -> Settings:
    """The settings with everything said: what a pipeline loaded as `model` does with them, for its results' files.

    `photo` is not: settings taken from one photo's sidecar are not that photo's any more.

    Raises:
        ValueError: sliders, regions or steps for a model that has none; `any_style` in one step.
    """
    steered = pipe.has_sliders
    asked = any((settings.c or {}).values()) or settings.any_style or settings.regions or settings.steps
    if not steered and asked:
        raise ValueError(f"{str(model)!r} has no sliders, regions or steps: only strength can be chosen.")
    said: dict[str, Any] = {"strength": 1.0 if settings.strength is None else float(settings.strength)}
    if steered:
        free = bool(settings.any_style)
        if free and not pipe.knows_the_unknown:
            raise ValueError(f"`any_style`: {str(model)!r} was not trained with unknown attributes.")
        said["c"] = None if free else {name: (settings.c or {}).get(name, 0.0) for name in ATTRIBUTES}
        said["seed"] = settings.seed or 0
        steps = pipe.config.sampling_steps if free else None
        said["steps"] = settings.steps or steps or pipe.config.default_steps
        if free and said["steps"] == 1:
            own = "" if settings.steps else ", the model's own"
            raise ValueError(f"`any_style` needs more than one step: `steps` must be at least 2, got 1{own}.")
        said["scheduler"] = pipe.scheduler_name
    else:
        said |= dict.fromkeys(("c", "any_style", "seed", "steps", "scheduler", "regions", "refine_regions"))
    own = Path(model).name if Path(model).is_dir() else str(model)  # a photo need not tell how its maker's folders lie
    return replace(settings, **said, model=own, revision=model_revision(pipe), photo=None, version=__version__)
