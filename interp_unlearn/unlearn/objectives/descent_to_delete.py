"""Descent-to-Delete: go on training on what remains, then hide what the steps left by noise on the weights.

``L = CE(retain)`` on the graph without what is deleted, for a few full-batch steps from the original weights; after the
last step every weight gets Gaussian noise of standard deviation ``sigma``. For convex losses the authors prove that the
result cannot be told from a retrained model; a graph network is not convex, so here it is a baseline without a proof.

Source: Neel, Roth, Sharifi-Malvajerdi, "Descent-to-Delete", ALT 2021, arXiv 2007.02923.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from interp_unlearn._core import generator
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import choices, cross_entropy


@dataclass(frozen=True)
class DescentToDeleteOptions:
    """Options of Descent-to-Delete.

    Attributes:
        sigma: Standard deviation of the noise on every weight after the last step; 0 for none.
    """

    sigma: float = 1e-3

    def __post_init__(self) -> None:
        require(self.sigma >= 0, f"options.sigma is {self.sigma}; use 0 or a small positive number such as 0.001")


@OBJECTIVES.register("descent_to_delete")
class DescentToDelete(Objective):
    """Descent on the retain set, then noise."""

    Options = DescentToDeleteOptions
    modalities = ("graph", "image")
    options: DescentToDeleteOptions

    @property
    def uses_retain(self) -> bool:
        """Nothing else is used."""
        return True

    def prepare(self, ctx: Context) -> Pools:
        """The retain items are the pool; the forget items only say that there is something to delete."""
        self.model, self.seed = ctx.model, ctx.seed
        task = ctx.labelled()
        self.retain = choices(task, task.retain_train)
        forget = choices(task, task.forget_train)
        return Pools(tuple(c.item for c in forget), tuple(c.item for c in self.retain))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """One part: cross-entropy of the retain items."""
        loss = cross_entropy(self.model, [self.retain[i] for i in draw.retain])
        yield Part("retain", loss, {"retain_nll": float(loss.detach())})

    def finish(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Noise on every weight that was trained."""
        for name, parameter in trained.items():
            noise = torch.randn(parameter.shape, generator=generator(self.seed, "noise", name))
            parameter.add_(self.options.sigma * noise.to(parameter))
