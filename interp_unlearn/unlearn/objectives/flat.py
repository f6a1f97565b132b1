"""FLAT: forget with forget data alone, by pulling two answer distributions apart.

Each prompt x of the target has its answer y_f and a template answer y_e (a refusal, say), drawn afresh each time. With
the mean *probability* of an answer's tokens::

    P(x, y) = 1/|y| sum_i p(y_i | x, y_<i)
    L = mean over prompts of  -g*(P(x, y_e)) + f*(g*(P(x, y_f)))

L is minus the variational lower bound of an f-divergence; g* is its optimal variational function, f* its conjugate.
How strongly the template is learned against how strongly the answer is forgotten follows from the divergence, not from
a coefficient. L is bounded, and its gradient fades where P_f is near 0. No retain set and no reference model.

Source: Wang et al. (arXiv 2410.11143). The four divergences of the paper are ``kl``, ``js``, ``pearson`` and ``tv``;
the other four follow the standard table of f-GAN (arXiv 1606.00709).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._alternatives import AlternativeOptions, Alternatives
from interp_unlearn.unlearn.objectives._answers import QA, answer_tokens, questions

Divergence = Literal["kl", "js", "pearson", "tv", "reverse_kl", "jeffrey", "squared_hellinger", "neyman"]
LN2 = math.log(2.0)

VARIATIONAL: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda v: v,
    "js": lambda v: LN2 - softplus(-v),
    "pearson": lambda v: v,
    "tv": lambda v: torch.tanh(v) / 2,
    "reverse_kl": lambda v: -torch.exp(-v),
    "jeffrey": lambda v: v,
    "squared_hellinger": lambda v: 1 - torch.exp(-v),
    "neyman": lambda v: 1 - torch.exp(-v),
}
"""g*(v)."""

CONJUGATE: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda u: torch.exp(u - 1),
    "js": lambda u: -torch.log(2 - torch.exp(u)),
    "pearson": lambda u: u.square() / 4 + u,
    "tv": lambda u: u,
    "reverse_kl": lambda u: -1 - torch.log(-u),
    "jeffrey": lambda u: u + u.square() / 4 + u.pow(3) / 16,  # to third order; exact needs Lambert's W
    "squared_hellinger": lambda u: u / (1 - u),
    "neyman": lambda u: 2 - 2 * torch.sqrt(1 - u),
}
"""f*(u)."""


def template_loss(p_template: Float[Tensor, "*n"], divergence: Divergence) -> Float[Tensor, "*n"]:
    """``-g*(P_e)``: falls as the template answer becomes likely."""
    return -VARIATIONAL[divergence](p_template)


def answer_loss(p_answer: Float[Tensor, "*n"], divergence: Divergence) -> Float[Tensor, "*n"]:
    """``f*(g*(P_f))``: falls as the answer to be forgotten becomes unlikely."""
    return CONJUGATE[divergence](VARIATIONAL[divergence](p_answer))


@dataclass(frozen=True)
class FLATOptions(AlternativeOptions):
    """Options of FLAT, beside those of `AlternativeOptions`.

    Attributes:
        divergence: Which f-divergence is maximised.
        denominator: ``answer``: mean over each answer's own tokens, as the paper says; ``padded``: as the released code
            computes it, over ``padded_length - 1`` positions and over the batch before the divergence is taken, which
            makes P tiny. For comparisons with that code only.
        padded_length: Length that the released code pads to.
    """

    divergence: Divergence = "tv"
    denominator: Literal["answer", "padded"] = "answer"
    padded_length: int = 500

    def __post_init__(self) -> None:
        require(self.padded_length >= 2, f"options.padded_length is {self.padded_length}; use at least 2")


@OBJECTIVES.register("flat")
class FLAT(Objective):
    """Forget-data-only loss adjustment."""

    Options = FLATOptions
    modalities = ("language",)
    options: FLATOptions

    def prepare(self, ctx: Context) -> Pools:
        """Collect template answers; nothing is computed from the original weights."""
        self.model = ctx.model
        self.forget = questions(ctx.task.forget_train.prompts)
        self.templates = Alternatives(ctx, self.forget, self.options)
        return Pools(tuple(q.item for q in self.forget))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """The two sides of the bound; L is their sum, so each is back-propagated on its own."""
        divergence = self.options.divergence
        p_template = self._probability(self.templates.draw(draw))
        loss = template_loss(p_template, divergence).mean()
        yield Part(
            "forget", loss, {"template_loss": float(loss.detach()), "p_template": float(p_template.detach().mean())}
        )
        p_answer = self._probability([self.forget[i] for i in draw.forget])
        loss = answer_loss(p_answer, divergence).mean()
        yield Part("forget", loss, {"answer_loss": float(loss.detach()), "p_answer": float(p_answer.detach().mean())})

    def _probability(self, items: list[QA]) -> Float[Tensor, " n"]:
        """P of each item (one number for the batch with the released code's denominator)."""
        tokens = answer_tokens(self.model, items)
        p = tokens.logprobs().exp()
        if self.options.denominator == "answer":
            return tokens.row_mean(p)
        return (tokens.row_sum(p) / (self.options.padded_length - 1)).mean(0, keepdim=True)
