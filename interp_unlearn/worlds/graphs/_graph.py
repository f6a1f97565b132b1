"""`Graph`: nodes with features and classes, and undirected edges, each kept once."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import DataError

Normalise = Literal["auto", "rows", "none"]
SPARSE_BELOW = 0.1
"""Share of features that are not 0 below which a sparse product is faster than a dense one."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without self-loops.

    Attributes:
        name: Name of the data set.
        features: One row per node, (N, F).
        edges: Each edge once, smaller node first, sorted, (2, M).
        labels: Class of each node, -1 where it has none, (N,).
        classes: Names of the classes.
        public_split: Node ids of the published split, by ``"train"``, ``"val"`` and ``"test"``; may be empty.
        sources: Provenance sentences.
        edge_split: Edges of a published split, each once, by ``"train"``, ``"val"`` and ``"test"``, and by
            ``"deleted"`` those that another tool deleted; may be empty.
        normalise: Whether a model is given rows of features divided by their sum: ``"rows"``, ``"none"``, or ``"auto"``
            for rows where no feature is negative, as in bags of words.

    Raises:
        DataError: If lengths differ, a node or class does not exist, edges are not sorted, unique and loop-free, or
            rows with negative features are to be divided by their sum, which may be near 0.
    """

    name: str
    features: Float[Tensor, "n f"]
    edges: Int[Tensor, "2 m"]
    labels: Int[Tensor, " labels"]
    classes: tuple[str, ...]
    public_split: Mapping[str, Int[Tensor, " k"]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    normalise: Normalise = "auto"
    edge_split: Mapping[str, Int[Tensor, "2 _"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.n_nodes
        if self.normalise not in get_args(Normalise):
            raise DataError(f"normalise = {self.normalise!r} is unknown; use one of {', '.join(get_args(Normalise))}")
        if self.normalise == "rows" and bool((self.features < 0).any()):
            raise DataError(
                f'{self.name} has negative features, whose rows cannot be divided by their sum; set normalise = "none"'
            )
        if not n or not self.features.shape[1]:
            raise DataError(
                f"{self.name} has {n} nodes and {self.features.shape[1]} features; give at least one of each"
            )
        if len(self.labels) != n:
            raise DataError(f"{self.name} has features of {n} nodes but {len(self.labels)} labels; give one per node")
        if not bool(torch.isfinite(self.features).all()):
            raise DataError(f"{self.name} has features that are NaN or infinite; mend them first")
        if self.edges.numel() and not 0 <= int(self.edges.min()) <= int(self.edges.max()) < n:
            wrong = int(self.edges.max() if int(self.edges.max()) >= n else self.edges.min())
            raise DataError(f"{self.name} has an edge to node {wrong}, but its nodes are 0…{n - 1}")
        if len(self.labels) and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise DataError(
                f"{self.name} has labels from {int(self.labels.min())} to {int(self.labels.max())}, but "
                f"{len(self.classes)} classes; classes are counted from 0, and -1 means none"
            )
        self._check_split()
        self._check_edge_split()
        keys = edge_keys(self.edges, n)
        if not bool((self.edges[0] < self.edges[1]).all()) or not bool((keys.diff() > 0).all()):
            raise DataError(
                f"{self.name} holds self-loops, or an edge twice; build it with make_graph, which drops them"
            )

    def _check_split(self) -> None:
        n = self.n_nodes
        for part, ids in self.public_split.items():
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < n:
                raise DataError(
                    f"{self.name}: the published split's {part!r} has a node outside 0…{n - 1}; mend its ids"
                )
        together = (
            torch.cat([ids.long() for ids in self.public_split.values()]) if self.public_split else self.labels[:0]
        )
        if len(together.unique()) < len(together):
            raise DataError(
                f"{self.name}: a node is twice in the published split, or in two of its parts; list every node once"
            )

    def _check_edge_split(self) -> None:
        for part, edges in self.edge_split.items():
            if not bool(is_among(edges, self.edges, self.n_nodes).all()):
                raise DataError(f"{self.name}: the published split has {part!r} edges that are no edges; mend it")
        parts = [edge_keys(edges, self.n_nodes) for part, edges in self.edge_split.items() if part != "deleted"]
        together = torch.cat([self.edges[0, :0], *parts])
        if len(together.unique()) < len(together):
            raise DataError(f"{self.name}: an edge is in two parts of the published split; list every edge in one")

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.features.shape[0]

    def checksum(self) -> str:
        """Hash of everything that a model can learn from."""
        found = hashlib.sha256()
        for tensor in (self.features, self.edges, self.labels):
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    @property
    def row_sums(self) -> bool:
        """Whether rows are divided by their sum."""
        return self.normalise == "rows" or (self.normalise == "auto" and not bool((self.features < 0).any()))

    def input(self) -> Float[Tensor, "n f"]:
        """Features, with rows that sum to 1 (of zeros stay) where `row_sums`; sparse (CSR) where few are not 0."""
        total = self.features.sum(1, keepdim=True)
        rows = self.features / torch.where(total > 0, total, torch.ones_like(total)) if self.row_sums else self.features
        if (rows != 0).float().mean() >= SPARSE_BELOW:
            return rows
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            return rows.to_sparse_csr()


def make_graph(
    name: str,
    features: Float[Tensor, "n f"],
    edges: Int[Tensor, "2 e"],
    labels: Int[Tensor, " labels"],
    classes: Sequence[str] = (),
    public_split: Mapping[str, Int[Tensor, " k"]] | None = None,
    sources: Sequence[str] = (),
    edge_split: Mapping[str, Int[Tensor, "2 _"]] | None = None,
) -> Graph:
    """A `Graph` from edges in any order and direction; self-loops and repeated edges are dropped, and that is noted.

    Args:
        name: Name of the data set.
        features: One row per node.
        edges: Pairs of nodes, any direction.
        labels: Class of each node, -1 for none.
        classes: Their names; default ``"class 0"`` and so on.
        public_split: See `Graph`.
        sources: Provenance sentences.
        edge_split: See `Graph`; pairs in any direction.

    Raises:
        DataError: As `Graph`.
    """
    loops = int((edges[0] == edges[1]).sum())
    pairs = _once(edges)
    split = {part: _once(found) for part, found in (edge_split or {}).items()}
    said = [*sources, f"{pairs.shape[1]} undirected edges"] + ([f"{loops} self-loops were dropped"] if loops else [])
    names = tuple(classes) or tuple(f"class {i}" for i in range(int(labels.max()) + 1 if len(labels) else 0))
    nodes = dict(public_split or {})
    return Graph(name, features.float(), pairs, labels.long(), names, nodes, tuple(said), edge_split=split)


def _once(edges: Int[Tensor, "2 e"]) -> Int[Tensor, "2 m"]:
    """Each undirected edge once, smaller node first, sorted, without self-loops."""
    edges = edges[:, edges[0] != edges[1]].long()
    low, high = edges.min(0).values, edges.max(0).values
    return torch.stack([low, high], 1).unique(dim=0).T.contiguous() if edges.numel() else edges.reshape(2, 0)


def edge_keys(edges: Int[Tensor, "2 m"], n_nodes: int) -> Int[Tensor, " m"]:
    """One number per edge, the same for both directions."""
    return edges.min(0).values * n_nodes + edges.max(0).values


def both_ways(edges: Int[Tensor, "2 m"]) -> Int[Tensor, "2 k"]:
    """Edges in both directions, for message passing."""
    return torch.cat([edges, edges.flip(0)], 1)


def is_among(edges: Int[Tensor, "2 m"], others: Int[Tensor, "2 k"], n_nodes: int) -> Bool[Tensor, " m"]:
    """Whether each edge is among others, whatever the direction."""
    return torch.isin(edge_keys(edges, n_nodes), edge_keys(others, n_nodes))


def hop_distance(edges: Int[Tensor, "2 m"], sources: Int[Tensor, " k"], n_nodes: int) -> Int[Tensor, " n"]:
    """Number of hops from the nearest source, in both directions of every edge; -1 where none can be reached."""
    distance = torch.full((n_nodes,), -1, dtype=torch.long)
    reached = torch.zeros(n_nodes, dtype=torch.bool)
    reached[sources] = True
    pairs, hop, fresh = both_ways(edges), 0, reached.clone()
    while bool(fresh.any()):
        distance[fresh] = hop
        beside = torch.zeros_like(reached)
        beside[pairs[1, fresh[pairs[0]]]] = True
        fresh = beside & ~reached
        reached |= fresh
        hop += 1
    return distance


def draw_non_edges(
    edges: Int[Tensor, "2 m"], n_nodes: int, count: int, random: torch.Generator, avoid: Int[Tensor, " k"] | None = None
) -> Int[Tensor, "2 c"]:
    """Pairs of different nodes that are no edge, each once.

    Args:
        edges: All edges of the graph, whatever split they are in: a "negative" must not be a true edge.
        n_nodes: Number of nodes.
        count: How many.
        random: Source of randomness.
        avoid: Keys (`edge_keys`) of further pairs that must not be drawn.

    Raises:
        DataError: If the graph has too few pairs without an edge.
    """
    taken = edge_keys(edges, n_nodes)
    taken = taken if avoid is None else torch.cat([taken, avoid])
    free = n_nodes * (n_nodes - 1) // 2 - len(taken.unique())
    if count > free // 2:
        raise DataError(f"{count} pairs without an edge are needed, but the graph has only {free}; use a sparser graph")
    found = torch.empty(0, dtype=torch.long)
    while len(found) < count:
        pairs = torch.randint(n_nodes, (2, 2 * (count - len(found)) + 8), generator=random)
        keys = edge_keys(pairs[:, pairs[0] != pairs[1]], n_nodes)
        fresh = torch.cat([found, keys[~torch.isin(keys, taken)]])
        values, where = fresh.unique(return_inverse=True)
        first = torch.full_like(values, len(fresh)).scatter_reduce(0, where, torch.arange(len(fresh)), "amin")
        found = fresh[first.sort().values]
    found = found[:count]
    return torch.stack([found // n_nodes, found % n_nodes])
