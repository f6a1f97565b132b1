"""Dashboards of SAE latents: where they fire most, how strongly they fire, and which tokens they promote.

Activations are read once per model, at the SAE's site, over short rows of tokens (`read_rows`); everything else is
arithmetic on them, for any choice of latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import HookedModel, batch_from_ids, capture
from interp_unlearn.latents._sae import SAE
from interp_unlearn.latents._scores import EPS


@dataclass(frozen=True)
class TokenRows:
    """Activations of one model at an SAE's site.

    Attributes:
        hidden: (row, position, d), zero beyond a row's end.
        tokens: Token ids, (row, position), -1 beyond a row's end.
        counts: True where a token counts: attended, not special, not the first, whose activations are massive.
    """

    hidden: Float[Tensor, "n p d"]
    tokens: Int[Tensor, "n p"]
    counts: Bool[Tensor, "n p"]

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors."""
        return {"hidden": self.hidden, "tokens": self.tokens, "counts": self.counts}


@torch.no_grad()
def read_token_rows(model: HookedModel, site: str, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> TokenRows:
    """Activations at every token of rows of token ids; rows of like length run together.

    Raises:
        DataError: If there are no rows.
    """
    if not ids:
        raise DataError("a latent's dashboard needs texts to read; give the world some, or questions")
    width = max(map(len, ids))
    hidden: Tensor | None = None
    tokens = torch.full((len(ids), width), -1)
    counts = torch.zeros(len(ids), width, dtype=torch.bool)
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    pad, special = model.tokenizer.pad_token_id or 0, model.tokenizer.all_special_ids
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = batch_from_ids([ids[i] for i in chosen], pad_id=pad, special_ids=special)
        acts = capture(model, batch, [site], mask_policy="inner", device="cpu")
        value = acts[site] * batch.attended[..., None].cpu()
        if hidden is None:
            hidden = torch.zeros(len(ids), width, value.shape[-1], dtype=value.dtype)
        index, long = torch.tensor(chosen), value.shape[1]
        assert acts.mask is not None
        hidden[index, :long] = value
        tokens[index, :long] = torch.where(batch.attended, batch.tokens, -1).cpu()
        counts[index, :long] = acts.mask.cpu()
    assert hidden is not None
    return TokenRows(hidden, tokens, counts)


@torch.no_grad()
def encode_rows(
    sae: SAE, rows: TokenRows, latents: Sequence[int], *, batch_size: int = 8
) -> Float[np.ndarray, "n p k"]:
    """Some latents at every token, NaN at tokens that do not count."""
    index = torch.tensor(list(latents), device=sae.W_enc.device)
    parts = [sae.encode(part.to(index.device))[..., index].float().cpu() for part in rows.hidden.split(batch_size)]
    return torch.cat(parts).masked_fill(~rows.counts[..., None], torch.nan).numpy()


def density(latents: Float[np.ndarray, "n p k"], eps: float = EPS) -> Float[np.ndarray, " k"]:
    """Share of the tokens that count on which each latent fires, NaN where none counts."""
    counted = latents[np.isfinite(latents[..., 0])]
    return (counted > eps).mean(0) if len(counted) else np.full(latents.shape[-1], np.nan)


def top_contexts(latents: Mapping[str, Float[np.ndarray, "n p"]], k: int) -> list[int]:
    """Rows where one latent reaches its largest values in any phase, largest first; never those where it is silent."""
    peak = np.max([np.nan_to_num(z, nan=0.0).max(1) for z in latents.values()], axis=0)
    order = np.argsort(-peak, kind="stable")[:k]
    return [int(i) for i in order if peak[i] > EPS]


def histogram(
    latents: Mapping[str, Float[np.ndarray, "n p"]], bins: int
) -> tuple[Float[np.ndarray, "phase bin"], Float[np.ndarray, " edge"]]:
    """Counts of the values above 0 of one latent, in bins that all phases share."""
    fired = {phase: z[np.nan_to_num(z, nan=0.0) > EPS] for phase, z in latents.items()}
    top = max((float(v.max()) for v in fired.values() if len(v)), default=1.0)
    edges = np.linspace(0.0, top, bins + 1)
    return np.stack([np.histogram(v, edges)[0] for v in fired.values()]).astype(float), edges


@torch.no_grad()
def direction_logits(
    model: HookedModel, directions: Float[Tensor, "m d"], k: int
) -> tuple[Float[Tensor, "m 2 k"], Int[Tensor, "m 2 k"]]:
    """The tokens whose logits a direction raises and lowers most, read by the model's final norm and head.

    Args:
        model: Whose norm and head read.
        directions: Decoder rows; their length does not matter where the final norm is an RMS norm.
        k: Tokens on each side.

    Returns:
        Logits less their mean over the vocabulary, and token ids, (direction, (promoted, suppressed), token).
    """
    wide = directions.to(model.device, model.dtype)
    logits = (model.unembed(wide) - model.unembed(torch.zeros_like(wide[:1]))).float().cpu()
    logits = logits - logits.mean(-1, keepdim=True)
    k = min(k, logits.shape[-1])
    up, down = logits.topk(k), (-logits).topk(k)
    return torch.stack([up.values, -down.values], 1), torch.stack([up.indices, down.indices], 1)
