"""Other answers to the questions about the target: refusals, plausible wrong answers, or the user's own.

Each draw takes a fresh one for every question, by seed and step, so a resumed run draws what the uninterrupted one did.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from interp_unlearn._core import DataError, FileFormatError, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.unlearn._protocols import Context, Draw
from interp_unlearn.unlearn.objectives._answers import QA
from interp_unlearn.unlearn.objectives._refusals import REFUSALS
from interp_unlearn.worlds._lines import present, read_lines
from interp_unlearn.worlds._types import Prompt


@dataclass(frozen=True)
class AlternativeOptions:
    """Where other answers come from.

    Attributes:
        answers: ``refusals``: the built-in list; ``swaps``: wrong answers of the same relation and type from the world;
            ``auto``: refusals where the tokenizer can write them, else swaps (a word-level vocabulary has no refusals).
        answers_file: The user's own instead: a ``.txt`` file with one answer a line, for every question alike, or a
            ``.jsonl`` file (also named ``.json``) of ``{"question": prompt, "alternate": answer}`` records, one a line,
            several per question if wanted.
    """

    answers: Literal["auto", "refusals", "swaps"] = "auto"
    answers_file: str = ""


class Alternatives:
    """Other answers per question.

    Args:
        ctx: Seed, model and task.
        forget: The questions, in the order of ``ctx.task.forget_train``.
        options: Where answers come from.
        most: Keep at most so many answers per question, chosen by seed; 0 keeps all. Objectives that cache a reference
            for every pair set it.

    Attributes:
        choices: The answers of each question.
    """

    def __init__(self, ctx: Context, forget: Sequence[QA], options: AlternativeOptions, most: int = 0) -> None:
        self.forget = forget
        self.seed = ctx.seed
        found = _find(ctx, forget, options)
        self.choices = [_thin(answers, most, ctx.seed, i) for i, answers in enumerate(found)]

    def indices(self, draw: Draw) -> list[int]:
        """For each drawn question, which of its answers this step takes."""
        rng = numpy_rng(self.seed, "alternative answers", draw.step)
        return [int(rng.integers(len(self.choices[i]))) for i in draw.forget]

    def pick(self, draw: Draw, indices: Sequence[int]) -> list[QA]:
        """The drawn questions with the chosen answers."""
        pairs = zip(draw.forget, indices, strict=True)
        return [replace(self.forget[i], answer=self.choices[i][k]) for i, k in pairs]

    def draw(self, draw: Draw) -> list[QA]:
        """The drawn questions, each with a fresh other answer."""
        return self.pick(draw, self.indices(draw))


def _thin(answers: tuple[str, ...], most: int, seed: int, question: int) -> tuple[str, ...]:
    if not most or len(answers) <= most:
        return answers
    chosen = numpy_rng(seed, "kept alternative answers", question).permutation(len(answers))[:most]
    return tuple(answers[i] for i in sorted(chosen.tolist()))


def _find(ctx: Context, forget: Sequence[QA], options: AlternativeOptions) -> list[tuple[str, ...]]:
    prompts = ctx.task.forget_train.prompts
    if options.answers_file:
        return read_answers(Path(options.answers_file), prompts)
    if options.answers != "swaps":
        refusals = writable(ctx.model, REFUSALS)
        if refusals:
            return [refusals] * len(forget)
        if options.answers == "refusals":
            raise DataError(
                "the tokenizer cannot write any of the built-in refusals without unknown tokens; set options.answers "
                "to 'swaps', or give your own sentences as options.answers_file"
            )
    return [wrong_options(prompt) for prompt in prompts]


def wrong_options(prompt: Prompt) -> tuple[str, ...]:
    """Wrong answers of the same relation and type.

    Raises:
        DataError: If the world knows no other answer.
    """
    wrong = tuple(o for o in prompt.options if not _is_right(o, prompt))
    if not wrong:
        raise DataError(
            f"the world has no other answer of the same type for {prompt.text!r}; set options.answers to 'refusals', "
            "or give answers as options.answers_file"
        )
    return wrong


def _is_right(answer: str, prompt: Prompt) -> bool:
    """Whether ``answer`` is one of the prompt's right answers, whatever the case."""
    return answer.strip().casefold() in {a.strip().casefold() for a in (prompt.answer, *prompt.also)}


def writable(model: HookedModel, texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that the model's tokenizer can write without its unknown token."""
    tokenizer: Any = model.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts}
    return tuple(text for text, row in ids.items() if row and (unknown is None or unknown not in row))


def read_answers(path: Path, prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
    """Answers for each prompt from a user's file.

    Raises:
        FileFormatError: If the file is missing, of another kind, is not UTF-8 text, or a record lacks a field.
        DataError: If an answer is blank, a record offers a right answer as the other one, or a question has none (from
            a ``.txt`` file, right answers are left out of the question they belong to).
    """
    if not path.is_file():
        raise FileFormatError(f"options.answers_file: {path} does not exist")
    if path.suffix in (".jsonl", ".json"):
        return _per_question(path, prompts)
    if path.suffix != ".txt":
        raise FileFormatError(
            f"options.answers_file: {path} is neither .txt (one answer a line) nor .jsonl (one record a line); "
            "a table's header and quotes would be trained on"
        )
    lines = read_lines(path, "answer")
    found = [tuple(line for line in lines if not _is_right(line, prompt)) for prompt in prompts]
    for prompt, answers in zip(prompts, found, strict=True):
        if not answers:
            raise DataError(
                f"{path} holds nothing but right answers to {prompt.text!r}, which are to be forgotten; add others"
            )
    return found


def _per_question(path: Path, prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for line, text in enumerate(read_lines(path, "record"), 1):
        try:
            record = json.loads(text)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or not {"question", "alternate"} <= record.keys():
            raise FileFormatError(f'{path}, line {line}: write {{"question": the prompt, "alternate": another answer}}')
        found.setdefault(str(record["question"]).strip(), []).append(
            present(record["alternate"], f"{path}, line {line}", "answer")
        )
    out = []
    for prompt in prompts:
        answers = found.get(prompt.text)
        if not answers:
            raise DataError(f"{path} has no other answer for the question {prompt.text!r}; add a record for it")
        right = next((a for a in answers if _is_right(a, prompt)), None)
        if right is not None:
            raise DataError(f"{path} offers {right!r} for {prompt.text!r}, which is an answer to be forgotten")
        out.append(tuple(answers))
    return out
