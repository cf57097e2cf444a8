from pathlib import Path

import pytest

from diffretouch.data.fivek import fivek_id
from diffretouch.data.local_effects import LocalEffectPhotos
from diffretouch.data.photo_names import named, read_names, stem
from diffretouch.data.thumbnails import SUFFIXES
from diffretouch.data.unpaired import UnpairedPhotos

FOLDER = Path("photos")
PATHS = [FOLDER / name for name in ("a0001.jpg", "deep/a0001.png", "deep/v1.2.tif", "a0004-kme_066.jpg")]
PHOTOS = Path(__file__).parent / "photos"


def test_read_names(tmp_path):
    (tmp_path / "list.txt").write_text("# kept\n a.jpg \n\nb # twice\na.jpg\n")
    assert read_names(tmp_path / "list.txt") == ["a.jpg", "b"]
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\nroll#1 b.jpg\r\n#c.jpg\r\n")
    assert read_names(tmp_path / "marked.txt") == ["a.jpg", "roll#1 b.jpg"]
    (tmp_path / "none.txt").write_text("# nothing\n")
    for name, sentence in (("none.txt", "names no photos"), ("missing.txt", "cannot be read")):
        with pytest.raises(ValueError, match=sentence):
            read_names(tmp_path / name)


@pytest.mark.parametrize(
    "name, places",
    [("a0001", [0, 1]), ("a0001.jpg", [0]), ("a0001.png", [1]), ("deep/a0001", [1]), ("v1.2", [2]), ("v1.2.tif", [2])],
)
def test_one_meaning(name, places):
    assert named(PATHS, [name], FOLDER) == {PATHS[i] for i in places}


@pytest.mark.parametrize("name", ["a0004", "4", "0004", "a0004-kme_066.dng", "raw/a0004-kme_066.jpg"])
def test_every_form_of_an_id(name):
    assert named(PATHS[3:], [name], FOLDER, id_of=fivek_id) == {PATHS[3]}
    with pytest.raises(ValueError, match="IMG_1"):
        named(PATHS[3:], [name, "IMG_1"], FOLDER, id_of=fivek_id)


def test_other_extensions():
    assert named(PATHS, ["v1.2.jpg"], FOLDER) == {PATHS[2]}  # the list is of the originals, the folder of copies
    assert stem("photo.JPEG") == "photo" and stem("name.with.dots") == "name.with.dots"
    assert all(stem(f"a0001{suffix}") == "a0001" for suffix in SUFFIXES)  # of all that photo_paths finds


def test_what_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="`exclude` must name photos .* 2 have none there: b, c.jpg"):
        named(PATHS, ["a0001", "b", "c.jpg"], FOLDER)


def test_every_data_set_means_the_same():
    name = "gb82_city-lossless"
    for photos in (UnpairedPhotos(PHOTOS, exclude=[name]), LocalEffectPhotos(PHOTOS, "watercolor", exclude=[name])):
        assert len(photos.paths) == 8 and name not in {path.stem for path in photos.paths}
    only = LocalEffectPhotos(PHOTOS, "watercolor", only=[name])
    assert [path.stem for path in only.paths] == [name]
    with pytest.raises(ValueError, match="`only` must name photos"):
        LocalEffectPhotos(PHOTOS, "watercolor", only=["none"])
