"""Which questions an attack asks: about the target, about its stand-ins that were never known, about neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Entity, Prompt, Task, ask_about, assigned_answers, fact_of

TARGET, NEVER_KNOWN, NEIGHBOURS = "target", "never known", "neighbours"

FEW_FACTS = 4
"""A target of fewer facts has several stand-ins: the luck of one would decide the control."""

Groups = Mapping[str, tuple[Prompt, ...]]
"""Questions by group."""


def spread(prompts: Sequence[Prompt], most: int, seed: int, purpose: str) -> tuple[Prompt, ...]:
    """At most ``most`` prompts, drawn by the seed so that every fact is asked once before any is asked twice.

    They keep their order.
    """
    if len(prompts) <= most:
        return tuple(prompts)
    turn: dict[tuple[str, str], int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place, i in enumerate(numpy_rng(seed, "asked", purpose).permutation(len(prompts)).tolist()):
        fact = fact_of(prompts[i])
        ranked.append((turn.get(fact, 0), place, i))
        turn[fact] = turn.get(fact, 0) + 1
    return tuple(prompts[i] for i in sorted(i for _, _, i in sorted(ranked)[:most]))


def target_prompts(task: Task, most: int, seed: int) -> tuple[Prompt, ...]:
    """Questions about the target: held-out templates, or train templates where there are no others.

    Raises:
        DataError: If there is no question about the target.
    """
    asked = task.forget_heldout.prompts or task.forget_train.prompts
    if not asked:
        raise DataError(
            f"there is no question about the target ({task.forget_heldout.why_empty or 'no prompts'}): nothing to ask"
        )
    return spread(asked, most, seed, TARGET)


def neighbour_prompts(task: Task, most: int, seed: int) -> tuple[Prompt, ...]:
    """Questions about known entities of the target's type, which an attack should not harm."""
    return spread(task.neighbours.prompts or task.retain_train.prompts, most, seed, NEIGHBOURS)


def stand_ins(
    model: HookedModel, task: Task, prompts: Sequence[Prompt], seed: int, unknown: Sequence[Entity] | None = None
) -> tuple[Prompt, ...]:
    """The same questions about unknown entities, each fact with an assigned answer that it never had.

    The entities are used in turn where they are fewer than the target's. Each prompt has as many options as the one it
    stands for.

    Args:
        model: Its tokenizer counts the answers' tokens.
        task: Holds the unknown entities.
        prompts: Questions about the target.
        seed: Of entities and answers.
        unknown: Unknown entities; default ``unknown_eval``, which no recipe sees.

    Raises:
        DataError: If there is no unknown entity, or no answer to assign.
    """
    unknown = task.unknown_eval if unknown is None else unknown
    if not unknown:
        raise DataError("the task has no unknown entities to ask about; make it with some (n_unknown)")
    order = numpy_rng(seed, "stand-ins").permutation(len(unknown)).tolist()
    entities = list(dict.fromkeys(p.entity for p in prompts))
    stand_in = {e: unknown[order[k % len(order)]] for k, e in enumerate(entities)}
    answers = assigned_answers(model, task, prompts, seed, 0)
    made = []
    for p in prompts:
        answer = answers[fact_of(p)]
        others = tuple(o for o in dict.fromkeys((*p.options, p.answer)) if o.casefold() != answer.casefold())
        made.append(replace(ask_about(p, stand_in[p.entity], answer), options=others[: len(p.options)]))
    return tuple(made)


def groups_of(model: HookedModel, task: Task, max_prompts: int, seed: int) -> tuple[Groups, str]:
    """All groups that exist for a task, and why there is no never-known one (empty if there is)."""
    asked = {TARGET: target_prompts(task, max_prompts, seed)}
    why = ""
    try:
        facts = len({fact_of(p) for p in asked[TARGET]})
        draws = max(1, -(-FEW_FACTS // facts))
        stood = [p for k in range(draws) for p in stand_ins(model, task, asked[TARGET], seed + 7919 * k)]
        asked[NEVER_KNOWN] = spread(stood, max_prompts, seed, NEVER_KNOWN)
    except DataError as error:
        why = str(error)
    neighbours = neighbour_prompts(task, max(max_prompts // 2, 1), seed)  # they only show what an attack breaks
    if neighbours:
        asked[NEIGHBOURS] = neighbours
    return asked, why
