"""How edges and nodes are split, following GNNDelete's preparation, and how deletions are drawn from the training part.

Two things differ from the published code, on purpose. Hops are searched in both directions of every edge (there: in
one, which finds a smaller neighbourhood). Sampled "negatives" are no edge of any split (there: none of their own split,
so that some are true training edges).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_unlearn._core import DataError, generator, nearest
from interp_unlearn.worlds.graphs._deletion import Deletion
from interp_unlearn.worlds.graphs._graph import Graph, draw_non_edges, edge_keys, hop_distance, is_among

HELD_OUT = 0.05
"""Share of edges for testing, and as many for validation."""
NODE_HELD_OUT = 0.1
"""Share of labelled nodes for testing, and as many for validation, where no published split is asked for."""
HOPS = 2


@dataclass(frozen=True, eq=False)
class EdgeSplit:
    """Edges by use; every edge in one direction.

    Attributes:
        train: Training edges, over which messages pass, (2, M).
        val: Validation edges.
        test: Test edges.
        val_negative: As many pairs that are no edge.
        test_negative: Likewise.
    """

    train: Int[Tensor, "2 m"]
    val: Int[Tensor, "2 v"]
    test: Int[Tensor, "2 t"]
    val_negative: Int[Tensor, "2 v"]
    test_negative: Int[Tensor, "2 t"]


def split_edges(graph: Graph, seed: int, public: bool = False) -> EdgeSplit:
    """Shuffle; the first 5 % are for testing, the next 5 % for validation, the rest for training; or as published.

    Raises:
        DataError: If there are too few edges, or there is no published split.
    """
    if public:
        return _published(graph, seed)
    n = graph.edges.shape[1]
    held = int(HELD_OUT * n)
    if held < 3:
        raise DataError(f"{graph.name} has {n} edges, too few to hold 5 % out for testing; use at least 60")
    order = torch.randperm(n, generator=generator(seed, "edge split", graph.name))
    parts = [graph.edges[:, order[a:b].sort().values] for a, b in ((0, held), (held, 2 * held), (2 * held, n))]
    random = generator(seed, "negatives", graph.name)
    negative = draw_non_edges(graph.edges, graph.n_nodes, 2 * held, random)
    return EdgeSplit(parts[2], parts[1], parts[0], negative[:, :held], negative[:, held:])


def _published(graph: Graph, seed: int) -> EdgeSplit:
    """The split of the graph's file, with non-edges drawn by seed."""
    lacking = [f"{part}_edges" for part in ("train", "val", "test") if part not in graph.edge_split]
    if lacking:
        raise DataError(f"{graph.name} has no published split of edges ({', '.join(lacking)}); leave public_split out")
    train, val, test = (graph.edge_split[part] for part in ("train", "val", "test"))
    if min(val.shape[1], test.shape[1]) < 3:
        raise DataError(f"{graph.name}: the published split holds out fewer than 3 edges of a kind; hold out more")
    n = val.shape[1]
    negative = draw_non_edges(graph.edges, graph.n_nodes, n + test.shape[1], generator(seed, "negatives", graph.name))
    return EdgeSplit(train, val, test, negative[:, :n], negative[:, n:])


def is_inside(split: EdgeSplit, n_nodes: int, hops: int = HOPS) -> Bool[Tensor, " m"]:
    """Whether each training edge lies IN: both ends within ``hops`` of an end of a test edge, in the training graph."""
    distance = hop_distance(split.train, split.test.unique(), n_nodes)
    near = (distance >= 0) & (distance <= hops)
    return near[split.train[0]] & near[split.train[1]]


def choose_edges(graph: Graph, split: EdgeSplit, deletion: Deletion, seed: int) -> Bool[Tensor, " m"]:
    """Which training edges are deleted.

    Raises:
        DataError: If a named edge is no training edge, too few lie where they are to be drawn from, or none would be
            left.
    """
    train, n = split.train, graph.n_nodes
    if deletion.listed and not graph.edge_split.get("deleted", split.train[:, :0]).shape[1]:
        raise DataError(f"{graph.name} lists no deleted edges; put them into its file as deleted_edges, or name them")
    if deletion.ids or deletion.listed:
        asked = graph.edge_split["deleted"] if deletion.listed else torch.tensor(deletion.ids).T
        _check_edges(graph, split, asked)
        chosen = is_among(train, asked, n)
    else:
        inside = is_inside(split, n)
        pool = {"in": inside, "out": ~inside, "any": torch.ones_like(inside)}[deletion.where].nonzero()[:, 0]
        count = deletion.count or max(1, round(deletion.share * train.shape[1]))
        if count > len(pool):
            where = {"in": "in the 2-hop neighbourhood of the test edges", "out": "outside it", "any": "in training"}
            raise DataError(
                f"{count} edges are to be deleted, but {graph.name} has only {len(pool)} {where[deletion.where]}; "
                "delete fewer, or draw them elsewhere"
            )
        order = torch.randperm(len(pool), generator=generator(seed, "deleted edges", graph.name, deletion.where))
        chosen = torch.zeros(train.shape[1], dtype=torch.bool)
        chosen[pool[order[:count]]] = True
    if int((~chosen).sum()) < 4:
        raise DataError(f"{deletion.text!r} deletes all but {int((~chosen).sum())} training edges; delete fewer")
    return chosen


def _check_edges(graph: Graph, split: EdgeSplit, asked: Int[Tensor, "2 k"]) -> None:
    degree = torch.bincount(graph.edges.flatten(), minlength=graph.n_nodes)
    held = torch.cat([split.test, split.val], 1)
    for u, v in asked.T.tolist():
        pair = torch.tensor([[u], [v]])
        if u == v:
            raise DataError(f"edge {u}-{v} is a self-loop, and self-loops are no edges here; name two different nodes")
        if max(u, v) >= graph.n_nodes:
            raise DataError(f"edge {u}-{v}: {graph.name} has no node {max(u, v)}; its nodes are 0…{graph.n_nodes - 1}")
        if not bool(is_among(pair, graph.edges, graph.n_nodes)):
            lonely = [node for node in (u, v) if not degree[node]]
            others = [node for node in incident_edges(graph.edges, torch.tensor([u])).unique().tolist() if node != u]
            why = f"node {lonely[0]} is isolated" if lonely else f"node {u} is linked to {_few(others)}"
            raise DataError(f"edge {u}-{v} does not exist in {graph.name}; {why}")
        if bool(is_among(pair, held, graph.n_nodes)):
            raise DataError(
                f"edge {u}-{v} is held out for testing or validation with this seed, so no model has seen it; name a "
                "training edge, or use another seed"
            )


def _few(nodes: list[int]) -> str:
    return ", ".join(map(str, sorted(nodes)[:5])) + (" …" if len(nodes) > 5 else "")


@dataclass(frozen=True, eq=False)
class NodeSplit:
    """Labelled nodes by use, ids in order."""

    train: Int[Tensor, " m"]
    val: Int[Tensor, " v"]
    test: Int[Tensor, " t"]


def split_nodes(graph: Graph, seed: int, public: bool) -> NodeSplit:
    """The published split, or 80 % training, 10 % validation and 10 % test, drawn by seed.

    Raises:
        DataError: If there is no published split, or there are too few labelled nodes.
    """
    if public:
        missing = [name for name in ("train", "val", "test") if name not in graph.public_split]
        if missing:
            raise DataError(f"{graph.name} has no published split; set public_split = false")
        parts = []
        for name in ("train", "val", "test"):
            ids = graph.public_split[name].sort().values
            parts.append(ids[graph.labels[ids] >= 0])
            if not len(parts[-1]):
                raise DataError(
                    f"{graph.name}: the published split's {name!r} has no node with a class; set public_split = false"
                )
        return NodeSplit(*parts)
    labelled = (graph.labels >= 0).nonzero()[:, 0]
    held = int(NODE_HELD_OUT * len(labelled))
    if held < 2:
        raise DataError(f"{graph.name} has {len(labelled)} labelled nodes, too few to hold 10 % out; use at least 20")
    order = labelled[torch.randperm(len(labelled), generator=generator(seed, "node split", graph.name))]
    return NodeSplit(order[2 * held :].sort().values, order[held : 2 * held].sort().values, order[:held].sort().values)


def choose_nodes(graph: Graph, split: NodeSplit, deletion: Deletion, seed: int) -> Bool[Tensor, " m"]:
    """Which training nodes are deleted.

    Raises:
        DataError: If a named node or class does not exist or is not in training, or a class or all would be lost.
    """
    train = split.train
    if deletion.kind == "class":
        chosen = graph.labels[train] == _class_index(graph, deletion.class_name)
        if not bool(chosen.any()):
            raise DataError(f"class {deletion.class_name!r} has no training node in {graph.name}; use another class")
    elif deletion.ids:
        asked = torch.tensor(deletion.ids)[:, 0]
        for node in asked.tolist():
            if node >= graph.n_nodes:
                raise DataError(f"{graph.name} has no node {node}; its nodes are 0…{graph.n_nodes - 1}")
            if node not in train:
                raise DataError(
                    f"node {node} is not in training with this seed, so no model has learnt its class; name a training "
                    "node, or use another seed"
                )
        chosen = torch.isin(train, asked)
    else:
        count = deletion.count or max(1, round(deletion.share * len(train)))
        if count >= len(train):
            raise DataError(f"{count} nodes are to be deleted, but {graph.name} trains on {len(train)}; delete fewer")
        chosen = torch.zeros(len(train), dtype=torch.bool)
        chosen[torch.randperm(len(train), generator=generator(seed, "deleted nodes", graph.name))[:count]] = True
    kept = graph.labels[train[~chosen]].unique()
    lost = [c for c in graph.labels[train].unique().tolist() if c not in kept]
    if len(kept) < 2:
        raise DataError(f"{deletion.text!r} leaves {len(kept)} class to train on; delete less")
    if lost and deletion.kind == "node":
        name = graph.classes[lost[0]]
        raise DataError(
            f"{deletion.text!r} deletes every training node of class {name!r}; if that is meant, write 'class {name}', "
            "which is judged as a class"
        )
    return chosen


def _class_index(graph: Graph, name: str) -> int:
    if name in graph.classes:
        return graph.classes.index(name)
    if name.isdigit() and int(name) < len(graph.classes):
        return int(name)
    raise DataError(
        f"{graph.name} has no class {name!r}{nearest(name, graph.classes)}; known: {', '.join(graph.classes)}"
    )


def incident_edges(edges: Int[Tensor, "2 m"], nodes: Int[Tensor, " k"]) -> Int[Tensor, "2 j"]:
    """Edges that touch one of the nodes."""
    return edges[:, torch.isin(edges, nodes).any(0)]


def touching(
    edges: Int[Tensor, "2 m"], nodes: Int[Tensor, " k"], without: Int[Tensor, "2 d"], n: int
) -> Int[Tensor, "2 j"]:
    """Edges that touch one of the nodes and are not among others."""
    near = incident_edges(edges, nodes)
    return near[:, ~torch.isin(edge_keys(near, n), edge_keys(without, n))]
