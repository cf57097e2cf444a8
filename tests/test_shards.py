import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.data.shards import Shards
from diffretouch.data.unpaired import UnpairedPhotos

pytest.importorskip("webdataset")

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def encoded(number, change=lambda x: x, size=(32, 24)):
    with Image.open(PHOTOS[number % len(PHOTOS)]) as photo:
        pixels = np.asarray(photo.convert("RGB").resize(size), np.float32) / 255
    file = io.BytesIO()
    Image.fromarray((change(pixels) * 255).round().astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three shards of four finished photos each."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        names = range(4 * shard, 4 * shard + 4)
        write_shard(folder / f"set-{shard:03d}.tar", [(f"photo{n:02d}.jpg", encoded(n)) for n in names])
    return folder


def take(photos, count, workers=0, batch=2):
    loader = torch.utils.data.DataLoader(photos, batch, num_workers=workers)
    return [b for b, _ in zip(loader, range(count), strict=False)]


def name(sample_name):
    return sample_name.split(": ")[1]


def test_an_epoch_shows_every_sample_once_in_another_order(shards):
    photos = Shards(shards, 16, window=3)
    names = [name(sample["name"]) for sample, _ in zip(photos, range(36), strict=False)]
    epochs = [names[:12], names[12:24], names[24:]]
    assert all(sorted(epoch) == [f"photo{n:02d}" for n in range(12)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_samples_are_like_those_of_files(shards):
    sample = next(iter(Shards(f"{shards}/set-{{000..002}}.tar", 16)))
    files = UnpairedPhotos(Path(__file__).parent / "photos", 16)[0]
    assert sample.keys() == files.keys()
    for key in ("input", "target", "c"):
        assert sample[key].shape == files[key].shape and sample[key].dtype == files[key].dtype
    still = next(iter(Shards(shards, 16, vary=False)))
    assert not still["c"].any()


@pytest.mark.parametrize("processes, workers", [(1, 2), (2, 0), (3, 0), (2, 2)])
def test_processes_and_workers_share_an_epoch(shards, processes, workers):
    """With three shards and four readers samples are dealt out instead of shards."""
    lanes = processes * max(workers, 1)
    per_lane = 12 // lanes if lanes in (1, 2, 3, 4) else None
    names = []
    for process in range(processes):
        photos = Shards(shards, 16, process=process, processes=processes, batch_size=1)
        batches = take(photos, per_lane * max(workers, 1), workers, batch=1)
        names += [name(batch["name"][0]) for batch in batches]
    if lanes == 2:  # shards of one lane: two, of the other: one and an epoch more of it
        assert set(names) <= {f"photo{n:02d}" for n in range(12)} and len(set(names)) >= 10
    else:
        assert sorted(names) == [f"photo{n:02d}" for n in range(12)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 5, 8])
def test_goes_on_where_it_stopped(shards, workers, done):
    straight = take(Shards(shards, 16, batch_size=2, window=3), 11, workers)
    resumed = take(Shards(shards, 16, batch_size=2, window=3, start=2 * done), 11 - done, workers)
    for a, b in zip(straight[done:], resumed, strict=True):
        assert a["name"] == b["name"] and a["k"].tolist() == b["k"].tolist()
        assert torch.equal(a["input"], b["input"]) and torch.equal(a["c"], b["c"])


def test_numbers_are_never_given_twice(shards):
    ks = []
    for process in range(2):
        for batch in take(Shards(shards, 16, process=process, processes=2, batch_size=2), 6, workers=2):
            ks += batch["k"].tolist()
    assert len(set(ks)) == len(ks)


def test_experts(tmp_path):
    files = []
    for n in range(3):
        files += [(f"a{n}.input.jpg", encoded(n)), (f"a{n}.expertB.jpg", encoded(n, lambda x: x**0.5))]
        files += [(f"a{n}.expertA.jpg", encoded(n, lambda x: x**1.8)), (f"a{n}.json", b"{}")]
    write_shard(tmp_path / "pairs.tar", files)
    cs = [sample["c"][3].item() for sample, _ in zip(Shards(tmp_path, 16), range(12), strict=False)]
    assert min(cs) < -0.5 and max(cs) > 0.5
    with pytest.raises(ValueError, match="one expert"):
        next(iter(Shards(tmp_path, 16, vary=False)))


def test_a_bad_file(tmp_path):
    write_shard(tmp_path / "a.tar", [("good.jpg", encoded(0)), ("bad.jpg", b"no photo")])
    photos = Shards(tmp_path, 16, on_bad_file="skip")
    with pytest.warns(UserWarning, match="bad cannot be read"):
        samples = [sample for sample, _ in zip(photos, range(4), strict=False)]
    assert {name(sample["name"]) for sample in samples} == {"good"} and any(sample["bad"] for sample in samples)
    with pytest.raises(ValueError, match="bad file: .*bad cannot be read"):
        list(zip(Shards(tmp_path, 16), range(4), strict=False))


def test_refuses(tmp_path, shards):
    with pytest.raises(ValueError, match="`urls`"):
        Shards(tmp_path / "none-{000..002}.tar", 16)
    with pytest.raises(ValueError, match="`urls`"):
        Shards(tmp_path, 16)
    with pytest.raises(ValueError, match="`start`"):
        Shards(shards, 16, start=3, batch_size=2)
    write_shard(tmp_path / "empty.tar", [])
    with pytest.raises(ValueError, match="hold no sample"):
        next(iter(Shards(tmp_path, 16)))
    write_shard(tmp_path / "empty.tar", [("a.txt", b"text")])
    with pytest.raises(ValueError, match="must hold one photo"):
        next(iter(Shards(tmp_path, 16)))
