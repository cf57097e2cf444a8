import pytest
import torch
from diffusers.training_utils import EMAModel

from diffretouch.training.moving_average import MovingAverage


def weights(dtype=torch.float32):
    torch.manual_seed(0)
    trained, frozen = torch.nn.Linear(3, 2).to(dtype), torch.nn.Linear(2, 2).to(dtype)
    return [*trained.parameters(), *frozen.requires_grad_(False).parameters()]


@torch.no_grad()
def moved(parameters, average, steps=5):
    for _ in range(steps):
        for own in parameters:
            own += 0.1
        average.step()


@pytest.mark.parametrize("on_cpu", [False, True])
def test_averages_as_diffusers_does(on_cpu):
    parameters, others = weights(), weights()
    average = MovingAverage(parameters, 0.9, on_cpu=on_cpu)
    wanted = EMAModel(others, decay=0.9, use_ema_warmup=True, power=3 / 4)
    moved(parameters, average)
    for _ in range(5):
        for own in others:
            own.data += 0.1
        wanted.step(others)
    state = average.state()
    assert average.steps == 5 and all(torch.equal(state[str(i)], x) for i, x in enumerate(wanted.shadow_params))
    own = [p.detach().clone() for p in parameters]
    with average.in_place():
        assert all(torch.equal(p, state[str(i)]) for i, p in enumerate(parameters))
    assert all(torch.equal(p, x) for p, x in zip(parameters, own, strict=True))


def test_goes_on_where_it_was():
    parameters, others = weights(), weights()
    average, other = MovingAverage(parameters, 0.9), MovingAverage(others, 0.9)
    moved(parameters, average)
    state = {name: value.clone() for name, value in average.state().items()}
    moved(others, MovingAverage([], 0.9))
    other.load(state, average.steps)
    moved(parameters, average, 2)
    moved(others, other, 2)
    states = (x.state().values() for x in (average, other))
    assert other.steps == 7 and all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_averages_of_bf16_weights_are_float32():
    """Steps smaller than the eight bits of a bf16 weight still add up."""
    parameters = [torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))]
    average = MovingAverage(parameters, 0.999)
    parameters[0].data[:] = 1.125
    for _ in range(3):
        average.step()
    (state,) = average.state().values()
    assert state.dtype == torch.float32 and (state > 1).all()
    with average.in_place():
        assert parameters[0].dtype == torch.bfloat16


def test_no_average():
    parameters = weights()
    average = MovingAverage(parameters, 0)
    moved(parameters, average)
    own = [p.detach().clone() for p in parameters]
    with average.in_place():
        assert all(torch.equal(p, x) for p, x in zip(parameters, own, strict=True))
    assert average.steps is None and not average.state()
    average.load({}, None)


def test_refuses():
    with pytest.raises(ValueError, match=r"`decay` must lie in \[0, 1\), got 1"):
        MovingAverage([], 1.0)
    average = MovingAverage(weights(), 0.9)
    for state, steps in (({}, None), ({"0": torch.zeros(3)}, 2)):
        with pytest.raises(ValueError, match="--ema_decay"):
            average.load(state, steps)
