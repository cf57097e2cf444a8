"""The models that the page offers, opened when they are first asked for, and what they do with a photo."""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.pixels import as_float
from diffretouch.settings import Settings, resolved

if TYPE_CHECKING:
    import PIL.Image

    from diffretouch.lut.table import Lut3D

LABELS = {
    "small": "DiffRetouch",
    "csrnet": "CSRNet (automatic)",
    "csrnet-l": "CSRNet-L (automatic)",
    "sa-adjustnet": "SA-AdjustNet (automatic)",
}


class Look(NamedTuple):
    """How a photo is to be retouched.

    Args:
        model (`str`): a label of `Models`.
        c (4 `float`): the attributes, in the order of `ATTRIBUTES`, in [-3,3].
        strength (`float`): in [0,2].
        seed (`int`): of the noise.
    """

    model: str
    c: tuple = (0.0, 0.0, 0.0, 0.0)
    strength: float = 1.0
    seed: int = 0


class Area(NamedTuple):
    """A part of the photo with sliders of its own.

    Args:
        name (`str`): what the page calls it.
        mask (`numpy.ndarray`): (h,w) float32 in [0,1], of the photo as it is shown.
        c (4 `float`): its attributes.
        words (`str`, *optional*): the mask in the words of the command line, such as "luminosity=0.6-1"; None for one
            that was painted.
    """

    name: str
    mask: np.ndarray
    c: tuple
    words: str | None = None


class Models:
    """The models by the label that the page shows, each loaded once.

    Args:
        directories: model directories beside the bundled models; the first that is given is the page's first choice.
        device (`str`): where they work.

    Attributes:
        own (tuple of `str`): the labels of the directories.

    Raises:
        ValueError: a directory holds no model.
    """

    def __init__(self, directories: Iterable[str | os.PathLike[str]] = (), device: str = "cpu") -> None:
        bundled = {label: name for name, label in LABELS.items()}
        self._names = {}
        for directory in directories:
            path = Path(directory).resolve()
            if not (path / "model_index.json").is_file():
                raise ValueError(f"`model`: {directory} holds no model (no model_index.json).")
            label, number = path.name, 2
            while label in self._names or label in bundled:
                label, number = f"{path.name} ({number})", number + 1
            self._names[label] = str(path)
        self.own = tuple(self._names)
        self._names |= bundled
        self._device = device
        self._opened = {}
        self._opening = threading.Lock()
        self._working = threading.Lock()

    @property
    def labels(self) -> list[str]:
        """What can be chosen, the default first."""
        return list(self._names)

    def __getitem__(self, label):
        self._check(label)
        with self._opening:
            if label not in self._opened:
                from diffretouch.pipelines.pretrained import open_pipeline

                try:
                    pipe = open_pipeline(self._names[label]).to(self._device)
                except ValueError as error:  # visitors learn the label, not where the folder lies
                    text = str(error).removeprefix("`name`: ")
                    raise ValueError(text.replace(self._names[label], label)) from error
                pipe.set_progress_bar_config(disable=True)
                self._opened[label] = pipe
            return self._opened[label]

    def _check(self, label):
        if label not in self._names:
            raise ValueError(f"`model` must be one of {', '.join(self._names)}, got {label!r}.")

    def is_steered(self, label: str) -> bool:
        """Whether the model follows the four attributes."""
        return self[label].has_sliders

    def described(self, label: str, load: bool = False) -> dict[str, Any]:
        """What the page must know of a model: its name for settings, and once it is loaded its guide and settings."""
        self._check(label)
        own = self._names[label]
        said = {"name": Path(own).name if Path(own).is_absolute() else own}
        if load or label in self._opened:
            said["steered"] = self.is_steered(label)
            said["settings"] = vars(self.settings(Look(label))) | {"c": None}
            if said["steered"]:
                said["guide"] = self.guide(label)
                said |= {name: self[label].config[name] for name in ("clipping_limit", "shoulder")}
        return said

    def retouch(self, look: Look, pixels: np.ndarray, areas: Sequence[Area] = ()) -> np.ndarray:
        """The same as the command line: (H,W,3) array -> array of its kind, at full resolution.

        Raises:
            ValueError, TypeError: as the pipelines.
        """
        pipe = self[look.model]
        if not self.is_steered(look.model):
            kind = "pil" if pixels.dtype == np.uint8 else "np"
            with self._working:
                return np.asarray(pipe(pixels, strength=look.strength, output_type=kind).images[0])
        regions = regions_of(areas)
        with self._working:  # schedulers keep the state of a run
            grids = pipe.predict_grid(pixels, look.c, regions=regions, generator=noise(look.seed))
        return pipe.apply_grid(pixels, grids, strength=look.strength, regions=regions)

    def seen(self, label: str, pixels: np.ndarray) -> torch.Tensor:
        """What a steered model sees of a photo, (1,3,h,w) in [0,1]: its grids are those of the photo, found sooner."""
        from diffretouch.models.unet import seen_photo, thumbnail_fold_and_size, unet_thumbnail
        from diffretouch.pixels import as_tensor, nearest_pixels

        config = self[label].unet.config
        mode = self[label].config.thumbnail
        if mode == "nearest":  # the very pixels that the pipeline takes
            pixels = nearest_pixels(pixels, thumbnail_fold_and_size(config)[1])
        return seen_photo(unet_thumbnail(as_tensor(pixels), config, mode), config)

    def grids_at(
        self, label: str, seen: torch.Tensor, c: torch.Tensor | list[list[float]], seeds: Sequence[int]
    ) -> np.ndarray:
        """The grids (n,12,D,gh,gw) at rows of c (n,4), one seed each, for pixels in [0,1]: numpy, float32.

        They are not yet held in range: the page does that, each where its area is.

        Args:
            seen (`torch.Tensor`): see `seen`.
        """
        pipe = self[label]
        config = {name: value for name, value in pipe.config.items() if name not in pipe.components and name[0] != "_"}
        pipe = type(pipe)(**pipe.components, **{**config, "clipping_limit": None})
        pipe.set_progress_bar_config(disable=True)
        with self._working:
            grids = pipe.predict_grid(seen, c, generator=[noise(seed) for seed in seeds]).cpu().double()
        low, high = pipe.grid_head.config.pixel_range
        cells = grids.unflatten(1, (3, 4))  # views: what is added to red, green and blue is the fourth
        cells[:, :, 3] += low * cells[:, :, :3].sum(2) - low
        cells[:, :, 3] /= high - low
        return grids.float().numpy()

    def guide(self, label: str) -> dict[str, Any]:
        """The guide's curve for pixels in [0,1]: guide = bias + mean over j of sum of slopes relu(y_j - thresholds),
        y = pixel matrix + matrix_bias, limited to [0,1]."""
        head = self[label].grid_head
        low, high = head.config.pixel_range
        curve = {name: value.detach().cpu().double() for name, value in head.guide_curve.named_parameters()}
        curve["matrix_bias"] = curve["matrix_bias"] + low * curve["matrix"].sum(0)
        curve["matrix"] = curve["matrix"] * (high - low)
        return {name: value.tolist() for name, value in curve.items()}

    def sheet(self, look: Look, pixels: np.ndarray) -> "PIL.Image.Image":
        """The contact sheet: every attribute from -1 to 1, see `sweep`."""
        from diffretouch.sweep import sweep

        self.check_steered(look.model, "a contact sheet of the sliders")
        with self._working:
            return sweep(self[look.model], as_float(pixels), seed=look.seed)

    def table(self, look: Look, pixels: np.ndarray, size: int = 33) -> "Lut3D":
        """The look as a colour table, see `bake_lut`."""
        from diffretouch.lut import bake_lut
        from diffretouch.pipelines.pipeline_sa_adjustnet import SAAdjustNetPipeline

        if isinstance(self[look.model], SAAdjustNetPipeline):
            raise ValueError(f"{look.model} retouches by region: a colour table cannot hold that.")
        steered = {"c": look.c, "generator": noise(look.seed)} if self.is_steered(look.model) else {}
        with self._working:
            return bake_lut(self[look.model], pixels, size=size, strength=look.strength, **steered)

    def settings(self, look: Look, areas: Sequence[Area] = ()) -> Settings:
        """The look as `Settings` for files, complete; areas that were painted are not among them."""
        words = []
        for area in areas:
            if area.words is not None:
                c = zip(ATTRIBUTES, area.c, strict=True)
                words.append(f"{area.words}:" + ",".join(f"{name}={value:g}" for name, value in c))
        said = Settings(
            c=dict(zip(ATTRIBUTES, look.c, strict=True)),
            strength=look.strength,
            seed=look.seed,
            regions=tuple(words) or None,
        )
        return resolved(said, self[look.model], self._names[look.model])

    def check_steered(self, label: str, what: str) -> None:
        if not self.is_steered(label):
            raise ValueError(f"{label} has no sliders: {what} needs DiffRetouch.")


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regions_of(areas: Iterable[Area]) -> list[tuple[Any, Any]] | None:
    """Areas -> `regions` as the pipelines take them; an empty mask changes nothing and is left out."""
    return [(area.mask, area.c) for area in areas if area.mask.any()] or None
