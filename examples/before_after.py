"""A photo beside its retouch, at half the width of a page each.

python examples/before_after.py examples/photo.jpg before_after.jpg
"""

import sys

import torch
from PIL import Image

from diffretouch import DiffRetouchPipeline

source, result = sys.argv[1:3]
photo = Image.open(source).convert("RGB")
pipe = DiffRetouchPipeline.from_pretrained("small")
retouched = pipe(photo, generator=torch.Generator().manual_seed(0)).images[0]

size = (720, round(720 * photo.height / photo.width))
sheet = Image.new("RGB", (2 * size[0] + 8, size[1]), "white")
sheet.paste(photo.resize(size, Image.Resampling.LANCZOS), (0, 0))
sheet.paste(retouched.resize(size, Image.Resampling.LANCZOS), (size[0] + 8, 0))
sheet.save(result, quality=90)
