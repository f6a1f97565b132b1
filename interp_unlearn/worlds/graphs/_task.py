"""Tasks on a graph: edges asked for as links, nodes by their class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError, ModelError, config_hash, generator
from interp_unlearn.hooked import Activations, HookedModel, Intervention, capture, evaluating
from interp_unlearn.worlds._labelled import ItemSet, LabelledTask
from interp_unlearn.worlds._types import Modality, Split, Target
from interp_unlearn.worlds.graphs._deletion import Deletion, parse_deletion
from interp_unlearn.worlds.graphs._graph import Graph, both_ways, draw_non_edges, edge_keys, hop_distance
from interp_unlearn.worlds.graphs._removal import DropEdges
from interp_unlearn.worlds.graphs._split import (
    EdgeSplit,
    NodeSplit,
    choose_edges,
    choose_nodes,
    incident_edges,
    split_edges,
    split_nodes,
    touching,
)

MAX_ROWS = 200
"""Rows of activations of each group at most, drawn by seed."""
NONE = torch.empty(0, dtype=torch.long)


class GraphTask(LabelledTask):
    """What graph tasks share: the graph, what is deleted, and how a model is asked.

    A model is called as torch-geometric's are, ``module(x, edge_index)``, with every training edge in both directions.
    What is deleted is taken out of that call by `removal`, which is applied to edited and retrained models alike.

    Attributes:
        graph: The whole graph.
        deletion: What was asked to be deleted.
        messages: Edges over which the original passes messages, (2, M), one direction.
        deleted_edges: Those over which messages no longer pass, (2, D).
        deleted_nodes: Ends of deleted edges, or deleted nodes, (k,).
    """

    modality: ClassVar[Modality] = "graph"  # type: ignore[misc]
    kind: ClassVar[Literal["edge", "node"]]
    graph: Graph
    deletion: Deletion
    messages: Int[Tensor, "2 m"]
    deleted_edges: Int[Tensor, "2 d"]
    deleted_nodes: Int[Tensor, " k"]

    def __init__(self, graph: Graph, deletion: Deletion, seed: int) -> None:
        self.graph, self.deletion, self.seed = graph, deletion, seed
        self.world, self.sources = graph.name, graph.sources
        self.target = Target((deletion.text,))
        self._input = graph.input()
        self._dense: Tensor | None = None

    def _ready(self) -> None:
        """Make what every call needs, once the subclass has its edges."""
        self._edge_index = both_ways(self.messages)
        self._removal = DropEdges(self.deleted_edges, self.graph.n_nodes)

    @property
    def d_out(self) -> int | None:
        """Width that a model's output must have; None if any will do."""
        return None

    def removal(self) -> Intervention:
        """Deleted edges, and edges of deleted nodes, pass no messages."""
        return self._removal

    def hops(self) -> Int[Tensor, " n"]:
        """Distance of every node from the deletion over the edges of the original, -1 out of reach."""
        return hop_distance(self.messages, self.deleted_nodes, self.graph.n_nodes)

    def inputs(self, model: HookedModel) -> tuple[Tensor, Tensor]:
        """What the model is called with: features (N, F) and all training edges in both directions, (2, 2M)."""
        if getattr(model.module, "takes_sparse", False):
            return self._input, self._edge_index
        if self._dense is None:
            self._dense = self._input.to_dense()
        return self._dense, self._edge_index

    def output(self, model: HookedModel) -> Float[Tensor, "n d"]:
        """The model's output for every node, in evaluation mode, with graph where gradients are on.

        Raises:
            ModelError: If it is not one row per node, or the model wants nodes with other features.
        """
        with evaluating(model.module):
            try:
                found = model.forward(self.inputs(model))
            except RuntimeError as error:
                if not any(word in str(error) for word in ("shape", "size", "dimension")):
                    raise
                raise ModelError(
                    f"{model.name} cannot read the {self.graph.features.shape[1]} features of a node of {self.world} "
                    f"({str(error).splitlines()[0]}); use a network of this graph"
                ) from error
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != self.graph.n_nodes:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"{model.name} gives {what} for {self.graph.n_nodes} nodes; a graph model is called as "
                "module(x, edge_index) and gives one row per node"
            )
        return found

    @abstractmethod
    def read(self, output: Float[Tensor, "n d"], ids: Int[Tensor, "k ..."]) -> Float[Tensor, "k classes"]:
        """Logits of items from the model's output."""

    def logits(self, model: HookedModel, ids: Int[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """One pass over the whole graph, whatever is asked."""
        return self.read(self.output(model), ids)

    def sites(self, model: HookedModel, stride: int = 1) -> list[str]:
        """The output of every message-passing layer.

        Raises:
            ModelError: If the model has none.
        """
        found = [
            f"{name}.output" for name, module in model.module.named_modules() if name and hasattr(module, "propagate")
        ]
        if not found:
            raise ModelError(
                f"{model.name} has no message-passing layer (torch_geometric.nn.MessagePassing) to look into"
            )
        return sorted({*found[::stride], found[-1]}, key=found.index)

    def main_site(self, model: HookedModel) -> str:
        """The last layer that is not the answer itself."""
        found = self.sites(model)
        return found[-1] if self.kind == "edge" else found[max(0, len(found) - 2)]

    @abstractmethod
    def row_groups(self) -> Mapping[str, tuple[Int[Tensor, "k ..."], tuple[str, ...]]]:
        """Ids and names of the rows of each group."""

    def rows(self, model: HookedModel, sites: Sequence[str], split: Split = "heldout") -> Activations:  # noqa: ARG002
        """One row per node; of an edge, the product of its ends' activations, feature by feature."""
        acts = capture(model, self.inputs(model), sites)
        groups = self.row_groups()
        ids = torch.cat([found for found, _ in groups.values()])
        values = {site: self.row_of(acts[site].flatten(1), ids) for site in acts.sites}
        labels = {
            "entity": tuple(name for _, names in groups.values() for name in names),
            "group": tuple(group for group, (_, names) in groups.items() for _ in names),
            "template": (self.kind,) * len(ids),
        }
        return Activations(values, mask_policy="items", labels=labels)

    @abstractmethod
    def row_of(self, values: Float[Tensor, "n d"], ids: Int[Tensor, "k ..."]) -> Float[Tensor, "k d"]:
        """Rows of items from rows of nodes."""

    def data_settings(self) -> dict[str, Any]:
        """What the original model's training data depends on."""
        graph = {"graph": self.graph.checksum(), "normalise": self.graph.row_sums, "name": self.graph.name}
        return {**graph, "kind": self.kind, "seed": self.seed}

    def settings(self) -> Mapping[str, Any]:
        """The data and the deletion."""
        return {**self.data_settings(), "deletion": self.deletion.text, "deleted_edges": self.deleted_edges.T.tolist()}

    def _some(self, ids: Tensor, purpose: str) -> Tensor:
        """At most `MAX_ROWS` items, in their order."""
        chosen = torch.randperm(len(ids), generator=generator(self.seed, "rows", purpose))[:MAX_ROWS]
        return ids[chosen.sort().values]

    def _halves(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Two disjoint random halves."""
        order = torch.randperm(len(ids), generator=generator(self.seed, "halves"))
        return ids[order[::2].sort().values], ids[order[1::2].sort().values]


class EdgeTask(GraphTask):
    """Link prediction: an edge's logit is the product of its ends' embeddings.

    Attributes:
        split: Edges by use.
        retained: Training edges that are kept, (2, R).
        near: Retained edges that touch an end of a deleted one.
    """

    kind = "edge"
    classes = ("absent", "present")

    def __init__(self, graph: Graph, deletion: Deletion, seed: int, public_split: bool = False) -> None:
        super().__init__(graph, deletion, seed)
        self.public_split = public_split
        self.split: EdgeSplit = split_edges(graph, seed, public_split)
        chosen = choose_edges(graph, self.split, deletion, seed)
        self.messages = self.split.train
        self.deleted_edges, self.retained = self.messages[:, chosen], self.messages[:, ~chosen]
        self.deleted_nodes = self.deleted_edges.unique()
        self._ready()
        n = graph.n_nodes
        self.near = touching(self.messages, self.deleted_nodes, self.deleted_edges, n)
        held = torch.cat([self.split.val_negative, self.split.test_negative], 1)
        random = generator(seed, "retain negatives", graph.name)
        negative = draw_non_edges(graph.edges, n, self.retained.shape[1], random, edge_keys(held, n))
        self.forget_train = edge_items("forget_train", (self.deleted_edges, 1))
        self.forget_heldout = _empty_edges(
            "forget_heldout", "a deleted edge is one pair; there is no more of it to hold out"
        )
        self.retain_train = edge_items("retain_train", (self.retained, 1), (negative, 0))
        self.near_edges = (
            edge_items("near", (self.near, 1))
            if self.near.shape[1]
            else _empty_edges("near", "no retained edge touches an end of a deleted one")
        )
        self.neighbours = edge_items("neighbours", (self.split.test, 1), (self.split.test_negative, 0))
        self.never_known = edge_items("never_known", (self.split.val, 1))

    def item_sets(self) -> tuple[ItemSet, ...]:
        """The usual ones, and retained edges that touch an end of a deleted one."""
        return (*super().item_sets(), self.near_edges)

    def read(self, output: Float[Tensor, "n d"], ids: Int[Tensor, "k 2"]) -> Float[Tensor, "k 2"]:
        """0 for absent, the inner product for present: their softmax is the sigmoid of the product."""
        score = (output[ids[:, 0]] * output[ids[:, 1]]).sum(-1)
        return torch.stack([torch.zeros_like(score), score], 1)

    def row_of(self, values: Float[Tensor, "n d"], ids: Int[Tensor, "k 2"]) -> Float[Tensor, "k d"]:
        """The Hadamard product of the ends, the same in both directions."""
        return values[ids[:, 0]] * values[ids[:, 1]]

    def row_groups(self) -> Mapping[str, tuple[Int[Tensor, "k 2"], tuple[str, ...]]]:
        """Deleted edges; retained ones, half and half; true edges that no model was trained on."""
        known_ref, known_eval = self._halves(self.retained.T)
        ids = {
            "target": self._some(self.deleted_edges.T, "target"),
            "known_ref": self._some(known_ref, "ref"),
            "known_eval": self._some(known_eval, "eval"),
            "unknown_ref": self._some(self.split.val.T, "val"),
            "unknown_eval": self._some(self.split.test.T, "test"),
        }
        return {group: (found, edge_names(found)) for group, found in ids.items()}

    def data_settings(self) -> dict[str, Any]:
        """Also the published split, where that is used."""
        parts = (self.split.train, self.split.val, self.split.test)
        split = {"split": config_hash([edges.tolist() for edges in parts])} if self.public_split else {}
        return {**super().data_settings(), **split}


class NodeTask(GraphTask):
    """Node classification; nodes are deleted one by one, or a class as a whole.

    Attributes:
        split: Labelled nodes by use.
        retained: Training nodes that are kept, (R,).
    """

    kind = "node"

    def __init__(self, graph: Graph, deletion: Deletion, seed: int, public_split: bool = False) -> None:
        super().__init__(graph, deletion, seed)
        self.public_split = public_split
        self.classes = graph.classes
        self.split: NodeSplit = split_nodes(graph, seed, public_split)
        chosen = choose_nodes(graph, self.split, deletion, seed)
        self.messages = graph.edges
        self.deleted_nodes, self.retained = self.split.train[chosen], self.split.train[~chosen]
        self.deleted_edges = incident_edges(self.messages, self.deleted_nodes)
        self._ready()
        labels, val, test = graph.labels, self.split.val, self.split.test
        gone = (
            torch.isin(labels, labels[self.deleted_nodes])
            if deletion.kind == "class"
            else torch.zeros_like(labels).bool()
        )
        why = (
            "no test node is of the deleted class"
            if deletion.kind == "class"
            else "nodes were named or drawn one by one; there are no more of them to hold out"
        )
        self.forget_train = self._items("forget_train", self.deleted_nodes)
        self.forget_heldout = self._items("forget_heldout", test[gone[test]], why)
        self.retain_train = self._items("retain_train", self.retained)
        self.neighbours = self._items("neighbours", test[~gone[test]], "every test node is of the deleted class")
        never = val[gone[val]] if deletion.kind == "class" else val
        self.never_known = self._items("never_known", never, "no validation node is of the deleted class")

    @property
    def d_out(self) -> int:
        """One output per class."""
        return len(self.classes)

    def _items(self, name: str, nodes: Int[Tensor, " k"], why_empty: str = "") -> ItemSet:
        names = tuple(f"node {node}" for node in nodes.tolist())
        return ItemSet(name, nodes, self.graph.labels[nodes], names, why_empty="" if len(nodes) else why_empty)

    def read(self, output: Float[Tensor, "n d"], ids: Int[Tensor, " k"]) -> Float[Tensor, "k classes"]:
        """The rows of the nodes.

        Raises:
            ModelError: If there is not one output per class.
        """
        if output.shape[1] != len(self.classes):
            raise ModelError(
                f"the model gives {output.shape[1]} numbers per node, {self.world} has {len(self.classes)} classes; "
                "use a model that was trained to classify its nodes"
            )
        return output[ids]

    def row_of(self, values: Float[Tensor, "n d"], ids: Int[Tensor, " k"]) -> Float[Tensor, "k d"]:
        """The rows of the nodes."""
        return values[ids]

    def row_groups(self) -> Mapping[str, tuple[Int[Tensor, " k"], tuple[str, ...]]]:
        """Deleted nodes; retained training nodes, half and half; nodes that no model was trained on."""
        known_ref, known_eval = self._halves(self.retained)
        ids = {
            "target": self._some(self.deleted_nodes, "target"),
            "known_ref": self._some(known_ref, "ref"),
            "known_eval": self._some(known_eval, "eval"),
            "unknown_ref": self._some(self.split.val, "val"),
            "unknown_eval": self._some(self.split.test, "test"),
        }
        return {group: (found, tuple(f"node {n}" for n in found.tolist())) for group, found in ids.items()}

    def data_settings(self) -> dict[str, Any]:
        """Also which split, node by node."""
        split = config_hash([ids.tolist() for ids in (self.split.train, self.split.val, self.split.test)])
        return {**super().data_settings(), "public_split": self.public_split, "split": split}


def graph_task(
    graph: Graph, entities: Sequence[str], *, relations: Sequence[str] = (), seed: int = 0, public_split: bool = False
) -> EdgeTask | NodeTask:
    """Split a graph around a deletion.

    Args:
        graph: The graph.
        entities: What is deleted, see `parse_deletion`.
        relations: Must be empty: a graph has none.
        seed: Of the split and of what is drawn.
        public_split: Use the published split, of nodes or edges.

    Raises:
        ConfigError: If the deletion is written in another form, or relations are given.
        DataError: If it cannot be done on this graph.
    """
    if relations:
        raise ConfigError(f"target.relations = {list(relations)}: a graph has no relations; leave it out")
    deletion = parse_deletion(entities)
    kind = EdgeTask if deletion.kind == "edge" else NodeTask
    return kind(graph, deletion, seed, public_split)


def edge_names(ids: Int[Tensor, "k 2"]) -> tuple[str, ...]:
    """Names for people, ``"12–57"``."""
    return tuple(f"{u}–{v}" for u, v in ids.tolist())


def edge_items(name: str, *parts: tuple[Int[Tensor, "2 k"], int]) -> ItemSet:
    """Edges with their classes: 1 present, 0 absent."""
    ids = torch.cat([edges.T for edges, _ in parts])
    labels = torch.cat([torch.full((edges.shape[1],), label) for edges, label in parts])
    return ItemSet(name, ids, labels, edge_names(ids))


def _empty_edges(name: str, why: str) -> ItemSet:
    return ItemSet(name, NONE.reshape(0, 2), NONE, (), why_empty=why)
