"""Score many candidate answers after each prompt: the prompt is read once and shared by its candidates.

`hooked.score_answers` reads ``"<prompt> <answer>"`` anew for every answer. Here the tokens that all candidates of a
prompt share run once with a key–value cache; then only the tokens in which candidates differ run. Tokens come from the
same `answer_batch`, so the two agree (tested to 1e-4), whatever a tokenizer merges at the seam.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import AnswerScores, HookedModel, answer_batch, evaluating, score_answers


@dataclass(frozen=True)
class CandidateScores:
    """Scores of the candidates of each prompt.

    Attributes:
        per_prompt: One `AnswerScores` per prompt, its tensors in the order of that prompt's candidates.
        method: ``"shared prefix"``, or ``"one row each (<why>)"``.
    """

    per_prompt: tuple[AnswerScores, ...]
    method: str


@dataclass(frozen=True)
class _Row:
    """One prompt with one candidate, cut at the end of the shared prefix."""

    index: int  # where its scores go
    suffix: tuple[int, ...]  # token ids after the prefix
    marked: tuple[bool, ...]  # which of them belong to the answer


@dataclass(frozen=True)
class _Group:
    """One prompt: the tokens shared by its candidates, and a row for each."""

    prefix: tuple[int, ...]
    rows: tuple[_Row, ...]


class _Sums:
    """Scores added up token by token."""

    def __init__(self, n: int) -> None:
        self.logprob = torch.zeros(n, dtype=torch.float64)
        self.count = torch.zeros(n)
        self.wrong = torch.zeros(n)

    def add(self, where: Sequence[int], logits: Float[Tensor, "n vocab"], ids: Sequence[int]) -> None:
        target = torch.tensor(ids, device=logits.device)
        logits = logits.float()
        picked = logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)
        index = torch.tensor(where)
        self.logprob.index_add_(0, index, picked.double().cpu())
        self.count.index_add_(0, index, torch.ones(len(index)))
        self.wrong.index_add_(0, index, (logits.argmax(-1) != target).float().cpu())


@torch.no_grad()
def score_candidates(
    model: HookedModel,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    *,
    batch_size: int = 32,
    shared_prefix: bool = True,
) -> CandidateScores:
    """Teacher-forced scores of several candidate answers after each prompt.

    Falls back to one row per candidate, with the same result, when the module keeps no key–value cache, when someone's
    hooks are on it (an edit at chosen positions would hit other columns), or when the cached pass does not reproduce
    the plain one on a sample.

    Args:
        model: A language model with a tokenizer.
        prompts: Ending where the answer begins, without trailing space.
        candidates: At least one answer per prompt.
        batch_size: Prompts per forward pass (twice as many candidate rows).
        shared_prefix: False forces one row per candidate.

    Raises:
        DataError: If a prompt has no candidate, or a candidate has no token that counts.
    """
    if len(prompts) != len(candidates) or any(not c for c in candidates):
        raise DataError("every prompt needs at least one candidate answer")
    pairs: dict[tuple[str, str], int] = {}
    for prompt, answers in zip(prompts, candidates, strict=True):
        for answer in answers:
            pairs.setdefault((prompt, answer), len(pairs))
    why = _why_not(model) if shared_prefix else "asked for"
    sums = None
    if not why:
        with evaluating(model.module):
            sums, why = _shared(model, list(pairs), batch_size)
    if sums is None:
        plain = score_answers(model, [p for p, _ in pairs], [a for _, a in pairs], batch_size=batch_size)
        logprob, count, exact = plain.logprob, plain.n_tokens, plain.exact
    else:
        logprob, count, exact = sums.logprob.float(), sums.count, sums.wrong == 0
    scored = []
    for prompt, answers in zip(prompts, candidates, strict=True):
        index = torch.tensor([pairs[prompt, a] for a in answers])
        scored.append(AnswerScores(logprob[index], count[index], exact[index]))
    return CandidateScores(tuple(scored), f"one row each ({why})" if why else "shared prefix")


def _why_not(model: HookedModel) -> str:
    """Why the shared prefix cannot be used, or an empty string."""
    if "use_cache" not in inspect.signature(model.module.forward).parameters:
        return "the module has no key–value cache"
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules()):
        return "hooks are on the module"
    return ""


def _shared(model: HookedModel, pairs: list[tuple[str, str]], batch_size: int) -> tuple[_Sums | None, str]:
    """Scores by shared prefix, or None with the reason."""
    sums = _Sums(len(pairs))
    checked = False
    for run in _runs(_groups(model, pairs), batch_size):
        cache = _score_first(model, run, sums)
        if cache is None:
            return None, "the module has no key–value cache that can be copied row by row"
        longer = [(g, row) for g, group in enumerate(run) for row in group.rows if len(row.suffix) > 1]
        for chosen in _chunks(longer, 2 * batch_size):
            _score_rest(model, len(run[0].prefix), cache, chosen, sums)
            if not checked:
                checked = True
                gap = _gap(model, pairs, chosen[-1][1].index, sums)
                if gap > (1e-3 if model.dtype == torch.float32 else 0.1):
                    return None, f"the cached pass was off by {gap:.1e} nats per token"
    return sums, ""


def _gap(model: HookedModel, pairs: list[tuple[str, str]], index: int, sums: _Sums) -> float:
    """How far one cached score is from the plain one, in nats per token."""
    prompt, answer = pairs[index]
    plain = score_answers(model, [prompt], [answer])
    one, other = float(plain.logprob[0]), float(sums.logprob[index])
    if math.isnan(one) or math.isnan(other):  # a collapsed model gives NaN on both ways
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return 0.0 if one == other else abs(one - other) / float(plain.n_tokens[0])


def _groups(model: HookedModel, pairs: list[tuple[str, str]]) -> list[_Group]:
    """One group per prompt: tokens before the first one that differs, or that belongs to an answer."""
    encoded = answer_batch(model, [p for p, _ in pairs], [a for _, a in pairs])
    tokens, marks = encoded.batch.tokens.tolist(), encoded.answer.tolist()
    by_prompt: dict[str, list[tuple[int, list[int], list[bool]]]] = {}
    for index, (prompt, _) in enumerate(pairs):
        end = max((c + 1 for c, marked in enumerate(marks[index]) if marked), default=0)
        by_prompt.setdefault(prompt, []).append((index, tokens[index][:end], marks[index][:end]))
    groups = []
    for rows in by_prompt.values():
        cut = min((row[2].index(True) for row in rows if row[1]), default=0)
        first = next((row[1] for row in rows if row[1]), [])
        while any(row[1] and row[1][:cut] != first[:cut] for row in rows):
            cut -= 1
        kept = tuple(_Row(i, tuple(ids[cut:]), tuple(marked[cut:])) for i, ids, marked in rows if ids)
        groups.append(_Group(tuple(first[:cut]), kept))
    return [g for g in groups if g.rows]


def _runs(groups: list[_Group], batch_size: int) -> Iterator[list[_Group]]:
    """Groups whose prefixes are equally long, at most ``batch_size`` at a time: no padding is needed."""
    run: list[_Group] = []
    for group in sorted(groups, key=lambda g: len(g.prefix)):
        if run and (len(run) == batch_size or len(run[0].prefix) != len(group.prefix)):
            yield run
            run = []
        run.append(group)
    if run:
        yield run


def _chunks(rows: list[tuple[int, _Row]], most: int) -> Iterator[list[tuple[int, _Row]]]:
    """At most ``most`` rows at a time, equally long unless they are few, so that little is padded."""
    chunk: list[tuple[int, _Row]] = []
    for item in sorted(rows, key=lambda item: len(item[1].suffix)):
        longer = bool(chunk) and len(item[1].suffix) > len(chunk[0][1].suffix)
        if len(chunk) == most or (longer and len(chunk) >= 16):
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


def _score_first(model: HookedModel, run: list[_Group], sums: _Sums) -> Any:
    """Run the prefixes, add the scores of the first tokens after them, and return the cache (None if there is none)."""
    tokens = torch.tensor([g.prefix for g in run], device=model.device)
    if tokens.shape[1] == 0:
        return None
    output = _call(model, tokens, torch.ones_like(tokens), last_only=True)
    cache = getattr(output, "past_key_values", None)
    # A hybrid's cache has layers of several kinds (attention, linear attention, Mamba), not all made for this.
    if not all(hasattr(part, "batch_select_indices") for part in (cache, *getattr(cache, "layers", ()))):
        return None
    logits = output.logits[:, -1]
    first = [(g, row) for g, group in enumerate(run) for row in group.rows if row.marked[0]]
    if first:
        where = torch.tensor([g for g, _ in first], device=model.device)
        sums.add([row.index for _, row in first], logits[where], [row.suffix[0] for _, row in first])
    return cache


def _score_rest(model: HookedModel, n_prefix: int, cache: Any, rows: list[tuple[int, _Row]], sums: _Sums) -> None:
    """Run the remaining tokens of ``rows`` on copies of their prompts' caches and add their scores."""
    width = max(len(row.suffix) for _, row in rows) - 1
    tokens = torch.zeros((len(rows), width), dtype=torch.long)
    attended = torch.zeros((len(rows), n_prefix + width), dtype=torch.long)
    attended[:, :n_prefix] = 1
    for r, (_, row) in enumerate(rows):
        given = row.suffix[:-1]
        tokens[r, : len(given)] = torch.tensor(given)
        attended[r, n_prefix : n_prefix + len(given)] = 1
    own = copy.deepcopy(cache)
    own.batch_select_indices(torch.tensor([g for g, _ in rows], device=model.device))
    logits = _call(model, tokens.to(model.device), attended.to(model.device), cache=own).logits
    scored = [(r, c, row) for r, (_, row) in enumerate(rows) for c in range(1, len(row.suffix)) if row.marked[c]]
    if scored:
        picked = logits[[r for r, _, _ in scored], [c - 1 for _, c, _ in scored]]
        sums.add([row.index for _, _, row in scored], picked, [row.suffix[c] for _, c, row in scored])


def _call(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    attended: Int[Tensor, "batch all"],
    *,
    cache: Any = None,
    last_only: bool = False,
) -> Any:
    forward: Callable[..., Any] = model.module.forward
    kwargs: dict[str, Any] = {"input_ids": tokens, "attention_mask": attended, "use_cache": True}
    if cache is not None:
        kwargs["past_key_values"] = cache
    if last_only and "logits_to_keep" in inspect.signature(forward).parameters:
        kwargs["logits_to_keep"] = 1
    return model.module(**kwargs)
