"""Splits that do not leak, scores by hand, fits that are plain JSON, and an evaluation on what was never seen."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp_unlearn._core import DataError, FileFormatError, numpy_rng
from interp_unlearn.verdict import (
    FEATURES,
    LABELS,
    Calibration,
    Dataset,
    FitOptions,
    auroc,
    calibration_error,
    calibration_floor,
    cells,
    combine,
    evaluate,
    fit,
    load_calibration,
    pigeonhole,
    predictions,
)
from interp_unlearn.verdict import _model as model_file
from interp_unlearn.verdict._model import platt, softmax

QUICK = FitOptions(strengths=(0.1,), method_folds=2, target_folds=2)


@pytest.fixture(scope="module")
def evaluation(data):
    return evaluate(data, options=QUICK, target_folds=2, draws=200)


def test_no_method_and_no_target_is_in_both_halves(data):
    methods, targets = data.groups["method"], data.groups["target"]
    tested = []
    for train, test in cells(methods, targets, None, 4):
        assert not {methods[i] for i in train} & {methods[i] for i in test}
        assert not {targets[i] for i in train} & {targets[i] for i in test}
        tested += test.tolist()
    assert sorted(tested) == list(range(len(data)))
    with pytest.raises(DataError, match="same method"):
        list(cells(["a", "a"], ["x", "y"], None, 2))


def test_left_out_runs_teach_nothing(data):
    """Changing every run of one method and one target leaves the predictions for that method and target alone."""
    mine = np.array(
        [m == "npo" or t == "t2" for m, t in zip(*(data.groups[k] for k in ("method", "target")), strict=True)]
    )
    values = data.values.copy()
    values[mine] = numpy_rng(0, "nonsense").normal(size=values[mine].shape) * 50
    both = np.array(
        [m == "npo" and t == "t2" for m, t in zip(data.groups["method"], data.groups["target"], strict=True)]
    )
    values[both] = data.values[both]
    before, _ = predictions(data, options=QUICK, target_folds=2)
    after, _ = predictions(replace(data, values=values), options=QUICK, target_folds=2)
    assert both.any() and np.array_equal(before[both], after[both])
    assert not np.allclose(before, after)


def test_pigeonhole_weights_are_products():
    weights = pigeonhole(["a", "a", "b", "b"], ["x", "y", "x", "y"], 500, 0)
    assert weights.shape == (500, 4)
    assert np.allclose(weights[:, 0] * weights[:, 3], weights[:, 1] * weights[:, 2])
    assert weights.mean() == pytest.approx(1.0, abs=0.1)


def test_auroc_with_ties_and_weights():
    rng = numpy_rng(0, "auroc")
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    weights = rng.integers(0, 3, (4, 60)).astype(float)
    expected = [roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    assert auroc(scores, positive, weights) == pytest.approx(expected)
    assert auroc(np.array([1.0, 2.0, 2.0]), np.array([False, True, False]))[0] == pytest.approx(0.75)
    assert np.isnan(auroc(np.array([1.0]), np.array([True]))[0])


def test_calibration_error_by_hand():
    probability = np.array([0.1, 0.1, 0.9, 0.9])
    right = np.array([False, False, True, False])
    # two bins of two: |0 - 0.1| and |0.5 - 0.9|, each half of the runs
    assert calibration_error(probability, right, bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0


def test_a_calibrated_predictor_has_an_error_above_zero_by_chance():
    probability = numpy_rng(0, "floor").random(100)
    floor = calibration_floor(probability)
    assert 0.02 < floor < 0.2
    assert calibration_floor(np.repeat(probability, 20)) < floor / 2


def test_platt_undoes_overconfidence():
    rng = numpy_rng(0, "platt")
    true = rng.normal(size=(3000, 2)) * 2
    target = (rng.random(3000) < softmax(true)[:, 1]).astype(int)
    temperature, offsets = platt(true * 4 + np.array([0.0, 2.0]), target)
    assert temperature == pytest.approx(0.25, rel=0.15)
    assert temperature * (offsets[1] + 2 - offsets[0]) == pytest.approx(0.0, abs=0.15)


def test_combine_is_a_distribution():
    inner = {"forgotten": 0.5, "hidden": 0.3, "over-suppressed": 0.2}
    found = combine(inner, 0.1, 0.2, 0.25)
    assert set(found) == set(LABELS) and sum(found.values()) == pytest.approx(1.0)
    rest = 0.9 * 0.8
    assert found["hidden"] == pytest.approx(rest * (0.25 + 0.75 * 0.3))
    assert combine(inner, 1.0, 0.0, 0.0)["broken"] == 1.0


def test_fit_gives_plain_json_that_predicts_the_same(data, calibration, tmp_path):
    calibration.save(tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    again = Calibration.load(tmp_path / "c.json")
    assert json.loads(text)["kind"] == "verdict calibration"
    for i in (0, 10, 40):
        assert again.predict(data.row(i)) == pytest.approx(calibration.predict(data.row(i)))
    assert again.version == calibration.version
    assert replace(calibration, temperature=1.5).version != calibration.version
    facts = calibration.provenance
    assert facts["runs"] == int(data.silent.sum()) and facts["where"] == "made-up runs"


def test_features_that_are_not_offered_are_not_read(data):
    there = [s.feature for s in fit(data, options=QUICK).scales]
    offered = [f for f in FEATURES if f.name in there[:2]]
    made = fit(data, features=offered, options=QUICK)
    assert len(there) > 2 and [s.feature for s in made.scales] == there[:2]
    changed = replace(data, values=np.where(np.isin(data.features, [f.name for f in offered]), data.values, 7.0))
    assert np.array_equal(made.coefficients, fit(changed, features=offered, options=QUICK).coefficients)


def test_a_calibration_is_checked_when_it_is_read(calibration, tmp_path):
    saved = calibration.to_json()
    with pytest.raises(FileFormatError, match="not a calibration"):
        Calibration.from_json({**saved, "kind": "other"})
    with pytest.raises(FileFormatError, match="lacks or misnames"):
        Calibration.from_json({k: v for k, v in saved.items() if k != "rules"})
    with pytest.raises(FileFormatError, match="other columns"):
        Calibration.from_json({**saved, "coefficients": [[1.0]] * len(saved["classes"])})
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(saved))
    with pytest.raises(FileFormatError):
        Calibration.load(tmp_path / "c.pkl")


def test_without_a_calibration_there_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(model_file, "SHIPPED", tmp_path / "none.json")
    with pytest.raises(DataError, match=r"no calibration.*fit one with"):
        load_calibration()


def test_pushes_add_up_to_the_log_odds(data, calibration):
    row = data.row(3)
    logits = dict(zip(calibration.classes, calibration.logits(row), strict=True))
    pushes = calibration.pushes(row, "hidden", "forgotten")
    a, b = (calibration.classes.index(c) for c in ("hidden", "forgotten"))
    start = calibration.temperature * sum(
        s * (calibration.intercepts[i] + calibration.offsets[i]) for s, i in ((1, a), (-1, b))
    )
    assert sum(pushes.values()) + start == pytest.approx(logits["hidden"] - logits["forgotten"])


def test_too_little_is_refused(data):
    one = data.take(np.array([name == "hidden" for name in data.labels]))
    with pytest.raises(DataError, match="at least two of"):
        fit(one, options=QUICK)


def test_a_class_that_is_absent_gets_no_probability(data):
    two = data.take(np.array([name in ("hidden", "forgotten") for name in data.labels]))
    found = fit(two, options=QUICK)
    assert found.classes == ("forgotten", "hidden")
    assert sum(found.predict(two.row(0)).values()) == pytest.approx(1.0)


def test_evaluation_on_unseen_methods_and_targets(evaluation, data):
    assert evaluation.unpredicted == 0
    assert np.allclose(evaluation.probabilities.sum(1), 1.0)
    assert evaluation.verdict.value > 0.9
    assert evaluation.verdict.low <= evaluation.verdict.value <= evaluation.verdict.high
    assert sum(sum(row.values()) for row in evaluation.confusion.values()) == len(data)
    assert evaluation.accuracy > 0.85
    singles = {s.name: s for s in evaluation.singles}
    uds = singles["UDS (uds)"]
    assert uds.lead == pytest.approx(evaluation.verdict.value - uds.value) and uds.lead_low <= uds.lead_high
    assert all(s.value >= 0.5 for s in evaluation.singles)
    assert 0 <= evaluation.ece < 0.2
    json.dumps(evaluation.to_json())


def test_labels_that_mean_nothing_cannot_be_predicted(data):
    shuffled = np.array(data.labels)
    silent = np.flatnonzero(data.silent)
    shuffled[silent] = numpy_rng(3, "labels").permutation(shuffled[silent])
    found = evaluate(replace(data, labels=tuple(shuffled.tolist())), options=QUICK, target_folds=2, draws=50)
    assert found.verdict.value < 0.75


def test_a_given_calibration_is_only_applied(data, calibration):
    found = evaluate(data, calibration=calibration, draws=50)
    inner = [calibration.predict(data.row(i)) for i in range(len(data)) if data.labels[i] == "hidden"]
    assert found.verdict.value > 0.95 and len(inner) > 0


def test_a_data_set_survives_its_file(data, tmp_path):
    data.save(tmp_path / "evidence.csv")
    again = Dataset.load(tmp_path / "evidence.csv")
    assert again.runs == data.runs and again.labels == data.labels and again.features == data.features
    assert np.allclose(again.values, data.values, rtol=1e-5, equal_nan=True)
    assert np.allclose(again.gates, data.gates, atol=1e-5)
    assert again.groups == data.groups and set(again.parts) == {"recoverability", "remaining", "suppression"}
    with pytest.raises(FileFormatError, match="does not exist"):
        Dataset.load(tmp_path / "other.csv")
    (tmp_path / "bad.csv").write_text("run,label\na,hidden\n")
    with pytest.raises(FileFormatError, match="lacks the columns"):
        Dataset.load(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="unknown label"):
        replace(data, labels=("gone",) * len(data))


def test_tables_of_several_machines_are_joined(data):
    first, second = data.take(np.arange(len(data)) < 10), data.take(np.arange(len(data)) >= 8)
    newer = replace(second, labels=("",) * len(second))
    both = first.joined(newer)
    assert sorted(both.runs) == sorted(data.runs)
    label_of = dict(zip(both.runs, both.labels, strict=True))
    assert [label_of[run] for run in data.runs[:8]] == list(data.labels[:8])
    assert {label_of[run] for run in data.runs[8:]} == {""}, "the newer table wins where both have a run"
    other = replace(second, features=("another", *second.features[1:]))
    with pytest.raises(DataError, match=r"different features .*another"):
        first.joined(other)
