"""Questions that no model can know the answer of: unknown entities in the target's place, with assigned answers.

They are the floor of everything that is measured on answers: equal templates, relations and (as far as possible) equal
numbers of answer tokens, and nothing to remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import HookedModel, answer_ids
from interp_unlearn.worlds._types import Entity, Prompt, Task

FactKey = tuple[str, str]


def fact_of(prompt: Prompt) -> FactKey:
    """The fact that a prompt asks: entity and relation."""
    return prompt.entity, prompt.relation


def ask_about(prompt: Prompt, entity: Entity, answer: str) -> Prompt:
    """The same question about another entity, with the answer assigned to it; alternatives and options are dropped."""
    start, end = prompt.name_span
    text = prompt.text[:start] + entity.name + prompt.text[end:]
    span = (start, start + len(entity.name))
    return replace(prompt, text=text, name_span=span, entity=entity.id, answer=answer, also=(), options=())


def answers_by_relation(task: Task, asked: Iterable[Prompt]) -> dict[str, tuple[str, ...]]:
    """Every answer that the task knows for each relation of ``asked``, sorted: its options, and answers of others."""
    found: dict[str, set[str]] = {}
    for p in asked:
        found.setdefault(p.relation, set()).update((p.answer, *p.options))
    for q in (*task.retain_train.prompts, *task.neighbours.prompts):
        if q.relation in found:
            found[q.relation].add(q.answer)
    return {relation: tuple(sorted(answers)) for relation, answers in found.items()}


def assigned_answers(
    model: HookedModel,
    task: Task,
    asked: Sequence[Prompt],
    seed: int,
    draw: int = 0,
    *,
    keep_from: Literal["target", "fact"] = "target",
) -> dict[FactKey, str]:
    """An answer for the stand-in of each fact of ``asked``, the same in every template.

    It is an answer of the same relation with, as far as possible, as many tokens as the right one, and different for
    different facts as long as the answers last. It is never right for the fact that it stands for.

    Args:
        model: Its tokenizer counts the answers' tokens.
        task: Where other answers come from, besides the prompts' options.
        asked: Questions of the target.
        seed: Of the choice.
        draw: Which of several choices.
        keep_from: With ``"target"`` an assigned answer is right for no fact of the target under its relation, unless
            too few others are left: stand-ins must have as many different answers as the facts that they stand for, or
            their commonest answer would be a habit. With ``"fact"`` only the fact itself counts, so that assigned and
            right answers are words of the same frequency.

    Raises:
        DataError: If a relation has no other answer, or the model has no tokenizer.
    """
    every = answers_by_relation(task, asked)
    lengths = _lengths(model, sorted({a for answers in every.values() for a in answers}))
    right: dict[str, set[str]] = {}
    own: dict[FactKey, set[str]] = {}
    for p in asked:
        answers = {a.casefold() for a in (p.answer, *p.also)}
        right.setdefault(p.relation, set()).update(answers)
        own.setdefault(fact_of(p), set()).update(answers)
    given: dict[FactKey, str] = {}
    for p in asked:
        fact = fact_of(p)
        if fact in given:
            continue
        pool = [a for a in every[p.relation] if a.casefold() not in right[p.relation]]
        needed = min(len(right[p.relation]), sum(relation == p.relation for _, relation in own))
        if keep_from == "fact" or len(pool) < needed:
            pool = [a for a in every[p.relation] if a.casefold() not in own[fact]]
        if not pool:
            raise DataError(
                f"no answer can be assigned to a never-known entity for relation {p.relation!r}: the task has no other "
                "answers of this relation; add options to its prompts, or leave out the never-known control"
            )
        wanted = lengths[p.answer]
        nearest_length = min(abs(lengths[a] - wanted) for a in pool)
        alike = [a for a in pool if abs(lengths[a] - wanted) == nearest_length]
        taken = set(given.values())
        fresh = [a for a in alike if a not in taken] or alike
        rng = numpy_rng(seed, "never-known answers", draw, *fact)
        given[fact] = fresh[int(rng.integers(len(fresh)))]
    return given


def _lengths(model: HookedModel, answers: Sequence[str]) -> dict[str, int]:
    """Tokens of each answer after a prompt."""
    if model.tokenizer is None:
        raise DataError("assigning answers needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    if not answers:
        return {}
    return {answer: len(row) for answer, row in zip(answers, answer_ids(model.tokenizer, answers), strict=True)}
