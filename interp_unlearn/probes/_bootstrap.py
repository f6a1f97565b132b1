"""Intervals that respect clusters: rows of one entity, and rows of one template, are not independent.

Both are resampled at once (Owen, "The pigeonhole bootstrap", 2007): a row's weight is the product of how often its
entity and its template were drawn. A target of one entity is resampled over templates alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

LEVEL = 0.95


def cluster_weights(
    clusters: tuple[np.ndarray, ...], rng: np.random.Generator, n_boot: int = 1000
) -> Float[np.ndarray, "boot n"] | None:
    """Weights of each row in each resample, or None where no clustering has two clusters.

    Args:
        clusters: Labels per row, one array per clustering (entities, templates).
        rng: Source of randomness.
        n_boot: Number of resamples.
    """
    weights: np.ndarray | None = None
    for labels in clusters:
        names, codes = np.unique(labels, return_inverse=True)
        if len(names) < 2:
            continue
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_boot).astype(np.float64)
        weights = drawn[:, codes] if weights is None else weights * drawn[:, codes]
    return weights


def bootstrap_means(
    values: Float[np.ndarray, " n"], clusters: tuple[np.ndarray, ...], rng: np.random.Generator, n_boot: int = 1000
) -> Float[np.ndarray, " b"] | None:
    """Resampled means of ``values``, or None where nothing can be resampled. Empty resamples are left out."""
    weights = cluster_weights(clusters, rng, n_boot)
    if weights is None or not np.isfinite(values).all():
        return None
    total = weights.sum(1)
    return (weights @ values)[total > 0] / total[total > 0]


def interval(samples: Float[np.ndarray, " b"] | None) -> tuple[float, float] | None:
    """Percentile 95 % interval of resampled values."""
    if samples is None or not len(samples):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(
    values: Float[np.ndarray, " n"], clusters: tuple[np.ndarray, ...], rng: np.random.Generator, n_boot: int = 1000
) -> tuple[float, float] | None:
    """95 % interval of a mean, by resampling ``clusters``."""
    return interval(bootstrap_means(values, clusters, rng, n_boot))


def balanced_mean(values: Shaped[np.ndarray, " n"], label: Shaped[np.ndarray, " n"]) -> float:
    """Mean over the labels of the mean of their rows: each label weighs the same."""
    return float(np.mean([values[label == k].mean() for k in np.unique(label)]))


def balanced_interval(
    values: Shaped[np.ndarray, " n"],
    label: Shaped[np.ndarray, " n"],
    clusters: tuple[np.ndarray, ...],
    rng: np.random.Generator,
    n_boot: int = 1000,
) -> tuple[float, float] | None:
    """95 % interval of a `balanced_mean`, by resampling ``clusters``; resamples without a label are left out."""
    values = np.asarray(values, dtype=np.float64)
    weights = cluster_weights(clusters, rng, n_boot)
    if weights is None or not np.isfinite(values).all():
        return None
    rows = [label == k for k in np.unique(label)]
    totals = np.stack([weights[:, r].sum(1) for r in rows])
    whole = (totals > 0).all(0)
    sums = np.stack([weights[:, r] @ values[r] for r in rows])
    return interval((sums[:, whole] / totals[:, whole]).mean(0))


def entity_means(values: Float[np.ndarray, "n k"], entity: np.ndarray) -> Float[np.ndarray, "e k"]:
    """Mean of each column over the rows of each entity, entities in sorted order."""
    names, codes = np.unique(entity, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums / np.bincount(codes, minlength=len(names))[:, None]


def percentile(value: float, among: Float[np.ndarray, " n"]) -> float:
    """Share of ``among`` below ``value``, ties counting half: 0.5 is the middle."""
    return float((among < value).mean() + 0.5 * (among == value).mean()) if len(among) else float("nan")
