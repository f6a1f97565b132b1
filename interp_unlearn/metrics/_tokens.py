"""`TokenScores`: what a model thinks of every token of every answer, read once; most output metrics come from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_batch, answer_logits, evaluating

LOGITS_AT_ONCE = 2**25  # numbers; 128 MB in float32
MOMENT_ROWS = 64
LEAST_VARIANCE = 1e-6  # of log p, as in the published Min-k++ code


@dataclass(frozen=True)
class TokenScores:
    """Teacher-forced scores of the tokens of n answers, on the CPU; T = tokens of all answers, end tokens apart.

    Attributes:
        counts: Tokens of each answer.
        logprob: l_t, log-probability of each token given all before it, in nats.
        right: Whether the token is the argmax.
        entropy: Entropy of the distribution it is predicted from, in nats.
        variance: Variance of log p under that distribution.
        confidence: Largest probability in it.
        end: Log-probability of the end token after each answer, NaN where it was not scored.
    """

    counts: Int[Tensor, " n"]
    logprob: Float[Tensor, " tokens"]
    right: Bool[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"]
    variance: Float[Tensor, " tokens"]
    confidence: Float[Tensor, " tokens"]
    end: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.counts)

    def per_answer(self, name: str) -> tuple[np.ndarray, ...]:
        """One of the token-wise attributes, cut into one array per answer."""
        ends = self.counts.cumsum(0)[:-1].tolist()
        return tuple(np.split(getattr(self, name).double().numpy(), ends)) if len(self) else ()

    def first(self, name: str) -> np.ndarray:
        """One of the token-wise attributes where each answer begins, (n,)."""
        starts = self.counts.cumsum(0) - self.counts
        return getattr(self, name)[starts].double().numpy()

    def loss(self, *, end: bool = True) -> np.ndarray:
        """Mean negative log-likelihood L of each answer, (n,).

        Args:
            end: Whether the end token counts, where it was scored.
        """
        total = np.array([values.sum() for values in self.per_answer("logprob")])
        count = self.counts.double().numpy()
        if end:
            last = self.end.double().numpy()
            scored = ~np.isnan(last)
            total, count = total + np.where(scored, last, 0.0), count + scored
        return -total / count

    def rows(self, index: Sequence[int]) -> TokenScores:
        """The scores of some answers, in the given order."""
        starts = (self.counts.cumsum(0) - self.counts).tolist()
        counts = self.counts.tolist()
        tokens = torch.tensor([t for i in index for t in range(starts[i], starts[i] + counts[i])], dtype=torch.long)
        rows = torch.tensor(list(index), dtype=torch.long)
        of_rows = {"counts", "end"}
        return TokenScores(
            **{f.name: getattr(self, f.name)[rows if f.name in of_rows else tokens] for f in fields(self)}
        )

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """As named tensors, which `from_tensors` reads back."""
        return {prefix + f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> TokenScores:
        """Read what `to_tensors` gave."""
        return cls(**{f.name: tensors[prefix + f.name] for f in fields(cls)})


@torch.no_grad()
def token_scores(
    model: HookedModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    end_token: bool = False,
    batch_size: int = 32,
) -> TokenScores:
    """Scores of every answer token.

    Args:
        model: A language model with a tokenizer.
        prompts: Ending where the answer begins, without trailing space.
        answers: One per prompt.
        end_token: Also score the tokenizer's end token after the answer (published TOFU code counts it in the
            probability, and leaves it out of memorisation and Min-k).
        batch_size: Prompts per forward pass at most; fewer where answers are long, to bound memory.

    Raises:
        DataError: As in `answer_batch`; or if an end token is asked for and the tokenizer has none.
    """
    if not prompts:
        raise DataError("there is no answer to score; give at least one prompt")
    counts = answer_batch(model, prompts, answers).answer.sum(1).cpu()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    parts: dict[int, dict[str, Tensor]] = {}
    with evaluating(model.module):
        for index in _runs(order, counts.tolist(), batch_size, model.lm.d_vocab):
            encoded = answer_batch(model, [prompts[i] for i in index], [answers[i] for i in index])
            if end_token:
                encoded = with_end_token(model, encoded)
            for row, values in enumerate(_scored(model, encoded, end_token)):
                parts[index[row]] = values
    ordered = [parts[i] for i in range(len(prompts))]
    return TokenScores(
        counts=counts,
        end=torch.stack([p.pop("end") for p in ordered]),
        **{name: torch.cat([p[name] for p in ordered]) for name in ordered[0]},
    )


def with_end_token(model: HookedModel, encoded: AnswerBatch) -> AnswerBatch:
    """The same answers with the tokenizer's end token behind each, marked as a token of the answer.

    Raises:
        DataError: If the tokenizer has none, or prompt, answer and end token are longer than the context.
    """
    end = None if model.tokenizer is None else model.tokenizer.eos_token_id
    if end is None:
        raise DataError("this tokenizer has no end token; score answers without one (end_token=False)")
    batch = encoded.batch
    lengths = batch.lengths()
    rows = torch.arange(len(encoded), device=lengths.device)
    ended = batch.tokens[rows, lengths - 1] == end
    where = torch.where(ended, lengths - 1, lengths)

    def grown(values: Tensor, at_end: int | bool) -> Tensor:
        wide = torch.cat([values, values.new_zeros(len(values), 1)], dim=1)
        wide[rows, where] = at_end
        return wide

    new = replace(
        batch,
        tokens=grown(batch.tokens, end),
        attended=grown(batch.attended, True),
        special=grown(batch.special, True),
        offsets=None,
    )
    n_ctx, longest = model.lm.n_ctx, int(new.lengths().max())
    if n_ctx is not None and longest > n_ctx:
        raise DataError(
            f"prompt, answer and end token need {longest} tokens, the model's context holds {n_ctx}; shorten the "
            "prompt, or score answers without an end token (end_token=False)"
        )
    return AnswerBatch(new, grown(encoded.answer, True))


def _runs(order: Sequence[int], counts: Sequence[int], batch_size: int, vocabulary: int) -> list[list[int]]:
    """Cut ``order`` into runs of at most ``batch_size`` answers and, but for single ones, ``LOGITS_AT_ONCE`` logits."""
    runs: list[list[int]] = []
    tokens = 0
    for i in order:
        more = counts[i] + 1
        if runs and len(runs[-1]) < batch_size and (tokens + more) * vocabulary <= LOGITS_AT_ONCE:
            runs[-1].append(i)
            tokens += more
        else:
            runs.append([i])
            tokens = more
    return runs


def _scored(model: HookedModel, encoded: AnswerBatch, end_token: bool) -> list[dict[str, Tensor]]:
    """Token scores of each row; the last one is the end token's if it was asked for."""
    rows, columns = encoded.answer.nonzero(as_tuple=True)
    ids = encoded.batch.tokens[rows, columns]
    logits = answer_logits(model, encoded)
    names = ("logprob", "right", "entropy", "variance", "confidence")
    pieces = [_moments(part, of) for part, of in zip(logits.split(MOMENT_ROWS), ids.split(MOMENT_ROWS), strict=True)]
    values = {name: torch.cat([p[k] for p in pieces]).cpu() for k, name in enumerate(names)}
    sizes = encoded.answer.sum(1).tolist()
    found = []
    start = 0
    for size in sizes:
        own = {name: v[start : start + size] for name, v in values.items()}
        start += size
        end = torch.tensor(torch.nan)
        if end_token:
            end = own["logprob"][-1]
            own = {name: v[:-1] for name, v in own.items()}
        found.append({**own, "end": end})
    return found


def _moments(logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probability, argmax equality, entropy, variance of log p, largest probability."""
    logp = logits.log_softmax(-1)
    p = logp.exp()
    known = torch.where(p > 0, logp, 0.0)  # 0 log 0 = 0; NaN stays
    known = torch.where(logp.isnan(), logp, known)
    mean = (p * known).sum(-1)
    variance = (p * known.square()).sum(-1) - mean.square()
    picked = logp.gather(1, ids[:, None])[:, 0]
    best = logits.argmax(-1) == ids
    return picked, best & picked.isfinite(), -mean, variance, p.amax(-1)
