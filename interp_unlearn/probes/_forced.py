"""Questions with their answers as one fixed input (teacher forcing), and the places in it that can be patched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_unlearn._core import DataError, nearest
from interp_unlearn.hooked import AnswerBatch, Batch, HookedModel, answer_batch, tokenize
from interp_unlearn.worlds import Prompt

Place = Literal["name", "name_end", "prompt_end", "answer", "content", "all"]
WHOLE = ("content", "all")  # not places in a prompt: all of it
PLACES: dict[str, str] = {
    "name": "tokens of the entity's name",
    "name_end": "last token of the name",
    "prompt_end": "last token of the prompt",
    "answer": "tokens that predict a token of the answer",
    "content": "every token but special ones",
    "all": "every token",
}


@dataclass(frozen=True)
class Forced:
    """Rows of prompt and answer, shortest first.

    Attributes:
        encoded: Tokens, and which of them are answer tokens (the scored ones).
        name: True at tokens of the entity's name; nowhere True where names are not known.
        facts: The fact each row asks (entity and relation), the unit that intervals resample.
        templates: The wording of each row.
        texts: The whole text of each row.
    """

    encoded: AnswerBatch
    name: Bool[Tensor, "batch pos"]
    facts: tuple[str, ...]
    templates: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def clusters(self) -> tuple[list[str], list[str]]:
        """Labels that intervals resample."""
        return list(self.facts), list(self.templates)

    @property
    def labels(self) -> tuple[str, ...]:
        """One label per row, for tables."""
        pairs = zip(self.facts, self.templates, strict=True)
        return tuple(f"{i}: {fact}|{template}" for i, (fact, template) in enumerate(pairs))

    def at(self, place: Place) -> Bool[Tensor, "batch pos"]:
        """True at the tokens of a place, see `PLACES`.

        Raises:
            DataError: If the place is unknown, or a row has no such token.
        """
        if place not in get_args(Place):
            raise DataError(f"unknown place {place!r}{nearest(str(place), PLACES)}; use one of {', '.join(PLACES)}")
        predicts = self.encoded.answer.roll(-1, dims=1)
        if place == "answer":
            mask = predicts
        elif place == "prompt_end":
            mask = predicts & (predicts.cumsum(1) == 1)
        elif place == "content":
            mask = self.encoded.batch.mask("content")
        elif place == "all":
            mask = self.encoded.batch.attended
        else:
            mask = self.name
            if place == "name_end":
                later = mask.flip(1).cumsum(1).flip(1)
                mask = mask & (later == 1)
        empty = (~mask.any(1)).nonzero()[:, 0].tolist()
        if empty:
            raise DataError(f"row {empty[0]} ({self.texts[empty[0]]!r}) has no token of the place {place!r}")
        return mask

    def rows(self, index: slice) -> Forced:
        """A run of rows, without columns that hold only padding there."""
        batch = self.encoded.batch
        keep = batch.attended[index].any(0)
        part = AnswerBatch(batch.rows(index), self.encoded.answer[index][:, keep])
        return Forced(part, self.name[index][:, keep], self.facts[index], self.templates[index], self.texts[index])

    def chunks(self, size: int) -> Iterator[tuple[slice, Forced]]:
        """Runs of at most ``size`` rows."""
        for start in range(0, len(self), size):
            index = slice(start, min(start + size, len(self)))
            yield index, self.rows(index)


def forced(model: HookedModel, prompts: Sequence[Prompt]) -> Forced:
    """Prompts with their answers, sorted by length, with the tokens of their names marked.

    Args:
        model: A language model with a tokenizer; no pass is made.
        prompts: Questions with answers and name spans.

    Raises:
        DataError: If there are no prompts, or as in `hooked.answer_batch`.
    """
    if not prompts:
        raise DataError("there are no questions to force; give at least one prompt")
    ordered = sorted(prompts, key=lambda p: (len(p.full), p.full))
    encoded = answer_batch(model, [p.text for p in ordered], [p.answer for p in ordered])
    name = cover(encoded.batch, [p.name_span for p in ordered]) & ~encoded.answer
    return Forced(
        encoded,
        name,
        tuple(f"{p.entity}|{p.relation}" for p in ordered),
        tuple(p.template for p in ordered),
        tuple(p.full for p in ordered),
    )


def forced_spans(
    model: HookedModel,
    texts: Sequence[str],
    spans: Sequence[tuple[int, int]],
    *,
    unit: Literal["character", "token"] = "character",
    facts: Sequence[str] | None = None,
) -> Forced:
    r"""Texts in which one span per row is scored, such as TOFU answers with a marked entity.

    Args:
        model: A language model with a tokenizer.
        texts: Whole texts, e.g. ``"Question: …\nAnswer: The author's full name is Hsiao Yun-Hwa."``.
        spans: Half-open spans (start, end), one per text.
        unit: What the spans count: ``"character"``, or ``"token"``, attended tokens of the row by this model's
            tokenizer (a BOS token counts as one).
        facts: The fact of each row; default every row is one of its own.

    Raises:
        DataError: If lengths differ, a span covers no token, or it covers the first token, which nothing predicts.
    """
    if not texts or len(texts) != len(spans) or (facts is not None and len(facts) != len(texts)):
        raise DataError(f"{len(texts)} texts but {len(spans)} spans; give one span (and one fact) per text")
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    batch = tokenize(model.tokenizer, [texts[i] for i in order], max_length=model.lm.n_ctx)
    chosen = [spans[i] for i in order]
    if unit == "character":
        answer = cover(batch, chosen)
    else:
        nth = torch.where(batch.attended, batch.attended.cumsum(1) - 1, -1)
        start, end = (torch.tensor([s[k] for s in chosen])[:, None] for k in (0, 1))
        answer = (nth >= start) & (nth < end)
    for row, text in enumerate(batch.texts or ()):
        if not bool(answer[row].any()):
            raise DataError(f"the span {chosen[row]} covers no token of {text!r}; check the unit of the spans")
        if bool((answer[row] & batch.attended[row])[batch.attended[row].int().argmax()]):
            raise DataError(f"the span {chosen[row]} covers the first token of {text!r}, which nothing predicts")
    names = [str(i) for i in range(len(texts))] if facts is None else list(facts)
    encoded = AnswerBatch(batch.to(model.device), answer.to(model.device))
    return Forced(
        encoded,
        torch.zeros_like(encoded.answer),
        tuple(names[i] for i in order),
        ("span",) * len(texts),
        tuple(texts[i] for i in order),
    )


def cover(batch: Batch, spans: Sequence[tuple[int, int]]) -> Bool[Tensor, "batch pos"]:
    """Attended tokens that overlap a character span."""
    if batch.offsets is None:
        raise DataError("character spans need a batch made from texts, not from token ids")
    starts, ends = (torch.tensor([[token[k] for token in row] for row in batch.offsets]) for k in (0, 1))
    low, high = (torch.tensor([s[k] for s in spans])[:, None] for k in (0, 1))
    hit = (starts < high) & (ends > low) & (ends > starts)
    return hit.to(batch.attended.device) & batch.attended


def pick_prompts(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """At most ``n`` prompts: one wording of every fact, then a second wording of every fact, and so on.

    Facts beyond ``n`` are thinned evenly, so that every relation and entity has its chance.
    """
    by_fact: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in prompts:
        by_fact.setdefault((prompt.entity, prompt.relation), []).append(prompt)
    facts = list(by_fact.values())
    if len(facts) > n:
        facts = [facts[i * len(facts) // n] for i in range(n)]
    longest = max((len(f) for f in facts), default=0)
    # Facts take turns in which wording they begin with, or one wording would ask them all.
    turns = [
        fact[(turn + i) % len(fact)] for turn in range(longest) for i, fact in enumerate(facts) if turn < len(fact)
    ]
    return turns[:n]


NO_NAME = "no question about the target marks the entity's name"


def is_named(prompt: Prompt) -> bool:
    """Whether the prompt marks where the entity's name stands in it."""
    start, end = prompt.name_span
    return 0 <= start < end <= len(prompt.text)
