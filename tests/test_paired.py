import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from diffretouch import attribute_labels, measure_attributes
from diffretouch.attributes import label_statistics, quantile_labels
from diffretouch.data.crops import as_chw
from diffretouch.data.fivek import fivek, fivek_id
from diffretouch.data.paired import PairedPhotos, read_ids, subfolder
from diffretouch.data.ppr10k import ppr10k, ppr10k_id

from .tiny import recipes_toy

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))
SHARED = Path(__file__).parents[2] / "shared" / "data"


def make(folder, names, change=lambda x: x, size=(48, 36), suffix=".png"):
    """Small photos under these names, changed as an expert would."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in zip(names, PHOTOS, strict=False):
        with Image.open(path) as photo:
            pixels = np.asarray(photo.convert("RGB").resize(size), np.float32) / 255
        Image.fromarray((change(pixels) * 255).round().astype(np.uint8)).save(folder / f"{name}{suffix}")


@pytest.fixture
def folders(tmp_path):
    names = ["a", "b", "c"]
    make(tmp_path / "input", names)
    make(tmp_path / "bright", names, lambda x: x**0.6)
    make(tmp_path / "dark", names, lambda x: x**1.7, suffix=".tif")
    return tmp_path


def experts(folder):
    return {"bright": folder / "bright", "dark": folder / "dark"}


def test_input_and_target_are_the_same_crop(folders):
    pairs = PairedPhotos(folders / "input", folders / "bright", 24, vary=False)
    for k in range(6):
        sample = pairs[k]
        assert sample["input"].shape == sample["target"].shape == (3, 24, 24) and sample["k"] == k
        assert not sample["c"].any()
        assert (sample["input"] ** 0.6 - sample["target"]).abs().mean() < 0.03
        assert "input" in sample["name"] and "bright" in sample["name"]


def test_several_experts_are_labelled_against_each_other(folders):
    pairs = PairedPhotos(folders / "input", experts(folders), 24)
    scores = pairs.scores(0)
    for row, expert in zip(scores, ("bright/a.png", "dark/a.tif"), strict=True):
        with Image.open(folders / expert) as photo:
            whole = as_chw(np.asarray(photo, np.float32) / 255)[None]
        torch.testing.assert_close(row, measure_attributes(whole)[0])
    labels = attribute_labels(scores)
    assert labels[0, 3] > 0.5 and labels[1, 3] < -0.5
    seen = {}
    for k in range(6):
        sample = pairs[k]
        bright = "bright" in sample["name"].split("->")[1]
        assert (sample["c"][3] > 0.5) if bright else (sample["c"][3] < -0.5)
        seen[sample["name"]] = k
    assert len(seen) == 6  # an epoch shows every photo in every version


def test_one_expert_is_varied(folders):
    pairs = PairedPhotos(folders / "input", folders / "bright", 24)
    cs = torch.stack([pairs[k]["c"] for k in range(12)])
    assert (cs == 0).all(1).any() and cs.abs().max() > 0.3


def test_quantile_labels(folders):
    statistics = label_statistics(torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 0.5)
    pairs = PairedPhotos(folders / "input", experts(folders), 24, statistics=statistics)
    sample = pairs[0]
    photo, expert = divmod(pairs.order(0), 2)
    torch.testing.assert_close(sample["c"], quantile_labels(pairs.scores(photo), statistics)[expert])


def test_a_sample_depends_on_seed_and_index_alone(folders):
    a, b = (PairedPhotos(folders / "input", experts(folders), 24, seed=1) for _ in range(2))
    for k in (5, 0, 3):
        a[k]
    for key in ("input", "target", "c"):
        assert torch.equal(a[4][key], b[4][key])
    assert not torch.equal(a[4]["input"], a[4 + 6]["input"])


def test_masks_are_cut_like_the_photo(folders):
    make(folders / "masks", ["a", "b", "c"])  # the photos themselves, to see that they lie on each other
    pairs = PairedPhotos(folders / "input", folders / "bright", 24, vary=False, masks=folders / "masks")
    sample = pairs[1]
    assert sample["mask"].shape == (1, 24, 24)
    torch.testing.assert_close(sample["mask"][0], sample["input"][0])


def test_a_set_of_one_photo(folders):
    pairs = PairedPhotos(folders / "input", folders / "bright", 16, ids=["b"])
    assert {pairs[k]["name"].split("/")[-1] for k in range(5)} == {"b.png"}


def test_describe(folders):
    pairs = PairedPhotos(
        folders / "input", experts(folders), 16, ids=["a", "b", "z"], split="mine", rendering="by hand"
    )
    said = pairs.describe()
    assert (said["photos"], said["samples_per_epoch"], said["listed_but_missing"]) == (2, 4, 1)
    assert said["split"] == "mine" and said["rendering"] == "by hand" and said["experts"] == ["bright", "dark"]
    assert said["first_input"] == "a.png, 48x36 px" and said["target_files"] == {".png": 2, ".tif": 2}
    assert said["ids_sha256"] != PairedPhotos(folders / "input", folders / "dark", 16).describe()["ids_sha256"]


def test_describes_a_set_whose_first_photo_is_broken(folders):
    (folders / "input" / "a.png").write_bytes(b"no photo")
    said = PairedPhotos(folders / "input", folders / "dark", 16, on_bad_file="skip").describe()
    assert said["first_input"] == "a.png, cannot be read" and said["photos"] == 3


def test_a_pair_of_different_size_is_a_bad_file(folders):
    make(folders / "bright", ["a"], size=(24, 18))
    with pytest.raises(ValueError, match=r"a\.png is 48x36 px, .*bright/a\.png 24x18"):
        pairs = PairedPhotos(folders / "input", folders / "bright", 16)
        [pairs[k] for k in range(3)]
    pairs = PairedPhotos(folders / "input", folders / "bright", 16, on_bad_file="skip")
    with pytest.warns(UserWarning, match="48x36"):
        samples = [pairs[k] for k in range(3)]
    assert not any("/a.png" in sample["name"] for sample in samples)
    assert sum(bool(sample["bad"]) for sample in samples) == 1


def test_a_corrupt_version_of_another_expert_is_found(folders):
    (folders / "dark" / "b.tif").write_bytes(b"no picture")
    pairs = PairedPhotos(folders / "input", experts(folders), 16)
    with pytest.raises(ValueError, match="b.tif"):
        [pairs[k] for k in range(6)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (lambda f: (f / "nowhere", f / "bright"), "`inputs` must be a folder"),
        (lambda f: (f / "input", {}), "`targets` must name"),
        (lambda f: (f / "input", f / "empty"), "lacks 3: a, b, c"),
        (lambda f: (f / "input", f / "fewer"), "fewer lacks 2: b, c"),
        (lambda f: (f / "twice", f / "bright"), "each photo once"),
    ],
)
def test_refuses(folders, arguments, message):
    (folders / "empty").mkdir()
    make(folders / "fewer", ["a"])
    make(folders / "twice", ["a", "b", "c"])
    make(folders / "twice", ["a"], suffix=".jpg")
    with pytest.raises(ValueError, match=message):
        PairedPhotos(*arguments(folders), 16)


def test_refuses_several_experts_without_c(folders):
    with pytest.raises(ValueError, match="one folder"):
        PairedPhotos(folders / "input", experts(folders), 16, vary=False)
    with pytest.raises(ValueError, match="none in .* of the 1 ids"):
        PairedPhotos(folders / "input", folders / "bright", 16, ids=["z"])


def test_read_ids(tmp_path):
    (tmp_path / "list.txt").write_text("# training\ninput/a0001.jpg\n\n a0002 # twice\nname.with.dots\n")
    assert read_ids(tmp_path / "list.txt") == ["a0001", "a0002", "name.with.dots"]
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no photos"):
        read_ids(tmp_path / "none.txt")


def test_subfolder(tmp_path):
    (tmp_path / "deep" / "02-Experts-B").mkdir(parents=True)
    assert subfolder(tmp_path, "experts-b$", "B").name == "02-Experts-B"
    (tmp_path / "deep" / "more-Experts-B").mkdir()
    with pytest.raises(ValueError, match="several for B"):
        subfolder(tmp_path, "experts-b$", "B")
    with pytest.raises(ValueError, match="must hold C"):
        subfolder(tmp_path, "experts-c$", "C")


@pytest.mark.parametrize("name", ["{:02d}-Experts-{}", "expert{1}", "Expert_{1}", "{1}"])
def test_fivek_folders(tmp_path, name):
    names = ["a0001-jmac_DSC1459", "a0012-x"]
    make(tmp_path / "InputAsShotZeroed", names)
    for i, letter in enumerate("ABCDE"):
        make(tmp_path / name.format(i + 1, letter), names, lambda x, i=i: x ** (0.6 + 0.2 * i))
    (tmp_path / "train.txt").write_text("1\n4500\n")
    pairs = fivek(tmp_path, 16, split=tmp_path / "train.txt")
    assert pairs.ids == ["a0001"] and pairs.missing_ids == ["a4500"]
    assert pairs.experts == [f"expert{letter}" for letter in "ABCDE"]
    brightness = pairs.scores(0)[:, 3]
    assert (brightness.diff() < 0).all()
    assert pairs.describe()["split"] == "train.txt (2 ids)"
    one = fivek(tmp_path, 16, experts="C", vary=False, input_folder="InputAsShotZeroed")
    assert one.ids == ["a0001", "a0012"] and not one[0]["c"].any()


def test_fivek_refuses(tmp_path):
    assert [fivek_id(name) for name in ("a0001-jmac_DSC1459", "a0001", "1", 4999)] == [
        "a0001",
        "a0001",
        "a0001",
        "a4999",
    ]
    with pytest.raises(ValueError, match="FiveK id"):
        fivek_id("IMG_1")
    with pytest.raises(ValueError, match="letters A to E"):
        fivek(tmp_path, 16, experts="F")
    make(tmp_path / "expertC", ["a0001"])
    with pytest.raises(ValueError, match="input_folder"):
        fivek(tmp_path, 16, experts="C")


@pytest.mark.skipif(not (SHARED / "splits").is_dir(), reason="needs the published lists")
def test_published_splits():
    lists = SHARED / "splits"
    upe = [set(read_ids(lists / "fivek" / name, fivek_id)) for name in ("upe_train_4500.txt", "upe_test_500.txt")]
    assert [len(ids) for ids in upe] == [4500, 500] and not upe[0] & upe[1]
    dpe = ("dpe_3dlut_train_input.txt", "dpe_3dlut_train_label.txt", "dpe_3dlut_test.txt")
    assert [len(set(read_ids(lists / "fivek" / name, fivek_id))) for name in dpe] == [2250, 2250, 498]
    ppr = [set(read_ids(lists / "ppr10k" / name, ppr10k_id)) for name in ("train.txt", "test.txt", "train_aug.txt")]
    assert [len(ids) for ids in ppr] == [8875, 2286, 8875] and ppr[0] == ppr[2]


@pytest.mark.skipif(not (SHARED / "fivek_experts5").is_dir(), reason="needs photos that may not be copied")
def test_real_versions_of_five_experts():
    pairs = fivek(SHARED / "fivek_experts5", 32, input_folder="expertA")
    assert len(pairs.ids) == 3 and len(pairs.experts) == 5
    labels = torch.stack([attribute_labels(pairs.scores(i)) for i in range(3)])
    assert labels.abs().max() == 1 and (labels.std(1) > 0.1).all()  # the experts differ in every attribute
    assert torch.isfinite(pairs[7]["input"]).all()


def test_ppr10k(tmp_path):
    names = ["0_0", "0_1", "583_9"]
    make(tmp_path / "train" / "source", names, suffix=".tif")
    make(tmp_path / "train" / "masks", names)
    for letter in "abc":
        make(tmp_path / "train" / f"target_{letter}", names, lambda x: x**0.8, suffix=".tif")
    (tmp_path / "train.txt").write_text("583_9\n0_1\n")
    pairs = ppr10k(tmp_path, 16, split=tmp_path / "train.txt", masks=True)
    assert pairs.ids == ["0_1", "583_9"] and pairs.experts == ["target_a", "target_b", "target_c"]
    assert pairs[0]["mask"].shape == (1, 16, 16)
    assert ppr10k(tmp_path / "train", 16, experts="b", vary=False).experts == ["target_b"]
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    with pytest.raises(ValueError, match="several for target_a"):
        ppr10k(tmp_path, 16)
    for bad in ("a1", "5", "1_2_3_4"):
        with pytest.raises(ValueError, match="PPR10K id"):
            ppr10k_id(bad)
    with pytest.raises(ValueError, match="letters a to c"):
        ppr10k(tmp_path / "train", 16, experts="d")


def test_whole_photos_keep_their_shape_and_bits(tmp_path):
    """Inputs in 16-bit ProPhoto RGB come out as they stand in the file; long sides are brought to `size`."""
    toy = recipes_toy()
    pixels = toy.photo(0, 0.8)
    toy.save_prophoto(tmp_path / "input" / "a.tif", pixels)
    toy.save_png(tmp_path / "target" / "a.png", pixels)
    codes = tifffile.imread(tmp_path / "input" / "a.tif")
    whole = {"vary": False, "crops": False, "squeeze": False, "input_space": "prophoto"}
    sample = PairedPhotos(tmp_path / "input", tmp_path / "target", 500, **whole)[0]
    assert sample["input"].shape == sample["target"].shape == (3, 32, 48)
    error = (sample["input"].permute(1, 2, 0) - torch.from_numpy(codes / 65535)).abs()
    assert error.max() < 1e-3 and len(sample["input"].unique()) > 2000  # not 256 levels
    assert (sample["input"] - sample["target"]).abs().mean() > 0.02  # it is another space
    small = PairedPhotos(tmp_path / "input", tmp_path / "target", 24, **whole)[0]
    assert small["input"].shape == (3, 16, 24)
    # without a profile the user must say what it is
    tifffile.imwrite(tmp_path / "input" / "a.tif", codes, photometric="rgb")
    bare = functools.partial(PairedPhotos, tmp_path / "input", tmp_path / "target", 500, **whole)
    with pytest.raises(ValueError, match="no profile: say by `untagged`"):
        bare()[0]
    exact = bare(untagged="prophoto")[0]["input"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(exact, np.divide(codes, 65535, dtype=np.float32))
    assert np.abs(bare(untagged="srgb")[0]["input"].permute(1, 2, 0).numpy() - exact).mean() > 0.02
    for wrong, name in (({"crops": True}, "squeeze"), ({"vary": True}, "squeeze"), ({"squeeze": True}, "input_space")):
        with pytest.raises(ValueError, match=f"`{name}"):
            PairedPhotos(tmp_path / "input", tmp_path / "target", 24, **{**whole, **wrong})
    toy.save_png(tmp_path / "target" / "a.png", pixels[:-1])
    with pytest.raises(ValueError, match="48x32 px"):
        bare(untagged="srgb")[0]
