import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffretouch.attributes import (
    ATTRIBUTE_SCALES,
    attribute_coordinates,
    label_statistics,
    measure_attributes,
    quantile_labels,
)
from diffretouch.losses import (
    attribute_loss,
    clipping_loss,
    contrastive_loss,
    daylight_loss,
    grid_smoothness_loss,
    latent_loss,
    latent_target,
    obedience_loss,
    pixel_loss,
    predicted_latents,
    snr_weights,
)


def photo(seed=0, batch=2, dtype=torch.float64):
    return 0.2 + 0.6 * torch.rand(batch, 3, 12, 10, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_latent_target_inverts_to_the_latents(kind):
    """A sampler that is handed the target as the model's output must find the clean latents."""
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    latents, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), scheduler.timesteps[3]
    noisy = scheduler.add_noise(latents, noise, t)
    target = latent_target(scheduler, latents, noise, t.expand(2))
    torch.testing.assert_close(scheduler.step(target, t, noisy).pred_original_sample, latents, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predicted_latents_turn_the_target_round(kind):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    t = torch.tensor([0, 300, 999])
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    noisy = scheduler.add_noise(latents, noise, t)
    target = latent_target(scheduler, latents, noise, t)
    torch.testing.assert_close(predicted_latents(scheduler, target, noisy, t), latents, atol=2e-3, rtol=0)


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_snr_weights(kind, zero_terminal):
    """Weighted so, the loss of each prediction is min(SNR, gamma) times the error of the clean latents."""
    scheduler = DDIMScheduler(prediction_type=kind, rescale_betas_zero_snr=zero_terminal)
    t = torch.tensor([1, 200, 600, 990])
    weights = snr_weights(scheduler, t, 5.0)
    alpha = scheduler.alphas_cumprod[t].double()
    snr = alpha / (1 - alpha)
    # an error e of x_0 is an error sqrt(snr) e of the noise and e / sqrt(1 - alpha) of the velocity
    per_unit = {"epsilon": snr, "v_prediction": 1 / (1 - alpha), "sample": torch.ones(4).double()}[kind]
    torch.testing.assert_close(weights.double() * per_unit, snr.clamp(max=5), rtol=1e-4, atol=0)
    assert snr_weights(scheduler, torch.tensor([999]), 5.0).isfinite().all()
    with pytest.raises(ValueError, match="`gamma`"):
        snr_weights(scheduler, t, 0)


def test_weighted_losses():
    a, b = photo(0), photo(1)
    weights = torch.tensor([0.5, 2.0])
    expected = (weights[:, None, None, None] * (a - b) ** 2).mean().float()
    torch.testing.assert_close(latent_loss(a, b, weights), expected)
    mask = torch.ones(2, 1, 12, 10)
    torch.testing.assert_close(pixel_loss(a, b, 0.5, mask), pixel_loss(a, b, 0.5))
    mask[:, :, :6] = 0
    rest = (a - b)[:, :, 6:]
    torch.testing.assert_close(pixel_loss(a, b, 0.0, mask), (rest**2).mean().float() / 2)


def test_clipping():
    target = torch.tensor([0.0, 0.001, 0.2, 0.8, 0.999, 1.0]).view(1, 1, 1, 6)
    assert clipping_loss(target.clamp(0.1, 0.9), target) == 0
    beyond = torch.tensor([-0.5, -0.5, -0.1, 1.2, 1.5, 1.5]).view(1, 1, 1, 6)  # only the middle two were to be kept
    assert clipping_loss(beyond, target, margin=0.01) == pytest.approx((0.11 + 0.21) / 6)
    beyond.requires_grad_()
    clipping_loss(beyond, target).backward()
    torch.testing.assert_close(beyond.grad.flatten(), torch.tensor([0, 0, -1, 1, 0, 0]) / 6)


def test_grid_smoothness():
    grid = torch.zeros(2, 12, 4, 3, 5)
    assert grid_smoothness_loss(grid + 1.7) == 0
    grid[..., 2:, :, :] = 0.5  # one step of 0.5 between three of the depth's borders
    assert grid_smoothness_loss(grid) == pytest.approx(0.25 / 3)
    assert grid_smoothness_loss(torch.rand(1, 12, 1, 1, 1)) == 0
    random = torch.rand(1, 12, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    grid_smoothness_loss(random).backward()
    assert random.grad.isfinite().all() and random.grad.abs().max() > 0


def test_losses_by_quantiles():
    """With a data set's statistics, distances are those between places among all photos."""
    statistics = label_statistics(measure_attributes(photo(7, batch=40, dtype=torch.float32) ** torch.linspace(
        0.5, 2, 40)[:, None, None, None]))  # fmt: skip
    image = photo(dtype=torch.float32)
    assert attribute_loss(image, image, statistics=statistics) < 1e-6
    darker = image**1.3
    labels = [quantile_labels(measure_attributes(x), statistics, limit=8.0) for x in (image, darker)]
    c = (labels[0] - labels[1]) / 2
    assert obedience_loss(image, darker, c, statistics=statistics) < 1e-4
    assert obedience_loss(image, darker, -c, statistics=statistics) > 0.01
    darker.requires_grad_()
    attribute_loss(darker, image, statistics=statistics).backward()
    assert darker.grad.isfinite().all() and darker.grad.abs().max() > 0


def test_latent_target_refuses():
    with pytest.raises(ValueError, match="`prediction_type`"):
        predicted_latents(DDPMScheduler(prediction_type="flow"), None, torch.zeros(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="`prediction_type`"):
        latent_target(DDPMScheduler(prediction_type="flow"), None, None, None)


def test_pixel_and_latent_loss():
    a, b = photo(0), photo(1)
    expected = ((a - b) ** 2).mean().float()
    torch.testing.assert_close(latent_loss(a, b), expected)
    torch.testing.assert_close(pixel_loss(a, b), expected)
    torch.testing.assert_close(pixel_loss(a, b, 0.5), expected + 0.5 * (a - b).abs().mean().float())


def test_attribute_loss():
    image = photo(dtype=torch.float32)
    assert attribute_loss(image, image) < 1e-6
    losses = [attribute_loss(image**gamma, image) for gamma in (1.05, 1.2, 1.6)]
    assert losses[0] < losses[1] < losses[2]
    dull = (image**1.5).requires_grad_()
    attribute_loss(dull, image).backward()
    assert dull.grad.isfinite().all()
    # a step down the gradient makes the photo brighter again
    assert measure_attributes(dull - 10 * dull.grad)[:, 3].mean() > measure_attributes(dull)[:, 3].mean()


def test_contrastive_loss_is_the_papers():
    anchor, positive, negative = photo(0), photo(1), photo(2) ** 1.4
    c, tau = torch.tensor([[0.5, 0, -1, 0.2], [0, 0, 0, 1]], dtype=torch.float64), 0.1
    scores = [
        (attribute_coordinates(measure_attributes(x.float())).double() / torch.tensor(ATTRIBUTE_SCALES)).numpy()
        for x in (anchor, positive, negative)
    ]
    expected = 0
    for b in range(2):
        for i in range(4):
            if c[b, i] != 0:
                near = np.exp(-abs(scores[0][b, i] - scores[1][b, i]) / tau)
                far = np.exp(-abs(scores[0][b, i] - scores[2][b, i]) / tau)
                expected += -np.log(near / (near + far)) / 2
    value = contrastive_loss(anchor, positive, negative, c, tau=tau)
    np.testing.assert_allclose(value.item(), expected, rtol=1e-4)


def test_contrastive_loss_wants_minus_c_to_differ():
    image, c = photo(dtype=torch.float32), torch.tensor([[0, 0, 0, 0.5]] * 2)
    same = contrastive_loss(image, image, image, c)
    torch.testing.assert_close(same, torch.tensor(2.0).log())
    assert contrastive_loss(image, image, image**1.5, c) < 0.1 * same
    assert contrastive_loss(image, image**1.5, image, c) > same
    assert contrastive_loss(image, image, image**1.5, torch.zeros(2, 4)) == 0


def test_obedience_loss_wants_the_right_distance():
    image = 0.3 + 0.4 * photo(dtype=torch.float32)
    score, step = measure_attributes(image)[:, 3], 0.4

    def at(k):
        """The photo at k steps of c in brightness, lifted evenly: colorfulness and contrast stay."""
        wanted = (score.logit() + k * step * ATTRIBUTE_SCALES[3]).sigmoid()
        return image + (wanted - score)[:, None, None, None]

    c = torch.tensor([[0, 0, 0, step]] * 2)
    right, none, wrong, farther_wrong = (obedience_loss(at(1), at(k), c) for k in (-1, 1, 2, 3))
    assert right < 0.005 < none < wrong < farther_wrong
    assert obedience_loss(at(1), at(-3), c) > right  # too far is wrong as well
    assert obedience_loss(image, image, torch.zeros(2, 4)) < 1e-6


def test_daylight_loss_sees_green_and_pink_whites_alone():
    """The way of a white is Planck's line, by the coordinates of colour-science; saturation and light are no tint."""
    colour = pytest.importorskip("colour")
    d65 = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"]["D65"]

    def planck(kelvin):
        xyz = colour.xy_to_XYZ(colour.temperature.CCT_to_xy_Kang2002(kelvin))
        linear = colour.XYZ_to_sRGB(xyz, d65, apply_cctf_encoding=False)
        return torch.tensor(linear / linear[1], dtype=torch.float32) ** (1 / 2.2)

    tones = torch.linspace(0.3, 0.7, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    light = lambda gains: tones * gains.view(1, 3, 1, 1)  # noqa: E731
    target, warm, cool = (light(planck(kelvin) / planck(6500)) for kelvin in (6000, 5000, 9000))
    kept, green = (
        daylight_loss(warm, cool, target),
        daylight_loss(warm * torch.tensor([1, 1.03, 1])[:, None, None], cool, target),
    )
    assert kept < 0.01 < 0.1 < green
    assert daylight_loss(0.7 * warm, 1.2 * cool, target) < 0.05  # light
    leaf = tones.new_tensor([0.3, 1.3, 0.2]).view(1, 3, 1, 1) * tones
    assert daylight_loss(leaf, leaf * leaf.new_tensor([1, 0.8, 1]).view(1, 3, 1, 1), leaf) < 0.01  # no white in it
    black = torch.zeros(2, 3, 8, 8, requires_grad=True)
    daylight_loss(black, black, black).backward()
    assert torch.isfinite(black.grad).all()
