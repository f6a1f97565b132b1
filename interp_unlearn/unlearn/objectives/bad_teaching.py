"""Bad Teaching: on the forget items follow a teacher who knows nothing, on the rest the original.

``L = gamma KL(p_bad || p) on forget + alpha KL(p_0 || p) on retain``. The bad teacher is the same network with
freshly drawn weights (its batch-norm statistics too), asked once; or the uniform distribution. Without retained data
(alpha = 0, as in comparisons that allow none) nothing holds the rest.

Source: Chundawat et al. 2023, "Can Bad Teaching Induce Forgetting?" (arXiv 2205.08096).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.hooked import fresh_copy, wrap
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens, kl, reference_logits
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions
from interp_unlearn.worlds import without_deleted


@dataclass(frozen=True)
class BadTeachingOptions(RetainOptions):
    """Options of Bad Teaching, beside those of `RetainOptions`.

    Attributes:
        teacher: ``random``, the network with new weights, or ``uniform``, every class alike.
    """

    retain_loss: Literal["nll", "kl"] = "kl"
    teacher: Literal["random", "uniform"] = "random"


def kl_to(target: Float[Tensor, "n c"], logits: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean ``KL(softmax(target) || softmax(logits))``, in nats."""
    return kl(target.log_softmax(-1), logits.log_softmax(-1))


@OBJECTIVES.register("bad_teaching")
class BadTeaching(ForgetRetain):
    """Two teachers, one of them ignorant; for labelled items."""

    Options = BadTeachingOptions
    modalities = ("graph", "image")
    options: BadTeachingOptions

    def refer(self, ctx: Context) -> None:
        """Ask the bad teacher about every forget item, once.

        Raises:
            ModelError: If a layer cannot be initialised anew; ``teacher = "uniform"`` needs none.
        """
        task = ctx.labelled()
        if self.options.teacher == "uniform":
            self.teacher = torch.zeros(len(self.forget), len(task.classes))
            return
        ignorant = wrap(fresh_copy(ctx.model.module, ctx.seed).eval(), name="bad teacher", language=False)
        with without_deleted(task, ignorant):
            self.teacher = torch.cat(reference_logits(ignorant, self.forget, self.options.reference_gb))

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """Divergence from the bad teacher."""
        tokens = answer_tokens(self.model, self.asked(draw))
        loss = kl_to(self.teacher[list(draw.forget)].to(tokens.logits), tokens.logits)
        return loss, {"forget_kl": float(loss.detach()), "forget_nll": -float(tokens.logprobs().detach().mean())}
