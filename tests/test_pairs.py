"""The arguments that name a data set, and the data set that comes of them."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from diffretouch.data.paired import PairedPhotos
from diffretouch.data.shards import Shards
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.training.pairs import (
    add_pair_arguments,
    sample_numbers,
    statistics_for,
    training_pairs,
    verify_if_asked,
)

from .test_paired import make

PHOTOS = Path(__file__).parent / "photos"


def settings(*arguments):
    parser = argparse.ArgumentParser()
    add_pair_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume_from_checkpoint")
    return parser.parse_args([str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "input", ["a0001", "a0002"])
    for name, power in (("target", 0.8), ("expertC", 0.7), ("target_a", 0.9), ("source", 1.0)):
        names = ["0_1", "0_2"] if name in ("target_a", "source") else ["a0001", "a0002"]
        make(tmp_path / name, names, lambda x, power=power: x**power)
    return tmp_path


def test_photos(tmp_path):
    (tmp_path / "leave.txt").write_text("gb82_city-lossless.jpg\ngb82_dog-lossless.jpg\n")
    photos = training_pairs(settings("--train_data_dir", PHOTOS, "--exclude", tmp_path / "leave.txt"), 24)
    assert isinstance(photos, UnpairedPhotos) and len(photos.paths) == 7
    assert photos.describe()["split"] == "all but leave.txt"
    plain = training_pairs(settings("--train_data_dir", PHOTOS), 24)
    assert torch.equal(plain[3]["input"], UnpairedPhotos(PHOTOS, 24)[3]["input"])
    still = training_pairs(settings("--train_data_dir", PHOTOS), 24, vary=False)
    assert all(not still[k]["c"].any() for k in range(6))


@pytest.mark.parametrize(
    "arguments, experts",
    [
        (("--dataset", "pairs"), ["target"]),
        (("--dataset", "pairs", "--expert", "target", "expertC"), ["target", "expertC"]),
        (("--dataset", "fivek", "--expert", "C"), ["expertC"]),
        (("--dataset", "ppr10k", "--expert", "a"), ["target_a"]),
    ],
)
def test_pairs(folder, arguments, experts):
    args = settings("--train_data_dir", folder, *arguments)
    pairs = training_pairs(args, 16)
    assert isinstance(pairs, PairedPhotos) and pairs.experts == experts
    if len(experts) == 1:
        assert not training_pairs(args, 16, vary=False)[0]["c"].any()
    batch = next(iter(torch.utils.data.DataLoader(pairs, 2)))
    assert batch["input"].shape == (2, 3, 16, 16) and batch["k"].tolist() == [0, 1]


def test_split(folder):
    (folder / "one.txt").write_text("a0002\n")
    for dataset in ("pairs", "fivek"):
        expert = ("--expert", "C") if dataset == "fivek" else ()
        arguments = ("--train_data_dir", folder, "--dataset", dataset, *expert, "--split", folder / "one.txt")
        assert training_pairs(settings(*arguments), 16).ids == ["a0002"]


def test_exclude_takes_the_whole_pair(folder):
    (folder / "leave.txt").write_text("a0001.png\n\n")
    arguments = ("--train_data_dir", folder, "--dataset", "pairs", "--exclude", folder / "leave.txt")
    assert training_pairs(settings(*arguments), 16).ids == ["a0002"]


def test_shards(tmp_path):
    pytest.importorskip("webdataset")
    from .test_shards import encoded, write_shard

    write_shard(tmp_path / "a.tar", [(f"p{n}.jpg", encoded(n)) for n in range(4)])
    photos = training_pairs(settings("--train_data_dir", tmp_path, "--dataset", "shards"), 16, start=2, batch_size=2)
    assert isinstance(photos, Shards) and next(iter(photos))["k"] == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--expert", "C"), "--expert"),
        (("--input_folder", "x"), "--input_folder"),
        (("--split", "x"), "--split"),
        (("--use_masks",), "--use_masks"),
        (("--dataset", "pairs", "--simulated_experts", "3"), "--simulated_experts"),
        (("--dataset", "fivek"), "expert A"),
    ],
)
def test_refuses(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        training_pairs(settings("--train_data_dir", folder, *arguments), 16)


def test_verify(folder, capsys):
    arguments = ("--train_data_dir", folder, "--dataset", "pairs", "--verify")
    verify_if_asked(settings(*arguments[:-1]), 16)  # not asked for
    with pytest.raises(SystemExit) as stopped:
        verify_if_asked(settings(*arguments), 16)
    assert stopped.value.code == 0
    (folder / "input" / "a0001.png").unlink()
    with pytest.raises(SystemExit) as stopped:
        verify_if_asked(settings(*arguments), 16)
    told = capsys.readouterr().out
    assert stopped.value.code == 1 and "inputs: lacks 1 of the other folders' photos: a0001" in told


def test_statistics(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffretouch.training.pairs.STATISTICS_SAMPLES", 6)
    photos = ("--train_data_dir", PHOTOS)
    assert statistics_for(settings(*photos), 24, tmp_path / "out") is None
    made = statistics_for(settings(*photos, "--labels", "quantile"), 24, tmp_path / "out")
    assert made["count"] == 6 and json.loads((tmp_path / "out" / "label_statistics.json").read_text()) == made
    # a second process, or the training going on, takes what is there
    kept = {**made, "count": 99}
    (tmp_path / "out" / "label_statistics.json").write_text(json.dumps(kept))
    assert statistics_for(settings(*photos, "--labels", "quantile"), 24, tmp_path / "out") == kept
    experts = ("--train_data_dir", folder, "--dataset", "pairs", "--expert", "target", "expertC")
    assert statistics_for(settings(*experts, "--labels", "quantile"), 16, tmp_path / "other")["count"] == 4


@pytest.mark.parametrize("size, share", [(1, 0.5), (2, 0.5), (3, 0.5), (1, 1.0), (1, 0.25), (2, 0.3), (4, 0.0)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_have_the_same_to_do(size, share, processes):
    """At each step all of them run as many samples again, and every sample comes once."""
    again = lambda ks: sum(int((k + 1) * share) > int(k * share) for k in ks)  # noqa: E731
    turn = 60
    dealt = [[sample_numbers(n, size, p, processes, share) for p in range(processes)] for n in range(turn)]
    assert sorted(k for batch in dealt for ks in batch for k in ks) == list(range(turn * processes * size))
    assert all(len({again(ks) for ks in batch}) == 1 for batch in dealt)
    if float(share * size).is_integer():  # the batch of one process, in parts
        assert [k for batch in dealt for ks in batch for k in ks] == list(range(turn * processes * size))
