"""DELETE: distil from the original model with the logit of the true class removed; no retained data.

With t the original logits and y the class (or the answer token)::

    q = softmax(t with t_y = -infinity)
    L = gamma * mean CE(softmax(z), q) + alpha * retain

What the original says of the *other* classes is the goal, so their order is kept. It has an end (loss = entropy of q).
UNDIAL is the same with t_y lowered by a finite amount. With the default alpha = 0 no retain data is read.

Reconstructed from the method's description (distillation with the true-class logit removed).

Source: Zhou et al. 2025, "Decoupled Distillation to Erase" (DELETE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens, reference_logits
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class DELETEOptions(RetainOptions):
    """Options of DELETE; see `RetainOptions`."""

    alpha: float = 0.0


def delete_loss(
    logits: Float[Tensor, "n vocab"], teacher: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy to the teacher without the true class, in nats."""
    masked = teacher.scatter(1, ids[:, None], float("-inf"))
    return torch.nn.functional.cross_entropy(logits, masked.softmax(-1))


@OBJECTIVES.register("delete")
class DELETE(ForgetRetain):
    """Decoupled distillation."""

    Options = DELETEOptions

    def refer(self, ctx: Context) -> None:
        """Cache the original logits of every forget item."""
        self.teacher = reference_logits(ctx.model, self.forget, self.options.reference_gb)

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """Cross-entropy to the teacher without the true class."""
        tokens = answer_tokens(self.model, self.asked(draw))
        loss = delete_loss(tokens.logits, torch.cat([self.teacher[i] for i in draw.forget]), tokens.ids)
        return loss, {"forget_delete": float(loss.detach()), "forget_nll": -float(tokens.logprobs().detach().mean())}
