"""Texts as rows of token ids, for collecting activations and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from interp_unlearn._core import DataError
from interp_unlearn.hooked import HookedModel, text_windows


def token_rows(
    model: HookedModel, texts: Sequence[str], context: int, *, shortest: int = 2
) -> tuple[tuple[int, ...], ...]:
    """Cut each text into rows of at most ``context`` tokens, in order; texts never share a row.

    Rows are those of `text_windows`: where the tokenizer puts a BOS token before a text, every row begins with one.

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
    texts = [text for text in texts if text.strip()]
    windows = text_windows(model, texts, context) if texts else []
    rows = [tuple(row) for row in windows if len(row) >= shortest]
    if not rows:
        raise DataError(f"the texts hold no row of at least {shortest} tokens; give longer texts")
    return tuple(rows)
