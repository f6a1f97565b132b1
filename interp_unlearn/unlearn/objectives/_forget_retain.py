"""The frame that output-space baselines share: ``L = gamma L_forget + alpha L_retain``.

The file of a method says ``L_forget`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from interp_unlearn.unlearn._protocols import Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import Asked, forget_items
from interp_unlearn.unlearn.objectives._retain import Retain, RetainOptions


class ForgetRetain(Objective):
    """A forget term on ``task.forget_train`` beside the shared retain term.

    Attributes:
        model: The opened model.
        forget: The questions about the target, or its labelled items.
        retain: The retain term.
    """

    Options = RetainOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive retain weight."""
        return self.options.alpha > 0

    def prepare(self, ctx: Context) -> Pools:
        """Collect both pools; compute references from the original weights."""
        self.model = ctx.model
        self.forget: list[Asked] = forget_items(ctx)
        if self.forget:
            self.refer(ctx)
        self.retain = Retain(ctx, self.options)
        return Pools(tuple(q.item for q in self.forget), self.retain.pool)

    def refer(self, ctx: Context) -> None:
        """Compute what the forget term needs of the original weights, once."""

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """The unweighted forget term at ``draw.forget``, with graph, and values for the log."""
        raise NotImplementedError

    def asked(self, draw: Draw) -> list[Asked]:
        """The drawn questions about the target."""
        return [self.forget[i] for i in draw.forget]

    def parts(self, draw: Draw) -> Iterator[Part]:
        """The forget part, then the retain part."""
        if self.options.gamma:
            loss, terms = self.forget_loss(draw)
            yield Part("forget", self.options.gamma * loss, terms)
        yield from self.retain.parts(draw)
