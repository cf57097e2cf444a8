"""Writing photo files: bad arguments, full disks, kills and several writers leave no half file."""

import dataclasses
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from diffretouch.photo import Photo, load_photo, save_photo

from .photo_files import CITY, RGB8, RGB16, random, read


def test_files_of_killed_processes_are_removed(tmp_path):
    from diffretouch.photo import encoders

    code = f"""
import os, signal
from diffretouch.photo import encoders
with encoders.new_file({str(tmp_path / "out.png")!r}) as file:
    os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert len(list(tmp_path.iterdir())) == 1
    with encoders.new_file(tmp_path / "mine.png"):  # a process at work keeps its own
        assert encoders.remove_abandoned(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    (tmp_path / f"{encoders._mark()}{2**22}-x.tmp").mkdir()  # what cannot be removed hinders nothing
    assert encoders.remove_abandoned(tmp_path) == 0


# Files that cannot be written


@pytest.mark.parametrize(
    "photo, name, options, error, message",
    [
        (RGB8, "out.gif", {}, ValueError, "`path` must end in"),
        (RGB8, "out", {}, ValueError, "`path` must end in"),
        (RGB8, "out.heic", {}, ValueError, "`path` must end in"),
        (RGB8, "there.png", {}, ValueError, "`overwrite`"),
        (RGB16, "out.jpg", {}, ValueError, "`bit_depth` must be 8 for JPEG, got 16"),
        (RGB16, "out.webp", {}, ValueError, "`bit_depth`"),
        (RGB8, "out.png", {"bit_depth": 32}, ValueError, "`bit_depth`"),
        (RGB8, "out.tif", {"bit_depth": 12}, ValueError, "`bit_depth`"),
        (RGB8, "out.png", {"quality": 90}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": 0}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": 101}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": True}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"quality": "high"}, ValueError, "`quality`"),
        (RGB8, "out.jpg", {"background": (1, 1)}, ValueError, "`background`"),
        (RGB8, "out.jpg", {"background": (1, 1, 2)}, ValueError, "`background`"),
        (RGB8, "out.jpg", {"like": "photo.jpg"}, TypeError, "`like`"),
        (RGB8, "out.jpg", {"description": "\0"}, ValueError, "`description`"),
        (RGB8, "out.jpg", {"description": 5}, ValueError, "`description`"),
        (RGB8[..., 0], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8.transpose(2, 0, 1), "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8[None], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8[:0], "out.png", {}, ValueError, r"`photo` must be \(H,W,3\)"),
        (RGB8.astype(np.int16), "out.png", {}, TypeError, "int16"),
        (RGB8 > 9, "out.png", {}, TypeError, "bool"),
        (RGB8 * 1j, "out.png", {}, TypeError, "complex"),
        (RGB8 * np.nan, "out.png", {}, ValueError, "finite"),
        (np.zeros((1, 16384, 3), np.uint8), "out.webp", {}, ValueError, "at most 16383"),
        (np.zeros((70000, 1, 3), np.uint8), "out.jpg", {}, ValueError, "at most 65500"),
        (Photo(RGB8 / 255, alpha=np.ones((3, 3))), "out.png", {}, ValueError, "alpha of its source"),
    ],
)
def test_bad_arguments_raise_and_write_nothing(photo, name, options, error, message, tmp_path):
    (tmp_path / "there.png").write_bytes(b"before")
    with pytest.raises(error, match=message):
        save_photo(photo, tmp_path / name, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_a_write_that_fails_half_way_leaves_nothing(suffix, tmp_path):
    """The system itself ends the write after 4000 bytes."""
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    pixels = random.random((200, 200, 3), np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: .*out{suffix}'$"):
            save_photo(pixels, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_encoder_leaves_nothing(suffix, error, tmp_path):
    class Text(dict):  # the writers ask for it while the file is open
        def copy(self):
            raise error

        __iter__ = items = keys = __len__ = copy

    with pytest.raises(error):
        save_photo(Photo(RGB8 / np.float32(255), text=Text()), tmp_path / f"out{suffix}")
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing/out.png"):
        save_photo(RGB8, tmp_path / "missing" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder.png"):
        save_photo(RGB8, tmp_path / "folder.png", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


def test_overwriting(tmp_path):
    path, link = tmp_path / "photo.png", tmp_path / "link.png"
    save_photo(RGB8, path)
    path.chmod(0o600)
    link.symlink_to(path)
    save_photo(dataclasses.replace(load_photo(path), pixels=1 - RGB8 / 255), link, overwrite=True)
    assert link.is_symlink() and np.array_equal(read(path), 255 - RGB8)
    assert path.stat().st_mode & 0o777 == 0o600
    umask = os.umask(0o027)
    try:
        save_photo(RGB8, tmp_path / "new.png")
    finally:
        os.umask(umask)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640


def test_of_many_writers_one_wins(tmp_path):
    results = []

    def save(value):
        try:
            save_photo(np.full((64, 64, 3), value, np.uint8), tmp_path / "out.png")
            results.append(value)
        except ValueError:
            pass

    threads = [threading.Thread(target=save, args=(value,)) for value in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 1 and read(tmp_path / "out.png")[0, 0, 0] == results[0]


def test_file_systems_without_links(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    save_photo(RGB8, tmp_path / "out.png")
    with pytest.raises(ValueError, match="`overwrite`"):
        save_photo(RGB8, tmp_path / "out.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_the_same_photo_makes_the_same_file(tmp_path):
    photo = load_photo(CITY)
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        for name in "ab":
            save_photo(photo, tmp_path / (name + suffix), description="x")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
