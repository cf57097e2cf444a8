"""The training script of HDRNet and the 3D LUT; how it resumes is that of all scripts, and tested there."""

import json
from pathlib import Path

import pytest
import torch

from diffretouch.pipelines.pretrained import open_pipeline
from diffretouch.training import train_baselines

from .tiny import run_here

PHOTOS = Path(__file__).parent / "photos"


def train(output_dir, *more):
    arguments = [
        *("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir), "--resolution", "24"),
        *("--train_batch_size", "2", "--checkpointing_steps", "2", "--dataloader_num_workers", "0"),
        *("--learning_rate", "3e-4", *more),
    ]
    run_here(train_baselines.main, arguments)


@pytest.mark.parametrize("network", ["hdrnet", "3dlut"])
def test_trains_and_goes_on(network, tmp_path):
    """What is saved opens as a pipeline; a stopped training goes on to the same weights."""
    train(tmp_path / "whole", "--network", network, "--max_train_steps", "4")
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "mse" in row] == [1, 2, 3, 4]
    pipe = open_pipeline(str(tmp_path / "whole"))
    own, new = pipe.network.state_dict(), train_baselines.NETWORKS[network][0]().state_dict()
    assert own.keys() == new.keys() and pipe(torch.rand(3, 20, 30), output_type="pt").images.isfinite().all()
    train(tmp_path / "part", "--network", network, "--max_train_steps", "2")
    more = ("--max_train_steps", "4", "--resume_from_checkpoint", "latest")
    train(tmp_path / "part", "--network", network, *more)
    again = open_pipeline(str(tmp_path / "part")).network.state_dict()
    assert all(torch.equal(own[name], again[name]) for name in own)


def test_refuses(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, "--network", "magic")
