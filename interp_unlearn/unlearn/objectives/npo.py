"""Negative preference optimisation (NPO): push the target's answers below the original model, with a force that fades.

With ``r = log p(y|x) - log p_ref(y|x)``, summed over the answer's tokens::

    L = gamma * mean( -(2/beta) log sigmoid(-beta r) ) + alpha * CE(retain)

At the start r = 0, so the forget term is ``(2/beta) ln 2`` and its gradient equals gradient ascent on the summed
log-probability (``dL/d log p = 2 sigmoid(beta r)``); it goes to 0 as r falls. The reference log-probabilities are
one number per question, computed once: no reference model is kept.

Source: Zhang et al. 2024 (arXiv 2404.05868), trainer ``NPO`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._answers import reference_logprobs, summed_logprobs
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class NPOOptions(RetainOptions):
    """Options of NPO, beside those of `RetainOptions`.

    Attributes:
        beta: Inverse temperature; the smaller, the longer the push lasts.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"options.beta is {self.beta}; use a positive number such as 0.1")


def npo_loss(log_ratio: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """``-(2/beta) mean log sigmoid(-beta r)`` for log-ratios r against the reference, in nats."""
    return -(2.0 / beta) * logsigmoid(-beta * log_ratio).mean()


@OBJECTIVES.register("npo")
class NPO(ForgetRetain):
    """Negative preference optimisation with a retain term."""

    Options = NPOOptions
    options: NPOOptions

    def refer(self, ctx: Context) -> None:
        """Cache the original model's log-probability of every forget answer."""
        self.reference = reference_logprobs(ctx.model, self.forget)

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """``-(2/beta) mean log sigmoid(-beta r)``."""
        ratio = summed_logprobs(self.model, self.asked(draw)) - self.reference[list(draw.forget)]
        loss = npo_loss(ratio, self.options.beta)
        return loss, {"forget_npo": float(loss.detach()), "log_ratio": float(ratio.detach().mean())}
