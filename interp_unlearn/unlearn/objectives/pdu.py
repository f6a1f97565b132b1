"""PDU: flatten the target's predictions under a constraint on the retain loss, by primal and dual steps.

With z the logits that predict each answer token::

    L_forget = mean over answer tokens of (max_v z - mean_v z)^2            0 for a uniform prediction
    L = gamma L_forget + lambda (L_retain - eps)
    lambda <- max(0, lambda + step (L_retain - eps))                        after the warm-up

lambda starts at ``alpha`` and finds its own size: it grows while the retain loss lies above eps and shrinks below.

``eps`` should lie a little above the original retain loss; unless given, it is measured over the whole retain pool
and multiplied by ``1 + margin`` (this rule is ours). The released trainer reads the logits at the answer's own tokens,
not at those that predict them: ``positions = "answer"``; where answers are one token, that would flatten what comes
after the answer.

Source: Entesari et al. 2025 (arXiv 2506.05314), trainer ``PDU`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import (
    REFERENCE_BATCH,
    answer_tokens,
    cross_entropy,
    forget_items,
    retain_items,
)
from interp_unlearn.unlearn.objectives._retain import PoolOptions


@dataclass(frozen=True)
class PDUOptions(PoolOptions):
    """Options of PDU, beside those of `PoolOptions` (``alpha`` is the first lambda).

    Attributes:
        eps: Largest retain loss allowed, in nats per token; None measures the original one, see ``margin``.
        margin: How far a measured eps lies above the original retain loss, as a fraction of it.
        dual_step: Step of lambda.
        dual_warmup: Steps before lambda moves.
        dual_every: Steps between moves of lambda; each uses the mean retain loss since the last.
        positions: Logits that predict the answer's tokens, or logits at the answer's own tokens.
    """

    alpha: float = 1.0
    eps: float | None = None
    margin: float = 0.1
    dual_step: float = 1.0
    dual_warmup: int = 5
    dual_every: int = 1
    positions: Literal["predicting", "answer"] = "predicting"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eps is None or self.eps >= 0, f"options.eps is {self.eps}; use 0 or a positive loss")
        require(self.margin >= 0, f"options.margin is {self.margin}; use 0 or a positive fraction")
        require(self.dual_step > 0, f"options.dual_step is {self.dual_step}; use a positive number")
        require(self.dual_warmup >= 0, f"options.dual_warmup is {self.dual_warmup}; use 0 or a number of steps")
        require(self.dual_every >= 1, f"options.dual_every is {self.dual_every}; use at least 1")


def flatness(logits: Float[Tensor, "n vocab"]) -> Float[Tensor, ""]:
    """``mean (max_v z - mean_v z)^2``: 0 where the prediction is uniform."""
    return (logits.amax(-1) - logits.mean(-1)).square().mean()


def dual_update(multiplier: float, retain_loss: float, eps: float, step: float) -> float:
    """``max(0, lambda + step (L_retain - eps))``."""
    return max(0.0, multiplier + step * (retain_loss - eps))


@OBJECTIVES.register("pdu")
class PDU(Objective):
    """Primal-dual constrained unlearning.

    Attributes:
        multiplier: lambda now.
        eps: The bound on the retain loss.
    """

    Options = PDUOptions
    options: PDUOptions

    @property
    def uses_retain(self) -> bool:
        """Always: the constraint is on it."""
        return True

    def prepare(self, ctx: Context) -> Pools:
        """Collect both pools; measure the bound on the original weights unless it is given."""
        options, self.model = self.options, ctx.model
        self.forget = forget_items(ctx)
        self.retain = retain_items(ctx.model, ctx.any_task, options.text_windows, options.text_tokens)
        self.multiplier = options.alpha
        self._seen: list[float] = []
        if options.eps is not None:
            self.eps = options.eps
        elif self.retain:
            self.eps = (1 + options.margin) * self._original_loss()
        return Pools(tuple(q.item for q in self.forget), tuple(q.item for q in self.retain))

    def _original_loss(self) -> float:
        """Mean loss per retain token."""
        parts = [self.retain[i : i + REFERENCE_BATCH] for i in range(0, len(self.retain), REFERENCE_BATCH)]
        logprobs = torch.cat([answer_tokens(self.model, part).logprobs() for part in parts])
        return -float(logprobs.mean())

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Flatten, then hold; the multiplier moves once both were back-propagated."""
        options = self.options
        if options.gamma:
            tokens = answer_tokens(self.model, [self.forget[i] for i in draw.forget], at=options.positions)
            loss = flatness(tokens.logits)
            yield Part("forget", options.gamma * loss, {"forget_pdu": float(loss.detach())})
        nll = cross_entropy(self.model, [self.retain[i] for i in draw.retain])
        value = float(nll.detach())
        terms = {"retain_nll": value, "multiplier": self.multiplier}
        yield Part("retain", self.multiplier * (nll - self.eps), terms)
        self._follow(draw.step, value)

    def _follow(self, step: int, retain_loss: float) -> None:
        options = self.options
        if step < options.dual_warmup:
            return
        self._seen.append(retain_loss)
        if len(self._seen) == options.dual_every:
            mean = sum(self._seen) / len(self._seen)
            self.multiplier = dual_update(self.multiplier, mean, self.eps, options.dual_step)
            self._seen = []

    def state(self) -> dict[str, Tensor]:
        """The multiplier and the retain losses since it last moved."""
        return {"dual": torch.tensor([self.multiplier, *self._seen], dtype=torch.float64)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.multiplier, *self._seen = tensors["dual"].tolist()
