"""SimNPO: NPO without a reference, with the length-normalised loss of the answer in its place.

With ``s = nll(y|x) / |y| - delta``::

    L = gamma * mean( -(2/beta) log sigmoid(beta s) ) + alpha * CE(retain)

Unlike in NPO, long answers weigh no more than short ones, and an answer that was never likely is left alone. The pull
fades once s is large.

Source: Fan et al. 2024 (arXiv 2410.07163), trainer ``SimNPO`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class SimNPOOptions(RetainOptions):
    """Options of SimNPO, beside those of `RetainOptions`.

    Attributes:
        beta: Inverse temperature.
        delta: Loss per token that counts as forgotten half-way (a margin, in nats).
    """

    gamma: float = 0.125
    beta: float = 4.5
    delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"options.beta is {self.beta}; use a positive number such as 4.5")


def simnpo_loss(nll_per_token: Float[Tensor, " batch"], beta: float, delta: float) -> Float[Tensor, ""]:
    """``-(2/beta) mean log sigmoid(beta (nll/|y| - delta))``, the loss per token in nats."""
    return -(2.0 / beta) * logsigmoid(beta * (nll_per_token - delta)).mean()


@OBJECTIVES.register("simnpo")
class SimNPO(ForgetRetain):
    """Simple negative preference optimisation."""

    Options = SimNPOOptions
    options: SimNPOOptions

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """``-(2/beta) mean log sigmoid(beta s)``."""
        tokens = answer_tokens(self.model, self.asked(draw))
        nll = -tokens.row_mean(tokens.logprobs())
        loss = simnpo_loss(nll, self.options.beta, self.options.delta)
        return loss, {"forget_simnpo": float(loss.detach()), "forget_nll": float(nll.detach().mean())}
