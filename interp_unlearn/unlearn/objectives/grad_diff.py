"""Gradient difference (GradDiff): ascend on the target's answers, descend on retain answers.

``L = -gamma CE(forget) + alpha CE(retain)``; gamma = alpha = 1 as published.

Source: trainer ``GradDiff`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from interp_unlearn.unlearn._protocols import OBJECTIVES, Draw
from interp_unlearn.unlearn.objectives._answers import cross_entropy
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class GradDiffOptions(RetainOptions):
    """Options of GradDiff; see `RetainOptions`."""


@OBJECTIVES.register("grad_diff")
class GradDiff(ForgetRetain):
    """Gradient difference."""

    Options = GradDiffOptions

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """The negated cross-entropy."""
        nll = cross_entropy(self.model, self.asked(draw))
        return -nll, {"forget_nll": float(nll.detach())}
