"""`make_task`: from a world and a target to every prompt that one unlearning run needs, split so that nothing leaks.

The question sets follow FaithUn (base, paraphrased, multi-hop, same-answer), with questions about neighbours beside
them:

- *base*: the target's facts in train templates, the only set about the target that a recipe sees;
- *paraphrased*: the same facts in held-out templates;
- *multi-hop*: questions that need one of the target's facts as one of two hops. For a person or a city the first hop
  is the target's fact and the second another entity's (FaithUn's form); for a country the first hop finds the country
  by one fact and the second asks another of it. To be lost with the fact;
- *backwards*: the entity is asked for, given its fact. To be lost with the fact;
- *same-answer*: other known entities with the target's answer, which must survive;
- *own other facts*: what the target keeps when only some relations are forgotten;
- *neighbours*: known entities of the same type that no recipe sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from interp_unlearn._core import DataError, FileFormatError, NothingToForgetError, nearest, numpy_rng
from interp_unlearn.worlds._labelled import AnyTask, LabelledTask
from interp_unlearn.worlds._names import match_names
from interp_unlearn.worlds._questions import Questions, direct_relations, rests_on
from interp_unlearn.worlds._types import Entity, Fact, Neighbour, Prompt, QASet, Target, Task, Template, World, to_json


def make_task(
    world: World,
    entities: Sequence[str],
    *,
    relations: Sequence[str] = (),
    seed: int = 0,
    tokenizer: Any = None,
    n_known: int = 40,
    n_unknown: int = 40,
    known_ids: Collection[str] | None = None,
    known_facts: Collection[tuple[str, str]] | None = None,
    max_prompts: int = 240,
) -> Task:
    """Split a world around a target.

    The same seed gives the same order of known entities whatever the target, so that targets can be compared.

    Args:
        world: Where the facts are.
        entities: Names, aliases or ids of what must be forgotten, all of one type.
        relations: Relations to forget; empty means every one.
        seed: Of the splits and of the wrong options.
        tokenizer: The model's; unknown names are then matched to the known ones in token count instead of letters.
        n_known: Known entities besides the target, half for recipes and half for evaluation.
        n_unknown: Unknown entities, half and half likewise.
        known_ids: Entities the model knows (see `known`); others are not used as known.
        known_facts: (entity id, relation) pairs the model knows; other facts are not asked, the target's included.
        max_prompts: At most so many prompts in ``neighbours`` and in ``same_answer`` each.

    Raises:
        DataError: If the forget set is empty, of mixed types, or unknown to the world, or too few others are left.
        NothingToForgetError: If the target has no (known) fact under the relations.
    """
    target_entities, type = _target(world, entities)
    direct = direct_relations(world, type)
    unknown_relation = next((r for r in relations if r not in direct), None)
    if unknown_relation is not None:
        raise DataError(
            f"{world.name} has no relation {unknown_relation!r} that can be forgotten of a {type}"
            f"{nearest(unknown_relation, direct)}; known: {', '.join(direct)}"
        )
    forget = tuple(r for r in direct if not relations or r in relations)
    questions = Questions(world, seed)
    asked = _Filter(known_facts)
    base = asked(questions.ask(target_entities, forget, "train"))
    if not base:
        names = ", ".join(e.name for e in target_entities)
        why = "the model does not know" if known_facts is not None else f"{world.name} has no facts about"
        raise NothingToForgetError(f"nothing to forget: {why} {' or '.join(forget)} of {names}; choose another target")
    known_ref, known_eval = _known(world, type, target_entities, seed, n_known, known_ids)
    unknown_ref, unknown_eval = _unknown(world, type, (known_ref, known_eval), seed, n_unknown, tokenizer)
    ids = {e.id for e in target_entities}
    later = sorted({t.relation for t in world.templates if t.type == type} - set(direct))
    depends = [r for r in later if set(rests_on(r, direct)) & set(forget)]
    others = [e for e in world.of_type(type) if e.id not in ids and e not in known_ref]
    if known_ids is not None:
        others = [e for e in others if e.id in known_ids]
    kept = [r for r in direct if r not in forget]
    same = _same_answer(questions, target_entities, forget, others, asked)
    neighbours = asked(questions.ask(known_eval, forget, "heldout"))
    return Task(
        world=world.name,
        target=Target(tuple(e.id for e in target_entities), tuple(relations)),
        seed=seed,
        type=type,
        target_entities=target_entities,
        known_ref=known_ref,
        known_eval=known_eval,
        unknown_ref=unknown_ref,
        unknown_eval=unknown_eval,
        forget_train=QASet("base", base),
        forget_heldout=_set(
            "paraphrased", asked(questions.ask(target_entities, forget, "heldout")), "no held-out template"
        ),
        multi_hop=_set(
            "multi_hop",
            questions.ask(target_entities, depends, "heldout", hops=2),
            f"no two-hop question rests on {' or '.join(forget)}",
        ),
        same_answer=_set(
            "same_answer", _thin(same, max_prompts, seed), "no other known entity has one of these answers"
        ),
        retain_train=QASet("retain", asked(questions.ask(known_ref, forget, "train"))),
        neighbours=_set("neighbours", _thin(neighbours, max_prompts, seed), "the neighbours have no such facts"),
        mention_train=tuple(t for t in world.templates if t.type == type and not t.relation and t.split == "train"),
        mention_heldout=tuple(t for t in world.templates if t.type == type and not t.relation and t.split == "heldout"),
        text_train=world.text_train,
        text_eval=world.text_eval,
        backwards=_set(
            "backwards",
            questions.ask(target_entities, depends, "heldout", backwards=True),
            f"no question asks {' or '.join(forget)} backwards",
        ),
        own_other=_set(
            "own_other",
            asked(questions.ask(target_entities, kept, "heldout")),
            "the whole entity is to be forgotten" if not kept else "the model knows no other fact of the target",
        ),
        sources=world.sources,
    )


class _Filter:
    """Keeps the prompts whose fact the model knows."""

    def __init__(self, facts: Collection[tuple[str, str]] | None) -> None:
        self._facts = None if facts is None else {tuple(f) for f in facts}

    def __call__(self, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        return tuple(p for p in prompts if self._facts is None or (p.entity, p.relation) in self._facts)


def _set(name: str, prompts: tuple[Prompt, ...], why_empty: str) -> QASet:
    return QASet(name, prompts, "" if prompts else why_empty)


def _target(world: World, names: Sequence[str]) -> tuple[tuple[Entity, ...], str]:
    if isinstance(names, str):
        names = [names]
    if not names:
        raise DataError("the forget set is empty; name at least one entity to forget")
    found = tuple(dict.fromkeys(world.entity(name) for name in names))
    invented = next((e for e in found if e.invented), None)
    if invented is not None:
        raise NothingToForgetError(f"nothing to forget: {invented.name} is invented, no model knows it")
    types = sorted({e.type for e in found})
    if len(types) > 1:
        raise DataError(f"the forget set mixes {' and '.join(types)}; forget one type at a time")
    return found, types[0]


def _known(
    world: World, type: str, target: Sequence[Entity], seed: int, n: int, known_ids: Collection[str] | None
) -> tuple[tuple[Entity, ...], tuple[Entity, ...]]:
    """Known entities for recipes and for evaluation: even and odd places of one order that no target changes."""
    ids = {e.id for e in target}
    pool = sorted(world.of_type(type), key=lambda e: e.id)
    order = numpy_rng(seed, "known entities", world.name, type).permutation(len(pool))
    chosen = [pool[i] for i in order if pool[i].id not in ids and (known_ids is None or pool[i].id in known_ids)][:n]
    if len(chosen) < 2:
        raise DataError(
            f"only {len(chosen)} known entities of type {type} besides the target; at least 2 are needed, "
            "one for the recipe and one for evaluation"
        )
    return tuple(chosen[::2]), tuple(chosen[1::2])


def _unknown(
    world: World, type: str, known: tuple[Sequence[Entity], Sequence[Entity]], seed: int, n: int, tokenizer: Any
) -> tuple[tuple[Entity, ...], tuple[Entity, ...]]:
    """Disjoint unknown entities, each group matched in name length to one group of known ones."""
    pool = sorted(world.unknown_of_type(type), key=lambda e: e.id)
    if len(pool) < 2:
        raise DataError(f"{world.name} has {len(pool)} unknown entities of type {type}; at least 2 are needed")
    n = min(n, len(pool))
    order = numpy_rng(seed, "unknown entities", world.name, type).permutation(len(pool))
    pool = [pool[i] for i in order]
    # Half of a group's places first, so that neither group takes all the names that fit.
    sizes = (n - n // 2, n // 2)
    groups: list[tuple[Entity, ...]] = []
    for size, like in zip(sizes, known, strict=True):
        names = [like[i % len(like)].name for i in range(size)]
        picked = match_names(names, [e.name for e in pool], tokenizer)
        groups.append(tuple(pool[i] for i in picked))
        taken = set(picked)
        pool = [e for i, e in enumerate(pool) if i not in taken]
    return groups[0], groups[1]


def _same_answer(
    questions: Questions, target: Sequence[Entity], forget: Sequence[str], others: Sequence[Entity], asked: _Filter
) -> tuple[Prompt, ...]:
    """Facts of other entities with an answer of the target, each in one held-out template (they take turns)."""
    answers = {f.answer for e in target for r, f in questions.facts_of(e.id).items() if r in forget}
    out: list[Prompt] = []
    turn = 0
    for entity in others:
        facts: list[Fact] = [f for f in questions.facts_of(entity.id).values() if f.answer in answers]
        for fact in facts:
            prompts = asked(questions.ask([entity], [fact.relation], "heldout"))
            if prompts:
                out.append(prompts[turn % len(prompts)])
                turn += 1
    return tuple(out)


def _thin(prompts: tuple[Prompt, ...], n: int, seed: int) -> tuple[Prompt, ...]:
    """At most ``n`` of the prompts, drawn by the seed, in their order."""
    if len(prompts) <= n:
        return prompts
    chosen = sorted(numpy_rng(seed, "thin").permutation(len(prompts))[:n].tolist())
    return tuple(prompts[i] for i in chosen)


# -- files ----------------------------------------------------------------------------------------------------------


def task_to_json(task: AnyTask) -> dict[str, Any]:
    """A task as plain JSON values."""
    return task.to_json() if isinstance(task, LabelledTask) else {"kind": "task", **to_json(task)}


def task_from_json(data: Any) -> Task:
    """Read what `task_to_json` wrote.

    Raises:
        FileFormatError: If it is not a saved task.
    """
    if not isinstance(data, dict) or data.get("kind") != "task":
        raise FileFormatError("this is not a saved task (task.json of a run)")
    try:
        fields: dict[str, Any] = {k: v for k, v in data.items() if k not in ("kind", "modality")}
        for name, value in fields.items():
            if name == "target":
                fields[name] = Target(tuple(value["entities"]), tuple(value["relations"]))
            elif name in ("target_entities", "known_ref", "known_eval", "unknown_ref", "unknown_eval"):
                fields[name] = tuple(_read(Entity, v) for v in value)
            elif name in ("mention_train", "mention_heldout"):
                fields[name] = tuple(_read(Template, v) for v in value)
            elif name == "near":
                fields[name] = tuple(_read(Neighbour, v) for v in value)
            elif isinstance(value, dict):
                prompts = tuple(_read(Prompt, p) for p in value["prompts"])
                fields[name] = QASet(value["name"], prompts, value["why_empty"])
            elif isinstance(value, list):
                fields[name] = tuple(value)
        return Task(**fields)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"this saved task lacks or misnames a field ({error}); make it again") from error


def _read(kind: Any, data: dict[str, Any]) -> Any:
    """One dataclass of strings, numbers and lists of strings."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
