"""Large data sets as WebDataset shards (tar files), streamed, split by process and worker."""

import io
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps

from diffretouch.attributes import attribute_labels, measure_attributes, quantile_labels

from .crops import as_chw, cut, random_crop
from .thumbnails import first_readable
from .unpaired import finished_crop, simulated_pair

if TYPE_CHECKING:
    from diffretouch.data.tastes import Taste

_PICTURES = {"jpg", "jpeg", "png", "webp"}


class Shards(torch.utils.data.IterableDataset):
    """Samples from tar shards, endless, each epoch in an order that (seed, epoch) decides.

    In a shard, the files of a sample share their name up to the first dot: `a0001.jpg` is a finished photo, as in
    `UnpairedPhotos`; `a0001.input.jpg` with `a0001.expertC.jpg` (one or more experts) is a pair, as in `PairedPhotos`.
    JPEG, PNG and WebP of 8 bits in sRGB are read.

    Shards are dealt out to (process, worker); with fewer shards than these, every one of them reads all shards and
    takes every n-th sample. Within an epoch, samples are mixed in a window. No position is stored: `start` walks over
    what was already seen, which is read again but not decoded. So a training goes on bit-exact with the same number of
    processes and workers, at the cost of reading the shards as often as it did before; with other numbers it goes on
    with other samples.

    Args:
        urls: shards: a folder, a file, or a pattern such as "set-{000..099}.tar".
        size (`int`): side of the square samples.
        start (`int`): how many samples this process has already given out; a multiple of `batch_size`.
        batch_size (`int`): of the loader, which deals whole batches out to its workers in turn.
        process, processes (`int`): which of how many processes.
        window (`int`): how many samples are mixed.
        others: as in `UnpairedPhotos`.
    """

    def __init__(
        self, urls: str | Sequence[str], size: int = 128, *, seed: int = 0, start: int = 0, batch_size: int = 1,
        process: int = 0, processes: int = 1, window: int = 200, vary: bool = True, tastes: "Sequence[Taste]" = (),
        looks: Sequence[np.ndarray] | None = None, statistics: Mapping[str, Any] | None = None,
        on_bad_file: str = "stop", rendering: str = "not stated",
    ) -> None:  # fmt: skip
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise ImportError("Shards are read by webdataset: pip install 'diffretouch[train]'.") from error
        urls = [urls] if isinstance(urls, (str, Path)) else urls
        found = []
        for url in urls:
            if Path(url).is_dir():
                found.extend(sorted(str(p) for p in Path(url).rglob("*.tar")))
            else:
                found.extend(expand_urls(str(url)))
        missing = [
            url for url in found if "://" not in url and not url.startswith("pipe:") and not Path(url).is_file()
        ]
        if not found or missing:
            raise ValueError(f"`urls` must name tar shards, found none in {', '.join(map(str, missing or urls))}.")
        if start % batch_size:
            raise ValueError(f"`start` must be a multiple of the batch size {batch_size}, got {start}.")
        self.urls, self.size, self.seed, self.start, self.batch_size = found, size, seed, start, batch_size
        self.process, self.processes, self.window, self.vary = process, processes, window, vary
        self.tastes, self.looks, self.statistics = list(tastes), looks, statistics
        self.on_bad_file, self.rendering = on_bad_file, rendering

    def describe(self) -> dict[str, Any]:
        """Shards, rendering and how they are split: JSON-able."""
        return {
            "shards": len(self.urls),
            "first_shard": self.urls[0],
            "rendering": self.rendering,
            "split": "all shards",
            "processes": self.processes,
        }

    def __iter__(self):
        # 1. Which lane this worker is on: the loader takes batches from its workers in turn, from the first on
        worker = torch.utils.data.get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = self.start // self.batch_size
        own = (own + batches) % workers
        seen = len(range(own, batches, workers)) * self.batch_size
        lane, lanes = self.process * workers + own, self.processes * workers

        # 2. The lane's samples from where it stood, each with its own number in the whole training
        raw = itertools.islice(self._raw(lane, lanes), seen, None)
        numbers = itertools.count(lane + seen * lanes, lanes)
        for k in numbers:
            rng = np.random.default_rng([self.seed, 1, k])
            _, sample, bad = first_readable(raw, partial(self._sample, rng=rng), self.on_bad_file)
            yield {**sample, "k": k, "bad": "\n".join(bad)}

    def _raw(self, lane, lanes):
        """Undecoded samples of a lane, epoch after epoch."""
        from webdataset.tariterators import tarfile_samples

        for epoch in itertools.count():
            order = np.random.default_rng([self.seed, 4, epoch]).permutation(len(self.urls))
            by_shard = len(self.urls) >= lanes
            urls = [self.urls[i] for i in (order[lane::lanes] if by_shard else order)]
            samples = tarfile_samples({"url": url} for url in urls)
            if not by_shard:
                samples = itertools.islice(samples, lane, None, lanes)
            rng = np.random.default_rng([self.seed, 5, epoch, lane])
            some = False
            for sample in _mixed(samples, self.window, rng):
                some = True
                yield sample
            if not some:
                raise ValueError(
                    f"`urls`: the shards {', '.join(urls[:3])} hold no sample for one of {lanes} readers."
                )

    def _sample(self, files, rng):
        name = f"{files.get('__url__', '')}: {files['__key__']}"
        pictures = {kind: data for kind, data in files.items() if kind.rsplit(".", 1)[-1] in _PICTURES}
        versions = {kind.rsplit(".", 1)[0]: data for kind, data in pictures.items() if "." in kind}
        if "input" in versions and len(versions) > 1:
            return {**self._pair(versions, name, rng), "name": name}
        finished = [data for kind, data in pictures.items() if "." not in kind]
        if len(finished) != 1:
            raise ValueError(f"{name} must hold one photo, or `input` and experts' versions, got {sorted(pictures)}.")
        photo = finished_crop(_decode(finished[0], 4 * self.size, name), rng, self.size)
        options = {"tastes": self.tastes, "looks": self.looks, "statistics": self.statistics}
        source, target, c = simulated_pair(photo, rng, vary=self.vary, **options)
        return {"input": as_chw(source), "target": as_chw(target), "c": torch.from_numpy(c), "name": name}

    def _pair(self, versions, name, rng):
        opened = {kind: _decode(data, 4 * self.size, f"{name}.{kind}") for kind, data in sorted(versions.items())}
        source = opened.pop("input")
        for kind, version in opened.items():
            if version.size != source.size:
                raise ValueError(f"{name}: input is {source.size}, {kind} {version.size} px (as read).")
        if not self.vary and len(opened) > 1:
            raise ValueError(f"{name}: a network that takes no c needs one expert, got {', '.join(opened)}.")
        chosen = int(rng.integers(len(opened)))
        crop = random_crop(rng)
        source, target = (cut(image, crop, self.size) for image in (source, list(opened.values())[chosen]))
        c = np.zeros(4, np.float32)
        if self.vary and len(opened) > 1:
            whole = [as_chw(np.asarray(image, np.float32) / 255)[None] for image in opened.values()]
            scores = torch.cat([measure_attributes(image) for image in whole])
            labels = attribute_labels(scores) if self.statistics is None else quantile_labels(scores, self.statistics)
            c = labels[chosen].numpy()
        elif self.vary:
            _, target, c = simulated_pair(target, rng, statistics=self.statistics)
        return {"input": as_chw(source), "target": as_chw(target), "c": torch.from_numpy(c)}


def _mixed(samples, window, rng):
    """Samples in a random order, as far as a window of them reaches."""
    held = deque()
    for sample in samples:
        held.append(sample)
        if len(held) >= window:
            held.rotate(-int(rng.integers(len(held))))
            yield held.popleft()
    held = list(held)
    for i in rng.permutation(len(held)):
        yield held[i]


def _decode(data, side, name):
    try:
        with Image.open(io.BytesIO(data)) as photo:
            photo.draft("RGB", (side, side))
            photo = ImageOps.exif_transpose(photo.convert("RGB"))
        photo.thumbnail((side, side), Image.Resampling.BOX)
    except Exception as error:  # decoders raise whatever they like on broken files
        raise ValueError(f"{name} cannot be read: {error}") from error
    return photo
