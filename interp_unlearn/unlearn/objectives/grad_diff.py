"""Gradient difference (GradDiff): ascend on the target's answers, descend on retain answers.

``L = -gamma CE(forget) + alpha CE(retain)``; gamma = alpha = 1 as published.

Source: trainer ``GradDiff`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import cross_entropy, questions
from interp_unlearn.unlearn.objectives._retain import RetainNLL, RetainOptions


@dataclass(frozen=True)
class GradDiffOptions(RetainOptions):
    """Options of GradDiff; see `RetainOptions`."""


@OBJECTIVES.register("grad_diff")
class GradDiff(Objective):
    """Gradient difference."""

    Options = GradDiffOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive retain weight."""
        return self.options.alpha > 0

    def prepare(self, ctx: Context) -> Pools:
        """Collect both pools; nothing to cache."""
        self.model = ctx.model
        self.forget = questions(ctx.task.forget_train.prompts)
        self.retain = RetainNLL(ctx, self.options)
        return Pools(tuple(q.item for q in self.forget), self.retain.pool)

    def parts(self, draw: Draw) -> Iterator[Part]:
        """The forget part, then the retain part."""
        if self.options.gamma:
            nll = cross_entropy(self.model, [self.forget[i] for i in draw.forget])
            yield Part("forget", -self.options.gamma * nll, {"forget_nll": float(nll.detach())})
        yield from self.retain.parts(draw)
