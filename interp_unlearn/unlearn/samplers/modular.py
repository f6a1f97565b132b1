"""Modular pairing (MELU): every forget item meets neighbours of its own target.

For each target t with forget items F_t and direct and indirect neighbours N_t, a module of max(|F_t|, |N_t|) pairs
``(F_t[j mod |F_t|], N_t[j mod |N_t|])``; then each general item once, with one forget item drawn from the pairs made
so far. Stock trainers shuffle the pairs, so at run time only the pairing is modular; ``batches = "entity"`` keeps
modules together as well: each batch holds pairs of one target, or general ones, and whole batches are shuffled.

Source: Bushipaka, Passaro, Cucinotta, arXiv 2509.05316 and its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.unlearn._protocols import SAMPLERS, Draw, Pools
from interp_unlearn.unlearn.samplers._pairs import Pair, PairOptions, PairSampler, around
from interp_unlearn.unlearn.samplers.paired import shuffled


@dataclass(frozen=True)
class ModularOptions(PairOptions):
    """Options of the modular sampler, beside those of `PairOptions`.

    Attributes:
        batches: ``mixed``: pairs of all targets in one batch; ``entity``: each batch from one module.
        general_draw: Forget items beside general ones: from the ``pairs`` made so far, as released (targets with many
            neighbours come more often), or uniformly from the ``items``.
        uncovered: A target without neighbours: ``refuse``, or ``skip`` its forget items, as released.
    """

    batches: Literal["mixed", "entity"] = "mixed"
    general_draw: Literal["pairs", "items"] = "pairs"
    uncovered: Literal["refuse", "skip"] = "refuse"


@SAMPLERS.register("modular")
class Modular(PairSampler):
    """Topical pairs.

    Attributes:
        modules: Ranges of `pairs`, one per target, then one of general pairs.
    """

    Options = ModularOptions
    options: ModularOptions
    name = "modular"

    def prepare(self, pools: Pools, *, batch_size: int, retain_batch_size: int, seed: int) -> None:
        """Make the pairs and, for entity-pure batches, the batches.

        Raises:
            ConfigError: If the two sides of a batch are to differ in size.
            DataError: If a target has no neighbour and ``uncovered`` is ``refuse``, or nothing can be paired.
        """
        self.modules: list[range] = []
        super().prepare(pools, batch_size=batch_size, retain_batch_size=retain_batch_size, seed=seed)
        self.modules = self.modules or [range(len(self.pairs))]
        self.blocks: list[tuple[int, ...]] = []
        if self.options.batches == "entity":
            for module in self.modules:
                for start in range(0, len(module), batch_size):
                    self.blocks.append(tuple(module[(start + i) % len(module)] for i in range(batch_size)))

    def make_pairs(self) -> list[Pair]:
        """Modules in the order of their targets, then general pairs."""
        forget, retain = self.pools.forget, self.pools.retain
        pairs: list[Pair] = []
        uncovered = []
        for target in dict.fromkeys(item.entity for item in forget):
            own = [i for i, item in enumerate(forget) if item.entity == target]
            near = [i for i, item in enumerate(retain) if item.target == target and item.neighbour != "general"]
            if not near:
                uncovered.append(target)
            self._add(pairs, around(own, near))
        if uncovered and (self.options.uncovered == "refuse" or not pairs):
            names = ", ".join(target or "text about no entity" for target in uncovered)
            raise DataError(
                f"sampler 'modular' pairs each target with its neighbours, but {names} has none in the "
                "retain set, so its forget items would never be drawn; add neighbours with worlds.with_neighbours, or "
                "use sampler 'cyclic'"
            )
        rng = numpy_rng(self.options.pair_seed, "modular general")
        column = [f for f, _ in pairs] if self.options.general_draw == "pairs" else list(range(len(forget)))
        general = [i for i, item in enumerate(retain) if item.neighbour == "general"]
        self._add(pairs, [(column[int(rng.integers(len(column)))], g) for g in general])
        return pairs

    def _add(self, pairs: list[Pair], module: list[Pair]) -> None:
        if module:
            self.modules.append(range(len(pairs), len(pairs) + len(module)))
            pairs += module

    @property
    def epoch_length(self) -> int:
        """Number of pairs; with entity-pure batches, of those drawn (a module's last batch is filled from itself)."""
        return sum(len(block) for block in self.blocks) or len(self.pairs)

    def draw(self, step: int) -> Draw:
        """The next pairs, or the next batch of one module."""
        if not self.blocks:
            return super().draw(step)
        place = step % len(self.blocks)
        if self.options.order == "shuffled":
            (place,) = shuffled(self.seed, "modular blocks", step, 1, len(self.blocks))
        return self.of(self.blocks[place])
