"""Write photos and what a simulated local effect makes of them as two folders, for evaluation and other trainings.

python training/simulate_local_effects.py PHOTOS PAIRS --effect local_xpro --only training/recipes/small_validation.txt
diffretouch evaluate PAIRS/input PAIRS/target --peer sa-adjustnet
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

if not __package__:  # run as a file: the checkout that it stands in need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffretouch.data.local_effects import EFFECTS, LocalEffectPhotos
from diffretouch.data.photo_names import read_names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("photos", help="folder of photos, searched recursively")
    add("output_dir", help="gets the folders input and target, with PNG files of the same names")
    add("--effect", choices=list(EFFECTS), default="foreground_pop_out")
    add("--size", type=int, default=256, help="the most pixels along the long side")
    add("--only", help="text file with the photo names to take, one a line")
    add("--exclude", help="text file with photo names to leave out, one a line")
    add("--on_bad_file", choices=["stop", "skip"], default="stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = lambda path: read_names(path) if path else None  # noqa: E731
    photos = LocalEffectPhotos(
        args.photos, args.effect, args.size, only=names(args.only), exclude=names(args.exclude) or ()
    )
    folders = [Path(args.output_dir) / side for side in ("input", "target")]
    for folder in folders:
        if folder.is_dir() and any(folder.iterdir()):
            raise SystemExit(f"`output_dir`: {folder} is not empty.")
        folder.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(tqdm(photos.paths)):
        try:
            versions = photos.photo(index)[:2]
        except ValueError as error:
            if args.on_bad_file == "stop":
                raise SystemExit(f"bad file: {error}") from error
            tqdm.write(f"passed by: {error}")
            continue
        for folder, version in zip(folders, versions, strict=True):
            pixels = (version.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
