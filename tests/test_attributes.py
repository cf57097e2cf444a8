import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch import ATTRIBUTES, as_attributes, attribute_labels, measure_attributes
from diffretouch.attributes import ATTRIBUTE_SCALES, attribute_coordinates, label_statistics, quantile_labels

GOLDEN = Path(__file__).parent / "golden/diffretouch/attributes.npz"
COLORFULNESS, CONTRAST, TEMPERATURE, BRIGHTNESS = range(4)


def photo(height=48, width=64, batch=2, dtype=torch.float64):
    return torch.rand(batch, 3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_released_formulas():
    golden = np.load(GOLDEN)
    names = list(golden["score_names"])
    for i in range(11):
        image = torch.from_numpy(golden[f"image_{i}"]).double().permute(2, 0, 1)[None] / 2 + 0.5
        scores = measure_attributes(image)[0]
        released = golden["scores"][i]
        assert abs(2 * scores[COLORFULNESS] - released[names.index("colorfulness")]) < 5e-6
        torch.testing.assert_close(
            4 * scores[CONTRAST].item(), released[names.index("contrast")], rtol=1e-5, atol=1e-9
        )


def test_order():
    assert ATTRIBUTES == ("colorfulness", "contrast", "temperature", "brightness")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (31, 7), (300, 200), (3, 4000)])
def test_any_size_is_finite(shape):
    for image in (photo(*shape), torch.zeros(1, 3, *shape), torch.ones(1, 3, *shape), torch.full((1, 3, *shape), 0.5)):
        scores = measure_attributes(image)
        assert scores.shape == (len(image), 4) and scores.isfinite().all()


def test_batch_equals_single():
    image = photo(200, 150, batch=3)
    singles = torch.cat([measure_attributes(one[None]) for one in image])
    torch.testing.assert_close(measure_attributes(image), singles)


def test_independent_of_resolution():
    smooth = torch.nn.functional.interpolate(photo(12, 16), (1536, 2048), mode="bicubic", antialias=True).clamp(0, 1)
    half = torch.nn.functional.interpolate(smooth, (768, 1024), mode="area")
    torch.testing.assert_close(measure_attributes(smooth), measure_attributes(half), rtol=5e-3, atol=1e-4)


def test_monotone_and_bounded():
    image = photo(dtype=torch.float32)
    brighter = [measure_attributes(image**gamma)[:, BRIGHTNESS] for gamma in (4, 2, 1, 0.5, 0.25)]
    warmer = []
    for warmth in (-1, -0.5, 0, 0.5, 1):
        gains = torch.tensor([2.0**warmth, 1, 2.0**-warmth])[:, None, None]
        warmer.append(measure_attributes((0.3 * image + 0.1) * gains)[:, TEMPERATURE])
    for series in (torch.stack(brighter), torch.stack(warmer)):
        assert (series.diff(dim=0) > 0).all()
        assert series.abs().max() <= 1
    extremes = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]])[..., None, None].expand(4, 3, 8, 8)
    scores = measure_attributes(extremes)
    assert (
        scores[0, TEMPERATURE] > 0.97 and scores[1, TEMPERATURE] < -0.97 and scores[2:, TEMPERATURE].abs().max() == 0
    )
    assert scores[2, BRIGHTNESS] == 0 and scores[3, BRIGHTNESS] == 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_gradient_is_finite_on_grey(value):
    image = torch.full((2, 3, 9, 7), value, requires_grad=True)
    measure_attributes(image).sum().backward()
    assert image.grad.isfinite().all() and image.grad.abs().sum() > 0


def test_gradient():
    assert torch.autograd.gradcheck(measure_attributes, photo(5, 6).requires_grad_())


def test_half_precision_and_autocast():
    image = photo(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(measure_attributes(image), measure_attributes(image.double()).float())
    assert measure_attributes(image.half()).dtype == torch.float32


@pytest.mark.parametrize(
    "image, error",
    [
        (torch.zeros(3, 8, 8), ValueError),
        (torch.zeros(1, 8, 8, 3), ValueError),
        (torch.zeros(1, 3, 0, 8), ValueError),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError),
        (np.zeros((1, 3, 8, 8)), TypeError),
    ],
)
def test_measure_refuses(image, error):
    with pytest.raises(error, match="`image`"):
        measure_attributes(image)


def test_labels_are_centred_and_signed():
    scores = measure_attributes(torch.stack([photo(batch=1)[0] ** gamma for gamma in (1.2, 1, 0.8)]))
    c = attribute_labels(scores[None])
    assert c.shape == (1, 3, 4) and c.abs().max() <= 1
    assert c[0, 0, BRIGHTNESS] < c[0, 1, BRIGHTNESS] < c[0, 2, BRIGHTNESS]
    one = attribute_labels(scores[1:2], scores[1])
    assert one.abs().max() == 0


def test_label_of_a_known_move():
    scores = measure_attributes(photo(batch=1))
    moved = scores.clone()
    moved[:, BRIGHTNESS] = (scores[:, BRIGHTNESS].logit() + 0.5 * ATTRIBUTE_SCALES[BRIGHTNESS]).sigmoid()
    moved[:, CONTRAST] = (scores[:, CONTRAST] + 1e-5) * np.exp(-0.25 * ATTRIBUTE_SCALES[CONTRAST]) - 1e-5
    c = attribute_labels(moved, scores[0])
    torch.testing.assert_close(c[0], c.new_tensor([0, -0.25, 0, 0.5]), atol=1e-6, rtol=0)
    assert attribute_labels(attribute_extreme(scores), scores[0], limit=1.5).abs().max() == 1.5


def attribute_extreme(scores):
    return torch.stack([scores[:, 0] * 9, scores[:, 1] * 99, scores[:, 2] * 0 + 1, scores[:, 3] * 0 + 1], 1)


def test_coordinates_are_finite_at_the_ends():
    assert attribute_coordinates(torch.tensor([[0.0, 0, 0, 0], [3, 10, 1, 1]])).isfinite().all()


@pytest.mark.parametrize(
    "c, expected",
    [
        (None, [[0, 0, 0, 0]]),
        ([0.1, 0.2, -0.3, 1], [[0.1, 0.2, -0.3, 1]]),
        (np.array([0, 0, 0, -1]), [[0, 0, 0, -1]]),
        (torch.ones(2, 4, dtype=torch.float64), [[1, 1, 1, 1]] * 2),
        ({"brightness": 0.5}, [[0, 0, 0, 0.5]]),
        ({}, [[0, 0, 0, 0]]),
    ],
)
def test_as_attributes(c, expected):
    rows = as_attributes(c)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(
    "c, error, words",
    [
        ([0, 0, 0], ValueError, "(3,)"),
        ([0] * 5, ValueError, "(5,)"),
        ([], ValueError, "(0,)"),
        (np.zeros((0, 4)), ValueError, "(0, 4)"),
        (0.5, ValueError, "4 numbers"),
        ([0, float("nan"), 0, 0], ValueError, "contrast must be finite"),
        ([0, 0, float("inf"), 0], ValueError, "temperature must be finite"),
        ([0, 0, 0, 3.1], ValueError, "brightness must lie in"),
        ({"Brightness": 1}, ValueError, "'Brightness'"),
        ({"exposure": 1}, ValueError, "'exposure'"),
        ({"brightness": None}, TypeError, "four numbers"),
        ("0,0,0,1", TypeError, "'0,0,0,1'"),
        ([True, False, True, False], TypeError, "four numbers"),
        ([1j, 0, 0, 0], TypeError, "four numbers"),
        (["a", "b", "c", "d"], TypeError, "four numbers"),
    ],
)
def test_as_attributes_refuses(c, error, words):
    with pytest.raises(error) as caught:
        as_attributes(c)
    assert "`c`" in str(caught.value) and words in str(caught.value)


def test_as_attributes_extrapolates_with_a_warning():
    with pytest.warns(UserWarning, match="temperature = -2.5"):
        assert as_attributes([0, 0, -2.5, 0])[0, 2] == -2.5


def test_as_attributes_batches():
    assert as_attributes([0, 0, 0, 1], batch_size=3).shape == (3, 4)
    with pytest.raises(ValueError, match="1 or 3 rows"):
        as_attributes(torch.zeros(2, 4), batch_size=3)


def spread(count=200, seed=1):
    """Scores of many photos: all attributes with ties at the low end."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.gamma(2, 0.1, count),
        rng.gamma(1, 0.01, count),
        rng.normal(0.05, 0.1, count),
        rng.uniform(0.1, 0.8, count),
    ]
    columns[0][:20] = 0.0
    return torch.tensor(np.stack(columns, 1), dtype=torch.float32)


def test_quantile_labels_are_ranks():
    """Oracle: SciPy's fraction of the data set below a score, on scores that have no ties."""
    from scipy.stats import percentileofscore

    scores = spread(2001)
    labels = quantile_labels(scores, label_statistics(scores, knots=201))
    for i in (CONTRAST, TEMPERATURE, BRIGHTNESS):
        for row in range(0, 2001, 97):
            q = percentileofscore(scores[:, i].numpy(), scores[row, i].item(), kind="mean") / 100
            assert labels[row, i].item() == pytest.approx(2 * q - 1, abs=0.01)
    assert labels.median(0).values.abs().max() < 0.05 and labels.abs().max() == 1


def test_quantile_labels_go_on_beyond_the_data_set():
    scores = spread()
    statistics = json.loads(json.dumps(label_statistics(scores)))  # as a model's config keeps them
    low, high = scores.min(0).values, scores.max(0).values
    beyond = torch.stack([0.5 * low, low, high, high * torch.tensor([1.2, 1.2, 1.2, 1.1])])
    labels = quantile_labels(beyond, statistics, limit=4.0)
    assert (labels[1:].diff(dim=0) > 0).all() and (labels[2] - 1).abs().max() < 1e-3 and labels[3].max() < 4
    assert (labels[1] + 1).abs()[1:].max() < 1e-3
    assert quantile_labels(beyond, statistics).abs().max() == 1
    x = beyond.double().requires_grad_()
    quantile_labels(x, statistics, limit=10.0).sum().backward()
    assert x.grad.isfinite().all() and (x.grad[2:] > 0).all()


def test_quantile_labels_of_any_shape():
    statistics = label_statistics(spread())
    scores = spread(12).reshape(3, 2, 2, 4)
    labels = quantile_labels(scores, statistics)
    assert labels.shape == scores.shape
    torch.testing.assert_close(labels[1, 0, 1], quantile_labels(scores[1, 0, 1], statistics))


@pytest.mark.parametrize(
    "scores", [torch.zeros(1, 4), torch.zeros(5, 3), torch.zeros(4), [[0] * 4] * 5, torch.full((5, 4), torch.nan)]
)
def test_label_statistics_refuse(scores):
    with pytest.raises(ValueError, match="`scores`"):
        label_statistics(scores)


GOOD = {name: [0.0, 1.0] for name in ATTRIBUTES}


@pytest.mark.parametrize(
    "statistics",
    [
        None,
        {},
        {"quantiles": {}},
        {"quantiles": {**GOOD, "tone": [0, 1]}},
        {"quantiles": {**GOOD, "contrast": [1.0, 0.0]}},
        {"quantiles": {**GOOD, "contrast": [1.0]}},
        {"quantiles": {**GOOD, "contrast": ["a", "b"]}},
        {"quantiles": {**GOOD, "contrast": [0.0, float("nan")]}},
    ],
)
def test_statistics_are_checked(statistics):
    with pytest.raises(ValueError, match="`statistics`"):
        quantile_labels(torch.zeros(1, 4), statistics)
