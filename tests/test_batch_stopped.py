"""What ends a batch before its end: kills do no harm, and it is gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretouch.batch import Report, plan_batch, retouch_batch
from diffretouch.photo import load_photo, save_photo

from .batches import PHOTOS, settings_for, tree


def test_reports_are_gone_on_with_after_a_kill(tmp_path):
    path = tmp_path / "report.jsonl"
    with Report(path) as report:
        report.write({"photo": "a\n\udcff.jpg", "status": "done"})
        report.write({"photo": "b.jpg", "status": "failed"})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"photo": "c.jp')
    with Report(path, append=True) as report:
        assert report.done == {"a\n\udcff.jpg"}
        report.write({"photo": "c.jpg", "status": "done"})
    assert path.read_bytes() == whole + b'{"photo": "c.jpg", "status": "done"}\n'
    for content in (b"text\n", b"[]\n", b'{"a": 1}\n'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no report"):
            Report(path, append=True)
        assert path.read_bytes() == content


def test_a_closed_batch_leaves_whole_files_and_no_threads(pipe, folder, tmp_path):
    for n in range(20):
        shutil.copy(PHOTOS[n % 3], folder / f"{n}.jpg")
    before, own_threads = threading.active_count(), torch.get_num_threads()
    torch.set_num_threads(3)
    rows = retouch_batch(pipe, plan_batch(folder, tmp_path / "out").tasks, settings_for(pipe), batch_size=2)
    for _ in range(3):
        next(rows)
    rows.close()
    assert threading.active_count() == before and torch.get_num_threads() == 3
    torch.set_num_threads(own_threads)
    names = tree(tmp_path / "out")
    assert 3 <= len(names) < 26
    for name in names:
        load_photo(tmp_path / "out" / name)


ROOT = Path(__file__).parents[1]
SCRIPT = """
import os
import signal
import sys
from pathlib import Path
from diffretouch.batch import Report, existing_results, plan_batch, remove_unfinished, retouch_batch
from diffretouch.settings import Settings

class Brighter:
    has_sliders = False
    def retouch(self, image, *, strength=1.0):
        return (image * 1.1).clip(0, 255 if image.dtype == "uint8" else 1).astype(image.dtype)

source, target, report = map(Path, sys.argv[1:4])
number, after = map(int, sys.argv[4:])  # the signal that comes, and after how many photos
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests in the background ignores it
plan = plan_batch(source, target)
remove_unfinished(plan.tasks)
existing = existing_results(plan.tasks)
tasks = [task for task in plan.tasks if task not in existing]
with Report(report, append=report.exists()) as report:
    try:
        for told, row in enumerate(retouch_batch(Brighter(), tasks, Settings(strength=1.0), jobs=3)):
            report.write(row)
            print(row["status"], flush=True)
            if told == after:
                os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            cwd=ROOT, env=environment)  # fmt: skip


def mixed_folder(source):
    """200 files of five formats in three folders, 20 of them broken."""
    files = {}
    for suffix in (".jpg", ".png", ".tif", ".webp", ".avif"):
        save_photo(np.full((24, 32, 3), 0.4), source.parent / f"one{suffix}")
        files[suffix] = (source.parent / f"one{suffix}").read_bytes()
    for n in range(200):
        path = source / ("abc"[n % 3]) / f"{n:03}{list(files)[(n + n // 10) % 5]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path.suffix][: (0, 3, 40, 200)[n // 10 % 4] if n % 10 == 7 else None])
    return source


def test_killed_at_half_and_run_again(tmp_path):
    source, target, report = mixed_folder(tmp_path / "in"), tmp_path / "out", tmp_path / "report.jsonl"
    killed = start(source, target, report, int(signal.SIGKILL), 100)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    half = {name: (target / name).stat().st_mtime_ns for name in tree(target) if not name.endswith(".tmp")}
    assert 80 <= len(half) < 180
    again = start(source, target, report, 0, -1)
    out, _ = again.communicate()
    assert again.returncode == 0
    broken = {f"{'abc'[n % 3]}/{n:03}" for n in range(7, 200, 10)}
    names = {name.rpartition(".")[0] for name in tree(target)}
    assert len(tree(target)) == len(names) == 180 and not names & broken  # nothing else, no unfinished file
    assert all((target / name).stat().st_mtime_ns == time for name, time in half.items())  # none twice
    assert out.count("done") == 180 - len(half)
    for name in tree(target):
        load_photo(target / name)
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    done = [row["photo"] for row in rows if row["status"] == "done"]
    assert len(done) == len(set(done)) >= 180 - 6  # those that were written but not yet told when the kill came
    failed = {row["photo"].rpartition(".")[0] for row in rows if row["status"] == "failed"}
    assert failed == broken and all(row["photo"] in row["error"] for row in rows if row["status"] == "failed")


def test_ctrl_c_leaves_no_half_file(tmp_path):
    source, target = mixed_folder(tmp_path / "in"), tmp_path / "out"
    stopped = start(source, target, tmp_path / "report.jsonl", int(signal.SIGINT), 50)
    stopped.communicate(timeout=600)
    assert stopped.returncode == 130
    names = tree(target)
    assert 30 <= len(names) < 180 and not [name for name in names if name.endswith(".tmp")]
    for name in names:
        load_photo(target / name)
