"""A world and a task from your own questions (`read_questions`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from interp_unlearn._core import DataError, NothingToForgetError, nearest, numpy_rng
from interp_unlearn.worlds._names import invent_names
from interp_unlearn.worlds._own import OwnQuestion
from interp_unlearn.worlds._real import general_text, slug, table_names
from interp_unlearn.worlds._task import _unknown
from interp_unlearn.worlds._types import Entity, Fact, Prompt, QASet, Target, Task, Template, World

NAME = "questions"
TYPE = "entity"
ENOUGH = 30
"""Fewer names than this do not tell how names are spelled; those of the shipped tables then help."""
FRAMES = ("Question: {q}\nAnswer:", "Q: {q}\nA:")
"""How a question is put in training-like and in held-out form; a text that is no question stands as it is."""
CLOZE = "Complete the sentence. {q}"
"""Held-out form of a text that is no question and has no paraphrase."""
N_OPTIONS = 10
MENTIONS = (
    (
        "Yesterday we talked about {name}",
        "There was a long article about {name}",
        "The radio had a programme about {name}",
        "She has read everything about {name}",
        "The quiz had a question about {name}",
        "My sister often speaks of {name}",
        "The teacher told the class a story about {name}",
        "A new report about {name} was published today",
    ),
    (
        "The students wrote an essay about {name}",
        "In the archive they found notes about {name}",
        "The evening was devoted to {name}",
        "He had never thought much about {name}",
        "They spent an hour on {name} and then left",
        "The lecture on {name} begins at noon",
        "Everybody in the room had an opinion on {name}",
        "The article about {name} was short and clear",
    ),
)


def questions_world(
    rows: Sequence[OwnQuestion], *, tokenizer: Any = None, n_unknown: int = 120, seed: int = 0, corpus: Any = None
) -> World:
    """The entities and facts of a file of questions, with unknown entities: those given, else invented ones.

    Args:
        rows: As `read_questions` returns them.
        tokenizer: The model's; invented names are matched to the file's in its tokens.
        n_unknown: Names to invent, if the file gives none.
        seed: Of the invented names.
        corpus: Text file to use instead of the shipped general text, paragraphs separated by empty lines.
    """
    entities, unknown = _entities(rows, False), _entities(rows, True)
    given = bool(unknown)
    if not given:
        names = [e.name for e in entities]
        like = names if len(names) >= ENOUGH else [*names, *sorted(table_names() - set(names))]
        taboo = {a for row in rows for a in (row.answer, *row.also)} | table_names()
        invented = invent_names(tokenizer, like, n_unknown, seed, sorted(taboo | set(names)))
        unknown = tuple(Entity(f"unknown-{TYPE}-{i}", n, TYPE, invented=True) for i, n in enumerate(invented))
    ids = {e.name: e.id for e in entities}
    train, held = general_text(corpus)
    source = "The questions are the user's own."
    names_from = "Unknown entities are those of the file." if given else "Unknown names are invented."
    bare = any(row.role != "unknown" and not row.paraphrases for row in rows)
    frames = "Questions without paraphrases are held out in the same words inside another frame." if bare else ""
    return World(
        name=NAME,
        entities=entities,
        unknown=unknown,
        facts=tuple(Fact(ids[r.entity], r.relation, r.answer, r.also) for r in rows if r.role != "unknown"),
        templates=tuple(
            Template(f"mention-{split}-{i}", "", TYPE, text, split)
            for split, texts in zip(("train", "heldout"), MENTIONS, strict=True)
            for i, text in enumerate(texts)
        ),
        text_train=train,
        text_eval=held,
        sources=tuple(s for s in (source, frames, names_from) if s),
    )


def _entities(rows: Sequence[OwnQuestion], unknown: bool) -> tuple[Entity, ...]:
    names = dict.fromkeys(row.entity for row in rows if (row.role == "unknown") == unknown)
    return tuple(Entity(f"{slug(n) or 'entity'}-{i}", n, TYPE, invented=unknown) for i, n in enumerate(names))


def questions_task(
    rows: Sequence[OwnQuestion],
    world: World,
    entities: Sequence[str] = (),
    *,
    relations: Sequence[str] = (),
    seed: int = 0,
    tokenizer: Any = None,
    n_known: int = 40,
    n_unknown: int = 40,
    known: Callable[[Sequence[Prompt]], Collection[int]] | None = None,
) -> Task:
    """The task of a file of questions: what is to be forgotten, what must stay, and unknown entities beside them.

    ``forget_train`` and ``retain_train`` hold the questions as they are; ``forget_heldout`` and ``neighbours`` their
    paraphrases, or the same words in another frame where there are none.

    Args:
        rows: As `read_questions` returns them.
        world: Made from them by `questions_world`.
        entities: Names or ids to forget; default every entity with a question to forget.
        relations: Of these only; default all.
        seed: Of the splits and of the wrong options.
        tokenizer: The model's; unknown names are matched to known ones in its tokens.
        n_known: Retained entities at most, half for recipes and half for evaluation.
        n_unknown: Unknown entities likewise; at least twice as many as targets are taken where there are so many.
        known: Tells which prompts the model can answer; facts of which it answers none are left out.

    Raises:
        DataError: If an entity or relation is not in the file, or fewer than two retained entities are left.
        NothingToForgetError: If the model knows none of the questions to forget.
    """
    asked = _Asked(rows, world, seed)
    wanted = {world.entity(name).id for name in entities}
    forget = [r for r in rows if r.role == "forget" and (not wanted or asked.id(r) in wanted)]
    absent = wanted - {asked.id(r) for r in forget}
    if absent:
        raise DataError(
            f'{world.entity(sorted(absent)[0]).name} has no question with "role": "forget" in the file; correct the '
            "role, or choose another target"
        )
    unasked = next((r for r in relations if r not in {row.relation for row in forget}), None)
    if unasked is not None:
        having = sorted({row.relation for row in forget})
        raise DataError(f"no question to forget has relation {unasked!r}{nearest(unasked, having)}")
    forget = [r for r in forget if not relations or r.relation in relations]
    targets = tuple(e for e in world.entities if e.id in {asked.id(r) for r in forget})
    kept = [r for r in rows if r.role == "retain" and asked.id(r) not in {e.id for e in targets}]
    own = [r for r in rows if r.role == "retain" and asked.id(r) in {e.id for e in targets}]
    if known is not None:
        asked_of = [*forget, *kept, *own]
        right = _known_rows(asked, asked_of, known)
        forget, kept, own = ([r for r in part if r in right] for part in (forget, kept, own))
        targets = tuple(e for e in targets if e.id in {asked.id(r) for r in forget})
    if not forget:
        raise NothingToForgetError("nothing to forget: the model answers none of the questions to forget")
    known_ref, known_eval = _split(world, {asked.id(r) for r in kept}, seed, n_known)
    n_unknown = max(n_unknown, 2 * len(targets))
    unknown_ref, unknown_eval = _unknown(world, TYPE, (known_ref, known_eval), seed, n_unknown, tokenizer)
    ref, held = {e.id for e in known_ref}, {e.id for e in known_eval}
    answers = {r.answer.casefold() for r in forget}
    absent_sets = "the file of questions has none"
    return Task(
        world=world.name,
        target=Target(tuple(e.id for e in targets), tuple(relations)),
        seed=seed,
        type=TYPE,
        target_entities=targets,
        known_ref=known_ref,
        known_eval=known_eval,
        unknown_ref=unknown_ref,
        unknown_eval=unknown_eval,
        forget_train=QASet("base", asked.plain(forget)),
        forget_heldout=QASet("paraphrased", asked.held(forget)),
        multi_hop=QASet("multi_hop", (), absent_sets),
        same_answer=_set(
            "same_answer",
            asked.held([r for r in kept if r.answer.casefold() in answers and asked.id(r) not in ref]),
            "no other entity of the file has one of these answers",
        ),
        retain_train=QASet("retain", asked.plain([r for r in kept if asked.id(r) in ref])),
        neighbours=QASet("neighbours", asked.held([r for r in kept if asked.id(r) in held])),
        mention_train=tuple(t for t in world.templates if t.split == "train"),
        mention_heldout=tuple(t for t in world.templates if t.split == "heldout"),
        text_train=world.text_train,
        text_eval=world.text_eval,
        backwards=QASet("backwards", (), absent_sets),
        own_other=_set("own_other", asked.held(own), "the file has no retained question about the target"),
        sources=world.sources,
    )


def _set(name: str, prompts: tuple[Prompt, ...], why_empty: str) -> QASet:
    return QASet(name, prompts, "" if prompts else why_empty)


def _known_rows(
    asked: _Asked, rows: Sequence[OwnQuestion], known: Callable[[Sequence[Prompt]], Collection[int]]
) -> list[OwnQuestion]:
    prompts = [(i, p) for i, row in enumerate(rows) for p in (*asked.plain([row]), *asked.held([row]))]
    right = set(known([p for _, p in prompts]))
    return [rows[i] for i in sorted({i for k, (i, _) in enumerate(prompts) if k in right})]


def _split(world: World, ids: set[str], seed: int, n: int) -> tuple[tuple[Entity, ...], tuple[Entity, ...]]:
    pool = sorted((e for e in world.entities if e.id in ids), key=lambda e: e.id)
    order = numpy_rng(seed, "known entities", world.name, TYPE).permutation(len(pool))
    chosen = [pool[i] for i in order][:n]
    if len(chosen) < 2:
        raise DataError(
            f"the model knows {len(chosen)} entities with questions to retain besides the target; at least 2 are "
            'needed: add rows with "role": "retain" about other entities that it knows'
        )
    return tuple(chosen[::2]), tuple(chosen[1::2])


class _Asked:
    """Makes the prompts of rows."""

    def __init__(self, rows: Sequence[OwnQuestion], world: World, seed: int) -> None:
        self._ids = {e.name: e.id for e in world.entities}
        self._seed = seed
        self._world = world.name
        self._of_relation: dict[str, set[str]] = {}
        for row in rows:
            if row.role != "unknown":
                self._of_relation.setdefault(row.relation, set()).add(row.answer)
        self._all = {a for answers in self._of_relation.values() for a in answers}

    def id(self, row: OwnQuestion) -> str:
        return self._ids[row.entity]

    def plain(self, rows: Sequence[OwnQuestion]) -> tuple[Prompt, ...]:
        """Each question as it is."""
        return tuple(self._prompt(row, row.question, "question", 0) for row in rows)

    def held(self, rows: Sequence[OwnQuestion]) -> tuple[Prompt, ...]:
        """The paraphrases of each question, or its own words in another frame."""
        out = []
        for row in rows:
            for i, text in enumerate(row.paraphrases):
                out.append(self._prompt(row, text, f"paraphrase-{i}", 0))
            if not row.paraphrases:
                out.append(self._prompt(row, row.question, "frame", 1))
        return tuple(out)

    def _prompt(self, row: OwnQuestion, text: str, template: str, frame: int) -> Prompt:
        if text.endswith("?"):
            text = FRAMES[frame].replace("{q}", text)
        elif frame:
            text = CLOZE.replace("{q}", text)
        start = text.rfind(row.entity)
        return Prompt(
            text,
            row.answer,
            self.id(row),
            row.relation,
            f"{row.relation}/{template}",
            (start, start + len(row.entity)),
            also=row.also,
            options=row.options or self._options(row),
        )

    def _options(self, row: OwnQuestion) -> tuple[str, ...]:
        """Wrong answers: those of the same relation, else those of the whole file."""
        right = {a.casefold() for a in (row.answer, *row.also)}
        pools = (self._of_relation[row.relation], self._all)
        found = ([a for a in sorted(pool) if a.casefold() not in right] for pool in pools)
        wrong = next((options for options in found if options), [])
        rng = numpy_rng(self._seed, "options", self._world, row.entity, row.relation)
        return tuple(wrong[i] for i in rng.permutation(len(wrong))[:N_OPTIONS])
