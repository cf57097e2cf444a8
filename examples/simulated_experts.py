"""What a training sees of finished photos: what a camera had left of them, and how simulated experts finish them.

python examples/simulated_experts.py FOLDER sheet.png [LOOKS]

Each row is a photo: its finish, two camera inputs, four versions asked for c, five experts of consistent tastes (with
the film looks of the folder LOOKS, if given). Below each version stands its label c.
"""

import sys

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from diffretouch import attribute_labels, measure_attributes
from diffretouch.data.crops import WHOLE, as_chw, cut
from diffretouch.data.simulated_experts import camera_input, expert_version, version_label
from diffretouch.data.tastes import draw_tastes, load_looks, taste_version
from diffretouch.data.thumbnails import Thumbnails, photo_paths

folder, result = sys.argv[1:3]
looks = load_looks(sys.argv[3]) if len(sys.argv) > 3 else None
tastes = draw_tastes(5, looks=len(looks or ()))
open_photo, paths = Thumbnails(512), photo_paths(folder)
paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), 5)).astype(int)]

size, gap, line = 200, 6, 22
names = ["finish", "input", "input", "asked +colour", "asked +contrast", "asked +warm", "asked +light"]
names += [f"expert {i + 1}" for i in range(len(tastes))]
sheet = Image.new("RGB", (gap + len(names) * (size + gap), line + len(paths) * (size + line + gap)), "white")
draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
for column, name in enumerate(names):
    draw.text((gap + column * (size + gap) + size / 2, line / 2), name, "black", font, anchor="mm")

for row, path in enumerate(paths):
    finished = cut(open_photo(path)[0], WHOLE, size)
    rng = lambda *seed: np.random.default_rng([row, *seed])  # noqa: B023, E731
    pictures = [finished, camera_input(finished, rng(0)), camera_input(finished, rng(1))]
    asked = [expert_version(finished, c, rng(2)) for c in np.eye(4)]
    versions = [taste_version(finished, taste, rng(3, i), looks) for i, taste in enumerate(tastes)]
    among = attribute_labels(torch.cat([measure_attributes(as_chw(version)[None]) for version in versions]))
    labels = [None] * 3 + [version_label(version, finished) for version in asked] + among.tolist()
    for column, (picture, c) in enumerate(zip([*pictures, *asked, *versions], labels, strict=True)):
        place = gap + column * (size + gap), line + row * (size + line + gap)
        sheet.paste(Image.fromarray((picture * 255).round().astype(np.uint8)), place)
        if c is not None:
            text = " ".join(f"{value:+.1f}" for value in c)
            draw.text((place[0] + size / 2, place[1] + size + line / 2), text, "black", font, anchor="mm")
sheet.save(result)
