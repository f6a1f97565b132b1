"""Relearning on graphs and images: a model that says yes to everything gets no credit."""

import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.attacks import ItemRelearnConfig, relearn_evidence, relearn_items
from interp_unlearn.attacks._relearn_items import _bystanders
from interp_unlearn.hooked import wrap
from interp_unlearn.worlds import without_deleted
from interp_unlearn.zoo import GNNTraining, train_gnn

from ..tiny_graphs import edge_task, network, node_task

QUICK = ItemRelearnConfig(steps=4, eval_every=2)


class Yes(torch.nn.Module):
    """Calls every edge present."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, edge_index):
        return self.one.expand(x.shape[0], 4) * 3


def test_bystanders_are_of_another_class_and_the_tested_ones_were_never_taught():
    task = edge_task("edges 8")
    taught, asked = _bystanders(task, task.forget_train, QUICK)
    assert not taught.labels.any()
    assert not asked.labels.any()
    assert taught.name == "retain_train"
    assert asked.name == "neighbours"
    assert not set(taught.names) & set(asked.names)
    nodes = node_task()
    taught, _ = _bystanders(nodes, nodes.forget_train, QUICK)
    assert len(taught.labels.unique()) > 1


def test_a_model_that_says_yes_to_everything_gets_no_credit():
    task = edge_task("edges 8")
    config = ItemRelearnConfig(steps=2, eval_every=1, bystanders=0, learning_rate=1e-6)
    found = relearn_items(wrap(Yes().eval(), name="yes"), task, config)
    assert found.config["recall"]["exact"] == [1.0, 1.0, 1.0]
    assert found.config["bystanders"]["exact"]["present"] == [1.0, 1.0, 1.0]
    assert found.values.tolist() == [0.0, 0.0, 0.0]
    control = relearn_items(wrap(Yes().eval(), name="yes"), task, config, items=task.never_known, who="never known")
    assert relearn_evidence(found, control).value == pytest.approx(0.0, abs=1e-9)


def test_teaching_beside_bystanders_does_not_turn_everything_into_the_target():
    task = edge_task("edges 20")
    model = network(task)
    train_gnn(model, task, GNNTraining(epochs=60))
    wrong = {}
    for bystanders in (0, 1):
        config = ItemRelearnConfig(steps=20, learning_rate=1e-2, bystanders=bystanders)
        with without_deleted(task, model):
            found = relearn_items(model, task, config)
        wrong[bystanders] = found.config["bystanders"]["exact"]["present"][-1]
    assert wrong[0] > 0.85
    assert wrong[1] < wrong[0] - 0.2


def test_wrong_settings_say_the_fix():
    with pytest.raises(ConfigError, match="1 for as many"):
        ItemRelearnConfig(bystanders=-1)
