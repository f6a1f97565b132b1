"""Bootstrap over clusters: entities are drawn, never single prompts of one entity, which move together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp_unlearn._core import DataError, numpy_rng


def bootstrap(
    values: np.ndarray,
    clusters: Sequence[str],
    *,
    weights: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
    purpose: str = "bootstrap",
) -> np.ndarray:
    """Resampled means of ``values``, drawing whole clusters with replacement.

    Args:
        values: (n,) or (n, k) numbers; NaN means "does not apply" and is left out of its column.
        clusters: The cluster of each row, (n,).
        weights: Weight of each row, (n,), default 1 (tokens per text, for instance).
        draws: Number of resamples.
        seed: Seed; the same seed and purpose give the same draws.
        purpose: Keeps the draws of different results apart.

    Returns:
        (draws, k) means, (draws,) for one-dimensional values. NaN where a resample holds no usable row.
    """
    values = np.asarray(values, dtype=np.float64)
    flat = values[:, None] if values.ndim == 1 else values
    if len(flat) != len(clusters) or not len(flat):
        raise DataError(f"a bootstrap needs one cluster per value: got {len(flat)} values and {len(clusters)} clusters")
    weight = np.ones(len(flat)) if weights is None else np.asarray(weights, dtype=np.float64)
    names, member = _codes(clusters)
    usable = ~np.isnan(flat)
    total = np.zeros((len(names), flat.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, member, np.where(usable, flat, 0.0) * weight[:, None])
    np.add.at(count, member, usable * weight[:, None])
    drawn = _times_drawn(len(names), draws, seed, purpose)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (drawn @ total) / (drawn @ count)
    return means[:, 0] if values.ndim == 1 else means


def resample_weights(
    clusters: Sequence[str], *, draws: int = 1000, seed: int = 0, purpose: str = "bootstrap"
) -> np.ndarray:
    """How often each row is drawn in each resample of whole clusters, (draws, n); for statistics that are no means."""
    names, member = _codes(clusters)
    return _times_drawn(len(names), draws, seed, purpose)[:, member].astype(np.float64)


def _codes(clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Names of the clusters, and the cluster of each row."""
    names, member = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return names, member


def _times_drawn(n: int, draws: int, seed: int, purpose: str) -> np.ndarray:
    return numpy_rng(seed, purpose, draws).multinomial(n, np.full(n, 1 / n), size=draws)


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values, NaN where there are none."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def cluster_unit(entities: Sequence[str], templates: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What to resample: entities where there are two or more, else templates, else nothing.

    Returns:
        The unit (``"entity"``, ``"template"`` or ``"none"``) and the cluster of each row. A single entity cannot say
        how much entities differ; its templates only say how much the wording matters.
    """
    if len(set(entities)) >= 2:
        return "entity", tuple(entities)
    if len(set(templates)) >= 2:
        return "template", tuple(templates)
    return "none", tuple(entities)
