from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import attribute_labels, measure_attributes
from diffretouch.data.crops import as_chw
from diffretouch.data.tastes import Taste, apply_look, draw_tastes, load_looks, taste_version
from diffretouch.data.unpaired import UnpairedPhotos, simulated_pair
from diffretouch.lut import Lut3D

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))
SHARED = Path(__file__).parents[2] / "shared" / "data"


def finished(path, size=(64, 48)):
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize(size), np.float32) / 255


class Calm:
    """A generator without moods."""

    def normal(self, mean, deviation, count):
        return np.full(count, float(mean))


def test_no_lean_changes_nothing():
    photo = finished(PHOTOS[0])
    np.testing.assert_allclose(taste_version(photo, Taste(), Calm()), photo, atol=1e-6)


@pytest.mark.parametrize(
    "taste, moved",
    [
        (Taste(controls=(0.4, 0, 0, 0)), 0),
        (Taste(controls=(0, 0.4, 0, 0)), 1),
        (Taste(controls=(0, 0, 0.3, 0)), 2),
        (Taste(controls=(0, 0, 0, 0.4)), 3),
    ],
)
def test_each_control_moves_its_attribute(taste, moved):
    for path in PHOTOS[:4]:
        photo = finished(path)
        scores = [measure_attributes(as_chw(x)[None])[0] for x in (photo, taste_version(photo, taste, Calm()))]
        labels = attribute_labels(scores[1][None], scores[0], limit=4.0)[0]
        assert labels[moved] > 0.2


def test_local_light():
    """Dodging lifts the dark half and burns the bright one; a vignette darkens the corners."""
    photo = np.full((40, 60, 3), 0.25, np.float32)
    photo[:, 30:] = 0.7
    dodged = taste_version(photo, Taste(dodge=0.5), Calm())
    assert dodged[:, :20].mean() > 0.27 and dodged[:, 40:].mean() < 0.67
    dark = taste_version(photo, Taste(vignette=0.6), Calm())
    assert dark[0, 0, 0] < photo[0, 0, 0] < dark[20, 15, 0]


def test_matte_and_split_tone():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None].repeat(8, 0).repeat(3, 2)
    matte = taste_version(ramp, Taste(black=0.05, white=0.95), Calm())
    assert matte.min() == pytest.approx(0.05, abs=1e-3) and matte.max() == pytest.approx(0.95, abs=1e-3)
    split = taste_version(ramp, Taste(shadows=(-0.02, 0, 0.03), highlights=(0.03, 0, -0.02)), Calm())
    assert split[0, 16, 2] > split[0, 16, 0] and split[0, 48, 0] > split[0, 48, 2]


def test_experts_differ_and_stay_themselves():
    """Over photos, an expert's versions lean the same way, and the leans of two experts differ."""
    tastes = draw_tastes(5, seed=1)
    assert tastes == draw_tastes(5, seed=1) and tastes != draw_tastes(5, seed=2)
    labels = []
    for n, path in enumerate(PHOTOS):
        photo = finished(path)
        rows = [taste_version(photo, taste, np.random.default_rng([n, i])) for i, taste in enumerate(tastes)]
        labels.append(attribute_labels(torch.cat([measure_attributes(as_chw(x)[None]) for x in rows]), limit=4.0))
    labels = torch.stack(labels)  # (photo, expert, attribute)
    between, within = labels.mean(0).std(0), labels.std(0).mean(0)
    assert (between > 0.2).all() and (between[2:] > within[2:]).all() and between[0] > 0.7 * within[0]
    assert len({taste.controls for taste in tastes}) == 5
    assert all((labels[i] != labels[j]).any() for i, j in ((0, 1), (1, 2)))  # each photo a little otherwise


@pytest.mark.parametrize("count", [0, 101, 2.0])
def test_refuses_a_count(count):
    with pytest.raises(ValueError, match="`count`"):
        draw_tastes(count)


def identity_table(n=5):
    levels = np.linspace(0, 1, n, dtype=np.float32)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")
    return np.stack([red, green, blue], -1)


def test_look_up():
    photo = finished(PHOTOS[1])
    np.testing.assert_allclose(apply_look(photo, identity_table()), photo, atol=1e-5)
    np.testing.assert_allclose(apply_look(photo, identity_table()[..., ::-1]), photo[..., ::-1], atol=1e-5)


def test_looks_come_from_a_folder(tmp_path):
    with pytest.raises(ValueError, match="`folder`"):
        load_looks(tmp_path)
    np.savez(tmp_path / "looks.npz", luts=np.stack([identity_table(), 1 - identity_table()]))
    looks = load_looks(tmp_path)
    assert len(looks) == 2
    taste = Taste(look=1, look_strength=0.25)
    photo = finished(PHOTOS[0])
    np.testing.assert_allclose(
        taste_version(photo, taste, Calm(), looks), 0.75 * photo + 0.25 * (1 - photo), atol=1e-5
    )
    assert all(taste.look in (0, 1) for taste in draw_tastes(4, looks=2))
    Lut3D(1 - identity_table()).save(tmp_path / "negative.cube")
    np.testing.assert_allclose(load_looks(tmp_path)[-1], 1 - identity_table(), atol=1e-6)
    Lut3D(identity_table(), domain_max=(2.0, 2.0, 2.0)).save(tmp_path / "wide.cube")
    with pytest.raises(ValueError, match="wide.cube"):
        load_looks(tmp_path)
    (tmp_path / "wide.cube").unlink()
    np.savez(tmp_path / "other.npz", luts=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="other.npz"):
        load_looks(tmp_path)


@pytest.mark.skipif(not (SHARED / "luts").is_dir(), reason="needs the film looks")
def test_film_looks():
    looks = load_looks(SHARED / "luts")
    assert len(looks) == 295 and all(look.shape == (13, 13, 13, 3) for look in looks)


def test_the_data_set_labels_one_among_all():
    tastes = draw_tastes(3)
    photos = UnpairedPhotos(Path(__file__).parent / "photos", 64, tastes=tastes)
    cs = torch.stack([photos[k]["c"] for k in range(12)])
    assert cs.abs().max() <= 1 and cs.std(0).min() > 0.1
    assert torch.equal(photos[5]["target"], UnpairedPhotos(photos.folder, 64, tastes=tastes)[5]["target"])
    assert "3 simulated tastes" in photos.describe()["experts"]
    # the label is that of the version that is shown, measured among all three at full size
    finish = finished(PHOTOS[2], (64, 64))
    for seed in range(3):
        _, target, c = simulated_pair(finish, np.random.default_rng(seed), tastes=tastes)
        rng = np.random.default_rng(seed)
        seeds = rng.integers(2**63, size=3)
        versions = [taste_version(finish, t, np.random.default_rng(s)) for t, s in zip(tastes, seeds, strict=True)]
        chosen = int(rng.integers(3))
        np.testing.assert_array_equal(versions[chosen], target)
        labels = attribute_labels(torch.cat([measure_attributes(as_chw(x)[None]) for x in versions]))
        np.testing.assert_allclose(labels[chosen], c, atol=1e-5)
