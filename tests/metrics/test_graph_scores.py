"""Scores on graphs: AUC by hand, random scores at one half, the same draws for every model."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp_unlearn.metrics import GraphScores, graph_scores
from interp_unlearn.metrics._graph_scores import auc, graph_evidence
from interp_unlearn.probes import LivePhases
from interp_unlearn.zoo import GNNTraining, train_gnn

from ..tiny_graphs import edge_task, network, node_task


def test_auc_is_scikit_learns_ties_included():
    random = np.random.default_rng(0)
    one, other = random.integers(0, 5, 40) / 5, random.integers(0, 4, 30) / 5
    labels = np.r_[np.ones(40), np.zeros(30)]
    assert auc(one, other) == pytest.approx(roc_auc_score(labels, np.r_[one, other]))
    assert np.isnan(auc(one, other[:0]))


def test_random_scores_do_not_tell_deleted_from_retained():
    random = np.random.default_rng(1)
    scores = GraphScores({"deleted": random.random(200), "retained": random.random(2000)})
    assert abs(scores.deleted_auc(0) - 0.5) < 0.05
    assert scores.deleted_auc(0) == scores.deleted_auc(0)


def test_deleted_below_retained_is_above_one_half():
    scores = GraphScores(
        {"deleted": np.array([0.1, 0.2]), "retained": np.array([0.5, 0.9, 0.15]), "held out": np.array([0.4])}
    )
    assert scores.deleted_auc(0) > 0.5
    assert scores.membership() == 0.0


def test_a_deleted_class_is_compared_with_its_test_nodes_and_integrity_is_of_the_others():
    task = node_task("class field A")
    model, gold = network(task), network(task)
    train_gnn(gold, task, GNNTraining(epochs=5), gold=True)
    phases = LivePhases(model, task, intervention=task.removal(), gold=gold)
    found = {e.name.split("/")[0]: e for e in graph_evidence(phases, lambda *_: None).evidence}
    assert found["graph.integrity"].n == len(task.neighbours)
    assert found["graph.membership"].config["before"] == graph_scores(model, task).membership()
    task.forget_heldout = task.forget_heldout.take([])
    found = {
        e.name.split("/")[0]: e for e in graph_evidence(LivePhases(model, task, gold=gold), lambda *_: None).evidence
    }
    assert found["graph.membership"].reason == "no item was chosen"
    assert found["graph.integrity"].n == len(task.neighbours)
    assert np.isfinite(found["graph.utility"].value)


@pytest.mark.parametrize("make", [edge_task, node_task])
def test_evidence_of_both_kinds_of_task(make):
    task = make()
    model, gold = network(task), network(task)
    train_gnn(model, task, GNNTraining(epochs=20))
    train_gnn(gold, task, GNNTraining(epochs=20), gold=True)
    phases = LivePhases(model, task, intervention=task.removal(), gold=gold)
    found = graph_evidence(phases, lambda *_: None)
    names = {e.name.split("/")[0]: e for e in found.evidence}
    assert ("graph.precision" in names) == (task.kind == "edge")
    assert names["graph.utility"].config["before"] == graph_scores(model, task).utility()
    assert names["graph.mi_ratio"].config["before"] == pytest.approx(1.0)
    assert names["graph.consistency"].config["gold"] == 0.0
    assert all(np.isfinite(e.value) and e.does_not_show for e in names.values())
    assert found.tables["graph.scores"].axes[0].labels == ("before", "after", "gold")
