"""UNDIAL: distil from the original model with the logit of the target's token lowered.

With t the original logits, y the answer token and z the live logits::

    q = softmax(t - beta onehot(y))
    L = gamma * mean over answer tokens of CE(softmax(z), q) + alpha * CE(retain)

The goal is fixed and has an end, so training is stable; with the default alpha = 0 no retain data is read. The
released trainer averages over all positions, prompt and padding included, and subtracts beta there from the entry
V - 100; here answer tokens alone count.

Source: Dong et al. 2024 (arXiv 2402.10052), trainer ``UNDIAL`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens, reference_logits
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class UNDIALOptions(RetainOptions):
    """Options of UNDIAL, beside those of `RetainOptions`.

    Attributes:
        beta: How far the answer token's logit is lowered in the goal.
    """

    alpha: float = 0.0
    beta: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta >= 0, f"options.beta is {self.beta}; use 0 or a positive number such as 10")


def undial_loss(
    logits: Float[Tensor, "n vocab"], teacher: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"], beta: float
) -> Float[Tensor, ""]:
    """Mean cross-entropy to ``softmax(teacher - beta onehot(ids))``, in nats per token."""
    lowered = teacher.scatter_add(1, ids[:, None], torch.full_like(teacher[:, :1], -beta))
    return torch.nn.functional.cross_entropy(logits, lowered.softmax(-1))


@OBJECTIVES.register("undial")
class UNDIAL(ForgetRetain):
    """Self-distillation with adjusted logits."""

    Options = UNDIALOptions
    options: UNDIALOptions

    def refer(self, ctx: Context) -> None:
        """Cache the original logits at every answer token."""
        self.teacher = reference_logits(ctx.model, self.forget, self.options.reference_gb)

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """Cross-entropy to the lowered teacher."""
        tokens = answer_tokens(self.model, self.asked(draw))
        teacher = torch.cat([self.teacher[i] for i in draw.forget])
        loss = undial_loss(tokens.logits, teacher, tokens.ids, self.options.beta)
        return loss, {"forget_undial": float(loss.detach()), "forget_nll": -float(tokens.logprobs().detach().mean())}
