"""Which photo sample k of an endless data set shows."""

from collections.abc import Iterator

import numpy as np


def drawn(items: list, most: int | None, seed: int) -> list:
    """`most` of the items, drawn by the seed, in their order; all of them where there are no more, or without."""
    if most is None or most >= len(items):
        return items
    chosen = np.random.default_rng([seed, 8]).choice(len(items), most, replace=False)
    return [items[i] for i in sorted(chosen)]


class EpochOrder:
    """Every epoch visits every photo once, in an order of its own that (seed, epoch) alone decide.

    Args:
        count (`int`): how many photos there are.
        seed (`int`)
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed
        self._cached = None, None

    def __call__(self, k: int) -> int:
        """Index of the photo that sample k shows."""
        epoch, position = divmod(k, self.count)
        return int(self._epoch(epoch)[position])

    def following(self, k: int) -> Iterator[int]:
        """The index of sample k's photo, then those that come after it in its epoch: each photo once."""
        epoch, position = divmod(k, self.count)
        order = self._epoch(epoch)
        for i in range(self.count):
            yield int(order[(position + i) % self.count])

    def _epoch(self, epoch):
        if self._cached[0] != epoch:
            self._cached = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._cached[1]
