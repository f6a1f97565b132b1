"""Samplers whose unit is a pair: a forget item with the retain item that it meets, fixed before training.

An epoch visits every pair once. The pairs depend on the pools and on ``pair_seed``; the recipe's seed decides only
the order in which they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn._protocols import Draw, Pools, Sampler
from interp_unlearn.unlearn.samplers.paired import shuffled

Pair = tuple[int, int | None]


@dataclass(frozen=True)
class PairOptions:
    """Options of every sampler of pairs.

    Attributes:
        order: ``shuffled``: a fresh order of the pairs in each epoch, as trainers do; ``file``: as they were made.
        pair_seed: Decides the random choices that are made once, while pairing.
    """

    order: Literal["shuffled", "file"] = "shuffled"
    pair_seed: int = 42


class PairSampler(Sampler):
    """Base: subclasses define `make_pairs`. Of an objective without retain data it draws forget items alone.

    Attributes:
        pairs: The pairs of an epoch, indices into the pools.
    """

    Options = PairOptions
    name = "pairs"

    def prepare(self, pools: Pools, *, batch_size: int, retain_batch_size: int, seed: int) -> None:
        """Make the pairs.

        Raises:
            ConfigError: If the two sides of a batch are to differ in size, which pairs cannot.
            DataError: If the retain set lacks what the pairing needs.
        """
        super().prepare(pools, batch_size=batch_size, retain_batch_size=retain_batch_size, seed=seed)
        if pools.retain and batch_size != retain_batch_size:
            raise ConfigError(
                f"sampler {self.name!r} draws pairs of a forget and a retain item, but recipe.batch_size is "
                f"{batch_size} and recipe.retain_batch_size {retain_batch_size}; set both to the same number of pairs"
            )
        self.pairs: list[Pair] = self.make_pairs() if pools.retain else [(i, None) for i in range(len(pools.forget))]

    def make_pairs(self) -> list[Pair]:
        """Every pair of an epoch, in file order."""
        raise NotImplementedError

    @property
    def epoch_length(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def draw(self, step: int) -> Draw:
        """The next pairs; batches run on over the end of an epoch."""
        size = min(self.batch_size, len(self.pairs))
        start = step * size
        if self.options.order == "file":
            chosen = tuple(p % len(self.pairs) for p in range(start, start + size))
        else:
            chosen = shuffled(self.seed, self.name, start, size, len(self.pairs))
        return self.of(chosen)

    def of(self, chosen: tuple[int, ...]) -> Draw:
        """The draw of some pairs."""
        found = [self.pairs[i] for i in chosen]
        return Draw(tuple(f for f, _ in found), tuple(r for _, r in found if r is not None))


def around(left: list[int], right: list[int]) -> list[Pair]:
    """Pairs as many as the longer list has entries; both lists go round."""
    count = max(len(left), len(right)) if left and right else 0
    return [(left[i % len(left)], right[i % len(right)]) for i in range(count)]
