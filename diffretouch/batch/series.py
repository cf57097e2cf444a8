"""A series: one noise for all photos, and exposures and white balances that meet."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffretouch.colour import LUMA

from .stream import apply, stream

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffretouch.batch.plan import Task
    from diffretouch.settings import Settings

MOST_EXPOSURE = 1.5  # EV by which photos of a series are brought together
MOST_BALANCE = 0.3  # EV of red and of blue: a white balance that wandered, not another subject


class SeriesLook(NamedTuple):
    """What photos of a series have in common: mean luma in [0,1], and means of a and b in CIELAB."""

    brightness: float
    a: float
    b: float


def series_looks(
    pipe: "DiffusionPipeline",
    tasks: "Iterable[Task]",
    settings: "Settings",
    *,
    jobs: int | None = None,
    batch_size: int = 8,
    max_pixels: int = 300_000_000,
) -> Iterator[SeriesLook]:
    """What each photo of a series would become with one c and one noise for all of them.

    Yields:
        [`SeriesLook`]: of a small copy of the result; nothing for a file that cannot be used.
    """

    def finish(task, photo, retouch, own):
        from diffretouch.pixels import as_tensor, shrink

        small = shrink(as_tensor(photo.pixels), 256)[0].permute(1, 2, 0).contiguous().numpy()
        return {"photo": task.name, "status": "done", "look": _look(_small(apply(pipe, small, retouch, own)))}

    # Other models retouch the whole photo: 8 bits would hold it in [0,1]
    of_grids = pipe.has_sliders and not settings.regions
    seed = settings.seed
    rows = stream(pipe, tasks, settings, finish, lambda name: seed, jobs, batch_size, of_grids, max_pixels)
    yield from (row["look"] for row in rows if row["status"] == "done")


def series_target(looks: Sequence[SeriesLook]) -> SeriesLook:
    """The look that a series is brought to: of each number the middle one of its photos'."""
    if not looks:
        raise ValueError("no photo of the series can be read.")
    return SeriesLook(*np.median(looks, axis=0).tolist())


def exposed(pixels: np.ndarray, exposure: float | None, white_balance: Sequence[float] | None = None) -> np.ndarray:
    """(H,W,3) sRGB float -> the same array, brighter by `exposure` EV on a display of gamma 2.2.

    Args:
        white_balance (pair of `float`, *optional*): EV by which red and blue become stronger beside green; the luma
            of grey stays.
    """
    if exposure or white_balance:
        np.multiply(pixels, _gains(exposure or 0.0, *(white_balance or (0.0, 0.0))), out=pixels)
    return pixels


def match(pixels: np.ndarray, look: SeriesLook) -> tuple[float, tuple[float, ...]]:
    """-> (exposure, (red, blue)) in EV that bring pixels to a [`SeriesLook`].

    The exposure lies within +-1.5 EV, red and blue within +-0.3 EV: a photo that is farther off comes as near as that.
    """
    small, balance, step = _small(pixels), np.zeros(2), 0.02
    exposure = _exposure_to(look.brightness, small, balance)
    for _ in range(3):  # Newton's steps: the means of a and b are nearly linear in such small gains
        here, by_red, by_blue = (
            np.array(_look(small * _on_channels(exposure, *(balance + moved)))[1:])
            for moved in ((0, 0), (step, 0), (0, step))
        )
        slopes = np.stack([by_red - here, by_blue - here], 1) / step
        moved = np.linalg.lstsq(slopes, np.array(look[1:]) - here, rcond=1e-3)[0]
        balance = np.clip(balance + moved, -MOST_BALANCE, MOST_BALANCE)
        exposure = _exposure_to(look.brightness, small, balance)
    return exposure, tuple(balance.tolist())


def _gains(exposure, red, blue):
    balance = 2.0 ** (np.array([red, 0.0, blue]) / 2.2)
    return np.float32(2.0 ** (exposure / 2.2) * balance / (balance @ LUMA))


def _on_channels(exposure, red, blue):
    import torch

    return torch.from_numpy(_gains(exposure, red, blue))[None, :, None, None]


def _small(pixels):
    from diffretouch.pixels import as_tensor, shrink

    return shrink(as_tensor(pixels), 128)


def _look(small):
    """The [`SeriesLook`] of (1,3,h,w), as a screen shows it."""
    from diffretouch.attributes import measure_attributes
    from diffretouch.colour.lab import srgb_to_lab

    shown = small.clamp(0, 1)
    a, b = srgb_to_lab(shown)[0, 1:].mean((1, 2)).tolist()
    return SeriesLook(measure_attributes(shown)[0, 3].item(), a, b)


def _exposure_to(brightness, small, balance):
    """The exposure, within +-1.5 EV, that brings (1,3,h,w) with a white balance to a brightness."""
    of = lambda exposure: _look(small * _on_channels(exposure, *balance)).brightness  # noqa: E731
    low, high = -MOST_EXPOSURE, MOST_EXPOSURE
    for end in (low, high):
        if (of(end) - brightness) * end <= 0:
            return end
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < brightness else (low, middle)
    return (low + high) / 2
