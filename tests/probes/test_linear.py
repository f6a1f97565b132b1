import numpy as np
import pytest

from interp_unlearn._core import DataError
from interp_unlearn.probes import fit_linear_probe, known_unknown_probe, score_linear_probe
from interp_unlearn.probes._bootstrap import balanced_interval, balanced_mean

from .conftest import SITE, SITES, changed, make_mentions


def classes(separation, *, entities=24, templates=5, d=40, seed=0):
    rng = np.random.default_rng(seed)
    entity = np.repeat([f"e{i}" for i in range(entities)], templates)
    template = np.tile([f"t{i}" for i in range(templates)], entities)
    label = np.repeat(np.where(np.arange(entities) % 2 == 0, "a", "b"), templates)
    x = rng.normal(size=(entities, d)).repeat(templates, 0) + 0.2 * rng.normal(size=(entities * templates, d))
    x[:, 0] += separation * (label == "b")
    return x, label, entity, template


def test_a_real_property_carries_over_to_unseen_entities_and_a_shuffled_one_does_not():
    score = score_linear_probe(*classes(8.0, entities=100))
    assert score.accuracy > 0.9
    assert score.control == pytest.approx(0.5, abs=0.2)
    assert score.selectivity > 0.3


def test_memorised_names_are_exposed_by_the_control_task():
    """No property at all: rows of seen entities are still classified, which only the control task gives away."""
    score = score_linear_probe(*classes(0.0))
    assert score.accuracy == pytest.approx(0.5, abs=0.25)
    assert score.template_accuracy > 0.95
    assert score.template_control > 0.95
    assert abs(score.template_selectivity) < 0.05


def test_several_classes_and_one_template():
    rng = np.random.default_rng(0)
    label = np.repeat(["a", "b", "c"], 30)
    x = rng.normal(size=(90, 6))
    for i, c in enumerate("abc"):
        x[label == c, i] += 4
    score = score_linear_probe(x, label, np.array([f"e{i}" for i in range(90)]))
    assert score.accuracy > 0.9
    assert score.chance == pytest.approx(1 / 3)
    assert np.isnan(score.template_accuracy)
    probe = fit_linear_probe(x, label)
    assert (probe.predict(x) == label).mean() > 0.9
    assert probe.score(x).shape == (90, 3)


def test_scale_and_shift_of_features_do_not_matter():
    x, label, _, _ = classes(3.0)
    rng = np.random.default_rng(1)
    scale, shift = rng.uniform(0.01, 100, 40), 1000 * rng.normal(size=40)
    plain, moved = fit_linear_probe(x, label), fit_linear_probe(x * scale + shift, label)
    np.testing.assert_allclose(moved.score(x * scale + shift), plain.score(x), atol=1e-4)


def test_impossible_probes_are_refused():
    x, label, entity, _ = classes(1.0)
    with pytest.raises(DataError, match="two classes"):
        score_linear_probe(x, label, np.repeat("e", len(x)))
    with pytest.raises(DataError, match="at least two entities"):
        score_linear_probe(x[:10], label[:10], entity[:10])
    with pytest.raises(DataError, match="at least two classes"):
        fit_linear_probe(x[:5], label[:5])
    with pytest.raises(DataError, match="NaN"):
        fit_linear_probe(x * np.nan, label)


def by_kind(found):
    return {e.name.split("/")[0]: e for e in found}


def test_the_target_changes_sides():
    found = by_kind(known_unknown_probe(make_mentions(0.0), make_mentions(1.0), SITE))
    accuracy, fraction = found["probe.accuracy"], found["probe.unknown_fraction"]
    assert accuracy.name == f"probe.accuracy/{SITE}"
    assert accuracy.value > 0.95
    assert accuracy.interval[0] > 0.8
    assert accuracy.control == pytest.approx(0.5, abs=0.25)
    assert accuracy.config["selectivity"] > 0.2
    assert fraction.config["before"] == 0
    assert fraction.value == 1
    assert fraction.control > 0.9
    assert found["probe.fresh_unknown_fraction"].value == 1
    curve = fraction.details["layers"]
    assert curve.axes[0].labels == (SITES[0], SITE)
    assert curve.at(site=SITE, probe="original", phase="after", group="target") == 1


def test_only_a_fresh_probe_follows_a_moved_representation():
    """Every row is mirrored along the axis: the old probe is wrong about everybody, the new one about nobody."""
    before = make_mentions(0.0)
    group = np.array(before.labels["group"])
    x = before[SITE].clone()
    middle = (x[group == "known_ref"].mean(0) + x[group == "unknown_ref"].mean(0)) / 2
    found = by_kind(known_unknown_probe(before, changed(before, {SITE: 2 * middle - x}), SITE, sites=SITES))
    assert found["probe.unknown_fraction"].value == 1
    assert found["probe.fresh_unknown_fraction"].value == 0
    assert found["probe.fresh_unknown_fraction"].control > 0.9


def test_gold_is_read_by_its_own_probe_and_few_references_are_refused():
    before, after = make_mentions(0.0), make_mentions(1.0)
    found = by_kind(known_unknown_probe(before, after, SITE, gold=make_mentions(1.0, seed=9)))
    assert found["probe.unknown_fraction"].config["gold"] == 1
    few = make_mentions(0.0, others=3)
    assert all("at least 4" in e.reason for e in known_unknown_probe(few, few, SITE))


def test_the_interval_of_a_balanced_accuracy_holds_it():
    """Many right of one label and few wrong of the other: the plain share is far from the balanced one."""
    label = np.array(["a"] * 90 + ["b"] * 10)
    right = np.r_[np.ones(90), np.zeros(8), np.ones(2)]
    entity = np.array([f"e{i // 2}" for i in range(100)])
    rng = np.random.default_rng(0)
    assert balanced_mean(right, label) == pytest.approx(0.6)
    low, high = balanced_interval(right, label, (entity,), rng)
    assert 0.45 < low < 0.6 < high < 0.9
    found = by_kind(known_unknown_probe(make_mentions(0.0), make_mentions(0.0), SITE))["probe.accuracy"]
    assert found.interval[0] <= found.value <= found.interval[1]
    assert balanced_interval(right, label, (np.repeat("e", 100),), rng) is None
