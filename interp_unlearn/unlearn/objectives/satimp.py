"""SatImp: gradient ascent weighted by saturation and importance of each token.

``L = gamma * mean over answer tokens of -w nll + alpha * CE(retain)`` with ``w = p^beta1 (1 - p)^beta2``, no gradient
through w. The first factor lets go of what is forgotten, the second spares what is almost certain; with the defaults
the weight peaks at p = 5/6.

Defaults are those of the trainer's configuration file (gamma 0.1, alpha 1); the class of the same release and its
guide say gamma 1, alpha 0.1, and that the authors tuned for another measure than forget quality and utility.

Source: Yang et al. 2025 (arXiv 2505.11953), trainer ``SatImp`` of open-unlearning.
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
class SatImpOptions(RetainOptions):
    """Options of SatImp, beside those of `RetainOptions`.

    Attributes:
        beta1: Exponent of p.
        beta2: Exponent of 1 - p.
    """

    gamma: float = 0.1
    beta1: float = 5.0
    beta2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(value >= 0, f"options.{name} is {value}; use 0 or a positive number")


def satimp_weight(p: Float[Tensor, " n"], beta1: float, beta2: float) -> Float[Tensor, " n"]:
    """``p^beta1 (1 - p)^beta2``."""
    return p.pow(beta1) * (1 - p).clamp(min=0).pow(beta2)


@OBJECTIVES.register("satimp")
class SatImp(ForgetRetain):
    """Saturation- and importance-weighted gradient ascent."""

    Options = SatImpOptions
    options: SatImpOptions

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """The weighted, negated loss."""
        logprob = answer_tokens(self.model, self.asked(draw)).logprobs()
        weight = satimp_weight(logprob.detach().exp(), self.options.beta1, self.options.beta2)
        loss = (weight * logprob).mean()
        return loss, {"forget_satimp": float(loss.detach()), "forget_nll": -float(logprob.detach().mean())}
