"""GNNDelete: the network is frozen; after each layer a trained matrix moves the nodes around what is deleted.

For node v within l hops of an end of a deleted edge (the set S^l), after layer l::

    z'_v = z_v W_D^l               W_D^l square, every entry 1/1000 at the start
    DEC^l = MSE( [z'_u ; z'_v] of deleted edges, [z_a ; z_b] of as many non-edges )     a deleted pair looks random
    NI^l  = MSE( z'_w , z_w )      w in S^l, not an end of a deleted edge: neighbours stay where they were
    L^l   = lambda DEC^l + (1 - lambda) NI^l

z are the original's embeddings on the graph without what is deleted. Each W_D^l is trained on its own L^l alone, with
Adam. Of a deleted node all edges are deleted, and DEC asks that it looks like a random node that is not deleted.

The matrices stay in the model, so every later pass pays |S^1| d1^2 + |S^2| d2^2 multiply-adds more.

Source: Cheng et al., "GNNDelete", ICLR 2023, and its official code (node-embedding form).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp_unlearn._core import generator
from interp_unlearn.hooked import INTERVENTIONS, Edit, HookedModel, Intervention, edit
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import choices
from interp_unlearn.unlearn.objectives._graphs import graph_task_of, layers, squared_error
from interp_unlearn.worlds import AnyTask, GraphTask, without_deleted
from interp_unlearn.worlds.graphs import draw_non_edges, hop_distance

START = 1e-3
"""Every entry of W_D at the start."""


@dataclass(frozen=True)
class GNNDeleteOptions:
    """Options of GNNDelete.

    Attributes:
        weight: Lambda, the weight of Deleted Edge Consistency; the rest is that of Neighbourhood Influence.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.weight <= 1, f"options.weight is {self.weight}; use 0 to 1")


class DeletionOperators(Intervention):
    """A matrix after each layer, for chosen nodes.

    Attributes:
        matrices: W_D by site, (d, d).
        nodes: Whether each node is moved there, by site, (N,).
    """

    kind: ClassVar[str] = "deletion_operators"

    def __init__(self, matrices: Mapping[str, Float[Tensor, "d d"]], nodes: Mapping[str, Bool[Tensor, " n"]]) -> None:
        self.matrices, self.nodes = dict(matrices), dict(nodes)
        self._where = {site: found.nonzero()[:, 0] for site, found in self.nodes.items()}

    def at(self, site: str, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """``z W_D`` for the chosen nodes, ``z`` for all others."""
        where = self._where[site].to(z.device)
        return z.index_copy(0, where, z[where] @ self.matrices[site])

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """The matrices work in every pass inside the block."""
        with ExitStack() as stack:
            for site in self.matrices:
                change = Edit(site, lambda z, site=site: self.at(site, z), "deletion operator")
                stack.enter_context(edit(model, change))
            yield model

    def facts(self) -> dict[str, Any]:
        """The sites, in order."""
        return {"sites": list(self.matrices)}

    def tensors(self) -> dict[str, Tensor]:
        """Matrices, and which nodes they move."""
        matrices = {f"matrix/{site}": w for site, w in self.matrices.items()}
        return {**matrices, **{f"nodes/{site}": n for site, n in self.nodes.items()}}

    @classmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DeletionOperators:
        """As saved."""
        sites = facts["sites"]
        return cls({s: tensors[f"matrix/{s}"] for s in sites}, {s: tensors[f"nodes/{s}"] for s in sites})


INTERVENTIONS.register(DeletionOperators.kind)(DeletionOperators)


@OBJECTIVES.register("gnndelete")
class GNNDelete(Objective):
    """Trained deletion operators over a frozen network."""

    Options = GNNDeleteOptions
    modalities = ("graph",)
    options: GNNDeleteOptions

    def added(self, model: HookedModel, task: AnyTask) -> Mapping[str, nn.Parameter] | None:
        """One square matrix per message-passing layer."""
        if not isinstance(task, GraphTask):
            return {}  # prepare says why it cannot work
        ends = torch.cat([task.deleted_edges.flatten(), task.deleted_nodes]).unique()
        hops = hop_distance(task.messages, ends, task.graph.n_nodes)
        sites = task.sites(model)
        with torch.no_grad():
            z, _ = layers(model, task, sites)
        self.matrices = {s: nn.Parameter(torch.full((z[s].shape[1],) * 2, START, dtype=z[s].dtype)) for s in sites}
        nodes = {s: (hops >= 0) & (hops <= layer) for layer, s in enumerate(sites, 1)}
        self.operators = DeletionOperators(self.matrices, nodes)
        return self.matrices

    def prepare(self, ctx: Context) -> Pools:
        """Cache the original's embeddings on the graph without what is deleted; draw the random pairs."""
        task = graph_task_of(ctx)
        self.model, self.task, self.sites = ctx.model, task, task.sites(ctx.model)
        items = choices(task, task.forget_train)
        with without_deleted(task, ctx.model):
            self.z, _ = layers(ctx.model, task, self.sites)
        self.ids = task.forget_train.ids
        random = generator(ctx.seed, "random pairs")
        if task.kind == "edge":
            self.random = draw_non_edges(task.graph.edges, task.graph.n_nodes, len(items), random).T
        else:
            others = (task.hops() != 0).nonzero()[:, 0]
            self.random = others[torch.randint(len(others), (len(items),), generator=random)]
        ends = task.hops() == 0
        self.around = {site: (found & ~ends).nonzero()[:, 0] for site, found in self.operators.nodes.items()}
        return Pools(tuple(item.item for item in items))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """One part per layer, from one pass in which each layer's input carries no gradient to the layer below."""
        chosen = list(draw.forget)
        moved = self._moved()
        for number, site in enumerate(self.sites, 1):
            z, new = self.z[site], moved[site]
            pairs, random = self.ids[chosen].reshape(-1), self.random[chosen].reshape(-1)
            consistency = squared_error(z[random], new[pairs])
            around = self.around[site]
            influence = squared_error(z[around], new[around])
            weight = self.options.weight
            terms = {
                f"consistency_{number}": float(consistency.detach()),
                f"influence_{number}": float(influence.detach()),
            }
            yield Part("forget", weight * consistency + (1 - weight) * influence, terms)

    def _moved(self) -> dict[str, Tensor]:
        """Moved embeddings of every layer."""
        found: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for site in self.sites:

                def change(z: Tensor, site: str = site) -> Tensor:
                    found[site] = self.operators.at(site, z)
                    return found[site].detach()

                stack.enter_context(edit(self.model, Edit(site, change, "deletion operator")))
            self.task.output(self.model)
        return found

    def intervention(self) -> Intervention:
        """The operators as they are now."""
        matrices = {site: w.detach().clone() for site, w in self.matrices.items()}
        return DeletionOperators(matrices, self.operators.nodes)
