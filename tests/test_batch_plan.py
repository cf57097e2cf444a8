"""What will be done with a folder, and what is refused before anything is done."""

import shutil

import pytest

from diffretouch.batch import plan_batch

from .batches import PHOTOS


def test_the_tree_is_mirrored(folder):
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / ".trash").mkdir()
    shutil.copy(PHOTOS[0], folder / ".trash")
    (folder / "notes.txt").write_text("no photo")
    target = folder / "finished"
    target.mkdir()
    shutil.copy(PHOTOS[0], target / "earlier.jpg")
    plan = plan_batch(folder, target)
    names = sorted([photo.name for photo in PHOTOS[:3]] + ["deep.tif", "sub/a.jpg", "sub/alpha.png"])
    assert [task.name for task in plan.tasks] == names and not plan.unread
    assert all(task.source == folder / task.name and task.target == target / task.name for task in plan.tasks)
    assert plan.notes == ("1 other files, no photos by their suffix, are left out.",)
    assert "sub/a.jpg" not in [task.name for task in plan_batch(folder, target, recursive=False).tasks]


def test_names_of_results(folder):
    (folder / "photo.NEF").write_bytes(b"")
    (folder / "phone.heic").write_bytes(b"")
    target = folder.parent / "out"
    by_format = {task.name: task.target for task in plan_batch(folder, target, suffix="_x", format="webp").tasks}
    assert by_format["deep.tif"] == target / "deep_x.webp"
    targets = {task.name: task.target.name for task in plan_batch(folder, target).tasks}
    assert (targets["photo.NEF"], targets["phone.heic"], targets["sub/a.jpg"]) == ("photo.tif", "phone.tif", "a.jpg")


@pytest.mark.parametrize(
    "names, options, message",
    [
        (["a.jpg", "a.png"], {"format": "jpg"}, "'a.jpg' and 'a.png' would both become"),
        (["a.nef", "a.tif"], {}, "'a.nef' and 'a.tif' would both become"),
        (["a.tif", "a_x.png"], {"format": "jpg", "suffix": ""}, None),
        (["a.png", "a.jpg/b.png"], {"format": "jpg"}, "name of a folder that other results need"),
        (["a.jpg", "A.jpg"], {}, None),
        (["a.jpg"], {"suffix": "/../../b"}, "`suffix`"),
        (["a.jpg"], {"suffix": None}, "`suffix`"),
        (["a.jpg"], {"format": "gif"}, "`format` must be jpg"),
        (["a.jpg"], {"format": "../x.jpg"}, "`format`"),
        (["a.txt"], {}, "holds no photos"),
        ([], {}, "holds no photos"),
    ],
)
def test_collisions_are_refused_before_anything_is_done(names, options, message, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"")
    if message is None:
        assert len(plan_batch(source, tmp_path / "out", **options).tasks) == len(names)
        return
    with pytest.raises(ValueError, match=message):
        plan_batch(source, tmp_path / "out", **options)


def test_folders_that_cannot_be(folder, tmp_path):
    with pytest.raises(ValueError, match="`source` must be a folder"):
        plan_batch(tmp_path / "missing", tmp_path / "out")
    with pytest.raises(ValueError, match="`source` must be a folder"):
        plan_batch(folder / "deep.tif", tmp_path / "out")
    with pytest.raises(ValueError, match="`target` must be a folder"):
        plan_batch(folder, folder / "deep.tif")
    (tmp_path / "same").symlink_to(folder)
    with pytest.raises(ValueError, match="another folder"):
        plan_batch(folder, tmp_path / "same")


def test_links_are_followed_once(folder, tmp_path):
    (folder / "round").symlink_to(folder)
    (folder / "sub" / "up").symlink_to("..")
    (folder / "a_link").symlink_to("sub")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(PHOTOS[0], other / "b.jpg")
    (folder / "linked").symlink_to(other)
    (folder / "link.jpg").symlink_to(PHOTOS[0])
    (folder / "dead.jpg").symlink_to("nowhere.jpg")
    plan = plan_batch(folder, tmp_path / "out")
    names = [task.name for task in plan.tasks]
    assert len(names) == 9 and {"sub/a.jpg", "linked/b.jpg", "link.jpg", "dead.jpg"} < set(names)
    assert sum("entered already" in note for note in plan.notes) == 3


def test_no_result_leaves_the_target_or_lies_on_a_photo(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the target folder"):
        plan_batch(folder, out)
    (out / "sub").unlink()
    (out / "deep.tif").symlink_to(folder / "deep.tif")
    with pytest.raises(ValueError, match="would lie on a photo"):
        plan_batch(folder, out)
    (out / "deep.tif").unlink()
    for file in ("kept.tif", "elsewhere/not yet there.tif"):
        (tmp_path / "kept.tif").write_bytes(b"mine")
        (out / "deep.tif").symlink_to(tmp_path / file)
        with pytest.raises(ValueError, match="leads out of the target folder"):
            plan_batch(folder, out)
        (out / "deep.tif").unlink()
    (out / "other.tif").write_bytes(b"")
    (out / "deep.tif").symlink_to("other.tif")  # within it
    plan_batch(folder, out)
