"""Energy distance and MMD between two sets of rows, with a permutation test that may relabel whole entities.

Energy distance (Székely and Rizzo, 2013) as a fraction of the mean distance between the sets, from 0 (alike) to 1:
H = (2 E|x-y| - E|x-x'| - E|y-y'|) / (2 E|x-y|). MMD squared (Gretton et al., 2012) with a Gaussian kernel whose width
is the median distance of the pooled rows. Both average over all pairs, a row with itself included.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from interp_unlearn._core import DataError, numpy_rng

Statistic = Literal["energy", "mmd"]


@dataclass(frozen=True)
class TwoSampleResult:
    """Outcome of a two-sample permutation test.

    Attributes:
        statistic: The distance between the two sets.
        p_value: Share of relabellings with a distance as large or larger, the observed one included.
        null: Distances under relabelling.
        exact: Whether every relabelling was tried.
    """

    statistic: float
    p_value: float
    null: Float[np.ndarray, " permutations"]
    exact: bool


def pair_matrix(x: Float[np.ndarray, "n d"], statistic: Statistic) -> Float[np.ndarray, "n n"]:
    """Distances (energy) or kernel values (MMD) between all rows.

    Raises:
        DataError: If the statistic is unknown.
    """
    distances = _distances(x)
    if statistic == "energy":
        return distances
    if statistic != "mmd":
        raise DataError(f"unknown two-sample statistic {statistic!r}; use 'energy' or 'mmd'")
    apart = distances[np.triu_indices(len(x), 1)]
    width = float(np.median(apart)) if len(apart) and np.median(apart) > 0 else 1.0
    return np.exp(-(distances**2) / (2 * width**2))


def _distances(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Euclidean distances of all rows, by one matrix product around their mean."""
    x = x - x.mean(0)
    lengths = (x**2).sum(1)
    squares = np.maximum(lengths[:, None] + lengths[None] - 2 * x @ x.T, 0)
    np.fill_diagonal(squares, 0)
    return np.sqrt(squares)


def block_sums(matrix: Float[np.ndarray, "n n"], codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of a pair matrix over clusters, (cluster, cluster), and the clusters' sizes."""
    onehot = np.zeros((len(codes), int(codes.max()) + 1))
    onehot[np.arange(len(codes)), codes] = 1
    return onehot.T @ matrix @ onehot, onehot.sum(0)


def distance_of(
    blocks: Float[np.ndarray, "c c"],
    sizes: Float[np.ndarray, " c"],
    first: Bool[np.ndarray, "b c"],
    statistic: Statistic,
) -> Float[np.ndarray, " b"]:
    """The distance for each way of saying which clusters form the first set; all others form the second."""
    a = first.astype(np.float64)
    reached = a @ blocks
    xx, total = (reached * a).sum(1), blocks.sum()
    xy = reached.sum(1) - xx
    n = a @ sizes
    m = sizes.sum() - n
    between, within_x, within_y = xy / (n * m), xx / n**2, (total - xx - 2 * xy) / m**2
    if statistic == "mmd":
        return np.maximum(within_x + within_y - 2 * between, 0)
    return np.maximum(2 * between - within_x - within_y, 0) / np.maximum(2 * between, 1e-300)


def relabellings(
    first: Bool[np.ndarray, " c"], n_permutations: int, rng: np.random.Generator
) -> tuple[Bool[np.ndarray, "b c"], bool]:
    """Other ways to choose as many clusters as ``first`` does: all of them when they are few, else a random choice."""
    clusters, chosen = len(first), int(first.sum())
    if comb(clusters, chosen) <= n_permutations + 1:
        picks = np.array(list(combinations(range(clusters), chosen)))
    else:
        picks = rng.random((n_permutations, clusters)).argpartition(chosen - 1, axis=1)[:, :chosen]
    out = np.zeros((len(picks), clusters), dtype=bool)
    np.put_along_axis(out, picks, True, axis=1)
    return out, comb(clusters, chosen) <= n_permutations + 1


def two_sample_test(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    *,
    statistic: Statistic = "energy",
    clusters_x: np.ndarray | None = None,
    clusters_y: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> TwoSampleResult:
    """Could two sets of rows come from the same distribution?

    Args:
        x: First set.
        y: Second set.
        statistic: ``"energy"`` or ``"mmd"``.
        clusters_x: Entity of each row of ``x``; labels are exchanged between whole entities, as they must be when the
            rows of an entity are alike. Default: rows are independent.
        clusters_y: Entity of each row of ``y``; disjoint from those of ``x``.
        n_permutations: Relabellings drawn where there are too many to try all.
        seed: Seed of the draw.

    Returns:
        The statistic, its p-value (roughly uniform when the sets are alike) and the null distribution.

    Raises:
        DataError: If a set is empty or the sets share an entity.
    """
    if not len(x) or not len(y):
        raise DataError("a two-sample test needs rows in both sets")
    names_x = np.arange(len(x)).astype(np.str_) if clusters_x is None else clusters_x
    names_y = np.arange(len(x), len(x) + len(y)).astype(np.str_) if clusters_y is None else clusters_y
    if set(names_x) & set(names_y):
        raise DataError("the two sets share an entity; give each entity to one set")
    names, codes = np.unique(np.concatenate([names_x, names_y]), return_inverse=True)
    blocks, sizes = block_sums(pair_matrix(np.concatenate([x, y]), statistic), codes)
    first = np.isin(names, names_x)
    return permutation_test(blocks, sizes, first, statistic, n_permutations, numpy_rng(seed, "two-sample", statistic))


def permutation_test(
    blocks: Float[np.ndarray, "c c"],
    sizes: Float[np.ndarray, " c"],
    first: Bool[np.ndarray, " c"],
    statistic: Statistic,
    n_permutations: int,
    rng: np.random.Generator,
) -> TwoSampleResult:
    """The test of `two_sample_test` on sums over clusters."""
    observed = float(distance_of(blocks, sizes, first[None], statistic)[0])
    choices, exact = relabellings(first, n_permutations, rng)
    null = distance_of(blocks, sizes, choices, statistic)
    as_large = null >= observed - 1e-12 * max(abs(observed), 1e-12)
    p = as_large.mean() if exact else (1 + as_large.sum()) / (1 + len(null))
    return TwoSampleResult(observed, float(p), null, exact)
