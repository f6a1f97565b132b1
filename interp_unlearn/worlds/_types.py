"""Worlds: entities, facts and templates with ground truth, from which every question set is made.

Everything here is a frozen dataclass; order is part of the data, so a seed gives the same sets in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from interp_unlearn._core import DataError, nearest

Split = Literal["train", "heldout"]
NeighbourKind = Literal["direct", "indirect", "general"]
Modality = Literal["language", "graph", "image"]
"""What a model reads."""
EVERY_MODALITY: tuple[Modality, ...] = ("language", "graph", "image")

ROW_GROUPS = ("target", "known_ref", "known_eval", "unknown_ref", "unknown_eval")
"""Groups of rows of activations of every task: the target, what the model knows and keeps, and what it never saw."""


@dataclass(frozen=True)
class Entity:
    """Something that facts are about.

    Attributes:
        id: Unique within its world, stable across versions.
        name: As written in prompts.
        type: ``"country"``, ``"person"`` …
        invented: True when no model can know it (an *unknown* entity).
        aliases: Other names that mean the same.
    """

    id: str
    name: str
    type: str
    invented: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One ground-truth fact: ``subject`` (an entity id) has ``answer`` under ``relation``.

    Attributes:
        subject: Entity id.
        relation: Relation name, e.g. ``"capital"``.
        answer: The canonical answer, as it follows the prompt.
        also: Other answers that count as right (a country with two official languages).
    """

    subject: str
    relation: str
    answer: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A way to ask one relation of one entity type.

    Attributes:
        id: Unique within its world.
        relation: Relation asked; empty for templates that only mention the entity.
        type: Entity type it is made for.
        text: Contains ``{name}`` once and ends where the answer begins, without trailing space.
        split: ``"train"`` may be used by a recipe; ``"heldout"`` only by evaluation.
        hops: 1, or 2 for a question through another entity (its text may contain ``{via}`` descriptions, never the
            answer).
    """

    id: str
    relation: str
    type: str
    text: str
    split: Split = "train"
    hops: int = 1


@dataclass(frozen=True)
class Prompt:
    """A question with its answer.

    Attributes:
        text: The prompt, ending where the answer begins (no trailing space; the answer is joined with one space).
        answer: The right answer.
        entity: Id of the entity asked about.
        relation: Relation asked.
        template: Template id.
        name_span: Character span of the entity's name in ``text``.
        also: Other right answers.
        options: Wrong answers of the same type, for ranking (fixed by seed).
    """

    text: str
    answer: str
    entity: str
    relation: str
    template: str
    name_span: tuple[int, int]
    also: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """Prompt and answer as one text."""
        return f"{self.text} {self.answer}"


@dataclass(frozen=True)
class QASet:
    """Prompts that are evaluated together.

    Attributes:
        name: ``"base"``, ``"paraphrased"``, ``"multi_hop"``, ``"same_answer"``, ``"neighbours"``, ``"retain"`` …
        prompts: The questions.
        why_empty: If there are none, the reason, for reports.
    """

    name: str
    prompts: tuple[Prompt, ...]
    why_empty: str = ""

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Mention:
    """A text that mentions an entity, for reading activations at the last token of its name.

    Attributes:
        text: Any text containing the name.
        entity: Entity id.
        template: Template id.
        name_span: Character span of the name (its last occurrence).
    """

    text: str
    entity: str
    template: str
    name_span: tuple[int, int]


@dataclass(frozen=True)
class Target:
    """What must be forgotten.

    Attributes:
        entities: Entity ids, at least one.
        relations: Relations to forget; empty means the whole entity.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Neighbour:
    """How an entity of the retain set stands to the target; made by `with_neighbours`.

    Attributes:
        entity: Entity id.
        target: Id of the target entity that it belongs to; empty for general ones.
        kind: ``direct`` (a fact connects them), ``indirect`` (of the same type) or ``general``.
    """

    entity: str
    target: str
    kind: NeighbourKind


@dataclass(frozen=True)
class World:
    """Ground truth: entities, unknown entities, facts, templates and general text.

    Attributes:
        name: World name.
        entities: Entities with facts.
        unknown: Invented entities of the same types without facts.
        facts: Ground truth.
        templates: Question templates (relation set) and mention templates (relation empty).
        text_train: General text a recipe may use to retain language.
        text_eval: General text held out for measuring.
        sources: Provenance sentences.
    """

    name: str
    entities: tuple[Entity, ...]
    unknown: tuple[Entity, ...]
    facts: tuple[Fact, ...]
    templates: tuple[Template, ...]
    text_train: tuple[str, ...] = ()
    text_eval: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def entity(self, name_or_id: str) -> Entity:
        """Find an entity by id, name or alias (case-insensitive).

        Raises:
            DataError: If there is none; the nearest names are shown.
        """
        wanted = name_or_id.casefold()
        for entity in (*self.entities, *self.unknown):
            if wanted in (entity.id.casefold(), entity.name.casefold(), *(a.casefold() for a in entity.aliases)):
                return entity
        names = [e.name for e in self.entities]
        raise DataError(f"{self.name} has no entity {name_or_id!r}{nearest(name_or_id, names)}")

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types, sorted."""
        return tuple(sorted({e.type for e in self.entities}))

    def relations(self, type: str) -> tuple[str, ...]:
        """Relations asked of an entity type, sorted."""
        return tuple(sorted({t.relation for t in self.templates if t.type == type and t.relation}))

    def of_type(self, type: str) -> tuple[Entity, ...]:
        """Entities with facts of one type, in order."""
        return tuple(e for e in self.entities if e.type == type)

    def unknown_of_type(self, type: str) -> tuple[Entity, ...]:
        """Unknown entities of one type, in order."""
        return tuple(e for e in self.unknown if e.type == type)

    def facts_of(self, entity: str) -> tuple[Fact, ...]:
        """Facts about one entity id."""
        return tuple(f for f in self.facts if f.subject == entity)


@dataclass(frozen=True)
class Task:
    """Everything one unlearning run needs to know about its data; made by `make_task`, saved in the run folder.

    Entities are split by id: the target; known entities for references and retaining (``known_ref``), known entities
    for evaluation only (``known_eval``); unknown ones likewise. A recipe sees ``forget_train``, ``retain_train``, the
    ``_ref`` entities, train templates and ``text_train``; evaluation uses the rest.

    Attributes:
        world: World name.
        target: What must be forgotten.
        seed: Seed of the splits.
        type: Entity type of the target.
        target_entities: The target's entities.
        known_ref: Known entities that a recipe may use.
        known_eval: Known entities held out for evaluation (neighbours).
        unknown_ref: Unknown entities that a recipe may use.
        unknown_eval: Unknown entities held out for evaluation.
        forget_train: Target questions, train templates.
        forget_heldout: Target questions, held-out templates (paraphrased).
        multi_hop: Questions that need the target's fact as one of two hops.
        same_answer: Other entities' questions with the target's answers, which must survive.
        retain_train: Questions about ``known_ref``, train templates.
        neighbours: Questions about ``known_eval``, held-out templates.
        mention_train: Templates with ``{name}`` for reading activations, usable by a recipe.
        mention_heldout: Templates held out for evaluation.
        text_train: General text.
        text_eval: General text for measuring.
        backwards: Questions that give a fact of the target and ask for the target.
        own_other: The target's other facts when only some relations are forgotten; they must survive.
        sources: Provenance sentences of the world.
        near: Labels of the retain set's entities, see `with_neighbours`; empty when none were made.
    """

    world: str
    target: Target
    seed: int
    type: str
    target_entities: tuple[Entity, ...]
    known_ref: tuple[Entity, ...]
    known_eval: tuple[Entity, ...]
    unknown_ref: tuple[Entity, ...]
    unknown_eval: tuple[Entity, ...]
    forget_train: QASet
    forget_heldout: QASet
    multi_hop: QASet
    same_answer: QASet
    retain_train: QASet
    neighbours: QASet
    mention_train: tuple[Template, ...]
    mention_heldout: tuple[Template, ...]
    text_train: tuple[str, ...] = ()
    text_eval: tuple[str, ...] = ()
    backwards: QASet = QASet("backwards", (), "no backwards questions were made")
    own_other: QASet = QASet("own_other", (), "no other facts were asked")
    sources: tuple[str, ...] = ()
    near: tuple[Neighbour, ...] = ()
    modality: ClassVar[Modality] = "language"

    def qa_sets(self) -> tuple[QASet, ...]:
        """The question sets, in reporting order."""
        return (
            self.forget_train,
            self.forget_heldout,
            self.multi_hop,
            self.backwards,
            self.same_answer,
            self.own_other,
            self.retain_train,
            self.neighbours,
        )

    def mentions(self, entities: Sequence[Entity], split: Split) -> tuple[Mention, ...]:
        """Every template of ``split`` filled with every entity, entity-major; all groups share templates."""
        templates = self.mention_train if split == "train" else self.mention_heldout
        return tuple(fill_mention(template, entity) for entity in entities for template in templates)


def fill_mention(template: Template, entity: Entity) -> Mention:
    """Put an entity's name into a template."""
    text = template.text.replace("{name}", entity.name)
    start = text.rfind(entity.name)
    return Mention(text, entity.id, template.id, (start, start + len(entity.name)))


def to_json(value: Any) -> Any:
    """Dataclasses of this module as plain JSON values."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value
