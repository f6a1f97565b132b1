import numpy as np
import pytest

from interp_unlearn._core import DataError
from interp_unlearn.probes import indistinguishability, two_sample_test

from .conftest import SITE, make_mentions


def by_kind(found):
    return {e.name.split("/")[0]: e for e in found}


@pytest.mark.parametrize("statistic", ["energy", "mmd"])
def test_p_values_of_equal_sets_are_roughly_uniform(statistic):
    rng = np.random.default_rng(0)
    p = [
        two_sample_test(
            rng.normal(size=(12, 4)), rng.normal(size=(18, 4)), statistic=statistic, n_permutations=99, seed=i
        ).p_value
        for i in range(300)
    ]
    for level in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.08)


def test_rows_of_one_entity_are_exchanged_together():
    """Rows that repeat an entity make row-wise p-values far too small; entity-wise ones stay honest."""
    rng = np.random.default_rng(1)
    wise, naive = [], []
    for i in range(60):
        who = np.repeat(np.arange(12), 6)
        x = rng.normal(size=(12, 5))[who] + 0.05 * rng.normal(size=(72, 5))
        first = who < 4
        names = who.astype(str)
        options = {"n_permutations": 99, "seed": i}
        wise.append(
            two_sample_test(x[first], x[~first], clusters_x=names[first], clusters_y=names[~first], **options).p_value
        )
        naive.append(two_sample_test(x[first], x[~first], **options).p_value)
    assert np.mean(np.array(wise) <= 0.2) == pytest.approx(0.2, abs=0.15)
    assert np.mean(np.array(naive) <= 0.05) > 0.8


@pytest.mark.parametrize("statistic", ["energy", "mmd"])
def test_different_sets_are_told_apart(statistic):
    rng = np.random.default_rng(2)
    same = two_sample_test(rng.normal(size=(30, 3)), rng.normal(size=(30, 3)), statistic=statistic)
    far = two_sample_test(rng.normal(size=(30, 3)), 2 + rng.normal(size=(30, 3)), statistic=statistic)
    assert far.p_value == pytest.approx(1 / 1000)
    assert far.statistic > 5 * same.statistic
    assert same.p_value > 0.01
    assert not far.exact


def test_the_distances_match_their_definitions():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(5, 2)) + 1

    def mean_distance(a, b):
        return np.mean([[np.linalg.norm(p - q) for q in b] for p in a])

    between = mean_distance(x, y)
    energy = (2 * between - mean_distance(x, x) - mean_distance(y, y)) / (2 * between)
    assert two_sample_test(x, y).statistic == pytest.approx(energy)
    pooled = np.concatenate([x, y])
    width = np.median([np.linalg.norm(pooled[i] - pooled[j]) for i in range(9) for j in range(i)])

    def mean_kernel(a, b):
        return np.mean([[np.exp(-np.sum((p - q) ** 2) / (2 * width**2)) for q in b] for p in a])

    mmd = mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)
    assert two_sample_test(x, y, statistic="mmd").statistic == pytest.approx(mmd)


def test_one_against_few_tries_every_relabelling():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(5, 3)) + 9, rng.normal(size=(45, 3))
    found = two_sample_test(x, y, clusters_x=np.array(["a"] * 5), clusters_y=np.repeat([f"u{i}" for i in range(9)], 5))
    assert found.exact
    assert len(found.null) == 10
    assert found.p_value == pytest.approx(0.1)  # the smallest there is with nine others


def test_an_entity_in_both_sets_and_empty_sets_are_refused():
    x = np.zeros((2, 1))
    with pytest.raises(DataError, match="share an entity"):
        two_sample_test(x, x, clusters_x=np.array(["a", "a"]), clusters_y=np.array(["a", "b"]))
    with pytest.raises(DataError, match="both sets"):
        two_sample_test(x[:0], x)


def test_a_forgotten_target_is_no_easier_to_tell_than_unknown_entities_are():
    found = by_kind(indistinguishability(make_mentions(0.0), make_mentions(1.0), SITE))
    energy, auc = found["two_sample.energy"], found["two_sample.auc"]
    assert energy.config["p_value"] > 0.1
    assert energy.config["smallest_p"] == pytest.approx(1 / 15)
    assert energy.config["p_value_before"] == pytest.approx(1 / 15)  # the only one as far out among 15 entities
    assert energy.interval[0] < energy.value < energy.interval[1]
    assert 0.05 <= auc.config["d_prime_percentile_among_unknown"] <= 0.95
    assert auc.value <= auc.config["control_p95"] + 1e-9
    assert found["two_sample.mmd"].config["p_value"] > 0.1
    assert "two_sample.auc_set" not in found


def test_the_classifier_floor_is_half_when_names_leave_no_trace_and_one_when_they_do():
    noise = make_mentions(1.0, noise=30.0, gap=0.1, templates=9)
    names = make_mentions(1.0, noise=0.05, templates=9)
    blurred = by_kind(indistinguishability(noise, noise, SITE))["two_sample.auc"]
    named = by_kind(indistinguishability(names, names, SITE))["two_sample.auc"]
    assert blurred.control == pytest.approx(0.5, abs=0.12)
    assert named.control > 0.95


def test_sets_of_targets_are_tested_on_unseen_entities():
    kept = by_kind(indistinguishability(make_mentions(0.0, targets=6), make_mentions(0.0, targets=6), SITE))
    gone = by_kind(indistinguishability(make_mentions(0.0, targets=6), make_mentions(1.0, targets=6), SITE))
    assert kept["two_sample.auc_set"].value > 0.95
    assert gone["two_sample.auc_set"].value == pytest.approx(0.5, abs=0.3)
    assert gone["two_sample.auc_set"].config["before"] > 0.95
    assert kept["two_sample.energy"].config["p_value"] < 0.01
    assert gone["two_sample.energy"].config["p_value"] > 0.02
    assert gone["two_sample.auc_set"].control == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("targets", [5, 20])
def test_small_and_large_sets_are_told_from_unknown_entities_only_where_they_differ(targets):
    before = make_mentions(0.0, targets=targets)
    forgotten = by_kind(indistinguishability(before, make_mentions(1.0, targets=targets), SITE))
    aside = by_kind(indistinguishability(before, make_mentions(1.0, targets=targets, off_axis=8.0), SITE))
    for kind in ("energy", "mmd"):
        assert forgotten[f"two_sample.{kind}"].config["p_value"] > 0.02
        assert forgotten[f"two_sample.{kind}"].config["p_value_before"] < 0.01
        assert aside[f"two_sample.{kind}"].config["p_value"] < 0.01  # moved where no unknown entity is
    assert forgotten["two_sample.auc_set"].value <= forgotten["two_sample.auc_set"].config["control_p95"] + 0.05
    assert aside["two_sample.auc_set"].value > 0.95
    assert aside["two_sample.auc_set"].config["n_targets"] == targets
    few = make_mentions(0.0, targets=targets, others=7)
    refused = by_kind(indistinguishability(few, few, SITE))
    assert len(refused) == 4
    assert all("7 held-out unknown entities; at least 8" in e.reason for e in refused.values())


def test_too_few_unknown_entities_or_templates_are_said():
    few = make_mentions(0.0, others=7)
    found = indistinguishability(few, few, SITE)
    assert len(found) == 3
    assert all(np.isnan(e.value) and "at least 8" in e.reason for e in found)
    one = make_mentions(0.0, templates=1)
    read = by_kind(indistinguishability(one, one, SITE))
    assert "one template" in read["two_sample.auc"].reason
    assert read["two_sample.energy"].value > 0
    assert read["two_sample.energy"].interval is None


def test_same_seed_same_result(sae):
    before, after = make_mentions(0.0), make_mentions(1.0)
    one, two = (indistinguishability(before, after, SITE, sae, seed=3) for _ in range(2))
    assert [e.to_json() for e in one] == [e.to_json() for e in two]
