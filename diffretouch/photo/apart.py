"""Decoding in a process of its own: what a damaged file does to a decoder's memory ends that process alone."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[4])
import imagecodecs, numpy
data = open(sys.argv[2], "rb").read()
numpy.save(sys.argv[3], getattr(imagecodecs, sys.argv[1])(data, **json.loads(sys.argv[5])))
"""
_SECONDS = 300


def decode(codec: str, path: Path, **options: Any) -> np.ndarray:
    """What `imagecodecs.<codec>(data, **options)` makes of the file.

    Raises:
        ValueError: it fails, or the process that runs it ends otherwise or takes longer than five minutes.
    """
    with tempfile.TemporaryDirectory(prefix="diffretouch-") as folder:
        result = Path(folder, "samples.npy")
        command = [sys.executable, "-I", "-c", _CODE, codec, str(path), str(result), json.dumps(sys.path)]
        try:
            done = subprocess.run([*command, json.dumps(options)], capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise ValueError(f"its decoder did not end within {_SECONDS} seconds") from None
        if done.returncode < 0:
            raise ValueError("its decoder crashed on it")
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(last[-1] if last else "its decoder failed")
        return np.load(result, allow_pickle=False)
