"""RMU: steer the target's activations at one layer to a random vector, hold all others.

With H the output of block l, u a fixed random vector (entries uniform in [0, 1), scaled to length c), M the counted
tokens::

    L = gamma mean_sequences mean_{M, d} (H - u)^2  +  alpha mean_sequences mean_{M, d} (H - H_0)^2

``tokens = "answer"`` counts the answer's own tokens, as the trainer of open-unlearning does. Where answers are one
word, that steers positions *after* the prediction was made, so ``"inner"`` (every token but the first, question
included) is the default; the original work, on plain text, counts all tokens. The forward pass ends at block l; H_0
of every retain item is cached.

Source: Li et al. 2024 (arXiv 2403.03218), trainer ``RMU`` of open-unlearning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import ConfigError, generator
from interp_unlearn.hooked import AnswerBatch, tap
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._prefix import Prefix
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import QA, encode, questions, retain_questions
from interp_unlearn.unlearn.objectives._retain import PoolOptions


@dataclass(frozen=True)
class RMUOptions(PoolOptions):
    """Options of RMU, beside those of `PoolOptions`.

    Attributes:
        layer: Block whose output is steered; None means the middle one.
        coefficient: Length c of the random vector.
        scale: ``absolute``, or ``norm``: c counts in median norms of the forget activations, so that one value fits
            all models.
        tokens: Which tokens count: the answer's own, or all but the first.
    """

    layer: int | None = None
    coefficient: float = 2.0
    scale: Literal["absolute", "norm"] = "absolute"
    tokens: Literal["inner", "answer"] = "inner"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.layer is None or self.layer >= 0, f"options.layer is {self.layer}; layers count from 0")
        require(self.coefficient > 0, f"options.coefficient is {self.coefficient}; use a positive number")


def masked_mse(
    h: Float[Tensor, "batch pos d"], goal: Float[Tensor, ...], mask: Float[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean over sequences of the mean over masked tokens and dimensions of ``(h - goal)^2``."""
    squared = (h - goal).square().mean(-1) * mask
    return (squared.sum(1) / mask.sum(1).clamp(min=1)).mean()


@OBJECTIVES.register("rmu")
class RMU(Objective):
    """Representation misdirection."""

    Options = RMUOptions
    modalities = ("language",)
    options: RMUOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive retain weight."""
        return self.options.alpha > 0

    def prepare(self, ctx: Context) -> Pools:
        """Draw the random vector; cache the original activations of every retain item."""
        options, model = self.options, ctx.model
        layer = model.lm.n_layers // 2 if options.layer is None else options.layer
        if layer >= model.lm.n_layers:
            raise ConfigError(f"options.layer is {layer}, but {model.name} has blocks 0…{model.lm.n_layers - 1}")
        self.model, self.site = model, f"blocks.{layer}.hook_resid_post"
        self.forget = questions(ctx.task.forget_train.prompts)
        windows, tokens = options.text_windows, options.text_tokens
        self.retain = retain_questions(model, ctx.task, windows, tokens) if options.alpha else []
        if not self.forget:
            return Pools(())
        self.prefix = Prefix(model, ctx.trained, [self.site])
        self.prefix.learn(encode(model, self.forget[:1]).batch)
        self.starts = {id(q): self._start(q) for q in (*self.forget, *self.retain)} if self.prefix.site else {}
        self.references = [self._hidden([q])[0][0].detach() for q in self.retain]
        direction = torch.rand(model.lm.d_model, generator=generator(ctx.seed, "rmu"))
        length = options.coefficient * (self._median_norm() if options.scale == "norm" else 1.0)
        self.goal = (direction / direction.norm() * length).to(model.device)
        return Pools(tuple(q.item for q in self.forget), tuple(q.item for q in self.retain))

    def _hidden(self, items: Sequence[QA]) -> tuple[Float[Tensor, "batch pos d"], Float[Tensor, "batch pos"]]:
        """Activations at the site and the 0/1 mask of counted tokens."""
        encoded: AnswerBatch = encode(self.model, items)
        mask = encoded.answer if self.options.tokens == "answer" else encoded.batch.mask("inner")
        starts = [self.starts[id(q)] for q in items] if self.starts else []
        return self.prefix.hidden(encoded.batch, [self.site], starts)[self.site], mask.float()

    def _start(self, item: QA) -> Float[Tensor, "pos d"]:
        """What enters the first trained block."""
        assert self.prefix.site is not None
        with tap(self.model.sites, [self.prefix.site]) as taps:
            taps.run(lambda: self.model.forward(encode(self.model, [item]).batch))
            return taps[self.prefix.site][0].detach().clone()

    def _median_norm(self) -> float:
        norms = [h[mask.bool()].norm(dim=-1) for h, mask in (self._hidden([q]) for q in self.forget)]
        return float(torch.cat(norms).median())

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Steer, then hold; neither runs above the layer."""
        options = self.options
        if options.gamma:
            h, mask = self._hidden([self.forget[i] for i in draw.forget])
            loss = masked_mse(h, self.goal, mask)
            yield Part("forget", options.gamma * loss, {"forget_rmu": float(loss.detach())})
        if options.alpha and draw.retain:
            h, mask = self._hidden([self.retain[i] for i in draw.retain])
            before = torch.zeros_like(h)
            for row, i in enumerate(draw.retain):
                before[row, : len(self.references[i])] = self.references[i]
            loss = masked_mse(h, before, mask)
            yield Part("retain", options.alpha * loss, {"retain_rmu": float(loss.detach())})
