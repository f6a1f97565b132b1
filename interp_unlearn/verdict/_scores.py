"""AUROC with weights for resampling, and the calibration error with its floor."""

from __future__ import annotations

import numpy as np

from interp_unlearn._core import DataError, numpy_rng

BINS = 10


def auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """P(score of a positive > score of a negative) + ½ P(equal), for each set of weights.

    Args:
        scores: (row,)
        positive: (row,) booleans.
        weights: (draw, row), default one draw of ones.

    Returns:
        (draw,); NaN where a draw holds no positive or no negative.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    levels, place = np.unique(scores, return_inverse=True)
    is_level = (place[:, None] == np.arange(len(levels))).astype(np.float64)
    at_level = np.stack([weights @ (is_level * (positive == bool(side))[:, None]) for side in (0, 1)])
    below = np.cumsum(at_level[0], axis=1) - at_level[0]
    wins = (at_level[1] * (below + 0.5 * at_level[0])).sum(1)
    pairs = at_level[0].sum(1) * at_level[1].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, wins / pairs, np.nan)


def equal_mass_bins(probability: np.ndarray, bins: int = BINS) -> list[np.ndarray]:
    """Row numbers of ``bins`` parts of (nearly) equal size in order of probability; ties keep their order."""
    if len(probability) < 1:
        raise DataError("a calibration error needs at least one prediction")
    return [part for part in np.array_split(np.argsort(probability, kind="stable"), bins) if len(part)]


def calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b (n_b / n) · |share right in b − mean probability in b|, equal-mass bins.

    Args:
        probability: Of the statement that was made, (row,).
        right: Whether it was right, (row,).
        bins: How many.
    """
    parts = equal_mass_bins(probability, bins)
    return float(sum(abs(right[p].mean() - probability[p].mean()) * len(p) for p in parts) / len(probability))


def calibration_floor(probability: np.ndarray, bins: int = BINS, draws: int = 500, seed: int = 0) -> float:
    """What `calibration_error` is on average if predictions with these probabilities are right just as often.

    With few runs in a bin the error is above zero by chance alone; a measured error is to be read against this.
    """
    rng = numpy_rng(seed, "calibration floor", draws, len(probability))
    drawn = rng.random((draws, len(probability))) < probability
    return float(np.mean([calibration_error(probability, outcome, bins) for outcome in drawn]))


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean probability, share right, n) of each bin."""
    parts = equal_mass_bins(probability, bins)
    return [(float(probability[p].mean()), float(right[p].mean()), len(p)) for p in parts]


def interval(draws: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval, None where fewer than half of the draws have a value."""
    usable = draws[np.isfinite(draws)]
    if len(usable) < max(1, len(draws) // 2):
        return None
    low, high = np.quantile(usable, [0.025, 0.975])
    return float(low), float(high)
