"""A series: one noise for all photos, and exposures that meet."""

import statistics

import numpy as np

from .stream import apply, stream

MOST_EXPOSURE = 1.5  # EV by which photos of a series are brought together


def series_brightness(pipe, tasks, settings, *, jobs=None, batch_size=8, max_pixels=300_000_000):
    """How bright each photo of a series would become with one c and one noise for all of them.

    Yields:
        `float`: the mean luma of a small copy of the result; nothing for a file that cannot be used.
    """

    def finish(task, photo, retouch, own):
        from diffretouch.pixels import as_tensor, shrink

        small = shrink(as_tensor(photo.pixels), 256)[0].permute(1, 2, 0).contiguous().numpy()
        result = apply(pipe, small, retouch, own)
        return {"photo": task.name, "status": "done", "brightness": _brightness(result)(1.0)}

    of_grids = pipe.has_sliders  # other models retouch the whole photo: 8 bits would hold it in [0,1]
    seed = settings.seed
    rows = stream(pipe, tasks, settings, finish, lambda name: seed, jobs, batch_size, of_grids, max_pixels)
    yield from (row["brightness"] for row in rows if row["status"] == "done")


def series_target(values):
    """The brightness that a series is brought to: the middle one of its photos'."""
    if not values:
        raise ValueError("no photo of the series can be read.")
    return statistics.median(values)


def exposed(pixels, exposure):
    """(H,W,3) sRGB float -> the same array, brighter by `exposure` EV on a display of gamma 2.2."""
    if exposure:
        np.multiply(pixels, np.float32(2 ** (exposure / 2.2)), out=pixels)
    return pixels


def _brightness(pixels):
    """-> function: factor -> mean luma of a small copy of `pixels` times that factor, as a screen shows it."""
    from diffretouch.attributes import measure_attributes
    from diffretouch.pixels import as_tensor, shrink

    small = shrink(as_tensor(pixels), 128)
    return lambda factor: measure_attributes((small * factor).clamp(0, 1))[0, 3].item()


def exposure_to(brightness, pixels):
    """The exposure, within +-1.5 EV, that brings pixels to a brightness."""
    of, low, high = _brightness(pixels), -MOST_EXPOSURE, MOST_EXPOSURE
    for end in (low, high):
        if (of(2 ** (end / 2.2)) - brightness) * end <= 0:
            return end
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if of(2 ** (middle / 2.2)) < brightness else (low, middle)
    return (low + high) / 2
