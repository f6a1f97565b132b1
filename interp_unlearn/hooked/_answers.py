"""Score answers after prompts: the one place where prompt and answer are joined, tokenised and marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked._batch import Batch, tokenize
from interp_unlearn.hooked._forward import evaluating
from interp_unlearn.hooked._model import HookedModel


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts with their answers as one batch.

    Attributes:
        batch: Tokens of ``"<prompt> <answer>"``.
        answer: True at the answer's tokens, (batch, position); position 0 is never one.
    """

    batch: Batch
    answer: Bool[Tensor, "batch pos"]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class AnswerScores:
    """Scores of one answer per prompt, each a (batch,) CPU tensor.

    Attributes:
        logprob: Summed log-probability of the answer's tokens, in nats.
        n_tokens: Number of answer tokens.
        exact: Whether greedy decoding would produce the answer (every teacher-forced argmax is right).
    """

    logprob: Float[Tensor, " batch"]
    n_tokens: Float[Tensor, " batch"]
    exact: Bool[Tensor, " batch"]

    @property
    def probability(self) -> Float[Tensor, " batch"]:
        """Length-normalised probability: geometric mean over the answer's tokens, 0 to 1."""
        return (self.logprob / self.n_tokens).exp()


def answer_batch(model: HookedModel, prompts: Sequence[str], answers: Sequence[str]) -> AnswerBatch:
    """Tokenise ``"<prompt> <answer>"`` and mark the answer's tokens by character offsets.

    Raises:
        DataError: If lengths differ, an answer is empty or has no token of its own, a prompt and its answer are
            longer than the context, or the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise DataError("scoring answers needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    if len(prompts) != len(answers):
        raise DataError(f"{len(prompts)} prompts but {len(answers)} answers")
    if any(not a.strip() for a in answers):
        raise DataError("an answer is empty")
    texts = [f"{p} {a}" for p, a in zip(prompts, answers, strict=True)]
    batch = tokenize(model.tokenizer, texts, max_length=model.lm.n_ctx)
    answer = _marked(batch, [len(p) for p in prompts])
    missing = (~answer.any(1)).nonzero()[:, 0].tolist()
    if missing:
        raise DataError(
            f"the answer {answers[missing[0]]!r} after {prompts[missing[0]]!r} has no token that counts; "
            "does the tokenizer know its words?"
        )
    return AnswerBatch(batch.to(model.device), answer.to(model.device))


def _marked(batch: Batch, lengths: Sequence[int]) -> Bool[Tensor, "batch pos"]:
    """True at the tokens that reach beyond the first ``lengths`` characters of their texts."""
    assert batch.offsets is not None
    ends = torch.tensor([[end for _, end in row] for row in batch.offsets])
    answer = batch.attended & ~batch.special & (ends > torch.tensor(lengths)[:, None])
    answer[:, 0] = False
    return answer


def answer_ids(tokenizer: Any, answers: Sequence[str], after: str = "is") -> list[list[int]]:
    """Token ids of answers as they stand after a prompt.

    An answer alone, even behind a space, may begin otherwise: some tokenizers put a space of their own before a text.

    Args:
        tokenizer: A Hugging Face fast tokenizer.
        answers: One or more.
        after: The last word of the prompt.
    """
    batch = tokenize(tokenizer, [f"{after} {answer}" for answer in answers])
    mark = _marked(batch, [len(after)] * len(answers))
    return [row[chosen].tolist() for row, chosen in zip(batch.tokens, mark, strict=True)]


def answer_logits(model: HookedModel, encoded: AnswerBatch) -> Float[Tensor, "n vocab"]:
    """Logits that predict the answers' tokens, in the order of ``encoded.answer.nonzero()``, float32 with graph."""
    return model.forward_at(encoded.batch, encoded.answer.roll(-1, dims=1)).float()


def answer_logprobs(model: HookedModel, encoded: AnswerBatch) -> Float[Tensor, "batch pos"]:
    """Log-probability of each answer token given what precedes it, 0 elsewhere, in float32 with graph."""
    rows, columns = encoded.answer.nonzero(as_tuple=True)
    logits = answer_logits(model, encoded)
    values = logits.gather(1, encoded.batch.tokens[rows, columns][:, None])[:, 0] - logits.logsumexp(-1)
    out = torch.zeros(encoded.answer.shape, dtype=torch.float32, device=logits.device)
    return out.index_put((rows, columns), values)


@torch.no_grad()
def score_answers(
    model: HookedModel, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 32
) -> AnswerScores:
    """Teacher-forced scores of ``answers`` after ``prompts``.

    Rows are sorted by length to limit padding and returned in the given order. The model is read in evaluation mode.

    Raises:
        DataError: As in `answer_batch`.
    """
    if len(prompts) != len(answers):
        raise DataError(f"{len(prompts)} prompts but {len(answers)} answers")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    logprob = torch.zeros(len(prompts))
    count = torch.zeros(len(prompts))
    exact = torch.zeros(len(prompts), dtype=torch.bool)
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        encoded = answer_batch(model, [prompts[i] for i in index], [answers[i] for i in index])
        with evaluating(model.module):
            picked = answer_logits(model, encoded)
        rows, columns = encoded.answer.nonzero(as_tuple=True)
        ids = encoded.batch.tokens[rows, columns]
        token_logprob = (picked.gather(1, ids[:, None])[:, 0] - picked.logsumexp(-1)).cpu()
        wrong = (picked.argmax(-1) != ids).float().cpu()
        rows = rows.cpu()
        where = torch.tensor(index)
        logprob[where] = torch.zeros(len(index)).index_add(0, rows, token_logprob)
        count[where] = torch.zeros(len(index)).index_add(0, rows, torch.ones(len(rows)))
        exact[where] = torch.zeros(len(index)).index_add(0, rows, wrong) == 0
    return AnswerScores(logprob, count, exact)
