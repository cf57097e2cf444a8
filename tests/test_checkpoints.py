"""What every training script shares: data workers and signals. Resume itself stands in test_resume.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffretouch.training.checkpoints import check_output_dir, checkpoints

PROGRAM = """
import sys
import torch
from diffretouch.training.checkpoints import leave_signals_to_the_loop, stop_signals

stop_signals()
loader = torch.utils.data.DataLoader(range(10**6), num_workers=1, worker_init_fn=leave_signals_to_the_loop)
batches = iter(loader)
next(batches)
kept = [batches]
kept.append(kept)  # as the traceback of an error keeps them
raise SystemExit("the loss is nan")
"""


def test_an_error_ends_the_data_workers_too():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    program = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(program, env=environment, capture_output=True, timeout=600, text=True)
    assert ended.returncode == 1 and "the loss is nan" in ended.stderr


def test_checkpoints_are_whole_ones_in_order(tmp_path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-11.tmp", "checkpoint-old"):
        (tmp_path / name).mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


def test_output_dir(tmp_path):
    check_output_dir(tmp_path, False)
    check_output_dir(tmp_path / "new", False)
    (tmp_path / "log.jsonl").touch()
    check_output_dir(tmp_path, "latest")
    with pytest.raises(SystemExit, match="not empty"):
        check_output_dir(tmp_path, None)
