"""`text_windows`: cut documents into sequences that fit the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from interp_unlearn._core import DataError
from interp_unlearn.hooked._model import HookedModel


def text_windows(model: HookedModel, text: str | Sequence[str], length: int) -> list[list[int]]:
    """Token ids of documents, cut into consecutive windows; nothing is dropped and no window spans two documents.

    Where the tokenizer puts a BOS token before a text, every window begins with one.

    Args:
        model: A language model with a tokenizer.
        text: One text whose documents are separated by blank lines, or a list of documents.
        length: Tokens per window at most.

    Raises:
        DataError: If there is no tokenizer, no text, or ``length`` is not between 2 and the model's context.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise DataError("cutting text into windows needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    n_ctx = model.lm.n_ctx
    if length < 2 or (n_ctx is not None and length > n_ctx):
        raise DataError(f"length must lie between 2 and the model's context of {n_ctx}, got {length}")
    documents = re.split(r"\n\s*\n", text) if isinstance(text, str) else list(text)
    documents = [d.strip() for d in documents if d.strip()]
    if not documents:
        raise DataError("the text is empty")
    plain = tokenizer(documents, add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer(documents[0], verbose=False)["input_ids"]
    prefix = whole[:1] if tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id] else []
    step = length - len(prefix)
    return [prefix + ids[i : i + step] for ids in plain for i in range(0, len(ids), step)]
