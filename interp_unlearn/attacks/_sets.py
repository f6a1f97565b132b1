"""Which questions are relearned and which are tested, for the target and for facts that were never known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from interp_unlearn._core import ConfigError, DataError, numpy_rng
from interp_unlearn.attacks._config import RelearnConfig
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import FactKey, Prompt, Task, ask_about, assigned_answers, fact_of


@dataclass(frozen=True)
class RelearnSets:
    """Questions of one relearning.

    Attributes:
        relearned: Questions whose answers are taught.
        tests: By name: ``"relearned"`` (the same questions), ``"heldout"`` (the same facts in templates that are not
            taught) and, when a part of the facts is taught, ``"rest"`` (facts that are not taught, held-out templates).
    """

    relearned: tuple[Prompt, ...]
    tests: Mapping[str, tuple[Prompt, ...]]


def target_sets(task: Task, config: RelearnConfig) -> RelearnSets:
    """The target's questions: what is relearned comes from ``forget_train``, what is tested from ``forget_heldout``.

    Raises:
        DataError: If either set is empty.
        ConfigError: If ``fact_share`` leaves nothing to test.
    """
    if not task.forget_train.prompts:
        raise DataError(f"the forget set is empty ({task.forget_train.why_empty or 'no prompts'}): nothing to relearn")
    if not task.forget_heldout.prompts:
        why = task.forget_heldout.why_empty or "no prompts"
        raise DataError(f"there is no held-out question about the target ({why}); relearning could not be tested")
    taught = _taught_facts(task, config)
    relearned = _with_templates(task, taught, config)
    heldout = [p for p in task.forget_heldout.prompts if fact_of(p) in taught]
    rest = [p for p in task.forget_heldout.prompts if fact_of(p) not in taught]
    tests = {"relearned": _at_most(relearned, config, "relearned")}
    if heldout:
        tests["heldout"] = _at_most(heldout, config, "heldout")
    if rest and config.fact_share < 1:
        tests["rest"] = _at_most(rest, config, "rest")
    if len(tests) == 1:
        raise DataError("no held-out question asks one of the relearned facts; relearning could not be tested")
    return RelearnSets(relearned, tests)


def _taught_facts(task: Task, config: RelearnConfig) -> set[FactKey]:
    """Facts to relearn: all, or a share of the entities (of the facts, when there is one entity)."""
    facts = list(dict.fromkeys(fact_of(p) for p in task.forget_train.prompts))
    if config.fact_share == 1:
        return set(facts)
    entities = list(dict.fromkeys(entity for entity, _ in facts))
    units: Sequence[str | FactKey] = entities if len(entities) > 1 else facts
    if len(units) < 2:
        raise ConfigError(
            f"relearn.fact_share is {config.fact_share}, but the target is a single fact: nothing would be left to "
            "test; leave it at 1 or forget more entities or relations"
        )
    n = min(max(round(config.fact_share * len(units)), 1), len(units) - 1)
    drawn = numpy_rng(config.seed, "relearned facts").permutation(len(units))[:n]
    chosen = {units[i] for i in drawn}
    return {f for f in facts if f in chosen or f[0] in chosen}


def _with_templates(task: Task, taught: set[FactKey], config: RelearnConfig) -> tuple[Prompt, ...]:
    """The prompts that are taught: some train templates of each relation, the same for all facts of the relation."""
    prompts = [p for p in task.forget_train.prompts if fact_of(p) in taught]
    single = len({p.entity for p in prompts}) == 1
    kept: list[Prompt] = []
    for relation in dict.fromkeys(p.relation for p in prompts):
        of_relation = [p for p in prompts if p.relation == relation]
        templates = list(dict.fromkeys(p.template for p in of_relation))
        n = config.templates_per_fact or ((len(templates) + 1) // 2 if single else 1)
        order = numpy_rng(config.seed, "relearned templates", relation).permutation(len(templates))
        chosen = {templates[i] for i in order[:n]}
        kept += [p for p in of_relation if p.template in chosen]
    return tuple(kept)


def _at_most(prompts: Sequence[Prompt], config: RelearnConfig, purpose: str) -> tuple[Prompt, ...]:
    if len(prompts) <= config.max_prompts:
        return tuple(prompts)
    chosen = numpy_rng(config.seed, "test prompts", purpose).permutation(len(prompts))[: config.max_prompts]
    return tuple(prompts[i] for i in sorted(chosen))


def never_known_sets(model: HookedModel, task: Task, config: RelearnConfig, draw: int = 0) -> RelearnSets:
    """The same questions about unknown entities, each with an assigned answer that other entities have.

    Every target entity is replaced by an unknown one in the same templates, so prompts, facts and steps are equal in
    number. An assigned answer has, as far as possible, as many tokens as the answer it stands for; it is the same in
    every template of a fact, and not a right answer of the target (see `assigned_answers`).

    Args:
        model: Its tokenizer counts the answers' tokens.
        task: The target's task.
        config: ``control_entities`` and ``seed`` decide.
        draw: Which of several draws.

    Raises:
        DataError: If there are fewer unknown entities than target entities, or no answers to assign.
    """
    sets = target_sets(task, config)
    unknown = getattr(task, config.control_entities)
    entities = list(dict.fromkeys(p.entity for p in (*sets.relearned, *_all(sets.tests.values()))))
    if len(unknown) < len(entities):
        raise DataError(
            f"the never-known control needs {len(entities)} unknown entities, but {config.control_entities} has "
            f"{len(unknown)}; make the task with more (n_unknown), or set relearn.controls to 0"
        )
    order = numpy_rng(config.seed, "never-known entities", draw).permutation(len(unknown))
    stand_in = {entity: unknown[int(i)] for entity, i in zip(entities, order, strict=False)}
    answers = assigned_answers(model, task, (*sets.relearned, *_all(sets.tests.values())), config.seed, draw)

    def replaced(prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        return tuple(ask_about(p, stand_in[p.entity], answers[fact_of(p)]) for p in prompts)

    return RelearnSets(replaced(sets.relearned), {name: replaced(prompts) for name, prompts in sets.tests.items()})


def _all(groups: Iterable[tuple[Prompt, ...]]) -> list[Prompt]:
    return [p for group in groups for p in group]
