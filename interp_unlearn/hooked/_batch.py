"""Token batches: ids, what is attended, and which tokens count (the token mask).

Padding side is never assumed: every position is counted among the attended tokens of its row, so that the same prompt
gives the same values alone, padded left, or padded right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_unlearn._core import DataError

MaskPolicy = Literal["all", "content", "inner"]
MASK_POLICIES: dict[str, str] = {
    "all": "every attended token, special tokens included",
    "content": "attended tokens that are not special tokens (the default)",
    "inner": "content tokens except the first attended one, whose activations are massive in most language models",
}


@dataclass(frozen=True)
class Batch:
    """Padded token ids with their masks.

    Attributes:
        tokens: Token ids, (batch, position).
        attended: True where a token is real, False at padding.
        special: True at special tokens (BOS, EOS, …).
        offsets: Character span (start, end) of each token of each row, or None when the batch was made from ids.
        texts: The source texts, or None.
    """

    tokens: Int[Tensor, "batch pos"]
    attended: Bool[Tensor, "batch pos"]
    special: Bool[Tensor, "batch pos"]
    offsets: tuple[tuple[tuple[int, int], ...], ...] | None = None
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def mask(self, policy: MaskPolicy = "content") -> Bool[Tensor, "batch pos"]:
        """The tokens that count under ``policy`` (see `MASK_POLICIES`)."""
        if policy == "all":
            return self.attended
        if policy == "content":
            return self.attended & ~self.special
        if policy == "inner":
            first = self.attended & (self.attended.cumsum(1) == 1)
            return self.attended & ~self.special & ~first
        raise DataError(f"unknown mask policy {policy!r}; use one of {', '.join(MASK_POLICIES)}")

    def position_ids(self) -> Int[Tensor, "batch pos"]:
        """Position of each token among the attended tokens of its row (0 at padding)."""
        return (self.attended.cumsum(1) - 1).clamp(min=0)

    def padded_inside_or_left(self) -> bool:
        """Whether any row has padding before its last attended token."""
        lengths = self.attended.sum(1, keepdim=True)
        index = torch.arange(self.tokens.shape[1], device=self.tokens.device)[None, :]
        return bool((self.attended != (index < lengths)).any())

    def lengths(self) -> Int[Tensor, " batch"]:
        """Number of attended tokens in each row."""
        return self.attended.sum(1)

    def index_of(self, nth: Int[Tensor, "batch p"]) -> Int[Tensor, "batch p"]:
        """Column of the nth attended token of each row; negative numbers count from the last attended token."""
        lengths = self.lengths()[:, None]
        wanted = torch.where(nth < 0, lengths + nth, nth)
        if bool(((wanted < 0) | (wanted >= lengths)).any()):
            raise DataError(
                f"a requested position is outside its prompt: asked for {nth.tolist()} in prompts of "
                f"{self.lengths().tolist()} tokens"
            )
        order = torch.argsort((~self.attended).to(torch.int8), dim=1, stable=True)
        return order.gather(1, wanted)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.tokens.to(device), self.attended.to(device), self.special.to(device), self.offsets, self.texts
        )

    def rows(self, index: slice) -> Batch:
        """A run of rows, with columns that hold only padding there removed."""
        attended = self.attended[index]
        keep = attended.any(0)
        offsets = None if self.offsets is None else self.offsets[index]
        if offsets is not None and not bool(keep.all()):
            columns = keep.nonzero()[:, 0].tolist()
            offsets = tuple(tuple(row[c] for c in columns) for row in offsets)
        texts = None if self.texts is None else self.texts[index]
        return Batch(self.tokens[index][:, keep], attended[:, keep], self.special[index][:, keep], offsets, texts)


def batch_from_ids(
    ids: Sequence[Sequence[int]],
    *,
    pad_id: int = 0,
    special_ids: Sequence[int] = (),
    padding_side: Literal["left", "right"] = "right",
    offsets: Sequence[Sequence[tuple[int, int]]] | None = None,
    texts: Sequence[str] | None = None,
) -> Batch:
    """Pad lists of token ids into a `Batch`.

    Args:
        ids: One list of ids per row, none empty.
        pad_id: Id written at padding (never attended).
        special_ids: Ids that count as special tokens.
        padding_side: Where padding goes.
        offsets: Character spans per token, if known.
        texts: Source texts, if known.
    """
    if not ids or any(len(row) == 0 for row in ids):
        raise DataError("a batch needs at least one prompt, and every prompt at least one token")
    width = max(len(row) for row in ids)
    tokens = torch.full((len(ids), width), pad_id, dtype=torch.long)
    attended = torch.zeros((len(ids), width), dtype=torch.bool)
    spans: list[tuple[tuple[int, int], ...]] = []
    for r, row in enumerate(ids):
        start = width - len(row) if padding_side == "left" else 0
        tokens[r, start : start + len(row)] = torch.tensor(list(row), dtype=torch.long)
        attended[r, start : start + len(row)] = True
        if offsets is not None:
            line = [(0, 0)] * width
            line[start : start + len(row)] = [(int(a), int(b)) for a, b in offsets[r]]
            spans.append(tuple(line))
    special = torch.isin(tokens, torch.tensor(list(special_ids), dtype=torch.long)) & attended
    return Batch(
        tokens,
        attended,
        special,
        tuple(spans) if offsets is not None else None,
        tuple(texts) if texts is not None else None,
    )


def tokenize(
    tokenizer: Any,
    texts: str | Sequence[str],
    *,
    padding_side: Literal["left", "right"] = "right",
    max_length: int | None = None,
    add_special_tokens: bool = True,
) -> Batch:
    """Turn texts into a `Batch` with character offsets.

    Args:
        tokenizer: A Hugging Face fast tokenizer.
        texts: One text or several.
        padding_side: Where padding goes; results do not depend on it.
        max_length: The model's context; a longer prompt is an error, never cut in silence.
        add_special_tokens: Whether the tokenizer adds its BOS/EOS.

    Raises:
        DataError: If a text is empty or longer than ``max_length``, or the tokenizer has no offsets.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise DataError("no text given")
    if not getattr(tokenizer, "is_fast", True):
        raise DataError(f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer (use_fast=True)")
    encoded = tokenizer(texts, add_special_tokens=add_special_tokens, return_offsets_mapping=True, padding=False)
    ids: list[list[int]] = encoded["input_ids"]
    for text, row in zip(texts, ids, strict=True):
        if not row:
            raise DataError(f"the prompt {text!r} has no tokens; give a non-empty text")
        if max_length is not None and len(row) > max_length:
            raise DataError(
                f"a prompt of {len(row)} tokens is longer than the model's context of {max_length}; "
                f"shorten it (it begins with {text[:40]!r})"
            )
    return batch_from_ids(
        ids,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        special_ids=tokenizer.all_special_ids,
        padding_side=padding_side,
        offsets=encoded["offset_mapping"],
        texts=texts,
    )


def span_last_token(batch: Batch, spans: Sequence[tuple[int, int]]) -> Int[Tensor, " batch"]:
    """Column of the last token that covers each character span.

    Works from character offsets, so leading spaces, merges and padding side do not matter. A token counts as covering
    the span when it overlaps it.

    Args:
        batch: A batch made from texts.
        spans: One (start, end) character span per row.

    Raises:
        DataError: If the batch has no offsets or a span matches no token.
    """
    if batch.offsets is None:
        raise DataError("character spans need a batch made from texts, not from token ids")
    if len(spans) != len(batch):
        raise DataError(f"{len(spans)} spans for {len(batch)} prompts")
    columns = []
    for row, (start, end) in enumerate(spans):
        attended = batch.attended[row].tolist()
        hits = [c for c, (a, b) in enumerate(batch.offsets[row]) if attended[c] and a < end and b > start and b > a]
        if not hits:
            raise DataError(f"no token covers characters {start}:{end} of prompt {row}")
        columns.append(hits[-1])
    return torch.tensor(columns, dtype=torch.long)


def name_span(text: str, name: str) -> tuple[int, int]:
    """Character span of the *last* occurrence of ``name`` in ``text``.

    Raises:
        DataError: If the name does not occur.
    """
    start = text.rfind(name)
    if start < 0:
        raise DataError(f"{name!r} does not occur in {text!r}")
    return start, start + len(name)
