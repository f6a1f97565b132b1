"""Splits that share neither a method nor a target, and resampling that respects both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from interp_unlearn._core import DataError, numpy_rng


def folds(groups: Sequence[str], n: int | None, seed: int, purpose: str) -> np.ndarray:
    """A fold for each row, such that a group lies in one fold; None makes each group a fold."""
    names = sorted(set(groups))
    order = [names[i] for i in numpy_rng(seed, "verdict folds", purpose).permutation(len(names))]
    count = len(names) if n is None else min(n, len(names))
    place = {name: i % count for i, name in enumerate(order)}
    return np.array([place[g] for g in groups])


def cells(
    methods: Sequence[str], targets: Sequence[str], method_folds: int | None, target_folds: int | None, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row numbers for every pair of a part of the methods and a part of the targets.

    A test holds the rows of both parts, its training set the rows of neither: rows that share the method alone, or the
    target alone, are left out of it. Each row is tested once.

    Raises:
        DataError: If there are fewer than two methods or two targets.
    """
    for what, groups in (("method", methods), ("target", targets)):
        if len(set(groups)) < 2:
            raise DataError(f"all runs have the same {what}; a split needs at least two, or it tests what it has seen")
    by_method = folds(methods, method_folds, seed, "method")
    by_target = folds(targets, target_folds, seed, "target")
    for m in np.unique(by_method):
        for t in np.unique(by_target):
            test = np.flatnonzero((by_method == m) & (by_target == t))
            train = np.flatnonzero((by_method != m) & (by_target != t))
            if len(test) and len(train):
                yield train, test


def pigeonhole(methods: Sequence[str], targets: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """Bootstrap weights of rows that cross two kinds of groups, (draw, row).

    Methods and targets are drawn with replacement independently, and a row weighs the product of how often each of its
    two was drawn (Owen, "The pigeonhole bootstrap", 2007): intervals then speak of new methods and new targets.
    """
    weights = np.ones((draws, len(methods)))
    for purpose, groups in (("method", methods), ("target", targets)):
        names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        rng = numpy_rng(seed, "verdict bootstrap", purpose, draws)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        weights *= drawn[:, member]
    return weights
