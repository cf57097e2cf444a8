"""What the README's first command made, checked with the installed package from outside the checkout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

root = Path(sys.argv[1])
before, after = (np.asarray(Image.open(root / name)) for name in ("examples/photo.jpg", "retouched.jpg"))
assert before.shape == after.shape and before.shape[0] * before.shape[1] >= 6e6, (before.shape, after.shape)
assert after.mean() > before.mean() + 5 and after.std() > before.std() + 5, "the retouch shows nothing"

for module in ("diffretouch.pipelines.pipeline_diffretouch", "diffretouch.training.train_diffretouch"):
    __import__(module)
    assert not Path(sys.modules[module].__file__).is_relative_to(root / "pipelines"), "not the installed package"
assert "torchvision" not in sys.modules and "lpips" not in sys.modules

scripts = Path(sys.executable).parent
for command in (["diffretouch", "--help"], ["python", "-m", "diffretouch.training.train_diffretouch", "--help"]):
    for folder in ("/", root):  # also from the checkout's root, where the folder hides the installed package
        subprocess.run([scripts / command[0], *command[1:]], check=True, cwd=folder, stdout=subprocess.DEVNULL)
print("smoke run passed")
