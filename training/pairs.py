"""Which pairs a training sees: the arguments of every training script that name a data set, and the data set."""

from pathlib import Path

from diffretouch.data.unpaired import UnpairedPhotos


def add_pair_arguments(parser):
    add = parser.add_argument
    add("--train_data_dir", required=True, help="folder of finished photos, searched recursively")
    add("--exclude", help="text file with photo names to leave out, one a line")


def training_pairs(args, size):
    """The data set that `args` name: endless; sample k, by (seed, k), is `input`, `target` (3,size,size) and `c` (4,)."""
    exclude = Path(args.exclude).read_text().split("\n") if args.exclude else ()
    return UnpairedPhotos(args.train_data_dir, size, seed=args.seed, exclude=exclude)
