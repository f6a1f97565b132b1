"""Neighbour sets: what lies directly beside a target, what is like it, and what has nothing to do with it.

After MELU (Bushipaka et al., arXiv 2509.05316), for any world:

- *direct*: entities that the target's own facts name, or whose facts name the target (a person's home town);
- *indirect*: other entities of the target's type;
- *general*: entities of other types that no fact links to the target, and general text.

Questions of direct neighbours that mention the target are left out. Entities held out for evaluation are never used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.worlds._questions import Questions, direct_relations
from interp_unlearn.worlds._types import Entity, Neighbour, NeighbourKind, Prompt, QASet, Task, World

KINDS: tuple[NeighbourKind, ...] = ("direct", "indirect", "general")


def with_neighbours(
    world: World,
    task: Task,
    *,
    seed: int = 0,
    n_general: int = 20,
    known_facts: Collection[tuple[str, str]] | None = None,
) -> Task:
    """The task with a retain set of direct, indirect and general questions, each labelled.

    Indirect questions are those the retain set has already (about ``known_ref``), each entity given to the target
    that it shares most answers with; direct and general ones are added, one hop, in train templates.

    Args:
        world: The world that the task was made from.
        task: As `make_task` returns it.
        seed: Decides which general entities are asked.
        n_general: General entities at most (a world of one type has none; general text is then all there is).
        known_facts: (entity id, relation) pairs the model knows; others are not asked.

    Raises:
        DataError: If the task was made from another world.
    """
    if world.name != task.world:
        raise DataError(f"the task was made from world {task.world!r}, not {world.name!r}; pass the same world")
    questions = Questions(world, task.seed)
    linked = _links(world, task)
    used = {e.id for e in (*task.target_entities, *task.known_ref, *task.known_eval)}
    others = [e for e in world.entities if e.type != task.type and e.id not in used]
    direct = [e for e in others if e.id in linked]
    order = numpy_rng(seed, "general neighbours", world.name, task.type).permutation(len(others))
    general = [others[i] for i in order if others[i].id not in linked][:n_general]
    names = _names(task.target_entities)
    added: list[Prompt] = []
    for entity in (*direct, *general):
        for prompt in questions.ask([entity], direct_relations(world, entity.type), "train"):
            known = known_facts is None or (prompt.entity, prompt.relation) in known_facts
            if known and not _mentions(prompt, names):
                added.append(prompt)
    kept = [p for p in task.retain_train.prompts if p.entity not in linked or not _mentions(p, names)]
    task = replace(task, retain_train=replace(task.retain_train, prompts=(*kept, *added)))
    labels = [Neighbour(e.id, linked[e.id], "direct") for e in (*task.known_ref, *direct) if e.id in linked]
    labels += indirect_neighbours(task, [e for e in task.known_ref if e.id not in linked])
    labels += [Neighbour(e.id, "", "general") for e in general]
    return replace(task, near=tuple(labels))


def neighbour_sets(task: Task) -> dict[NeighbourKind, QASet]:
    """The retain questions of a task by kind of neighbour (tasks without labels: see `labels_of`)."""
    labels = labels_of(task)
    found: dict[NeighbourKind, list[Prompt]] = {kind: [] for kind in KINDS}
    for prompt in task.retain_train.prompts:
        found[labels[prompt.entity].kind if prompt.entity in labels else "general"].append(prompt)
    return {
        kind: QASet(f"retain, {kind}", tuple(prompts), "" if prompts else f"the task has no {kind} neighbours")
        for kind, prompts in found.items()
    }


def labels_of(task: Task) -> dict[str, Neighbour]:
    """Neighbour label by entity id; of a task without labels, ``known_ref`` counts as indirect."""
    labels = {n.entity: n for n in task.near}
    missing = [e for e in task.known_ref if e.id not in labels]
    return {**labels, **{n.entity: n for n in indirect_neighbours(task, missing)}}


def indirect_neighbours(task: Task, entities: Sequence[Entity]) -> tuple[Neighbour, ...]:
    """Give each entity to the target it shares most answers with; ties go to the target that has fewest so far."""
    answers: dict[str, set[tuple[str, str]]] = {e.id: set() for e in task.target_entities}
    theirs: dict[str, set[tuple[str, str]]] = {e.id: set() for e in entities}
    for prompts, found in ((task.forget_train.prompts, answers), (task.retain_train.prompts, theirs)):
        for p in prompts:
            if p.entity in found:
                found[p.entity].add((p.relation, p.answer.casefold()))
    taken = dict.fromkeys(answers, 0)
    out = []
    for entity in entities if answers else ():
        shared = {t: len(found & theirs[entity.id]) for t, found in answers.items()}
        target = max(answers, key=lambda t, shared=shared: (shared[t], -taken[t]))
        taken[target] += 1
        out.append(Neighbour(entity.id, target, "indirect"))
    return tuple(out)


def _links(world: World, task: Task) -> Mapping[str, str]:
    """Entity id to the first target that it is directly connected to."""
    by_name = {name: e.id for e in world.entities for name in _names([e])}
    answers: dict[str, list[str]] = {}
    for fact in world.facts:
        if ">" not in fact.relation:
            answers.setdefault(fact.subject, []).extend(a.casefold() for a in (fact.answer, *fact.also))
    linked: dict[str, str] = {}
    for target in task.target_entities:
        own = _names([target])
        named = {by_name[a] for a in answers.get(target.id, ()) if a in by_name}
        for entity in world.entities:
            names_it = any(a in own for a in answers.get(entity.id, ()))
            if entity.id != target.id and (entity.id in named or names_it):
                linked.setdefault(entity.id, target.id)
    for target in task.target_entities:
        linked.pop(target.id, None)
    return linked


def _names(entities: Iterable[Entity]) -> set[str]:
    return {n.casefold() for e in entities for n in (e.name, *e.aliases)}


def _mentions(prompt: Prompt, names: Collection[str]) -> bool:
    full = " ".join((prompt.full, *prompt.also)).casefold()
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", full) for name in names)
