"""Texts as rows of token ids, for collecting activations and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from interp_unlearn._core import DataError
from interp_unlearn.hooked import HookedModel, tokenize


def token_rows(
    model: HookedModel, texts: Sequence[str], context: int, *, shortest: int = 2
) -> tuple[tuple[int, ...], ...]:
    """Cut each text into rows of at most ``context`` tokens, in order; texts never share a row.

    Args:
        model: Gives the tokenizer and its longest context.
        texts: Any texts; empty ones are skipped.
        context: Tokens per row, at most the model's context.
        shortest: Drop rows with fewer tokens.

    Raises:
        DataError: If nothing is left, or ``context`` exceeds the model's.
    """
    limit = model.lm.n_ctx
    if limit is not None and context > limit:
        raise DataError(f"context = {context} is longer than the model's context of {limit}; lower it")
    rows: list[tuple[int, ...]] = []
    for text in texts:
        if not text.strip():
            continue
        batch = tokenize(model.tokenizer, text)
        ids = batch.tokens[0].tolist()
        rows.extend(tuple(ids[i : i + context]) for i in range(0, len(ids), context))
    rows = [row for row in rows if len(row) >= shortest]
    if not rows:
        raise DataError(f"the texts hold no row of at least {shortest} tokens; give longer texts")
    return tuple(rows)
