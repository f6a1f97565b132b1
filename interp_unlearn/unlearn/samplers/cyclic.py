"""Cyclic pairing: every retain item once an epoch, the forget set going round beside it; no topical relation.

Item i is ``(F[i mod |F|], R[i mod |R|])``, i < max(|F|, |R|). With ``neighbours`` R is a part of the retain set: MELU's
"direct" is direct and general, its "indirect" indirect and general (Bushipaka et al., arXiv 2509.05316).
"""

from __future__ import annotations

from dataclasses import dataclass

from interp_unlearn._core import DataError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import SAMPLERS
from interp_unlearn.unlearn.samplers._pairs import Pair, PairOptions, PairSampler, around
from interp_unlearn.worlds import NeighbourKind


@dataclass(frozen=True)
class CyclicOptions(PairOptions):
    """Options of the cyclic sampler, beside those of `PairOptions`.

    Attributes:
        neighbours: Kinds of retain items that take part.
    """

    neighbours: tuple[NeighbourKind, ...] = ("direct", "indirect", "general")

    def __post_init__(self) -> None:
        require(bool(self.neighbours), "sampler_options.neighbours is empty; name direct, indirect or general")


@SAMPLERS.register("cyclic")
class Cyclic(PairSampler):
    """Both sets go round."""

    Options = CyclicOptions
    options: CyclicOptions
    name = "cyclic"

    def make_pairs(self) -> list[Pair]:
        """Pairs in file order.

        Raises:
            DataError: If no retain item is of a wanted kind.
        """
        wanted = self.options.neighbours
        retain = [i for i, item in enumerate(self.pools.retain) if item.neighbour in wanted]
        if not retain:
            raise DataError(
                f"sampler 'cyclic' is to use {' and '.join(wanted)} neighbours, but the retain set has none; "
                "add them with worlds.with_neighbours, or name other kinds in sampler_options.neighbours"
            )
        return around(list(range(len(self.pools.forget))), retain)
