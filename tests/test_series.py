import numpy as np
import pytest
import skimage.color
import skimage.metrics
from PIL import Image

from diffretouch import evaluation as ev


def test_people_and_series(experts, tmp_path):
    """PPR10K's measures: with masks of the people, and of how alike the photos of one series are."""
    photos, _ = experts
    found = ev.pair_names(photos, experts[1] / "expertA")
    masks = tmp_path / "masks"
    masks.mkdir()
    for source, _ in found:
        mask = np.zeros((12, 15), np.uint8)  # of half the size
        mask[:, 5:9] = 255
        Image.fromarray(mask).save(masks / f"{source.stem}.png")
    masked = ev.with_masks([ev.Pair(*pair) for pair in found], masks)
    report = ev.evaluate_methods([ev.untouched()], masked, groups="a")
    for row, (source, target) in zip(report["photos"], found, strict=True):
        a, b = (np.asarray(Image.open(path)) / 255 for path in (source, target))
        weight = np.full((24, 30, 1), 0.5)
        weight[:, 10:18] = 1
        expected = skimage.metrics.peak_signal_noise_ratio(b * weight, a * weight, data_range=1)
        assert row["input"]["psnr_hc"] == pytest.approx(expected, abs=1e-4)
    means = [skimage.color.rgb2lab(np.asarray(Image.open(source)))[..., 1:].mean((0, 1)) for source, _ in found]
    glc = np.var(means, axis=0, ddof=1).mean()
    assert report["mean"]["input"]["glc"] == pytest.approx(glc, rel=2e-3) and report["data"]["series"] == 1
    released = ev.evaluate_methods([ev.untouched()], masked, groups=".*", released_glc=True)
    assert released["mean"]["input"]["glc"] == 0 and released["data"]["series"] == 2
    assert "GLC over 2 series of 2 photos, 2 of one photo, which count as 0, divided by one" in ev.report_table(
        released
    )
    assert "PSNR-HC" in ev.report_table(report) and "psnr_hc" in ev.report_csv(report)
    for groups, message in (("(", "must be a regular expression"), ("b", "fits a0001-kme_01 not at all")):
        with pytest.raises(ValueError, match=f"`groups`.*{message}"):
            ev.evaluate_methods([ev.untouched()], masked, groups=groups)
    Image.fromarray(mask.T.copy()).save(masks / f"{found[0][0].stem}.png")
    with pytest.raises(
        ValueError, match="masks.a0001-kme_01.png is a mask of 12x15 px over a photo of 30x24: is it turned"
    ):
        ev.evaluate_methods([ev.untouched()], masked[:1])
    (masks / f"{found[0][0].stem}.png").unlink()
    with pytest.raises(ValueError, match="`masks`: .* lacks 1 photo: a0001-kme_01"):
        ev.with_masks(masked, masks)


def test_series_need_a_name(folders):
    with pytest.raises(ValueError, match="`groups`: .* fits a not at all"):
        ev.evaluate_methods([ev.untouched()], ev.pair_names(*folders), groups=r"\d*")


def glc(means):
    return np.var(means, axis=0, ddof=1).mean()


def mean_ab(path, gain=1.0):
    pixels = np.round(np.asarray(Image.open(path)) * gain) / 255
    return skimage.color.rgb2lab(pixels)[..., 1:].mean((0, 1))


def test_several_experts_do_not_count_a_photo_several_times(experts):
    """What is the same for all experts counts once; what differs counts for each of them."""
    photos, folder = experts
    found = ev.expert_pairs(*experts)
    dimmed = ev.Method("dimmed", "", lambda source, target, pair: (target * 0.5, {}), oracle=True)
    report = ev.evaluate_methods([ev.untouched(), dimmed], found, groups="a")
    sources = sorted(photos.iterdir())
    assert report["mean"]["input"]["glc"] == pytest.approx(glc([mean_ab(p) for p in sources]), rel=2e-3)
    own = {x.name: glc([mean_ab(p, 0.5) for p in sorted(x.iterdir())]) for x in sorted(folder.iterdir())}
    assert report["mean"]["dimmed"]["glc"] == pytest.approx(np.mean(list(own.values())), rel=5e-3)
    for expert, value in own.items():
        assert report["experts"][expert]["dimmed"]["glc"] == pytest.approx(value, rel=5e-3)
        assert report["experts"][expert]["input"]["glc"] == pytest.approx(report["mean"]["input"]["glc"])
    targets = [glc([mean_ab(p) for p in sorted(x.iterdir())]) for x in folder.iterdir()]
    assert report["data"]["target_glc"] == pytest.approx(np.mean(targets), rel=2e-3)
    assert report["data"]["series"] == 1 and report["data"]["series_of_one"] == 0
    assert "GLC over 1 series of 2 photos: the targets' is" in ev.report_table(report)
    uneven = ev.evaluate_methods([ev.untouched()], found[:3], groups="a")  # two photos of one expert, one of another
    assert uneven["mean"]["input"]["glc"] == pytest.approx(report["mean"]["input"]["glc"])


def test_nor_do_photos_of_one_size_or_a_distribution(experts):
    found = ev.expert_pairs(*experts)
    with Image.open(found[0].source) as photo:
        photo.crop((0, 0, 20, 24)).save(found[0].source)
    for pair in found:
        if pair.source == found[0].source:
            with Image.open(pair.target) as photo:
                photo.crop((0, 0, 20, 24)).save(pair.target)
    report = ev.evaluate_methods([ev.untouched()], found)
    assert report["data"]["sizes"].endswith("(1 landscape, 1 portrait)")
    assert report["missing"]["expert_distance"] == "needs 5 photos, got 2"
    assert "expert_distance" not in report["mean"]["input"]
