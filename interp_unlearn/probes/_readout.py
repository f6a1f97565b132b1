"""Linear readouts that can be fitted hundreds of times: ridge regression onto vectors of the answers.

A readout predicts, from an activation, the vector of the right answer; the candidates are then ranked by the inner
product with the prediction. With one-hot vectors this is the ridge classifier (Fisher's discriminant, regularised);
with the output head's vectors it also ranks answers that no training entity has. The score of a row is its *place*:
the share of wrong candidates that the right answer outranks, 1/2 by chance and 1 at the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from interp_unlearn.probes._separability import deal

PENALTY = 1.0  # ridge penalty on standardised features of mean squared length 1
ENTITY_FOLDS = 4
TEMPLATE_FOLDS = 2


@dataclass(frozen=True)
class Readout:
    """A fitted ridge regression on standardised features.

    Attributes:
        mean: Mean of each training feature.
        scale: What each centred feature is divided by.
        weight: (output, feature).
        bias: (output,).
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"]

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Predicted vectors."""
        return (x - self.mean) / self.scale @ self.weight.T + self.bias


def fit_readout(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    penalty: float = PENALTY,
) -> Readout:
    """Fit scikit-learn's ridge regression with an intercept.

    Args:
        x: Features; standardised here, and divided by the root of their number.
        y: Vectors to predict.
        weights: Weight of each row.
        penalty: Ridge penalty.
    """
    from sklearn.linear_model import Ridge  # here: importing scikit-learn takes seconds

    mean, spread = x.mean(0), x.std(0)
    varies = spread > 1e-12 * (1 + np.abs(mean))
    scale = np.where(varies, spread, 1.0) * np.sqrt(max(int(varies.sum()), 1))
    fitted = Ridge(alpha=penalty, solver="cholesky").fit((x - mean) / scale, y, sample_weight=weights)
    weight = np.asarray(fitted.coef_, float).reshape(y.shape[1], -1)
    return Readout(mean, scale, weight, np.broadcast_to(np.asarray(fitted.intercept_, float), (y.shape[1],)))


@dataclass(frozen=True)
class Folds:
    """Which fold each row's entity and template belong to; ``n_entity`` and ``n_template`` of them.

    Attributes:
        entity: Fold of each row's entity.
        template: Fold of each row's template.
    """

    entity: Int[np.ndarray, " n"]
    template: Int[np.ndarray, " n"]

    @classmethod
    def make(
        cls,
        entity: np.ndarray,
        template: np.ndarray,
        rng: np.random.Generator,
        *,
        relation: np.ndarray | None = None,
        strata: np.ndarray | None = None,
    ) -> Folds:
        """Deal entities (alike within ``strata``) and templates (alike within ``relation``) to folds."""
        return cls(deal(entity, ENTITY_FOLDS, rng, strata=strata), deal(template, TEMPLATE_FOLDS, rng, strata=relation))

    def by_template(self) -> Iterator[tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]]:
        """(training rows, test rows) for each template fold; with a single one both are all rows."""
        found = np.unique(self.template)
        for f in found:
            here = self.template == f
            yield (~here, here) if len(found) > 1 else (here, here)

    def joint(self) -> Iterator[tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]]:
        """(training rows, test rows) so that no entity and no template is on both sides."""
        for train, test in self.by_template():
            for g in np.unique(self.entity):
                held = self.entity == g
                yield train & ~held, test & held


def centred(
    x: Float[np.ndarray, "n d"], template: np.ndarray, reference: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n d"]:
    """Subtract from each row the mean of its template over the reference rows (of all of them where it has none)."""
    names, codes = np.unique(template, return_inverse=True)
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, codes[reference], x[reference])
    counts = np.bincount(codes[reference], minlength=len(names))
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], x[reference].mean(0))
    return x - means[codes]


def place(
    scores: Float[np.ndarray, "n c"], wrong: Bool[np.ndarray, "n c"], right: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of each row's wrong candidates that the right one outranks, ties counting half; ``nan`` without any.

    Args:
        scores: Score of each candidate.
        wrong: Which candidates are wrong ones of this row.
        right: Column of the right one.
    """
    mine = scores[np.arange(len(scores)), right][:, None]
    above = (wrong & (scores < mine)).sum(1) + 0.5 * (wrong & (scores == mine)).sum(1)
    count = wrong.sum(1)
    return np.divide(above, count, out=np.full(len(scores), np.nan), where=count > 0)


def shuffled_answers(
    entity: np.ndarray, relation: np.ndarray, answer: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """The control task: within each relation every entity gets the answer of a random one (Hewitt and Liang, 2019)."""
    out = answer.copy()
    for name in np.unique(relation):
        here = np.flatnonzero(relation == name)
        _names, first, codes = np.unique(entity[here], return_index=True, return_inverse=True)
        out[here] = rng.permutation(answer[here][first])[codes]
    return out
