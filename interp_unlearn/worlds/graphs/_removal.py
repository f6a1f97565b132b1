"""`DropEdges`: messages no longer pass over deleted edges, whoever asks the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked import INTERVENTIONS, HookedModel, Intervention
from interp_unlearn.worlds.graphs._graph import is_among


class DropEdges(Intervention):
    """Takes edges out of what a graph model receives, in both directions.

    A model that still passed messages over a deleted edge would not have lost it. Of a call's arguments the integer
    tensor of shape (2, E) is taken to be the edges, as torch-geometric has it.

    Attributes:
        edges: Deleted edges, (2, D), any direction.
        n_nodes: Number of nodes.
    """

    kind: ClassVar[str] = "drop_edges"

    def __init__(self, edges: Int[Tensor, "2 d"], n_nodes: int) -> None:
        self.edges, self.n_nodes = edges, n_nodes
        self._last: tuple[Tensor, Tensor] | None = None

    def kept(self, edge_index: Int[Tensor, "2 e"]) -> Int[Tensor, "2 k"]:
        """The edges that remain; the same tensor gives the same answer without looking again."""
        if self._last is None or self._last[0] is not edge_index:
            dropped = is_among(edge_index, self.edges.to(edge_index.device), self.n_nodes)
            self._last = edge_index, edge_index[:, ~dropped]
        return self._last[1]

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """Drop the edges from every call inside the block.

        Raises:
            ModelError: If a layer keeps the edges of its first call, and so would not notice.
        """
        for name, module in model.module.named_modules():
            if getattr(module, "cached", False) is True:
                raise ModelError(
                    f"{name or model.name} of {model.name} keeps the edges of its first call (cached=True), so nothing "
                    "can be deleted from them; build it with cached=False and load the same weights"
                )

        def drop(value: Any) -> Any:
            return self.kept(value) if _is_edges(value) else value

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return tuple(drop(a) for a in args), {k: drop(v) for k, v in kwargs.items()}

        handle = model.module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield model
        finally:
            handle.remove()

    def facts(self) -> dict[str, Any]:
        """The number of nodes."""
        return {"n_nodes": self.n_nodes}

    def tensors(self) -> dict[str, Tensor]:
        """The deleted edges."""
        return {"edges": self.edges}

    @classmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DropEdges:
        """As saved."""
        return cls(tensors["edges"], int(facts["n_nodes"]))


def _is_edges(value: Any) -> bool:
    whole = isinstance(value, Tensor) and value.dtype == torch.long
    return whole and value.dim() == 2 and value.shape[0] == 2


INTERVENTIONS.register(DropEdges.kind)(DropEdges)
