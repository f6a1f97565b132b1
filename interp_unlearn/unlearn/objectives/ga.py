"""Gradient ascent (GA): raise the loss of the target's answers.

``L = -CE(forget)``, CE being the mean over all answer tokens of the batch. No retain term; unbounded below, so it
ends in collapse when pushed: the number of steps is part of the method.

Source: trainer ``GradAscent`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import cross_entropy, forget_items


@dataclass(frozen=True)
class GAOptions:
    """GA has no options of its own."""


@OBJECTIVES.register("ga")
class GradientAscent(Objective):
    """Gradient ascent on ``task.forget_train``."""

    Options = GAOptions

    def prepare(self, ctx: Context) -> Pools:
        """Nothing to cache; the pool is what a recipe may see of the target."""
        self.model = ctx.model
        self.forget = forget_items(ctx)
        return Pools(tuple(q.item for q in self.forget))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """One part: the negated cross-entropy."""
        nll = cross_entropy(self.model, [self.forget[i] for i in draw.forget])
        yield Part("forget", -nll, {"forget_nll": float(nll.detach())})
