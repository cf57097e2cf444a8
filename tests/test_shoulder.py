import numpy as np
import pytest
import torch

from diffretouch import DiffRetouchPipeline
from diffretouch.models.shoulder import roll_off

LEVELS = torch.arange(256, dtype=torch.float64) / 255
ASKED = torch.linspace(-2, 3, 1501, dtype=torch.float64)


@pytest.mark.parametrize("shoulder", [0.2, 0.5, 0.7, 0.95])
def test_nothing_is_clipped_that_was_not(shoulder):
    photo, asked = torch.meshgrid(LEVELS, ASKED, indexing="ij")
    made = (roll_off(asked, photo, shoulder).clamp(0, 1) * 255).round()
    assert (made[1:255] > 0).all() and (made[1:255] < 255).all()
    assert (made[0, ASKED <= 0] == 0).all() and (made[255, ASKED >= 1] == 255).all()


def test_order_and_slope_stay():
    photo, asked = torch.meshgrid(LEVELS, ASKED, indexing="ij")
    made = roll_off(asked, photo, 0.7)
    steps = made.diff(dim=1)
    assert (steps[2:254] > 0).all()  # whatever is asked for, more of it is more: detail is dimmed, not lost
    assert (steps <= ASKED[1] - ASKED[0] + 1e-12).all()
    # no corner where the shoulder begins
    assert (
        steps.diff(dim=1)[2:254].abs().amax(1) < 0.05 * (ASKED[1] - ASKED[0]) / (LEVELS[2:254] * (1 - LEVELS[2:254]))
    ).all()


def test_small_moves_are_as_asked():
    photo = torch.rand(1000, dtype=torch.float64)
    for sign, room in ((1, 1 - photo), (-1, photo)):
        asked = photo + sign * 0.6 * (room - 1 / 255).clamp(min=0)
        assert torch.equal(roll_off(asked, photo, 0.7), asked)
    assert torch.equal(roll_off(photo, photo, 0.7), photo)


def test_black_and_white_are_alike_and_numbers_of_any_size():
    photo, asked = torch.rand(2, 500, dtype=torch.float64)
    made = roll_off(2 * asked - 0.5, photo, 0.7)
    torch.testing.assert_close(1 - roll_off(1.5 - 2 * asked, 1 - photo, 0.7), made, rtol=0, atol=1e-12)
    many = roll_off(65535 * (2 * asked - 0.5), 65535 * photo, 0.7, 65535)
    torch.testing.assert_close(many / 65535, made, rtol=0, atol=1e-12)


def test_beyond_the_range():
    photo = torch.tensor([-0.2, -0.2, 1.3, 1.3, torch.nan, 0.5])
    asked = torch.tensor([-0.4, -0.2, 1.5, 1.2, 0.5, torch.nan])
    made = roll_off(asked, photo, 0.7)
    torch.testing.assert_close(made[:4], torch.tensor([-0.2, -0.2, 1.3, 1.2]))
    assert made[4:].isnan().any() and made[5].isnan()


def test_gradients():
    torch.manual_seed(0)
    photo, asked = torch.rand(40, dtype=torch.float64), 3 * torch.rand(40, dtype=torch.float64) - 1
    inputs = asked.requires_grad_(), photo.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, p: roll_off(a, p, 0.7), inputs)


def test_noise_and_stars_do_not_burn_out():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:150, 0:200] / 150
    scene = 95 + 55 * np.stack([np.sin(5 * x + c) * np.cos(4 * y) for c in range(3)], 2)
    noisy = (scene + rng.normal(0, 20, scene.shape)).clip(0, 255).round().astype(np.uint8)
    night = np.full((150, 200, 3), 12, np.uint8)
    night[tuple(rng.integers(0, side, 400) for side in (150, 200))] = 200
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    for photo in (noisy, night):
        for c in (None, [0, 0, 0, 1], [1, 1, 0, 0.5], [0, 0, 0, -1]):
            made = pipe.retouch(photo, c, generator=torch.Generator().manual_seed(0))
            assert not ((made == 0) & (photo > 0) | (made == 255) & (photo < 255)).any()
    with pytest.raises(ValueError, match="`shoulder` must lie in"):
        DiffRetouchPipeline(**pipe.components, shoulder=1.0)
