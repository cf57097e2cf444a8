"""A grid's results held within the range at a photo's full size: noise and stars, which a thumbnail averages away."""

import torch

from diffretouch.models.affine_grid import AffineGridHead

JUDGED = 128  # pixels along each side of a photo by which a pipeline judges it
_NOTHING = 1e-4  # of the range beyond an end is rounding
_STEP = 0.1  # of the range from depth to depth: tones are squeezed, never turned over


@torch.no_grad()
def tones_in_range(
    head: AffineGridHead, grid: torch.Tensor, photo: torch.Tensor, share: float, inside: torch.Tensor | None = None
) -> torch.Tensor:
    """The grid with those depths of it squeezed, in which it drives more than a share of the pixels out of the range.

    `AffineGridHead.keep_in_range` squeezes all tones alike, as far as a thumbnail's ends ask for. Here each depth of
    the grid, which is to say tones of one kind, is squeezed just so far that of the whole photo no more than `share`
    clip at either end. Where no more do, nothing changes, bit for bit.

    Args:
        head (`AffineGridHead`): guides and applies.
        grid: (1,12,D,gh,gw).
        photo: (1,3,h,w) in [0,1]: single pixels of the photo, no means, see `pixels.pixels_of`.
        share: of the pixels, in [0,1), for each end. What the photo has at the end of its own range does not count.
        inside (*optional*): (h,w) in [0,1]; only pixels where it is over 0.5001 count, or all where it is nowhere.

    Returns:
        `torch.Tensor`: like `grid`, on its device.
    """
    low, high = head.config.pixel_range
    depth, photo = grid.shape[2], photo.to(grid)
    counts = torch.ones(photo.shape[2:], dtype=torch.bool) if inside is None else inside.cpu() > 0.5001
    counts = counts.flatten() if counts.any() else ~counts.flatten()
    result = head.apply(grid, photo)
    dark = -result.masked_fill(photo < 0.5 / 255, 1).amin(1).flatten().cpu()[counts]
    light = result.masked_fill(photo > 254.5 / 255, 0).amax(1).flatten().cpu()[counts] - 1
    if max((beyond > _NOTHING).sum() for beyond in (dark, light)) <= share * len(dark):
        return grid
    # A pixel lies between two depths, of which this is the lower one
    between = (head.guide(photo).flatten().cpu()[counts] * depth - 0.5).long().clamp(0, max(depth - 2, 0))
    below, above = (_squeeze(between, beyond, share, depth) for beyond in (dark, light))
    # y in [-below, 1 + above] -> [0,1] is y -> scale y + offset in the head's own range
    scale = 1 / (1 + below + above)
    offset = low * (1 - scale) + scale * below * (high - low)
    scale, offset = (row.to(grid)[:, None, None] for row in (scale, offset))
    grid = grid * scale
    grid[:, 3::4] += offset  # what is added to red, green and blue
    return grid


def _squeeze(between, beyond, share, depth):
    """(N) the lower of a pixel's two depths, (N) how far it lies beyond one end -> (depth) what each takes back of it.

    Where pixels clip most densely they are taken back, down to one density that leaves a `share` of all pixels.
    """
    over, gaps = beyond > _NOTHING, max(depth - 1, 1)
    number, clipped = (torch.bincount(kept, minlength=gaps).double() for kept in (between, between[over]))
    taken = torch.zeros(gaps)
    if clipped.sum() <= share * len(between):
        return torch.zeros(depth)
    least, most = 0.0, 1.0
    for _ in range(40):
        density = (least + most) / 2
        fits = torch.minimum(clipped, density * number).sum() <= share * len(between)
        least, most = (density, most) if fits else (least, density)
    for gap in torch.nonzero(clipped > least * number).flatten().tolist():
        own = beyond[(between == gap) & over].sort(descending=True).values
        taken[gap] = own[min(int(least * number[gap]), len(own) - 1)]
    beside = torch.nn.functional.pad(taken, (1, 1))
    both = torch.maximum(beside[:-1], beside[1:])[:depth]  # of the gaps below and above a depth
    apart = _STEP * (torch.arange(depth)[:, None] - torch.arange(depth)).abs()
    return (both - apart).amax(1).clamp(min=0)
