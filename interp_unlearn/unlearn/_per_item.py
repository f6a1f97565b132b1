"""Losses of single labelled items as functions of the trained weights: per-item gradients, sharpness, curvature.

The model is called through `torch.func.functional_call`, so weights are passed in and nothing is written to it; items
go in chunks through `torch.func.vmap`, so never are more than a chunk's gradients in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from interp_unlearn._core import generator
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import LabelledTask

Weights = Mapping[str, Tensor]
Loss = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]
"""Loss of one item: weights by name, the item's id, its label → a scalar."""
Diagonal = Literal["fisher", "hutchinson", "gauss_newton"]
TINY = 1e-12
CHUNK = 8


class _Asking(nn.Module):
    """A task that asks a model, as a module whose weights can be passed in."""

    def __init__(self, task: LabelledTask, model: HookedModel) -> None:
        super().__init__()
        self.inner = model.module
        self._ask = lambda ids: task.logits(model, ids)

    def forward(self, ids: Tensor) -> Tensor:
        return self._ask(ids)


def item_logits(task: LabelledTask, model: HookedModel) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """Logits of one item, (class,), in float64, as a function of weights (by the module's names) and the item's id."""
    asking = _Asking(task, model)

    def logits(weights: dict[str, Tensor], item: Tensor) -> Tensor:
        named = {f"inner.{name}": value for name, value in weights.items()}
        return functional_call(asking, named, (item[None],))[0].double()

    return logits


def item_loss(task: LabelledTask, model: HookedModel) -> Loss:
    """Cross-entropy of one item on its label, in nats, in float64."""
    logits = item_logits(task, model)
    return lambda weights, item, label: -logits(weights, item).log_softmax(0).gather(0, label[None])[0]


@dataclass(frozen=True)
class ItemSharpness:
    """What one normalised ascent step does to each item's own loss.

    Attributes:
        loss: At the weights as they are.
        norm: Of the loss's gradient, over all weights.
        rise: Loss after the step minus loss before.
    """

    loss: Float[Tensor, " n"]
    norm: Float[Tensor, " n"]
    rise: Float[Tensor, " n"]


def sharpness(
    loss: Loss, weights: Weights, ids: Int[Tensor, "n ..."], labels: Int[Tensor, " n"], radius: float
) -> ItemSharpness:
    """``L(θ + radius · g/‖g‖) − L(θ)`` of each item, with ``g`` its own gradient at θ.

    Args:
        loss: Of one item.
        weights: θ; they are not changed.
        ids: Items.
        labels: Their classes.
        radius: Length of the step in weight space.
    """
    start = {name: value.detach() for name, value in weights.items()}

    def one(item: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slope, value = grad_and_value(loss)(start, item, label)
        norm = torch.sqrt(sum((g.double().square().sum() for g in slope.values()), torch.zeros(())))
        step = {name: start[name] + (radius * g.double() / (norm + TINY)).to(g.dtype) for name, g in slope.items()}
        return value, norm, loss(step, item, label) - value

    found = vmap(one, chunk_size=CHUNK)(ids, labels)
    return ItemSharpness(*(part.detach().double() for part in found))


def curvature_diagonal(
    logits: Callable[[dict[str, Tensor], Tensor], Tensor],
    weights: Weights,
    ids: Int[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    how: Diagonal,
    *,
    probes: int = 10,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Diagonal of the Hessian of the mean cross-entropy over the items, by weight name.

    Args:
        logits: Of one item, as a function of weights.
        weights: Where.
        ids: Items.
        labels: Their classes.
        how: ``fisher``, mean of squared per-item gradients on the true label (never negative); ``gauss_newton``, the
            expectation of the same over the model's own label distribution, exactly; ``hutchinson``, ``v ⊙ Hv`` over
            random signs (unbiased for the Hessian, may be negative).
        probes: Sign vectors of ``hutchinson``.
        seed: Of the sign vectors.
    """
    start = {name: value.detach() for name, value in weights.items()}

    def loss(w: dict[str, Tensor], item: Tensor, label: Tensor) -> Tensor:
        return -logits(w, item).log_softmax(0).gather(0, label[None])[0]

    if how == "hutchinson":
        return _hutchinson(loss, start, ids, labels, probes, seed)

    def squares(item: Tensor, label: Tensor) -> dict[str, Tensor]:
        if how == "fisher":
            return {name: g.square() for name, g in grad(loss)(start, item, label).items()}
        probability = logits(start, item).softmax(0)
        each = vmap(lambda c: grad(loss)(start, item, c))(torch.arange(len(probability), device=item.device))
        return {name: torch.tensordot(probability.to(g.dtype), g.square(), 1) for name, g in each.items()}

    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for items, classes in zip(ids.split(CHUNK), labels.split(CHUNK), strict=True):
        for name, square in vmap(squares)(items, classes).items():
            total[name] += square.sum(0).detach()
    return {name: value / len(ids) for name, value in total.items()}


def _hutchinson(
    loss: Loss, start: dict[str, Tensor], ids: Tensor, labels: Tensor, probes: int, seed: int
) -> dict[str, Tensor]:
    random = generator(seed, "hutchinson")
    total = {name: torch.zeros_like(value) for name, value in start.items()}

    def mean_loss(w: dict[str, Tensor]) -> Tensor:
        return vmap(lambda i, c: loss(w, i, c), chunk_size=CHUNK)(ids, labels).mean()

    for _ in range(probes):
        signs = {n: (torch.randint(0, 2, v.shape, generator=random) * 2 - 1).to(v) for n, v in start.items()}
        product = grad(lambda w, v=signs: _inner(grad(mean_loss)(w), v))(start)
        for name, sign in signs.items():
            total[name] += (sign * product[name]).detach() / probes
    return total


def _inner(a: Weights, b: Weights) -> Tensor:
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()
