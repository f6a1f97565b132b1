"""1:1 sequential pairing: item i of the forget set with item i of the retain set, in file order.

As in MELU's comparison (Bushipaka et al., arXiv 2509.05316), an epoch is as long as the forget set, so only as many
retain items as there are forget items are ever used, unless ``whole_retain`` lets the retain side go on through all
of its items.
"""

from __future__ import annotations

from dataclasses import dataclass

from interp_unlearn.unlearn._protocols import SAMPLERS, Draw, Sampler


@dataclass(frozen=True)
class SequentialOptions:
    """Options of the sequential sampler.

    Attributes:
        whole_retain: Go through all retain items rather than the first |forget| ones.
    """

    whole_retain: bool = False


@SAMPLERS.register("sequential")
class Sequential(Sampler):
    """Pairs in order."""

    Options = SequentialOptions

    def draw(self, step: int) -> Draw:
        """The next items of both sides, wrapping around."""
        n, m = len(self.pools.forget), len(self.pools.retain)
        size = min(self.batch_size, n)
        forget = tuple(p % n for p in range(step * size, (step + 1) * size))
        if not m:
            return Draw(forget)
        used = m if self.options.whole_retain else min(n, m)
        width = min(self.retain_batch_size, used)
        return Draw(forget, tuple(p % used for p in range(step * width, (step + 1) * width)))
