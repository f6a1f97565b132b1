"""WGA: gradient ascent weighted by how likely each token still is.

``L = gamma * mean over answer tokens of -w nll + alpha * CE(retain)`` with ``w = p^beta``, no gradient through w. What
is already forgotten stops pulling, which plain ascent never does. beta = 0 is gradient ascent.

Source: Wang et al. 2025 (arXiv 2502.19301), trainer ``WGA`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class WGAOptions(RetainOptions):
    """Options of WGA, beside those of `RetainOptions`.

    Attributes:
        beta: Exponent of the token's probability; 0 weighs all tokens alike.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta >= 0, f"options.beta is {self.beta}; use 0 or a positive number")


def wga_loss(logprob: Float[Tensor, " n"], beta: float) -> Float[Tensor, ""]:
    """``mean( p^beta log p )`` over answer tokens, the weight detached."""
    return ((beta * logprob.detach()).exp() * logprob).mean()


@OBJECTIVES.register("wga")
class WGA(ForgetRetain):
    """Weighted gradient ascent."""

    Options = WGAOptions
    options: WGAOptions

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """The weighted, negated loss."""
        logprob = answer_tokens(self.model, self.asked(draw)).logprobs()
        loss = wga_loss(logprob, self.options.beta)
        return loss, {"forget_wga": float(loss.detach()), "forget_nll": -float(logprob.detach().mean())}
