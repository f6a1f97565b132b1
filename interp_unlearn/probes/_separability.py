"""How well a linear classifier sets an entity, or a set of them, apart from others, on unseen entities and templates.

The classifier is scikit-learn's ridge regression on class labels (Fisher's discriminant, regularised), since it solves
the problem for every entity at once; AUC needs its scores only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

PENALTY = 1.0  # ridge penalty in units of the mean eigenvalue of the Gram matrix
TEMPLATE_FOLDS = 3
ENTITY_FOLDS = 4


@dataclass(frozen=True)
class Separability:
    """Cross-validated separation of each candidate from the rest.

    Attributes:
        auc: Probability that a row of the candidate scores above a row of the rest, (candidate,).
        d_prime: Distance of mean scores in standard deviations of the rest's, which does not saturate as the AUC does.
        placement: Share of the rest's rows that each row outscores, (row, candidate); ``nan`` where the row is not the
            candidate's or was never tested.
    """

    auc: Float[np.ndarray, " c"]
    d_prime: Float[np.ndarray, " c"]
    placement: Float[np.ndarray, "n c"]


def compact(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
    """Standardised features in at most n coordinates with the same inner products, which is all that ridge sees."""
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1)
    x = x / np.sqrt(max(int((spread > 0).sum()), 1))
    if x.shape[1] <= x.shape[0]:
        return x
    values, vectors = np.linalg.eigh(x @ x.T)
    keep = values > values[-1] * 1e-12
    return vectors[:, keep] * np.sqrt(values[keep])


def deal(
    labels: np.ndarray, folds: int, rng: np.random.Generator, strata: np.ndarray | None = None
) -> Int[np.ndarray, " n"]:
    """Fold of each row: rows with one label share a fold, and folds are of like size (within each stratum)."""
    names, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    order = rng.permutation(len(names))
    if strata is not None:
        order = order[np.argsort(strata[first][order], kind="stable")]
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % max(min(folds, len(names)), 1)
    return fold[codes]


def _scores(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge scores (test row, candidate)."""
    from sklearn.linear_model import Ridge  # here: importing scikit-learn takes seconds

    fitted = Ridge(alpha=PENALTY, solver="cholesky").fit(x[train], y[train].astype(np.float64))
    return np.asarray(fitted.predict(x[test])).reshape(int(test.sum()), -1)


def separate_names(
    x: Float[np.ndarray, "n k"],
    entity: np.ndarray,
    template_fold: Int[np.ndarray, " n"],
    entity_fold: Int[np.ndarray, " n"],
    candidates: np.ndarray,
) -> Separability:
    """Each candidate entity against all the others.

    A fold trains on other templates and other entities than it tests on; the candidate itself, being one name, is split
    by template only.

    Args:
        x: Features, see `compact`.
        entity: Entity of each row.
        template_fold: Fold of each row's template.
        entity_fold: Fold of each row's entity; -1 for entities that are never among the rest tested.
        candidates: Entities to set apart.
    """
    return _cross_validate(x, entity[:, None] == candidates[None], template_fold, entity_fold, split_positives=False)


def separate_sets(
    x: Float[np.ndarray, "n k"],
    members: Bool[np.ndarray, "n c"],
    template_fold: Int[np.ndarray, " n"],
    entity_fold: Int[np.ndarray, " n"],
) -> Separability:
    """Each set of entities (a column of ``members``) against the rest, tested on unseen entities and templates."""
    return _cross_validate(x, members, template_fold, entity_fold, split_positives=True)


def _cross_validate(
    x: np.ndarray, members: np.ndarray, template_fold: np.ndarray, entity_fold: np.ndarray, *, split_positives: bool
) -> Separability:
    rows, candidates = members.shape
    placed, tested = np.zeros((rows, candidates)), np.zeros((rows, candidates))
    d_sum, d_count = np.zeros(candidates), np.zeros(candidates)
    template_folds = np.unique(template_fold)
    for f in template_folds:
        seen = template_fold == f if len(template_folds) > 1 else np.ones(rows, dtype=bool)
        other = template_fold != f if len(template_folds) > 1 else np.ones(rows, dtype=bool)
        for g in np.unique(entity_fold[entity_fold >= 0]):
            train, held = other & (entity_fold != g), entity_fold == g
            usable = members[train].any(0) & ~members[train].all(0)
            test = seen & (held | (members.any(1) & (not split_positives)))
            if not usable.any() or not test.any():
                continue
            index = np.flatnonzero(usable)
            score = _scores(x, members[:, index], train, test)
            for column, c in enumerate(index):
                mine = members[test, c] & (held[test] | (not split_positives))
                rest = held[test] & ~members[test, c]
                if not mine.any() or not rest.any() or (not split_positives and held[test][mine].any()):
                    continue
                s, others = score[mine, column], score[rest, column]
                above = (others[None] < s[:, None]).mean(1) + 0.5 * (others[None] == s[:, None]).mean(1)
                where = np.flatnonzero(test)[mine]
                placed[where, c] += above
                tested[where, c] += 1
                d_sum[c] += (s.mean() - others.mean()) / max(float(others.std()), 1e-12)
                d_count[c] += 1
    placement = np.full((rows, candidates), np.nan)
    np.divide(placed, tested, out=placement, where=tested > 0)
    auc = np.full(candidates, np.nan)
    known = (tested > 0).any(0)
    auc[known] = np.nanmean(placement[:, known], axis=0)
    return Separability(auc, np.divide(d_sum, d_count, out=np.full(candidates, np.nan), where=d_count > 0), placement)
