"""The second stage: forgotten, hidden or over-suppressed, by a logistic regression that can be checked by hand.

Stored as plain JSON (names, means, scales, coefficients, intercepts, temperature, offsets) and evaluated with NumPy;
scikit-learn fits it, and nothing is pickled. Probabilities are calibrated by Platt's method in its multi-class form
(one temperature and one offset per class; for two classes this is Platt's slope and intercept) on predictions for runs
whose method and target were both left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interp_unlearn._core import (
    ConfigError,
    DataError,
    FileFormatError,
    __version__,
    config_hash,
    read_json,
    write_json,
)
from interp_unlearn.verdict._dataset import INNER, Dataset
from interp_unlearn.verdict._features import FEATURES, Feature, Scale, columns, design, design_matrix, fit_scales
from interp_unlearn.verdict._label import LabelRules
from interp_unlearn.verdict._splits import cells

SHIPPED = Path(__file__).with_name("calibration.json")
SHIPPED_QUICK = Path(__file__).with_name("calibration-quick.json")
"""For runs that measured no more than the evidence level ``quick``."""
KIND = "verdict calibration"
CALIBRATED: tuple[str, ...] = ("language",)
"""What models read in the runs that calibrations are fitted on; of others a calibration says nothing."""
ABSENT = -12.0
"""Log-odds of a class that a training half does not hold."""


@dataclass(frozen=True)
class FitOptions:
    """How the model is fitted.

    Attributes:
        strengths: Inverse strengths of the L2 penalty to choose from (scikit-learn's C), by log-loss on left-out runs.
        method_folds: Methods are left out in so many parts where the penalty and the temperature are chosen.
        target_folds: Targets likewise.
        seed: Decides which methods and targets go together.
    """

    strengths: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    method_folds: int = 8
    target_folds: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise ConfigError(f"strengths is {self.strengths}; give positive numbers such as 0.1")
        for name in ("method_folds", "target_folds"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; use at least 2")


@dataclass(frozen=True)
class Calibration:
    """A fitted verdict.

    Attributes:
        features: The features it was offered; a run is read by these.
        scales: How the used ones become columns.
        classes: What it tells apart.
        coefficients: (class, column), on the log-odds scale before the temperature.
        intercepts: (class,)
        temperature: Log-odds are multiplied by it.
        offsets: Added to the log-odds before that, (class,).
        rules: Thresholds of the labels and of the first stage.
        provenance: Where, on what, and with which settings it was calibrated.
        metrics: What was measured on left-out runs.
    """

    features: tuple[Feature, ...]
    scales: tuple[Scale, ...]
    classes: tuple[str, ...]
    coefficients: np.ndarray
    intercepts: np.ndarray
    temperature: float
    offsets: np.ndarray
    rules: LabelRules
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, values: Mapping[str, float]) -> np.ndarray:
        """Calibrated log-odds of the classes up to a constant, (class,)."""
        raw = self.coefficients @ design(values, self.scales) + self.intercepts
        return self.temperature * (raw + self.offsets)

    def predict(self, values: Mapping[str, float]) -> dict[str, float]:
        """Probability of each class, given that one of them is right."""
        return dict(zip(self.classes, (float(p) for p in softmax(self.logits(values))), strict=True))

    def pushes(self, values: Mapping[str, float], toward: str, against: str) -> dict[str, float]:
        """What each feature adds to the log-odds of one class against another; indicators count with their feature."""
        a, b = self.classes.index(toward), self.classes.index(against)
        each = self.temperature * (self.coefficients[a] - self.coefficients[b]) * design(values, self.scales)
        out: dict[str, float] = {}
        for name, push in zip(columns(self.scales), each, strict=True):
            feature = name.removeprefix("missing: ")
            out[feature] = out.get(feature, 0.0) + float(push)
        return out

    def absent(self, values: Mapping[str, float]) -> float:
        """Share of the features it uses that a run lacks."""
        lacks = [not math.isfinite(values.get(s.feature, math.nan)) for s in self.scales]
        return sum(lacks) / max(1, len(lacks))

    @property
    def version(self) -> str:
        """A hash of all that decides a prediction."""
        data = self.to_json()
        return config_hash({k: data[k] for k in data if k not in ("provenance", "metrics", "version", "library")}, 12)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": KIND,
            "library": __version__,
            "classes": list(self.classes),
            "columns": list(columns(self.scales)),
            "coefficients": self.coefficients.tolist(),
            "intercepts": self.intercepts.tolist(),
            "temperature": self.temperature,
            "offsets": self.offsets.tolist(),
            "scales": [asdict(s) for s in self.scales],
            "features": [f.to_json() for f in self.features],
            "rules": self.rules.to_json(),
            "provenance": dict(self.provenance),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: If it is not a calibration.
        """
        if not isinstance(data, Mapping) or data.get("kind") != KIND:
            raise FileFormatError("this is not a calibration of the verdict")
        try:
            made = cls(
                features=tuple(Feature.from_json(f) for f in data["features"]),
                scales=tuple(Scale(**s) for s in data["scales"]),
                classes=tuple(data["classes"]),
                coefficients=np.array(data["coefficients"], dtype=np.float64),
                intercepts=np.array(data["intercepts"], dtype=np.float64),
                temperature=float(data["temperature"]),
                offsets=np.array(data["offsets"], dtype=np.float64),
                rules=LabelRules(**data["rules"]),
                provenance=data["provenance"],
                metrics=data["metrics"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"this calibration lacks or misnames a field ({error}); fit it again") from error
        if made.coefficients.shape != (len(made.classes), len(columns(made.scales))):
            raise FileFormatError("this calibration has coefficients for other columns than its features; fit it again")
        return made

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file written by `save`.

        Raises:
            FileFormatError: If it is missing or not a calibration.
        """
        return cls.from_json(read_json(path))


def has_calibration() -> bool:
    """Whether this installation ships a calibration."""
    return SHIPPED.exists()


def load_calibration(path: str | Path | None = None, *, quick: bool = False) -> Calibration:
    """The calibration at ``path``, or one that is shipped.

    Args:
        path: Of a file.
        quick: Of the shipped ones the one for the evidence level ``quick``, if there is one.

    Raises:
        DataError: If none is given and none is shipped.
        FileFormatError: If the file is not a calibration.
    """
    if path is None and not has_calibration():
        raise DataError(
            "there is no calibration, so there is no verdict: give calibration=…, or fit one with "
            "benchmarks/verdict/fit.py"
        )
    shipped = SHIPPED_QUICK if quick and SHIPPED_QUICK.exists() else SHIPPED
    return Calibration.load(shipped if path is None else path)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit(
    data: Dataset,
    *,
    features: Sequence[Feature] = FEATURES,
    rules: LabelRules | None = None,
    options: FitOptions | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Calibration:
    """Fit the second stage on the silent runs of a data set.

    Args:
        data: Runs with labels; only those that reach the second stage are used (`Dataset.silent`).
        features: What a run is read by: columns of ``data`` that are not among them are not looked at, and features
            that ``data`` lacks are left out.
        rules: The rules that made the labels.
        options: Of the fit.
        provenance: Facts to store beside it.

    Raises:
        DataError: If there are too few classes, methods or targets.
    """
    options = options or FitOptions()
    used = data.take(data.silent).offering({f.name for f in features})
    classes = tuple(name for name in INNER if name in used.labels)
    if len(classes) < 2:
        raise DataError(
            f"the data set has {len(used)} runs for the second stage, of the classes {list(classes)}; at least two of "
            f"{', '.join(INNER)} are needed"
        )
    target = np.array([classes.index(name) for name in used.labels])
    splits = list(
        cells(used.groups["method"], used.groups["target"], options.method_folds, options.target_folds, options.seed)
    )
    best = min(
        ((_left_out(used, target, classes, splits, c), c) for c in options.strengths), key=lambda found: found[0][0]
    )
    (loss, logits, rows), strength = best
    temperature, offsets = platt(logits[rows], target[rows])
    scales = fit_scales(used.values, used.features)
    coefficients, intercepts = _regress(
        design_matrix(used.values, used.features, scales), target, len(classes), strength
    )
    facts = {
        "runs": len(used),
        "runs_in_all": len(data),
        "classes": {name: int((target == k).sum()) for k, name in enumerate(classes)},
        "methods": sorted(set(used.groups["method"])),
        "targets": len(set(used.groups["target"])),
        "strength": strength,
        "left_out_log_loss": loss,
        "options": asdict(options),
        "data": config_hash([used.to_rows()], 12),
    }
    return Calibration(
        features=tuple(f for f in features if f.name in data.features),
        scales=scales,
        classes=classes,
        coefficients=coefficients,
        intercepts=intercepts,
        temperature=temperature,
        offsets=offsets,
        rules=rules or LabelRules(),
        provenance={**facts, **(provenance or {})},
    )


def _left_out(
    data: Dataset, target: np.ndarray, classes: Sequence[str], splits: Sequence[tuple[np.ndarray, np.ndarray]], c: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-loss, logits and which rows have them, each from a model that saw neither the row's method nor its target."""
    logits = np.zeros((len(data), len(classes)))
    done = np.zeros(len(data), dtype=bool)
    for train, test in splits:
        if len(set(target[train].tolist())) < 2:
            continue
        scales = fit_scales(data.values[train], data.features)
        weights, bias = _regress(
            design_matrix(data.values[train], data.features, scales), target[train], len(classes), c
        )
        logits[test] = design_matrix(data.values[test], data.features, scales) @ weights.T + bias
        done[test] = True
    if not done.any():
        raise DataError(
            "no split leaves two classes to learn from once a method and its targets are left out; add some"
        )
    chosen = softmax(logits[done])[np.arange(int(done.sum())), target[done]]
    return float(-np.log(np.clip(chosen, 1e-12, None)).mean()), logits, done


def _regress(x: np.ndarray, y: np.ndarray, n_classes: int, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression with an L2 penalty; (class, column) coefficients and (class,) intercepts."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    present = sorted(set(y.tolist()))
    weights, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, ABSENT)
    with threadpool_limits(limits=1, user_api="blas"):
        model = LogisticRegression(C=c, max_iter=5000).fit(x, y)
    if len(present) == 2:  # scikit-learn gives the difference of the two
        weights[present[0]], weights[present[1]] = -model.coef_[0] / 2, model.coef_[0] / 2
        bias[present[0]], bias[present[1]] = -model.intercept_[0] / 2, model.intercept_[0] / 2
    else:
        weights[present], bias[present] = model.coef_, model.intercept_
    return weights, bias


def platt(logits: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Temperature and offsets that make left-out log-odds calibrated (multi-class form of Platt 1999).

    Args:
        logits: (run, class) of runs that the model did not see.
        target: Class of each, (run,).

    Returns:
        a > 0 and b such that softmax(a (logits + b)) has the least log-loss, with a weak pull to a = 1, b = 0 that
        weighs as much as one run.
    """
    from scipy.optimize import minimize

    n, k = logits.shape

    def loss(parameters: np.ndarray) -> float:
        a, b = math.exp(parameters[0]), np.append(parameters[1:], 0.0)
        p = softmax(a * (logits + b))[np.arange(n), target]
        return float(-np.log(np.clip(p, 1e-12, None)).sum() + (parameters**2).sum())

    found = minimize(loss, np.zeros(k), method="L-BFGS-B", bounds=[(-3.0, 3.0)] + [(-5.0, 5.0)] * (k - 1))
    return math.exp(float(found.x[0])), np.append(found.x[1:], 0.0)
