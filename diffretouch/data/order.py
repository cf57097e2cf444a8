"""Which photo sample k of an endless data set shows."""

import numpy as np


class EpochOrder:
    """Every epoch visits every photo once, in an order of its own that (seed, epoch) alone decide.

    Args:
        count (`int`): how many photos there are.
        seed (`int`)
    """

    def __init__(self, count, seed=0):
        self.count, self.seed = count, seed
        self._cached = None, None

    def __call__(self, k):
        """Index of the photo that sample k shows."""
        epoch, position = divmod(k, self.count)
        return int(self._epoch(epoch)[position])

    def following(self, k):
        """The index of sample k's photo, then those that come after it in its epoch: each photo once."""
        epoch, position = divmod(k, self.count)
        order = self._epoch(epoch)
        for i in range(self.count):
            yield int(order[(position + i) % self.count])

    def _epoch(self, epoch):
        if self._cached[0] != epoch:
            self._cached = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._cached[1]
