"""The retain term shared by output-space baselines, on retain answers and windows of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import Context, Draw, Item, Part
from interp_unlearn.unlearn.objectives._answers import answer_tokens, cross_entropy, kl, reference_logits, retain_items


@dataclass(frozen=True)
class PoolOptions:
    """Weights of the two sides and the make-up of the retain pool.

    Attributes:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term; 0 removes every dependence on retain data (but see PDU, whose weight grows,
            and SCRUB, whose ``beta`` term stays).
        text_windows: Windows of ``task.text_train`` added to the retain questions.
        text_tokens: Longest window, in tokens.
    """

    WEIGHTS: ClassVar[tuple[str, ...]] = ("gamma", "alpha")

    gamma: float = 1.0
    alpha: float = 1.0
    text_windows: int = 0
    text_tokens: int = 32

    def __post_init__(self) -> None:
        require(self.gamma >= 0, f"options.gamma is {self.gamma}; use 0 or a positive weight")
        require(self.alpha >= 0, f"options.alpha is {self.alpha}; use 0 or a positive weight")
        require(
            any(getattr(self, name) > 0 for name in self.WEIGHTS),
            f"{' and '.join(f'options.{name}' for name in self.WEIGHTS)} are all 0, so nothing is trained; give one "
            "of them a weight",
        )
        require(self.text_windows >= 0, f"options.text_windows is {self.text_windows}; use 0 or a number of windows")
        require(self.text_tokens >= 2, f"options.text_tokens is {self.text_tokens}; use at least 2")


@dataclass(frozen=True)
class RetainOptions(PoolOptions):
    """How retain answers are held, beside the options of `PoolOptions`.

    Attributes:
        retain_loss: ``nll``: cross-entropy of the retain answers; ``kl``: divergence from the original model's
            distribution at the retain answers' tokens, ``KL(p_0 || p)``.
        reference_gb: Largest size of the cached reference distributions of a side; the run is refused beyond it.
    """

    retain_loss: Literal["nll", "kl"] = "nll"
    reference_gb: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reference_gb > 0, f"options.reference_gb is {self.reference_gb}; use a positive number such as 4")


class Retain:
    """``alpha * CE(retain)`` or ``alpha * KL(p_0 || p)`` over drawn retain items; references are computed once."""

    def __init__(self, ctx: Context, options: RetainOptions) -> None:
        self.model = ctx.model
        self.alpha = options.alpha
        windows, tokens = options.text_windows, options.text_tokens
        self.items = retain_items(ctx.model, ctx.any_task, windows, tokens) if options.alpha else []
        self.references = None
        if options.retain_loss == "kl":
            found = reference_logits(ctx.model, self.items, options.reference_gb)
            self.references = [logits.log_softmax(-1) for logits in found]

    @property
    def pool(self) -> tuple[Item, ...]:
        """Labels of the retain items."""
        return tuple(q.item for q in self.items)

    def parts(self, draw: Draw) -> Iterator[Part]:
        """The weighted term, or nothing when its weight is 0."""
        if not self.alpha or not draw.retain:
            return
        items = [self.items[i] for i in draw.retain]
        if self.references is None:
            loss, term = cross_entropy(self.model, items), "retain_nll"
        else:
            before = torch.cat([self.references[i] for i in draw.retain])
            now = answer_tokens(self.model, items).logits.log_softmax(-1)
            loss, term = kl(before, now), "retain_kl"
        yield Part("retain", self.alpha * loss, {term: float(loss.detach())})
