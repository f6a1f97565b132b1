"""DPO for unlearning (IDK-DPO): prefer "I do not know" to the target's answer.

With log-ratios against the original model, summed over tokens, of another answer (win) and of the target's (lose)::

    r = log p(y|x) - log p_0(y|x)
    L = gamma * mean( -(2/beta) log sigmoid(beta (r_win - r_lose)) ) + alpha * CE(retain)

The reference log-probabilities of every question with its answer, and with each of the other answers that it may be
shown, are computed once; both answers of a step share one forward pass.

Source: Rafailov et al. 2023 (arXiv 2305.18290); for unlearning Maini et al. 2024 (TOFU, arXiv 2401.06121) and Zhang et
al. 2024 (arXiv 2404.05868), trainer ``DPO`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._alternatives import AlternativeOptions, Alternatives
from interp_unlearn.unlearn.objectives._answers import QA, questions, reference_logprobs, summed_logprobs
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class DPOOptions(AlternativeOptions, RetainOptions):
    """Options of DPO, beside those of `RetainOptions` and `AlternativeOptions`.

    Attributes:
        beta: Inverse temperature; the smaller, the longer the push lasts.
        per_question: Other answers that each question may be shown, chosen by seed; a reference is cached for each.
    """

    beta: float = 0.1
    per_question: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"options.beta is {self.beta}; use a positive number such as 0.1")
        require(self.per_question >= 1, f"options.per_question is {self.per_question}; use at least 1")


def dpo_loss(win_ratio: Float[Tensor, " batch"], lose_ratio: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """``-(2/beta) mean log sigmoid(beta (r_win - r_lose))`` for log-ratios against the reference, in nats."""
    return -(2.0 / beta) * logsigmoid(beta * (win_ratio - lose_ratio)).mean()


@OBJECTIVES.register("dpo")
class DPO(ForgetRetain):
    """Direct preference optimisation with another answer as the preferred one."""

    Options = DPOOptions
    modalities = ("language",)
    options: DPOOptions

    def refer(self, ctx: Context) -> None:
        """Cache the original log-probability of every answer that can be drawn."""
        asked = questions(ctx.task.forget_train.prompts)
        self.other = Alternatives(ctx, asked, self.options, self.options.per_question)
        pairs = [(i, k) for i, answers in enumerate(self.other.choices) for k in range(len(answers))]
        wins = [QA(asked[i].prompt, self.other.choices[i][k], asked[i].item) for i, k in pairs]
        scores = reference_logprobs(ctx.model, [*asked, *wins])
        self.lose_reference = scores[: len(asked)]
        self.win_reference = dict(zip(pairs, scores[len(asked) :], strict=True))

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """``-(2/beta) mean log sigmoid(beta (r_win - r_lose))``."""
        chosen = self.other.indices(draw)
        wins, loses = self.other.pick(draw, chosen), self.asked(draw)
        now = summed_logprobs(self.model, [*wins, *loses])
        before = torch.stack([self.win_reference[pair] for pair in zip(draw.forget, chosen, strict=True)])
        win, lose = now[: len(wins)] - before, now[len(wins) :] - self.lose_reference[list(draw.forget)]
        loss = dpo_loss(win, lose, self.options.beta)
        terms = {"win_ratio": float(win.detach().mean()), "lose_ratio": float(lose.detach().mean())}
        return loss, {"forget_dpo": float(loss.detach()), **terms}
