"""How well the verdict does on runs whose method and target it has never seen, beside every single measure alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from interp_unlearn._core import DataError
from interp_unlearn.verdict._combine import combine
from interp_unlearn.verdict._dataset import INNER, Dataset
from interp_unlearn.verdict._features import FEATURES, Feature
from interp_unlearn.verdict._label import LABELS, LabelRules
from interp_unlearn.verdict._model import Calibration, FitOptions, fit
from interp_unlearn.verdict._scores import (
    auroc,
    calibration_error,
    calibration_floor,
    interval,
    reliability,
)
from interp_unlearn.verdict._splits import cells, pigeonhole


@dataclass(frozen=True)
class Score:
    """One AUROC, hidden against forgotten.

    Attributes:
        name: What was scored.
        value: AUROC.
        low: Lower end of its 95 % interval (methods and targets resampled), NaN without one.
        high: Upper end.
        n: Runs, hidden and forgotten.
        lead: The verdict's AUROC minus this one, NaN for the verdict itself.
        lead_low: Lower end of the interval of the lead, on the same resamples.
        lead_high: Upper end.
        coverage: Share of the runs that have the measure; the others count as its median.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    lead: float = math.nan
    lead_low: float = math.nan
    lead_high: float = math.nan
    coverage: float = 1.0


@dataclass(frozen=True)
class Evaluation:
    """What was measured on left-out runs.

    Attributes:
        held_out: Kinds of groups that training and test never share.
        probabilities: (run, label) of each labelled run, NaN where no split could predict it.
        runs: Their names.
        labels: Their labels.
        methods: Their methods.
        verdict: Hidden against forgotten, on runs that reach the second stage.
        verdict_all: The same on all runs labelled hidden or forgotten; the first stage may decide.
        singles: Each measure alone, the best first; its better orientation is taken, which flatters it.
        ece: Expected calibration error of the probability of the stated label, all labelled runs.
        ece_floor: What it would be by chance for a perfectly calibrated predictor.
        ece_inner: The error of P(hidden) on the runs that reach the second stage.
        ece_inner_floor: By chance.
        bins: Reliability of the stated label: (mean probability, share right, n).
        confusion: label → stated label → runs.
        failures: method → "label → stated label" → runs.
        accuracy: Share of runs whose stated label is right.
        unpredicted: Runs that no split could predict.
    """

    held_out: tuple[str, str]
    probabilities: np.ndarray
    runs: tuple[str, ...]
    labels: tuple[str, ...]
    methods: tuple[str, ...]
    verdict: Score
    verdict_all: Score
    singles: tuple[Score, ...]
    ece: float
    ece_floor: float
    ece_inner: float
    ece_inner_floor: float
    bins: tuple[tuple[float, float, int], ...]
    confusion: Mapping[str, Mapping[str, int]]
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    accuracy: float = math.nan
    unpredicted: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the predictions of single runs."""
        data = asdict(self)
        return {k: v for k, v in data.items() if k not in ("probabilities", "runs", "labels", "methods")}


def predictions(
    data: Dataset,
    *,
    by: tuple[str, str] = ("method", "target"),
    features: Sequence[Feature] = FEATURES,
    rules: LabelRules | None = None,
    options: FitOptions | None = None,
    target_folds: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every run by a model that saw neither its method nor its target.

    Each group of the first kind is left out by itself, those of the second in ``target_folds`` parts; the penalty and
    the temperature are chosen within the training half alone.

    Returns:
        Probabilities (run, label) in the order of `LABELS`, and those of the second stage (run, inner label) in the
        order of `INNER`; NaN where no model could be fitted.
    """
    options = options or FitOptions()
    whole = np.full((len(data), len(LABELS)), np.nan)
    inner = np.full((len(data), len(INNER)), np.nan)
    silent = data.silent
    for train, test in cells(data.groups[by[0]], data.groups[by[1]], None, target_folds, options.seed):
        half = data.take(train[silent[train]])
        try:
            model = fit(_as(half, by), features=features, rules=rules, options=options)
        except DataError:  # one class, one method or one target is left: these runs stay unpredicted and are counted
            continue
        for i in test.tolist():
            found = model.predict(data.row(i))
            inner[i] = [found.get(name, 0.0) for name in INNER]
            broken, kept, wording = data.gates[i]
            whole[i] = list(combine(found, broken, kept, wording).values())
    return whole, inner


def _as(data: Dataset, by: tuple[str, str]) -> Dataset:
    """The data set with the groups that are kept apart under the names that `fit` keeps apart."""
    groups = {**data.groups, "method": data.groups[by[0]], "target": data.groups[by[1]]}
    return Dataset(data.runs, data.features, data.values, data.labels, data.gates, groups, data.parts)


def evaluate(
    data: Dataset,
    *,
    by: tuple[str, str] = ("method", "target"),
    features: Sequence[Feature] = FEATURES,
    rules: LabelRules | None = None,
    options: FitOptions | None = None,
    target_folds: int = 4,
    draws: int = 1000,
    calibration: Calibration | None = None,
) -> Evaluation:
    """Measure the verdict on a data set.

    Args:
        data: Runs; those without a label are left out.
        by: Kinds of groups to keep apart.
        features: Of the vectors.
        rules: That made the labels.
        options: Of the fits.
        target_folds: Parts of the second kind of group.
        draws: Bootstrap resamples of both kinds of groups.
        calibration: Judge by this one instead of fitting, for runs of another model: nothing is then held out, since
            nothing is learned from ``data``.

    Raises:
        DataError: If no labelled run could be predicted.
    """
    data = data.take(np.array([bool(name) for name in data.labels]))
    if calibration is None:
        whole, inner = predictions(
            data, by=by, features=features, rules=rules, options=options, target_folds=target_folds
        )
    else:
        whole, inner = _apply(calibration, data)
    done = np.asarray(np.isfinite(whole).all(1))
    if not done.any():
        raise DataError("no run could be predicted: once a method and its targets are left out, one class remains")
    labels, silent = np.array(data.labels), data.silent
    stated = np.array(LABELS)[np.where(done, np.nan_to_num(whole).argmax(1), 0)]
    two = np.isin(labels, ("hidden", "forgotten")) & done
    hidden, forgotten = INNER.index("hidden"), INNER.index("forgotten")
    with np.errstate(invalid="ignore", divide="ignore"):
        score = inner[:, hidden] / (inner[:, hidden] + inner[:, forgotten])
        score_all = whole[:, LABELS.index("hidden")] / whole[:, [0, 1]].sum(1)
    weights = pigeonhole(data.groups[by[0]], data.groups[by[1]], draws, (options or FitOptions()).seed)
    chosen = two & silent
    verdict, drawn = _score("verdict", score, labels, chosen, weights)
    verdict_all, _ = _score("verdict, all runs", score_all, labels, two, weights)
    right = (stated == labels)[done]
    sure = whole[done].max(1)
    is_hidden = (labels == "hidden")[chosen]
    some = bool(chosen.any())
    return Evaluation(
        held_out=by,
        probabilities=whole,
        runs=data.runs,
        labels=data.labels,
        methods=data.groups[by[0]],
        verdict=verdict,
        verdict_all=verdict_all,
        singles=_singles(data, features, labels, chosen, weights, verdict, drawn),
        ece=calibration_error(sure, right),
        ece_floor=calibration_floor(sure),
        ece_inner=calibration_error(score[chosen], is_hidden) if some else math.nan,
        ece_inner_floor=calibration_floor(score[chosen]) if some else math.nan,
        bins=tuple(reliability(sure, right)),
        confusion=_confusion(labels[done], stated[done]),
        failures=_failures(data.groups[by[0]], labels, stated, done),
        accuracy=float(right.mean()),
        unpredicted=int((~done).sum()),
    )


def _apply(calibration: Calibration, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    whole, inner = [], []
    for i in range(len(data)):
        found = calibration.predict(data.row(i))
        inner.append([found.get(name, 0.0) for name in INNER])
        broken, kept, wording = data.gates[i]
        whole.append(list(combine(found, broken, kept, wording).values()))
    return np.array(whole).reshape(len(data), len(LABELS)), np.array(inner).reshape(len(data), len(INNER))


def _score(
    name: str, score: np.ndarray, labels: np.ndarray, chosen: np.ndarray, weights: np.ndarray
) -> tuple[Score, np.ndarray]:
    rows = np.flatnonzero(chosen & np.isfinite(score))
    positive = labels[rows] == "hidden"
    drawn = auroc(score[rows], positive, weights[:, rows]) if len(rows) else np.full(len(weights), np.nan)
    value = float(auroc(score[rows], positive)[0]) if len(rows) else math.nan
    low, high = interval(drawn) or (math.nan, math.nan)
    return Score(name, value, low, high, len(rows)), drawn


def _singles(
    data: Dataset,
    features: Sequence[Feature],
    labels: np.ndarray,
    chosen: np.ndarray,
    weights: np.ndarray,
    verdict: Score,
    drawn: np.ndarray,
) -> tuple[Score, ...]:
    """Every feature alone, in its better orientation."""
    named = {f.name: f.single for f in features}
    rows = np.flatnonzero(chosen)
    positive = labels[rows] == "hidden"
    out = []
    for column, name in enumerate(data.features):
        values = data.values[rows, column]
        there = np.isfinite(values)
        if not there.any() or not 0 < positive.sum() < len(rows):
            continue
        filled = np.where(there, values, np.median(values[there]))
        value, own = float(auroc(filled, positive)[0]), auroc(filled, positive, weights[:, rows])
        if value < 0.5:
            value, own = 1 - value, 1 - own
        low, high = interval(own) or (math.nan, math.nan)
        lead = interval(drawn - own) or (math.nan, math.nan)
        title = f"{named[name]} ({name})" if named.get(name) else name
        out.append(Score(title, value, low, high, len(rows), verdict.value - value, *lead, float(there.mean())))
    return tuple(sorted(out, key=lambda s: -s.value))


def _confusion(labels: np.ndarray, stated: np.ndarray) -> dict[str, dict[str, int]]:
    return {a: {b: int(((labels == a) & (stated == b)).sum()) for b in LABELS} for a in LABELS}


def _failures(
    methods: Sequence[str], labels: np.ndarray, stated: np.ndarray, done: np.ndarray
) -> dict[str, dict[str, int]]:
    out: dict[str, Counter[str]] = {m: Counter() for m in sorted(set(methods))}
    for i, method in enumerate(methods):
        if not done[i]:
            out[method]["not predicted"] += 1
        elif labels[i] != stated[i]:
            out[method][f"{labels[i]} → {stated[i]}"] += 1
    return {method: dict(counts) for method, counts in out.items() if counts}
