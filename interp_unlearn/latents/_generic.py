"""How often each latent fires on an arbitrary word: latents that fire everywhere mark no entity."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import Batch, HookedModel, capture, span_last_token, tokenize
from interp_unlearn.latents._sae import SAE
from interp_unlearn.latents._scores import EPS

WORD = re.compile(r"\S+")


@torch.no_grad()
def generic_rate(
    sae: SAE,
    model: HookedModel,
    texts: Sequence[str],
    *,
    max_tokens: int = 128,
    batch_size: int = 32,
    seed: int = 0,
    eps: float = EPS,
) -> Float[Tensor, " m"]:
    """Fraction of documents where each latent fires at the last token of one random word.

    One whitespace-separated word is drawn from the first ``max_tokens`` tokens of each text, as in Ferrando et al.
    (arXiv 2411.14257), who use 10,000 documents. The first word is left out: the first token's activation is massive.

    Args:
        sae: The SAE.
        model: The model it was made for.
        texts: General documents; those with fewer than two words are skipped.
        max_tokens: Only the beginning of each text counts.
        batch_size: Texts per forward pass.
        seed: Seed of the words.
        eps: A latent fires above this.

    Returns:
        (m,) rates.

    Raises:
        DataError: If no text has two words.
    """
    sae.check_fits(model)
    rng = numpy_rng(seed, "generic words")
    cut: list[str] = []
    spans: list[tuple[int, int]] = []
    for text in texts:
        if not text.strip():
            continue
        batch = tokenize(model.tokenizer, text)
        assert batch.offsets is not None
        head = text[: max(end for _, end in batch.offsets[0][:max_tokens])]  # an end token's offset is 0
        words = [m.span() for m in WORD.finditer(head)][1:]
        if words:
            cut.append(head)
            spans.append(words[int(rng.integers(len(words)))])
    if not cut:
        raise DataError("no text has two words to draw from; give longer texts")
    fired = torch.zeros(sae.d_sae)
    for start in range(0, len(cut), batch_size):
        rows = slice(start, start + batch_size)
        batch: Batch = tokenize(model.tokenizer, cut[rows])
        acts = capture(model, batch, [sae.site], positions=span_last_token(batch, spans[rows]))
        fired += (sae.encode(acts[sae.site][:, 0]) > eps).sum(0).cpu()
    return fired / len(cut)
