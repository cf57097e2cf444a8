import pytest
import torch

from diffretouch.losses.adjustment import adjustment_loss, colour_error, moved_usage, preset_weights, scene_loss


def test_huber_by_its_definition():
    errors = torch.tensor([0.0, 0.01, 0.04, 0.05, -0.5], dtype=torch.float64)
    expected = [0.5 * e**2 if abs(e) <= 0.04 else 0.04 * (abs(e) - 0.02) for e in errors.tolist()]
    estimate = torch.zeros(5, 3, dtype=torch.float64)
    estimate[:, 1] = errors
    out = colour_error(estimate, torch.zeros(5, 3, dtype=torch.float64))
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))
    squares = colour_error(estimate, torch.zeros(5, 3, dtype=torch.float64), "mse")
    torch.testing.assert_close(squares, errors**2)
    with pytest.raises(ValueError, match="`kind`"):
        colour_error(estimate, estimate, "l1")


def test_the_expectation_is_that_of_drawn_presets():
    """Exact expectation against a sum over all choices of all pixels, and by drawing."""
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    estimates, target, probabilities = rand(2, 5, 3, 3), rand(2, 5, 3), rand(2, 5, 3).softmax(-1)
    usage = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    weights = 0.2 + 0.8 * 3 * usage
    total = 0.0
    for b in range(2):
        for p in range(5):
            for k in range(3):
                error = colour_error(estimates[b, p, k], target[b, p])
                total += (weights[k] * probabilities[b, p, k] * error).item() / 10
    out = adjustment_loss(estimates, probabilities, target, usage=usage)
    assert out.item() == pytest.approx(total, rel=1e-12)
    draws = torch.multinomial(probabilities.flatten(0, 1), 20000, True, generator=generator)  # (10,20000)
    errors = colour_error(estimates, target[:, :, None]).flatten(0, 1)
    drawn = errors.gather(1, draws).mean()
    assert adjustment_loss(estimates, probabilities, target).item() == pytest.approx(drawn.item(), rel=0.01)


def test_a_soft_map_may_say_both():
    """Half way between two presets: the mixture is exact, the expectation is not, and only the mixture likes it so."""
    estimates, target = torch.tensor([[[[0.2, 0, 0], [0.4, 0.1, 0]]]]), torch.tensor([[[0.3, 0.05, 0]]])
    halves = torch.full((1, 1, 2), 0.5)
    loss = lambda p, m: adjustment_loss(estimates, p, target, mixture=m).item()  # noqa: E731
    assert loss(halves, 1.0) == pytest.approx(0, abs=1e-9) and loss(halves, 0.0) > 1e-3
    assert loss(halves, 0.25) == pytest.approx(0.75 * loss(halves, 0.0))
    one = torch.tensor([[[1.0, 0.0]]])
    assert loss(one, 1.0) == pytest.approx(loss(one, 0.0)) and loss(one, 1.0) > 1e-3
    usage = torch.tensor([0.9, 0.1])  # class weights are for the choice only
    weighted = adjustment_loss(estimates, halves, target, usage=usage, mixture=1.0)
    assert weighted.item() == pytest.approx(0, abs=1e-9)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    estimates = torch.rand(1, 4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.rand(1, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    target, usage = torch.rand(1, 4, 3, generator=generator, dtype=torch.float64), torch.tensor([0.7, 0.3])
    loss = lambda e, z: adjustment_loss(e, z.softmax(-1), target, usage=usage.double())  # noqa: E731
    assert torch.autograd.gradcheck(loss, (estimates, logits))
    mixed = lambda e, z: adjustment_loss(e, z.softmax(-1), target, mixture=0.5)  # noqa: E731
    assert torch.autograd.gradcheck(mixed, (estimates, logits))
    plain = torch.rand(1, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: adjustment_loss(e, None, target), plain)


def test_rare_presets_cost_less():
    weights = preset_weights(torch.tensor([0.7, 0.25, 0.05]))
    assert weights[0] > weights[1] > weights[2] > 0
    torch.testing.assert_close(preset_weights(torch.full((4,), 0.25)), torch.ones(4))
    assert torch.equal(preset_weights(torch.tensor([0.9, 0.1]), 0.0), torch.ones(2))


def test_usage_moves_towards_what_is_chosen():
    usage = torch.tensor([0.5, 0.5])
    chosen = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [1, 0]]]).requires_grad_()
    moved = moved_usage(usage, chosen, 0.9)
    torch.testing.assert_close(moved, torch.tensor([0.525, 0.475]))
    assert not moved.requires_grad
    for _ in range(200):
        usage = moved_usage(usage, chosen, 0.9)
    torch.testing.assert_close(usage, torch.tensor([0.75, 0.25]), atol=1e-4, rtol=0)


def test_scene_loss_passes_over_what_is_unknown():
    logits = torch.randn(2, 6, 5, requires_grad=True)
    scene = torch.tensor([[0, 1, -1, 4, -1, 2], [-1] * 6])
    known = scene[0] >= 0
    expected = torch.nn.functional.cross_entropy(logits[0][known], scene[0][known])
    torch.testing.assert_close(scene_loss(logits, scene), expected)
    nothing = scene_loss(logits, torch.full((2, 6), -1))
    assert nothing.item() == 0
    nothing.backward()
    assert not logits.grad.any()
