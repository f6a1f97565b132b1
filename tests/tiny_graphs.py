"""Small graphs, tasks and graph networks for tests."""

import torch

from interp_unlearn.benchmarks import citations
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import EdgeTask, Graph, NodeTask, graph_task, make_graph
from interp_unlearn.zoo import GNNShape, seeded_gnn


def small_graph() -> Graph:
    """120 papers of 3 fields."""
    return citations(0, nodes=120, fields=3, words=60)


def path_graph(n: int = 90) -> Graph:
    """A path 0 – 1 – … – n-1: hops are differences of node ids."""
    edges = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    features = torch.eye(n)[:, :40] + 0.1
    return make_graph("path", features, edges, torch.arange(n) % 3)


def edge_task(*entities: str, seed: int = 0) -> EdgeTask:
    task = graph_task(small_graph(), entities or ("edges 5%",), seed=seed)
    assert isinstance(task, EdgeTask)
    return task


def node_task(*entities: str, seed: int = 0) -> NodeTask:
    task = graph_task(small_graph(), entities or ("nodes 10%",), seed=seed)
    assert isinstance(task, NodeTask)
    return task


def network(task: EdgeTask | NodeTask, architecture: str = "gcn", seed: int = 0) -> HookedModel:
    """An untrained network that fits the task, in evaluation mode."""
    shape = GNNShape(architecture, task.graph.features.shape[1], task.d_out or 8, 16)
    return wrap(seeded_gnn(shape, seed).eval(), name=architecture)
