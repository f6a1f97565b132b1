"""Fill templates with facts: where questions are made, and where it is decided what a relation rests on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.worlds._types import Entity, Fact, Prompt, Split, Template, World

PLACEHOLDER = re.compile(r"\{(\w+)\}")


def direct_relations(world: World, type: str) -> tuple[str, ...]:
    """Relations of a type that are asked in one hop, forwards, and may be trained on, sorted.

    The others, two-hop and backwards, exist for evaluation only.
    """
    asked = {
        t.relation for t in world.templates if t.type == type and t.relation and t.split == "train" and t.hops == 1
    }
    return tuple(sorted(asked))


def rests_on(relation: str, direct: Iterable[str]) -> tuple[str, ...]:
    """The direct relations that a question needs.

    ``capital_of`` and ``work_by`` ask ``capital`` and ``work`` backwards; ``a>b`` asks ``b`` through ``a``. The
    second hop may belong to another entity and is then not among ``direct``.
    """
    direct = set(direct)
    parts = [p if p in direct else p.removesuffix("_of").removesuffix("_by") for p in relation.split(">")]
    return tuple(p for p in parts if p in direct)


def is_backwards(template: Template) -> bool:
    """Whether a template names the entity by one of its facts instead of by its name, in one hop."""
    return bool(template.relation) and template.hops == 1 and "{name}" not in template.text


def fill_question(template: Template, entity: Entity, values: Mapping[str, str]) -> tuple[str, tuple[int, int]] | None:
    """The question about ``entity`` and the span of what stands for it.

    Args:
        template: Its placeholder is ``{name}``, or a relation whose value stands for the entity.
        entity: Asked about.
        values: Canonical answers of the entity by relation.

    Returns:
        Text and character span; None if the entity lacks the fact that should stand for it.
    """
    found = PLACEHOLDER.findall(template.text)
    if len(found) != 1:
        raise DataError(f"template {template.id!r} must have exactly one placeholder, it has {len(found)}")
    handle = entity.name if found[0] == "name" else values.get(found[0])
    if handle is None:
        return None
    start = template.text.index("{")
    return template.text.replace("{" + found[0] + "}", handle), (start, start + len(handle))


@dataclass(frozen=True)
class Questions:
    """Makes the prompts of one world; wrong answer options are fixed by the seed.

    Attributes:
        world: Facts and templates.
        seed: Of the choice of options.
        n_options: Wrong answers per prompt, at most.
    """

    world: World
    seed: int = 0
    n_options: int = 10

    @cached_property
    def _types(self) -> dict[str, str]:
        return {e.id: e.type for e in self.world.entities}

    @cached_property
    def _answers(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Canonical answers by (type, relation), sorted."""
        found: dict[tuple[str, str], set[str]] = {}
        for fact in self.world.facts:
            found.setdefault((self._types[fact.subject], fact.relation), set()).add(fact.answer)
        return {key: tuple(sorted(answers)) for key, answers in found.items()}

    @cached_property
    def _facts(self) -> dict[str, dict[str, Fact]]:
        found: dict[str, dict[str, Fact]] = {}
        for fact in self.world.facts:
            found.setdefault(fact.subject, {})[fact.relation] = fact
        return found

    def facts_of(self, entity: str) -> dict[str, Fact]:
        """Facts of an entity by relation."""
        return self._facts.get(entity, {})

    def options(self, fact: Fact) -> tuple[str, ...]:
        """Wrong answers of the same relation and type, shuffled by the seed; never one that also counts as right."""
        right = {fact.answer.casefold(), *(a.casefold() for a in fact.also)}
        wrong = [a for a in self._answers[self._types[fact.subject], fact.relation] if a.casefold() not in right]
        rng = numpy_rng(self.seed, "options", self.world.name, fact.subject, fact.relation)
        return tuple(wrong[i] for i in rng.permutation(len(wrong))[: self.n_options])

    def prompt(self, template: Template, entity: Entity) -> Prompt | None:
        """One question, or None if the entity has no such fact."""
        facts = self.facts_of(entity.id)
        fact = facts.get(template.relation)
        filled = fill_question(template, entity, {r: f.answer for r, f in facts.items()}) if fact else None
        if fact is None or filled is None:
            return None
        text, span = filled
        return Prompt(
            text, fact.answer, entity.id, fact.relation, template.id, span, also=fact.also, options=self.options(fact)
        )

    def ask(
        self,
        entities: Sequence[Entity],
        relations: Iterable[str],
        split: Split,
        *,
        hops: int = 1,
        backwards: bool = False,
    ) -> tuple[Prompt, ...]:
        """Every question of a kind, entity by entity.

        Args:
            entities: Asked about.
            relations: Relations asked.
            split: Of the templates.
            hops: 1 or 2.
            backwards: Only templates that do (True) or do not (False) ask backwards.
        """
        wanted = set(relations)
        out: list[Prompt] = []
        for entity in entities:
            for template in self.world.templates:
                if template.type != entity.type or template.relation not in wanted or template.hops != hops:
                    continue
                if template.split != split or is_backwards(template) != backwards:
                    continue
                prompt = self.prompt(template, entity)
                if prompt is not None:
                    out.append(prompt)
        return tuple(out)
