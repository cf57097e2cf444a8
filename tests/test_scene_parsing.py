import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.data.scene_parsing import SceneParse150


@pytest.fixture
def folder(tmp_path):
    """Two photos whose red channel is their class, with a border of 0 (unknown)."""
    for part in ("images", "annotations"):
        (tmp_path / part / "training").mkdir(parents=True)
    for n, classes in enumerate(((1, 2), (149, 150))):
        annotation = np.zeros((20, 30), np.uint8)
        annotation[2:-2, 2:15], annotation[2:-2, 15:-2] = classes
        Image.fromarray(annotation).save(tmp_path / "annotations/training" / f"ADE_{n}.png")
        photo = np.repeat(annotation[..., None], 3, 2)
        Image.fromarray(photo).save(tmp_path / "images/training" / f"ADE_{n}.png")
    return tmp_path


def test_classes_move_with_their_photo(folder):
    data = SceneParse150(folder, size=30, pixels=64)
    seen = set()
    for k in range(6):
        sample = data[k]
        seen |= set(sample["scene"].unique().tolist())
        assert set(sample) == {"input", "scene", "pixels", "name", "bad"}
        known = sample["scene"] >= 0
        agree = (sample["input"][0][known] * 255 - 1 - sample["scene"][known]).abs() < 0.6
        assert agree.float().mean() > 0.7  # all but those along the edges
        assert torch.equal(data[k]["scene"], sample["scene"])
    assert seen == {-1, 0, 1, 148, 149}
    assert data.describe()["photos"] == 2


def test_bad_folders(folder):
    with pytest.raises(ValueError, match="images/validation"):
        SceneParse150(folder, "validation")
    annotation = folder / "annotations/training/ADE_0.png"
    Image.new("L", (30, 20), 151).save(annotation)
    with pytest.raises(ValueError, match="ADE_0.png must hold classes 0..150, got 151"):
        [SceneParse150(folder, size=32)[k] for k in range(2)]
    annotation.write_bytes(b"")
    with pytest.raises(ValueError, match="ADE_0.png cannot be read"):
        [SceneParse150(folder, size=32)[k] for k in range(2)]
    annotation.unlink()
    with pytest.raises(ValueError, match="annotation of each photo"):
        SceneParse150(folder)
