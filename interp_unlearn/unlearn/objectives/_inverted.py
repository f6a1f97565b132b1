"""Inverted facts: plausible but false answers, where they come from and which of them are used (for MEOW).

Sources are same-type swaps (the answers of other entities under the same relation), an offline language model
(`_inverted_writer`) and a file. Every candidate passes the same checks, whatever its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp_unlearn._core import DataError, FileFormatError, numpy_rng, read_json, write_json
from interp_unlearn.metrics import rouge_words
from interp_unlearn.worlds._types import Prompt, Task

Select = Literal["smallest", "largest", "random"]
FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "on", "at", "to", "for", "from", "by", "with", "and", "or", "is", "are", "was",
     "were", "be", "been", "it", "its", "his", "her", "their", "he", "she", "they", "this", "that", "as")
)  # fmt: skip


def _content(text: str) -> set[str]:
    return set(rouge_words(text, stem=False)) - FUNCTION_WORDS


@dataclass(frozen=True)
class Truths:
    """What a false answer must not say.

    Attributes:
        of_entity: Every answer that is true of an entity, whatever the relation, case-folded, by entity id.
        retained: Questions of the retain set with their answers, case-folded.
    """

    of_entity: dict[str, frozenset[str]]
    retained: frozenset[str]

    @classmethod
    def of(cls, task: Task) -> Truths:
        """Everything the task says is true of its target, and its retain facts."""
        found: dict[str, set[str]] = {}
        for prompt in (*task.forget_train.prompts, *task.forget_heldout.prompts, *task.own_other.prompts):
            found.setdefault(prompt.entity, set()).update(a.casefold() for a in (prompt.answer, *prompt.also))
        retained = frozenset(p.full.casefold() for p in task.retain_train.prompts)
        return cls({entity: frozenset(answers) for entity, answers in found.items()}, retained)

    def why_not(self, prompt: Prompt, candidate: str) -> str:
        """Why ``candidate`` is no inverted fact for ``prompt``, or an empty string."""
        plain = candidate.strip().casefold()
        if not plain:
            return "it is empty"
        if plain in self.of_entity.get(prompt.entity, ()) or plain == prompt.answer.casefold():
            return "it is true of the entity"
        for answer in (prompt.answer, *prompt.also):
            shared = _content(candidate) & (_content(answer) - _content(prompt.text))
            if shared:
                return f"it shares {min(shared)!r} with the true answer"
        if f"{prompt.text} {candidate.strip()}".casefold() in self.retained:
            return "it is a fact of the retain set"
        return ""

    def accepted(self, prompt: Prompt, candidates: Iterable[str], n: int) -> list[str]:
        """The first ``n`` different candidates that are false."""
        found: dict[str, str] = {}
        for candidate in candidates:
            if len(found) == n:
                break
            if not self.why_not(prompt, candidate):
                found.setdefault(candidate.strip().casefold(), candidate.strip())
        return list(found.values())


def swaps(task: Task, prompt: Prompt, seed: int) -> list[str]:
    """Answers of other entities under the prompt's relation, in an order fixed by seed, entity and relation.

    Taken from the prompt's wrong options and from the retain questions; all templates of a fact get the same list.
    """
    asked = (p.answer for p in task.retain_train.prompts if p.relation == prompt.relation)
    pool = list(dict.fromkeys((*sorted(prompt.options), *sorted(asked))))
    order = numpy_rng(seed, "swaps", prompt.entity, prompt.relation).permutation(len(pool))
    return [pool[i] for i in order]


def in_forms(candidates: Sequence[str], forms: Sequence[str]) -> list[str]:
    """Each candidate in one of the sentence forms, which take turns."""
    return [forms[i % len(forms)].replace("{answer}", c) for i, c in enumerate(candidates)]


# -- selection ------------------------------------------------------------------------------------------------------


def select_inverted(scores: Sequence[float], how: Select, top_k: int, rng: np.random.Generator) -> list[int]:
    """Indices of the chosen candidates, always different ones; ties keep the candidates' order.

    Args:
        scores: MEMO of each candidate.
        how: The least memorised first, the most memorised first, or at random.
        top_k: How many (all, if there are fewer).
        rng: For ``random``.
    """
    n = len(scores)
    if how == "random":
        return sorted(int(i) for i in rng.permutation(n)[:top_k])
    sign = 1 if how == "smallest" else -1
    return sorted(range(n), key=lambda i: (sign * scores[i], i))[:top_k]


def expand(chosen: Sequence[int], length: int) -> list[int]:
    """Chosen candidates cycled to ``length`` sequences: ``s0, s1, s2, s0`` for three of them and length 4."""
    return [chosen[i % len(chosen)] for i in range(length)]


# -- files ----------------------------------------------------------------------------------------------------------


def write_inverted_facts(path: str | Path, prompts: Sequence[Prompt], candidates: Sequence[Sequence[str]]) -> None:
    """Save inverted facts, one record per question."""
    facts = [
        {"question": p.text, "answer": p.answer, "inverted": list(c)} for p, c in zip(prompts, candidates, strict=True)
    ]
    write_json(path, {"kind": "inverted facts", "facts": facts})


def read_inverted_facts(path: str | Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Inverted facts by (question, answer).

    Raises:
        FileFormatError: If the file is of another kind or a record lacks a field.
    """
    data: Any = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != "inverted facts":
        raise FileFormatError(f"{path} holds no inverted facts; make one with write_inverted_facts")
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for i, record in enumerate(data.get("facts", ())):
        try:
            question, answer, inverted = record["question"], record["answer"], record["inverted"]
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path}: fact {i} lacks {error}; it needs question, answer and inverted") from error
        blank = not isinstance(inverted, list) or any(not isinstance(x, str) or not x.strip() for x in inverted)
        if blank:
            raise FileFormatError(f"{path}: fact {i} has an inverted answer that is blank or no text; remove it")
        found[question, answer] = tuple(inverted)
    return found


def from_file(path: str | Path, prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
    """Candidates of each question, from a file.

    Raises:
        DataError: If a question is not in it.
    """
    facts = read_inverted_facts(path)
    for prompt in prompts:
        if (prompt.text, prompt.answer) not in facts:
            raise DataError(f"{path} has no inverted fact for {prompt.full!r}; add one, or use source = 'swap'")
    return [facts[p.text, p.answer] for p in prompts]
