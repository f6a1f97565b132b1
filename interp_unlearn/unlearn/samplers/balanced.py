"""Balanced pairing: cyclic, with as many indirect as direct neighbours of each target.

Direct neighbours are few and indirect ones many; per target the indirect ones are drawn down to the number of direct
ones, once, before training (Bushipaka et al., arXiv 2509.05316). General items all stay.
"""

from __future__ import annotations

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.unlearn._protocols import SAMPLERS
from interp_unlearn.unlearn.samplers._pairs import Pair, PairSampler, around


@SAMPLERS.register("balanced")
class Balanced(PairSampler):
    """Cyclic over a balanced retain set."""

    name = "balanced"

    def make_pairs(self) -> list[Pair]:
        """Pairs in file order.

        Raises:
            DataError: If there is no direct neighbour, so that balance would leave no indirect one either.
        """
        items = self.pools.retain
        by_target = lambda kind, target: [  # noqa: E731
            i for i, item in enumerate(items) if item.neighbour == kind and item.target == target
        ]
        kept = {i for i, item in enumerate(items) if item.neighbour in ("direct", "general")}
        if not any(items[i].neighbour == "direct" for i in kept):
            raise DataError(
                "sampler 'balanced' draws indirect neighbours down to the number of direct ones, but the retain set "
                "has no direct neighbour; add them with worlds.with_neighbours, or use sampler 'cyclic'"
            )
        for target in dict.fromkeys(item.target for item in items if item.target):
            direct, indirect = by_target("direct", target), by_target("indirect", target)
            order = numpy_rng(self.options.pair_seed, "balanced", target).permutation(len(indirect))
            kept |= {indirect[i] for i in order[: len(direct)]}
        return around(list(range(len(self.pools.forget))), sorted(kept))
