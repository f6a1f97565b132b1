"""MEOW: fine-tune on false answers that a memorisation score has chosen (Gu et al., arXiv 2409.11844, 2024).

For every question about the target, several *inverted facts* (plausible answers that contradict the true one) are
made and scored by MEMO on the original model (`interp_unlearn.metrics.memo`); ``top_k`` of them are kept and the
model is trained on them by ordinary descent::

    L = gamma mean_t -log p(y'_t | q, y'_<t)   [+ alpha CE(retain) + kl KL(p_0 || p) on the same sequences]

y' runs over the chosen false answers, ``sequences`` of them per drawn question (the chosen ones take turns). No
reference model and no retain data are needed (alpha = kl = 0, as published); the two bracketed terms are variants of
the published code, whose third variant, DPO between halves of the batch, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_logits, batch_from_ids
from interp_unlearn.metrics import MemoConfig, MemoScores, memo
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Item, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import QA, check_budget, encode, kl
from interp_unlearn.unlearn.objectives._inverted import (
    Select,
    Truths,
    expand,
    from_file,
    in_forms,
    select_inverted,
    swaps,
)
from interp_unlearn.unlearn.objectives._inverted_writer import TEMPLATE, written
from interp_unlearn.unlearn.objectives._retain import Retain, RetainOptions
from interp_unlearn.worlds._types import Prompt


@dataclass(frozen=True)
class MEOWOptions(RetainOptions):
    """Options of MEOW, beside those of `RetainOptions` (whose ``alpha`` is 0 here).

    Attributes:
        source: Where inverted facts come from: ``swap`` (answers of other entities of the same type), ``writer`` (an
            offline language model), ``both`` (swaps where the writer gives too few) or ``file``.
        file: JSON file written by `write_inverted_facts`.
        writer: Name, folder or ``.gguf`` file of the language model that writes them, as for `open_model`.
        writer_template: What it is asked; holds ``{question}``, ``{answer}`` and perhaps ``{n}``.
        writer_temperature: Of its sampling.
        writer_tokens: Longest reply.
        writer_attempts: How often a question is asked until there are enough false answers.
        candidates: Inverted facts made per question.
        top_k: How many of them are used.
        select: The least memorised, the most memorised, or random ones. The code's class defaults to the first, its
            launch script to the second.
        sequences: Training sequences per drawn question.
        per: Choose for each question, or once for all questions that ask the same fact (by their mean MEMO).
        forms: Sentence forms of an inverted answer, taking turns; each holds ``{answer}``.
        memo: How MEMO is measured.
        end_token: Whether the end-of-text token after the answer is trained too, as the published code does.
        kl: Weight of the divergence from the original model on the inverted sequences' answer tokens.
    """

    WEIGHTS: ClassVar[tuple[str, ...]] = ("gamma", "alpha", "kl")

    alpha: float = 0.0
    source: Literal["swap", "writer", "both", "file"] = "swap"
    file: str | None = None
    writer: str | None = None
    writer_template: str = TEMPLATE
    writer_temperature: float = 0.9
    writer_tokens: int = 512
    writer_attempts: int = 3
    candidates: int = 4
    top_k: int = 3
    select: Select = "smallest"
    sequences: int = 4
    per: Literal["question", "fact"] = "question"
    forms: tuple[str, ...] = ("{answer}",)
    memo: MemoConfig = field(default_factory=MemoConfig)
    end_token: bool = False
    kl: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("candidates", "top_k", "sequences", "writer_tokens", "writer_attempts"):
            require(getattr(self, name) >= 1, f"options.{name} is {getattr(self, name)}; use at least 1")
        require(self.kl >= 0, f"options.kl is {self.kl}; use 0 or a positive weight")
        require(self.gamma > 0 or self.kl > 0, "options.gamma and options.kl are both 0, so nothing is forgotten")
        require(self.writer_temperature > 0, "options.writer_temperature must be positive, e.g. 0.9")
        require((self.source == "file") == (self.file is not None), "options.file goes with source = 'file'")
        needs = self.source in ("writer", "both")
        require(
            needs == (self.writer is not None), "options.writer goes with source = 'writer' or 'both'; name a model"
        )
        holds = all(part in self.writer_template for part in ("{question}", "{answer}"))
        require(holds, "options.writer_template must hold {question} and {answer}")
        good = bool(self.forms) and all("{answer}" in form for form in self.forms)
        require(good, "options.forms needs at least one form, and each must hold {answer}")


@OBJECTIVES.register("meow")
class MEOW(Objective):
    """Supervised fine-tuning on chosen inverted facts.

    Attributes:
        inverted: Chosen false answers of each question.
        made: All false answers that were made for it.
        scores: MEMO of all of them, question by question; None where nothing had to be chosen by it.
        true_scores: MEMO of the true answers, to compare with; None likewise.
    """

    Options = MEOWOptions
    modalities = ("language",)
    options: MEOWOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive retain weight."""
        return self.options.alpha > 0

    def prepare(self, ctx: Context) -> Pools:
        """Make, score and choose the inverted facts."""
        self.model = ctx.model
        prompts = ctx.task.forget_train.prompts
        self.made = [in_forms(c, self.options.forms) for c in self._make(ctx, prompts)] if prompts else []
        self.scores: MemoScores | None = None
        self.true_scores: MemoScores | None = None
        self.inverted = self._choose(prompts, ctx.seed)
        self.items = [
            [QA(p.text, answer, Item(p.entity, p.relation, "inverted")) for answer in answers]
            for p, answers in zip(prompts, self.inverted, strict=True)
        ]
        self.references: list[list[Tensor]] = []
        if self.options.kl:
            size = 0
            for i, items in enumerate(self.items, 1):
                self.references.append([self._log_probs([qa])[1] for qa in items])
                size += sum(kept.nbytes for kept in self.references[-1])
                check_budget(size, self.options.reference_gb, f"{i} of {len(self.items)} questions")
        self.retain = Retain(ctx, self.options)
        items = tuple(Item(p.entity, p.relation, "inverted", question=p) for p in prompts)
        return Pools(items, self.retain.pool)

    # -- inverted facts ----------------------------------------------------------------------------------------------

    def _make(self, ctx: Context, prompts: Sequence[Prompt]) -> list[list[str]]:
        options = self.options
        truths = Truths.of(ctx.task)
        if options.source == "file":
            assert options.file is not None
            given = from_file(options.file, prompts)
        elif options.source == "swap":
            given = [() for _ in prompts]
        else:
            given = self._written(prompts, truths, ctx.seed)
        made = []
        for prompt, answers in zip(prompts, given, strict=True):
            more = swaps(ctx.task, prompt, ctx.seed) if options.source in ("swap", "both") else []
            found = truths.accepted(prompt, (*answers, *more), options.candidates)
            if not found:
                raise DataError(
                    f"no false answer of the same kind was found for {prompt.full!r}; use source = 'both' or 'file', "
                    "or a task with more known entities"
                )
            made.append(found)
        return made

    def _written(self, prompts: Sequence[Prompt], truths: Truths, seed: int) -> list[tuple[str, ...]]:
        from interp_unlearn.zoo import open_model

        options = self.options
        assert options.writer is not None
        keys = [_fact(p) if options.per == "fact" else (p.text, p.answer) for p in prompts]
        first = dict(zip(reversed(keys), reversed(prompts), strict=True))
        asked = [first[key] for key in dict.fromkeys(keys)]
        answers = written(
            open_model(options.writer),
            asked,
            truths,
            n=options.candidates,
            template=options.writer_template,
            temperature=options.writer_temperature,
            max_new_tokens=options.writer_tokens,
            attempts=options.writer_attempts,
            seed=seed,
        )
        by_key = dict(zip(dict.fromkeys(keys), answers, strict=True))
        return [by_key[key] for key in keys]

    def _choose(self, prompts: Sequence[Prompt], seed: int) -> list[list[str]]:
        options = self.options
        values = [[0.0] * len(answers) for answers in self.made]
        if options.select != "random" and any(len(answers) > options.top_k for answers in self.made):
            pairs = [(p.text, a) for p, answers in zip(prompts, self.made, strict=True) for a in answers]
            self.scores = memo(self.model, [q for q, _ in pairs], [a for _, a in pairs], options.memo)
            self.true_scores = memo(self.model, [p.text for p in prompts], [p.answer for p in prompts], options.memo)
            rest = iter(self.scores.score)
            values = [[next(rest) for _ in answers] for answers in self.made]
        if options.per == "fact":
            values = _mean_by_fact(prompts, self.made, values)
        chosen = []
        for prompt, answers, scores in zip(prompts, self.made, values, strict=True):
            purpose = _fact(prompt) if options.per == "fact" else (*_fact(prompt), prompt.template)
            rng = numpy_rng(seed, "meow", *purpose)
            chosen.append([answers[i] for i in select_inverted(scores, options.select, options.top_k, rng)])
        return chosen

    # -- loss --------------------------------------------------------------------------------------------------------

    def _log_probs(self, items: Sequence[QA]) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over answer tokens, and log-probabilities over the vocabulary at each of them."""
        encoded = encode(self.model, items)
        encoded = with_end(self.model, encoded) if self.options.end_token else encoded
        logprobs = answer_logits(self.model, encoded).log_softmax(-1)
        ids = encoded.batch.tokens[encoded.answer]
        return -logprobs.gather(1, ids[:, None]).mean(), logprobs

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Descent on the false answers, then the retain part."""
        options = self.options
        where = [(q, c) for q in draw.forget for c in expand(range(len(self.items[q])), options.sequences)]
        nll, now = self._log_probs([self.items[q][c] for q, c in where])
        loss, terms = options.gamma * nll, {"inverted_nll": float(nll.detach())}
        if options.kl:
            before = torch.cat([self.references[q][c] for q, c in where])
            divergence = kl(before, now)
            loss, terms = loss + options.kl * divergence, {**terms, "inverted_kl": float(divergence.detach())}
        yield Part("forget", loss, terms)
        yield from self.retain.parts(draw)


def _fact(prompt: Prompt) -> tuple[str, str]:
    return prompt.entity, prompt.relation


def _mean_by_fact(
    prompts: Sequence[Prompt], made: Sequence[Sequence[str]], values: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Each candidate's mean score over the questions that ask the same fact and have the same candidate."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for prompt, answers, scores in zip(prompts, made, values, strict=True):
        for answer, score in zip(answers, scores, strict=True):
            found.setdefault((*_fact(prompt), answer), []).append(score)
    mean = {key: sum(scores) / len(scores) for key, scores in found.items()}
    return [[mean[(*_fact(p), a)] for a in answers] for p, answers in zip(prompts, made, strict=True)]


def with_end(model: HookedModel, encoded: AnswerBatch) -> AnswerBatch:
    """The same rows with the end-of-text token after each answer, counted as one of its tokens.

    Raises:
        DataError: If the tokenizer has none.
    """
    end = model.tokenizer.eos_token_id
    if end is None:
        raise DataError(f"options.end_token is set, but the tokenizer of {model.name} has no end-of-text token")
    batch, ids, marks = encoded.batch, [], []
    for row in range(len(batch)):
        kept = batch.attended[row]
        tokens, answer = batch.tokens[row][kept].tolist(), encoded.answer[row][kept].tolist()
        ended = tokens[-1] == end
        ids.append(tokens if ended else [*tokens, end])
        marks.append([*answer[:-1], True] if ended else [*answer, True])
    pad = model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else 0
    longer = batch_from_ids(ids, pad_id=pad, special_ids=model.tokenizer.all_special_ids)
    answer = torch.zeros(longer.tokens.shape, dtype=torch.bool)
    for row, marked in enumerate(marks):
        answer[row, : len(marked)] = torch.tensor(marked)
    return AnswerBatch(longer.to(model.device), answer.to(model.device))
