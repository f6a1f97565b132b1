"""1:1 random pairing as TOFU does it: every forget item once an epoch, each with a fresh uniform draw of a retain item.

Retain items are drawn with replacement, so an epoch of |F| pairs sees at most |F| of them, and some twice. `paired`
is the same without replacement and with batches of two sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from interp_unlearn._core import numpy_rng
from interp_unlearn.unlearn._protocols import SAMPLERS, Draw
from interp_unlearn.unlearn.samplers._pairs import Pair, PairSampler
from interp_unlearn.unlearn.samplers.paired import shuffled


@dataclass(frozen=True)
class RandomOptions:
    """The random sampler has no options of its own."""


@SAMPLERS.register("random")
class Random(PairSampler):
    """Random pairs, drawn when they are used."""

    Options = RandomOptions
    name = "random"

    def make_pairs(self) -> list[Pair]:
        """The forget side; the other one is drawn in each epoch anew."""
        return [(i, None) for i in range(len(self.pools.forget))]

    def draw(self, step: int) -> Draw:
        """The next forget items of a shuffled epoch, each with a retain item of its own draw."""
        n, m = len(self.pools.forget), len(self.pools.retain)
        size = min(self.batch_size, n)
        places = range(step * size, (step + 1) * size)
        forget = shuffled(self.seed, "random", step * size, size, n)
        if not m:
            return Draw(forget)
        return Draw(forget, tuple(int(numpy_rng(self.seed, "random retain", p).integers(m)) for p in places))
