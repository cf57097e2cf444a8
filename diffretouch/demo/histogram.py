"""The histogram of a photo before and after, as a picture."""

import numpy as np

_BINS, _HEIGHT = 64, 100


def channel_counts(pixels):
    """(h,w,3) uint8 -> (3,64): how many pixels of each channel have how much."""
    some = _some(pixels) >> 2
    return np.stack([np.bincount(some[:, channel], minlength=_BINS) for channel in range(3)])


def clipped(pixels):
    """Shares of the pixels whose channels are all 0, and all 255."""
    some = _some(pixels)
    red, green, blue = some.T
    return float(((red | green | blue) == 0).mean()), float(((red & green & blue) == 255).mean())


def histogram_svg(before, after):
    """Red, green and blue of `after` as areas, the sum of `before` as a line; both (h,w,3) uint8.

    Heights are square roots, so that a few pixels can be seen too.
    """
    counts, earlier = channel_counts(after), channel_counts(before).sum(0) / 3
    top = np.sqrt(max(np.sort(counts.ravel())[-4], earlier.max(), 1))  # one full bin alone does not flatten the rest
    areas = []
    for name, channel in zip(("red", "green", "blue"), counts, strict=True):
        areas.append(f'<path class="{name}" d="M0,{_HEIGHT}{_line(channel, top)}V{_HEIGHT}Z"/>')
    dark, bright = clipped(after)
    said = f"Histogram of the result, with that of the photo as a line; {dark:.1%} black, {bright:.1%} white"
    line = _line(earlier, top)
    return (
        f'<svg class="histogram" viewBox="0 0 {_BINS - 1} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}"><title>{said}</title>{"".join(areas)}<path class="before" d="M{line[1:]}"/></svg>'
        f'<p class="clipped"><span>black {dark:.1%}</span><span class="key">line: before</span>'
        f"<span>white {bright:.1%}</span></p>"
    )


def _some(pixels):
    """About every twentieth pixel of a large picture: nobody sees the difference."""
    return np.ascontiguousarray(pixels.reshape(-1, 3)[:: max(pixels.shape[0] * pixels.shape[1] // 50_000, 1)])


def _line(counts, top):
    heights = np.minimum(np.sqrt(counts) / top, 1) * (_HEIGHT - 2)
    return "".join(f"L{x},{_HEIGHT - height:.1f}" for x, height in enumerate(heights))
