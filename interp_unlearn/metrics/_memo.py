"""MEMO: how much of a text a model goes on with, wherever it is cut (Gu et al., MEOW, arXiv 2409.11844, 2024).

For question q and answer y, cut every ``stride`` characters and let the model continue greedily::

    suffix:  prompt_i = q + " " + y[:i]   label_i = y[i:]             i = 1, 1 + w, 1 + 2w … < len(y)
    prefix:  prompt_i = q[:i]             label_i = q[i:] + " " + y   i = 1, 1 + w, 1 + 2w … < len(q)
    MEMO = mean_i ROUGE-1 precision of the continuation against label_i          (0 where there is no cut)

Formulas, stride 5, 200 new tokens and stemmed ROUGE-1 *precision* are those of the published code. Two things differ
on purpose: continuations are sliced by tokens and special tokens are dropped (there, markers count as words).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from interp_unlearn._core import Axis, ConfigError, DataError, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._greedy import continue_greedily
from interp_unlearn.metrics._rouge import Rouge, rouge_n_words, rouge_words

Cut = tuple[str, str]
Continue = Callable[[Sequence[str]], Sequence[str]]
LABEL_SLACK = 2  # tokens more than the label has: a continuation may split words otherwise than the label


@dataclass(frozen=True)
class MemoConfig:
    """How MEMO is measured; the defaults are the published code's.

    Attributes:
        mode: ``suffix`` cuts the answer (the question is given whole), ``prefix`` cuts the question.
        stride: Characters between cuts.
        max_new_tokens: Longest continuation (and never more than the context holds).
        length: ``fixed`` keeps the whole continuation; ``label`` keeps as many words as the label has. A base model
            does not stop after an answer, and every further word lowers a precision.
        score: Which of ROUGE's three numbers.
        order: Words per unit, 1 in the published scores.
        stem: Whether word forms of one stem are equal.
    """

    mode: Literal["suffix", "prefix"] = "suffix"
    stride: int = 5
    max_new_tokens: int = 200
    length: Literal["fixed", "label"] = "fixed"
    score: Literal["precision", "recall", "f1"] = "precision"
    order: int = 1
    stem: bool = True

    def __post_init__(self) -> None:
        for name, least in (("stride", 1), ("max_new_tokens", 1), ("order", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"memo.{name} is {getattr(self, name)}; use at least {least}")


@dataclass(frozen=True)
class MemoScores:
    """MEMO of question–answer pairs, in the given order.

    Attributes:
        score: MEMO, 0 to 1.
        recall: The same mean with ROUGE recall, which a model cannot raise by stopping early.
        cuts: Number of cuts of each pair.
        words: Mean number of words in a continuation (precision falls with it).
    """

    score: tuple[float, ...]
    recall: tuple[float, ...]
    cuts: tuple[int, ...]
    words: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.score)

    def table(self, labels: Sequence[str], config: MemoConfig) -> Labelled:
        """As a labelled table, axes ("pair", "quantity").

        Args:
            labels: One different label per pair.
            config: How the scores were measured.
        """
        quantities = ("memo", "recall", "cuts", "words")
        values = np.array([self.score, self.recall, self.cuts, self.words], dtype=np.float64).T.reshape(len(self), 4)
        return Labelled(
            "memo",
            values,
            (Axis("pair", tuple(labels)), Axis("quantity", quantities)),
            n=sum(self.cuts),
            mask_policy="-",
            config={k: getattr(config, k) for k in MemoConfig.__dataclass_fields__},
            note="mean over cuts of the ROUGE overlap between the greedy continuation and the rest of the text",
        )


def memo_cuts(
    question: str, answer: str, mode: Literal["suffix", "prefix"] = "suffix", stride: int = 5
) -> tuple[Cut, ...]:
    """(prompt, label) of every cut; ``ceil((len - 1) / stride)`` of them.

    Example:
        >>> memo_cuts("Who?", "abc def")
        (('Who? a', 'bc def'), ('Who? abc de', 'f'))
    """
    text = answer if mode == "suffix" else question
    where = range(1, len(text), stride)
    if mode == "suffix":
        return tuple((f"{question} {answer[:i]}", answer[i:]) for i in where)
    return tuple((question[:i], f"{question[i:]} {answer}") for i in where)


def memo(
    source: HookedModel | Continue,
    questions: Sequence[str],
    answers: Sequence[str],
    config: MemoConfig | None = None,
    *,
    batch_size: int = 64,
) -> MemoScores:
    """MEMO of each pair.

    Prompts that several pairs share (answers that begin alike) are continued once.

    Args:
        source: A language model with a tokenizer, or anything that continues prompts (what follows the prompt only).
        questions: Raw text, without a chat template.
        answers: One per question.
        config: How; default as published.
        batch_size: Prompts per generation.

    Raises:
        DataError: If lengths differ, or a prompt fills the model's context.
    """
    config = config or MemoConfig()
    if len(questions) != len(answers):
        raise DataError(f"{len(questions)} questions but {len(answers)} answers")
    pairs = [memo_cuts(q, a, config.mode, config.stride) for q, a in zip(questions, answers, strict=True)]
    labels: dict[str, list[str]] = {}
    for prompt, label in (cut for cuts in pairs for cut in cuts):
        labels.setdefault(prompt, []).append(label)
    if isinstance(source, HookedModel):
        outputs = _continued(source, labels, config, batch_size)
    else:
        outputs = dict(zip(labels, source(list(labels)), strict=True))
    scored = [[_overlap(outputs[prompt], label, config) for prompt, label in cuts] for cuts in pairs]
    return MemoScores(
        score=tuple(_mean([getattr(rouge, config.score) for rouge, _ in cuts]) for cuts in scored),
        recall=tuple(_mean([rouge.recall for rouge, _ in cuts]) for cuts in scored),
        cuts=tuple(len(cuts) for cuts in scored),
        words=tuple(_mean([float(n) for _, n in cuts]) for cuts in scored),
    )


def _overlap(output: str, label: str, config: MemoConfig) -> tuple[Rouge, int]:
    """ROUGE of one continuation, and its number of words."""
    wanted, found = rouge_words(label, stem=config.stem), rouge_words(output, stem=config.stem)
    if config.length == "label":
        found = found[: len(wanted)]
    return rouge_n_words(found, wanted, config.order), len(found)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _continued(
    model: HookedModel, labels: Mapping[str, Sequence[str]], config: MemoConfig, batch_size: int
) -> dict[str, str]:
    """Greedy continuation of each prompt, as long as its labels ask for."""
    if not labels:
        return {}
    if model.tokenizer is None:
        raise DataError("MEMO needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    wanted = dict.fromkeys(labels, config.max_new_tokens)
    if config.length == "label":
        for prompt, texts in labels.items():
            ids = model.tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
            wanted[prompt] = min(config.max_new_tokens, max(map(len, ids)) + LABEL_SLACK)
    return continue_greedily(model, list(labels), wanted, batch_size=batch_size)
