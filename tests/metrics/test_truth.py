import numpy as np
import pytest

from interp_unlearn._core import DataError
from interp_unlearn.metrics import (
    forget_quality,
    harmonic_mean,
    log_truth_ratio,
    model_utility,
    normalised_probability,
    relative_difference,
    truth_ratio,
)


def test_truth_ratio_by_hand():
    right, wrong = np.array([1.0]), np.array([[2.0, 4.0]])
    log_ratio = log_truth_ratio(right, wrong)
    assert log_ratio.tolist() == [-2.0], "wrong answers are e² times less likely: mean over losses"
    tr = np.exp(-2)
    assert truth_ratio(log_ratio, "forget") == pytest.approx(tr)
    assert truth_ratio(-log_ratio, "forget") == pytest.approx(tr), "avoiding the answer counts like knowing it"
    assert truth_ratio(log_ratio, "retain") == pytest.approx(1 - tr)
    assert truth_ratio(-log_ratio, "retain") == pytest.approx(0)
    assert truth_ratio(log_ratio, "prob_mean") == pytest.approx(np.exp(-1) / (np.exp(-1) + np.exp(-3)))


def test_truth_ratio_of_extreme_models_stays_finite():
    log_ratio = np.array([-5000.0, 0.0, 5000.0])
    assert truth_ratio(log_ratio).tolist() == [0, 1, 0]
    assert truth_ratio(log_ratio, "retain").tolist() == [1, 0, 0]
    assert truth_ratio(log_ratio, "prob_mean") == pytest.approx([1, 0.5, 0])


def test_normalised_probability_by_hand():
    p = normalised_probability(np.log([2.0, 4.0]), np.log([[4.0, 4.0], [2.0, 4.0]]))
    assert p == pytest.approx([0.5, 0.25])


def test_forget_quality_against_itself_and_against_another():
    a = np.linspace(0, 1, 50)
    same = forget_quality(a, a)
    assert (same.statistic, same.p_value, same.log10_p) == (0, 1, 0)
    apart = forget_quality(a, a + 2)
    assert apart.statistic == 1
    assert apart.log10_p == pytest.approx(np.log10(apart.p_value))
    assert apart.log10_p < -20
    assert forget_quality(np.exp(a), np.exp(a + 0.3)).p_value == forget_quality(a, a + 0.3).p_value, "monotone map"
    assert forget_quality(np.array([1.0, 2.0]), np.array([1.5, 2.5])).statistic == 0.5
    with pytest.raises(DataError, match="at least 2 questions"):
        forget_quality(np.array([1.0, np.nan]), a)


def test_utility_is_the_harmonic_mean_of_nine():
    one = {"probability": 0.5, "rouge_l_recall": 0.5, "truth_ratio": 0.5}
    sets = {"retain": one, "real_authors": one, "world_facts": one}
    assert model_utility(sets) == pytest.approx(0.5)
    assert model_utility({**sets, "retain": {**one, "probability": 0.25}}) == pytest.approx(9 / (8 / 0.5 + 1 / 0.25))
    assert model_utility({**sets, "retain": {**one, "truth_ratio": 0.0}}) == 0
    with pytest.raises(DataError, match="missing: world_facts probability"):
        model_utility({"retain": one, "real_authors": one})
    with pytest.raises(DataError, match="none below 0"):
        harmonic_mean(np.array([1.0, -1.0]))


def test_relative_difference():
    assert relative_difference(3.0, 2.0) == pytest.approx(50)
    assert relative_difference(1.0, 2.0) == pytest.approx(-50)
