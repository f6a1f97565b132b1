"""Change by hops: nothing moves beyond the layers where only edges are gone; pictures hold what they draw."""

import numpy as np
import pytest
import torch

from interp_unlearn.diff import graph_cost, graph_reach
from interp_unlearn.diff._graph_reach import MAP_NODES
from interp_unlearn.probes import LivePhases
from interp_unlearn.report import plots
from interp_unlearn.unlearn.objectives.gnndelete import DeletionOperators
from interp_unlearn.zoo import GNNTraining, train_gnn

from ..tiny_graphs import edge_task, network, node_task


def quiet(*_):
    """No progress."""


@pytest.mark.parametrize("make", [edge_task, node_task])
def test_dropped_edges_reach_two_hops(make):
    task = make()
    model, gold = network(task), network(task)
    train_gnn(model, task, GNNTraining(epochs=10))
    train_gnn(gold, task, GNNTraining(epochs=10), gold=True)
    found = graph_reach(LivePhases(model, task, intervention=task.removal(), gold=gold), quiet)
    hops = found.tables["graph.hops"]
    for site in ("conv1.output", "conv2.output"):
        assert hops.at(phase="after", site=site, hop="0") > 1e-4
    if make is edge_task:  # a deleted node changes the degree of its neighbours, which reaches one hop further
        assert hops.at(phase="after", site="conv2.output", hop="3+") == pytest.approx(0, abs=1e-6)
        assert hops.at(phase="after", site="conv1.output", hop="2") == pytest.approx(0, abs=1e-6)
    assert hops.at(phase="gold", site="conv2.output", hop="3+") > 1e-4
    assert {e.name.split("/")[0] for e in found.evidence} == {
        "reach.change",
        "reach.locality",
        "reach.norm",
        "reach.cka_gold",
    }


def test_the_map_holds_the_deletion_and_is_drawn():
    task = edge_task("edges 5%")
    model = network(task)
    table = graph_reach(LivePhases(model, task, intervention=task.removal()), quiet).tables["graph.map"]
    assert 2 < len(table.axes[0].labels) <= MAP_NODES
    assert np.isfinite(table.values).all() and np.abs(table.at(column="x")).max() <= 1
    assert table.config["deleted"] and all(pair in table.config["edges"] for pair in table.config["deleted"])
    figure = plots.neighbourhood(table, "utu")
    assert [trace.name for trace in figure.data][:2] == ["kept link", "deleted link"]
    curve = plots.pick(
        plots.pick(graph_reach(LivePhases(model, task), quiet).tables["graph.hops"], "phase", "after"),
        "site",
        "conv1.output",
    )
    assert plots.hop_curves({"utu": curve}, "t", "y").data[0].x[0] == "0"


def test_operators_cost_what_their_matrices_take():
    task = edge_task("edges 3")
    model = network(task)
    hops = task.hops()
    nodes = {"conv1.output": (hops >= 0) & (hops <= 1), "conv2.output": (hops >= 0) & (hops <= 2)}
    operators = DeletionOperators({"conv1.output": torch.eye(16), "conv2.output": torch.eye(8)}, nodes)
    found = graph_cost(LivePhases(model, task, intervention=operators, gold=network(task, seed=1)), quiet)
    flops, distance = found.evidence
    extra = 2 * (int(nodes["conv1.output"].sum()) * 16 * 16 + int(nodes["conv2.output"].sum()) * 8 * 8)
    assert flops.value - flops.control == extra
    assert distance.value == distance.control > 0
