"""Linear probes with an honest score: entities held out, and a control task that only memory can solve.

The control task (Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks", 2019) gives each entity a
label drawn from the real ones. A probe that scores as well on it has learnt names, not the property; the difference is
its *selectivity*.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.probes._bootstrap import balanced_mean
from interp_unlearn.probes._separability import deal

STRENGTH = 0.1  # scikit-learn's C, on standardised features
MAX_STEPS = 500


@dataclass(frozen=True)
class LinearProbe:
    """A fitted logistic regression on standardised features.

    Attributes:
        classes: Class names, sorted.
        mean: Mean of each training feature.
        scale: Standard deviation of each training feature (1 where it is constant).
        weight: Weights on standardised features, (class, feature); one row for two classes, towards the second.
        bias: Intercepts.
    """

    classes: np.ndarray
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "c d"]
    bias: Float[np.ndarray, " c"]

    def score(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Log-odds of each row (for the second class where there are two)."""
        return (x - self.mean) / self.scale @ self.weight.T + self.bias

    def predict(self, x: Float[np.ndarray, "n d"]) -> np.ndarray:
        """Class of each row."""
        score = self.score(x)
        return self.classes[(score[:, 0] > 0).astype(int) if len(self.classes) == 2 else score.argmax(1)]


@dataclass(frozen=True)
class ProbeScore:
    """Cross-validated balanced accuracies of a probe.

    Attributes:
        correct: Whether each row was right when its entity was held out.
        accuracy: Balanced accuracy on entities held out.
        control: The same with labels shuffled among entities (chance level).
        template_accuracy: Balanced accuracy on held-out templates of seen entities; ``nan`` with one template.
        template_control: The same with shuffled labels: what the probe can memorise.
        chance: One over the number of classes.
    """

    correct: np.ndarray
    accuracy: float
    control: float
    template_accuracy: float
    template_control: float
    chance: float

    @property
    def selectivity(self) -> float:
        """Accuracy above the control task, on held-out entities."""
        return self.accuracy - self.control

    @property
    def template_selectivity(self) -> float:
        """Accuracy above the control task, on held-out templates of seen entities (Hewitt and Liang's setting)."""
        return self.template_accuracy - self.template_control


def fit_linear_probe(x: Float[np.ndarray, "n d"], labels: np.ndarray, *, strength: float = STRENGTH) -> LinearProbe:
    """Fit a class-balanced L2 logistic regression.

    Args:
        x: Features.
        labels: Class of each row, two or more classes.
        strength: Inverse of the regularisation (scikit-learn's C).

    Raises:
        DataError: If there is one class only, or a feature is not finite.
    """
    from sklearn.exceptions import ConvergenceWarning  # here: importing scikit-learn takes seconds
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise DataError("a probe needs rows of at least two classes")
    if not np.isfinite(x).all():
        raise DataError("a probe cannot be fitted to NaN or infinite activations")
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12 * (1 + np.abs(mean)), scale, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe stopped at MAX_STEPS is still judged by its score
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_STEPS).fit(
            (x - mean) / scale, labels
        )
    return LinearProbe(
        np.asarray(model.classes_), mean, scale, np.asarray(model.coef_, float), np.asarray(model.intercept_, float)
    )


def score_linear_probe(
    x: Float[np.ndarray, "n d"],
    labels: np.ndarray,
    entity: np.ndarray,
    template: np.ndarray | None = None,
    *,
    folds: int = 5,
    controls: int = 2,
    strength: float = STRENGTH,
    seed: int = 0,
) -> ProbeScore:
    """Cross-validate a probe by entity (and by template), with its control task.

    Args:
        x: Features.
        labels: Class of each row; all rows of an entity have one class.
        entity: Entity of each row: rows of an entity are never on both sides of a split by entity.
        template: Template of each row, for the split by template; None leaves that out.
        folds: Number of folds.
        controls: Shufflings averaged for the control task.
        strength: Inverse of the regularisation.
        seed: Seed of folds and shufflings.

    Raises:
        DataError: If an entity has two classes, or a class fewer than two entities.
    """
    _names, first, codes = np.unique(entity, return_index=True, return_inverse=True)
    of_entity = labels[first]
    if (of_entity[codes] != labels).any():
        raise DataError("an entity has rows of two classes; a grouped split needs one class per entity")
    classes, counts = np.unique(of_entity, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise DataError("a probe needs two or more classes, each with at least two entities")
    rng = numpy_rng(seed, "probe folds")
    by_entity = deal(entity, folds, rng, strata=labels)
    by_template = None
    if template is not None and len(np.unique(template)) > 1:
        by_template = deal(template, min(folds, 3), rng)
    shuffled = [rng.permutation(of_entity)[codes] for _ in range(controls)]
    correct = _out_of_fold(x, labels, by_entity, strength)

    def control(fold: np.ndarray) -> float:
        return float(np.mean([balanced_mean(_out_of_fold(x, s, fold, strength), s) for s in shuffled]))

    return ProbeScore(
        correct,
        balanced_mean(correct, labels),
        control(by_entity),
        float("nan") if by_template is None else balanced_mean(_out_of_fold(x, labels, by_template, strength), labels),
        float("nan") if by_template is None else control(by_template),
        1 / len(classes),
    )


def _out_of_fold(x: np.ndarray, labels: np.ndarray, fold: np.ndarray, strength: float) -> np.ndarray:
    """Whether each row is right when its fold is held out."""
    correct = np.zeros(len(labels), dtype=bool)
    for f in np.unique(fold):
        test = fold == f
        if len(np.unique(labels[~test])) < 2:
            correct[test] = labels[test] == labels[~test][0]
            continue
        correct[test] = fit_linear_probe(x[~test], labels[~test], strength=strength).predict(x[test]) == labels[test]
    return correct
