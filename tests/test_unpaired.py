import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch.data.unpaired import UnpairedPhotos, asked_attributes

PHOTOS = Path(__file__).parent / "photos"


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("input", "target", "c"))


def test_sample():
    photos = UnpairedPhotos(PHOTOS, 48)
    for k in (0, 7, 10**6):
        sample = photos[k]
        assert sample["input"].shape == sample["target"].shape == (3, 48, 48)
        assert sample["c"].shape == (4,) and sample["c"].abs().max() <= 2.5
        for image in (sample["input"], sample["target"]):
            assert image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1


def test_a_sample_depends_on_seed_and_index_alone():
    photos, again, other = UnpairedPhotos(PHOTOS, 32), UnpairedPhotos(PHOTOS, 32), UnpairedPhotos(PHOTOS, 32, seed=1)
    for k in (3, 0, 25):
        photos[k]
    assert same(photos[9], again[9])
    assert not same(photos[9], other[9])
    assert not same(photos[9], photos[9 + len(photos.paths)])  # the next epoch is new


def test_workers_change_nothing():
    photos = UnpairedPhotos(PHOTOS, 32)
    batches = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(photos, 3, sampler=range(5, 14), num_workers=workers)
        batches.append([batch for batch in loader])
    assert all(same(a, b) for a, b in zip(*batches, strict=True))


def test_every_epoch_visits_every_photo_once():
    photos = UnpairedPhotos(PHOTOS, 32)
    count = len(photos.paths)
    assert count == 9
    epochs = [[photos.paths[photos.order(e * count + i)] for i in range(count)] for e in range(2)]
    assert all(sorted(epoch) == photos.paths for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_exclude_and_subfolders(tmp_path):
    (tmp_path / "deep").mkdir()
    for path in sorted(PHOTOS.glob("*.jpg"))[:3]:
        shutil.copy(path, tmp_path / "deep" / path.name)
    (tmp_path / "notes.txt").write_text("not a photo")
    assert len(UnpairedPhotos(tmp_path).paths) == 3
    name = UnpairedPhotos(tmp_path).paths[0].name
    assert len(UnpairedPhotos(tmp_path, exclude=[name]).paths) == 2


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="`folder`"):
        UnpairedPhotos(tmp_path)


def test_asked_attributes_cover_the_cube():
    rng = np.random.default_rng(0)
    asked = np.array([asked_attributes(rng) for _ in range(2000)])
    assert 0.4 < (asked == 0).all(1).mean() < 0.65
    assert (np.abs(asked) <= 2.4).all() and (asked.min(0) < -2).all() and (asked.max(0) > 2).all()
    assert (np.abs(asked) <= 1.2).mean() > 0.85
    assert np.abs(np.corrcoef(asked.T) - np.eye(4)).max() < 0.1
