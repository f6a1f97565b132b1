"""CE-U: cross-entropy to the model's own distribution with the target's token struck out.

``q = softmax(z with z_y = -inf)``, detached; ``L = mean over answer tokens of CE(softmax(z), q)``. The gradient on the
logits is ``p - q``: +p_y on the token, which is pushed down, and -p_j p_y / (1 - p_y) on the others. It is bounded and
vanishes as p_y goes to 0. No retain data, no reference.

The first ``skip_first`` tokens of each answer are left out, as published (one). Where an answer has no more tokens than
that, nothing would be left of it, so ``keep_last`` counts its last token.

Source: Yang 2025 (arXiv 2503.01224), trainer ``CEU`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import AnswerTokens, answer_tokens, encode, questions


@dataclass(frozen=True)
class CEUOptions:
    """Options of CE-U.

    Attributes:
        skip_first: Tokens at the beginning of each answer that do not count.
        keep_last: Count the last token of an answer that is not longer than that.
    """

    skip_first: int = 1
    keep_last: bool = True

    def __post_init__(self) -> None:
        require(self.skip_first >= 0, f"options.skip_first is {self.skip_first}; use 0 or a number of tokens")


def ceu_loss(logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy to the detached distribution without ``ids``, in nats per token."""
    goal = logits.detach().scatter(1, ids[:, None], -torch.inf).softmax(-1)
    return torch.nn.functional.cross_entropy(logits, goal)


@OBJECTIVES.register("ceu")
class CEU(Objective):
    """Cross-entropy unlearning."""

    Options = CEUOptions
    modalities = ("language",)
    options: CEUOptions

    def prepare(self, ctx: Context) -> Pools:
        """Keep the questions of which some token counts; nothing is computed from the original weights."""
        self.model = ctx.model
        asked = questions(ctx.task.forget_train.prompts)
        least = 1 if self.options.keep_last else self.options.skip_first + 1
        lengths = encode(ctx.model, asked).answer.sum(1).tolist() if asked else []
        self.forget = [q for q, n in zip(asked, lengths, strict=True) if n >= least]
        if asked and not self.forget:
            raise DataError(
                f"no answer about the target is longer than {self.options.skip_first} tokens, so CE-U has nothing to "
                "count; lower options.skip_first, or set options.keep_last"
            )
        return Pools(tuple(q.item for q in self.forget))

    def counted(self, tokens: AnswerTokens) -> Bool[Tensor, " n"]:
        """Which answer tokens count."""
        lengths = torch.bincount(tokens.rows, minlength=tokens.n_rows)
        firsts = lengths.cumsum(0) - lengths
        place = torch.arange(len(tokens.rows), device=tokens.rows.device) - firsts[tokens.rows]
        counts = place >= self.options.skip_first
        return counts | (place == lengths[tokens.rows] - 1) if self.options.keep_last else counts

    def parts(self, draw: Draw) -> Iterator[Part]:
        """One part: away from the target's tokens, toward what else the model would say."""
        tokens = answer_tokens(self.model, [self.forget[i] for i in draw.forget])
        counted = self.counted(tokens)
        loss = ceu_loss(tokens.logits[counted], tokens.ids[counted])
        terms = {"forget_ceu": float(loss.detach()), "forget_nll": -float(tokens.logprobs().detach().mean())}
        yield Part("forget", loss, terms)
