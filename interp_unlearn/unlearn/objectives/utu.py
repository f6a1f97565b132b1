"""UtU, unlink to unlearn: messages no longer pass over what is deleted. Nothing is trained.

The weights still are what the deleted edges made them. It costs nothing, so it is the control that every graph method
has to beat.

Source: Tan et al., "Unlink to Unlearn: Simplifying Edge Unlearning in GNNs", WWW 2024 companion, arXiv 2402.10695.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Objective, Pools
from interp_unlearn.unlearn.objectives._answers import choices
from interp_unlearn.unlearn.objectives._graphs import graph_task_of


@dataclass(frozen=True)
class UtUOptions:
    """UtU has no options."""


@OBJECTIVES.register("utu")
class UtU(Objective):
    """The deletion alone, which the task applies to every edited model."""

    Options = UtUOptions
    modalities = ("graph",)
    trains: ClassVar[bool] = False

    def prepare(self, ctx: Context) -> Pools:
        """Only checks that there is a graph."""
        task = graph_task_of(ctx)
        return Pools(tuple(c.item for c in choices(task, task.forget_train)))
