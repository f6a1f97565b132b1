"""How much each SAE latent is used on texts about the target and on texts to retain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import HookedModel, tap
from interp_unlearn.latents import firing_share
from interp_unlearn.unlearn._protocols import Context
from interp_unlearn.unlearn.objectives._reads import CHUNK, Read, encode_texts, padded
from interp_unlearn.unlearn.objectives._spaces import check_sae
from interp_unlearn.worlds._types import Task

WHOLE = 10**6  # tokens: texts made from questions and mentions are not cut


@dataclass(frozen=True)
class LatentUse:
    """Sums over counted tokens (no padding, no special token, not the first token), each (m,).

    Attributes:
        tokens: Number of tokens.
        fires: Tokens at which each latent fires.
        total: Sum of its activations.
        squares: Sum of its squared activations.
    """

    tokens: int
    fires: Float[Tensor, " m"]
    total: Float[Tensor, " m"]
    squares: Float[Tensor, " m"]

    @property
    def rate(self) -> Float[Tensor, " m"]:
        """Share of tokens at which each latent fires."""
        return self.fires / max(self.tokens, 1)

    @property
    def mean_square(self) -> Float[Tensor, " m"]:
        """Mean squared activation per token."""
        return self.squares / max(self.tokens, 1)

    @property
    def mean_active(self) -> Float[Tensor, " m"]:
        """Mean activation over the tokens where a latent fires (0 where it never does)."""
        return self.total / self.fires.clamp(min=1)


def the_sae(ctx: Context, objective: str) -> Any:
    """The one SAE that a clamp works with.

    Raises:
        ConfigError: If none or several were given, or it does not fit.
    """
    if len(ctx.saes) != 1:
        what = "needs an SAE: give sae=…; load one with load_sae" if not ctx.saes else "takes one SAE, not several"
        raise ConfigError(f"objective {objective!r} {what}")
    sae = next(iter(ctx.saes.values()))
    check_sae(ctx.model, sae)
    return sae


def forget_reads(model: HookedModel, task: Task) -> list[Read]:
    """Texts about the target: training questions with their answers, and training mentions."""
    texts = [p.full for p in task.forget_train.prompts]
    texts += [m.text for m in task.mentions(task.target_entities, "train")] if task.forget_train.prompts else []
    return encode_texts(model, texts, WHOLE)


def retain_reads(model: HookedModel, task: Task, windows: int, tokens: int) -> list[Read]:
    """The same for known reference entities, then windows of general text."""
    texts = [p.full for p in task.retain_train.prompts]
    texts += [m.text for m in task.mentions(task.known_ref, "train")]
    return [*encode_texts(model, texts, WHOLE), *encode_texts(model, task.text_train[:windows], tokens)]


def _latents(
    model: HookedModel, sae: Any, reads: Sequence[Read]
) -> Iterator[tuple[list[int], Float[Tensor, "batch pos m"], Bool[Tensor, "batch pos"]]]:
    """Indices of reads, their latents and which tokens count, chunk by chunk, short reads first."""
    order = sorted(range(len(reads)), key=lambda i: len(reads[i].ids))
    for start in range(0, len(order), CHUNK):
        index = order[start : start + CHUNK]
        batch = padded(model, [reads[i] for i in index])
        with torch.no_grad(), tap(model.sites, [sae.site]) as taps:
            taps.run(lambda batch=batch: model.forward(batch))
            yield index, sae.encode(taps[sae.site]), batch.mask("inner")


def latent_use(model: HookedModel, sae: Any, reads: Sequence[Read]) -> LatentUse:
    """Use of every latent of ``sae`` on ``reads``, in memory that does not grow with their number."""
    count = 0
    fires, total, squares = (torch.zeros(sae.d_sae, dtype=torch.float64) for _ in range(3))
    for _, z, counted in _latents(model, sae, reads):
        kept = z[counted].double().cpu()
        count += len(kept)
        fires += (kept > 0).sum(0)
        total += kept.sum(0)
        squares += kept.square().sum(0)
    return LatentUse(count, fires.float(), total.float(), squares.float())


def firing_shares(
    model: HookedModel, sae: Any, reads: Sequence[Read], latents: Sequence[int]
) -> Float[Tensor, " reads"]:
    """The share of each read's tokens at which any of ``latents`` fires."""
    shares = torch.zeros(len(reads))
    for index, z, counted in _latents(model, sae, reads):
        shares[index] = firing_share(z[..., list(latents)] > 0, counted).cpu()
    return shares
