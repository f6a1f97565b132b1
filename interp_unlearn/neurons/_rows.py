"""Prompts grouped so that one pass runs many of them: one start, little padding, no token that nothing depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import AnswerBatch
from interp_unlearn.neurons._config import Tokens

WORTH_CACHING = 2  # a shorter prefix is run again with the rest


def counted_tokens(encoded: AnswerBatch, tokens: Tokens) -> Bool[Tensor, "batch pos"]:
    """True at the positions whose activations count.

    Raises:
        DataError: If a prompt has no such position.
    """
    batch, answer = encoded.batch, encoded.answer
    columns = torch.arange(answer.shape[1], device=answer.device)[None]
    first = answer.to(torch.int8).argmax(1, keepdim=True)
    if tokens in ("all", "content", "inner"):
        mask = batch.mask(tokens)
    elif tokens == "prompt":
        mask = batch.mask("content") & (columns < first)
    else:
        mask = columns == first - 1
    empty = (~mask.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise DataError(f"prompt {empty[0]} has no token that counts under tokens={tokens!r}; use tokens='all'")
    return mask


@dataclass(frozen=True)
class Rows:
    """Prompts that start at the same column, from that column on.

    Attributes:
        index: Which of the given prompts they are.
        prefix: Token ids before the start, (row, start).
        tokens: Token ids, (row, position).
        attended: True at real tokens.
        answer: True at answer tokens.
        counted: True where activations count.
    """

    index: tuple[int, ...]
    prefix: Int[Tensor, "row start"]
    tokens: Int[Tensor, "row pos"]
    attended: Bool[Tensor, "row pos"]
    answer: Bool[Tensor, "row pos"]
    counted: Bool[Tensor, "row pos"]

    @property
    def last(self) -> Int[Tensor, " row"]:
        """Column of the last prompt token."""
        return self.answer.to(torch.int8).argmax(1) - 1

    @property
    def width(self) -> int:
        """Columns that must run: nothing is predicted from the last answer token, so it need not."""
        return int(self.answer.any(0).nonzero()[-1])

    def first(self) -> Rows:
        """The first of the prompts."""
        parts = (self.prefix, self.tokens, self.attended, self.answer, self.counted)
        return Rows(self.index[:1], *(part[:1] for part in parts))

    def whole(self) -> Rows:
        """The same prompts from their first token on; tokens that were before the start do not count."""
        if not self.prefix.shape[1]:
            return self
        none = torch.zeros_like(self.prefix, dtype=torch.bool)
        return Rows(
            self.index,
            self.prefix[:, :0],
            torch.cat([self.prefix, self.tokens], 1),
            torch.cat([~none, self.attended], 1),
            torch.cat([none, self.answer], 1),
            torch.cat([none, self.counted], 1),
        )


def split(encoded: AnswerBatch, counted: Bool[Tensor, "batch pos"], max_tokens: int, share: bool) -> Iterator[Rows]:
    """Prompts in groups with one start (the first token, unless ``share``) and little padding.

    A group has at most ``max_tokens`` tokens, or one prompt.
    """
    first = encoded.answer.to(torch.int8).argmax(1) - 1
    starts = torch.minimum(first, counted.to(torch.int8).argmax(1)).tolist()
    starts = [s if share and s >= WORTH_CACHING else 0 for s in starts]
    lengths = encoded.batch.lengths().tolist()
    order = sorted(range(len(lengths)), key=lambda i: (starts[i], lengths[i]))
    group: list[int] = []
    for i in [*order, -1]:
        same = bool(group) and i >= 0 and starts[i] == starts[group[0]]
        if group and not (same and (len(group) + 1) * lengths[i] <= max(max_tokens, lengths[i])):
            yield _rows(encoded, counted, group, starts[group[0]], max(lengths[g] for g in group))
            group = []
        group.append(i)


def _rows(encoded: AnswerBatch, counted: Tensor, group: list[int], start: int, end: int) -> Rows:
    index = torch.tensor(group, device=counted.device)
    batch = encoded.batch
    cut = lambda t: t[index, start:end]  # noqa: E731
    parts = (cut(batch.tokens), cut(batch.attended), cut(encoded.answer), cut(counted))
    return Rows(tuple(group), batch.tokens[index, :start], *parts)
