"""Membership inference: can the scores of the forget set be told from those of examples that were never seen?

Every score is signed so that **higher = less likely a member**. With members = forget set and non-members = holdout the
AUC is 1 where the forget set is clearly remembered, 0.5 at chance, and below 0.5 where it was over-forgotten, which
leaks as well. Scores and signs follow open-unlearning (Dorna et al. 2025); Min-k: Shi et al., arXiv 2310.16789;
Min-k++: Zhang et al., arXiv 2404.02936; PrivLeak: Shi et al., MUSE, arXiv 2407.06460.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from interp_unlearn._core import ConfigError, DataError, nearest, numpy_rng
from interp_unlearn.hooked import HookedModel, answer_batch, answer_logprobs, evaluating
from interp_unlearn.metrics._resample import percentile_interval, resample_weights
from interp_unlearn.metrics._tokens import LEAST_VARIANCE, TokenScores
from interp_unlearn.metrics._truth import TINY

ATTACKS = ("loss", "zlib", "min_k", "min_k_pp")
K = 0.4  # of the published TOFU and MUSE configurations; the class default there is 0.2


def membership_scores(
    scores: TokenScores, attack: str, *, texts: Sequence[str] = (), k: float = K
) -> Float[np.ndarray, " n"]:
    """Score of each example, higher = less likely a member.

    Args:
        scores: From `token_scores`. An end token counts in ``loss`` and ``zlib`` where it was scored, never in Min-k.
        attack: One of `ATTACKS`.
        texts: For ``zlib``, what is compressed: one text per example. Published code takes the answer.
        k: For Min-k, the share of tokens with the lowest score (at least one token).

    Raises:
        ConfigError: If there is no such attack, or k is not in (0, 1].
        DataError: If ``zlib`` lacks texts.
    """
    if attack not in ATTACKS:
        raise ConfigError(f"unknown membership attack {attack!r}{nearest(attack, ATTACKS)}; use {', '.join(ATTACKS)}")
    if not 0 < k <= 1:
        raise ConfigError(f"k is {k}; it is a share of the tokens, so use a number above 0 and up to 1")
    if attack == "loss":
        return scores.loss()
    if attack == "zlib":
        if len(texts) != len(scores):
            raise DataError(f"the zlib score needs the text of each example: {len(texts)} texts, {len(scores)} scores")
        return scores.loss() / np.array([len(zlib.compress(text.encode())) for text in texts])
    values = scores.per_answer("logprob")
    if attack == "min_k_pp":
        entropy, variance = scores.per_answer("entropy"), scores.per_answer("variance")
        values = [
            (logp + h) / np.sqrt(np.maximum(v, LEAST_VARIANCE))
            for logp, h, v in zip(values, entropy, variance, strict=True)
        ]
    return np.array([-np.sort(v)[: max(1, int(k * len(v)))].mean() for v in values])


def reference_scores(scores: TokenScores, reference: TokenScores) -> Float[np.ndarray, " n"]:
    """L(model) - L(reference model) of each example; the reference never saw the data."""
    if len(scores) != len(reference):
        raise DataError(f"{len(scores)} scores but {len(reference)} of the reference model; score the same examples")
    return scores.loss() - reference.loss()


def gradient_norms(
    model: HookedModel, prompts: Sequence[str], answers: Sequence[str], *, p: float = 2.0
) -> Float[np.ndarray, " n"]:
    """Mean over parameter tensors of the p-norm of the gradient of L, one example at a time.

    Gradients and ``requires_grad`` flags of the model are as before afterwards. Costs a forward and a backward pass per
    example.

    Raises:
        DataError: If no parameter can have a gradient (quantised weights), or answers have no tokens.
    """
    parameters = [w for w in model.module.parameters() if w.is_floating_point()]
    if not parameters:
        raise DataError(f"{model.name} has no floating-point weights, so the gradient norm cannot be computed")
    flags = [(w, w.requires_grad) for w in parameters]
    found = []
    try:
        for w in parameters:
            w.requires_grad_(True)
        with evaluating(model.module), torch.enable_grad():
            for prompt, answer in zip(prompts, answers, strict=True):
                encoded = answer_batch(model, [prompt], [answer])
                loss = -answer_logprobs(model, encoded).sum() / encoded.answer.sum()
                grads = torch.autograd.grad(loss, parameters, allow_unused=True)
                norms = [g.float().norm(p) for g in grads if g is not None]
                found.append(float(torch.stack(norms).mean()))
    finally:
        for w, flag in flags:
            w.requires_grad_(flag)
    return np.array(found)


def membership_auc(members: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> float:
    """P(score of a non-member > score of a member) + ½ P(equal); NaN if a score is NaN.

    Raises:
        DataError: If either is empty.
    """
    return float(_wins(members, others).mean())


def auc_interval(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    member_clusters: Sequence[str],
    other_clusters: Sequence[str],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the AUC, drawing whole clusters of members and of non-members with replacement.

    A side of one cluster is not resampled.
    """
    wins = _wins(members, others)
    sides = [
        resample_weights(clusters, draws=draws, seed=seed, purpose=f"auc {side}")
        if len(set(clusters)) > 1
        else np.ones((draws, len(clusters)))
        for side, clusters in (("members", member_clusters), ("others", other_clusters))
    ]
    drawn = ((sides[0] @ wins) * sides[1]).sum(1) / (sides[0].sum(1) * sides[1].sum(1))
    return percentile_interval(drawn, level)


def auc_floor(
    others: Float[np.ndarray, " m"],
    clusters: Sequence[str],
    size: int,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " draws"]:
    """AUCs of non-members put in the members' place: ``size`` clusters against the rest, drawn at random.

    How far from 0.5 an AUC lies although nothing was ever a member; with few entities that is far.

    Raises:
        DataError: If fewer than two clusters are left on a side.
    """
    names, member = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    size = min(size, len(names) // 2)
    if size < 1:
        raise DataError(
            "the floor of an AUC needs at least 2 never-known entities; make the task with more (n_unknown)"
        )
    rng = numpy_rng(seed, "auc floor", size)
    found = []
    for _ in range(draws):
        chosen = np.isin(member, rng.permutation(len(names))[:size])
        found.append(membership_auc(others[chosen], others[~chosen]))
    return np.array(found)


def privleak(auc: float, reference: float = 0.5) -> float:
    """100 ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref + 1e-10), in per cent.

    0 is right, strongly negative means still a member, strongly positive over-unlearned.

    Args:
        auc: Of Min-40 % on the edited model, in this module's sign (1 = remembered).
        reference: Gold's AUC; 0.5 where there is none.
    """
    return 100 * (reference - auc) / (1 - reference + TINY)


def s_mia(auc: float, reference: float) -> float:
    """clip(1 - |AUC - AUC_ref| / AUC_ref, 0, 1): 1 = as gold."""
    return float(np.clip(1 - abs(auc - reference) / max(reference, TINY), 0, 1))


def _wins(members: np.ndarray, others: np.ndarray) -> Float[np.ndarray, "n m"]:
    """1 where a non-member's score is higher, ½ where equal, NaN where either is NaN."""
    if not len(members) or not len(others):
        raise DataError(f"an AUC needs members and non-members; there are {len(members)} and {len(others)}")
    theirs, ours = others[None, :], members[:, None]
    wins = (theirs > ours) + 0.5 * (theirs == ours)
    return np.where(np.isnan(theirs) | np.isnan(ours), np.nan, wins)
