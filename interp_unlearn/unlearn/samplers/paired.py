"""1:1 random pairing: forget items in a fresh random order each epoch, each step with random retain items.

The usual practice (TOFU, open-unlearning). ``by_kind`` draws the retain items evenly over their kinds (known,
unknown, text …), however many there are of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from interp_unlearn._core import numpy_rng
from interp_unlearn.unlearn._protocols import SAMPLERS, Draw, Sampler


@dataclass(frozen=True)
class PairedOptions:
    """Options of the paired sampler.

    Attributes:
        by_kind: Give every kind of retain item the same share of each batch.
    """

    by_kind: bool = False


@lru_cache(maxsize=64)
def _order(seed: int, purpose: str, epoch: int, n: int) -> tuple[int, ...]:
    return tuple(numpy_rng(seed, "paired", purpose, epoch).permutation(n).tolist())


def shuffled(seed: int, purpose: str, start: int, count: int, n: int) -> tuple[int, ...]:
    """Entries ``start … start + count`` of an endless sequence of shuffled epochs over n items."""
    found: list[int] = []
    while len(found) < count:
        epoch, at = divmod(start + len(found), n)
        found += _order(seed, purpose, epoch, n)[at : at + count - len(found)]
    return tuple(found)


@SAMPLERS.register("paired")
class Paired(Sampler):
    """Random pairs."""

    Options = PairedOptions

    def draw(self, step: int) -> Draw:
        """Both sides: consecutive entries of shuffled epochs (a set smaller than the batch is drawn whole)."""
        n = len(self.pools.forget)
        size = min(self.batch_size, n)
        forget = shuffled(self.seed, "forget", step * size, size, n)
        return Draw(forget, self._retain(step))

    def _retain(self, step: int) -> tuple[int, ...]:
        pool = self.pools.retain
        if not pool:
            return ()
        if not self.options.by_kind:
            size = min(self.retain_batch_size, len(pool))
            return shuffled(self.seed, "retain", step * size, size, len(pool))
        kinds = list(dict.fromkeys(item.kind for item in pool))
        members = {kind: [i for i, item in enumerate(pool) if item.kind == kind] for kind in kinds}
        taken = dict.fromkeys(kinds, 0)
        first = step * self.retain_batch_size
        for position in range(first, first + self.retain_batch_size):
            taken[kinds[position % len(kinds)]] += 1
        drawn: list[int] = []
        for k, kind in enumerate(kinds):
            start = first // len(kinds) + (k < first % len(kinds))
            where = shuffled(self.seed, f"retain {kind}", start, taken[kind], len(members[kind]))
            drawn += [members[kind][i] for i in where]
        return tuple(drawn)
