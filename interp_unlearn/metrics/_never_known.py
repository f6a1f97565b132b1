"""The target's questions asked about unknown entities: the floor of every metric of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Entity, Prompt, Task, answers_by_relation, ask_about, assigned_answers, fact_of


@dataclass(frozen=True)
class NeverKnown:
    """Which questions are asked about whom. Who stands in is known without a model, the assigned answers are not.

    Attributes:
        asked: The target's question behind each row.
        entities: The unknown entity that stands in, per row.
        rounds: How often the target's entities have been replaced before, per row; each round assigns other answers.
        seed: Of the assigned answers.
    """

    asked: tuple[Prompt, ...]
    entities: tuple[Entity, ...]
    rounds: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.asked)

    def prompts(self, model: HookedModel, task: Task) -> tuple[Prompt, ...]:
        """The questions with assigned answers; wrong options are the original's and the original's answer.

        An assigned answer is wrong for the fact that it stands for, of the same relation, and as long in tokens as the
        right one where possible.
        """
        answers = {
            r: assigned_answers(model, task, self.asked, self.seed, r, keep_from="fact")
            for r in sorted(set(self.rounds))
        }
        made = []
        for p, entity, r in zip(self.asked, self.entities, self.rounds, strict=True):
            answer = answers[r][fact_of(p)]
            options = tuple(o for o in dict.fromkeys((p.answer, *p.options)) if o.casefold() != answer.casefold())
            made.append(replace(ask_about(p, entity, answer), options=options))
        return tuple(made)


def never_known(task: Task, prompts: Sequence[Prompt], *, at_most: int, seed: int = 0) -> NeverKnown:
    """Ask ``prompts`` about unknown entities that no recipe has seen (``unknown_eval``).

    Each round replaces every entity of ``prompts`` by an unknown one, until all of these have been used.

    Args:
        task: Unknown entities, and answers to assign.
        prompts: Questions of the target.
        at_most: Rows; a larger number is thinned at random.
        seed: Of the choices.

    Raises:
        DataError: If there is nobody to ask about or nothing to assign, see `why_no_never_known`.
    """
    why = why_no_never_known(task, prompts)
    if why:
        raise DataError(f"the never-known control cannot be made: {why}")
    unknown = [task.unknown_eval[int(i)] for i in numpy_rng(seed, "stand-ins").permutation(len(task.unknown_eval))]
    entities = list(dict.fromkeys(p.entity for p in prompts))
    rows = [
        (p, unknown[(entities.index(p.entity) + r * len(entities)) % len(unknown)], r)
        for r in range(-(-len(unknown) // len(entities)))
        for p in prompts
    ]
    rows = [rows[i] for i in thin(len(rows), at_most, seed, "never-known rows")]
    return NeverKnown(tuple(p for p, _, _ in rows), tuple(e for _, e, _ in rows), tuple(r for _, _, r in rows), seed)


def why_no_never_known(task: Task, prompts: Sequence[Prompt]) -> str:
    """Why the control cannot be made, or an empty string."""
    if not prompts:
        return "there is no question about the target"
    if not task.unknown_eval:
        return "the task has no unknown entities held out for evaluation"
    for relation, answers in answers_by_relation(task, prompts).items():
        own = [{a.casefold() for a in (p.answer, *p.also)} for p in prompts if p.relation == relation]
        if any(all(a.casefold() in right for a in answers) for right in own):
            return f"the task has no other answers for relation {relation!r}"
    return ""


def thin(n: int, at_most: int, seed: int, *purpose: str) -> list[int]:
    """Indices of at most so many of n rows, drawn by the seed, in order."""
    if n <= at_most:
        return list(range(n))
    return sorted(numpy_rng(seed, *purpose).permutation(n)[:at_most].tolist())
