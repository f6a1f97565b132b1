import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Activations
from interp_unlearn.probes import READING, attribute_probe, fit_readout, recognition_probe
from interp_unlearn.probes._readout import Folds, centred, place, shuffled_answers

from .conftest import SITE, SITES, changed, make_mentions

ANSWERS = 12


def make_answers(*, readable=True, targets=1, known=24, unknown=10, templates=4, d=24, seed=0, classes=ANSWERS):
    """Questions of one relation; the answer's vector is part of the activation at the first site only."""
    rng = np.random.default_rng(seed)
    vectors = {f"answer {i}": torch.tensor(rng.normal(size=d), dtype=torch.float32) for i in range(classes)}
    map_in = np.linalg.qr(rng.normal(size=(d, d)))[0]
    sizes = {"target": targets, "known_ref": known // 2, "known_eval": known // 2, "unknown_ref": unknown // 2}
    sizes["unknown_eval"] = unknown - unknown // 2
    shifts = 3 * rng.normal(size=(templates, d))
    rows, labels = [], {k: [] for k in ("entity", "group", "template", "relation", "answer")}
    for group, count in sizes.items():
        for i in range(count):
            knows = not group.startswith("unknown")
            answer = f"answer {int(rng.integers(classes))}" if knows else ""
            who = 0.3 * rng.normal(size=d)
            for t in range(templates):
                signal = map_in @ vectors[answer].numpy() if knows and readable else 0
                rows.append(shifts[t] + who + signal + 0.1 * rng.normal(size=d))
                for name, value in zip(labels, (f"{group} {i}", group, f"t{t}", "home", answer), strict=True):
                    labels[name].append(value)
    x = torch.tensor(np.array(rows), dtype=torch.float32)[:, None]
    noise = torch.tensor(rng.normal(size=x.shape), dtype=torch.float32)
    labels = {k: tuple(v) for k, v in labels.items()}
    return Activations({SITES[0]: x, SITES[1]: noise}, None, None, None, "last token of the prompt", labels), vectors


def without_target_answer(acts, vectors):
    """The target's rows as those of the unknown entity number 0 of the evaluation group."""
    group = np.array(acts.labels["group"])
    x = acts[SITES[0]].clone()
    source = np.flatnonzero(group == "unknown_eval")[:4]
    for i, row in enumerate(np.flatnonzero(group == "target")):
        x[row] = x[source[i % 4]]
    return changed(acts, {SITES[0]: x})


def by_kind(found):
    return {e.name.split("/")[0].split(".")[1]: e for e in found}


# -- machinery ------------------------------------------------------------------------------------------------------


def test_no_entity_and_no_template_is_on_both_sides_and_every_row_is_tested_once():
    entity, template = np.repeat([f"e{i}" for i in range(9)], 5), np.tile([f"t{i}" for i in range(5)], 9)
    folds = Folds.make(entity, template, np.random.default_rng(0))
    tested = np.zeros(45, dtype=int)
    for train, test in folds.joint():
        assert not set(entity[train]) & set(entity[test])
        assert not set(template[train]) & set(template[test])
        tested += test
    assert (tested == 1).all()
    assert sum(test.sum() for _train, test in folds.by_template()) == 45


def test_every_relation_has_templates_in_each_fold():
    template = np.array([f"{r}{t}" for r in "abc" for t in range(3)])
    relation = np.array([r for r in "abc" for _ in range(3)])
    folds = Folds.make(np.array(["e"] * 9), template, np.random.default_rng(3), relation=relation)
    assert all(len(set(folds.template[relation == r])) == 2 for r in "abc")


def test_places_by_hand():
    scores = np.array([[3.0, 1, 2, 2], [0.0, 0, 0, 9], [1.0, 2, 3, 4]])
    wrong = np.array([[False, True, True, True], [False, True, True, False], [False, False, False, False]])
    found = place(scores, wrong, np.array([0, 0, 0]))
    assert found[0] == 1
    assert found[1] == 0.5  # two ties
    assert np.isnan(found[2])


def test_the_control_task_keeps_the_answers_and_gives_each_entity_one():
    entity, relation = np.repeat([f"e{i}" for i in range(6)], 4), np.tile(["a", "a", "b", "b"], 6)
    answer = np.where(relation == "a", np.repeat(np.arange(6), 4), 10 + np.repeat(np.arange(6) % 2, 4))
    mixed = shuffled_answers(entity, relation, answer, np.random.default_rng(0))
    assert sorted(mixed) == sorted(answer)
    for e in np.unique(entity):
        assert len(set(mixed[(entity == e) & (relation == "a")])) == 1
    assert set(mixed[relation == "b"]) == {10, 11}


def test_templates_are_centred_on_reference_rows():
    x = np.array([[1.0], [3.0], [10.0], [5.0]])
    out = centred(x, np.array(["a", "a", "a", "b"]), np.array([True, True, False, False]))
    assert out[:, 0].tolist() == [-1, 1, 8, 3]  # b has no reference rows: the mean of all of them, 2


def test_a_readout_is_the_ridge_solution():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    found = fit_readout(x, y, penalty=2.0)
    z = (x - x.mean(0)) / (x.std(0) * np.sqrt(3))
    weight = np.linalg.solve(z.T @ z + 2 * np.eye(3), z.T @ (y - y.mean(0)))
    np.testing.assert_allclose(found.predict(x), z @ weight + y.mean(0), atol=1e-10)


# -- the answer -----------------------------------------------------------------------------------------------------


def test_an_answer_that_stayed_is_found_and_one_that_left_is_not():
    before, vectors = make_answers()
    kept = by_kind(attribute_probe(before, before, vectors=vectors))
    assert kept["selectivity"].value > 0.95
    assert kept["selectivity"].control < 0.65
    assert kept["best"].value > 0.95
    assert kept["best"].config["valid_sites"] == [SITES[0]]  # the other site is noise
    assert kept["best"].control == pytest.approx(0.5, abs=0.25)
    assert kept["bystanders"].value == pytest.approx(kept["bystanders"].control)
    gone = by_kind(attribute_probe(before, without_target_answer(before, vectors), vectors=vectors))
    assert gone["best"].config["before"] > 0.95
    assert gone["best"].value <= gone["best"].config["control_p95"]
    assert gone["mean"].value < 0.9
    assert gone["bystanders"].value > 0.95


def test_the_curve_shows_every_reading():
    before, vectors = make_answers(targets=3)
    found = attribute_probe(before, before, vectors=vectors, gold=without_target_answer(before, vectors))
    curve = by_kind(found)["selectivity"].details["layers"]
    assert [a.name for a in curve.axes] == ["site", "reading", "statistic"]
    assert curve.at(site=SITES[0], reading="known", statistic="first") > 0.6
    assert curve.at(site=SITES[1], reading="known", statistic="place") == pytest.approx(0.5, abs=0.12)
    assert curve.at(site=SITES[0], reading="target gold", statistic="place") < 0.9
    assert by_kind(found)["mean"].config["gold"] < 0.9
    assert by_kind(found)["mean"].interval[0] > 0.8


def test_answers_that_no_known_entity_has_are_ranked_too():
    """Every entity has an answer of its own: no class could be learnt, but vectors can."""
    before, vectors = make_answers(classes=200, d=24, known=60)
    found = by_kind(attribute_probe(before, before, vectors=vectors))
    assert found["selectivity"].value > 0.95
    assert found["best"].value > 0.95
    classes = attribute_probe(before, before, scoring="class")
    assert all(np.isnan(e.value) and "shared by 3 known entities" in e.reason for e in classes)


def test_a_classifier_where_answers_repeat():
    before, vectors = make_answers(classes=3, known=30)
    found = by_kind(attribute_probe(before, before, scoring="class", where="prompt.class"))
    assert found["best"].name == "attribute.best/prompt.class"
    assert found["best"].value == 1
    assert found["selectivity"].value > 0.95
    gone = by_kind(attribute_probe(before, without_target_answer(before, vectors), scoring="class"))
    assert gone["mean"].value < 1


def test_a_moved_representation_is_seen_on_bystanders():
    before, vectors = make_answers()
    turn = torch.tensor(np.linalg.qr(np.random.default_rng(5).normal(size=(24, 24)))[0], dtype=torch.float32)
    found = by_kind(attribute_probe(before, changed(before, {SITES[0]: before[SITES[0]] @ turn}), vectors=vectors))
    assert found["bystanders"].value < 0.75
    assert found["bystanders"].control > 0.95
    assert found["bystanders"].config["fresh"] > 0.95


def test_a_readout_that_does_not_work_says_nothing():
    before, vectors = make_answers(readable=False)
    found = by_kind(attribute_probe(before, before, vectors=vectors))
    assert found["selectivity"].value == pytest.approx(0.5, abs=0.15)
    assert all("better than its control task" in found[k].reason for k in ("best", "mean", "bystanders"))


def test_what_cannot_be_read_says_why():
    few, vectors = make_answers(known=6)
    assert all("6 known entities" in e.reason for e in attribute_probe(few, few, vectors=vectors))
    same, one = make_answers(classes=1)
    assert all("nothing to rank" in e.reason for e in attribute_probe(same, same, vectors=one))
    before, vectors = make_answers()
    broken = changed(before, {SITES[1]: before[SITES[1]] * torch.nan})
    assert all("broken" in e.reason for e in attribute_probe(before, broken, vectors=vectors))
    with pytest.raises(DataError, match="a vector for every answer"):
        attribute_probe(before, before)
    nameless = Activations(
        before.values, None, None, None, "all", {k: v for k, v in before.labels.items() if k != "answer"}
    )
    with pytest.raises(DataError, match="no 'answer' label"):
        attribute_probe(nameless, nameless, vectors=vectors)


# -- recognition ----------------------------------------------------------------------------------------------------


def test_the_target_changes_sides():
    found = by_kind(recognition_probe(make_mentions(0.0), make_mentions(1.0), SITES))
    assert found["accuracy"].value > 0.95
    assert found["accuracy"].control == pytest.approx(0.5, abs=0.25)
    assert found["unknown"].config["before"] == 0
    assert found["unknown"].value == 1
    assert found["unknown"].control > 0.9
    assert found["unknown"].config["known_eval"] < 0.1
    assert found["accuracy"].details["layers"].at(site=SITE, reading="target after") == 1


def test_only_a_fresh_readout_follows_a_mirrored_representation():
    before = make_mentions(0.0)
    group = np.array(before.labels["group"])
    x = before[SITE].clone()
    middle = (x[group == "known_ref"].mean(0) + x[group == "unknown_ref"].mean(0)) / 2
    found = by_kind(recognition_probe(before, changed(before, {SITE: 2 * middle - x}), [SITE]))
    assert found["unknown"].value == 1
    assert found["fresh_unknown"].value == 0
    assert found["fresh_unknown"].control > 0.9


def test_gold_few_entities_and_no_difference():
    gold = by_kind(recognition_probe(make_mentions(0.0), make_mentions(0.0), [SITE], gold=make_mentions(1.0, seed=9)))
    assert gold["unknown"].config["gold"] == 1
    few = make_mentions(0.0, others=3)
    assert all("at least 8" in e.reason for e in recognition_probe(few, few, [SITE]))
    alike = make_mentions(0.0, gap=0.0)
    assert "better than its control task" in by_kind(recognition_probe(alike, alike, [SITE]))["unknown"].reason


def test_every_kind_is_documented():
    from interp_unlearn import probes

    for kind in READING:
        assert f"``{kind}/" in (probes.__doc__ or ""), kind
