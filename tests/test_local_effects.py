import pickle
from pathlib import Path

import pytest
import torch

from diffretouch.colour.lab import srgb_to_lab
from diffretouch.data.local_effects import EFFECTS, REGIONS, LocalEffectPhotos, local_effect, scene_regions
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.metrics import delta_e76

PHOTOS = Path(__file__).parent / "photos"


def landscape(height=60, width=90):
    """Blue sky, green meadow, a small red house in the middle."""
    photo = torch.empty(3, height, width)
    photo[:] = torch.tensor([0.25, 0.45, 0.15])[:, None, None]
    photo[:, : height // 2] = torch.tensor([0.45, 0.65, 0.95])[:, None, None]
    photo[:, height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5] = torch.tensor([0.8, 0.1, 0.1])[
        :, None, None
    ]
    return (photo + 0.01 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_regions_are_where_one_sees_them():
    shares = scene_regions(landscape())
    assert shares.shape == (4, 60, 90)
    torch.testing.assert_close(shares.sum(0), torch.ones(60, 90))
    winner = shares.argmax(0)
    places = {"sky": (5, 45), "greenery": (50, 10), "subject": (30, 45)}
    for name, place in places.items():
        assert REGIONS[winner[place]] == name


def test_regions_do_not_depend_on_the_resolution():
    large = torch.nn.functional.interpolate(landscape()[None], scale_factor=5, mode="bilinear")[0]
    agree = scene_regions(large)[:, ::5, ::5].argmax(0) == scene_regions(landscape()).argmax(0)
    assert agree.float().mean() > 0.9


@pytest.mark.parametrize("photo", [torch.zeros(3, 1, 1), torch.ones(3, 5, 40), torch.full((3, 300, 2), 0.5)])
def test_odd_photos(photo):
    for effect in EFFECTS:
        out = local_effect(photo, effect)
        assert out.shape == photo.shape and out.isfinite().all() and 0 <= out.min() and out.max() <= 1


def test_effects_differ_by_region():
    photo = landscape()
    lightness = lambda image: srgb_to_lab(image[None])[0, 0]  # noqa: E731
    popped = local_effect(photo, "foreground_pop_out")
    moved = lightness(popped) - lightness(photo)
    assert moved[30, 45] > 3 and moved[5, 45] < -3
    assert (popped[:, 5, 45].max() - popped[:, 5, 45].min()) < 0.5 * (photo[:, 5, 45].max() - photo[:, 5, 45].min())
    crossed = srgb_to_lab(local_effect(photo, "local_xpro")[None]) - srgb_to_lab(photo[None])
    assert crossed[0, 2, 5, 45] < -5 < 5 < crossed[0, 2, 50, 10]  # a bluer sky over a yellower meadow
    for effect in EFFECTS:
        assert delta_e76(local_effect(photo, effect)[None], photo[None]) > 8


def test_no_colour_function_can_do_it():
    """Two places of one colour, one in the subject and one beside it, are retouched differently."""
    photo = torch.full((3, 64, 64), 0.6)
    stripes = 0.5 + 0.4 * torch.sign(torch.sin(torch.arange(24.0) * 2)).expand(3, 24, 24)
    photo[:, 22:46, 20:44] = stripes * torch.tensor([1.0, 0.6, 0.4])[:, None, None]
    photo[:, 32:36, 30:34] = 0.6
    out = local_effect(photo, "foreground_pop_out")
    assert (out[:, 34, 32] - out[:, 3, 3]).abs().max() > 0.05


def test_samples_depend_on_seed_and_number_alone():
    photos = LocalEffectPhotos(PHOTOS, "local_xpro", 32, pixels=64, seed=3)
    sample = photos[7]
    assert sample["input"].shape == sample["target"].shape == (3, 32, 32)
    assert sample["scene"].dtype == torch.int64 and -1 <= sample["scene"].min() and sample["scene"].max() < 4
    for other in (LocalEffectPhotos(PHOTOS, "local_xpro", 32, pixels=64, seed=3), pickle.loads(pickle.dumps(photos))):
        other[2]
        again = other[7]
        for name in ("input", "target", "scene", "pixels"):
            assert torch.equal(again[name], sample[name])
    assert not torch.equal(LocalEffectPhotos(PHOTOS, "local_xpro", 32, seed=4)[7]["input"], sample["input"])
    names = {photos[k]["name"] for k in range(len(photos.paths))}
    assert len(names) == len(UnpairedPhotos(PHOTOS).paths)


def test_which_photos_are_seen():
    names = sorted(p.name for p in PHOTOS.glob("*.jpg"))
    few = [LocalEffectPhotos(PHOTOS, "watercolor", 32, exclude=names[:3], most=2, seed=seed) for seed in (0, 0, 1, 2)]
    assert all(len(data.paths) == 2 and not {path.name for path in data.paths} & set(names[:3]) for data in few)
    assert few[0].paths == few[1].paths and len({tuple(data.paths) for data in few}) > 1
    rest = LocalEffectPhotos(PHOTOS, "watercolor", 32, exclude=names[:3])
    assert [p.name for p in rest.paths] == names[3:]
    only = LocalEffectPhotos(PHOTOS, "watercolor", 32, only=names[:3], vary=False, pixels=16)
    assert [only[k]["name"] for k in range(4)] == [*names[:3], names[0]]
    assert only.describe()["photos"] == 3


def test_bad_files_are_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "good.jpg").write_bytes((PHOTOS / "gb82_dog-lossless.jpg").read_bytes())
    stopping = LocalEffectPhotos(tmp_path, "watercolor", 32)
    with pytest.raises(ValueError, match="broken.jpg"):
        [stopping[k] for k in range(2)]
    with pytest.warns(UserWarning, match="broken.jpg"):
        skipping = LocalEffectPhotos(tmp_path, "watercolor", 32, on_bad_file="skip")
        assert {skipping[k]["name"] for k in range(2)} == {"good.jpg"}
    for folder, effect in ((tmp_path / "none", "watercolor"), (tmp_path, "sepia")):
        with pytest.raises(ValueError, match="`folder`|`effect`"):
            LocalEffectPhotos(folder, effect)
