"""The limit of clipping at full size: kept by noise and stars, and no change where nothing more clips."""

import pytest
import torch

from diffretouch.models.affine_grid import AffineGridHead, identity_grid
from diffretouch.models.clipping import tones_in_range


def noise(spread=0.08, middle=0.35):
    random = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-0.2, 0.2, 90).expand(1, 3, 80, 90)
    return (middle + ramp + spread * torch.randn((1, 3, 80, 90), generator=random)).clamp(0, 1)


def contrasty(gain, pixel_range=(0.0, 1.0), pivot=0.5):
    """A grid of y -> pivot + gain (y - pivot) in [0,1]."""
    low, high = pixel_range
    grid = identity_grid(1, depth=8, height=4, width=4) * gain
    centre = low + pivot * (high - low)
    grid[:, 3::4] += centre * (1 - gain)
    return grid


def clipped(head, grid, photo):
    """The shares of pixels that are newly driven below 0 and above 1."""
    result = head.apply(grid, photo)
    dark = ((result < -1e-4) & (photo > 0.5 / 255)).any(1).float().mean().item()
    return dark, ((result > 1.0001) & (photo < 254.5 / 255)).any(1).float().mean().item()


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("gain, share", [(1.6, 0.002), (2.5, 0.01), (1.6, 0.0)])
def test_the_limit_holds_for_single_pixels(pixel_range, gain, share):
    head, photo = AffineGridHead(pixel_range=pixel_range), noise()
    grid = contrasty(gain, pixel_range)
    assert max(clipped(head, grid, photo)) > 0.03
    kept = tones_in_range(head, grid, photo, share)
    assert max(clipped(head, kept, photo)) <= share + 0.003
    assert head.apply(kept, photo).std() > 0.7 * head.apply(grid, photo).clamp(0, 1).std()  # not dulled


def test_nothing_changes_where_no_more_clips():
    head, photo = AffineGridHead(), noise(0.02)
    grid = contrasty(1.1)
    assert torch.equal(tones_in_range(head, grid, photo, 0.002), grid)
    already = photo.clone()
    already[..., ::2] = 0  # what the photo has at the end may stay there, however many it is
    assert torch.equal(tones_in_range(head, grid, already, 0.0), grid)


def test_stars_leave_the_sky_alone():
    """Few bright pixels that burn out are taken back; the dark ones around them stay as they were."""
    random = torch.Generator().manual_seed(1)
    photo = 0.06 + 0.01 * torch.rand((1, 3, 100, 100), generator=random)
    stars = torch.rand((100, 100), generator=random) > 0.98
    photo[:, :, stars] = 0.9
    head, grid = AffineGridHead(), contrasty(1.5, pivot=0.02)
    kept = tones_in_range(head, grid, photo, 0.001)
    before, after = head.apply(grid, photo), head.apply(kept, photo)
    assert clipped(head, grid, photo)[1] > 0.015 and clipped(head, kept, photo)[1] <= 0.001
    torch.testing.assert_close(after[..., ~stars], before[..., ~stars])
    assert after[..., stars].min() > 0.9


def test_tones_keep_their_order():
    head, photo = AffineGridHead(), noise(0.15)
    kept = tones_in_range(head, contrasty(3.0), photo, 0.001)
    greys = torch.linspace(0, 1, 400).expand(1, 3, 1, 400)
    assert (head.apply(kept, greys).diff(dim=3) > 0).all()


def test_only_the_mask_counts():
    head, photo, grid = AffineGridHead(), noise(), contrasty(1.6)
    calm = photo.clone()
    calm[..., :45] = 0.5
    left = torch.zeros(80, 90)
    left[:, :45] = 1
    assert torch.equal(tones_in_range(head, grid, calm, 0.002, left), grid)
    whole = tones_in_range(head, grid, calm, 0.002)
    assert not torch.equal(whole, grid)
    assert torch.equal(tones_in_range(head, grid, calm, 0.002, torch.zeros(80, 90)), whole)
