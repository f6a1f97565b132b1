"""What a model really knows: only facts that it can answer are worth forgetting, or serve as neighbours.

A fact is asked in several templates. It is *known* if greedy decoding gives a right answer in at least one of them,
and a right answer ranks first among wrong ones of the same type in at least half.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from interp_unlearn._core import DataError, FileFormatError, NothingToForgetError, __version__
from interp_unlearn.hooked import HookedModel, answer_batch, answer_logits
from interp_unlearn.worlds._questions import Questions, direct_relations
from interp_unlearn.worlds._types import Prompt, Task, World


@dataclass(frozen=True)
class FactKnowledge:
    """What a model knows of one fact.

    Attributes:
        entity: Entity id.
        relation: Relation.
        answer: The canonical answer.
        n_templates: Templates asked.
        first: Share of templates in which a right answer ranks first among the options.
        exact: Share of templates in which greedy decoding gives a right answer.
    """

    entity: str
    relation: str
    answer: str
    n_templates: int
    first: float
    exact: float

    @property
    def known(self) -> bool:
        """Whether the fact counts as known: ``exact`` somewhere, and ``first`` in at least half of the templates."""
        return self.exact > 0 and self.first >= 0.5


@dataclass(frozen=True)
class Knowledge:
    """What a model knows of a world; made by `known`.

    Attributes:
        model: Name of the model.
        world: Name of the world.
        facts: One entry per fact asked.
        config: How it was measured.
        version: Library version.
    """

    model: str
    world: str
    facts: tuple[FactKnowledge, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def known_facts(self) -> frozenset[tuple[str, str]]:
        """(entity id, relation) of every known fact, as `make_task` takes them."""
        return frozenset((f.entity, f.relation) for f in self.facts if f.known)

    def known_entities(self, min_relations: int = 1) -> tuple[str, ...]:
        """Ids of entities of which at least ``min_relations`` facts are known, sorted."""
        counts: dict[str, int] = {}
        for entity, _ in self.known_facts:
            counts[entity] = counts.get(entity, 0) + 1
        return tuple(sorted(e for e, n in counts.items() if n >= min_relations))

    def share(self, relation: str) -> float:
        """Share of the facts of a relation that are known, 0 to 1 (nan if none was asked)."""
        asked = [f.known for f in self.facts if f.relation == relation]
        return sum(asked) / len(asked) if asked else float("nan")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        return {
            "kind": "knowledge",
            "model": self.model,
            "world": self.world,
            "config": dict(self.config),
            "version": self.version,
            "facts": [
                [f.entity, f.relation, f.answer, f.n_templates, round(f.first, 4), round(f.exact, 4)]
                for f in self.facts
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> Knowledge:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: If it is something else.
        """
        if not isinstance(data, dict) or data.get("kind") != "knowledge":
            raise FileFormatError("this is not a saved knowledge file")
        facts = tuple(FactKnowledge(*row) for row in data["facts"])
        return cls(data["model"], data["world"], facts, data["config"], data["version"])


def known(
    model: HookedModel,
    world: World,
    *,
    relations: Sequence[str] = (),
    entities: Collection[str] | None = None,
    seed: int = 0,
    n_options: int = 10,
    n_templates: int = 4,
    batch_size: int = 32,
    progress: bool = False,
) -> Knowledge:
    """Ask a model for the facts of a world.

    Costs about one short forward pass per fact, template and right answer: options are scored only where the first
    token of a wrong answer leaves open whether it ranks before the right one.

    Args:
        model: A language model with a tokenizer.
        world: Facts, templates and options.
        relations: Relations to ask; empty means every one that can be forgotten.
        entities: Ids to ask about; None means all.
        seed: Of the choice of options.
        n_options: Wrong answers per question, at most.
        n_templates: Templates per fact, at most, half of them train templates and half held-out ones.
        batch_size: Prompts per forward pass.
        progress: Show a bar on standard error.

    Raises:
        DataError: If there is nothing to ask.
    """
    questions = Questions(world, seed, n_options)
    prompts: list[Prompt] = []
    for type in world.types:
        wanted = [r for r in direct_relations(world, type) if not relations or r in relations]
        chosen = [e for e in world.of_type(type) if entities is None or e.id in entities]
        for relation in wanted:
            train, held = (
                sorted({t.id for t in world.templates if (t.type, t.relation, t.split) == (type, relation, split)})
                for split in ("train", "heldout")
            )
            half = max(1, n_templates // 2)
            picked = {*held[:half], *train[: max(1, n_templates - min(half, len(held)))]}
            for split in ("train", "heldout"):
                prompts += [p for p in questions.ask(chosen, [relation], split) if p.template in picked]
    if not prompts:
        raise DataError(f"{world.name} has no facts to ask under these relations and entities")
    ranked = rank_answers(model, prompts, batch_size=batch_size, progress=progress)
    grouped: dict[tuple[str, str], list[int]] = {}
    for i, prompt in enumerate(prompts):
        grouped.setdefault((prompt.entity, prompt.relation), []).append(i)
    facts = tuple(
        FactKnowledge(
            entity,
            relation,
            prompts[rows[0]].answer,
            len(rows),
            sum(ranked.first[i] for i in rows) / len(rows),
            sum(ranked.exact[i] for i in rows) / len(rows),
        )
        for (entity, relation), rows in grouped.items()
    )
    config = {"relations": list(relations), "seed": seed, "n_options": n_options, "n_templates": n_templates}
    return Knowledge(model.name, world.name, facts, config)


def require_known(model: HookedModel, task: Task, *, batch_size: int = 32) -> float:
    """See that the model knows the target before anything is forgotten.

    Returns:
        Share of the task's base and paraphrased questions in which a right answer ranks first, 0 to 1.

    Raises:
        NothingToForgetError: If no question is answered by greedy decoding, or a right answer ranks first in fewer
            than a quarter of them.
    """
    prompts = [*task.forget_train.prompts, *task.forget_heldout.prompts]
    ranked = rank_answers(model, prompts, batch_size=batch_size)
    share = sum(ranked.first) / len(prompts)
    if not any(ranked.exact) or share < 0.25:
        names = ", ".join(e.name for e in task.target_entities)
        raise NothingToForgetError(
            f"nothing to forget: the model does not know {names} ({sum(ranked.exact)} of {len(prompts)} questions "
            f"answered, the right answer ranks first in {share:.0%}); choose an entity it knows"
        )
    return share


@dataclass(frozen=True)
class Ranked:
    """Answers of each prompt, judged.

    Attributes:
        first: Whether a right answer is more likely than every wrong option (summed log-probability).
        exact: Whether greedy decoding gives a right answer.
        logprob: Log-probability of the likeliest right answer, in nats.
        scored: How many wrong options had to be scored in full.
    """

    first: tuple[bool, ...]
    exact: tuple[bool, ...]
    logprob: tuple[float, ...]
    scored: int


@torch.no_grad()
def rank_answers(
    model: HookedModel, prompts: Sequence[Prompt], *, batch_size: int = 32, progress: bool = False
) -> Ranked:
    """Rank the right answers of each prompt against its wrong options.

    A wrong option is at most as likely as its first token. So it is scored in full only if its first token is
    likelier than the right answer as a whole; the result is the same as scoring every option.
    """
    texts = [(i, a) for i, p in enumerate(prompts) for a in (p.answer, *p.also)]
    best = [-float("inf")] * len(prompts)
    exact = [False] * len(prompts)
    rivals: list[dict[str, float]] = [{} for _ in prompts]  # option -> log-probability of its first token
    for rows, logprob, right, ahead in _score(model, prompts, texts, batch_size, progress, look_ahead=True):
        for (i, _), value, is_exact, options in zip(rows, logprob, right, ahead, strict=True):
            exact[i] |= is_exact
            best[i] = max(best[i], value)
            rivals[i].update(options)
    open_rivals = [(i, o) for i, options in enumerate(rivals) for o, bound in options.items() if bound >= best[i]]
    first = [True] * len(prompts)
    for rows, logprob, _, _ in _score(model, prompts, open_rivals, batch_size, progress, look_ahead=False):
        for (i, _), value in zip(rows, logprob, strict=True):
            first[i] &= value < best[i]
    return Ranked(tuple(first), tuple(exact), tuple(best), len(open_rivals))


def _score(
    model: HookedModel,
    prompts: Sequence[Prompt],
    texts: Sequence[tuple[int, str]],
    batch_size: int,
    progress: bool,
    *,
    look_ahead: bool,
) -> Any:
    """Score (prompt index, answer) pairs in batches of like length.

    Yields:
        The pairs, their log-probabilities, whether each is what greedy decoding gives, and, with ``look_ahead``, the
        log-probability of the first token of every option of the prompt.
    """
    order = sorted(range(len(texts)), key=lambda k: (len(prompts[texts[k][0]].text) + len(texts[k][1]), k))
    firsts: dict[str, int] = {}
    bar = tqdm(total=len(texts), desc="asking the model", disable=not progress, leave=False)
    for start in range(0, len(order), batch_size):
        rows = [texts[k] for k in order[start : start + batch_size]]
        encoded = answer_batch(model, [prompts[i].text for i, _ in rows], [a for _, a in rows])
        logits = answer_logits(model, encoded).log_softmax(-1)
        at, columns = encoded.answer.nonzero(as_tuple=True)
        ids = encoded.batch.tokens[at, columns]
        sums = torch.zeros(len(rows), device=logits.device)
        logprob = sums.index_add(0, at, logits.gather(1, ids[:, None])[:, 0])
        exact = sums.index_add(0, at, (logits.argmax(-1) != ids).float()) == 0
        ahead: list[dict[str, float]] = [{} for _ in rows]
        if look_ahead:
            first = torch.searchsorted(at, torch.arange(len(rows), device=at.device))  # of each row's answer tokens
            after = logits[first]
            for r, (i, _) in enumerate(rows):
                ids = [_first_token(model, o, firsts) for o in prompts[i].options]
                ahead[r] = dict(zip(prompts[i].options, after[r, ids].tolist(), strict=True)) if ids else {}
        bar.update(len(rows))
        yield rows, logprob.tolist(), exact.tolist(), ahead
    bar.close()


def _first_token(model: HookedModel, answer: str, cache: dict[str, int]) -> int:
    """The first token of an answer after a space."""
    if answer not in cache:
        encoded = answer_batch(model, ["x"], [answer])
        cache[answer] = int(encoded.batch.tokens[0, int(encoded.answer[0].int().argmax())])
    return cache[answer]
