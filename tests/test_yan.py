from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.data.yan import YanPhotos, yan_ids

LISTS = Path(__file__).parents[2] / "shared/data/splits/yan2016"


@pytest.fixture
def lists(tmp_path):
    for name, count in (("train", 70), ("test", 45)):
        ids = [f"{name}{n}_a_z" for n in range(count)]
        (tmp_path / f"uniform_set_{name}_id.txt").write_text("\n".join(ids) + "\n")
    return tmp_path


def test_splits(lists):
    train, validation, test = (yan_ids(lists, split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (60, 10, 45)
    assert not set(train) & set(validation)
    with pytest.raises(ValueError, match="`split`"):
        yan_ids(lists, "all")
    with pytest.raises(ValueError, match="uniform_set_test_id"):
        yan_ids(lists / "none", "test")
    (lists / "uniform_set_test_id.txt").write_text("one\n")
    with pytest.raises(ValueError, match="45 different ids, got 1"):
        yan_ids(lists, "test")


@pytest.mark.skipif(not LISTS.exists(), reason="needs the published lists")
def test_published_lists():
    ids = [set(yan_ids(LISTS, split)) for split in ("train", "validation", "test")]
    assert [len(i) for i in ids] == [60, 10, 45] and len(set.union(*ids)) == 115


def photos(folder, ids, shade, size=(12, 20)):
    folder.mkdir()
    for n, id in enumerate(ids):
        pixels = np.full((*size, 3), 40 + n, np.uint8)
        pixels[..., 0] += shade
        Image.fromarray(pixels).save(folder / f"{id}_style.tif")


def test_pairs(lists, tmp_path):
    photos(tmp_path / "in", yan_ids(lists, "validation"), 0)
    photos(tmp_path / "out", yan_ids(lists, "validation"), 100)
    data = YanPhotos(tmp_path / "in", tmp_path / "out", lists, "validation", 16, pixels=32)
    assert data.describe()["photos"] == 10
    for k in range(12):
        sample = data[k]
        moved = (sample["target"] - sample["input"])[0]
        torch.testing.assert_close(moved, torch.full((16, 16), 100 / 255), atol=1e-5, rtol=0)
        assert (sample["scene"] == -1).all() and sample["pixels"].shape == (32,)
    assert torch.equal(data[5]["pixels"], data[5]["pixels"])
    few = YanPhotos(tmp_path / "in", tmp_path / "out", lists, "validation", 16, most=4)
    assert few.describe()["photos"] == 4 and set(few.ids) < set(data.ids)
    with pytest.raises(ValueError, match="one photo named after train0_a_z, got 0"):
        YanPhotos(tmp_path / "in", tmp_path / "out", lists, "train", 16)


def test_pairs_of_different_size_are_bad_files(lists, tmp_path):
    photos(tmp_path / "in", yan_ids(lists, "validation"), 0)
    photos(tmp_path / "out", yan_ids(lists, "validation"), 100, (20, 12))
    with pytest.raises(ValueError, match="differ in size"):
        YanPhotos(tmp_path / "in", tmp_path / "out", lists, "validation", 16)[0]
