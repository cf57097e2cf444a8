"""Training samples a core-second from large JPEGs, as they are read now and as they were: the side of the copies, what
the decoder is asked to shrink to, and what the experts' scores are measured on.

python benchmarks/loader.py [SIZE] [EXPERTS]
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from diffretouch.data.paired import PairedPhotos
from diffretouch.data.thumbnails import Thumbnails, crop_side
from diffretouch.photo import load_photo

SIZE, EXPERTS = (int(sys.argv[n]) if len(sys.argv) > n else default for n, default in ((1, 512), (2, 5)))
PHOTOS, ROUNDS = 2, 3


class Before(Thumbnails):
    """The copies before: four times the crop, the decoder asked for a square, and only where a profile said sRGB.

    A JPEG without a profile was read at its full size by `load_photo`: looking for its EXIF failed.
    """

    def _decode(self, path):
        with Image.open(path) as photo:
            size, profile = photo.size, photo.info.get("icc_profile")
            if profile:
                photo.draft("RGB", (self.side, self.side))
                photo = ImageOps.exif_transpose(photo.convert("RGB"))
        if not profile:
            pixels = load_photo(path).pixels
            photo = Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        photo.thumbnail((self.side, self.side), Image.Resampling.BOX)
        return photo, size


folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
photo = Image.open(Path(__file__).parents[1] / "examples" / "photo.jpg").convert("RGB").resize((3000, 2000))
grain = rng.normal(0, 4, (2000, 3000, 1)).astype(np.float32)
photo = Image.fromarray(np.clip(np.asarray(photo, np.float32) + grain, 0, 255).astype(np.uint8))


def write(profile):
    photo.save(folder / "photo.jpg", quality=92, icc_profile=profile)
    for name in ("input", *(f"expert{n}" for n in range(EXPERTS))):  # what they show costs nothing: all the same
        (folder / name).mkdir(exist_ok=True)
        for n in range(PHOTOS):
            shutil.copy(folder / "photo.jpg", folder / name / f"{n}.jpg")


def samples(before):
    """Fresh data, nothing kept: what a worker does in the first epoch of a large set."""
    kept = Before(4 * SIZE, memory=0) if before else Thumbnails(crop_side(SIZE), memory=0)
    targets = {f"expert{n}": folder / f"expert{n}" for n in range(EXPERTS)}
    photos = PairedPhotos(folder / "input", targets, SIZE, thumbnails=kept)
    if before:
        photos.measured = kept
    start = time.process_time()
    for k in range(PHOTOS):
        photos[k]
    first = time.process_time() - start
    start = time.process_time()
    for k in range(PHOTOS):  # scores are known
        photos[k]
    return PHOTOS / first, PHOTOS / (time.process_time() - start)


for kind, profile in (
    ("no profile", None),
    ("sRGB profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))),
):
    write(profile and profile.tobytes())
    rounds = [(samples(True), samples(False)) for _ in range(ROUNDS)]
    for i, name in enumerate(("scores measured", "scores known")):
        old, new = (sorted(row[j][i] for row in rounds)[ROUNDS // 2] for j in (0, 1))
        print(f"{kind}, {name}: {old:.2f} -> {new:.2f} samples a core-second, {new / old:.1f} times", flush=True)
