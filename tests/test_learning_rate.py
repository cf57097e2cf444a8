import pytest
import torch
from diffusers.optimization import get_scheduler

from diffretouch.training.learning_rate import halved_share, scheduled_share, set_rates


def optimizer():
    return torch.optim.Adam([{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.ones(1)]}], lr=0.4)


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "polynomial"])
def test_the_curve_of_a_schedule_that_is_stepped(name):
    share, stepped = scheduled_share(name, 3, 12), optimizer()
    schedule = get_scheduler(name, stepped, num_warmup_steps=3, num_training_steps=12)
    for step in range(12):
        assert share(step) * 0.4 == pytest.approx(schedule.get_last_lr()[1], abs=1e-6)
        stepped.step()
        schedule.step()


def test_any_step_first():
    share = scheduled_share("cosine", 2, 12)
    assert share(7) == scheduled_share("cosine", 2, 12)(7) and share(12) == pytest.approx(0, abs=1e-12)


def test_halved():
    share = halved_share(2, 9)
    assert [share(step) for step in range(9)] == [1] * 3 + [0.5] * 3 + [0.25] * 3


def test_groups_keep_their_relation():
    some = optimizer()
    assert set_rates(some, [0.1, 0.4], 0.5) == 0.05
    assert [group["lr"] for group in some.param_groups] == [0.05, 0.2]


def test_refuses():
    with pytest.raises(ValueError):
        scheduled_share("none", 0, 1)
