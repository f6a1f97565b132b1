"""Greedy continuations of many prompts, batched by length, never beyond the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp_unlearn._core import DataError
from interp_unlearn.hooked import HookedModel, tokenize


def continue_greedily(
    model: HookedModel,
    prompts: Sequence[str],
    max_new_tokens: int | Mapping[str, int],
    *,
    batch_size: int = 64,
) -> dict[str, str]:
    """What greedy decoding adds to each prompt (special tokens dropped); equal prompts are continued once.

    Args:
        model: A language model with a tokenizer.
        prompts: Raw text.
        max_new_tokens: For all prompts, or for each; never more than the context leaves.
        batch_size: Prompts per generation.

    Returns:
        Continuations by prompt.

    Raises:
        DataError: If a prompt fills the model's context.
    """
    texts = list(dict.fromkeys(prompts))
    if not texts:
        return {}
    if model.tokenizer is None:
        raise DataError("generation needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    lengths = dict(zip(texts, tokenize(model.tokenizer, texts).lengths().tolist(), strict=True))
    wanted = dict.fromkeys(texts, max_new_tokens) if isinstance(max_new_tokens, int) else max_new_tokens
    order = sorted(texts, key=lambda p: (wanted[p], lengths[p]))
    outputs: dict[str, str] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        new = max(wanted[p] for p in rows)
        if model.lm.n_ctx is not None:
            room = model.lm.n_ctx - max(lengths[p] for p in rows)
            if room < 1:
                longest = max(rows, key=lambda p: lengths[p])
                raise DataError(
                    f"a prompt of {lengths[longest]} tokens fills the model's context of {model.lm.n_ctx}, so nothing "
                    f"can follow it; shorten it (it begins with {longest[:40]!r})"
                )
            new = min(new, room)
        outputs.update(zip(rows, model.generate(rows, max_new_tokens=new), strict=True))
    return outputs
