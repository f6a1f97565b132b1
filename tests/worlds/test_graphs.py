"""Graphs, deletions, splits and tasks: what is deleted is gone from every input, and nothing leaks between splits."""

from dataclasses import replace

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, ModelError
from interp_unlearn.hooked import load_intervention, save_intervention, wrap
from interp_unlearn.worlds import graph_task, make_graph, without_deleted
from interp_unlearn.worlds.graphs import (
    DropEdges,
    both_ways,
    draw_non_edges,
    edge_keys,
    hop_distance,
    is_among,
    is_inside,
    parse_deletion,
)
from interp_unlearn.zoo import GNNShape, seeded_gnn

from ..tiny_graphs import edge_task, network, node_task, path_graph, small_graph


def test_self_loops_and_copies_are_dropped_and_noted():
    edges = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 1, 1, 0]])
    graph = make_graph("g", torch.ones(3, 2), edges, torch.zeros(3, dtype=torch.long))
    assert graph.edges.T.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert "1 self-loops were dropped" in graph.sources


@pytest.mark.parametrize(
    ("edges", "labels", "words"),
    [
        ([[0], [3]], [0, 0, 0], "an edge to node 3"),
        ([[0], [1]], [0, 0], "features of 3 nodes but 2 labels"),
        ([[0], [1]], [0, 0, -2], "labels from -2"),
    ],
)
def test_what_does_not_fit_is_refused(edges, labels, words):
    with pytest.raises(DataError, match=words):
        make_graph("g", torch.ones(3, 2), torch.tensor(edges), torch.tensor(labels))


def test_signed_features_are_passed_as_they_are():
    graph = small_graph()
    signed = replace(graph, features=torch.randn(120, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(signed.input(), signed.features)
    assert torch.allclose(graph.input().to_dense().sum(1), torch.ones(120))
    assert torch.equal(replace(graph, normalise="none").input().to_dense(), graph.features)
    with pytest.raises(DataError, match=r"set normalise = .none"):
        replace(signed, normalise="rows")
    settings = [graph_task(g, ["edges 8"]).data_settings() for g in (graph, replace(graph, normalise="none"))]
    assert settings[0] != settings[1]


def test_another_published_split_is_another_training_set():
    graph = small_graph()
    splits = [
        {"train": torch.arange(a, a + 60), "val": torch.arange(80, 95), "test": torch.arange(95, 120)} for a in (0, 9)
    ]
    tasks = [graph_task(replace(graph, public_split=s), ["nodes 4"], public_split=True) for s in splits]
    assert tasks[0].data_settings() != tasks[1].data_settings()


def test_edges_may_be_split_and_deleted_as_another_tool_did():
    graph = small_graph()
    order = torch.randperm(360, generator=torch.Generator().manual_seed(3))
    parts = {"test": order[:20], "val": order[20:40], "train": order[40:], "deleted": order[40:50]}
    split = {part: graph.edges[:, which].flip(0) for part, which in parts.items()}
    given = make_graph("mine", graph.features, graph.edges, graph.labels, graph.classes, edge_split=split)
    task = graph_task(given, ["listed"], public_split=True)
    keys = lambda edges: set(edge_keys(edges, 120).tolist())  # noqa: E731
    assert keys(task.deleted_edges) == keys(split["deleted"])
    assert keys(task.split.test) == keys(split["test"])
    assert keys(task.messages) == keys(split["train"])
    assert not is_among(task.split.test_negative, graph.edges, 120).any()
    assert task.data_settings() != graph_task(given, ["edges 8"]).data_settings()
    with pytest.raises(DataError, match="no published split of edges"):
        graph_task(graph, ["edges 8"], public_split=True)
    with pytest.raises(DataError, match="lists no deleted edges"):
        graph_task(graph, ["listed"])
    with pytest.raises(DataError, match="in two parts"):
        replace(given, edge_split={"train": graph.edges[:, :9], "val": graph.edges[:, 8:12]})
    with pytest.raises(DataError, match="that are no edges"):
        replace(given, edge_split={"train": task.split.test_negative})


def test_a_layer_that_keeps_its_first_edges_is_refused():
    task = edge_task()
    model = network(task)
    model.module.conv1.cached = True
    with pytest.raises(ModelError, match=r"conv1 of .* cached=False"), without_deleted(task, model):
        pass


@pytest.mark.parametrize("architecture", ["gcn", "gin"])
def test_a_network_of_other_features_is_refused(architecture):
    task = edge_task()
    other = wrap(seeded_gnn(GNNShape(architecture, 61, 8, 16), 0).eval())
    with pytest.raises(ModelError, match="cannot read the 60 features of a node of citations"):
        task.output(other)


def test_a_network_left_in_train_mode_is_asked_in_evaluation_mode():
    task = edge_task()
    model = network(task)
    model.module.project = torch.nn.BatchNorm1d(60)
    model.module.takes_sparse = False
    model.module.train()
    with torch.no_grad():
        one, two = task.output(model), task.output(model)
    assert torch.equal(one, two)
    assert model.module.project.num_batches_tracked == 0
    assert model.module.training


def test_hops_go_both_ways():
    graph = path_graph(10)
    assert hop_distance(graph.edges, torch.tensor([4]), 10).tolist() == [4, 3, 2, 1, 0, 1, 2, 3, 4, 5]
    assert hop_distance(graph.edges[:, :3], torch.tensor([0]), 10).tolist() == [0, 1, 2, 3, *[-1] * 6]


def test_non_edges_are_no_edges_each_once_and_follow_the_seed():
    graph = small_graph()
    drawn = [draw_non_edges(graph.edges, 120, 300, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not is_among(drawn[0], graph.edges, 120).any()
    assert len(edge_keys(drawn[0], 120).unique()) == 300
    assert (drawn[0][0] < drawn[0][1]).all()


def test_splits_are_disjoint_and_whole():
    task = edge_task("edges 5% in")
    split = task.split
    keys = [edge_keys(e, 120) for e in (split.train, split.val, split.test)]
    assert torch.cat(keys).sort().values.equal(edge_keys(task.graph.edges, 120))
    both = torch.cat([edge_keys(task.deleted_edges, 120), edge_keys(task.retained, 120)])
    assert both.sort().values.equal(keys[0].sort().values)
    negatives = torch.cat(
        [split.val_negative, split.test_negative, task.retain_train.ids[task.retain_train.labels == 0].T], 1
    )
    assert not is_among(negatives, task.graph.edges, 120).any()
    assert len(edge_keys(negatives, 120).unique()) == negatives.shape[1]


def test_in_and_out_make_up_the_training_edges():
    task = edge_task()
    inside = is_inside(task.split, 120)
    distance = hop_distance(task.split.train, task.split.test.unique(), 120)
    assert all(0 <= int(distance[n]) <= 2 for n in task.split.train[:, inside].unique())
    path = graph_task(path_graph(), ["edges 2 out"], seed=1)
    outside = path.deleted_edges
    far = hop_distance(path.split.train, path.split.test.unique(), 90)
    assert all(not (0 <= far[u] <= 2 and 0 <= far[v] <= 2) for u, v in outside.T)


def test_deletions_are_read():
    assert parse_deletion(["edges 5% in"]).share == 0.05
    assert parse_deletion(["Edges 20 out"]).count == 20
    assert parse_deletion(["edge 3-7", "edge 1 – 2"]).ids == ((3, 7), (1, 2))
    assert parse_deletion(["class Rule Learning"]).class_name == "Rule Learning"
    for wrong in ("edges", "edges 0%", "edges 2.5", "nodes 5% in", "Japan", "edges 100%"):
        with pytest.raises(ConfigError, match=r"target\.entities"):
            parse_deletion([wrong])
    with pytest.raises(ConfigError, match="may be several"):
        parse_deletion(["edges 5%", "edges 2%"])


def test_named_edges_that_cannot_be_deleted_are_refused_in_a_sentence():
    graph = make_graph(
        "g",
        torch.ones(101, 2),
        torch.stack([torch.arange(99), torch.arange(1, 100)]),
        torch.zeros(101, dtype=torch.long),
    )
    held = graph_task(graph, ["edges 1"], seed=0).split.test[:, 0].tolist()
    for entity, words in (
        ("edge 3-3", "self-loop"),
        ("edge 3-200", "no node 200"),
        ("edge 3-9", "does not exist in g; node 3 is linked to 2, 4"),
        ("edge 3-100", "node 100 is isolated"),
        (f"edge {held[0]}-{held[1]}", "held out"),
    ):
        with pytest.raises(DataError, match=words):
            graph_task(graph, [entity], seed=0)
    with pytest.raises(DataError, match="delete fewer"):
        graph_task(graph, ["edges 99%"], seed=0)
    with pytest.raises(ConfigError, match="no relations"):
        graph_task(graph, ["edges 5%"], relations=["capital"])


def test_nodes_and_classes_that_cannot_be_deleted_are_refused():
    graph = small_graph()
    task = node_task()
    test_node = int(task.split.test[0])
    of_class = [f"node {n}" for n in task.split.train.tolist() if graph.labels[n] == 0]
    for entities, words in (
        (["node 500"], "no node 500"),
        ([f"node {test_node}"], "not in training"),
        (["class Z"], "no class 'Z'"),
        (of_class, "deletes every training node of class 'field A'"),
        (["nodes 1000"], "delete fewer"),
    ):
        with pytest.raises(DataError, match=words):
            graph_task(graph, entities, seed=0)
    with pytest.raises(DataError, match="no published split"):
        graph_task(graph, ["nodes 5%"], public_split=True)


def test_a_deleted_class_is_held_out_as_test_nodes():
    task = node_task("class field A")
    assert set(task.forget_train.labels.tolist()) == {0} == set(task.forget_heldout.labels.tolist())
    assert 0 not in task.retain_train.labels and 0 not in task.neighbours.labels


def test_an_isolated_node_can_be_deleted():
    graph = make_graph(
        "g", torch.rand(60, 4), torch.stack([torch.arange(49), torch.arange(1, 50)]), torch.arange(60) % 2
    )
    node = next(n for n in graph_task(graph, ["nodes 2"]).split.train.tolist() if n >= 50)
    task = graph_task(graph, [f"node {node}"])
    assert task.deleted_edges.shape == (2, 0)
    assert task.hops().tolist().count(0) == 1


@pytest.mark.parametrize("make", [edge_task, node_task])
def test_messages_do_not_pass_over_what_is_deleted(make):
    task = make()
    model = network(task)
    with torch.no_grad():
        whole = task.output(model)
        with without_deleted(task, model):
            seen = []
            handle = model.module.conv1.register_forward_hook(lambda _m, args, _o: seen.append(args[1]))
            cut = task.output(model)
            handle.remove()
        again = task.output(model)
    assert not is_among(seen[0], task.deleted_edges, 120).any()
    assert seen[0].shape[1] == 2 * (task.messages.shape[1] - task.deleted_edges.shape[1])
    assert torch.equal(whole, again)
    # Of a deleted node, its neighbours' degrees change too, so that GCN's weights reach one hop further.
    far = (task.hops() > (2 if make is edge_task else 3)) | (task.hops() < 0)
    assert far.any() and torch.allclose(whole[far], cut[far], atol=1e-6)
    assert not torch.allclose(whole[task.hops() == 0], cut[task.hops() == 0])


def test_dropped_edges_are_saved_with_a_run(tmp_path):
    task = edge_task()
    save_intervention(tmp_path, task.removal())
    loaded = load_intervention(tmp_path)
    assert isinstance(loaded, DropEdges)
    pairs = both_ways(task.messages)
    assert torch.equal(loaded.kept(pairs), task.removal().kept(pairs))


@pytest.mark.parametrize("architecture", ["gcn", "gat", "gin", "sage"])
def test_renaming_nodes_changes_nothing(architecture):
    graph = small_graph()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    renamed = order.argsort()
    task = edge_task()
    model = network(task, architecture)
    x, pairs = task.graph.input().to_dense(), both_ways(graph.edges)
    with torch.no_grad():
        one, other = model.module(x, pairs), model.module(x[order], renamed[pairs])
    assert torch.allclose(one[order], other, atol=1e-5)


def test_an_edge_is_a_choice_between_absent_and_present():
    task = edge_task()
    model = network(task)
    ids = task.forget_train.ids
    with torch.no_grad():
        z, logits = task.output(model), task.logits(model, ids)
        flipped = task.logits(model, ids.flip(1))
    score = (z[ids[:, 0]] * z[ids[:, 1]]).sum(1)
    assert torch.allclose(logits.softmax(-1)[:, 1], score.sigmoid(), atol=1e-6)
    assert torch.allclose(logits, flipped)


def test_rows_have_disjoint_groups_and_one_row_each():
    for task in (edge_task(), node_task()):
        model = network(task)
        rows = task.rows(model, task.sites(model))
        assert rows.sites == ("conv1.output", "conv2.output")
        assert len(set(rows.labels["entity"])) == len(rows.labels["entity"]) == len(rows["conv1.output"])
        assert set(rows.labels["group"]) == {"target", "known_ref", "known_eval", "unknown_ref", "unknown_eval"}


def test_a_module_that_is_no_graph_network_is_refused():
    class NoGraph(torch.nn.Module):
        def forward(self, x, edges):
            return x.sum()

    task = edge_task()
    with pytest.raises(ModelError, match="one row per node"):
        task.output(wrap(NoGraph()))
    with pytest.raises(ModelError, match="no message-passing layer"):
        task.sites(wrap(NoGraph()))
    with pytest.raises(ModelError, match="3 classes"):
        node_task().logits(network(edge_task()), torch.tensor([0]))
