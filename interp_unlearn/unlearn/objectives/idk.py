"""IDK (preference optimisation in TOFU's sense): train on another answer, usually "I do not know".

``L = gamma CE(x, y_idk) + alpha CE(retain)``, a fresh y_idk each step. The target's own answer is never pushed away.

Source: Maini et al. 2024 (TOFU, arXiv 2401.06121).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._alternatives import AlternativeOptions, Alternatives
from interp_unlearn.unlearn.objectives._answers import cross_entropy, questions
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class IDKOptions(AlternativeOptions, RetainOptions):
    """Options of IDK; see `RetainOptions` and `AlternativeOptions`."""


@OBJECTIVES.register("idk")
class IDK(ForgetRetain):
    """Supervised training on other answers."""

    Options = IDKOptions
    modalities = ("language",)
    options: IDKOptions

    def refer(self, ctx: Context) -> None:
        """Collect the other answers; nothing is computed from the original weights."""
        self.other = Alternatives(ctx, questions(ctx.task.forget_train.prompts), self.options)

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """Cross-entropy of the other answers."""
        nll = cross_entropy(self.model, self.other.draw(draw))
        return nll, {"other_nll": float(nll.detach())}
