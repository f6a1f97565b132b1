"""Truth ratio, forget quality and model utility (Maini et al., TOFU, arXiv 2401.06121), on lists of losses.

L is the mean negative log-likelihood per token of one answer, P = exp(-L). Everything here is arithmetic on arrays, so
that it works on saved evaluation logs as well as on a model's scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import DataError

TINY = 1e-10
TruthForm = Literal["forget", "retain", "prob_mean"]
UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_METRICS = ("probability", "rouge_l_recall", "truth_ratio")


def log_truth_ratio(right: Float[np.ndarray, " n"], wrong: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """The logarithm of TR: L(right) - mean_j L(wrong_j): above 0, wrong answers are likelier than the right one.

    Args:
        right: L of the right answer (the paraphrased one, where there is one).
        wrong: L of each wrong answer.
    """
    return right - wrong.mean(1)


def truth_ratio(log_ratio: Float[np.ndarray, " n"], form: TruthForm = "forget") -> Float[np.ndarray, " n"]:
    """The truth ratio of each question in the form that is averaged over a set.

    Args:
        log_ratio: log TR, see `log_truth_ratio`.
        form: ``"forget"``: min(TR, 1/TR), 1 is best (no preference). ``"retain"``: max(0, 1 - TR), up.
            ``"prob_mean"``: P(right) / (P(right) + P(wrong)) = 1 / (1 + TR), 0.5 is no preference.
    """
    if form == "forget":
        return np.exp(-np.abs(log_ratio))
    ratio = np.exp(np.minimum(log_ratio, 700.0))
    return np.maximum(0.0, 1 - ratio) if form == "retain" else 1 / (1 + ratio)


def normalised_probability(right: Float[np.ndarray, " n"], wrong: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """P(right) / (P(right) + Σ_j P(wrong_j) + 1e-10)."""
    p = np.exp(-right)
    return p / (p + np.exp(-wrong).sum(1) + TINY)


@dataclass(frozen=True)
class ForgetQuality:
    """Two-sample Kolmogorov–Smirnov test of truth ratios.

    Attributes:
        statistic: D, the largest distance of the two distribution functions, 0 to 1; 0 is best. Free of sample size.
        p_value: "Forget quality": above 0.05 the two cannot be told apart.
        log10_p: Its decimal logarithm.
        n: Questions of the edited model and of gold.
    """

    statistic: float
    p_value: float
    log10_p: float
    n: tuple[int, int]


def forget_quality(edited: Float[np.ndarray, " n"], gold: Float[np.ndarray, " m"]) -> ForgetQuality:
    """Could the truth ratios of the forget set be those of a model that never saw it?

    Args:
        edited: Truth ratios (or their logarithms: the test does not change under a monotone map) of the edited model.
        gold: The same of gold.

    Raises:
        DataError: If either has fewer than two numbers.
    """
    from scipy.stats import ks_2samp  # here: importing it takes a second

    edited, gold = edited[np.isfinite(edited)], gold[np.isfinite(gold)]
    if min(len(edited), len(gold)) < 2:
        raise DataError(
            f"forget quality compares two distributions, but there are {len(edited)} and {len(gold)} truth ratios; "
            "give at least 2 questions with wrong answers to each model"
        )
    found: Any = ks_2samp(edited, gold)
    p = float(found.pvalue)
    return ForgetQuality(float(found.statistic), p, float(np.log10(max(p, 1e-320))), (len(edited), len(gold)))


def harmonic_mean(values: Float[np.ndarray, " n"]) -> float:
    """The count of numbers over the sum of 1/v; 0 if any is 0.

    Raises:
        DataError: If a value is negative.
    """
    if not len(values) or (values < 0).any():
        raise DataError("a harmonic mean needs at least one number, and none below 0")
    return 0.0 if (values == 0).any() else float(len(values) / (1 / values).sum())


def model_utility(numbers: Mapping[str, Mapping[str, float]]) -> float:
    """Harmonic mean of three sets × three numbers.

    Args:
        numbers: For each of `UTILITY_SETS`, the means of `UTILITY_METRICS`: probability (plain on ``retain``,
            normalised over options on the other two), ROUGE-L recall, and max(0, 1 - TR).

    Raises:
        DataError: If one of the nine is missing.
    """
    missing = [f"{s} {m}" for s in UTILITY_SETS for m in UTILITY_METRICS if m not in numbers.get(s, {})]
    if missing:
        raise DataError(f"model utility needs nine numbers; missing: {', '.join(missing)}")
    return harmonic_mean(np.array([numbers[s][m] for s in UTILITY_SETS for m in UTILITY_METRICS], dtype=np.float64))


def relative_difference(value: float, reference: float) -> float:
    """100 (m - m_ref) / (m_ref + 1e-10), in per cent; 0 is best."""
    return 100 * (value - reference) / (reference + TINY)
