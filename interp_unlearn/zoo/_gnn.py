"""Two-layer graph networks made of torch-geometric's layers: GCN, GAT, GIN, GraphSAGE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, nearest, optional_import

Architecture = Literal["gcn", "gat", "gin", "sage"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)


@dataclass(frozen=True)
class GNNShape:
    """Sizes of a graph network, as GNNDelete's benchmark has them.

    Attributes:
        architecture: Kind of both message-passing layers.
        d_in: Features of a node.
        d_out: Width of the output: 64 for links, the number of classes for nodes.
        d_hidden: Width between the layers.
    """

    architecture: Architecture
    d_in: int
    d_out: int = 64
    d_hidden: int = 128

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"unknown graph network {self.architecture!r}{nearest(str(self.architecture), ARCHITECTURES)}; known: "
                f"{', '.join(ARCHITECTURES)}"
            )
        for name in ("d_in", "d_out", "d_hidden"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use a whole number of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class GNN(nn.Module):
    """``conv1``, ReLU, ``conv2``; no dropout, so that a pass is the same in training and evaluation.

    GIN and GraphSAGE sum or average before they project. A projection without bias commutes with both, so ``project``
    goes first, where the features are still sparse; the functions that the network can be are the same.

    Attributes:
        shape: Sizes.
        takes_sparse: Features may be a sparse CSR tensor.
    """

    takes_sparse = True

    def __init__(self, shape: GNNShape) -> None:
        super().__init__()
        layers = optional_import("torch_geometric.nn", "graph", "a graph network")
        self.shape = shape
        hidden, first = shape.d_hidden, shape.d_in
        self.project: nn.Module = nn.Identity()
        if shape.architecture in ("gin", "sage"):
            self.project, first = nn.Linear(shape.d_in, hidden, bias=False), hidden
        make = {
            "gcn": layers.GCNConv,
            "gat": layers.GATConv,
            "gin": lambda d_in, d_out: layers.GINConv(nn.Linear(d_in, d_out)),
            "sage": layers.SAGEConv,
        }[shape.architecture]
        self.conv1 = make(first, hidden)
        self.conv2 = make(hidden, shape.d_out)

    def forward(self, x: Float[Tensor, "n f"], edge_index: Int[Tensor, "2 e"]) -> Float[Tensor, "n d"]:
        """Embeddings, or class logits, of every node."""
        return self.conv2(torch.relu(self.conv1(self.project(x), edge_index)), edge_index)


def seeded_gnn(shape: GNNShape, seed: int) -> GNN:
    """A network whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GNN(shape)
