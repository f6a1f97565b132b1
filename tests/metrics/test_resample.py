import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError
from interp_unlearn.metrics import bootstrap
from interp_unlearn.metrics._resample import cluster_unit, percentile_interval


def test_clusters_are_drawn_whole():
    # two entities, each with 50 equal prompts: only the entity's draw can move the mean
    values = np.repeat([0.0, 1.0], 50)
    drawn = bootstrap(values, ["a"] * 50 + ["b"] * 50, draws=2000)
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}
    alone = bootstrap(values, [str(i) for i in range(100)], draws=2000)
    assert drawn.std() > 5 * alone.std()


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        effect = np.repeat(rng.normal(size=30), 4) + rng.normal(size=120) * 0.1
        drawn = bootstrap(effect, [str(i // 4) for i in range(120)], draws=400, seed=trial)
        low, high = percentile_interval(drawn)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_nan_means_does_not_apply():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [2.0, np.nan]])
    drawn = bootstrap(values, ["a", "b", "c"], draws=500)
    assert not np.isnan(drawn[:, 0]).any()
    usable = drawn[~np.isnan(drawn[:, 1]), 1]
    assert (usable == 5).all()
    assert len(usable) < 500


def test_seed_and_purpose_decide_the_draws():
    values, clusters = np.arange(9.0), [str(i) for i in range(9)]
    first = bootstrap(values, clusters, seed=3, purpose="one")
    assert np.array_equal(first, bootstrap(values, clusters, seed=3, purpose="one"))
    assert not np.array_equal(first, bootstrap(values, clusters, seed=4, purpose="one"))
    assert not np.array_equal(first, bootstrap(values, clusters, seed=3, purpose="other"))


def test_weights_weigh():
    drawn = bootstrap(np.array([0.0, 1.0]), ["a", "a"], weights=np.array([1.0, 3.0]), draws=10)
    assert np.allclose(drawn, 0.75)


@settings(max_examples=25)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.integers(0, 5))
def test_means_stay_within_the_values(values, seed):
    drawn = bootstrap(np.array(values), [str(i % 3) for i in range(len(values))], draws=50, seed=seed)
    assert (drawn >= min(values) - 1e-9).all()
    assert (drawn <= max(values) + 1e-9).all()


def test_units():
    assert cluster_unit(["a", "b"], ["t", "t"])[0] == "entity"
    assert cluster_unit(["a", "a"], ["t", "u"])[0] == "template"
    assert cluster_unit(["a"], ["t"])[0] == "none"


def test_lengths_must_agree():
    with pytest.raises(DataError, match="one cluster per value"):
        bootstrap(np.zeros(3), ["a"])
