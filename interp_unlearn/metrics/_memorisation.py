"""How much of an answer a model can still give: exact memorisation, extraction strength, truth ratio, confidence.

Exact memorisation and extraction strength: Carlini et al. 2021 and Tirumala et al. 2022 as used in open-unlearning
(Dorna et al. 2025); truth ratio: Maini et al., TOFU, arXiv 2401.06121.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._behaviour import wrong_options
from interp_unlearn.metrics._prompts import columns_of
from interp_unlearn.metrics._scoring import score_candidates
from interp_unlearn.metrics._tokens import TokenScores, token_scores
from interp_unlearn.metrics._truth import log_truth_ratio, normalised_probability
from interp_unlearn.worlds import Prompt

Convention = Literal["clean", "published"]
MEMORISATION_METRICS = (
    "probability",
    "normalised_probability",
    "log_truth_ratio",
    "exact_memorisation",
    "extraction_strength",
    "entropy",
    "confidence",
)


def exact_memorisation(scores: TokenScores) -> np.ndarray:
    """Share of each answer's tokens that equal the teacher-forced argmax, (n,); the end token is never counted."""
    return np.array([right.mean() for right in scores.per_answer("right")])


def extraction_strength(scores: TokenScores, *, convention: Convention = "clean") -> np.ndarray:
    """1 - k/T of each answer, k being the shortest prefix after which every remaining argmax is right, (n,).

    Args:
        scores: From `token_scores`; the end token is never counted.
        convention: ``"clean"``: 0 when the last argmax is wrong (k = T). ``"published"``: the loop of published code
            ends at k = T - 1, so that such an answer scores 1/T.
    """
    found = []
    for right in scores.per_answer("right"):
        wrong = np.flatnonzero(right == 0)
        k = int(wrong[-1]) + 1 if len(wrong) else 0
        if convention == "published":
            k = min(k, len(right) - 1)
        found.append(1 - k / len(right))
    return np.array(found)


def memorisation_scores(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    max_options: int = 8,
    convention: Convention = "clean",
    batch_size: int = 32,
) -> Labelled:
    """Output metrics of single questions; a prompt's options are the wrong answers.

    Args:
        model: A language model with a tokenizer.
        prompts: Questions.
        max_options: Wrong answers per question at most, the first ones (their order was drawn by the world).
        convention: Of `extraction_strength`.
        batch_size: Prompts per forward pass.

    Returns:
        Axes ("prompt", "metric") with `MEMORISATION_METRICS`, see `metric_facts`; ``normalised_probability`` and
        ``log_truth_ratio`` are NaN where a prompt has no options. ``config["columns"]`` has one list per column:
        entity, relation, template, text, answer.

    Raises:
        DataError: If there is no prompt, or an answer has no token.
    """
    if not prompts:
        raise DataError("there is no question to ask; give at least one prompt")
    scored = token_scores(model, [p.text for p in prompts], [p.answer for p in prompts], batch_size=batch_size)
    wrong = [wrong_options(p)[:max_options] for p in prompts]
    loss = scored.loss()
    log_ratio, share = np.full(len(prompts), np.nan), np.full(len(prompts), np.nan)
    asked = [i for i, options in enumerate(wrong) if options]
    if asked:
        candidates = score_candidates(
            model, [prompts[i].text for i in asked], [wrong[i] for i in asked], batch_size=batch_size
        )
        for i, found in zip(asked, candidates.per_prompt, strict=True):
            losses = (-found.logprob / found.n_tokens).to(torch.float64).numpy()
            log_ratio[i] = log_truth_ratio(loss[i : i + 1], losses[None])[0]
            share[i] = normalised_probability(loss[i : i + 1], losses[None])[0]
    values = np.stack(
        [
            np.exp(-loss),
            share,
            log_ratio,
            exact_memorisation(scored),
            extraction_strength(scored, convention=convention),
            scored.first("entropy"),
            scored.first("confidence"),
        ],
        axis=1,
    )
    columns = columns_of([("", p) for p in prompts])
    del columns["set"]
    return Labelled(
        "memorisation by prompt",
        values,
        (Axis("prompt", tuple(str(i) for i in range(len(prompts)))), Axis("metric", MEMORISATION_METRICS)),
        n=1,
        mask_policy="answer tokens",
        config={"columns": columns, "max_options": max_options, "convention": convention},
        note="entropy (nats) and confidence are those of the distribution where the answer begins",
    )
