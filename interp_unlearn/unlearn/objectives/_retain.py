"""The retain term shared by output-space baselines: next-token loss on retain answers and windows of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import Context, Draw, Item, Part
from interp_unlearn.unlearn.objectives._answers import cross_entropy, retain_items


@dataclass(frozen=True)
class RetainOptions:
    """Weights of the two sides and the make-up of the retain pool.

    Attributes:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term; 0 removes every dependence on retain data.
        text_windows: Windows of ``task.text_train`` added to the retain questions.
        text_tokens: Longest window, in tokens.
    """

    gamma: float = 1.0
    alpha: float = 1.0
    text_windows: int = 0
    text_tokens: int = 32

    def __post_init__(self) -> None:
        require(self.gamma >= 0, f"options.gamma is {self.gamma}; use 0 or a positive weight")
        require(self.alpha >= 0, f"options.alpha is {self.alpha}; use 0 or a positive weight")
        require(self.text_windows >= 0, f"options.text_windows is {self.text_windows}; use 0 or a number of windows")
        require(self.text_tokens >= 2, f"options.text_tokens is {self.text_tokens}; use at least 2")


class RetainNLL:
    """``alpha * CE(retain)`` over drawn retain items."""

    def __init__(self, ctx: Context, options: RetainOptions) -> None:
        self.model = ctx.model
        self.alpha = options.alpha
        windows, tokens = options.text_windows, options.text_tokens
        self.items = retain_items(ctx.model, ctx.task, windows, tokens) if options.alpha else []

    @property
    def pool(self) -> tuple[Item, ...]:
        """Labels of the retain items."""
        return tuple(q.item for q in self.items)

    def parts(self, draw: Draw) -> Iterator[Part]:
        """The weighted term, or nothing when its weight is 0."""
        if self.alpha and draw.retain:
            nll = cross_entropy(self.model, [self.items[i] for i in draw.retain])
            yield Part("retain", self.alpha * nll, {"retain_nll": float(nll.detach())})
