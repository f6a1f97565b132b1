"""What the graph methods share: layer outputs with graph, and divergences between scores of edges or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from interp_unlearn.hooked import HookedModel, tap
from interp_unlearn.unlearn._protocols import Context
from interp_unlearn.unlearn.objectives._answers import kl
from interp_unlearn.worlds import GraphTask, labelled_task


def graph_task_of(ctx: Context) -> GraphTask:
    """The task, if it is about a graph.

    Raises:
        ConfigError: If it is not.
    """
    return labelled_task(ctx.any_task, GraphTask, f"objective {ctx.recipe.objective!r}")


def layers(model: HookedModel, task: GraphTask, sites: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of the message-passing layers and of the model, from one pass, with graph where gradients are on."""
    with tap(model.sites, sites, stop=False) as taps:
        output = taps.run(lambda: task.output(model))
        return {site: taps[site] for site in sites}, output


@torch.no_grad()
def fill(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write values into parameters of the same names."""
    for name, parameter in own.items():
        parameter.copy_(values[name])


def kl_classes(teacher: Float[Tensor, "n c"], student: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean over rows of ``KL(softmax teacher || softmax student)``, from logits; 0 without rows.

    With two logits (0, s) this is the Bernoulli divergence of sigmoid(s): an edge is a choice between absent and
    present. Written with log-sigmoids there, so that nothing is clamped.
    """
    if not len(teacher):
        return student.sum() * 0.0
    if teacher.shape[1] == 2:
        t, s = teacher[:, 1] - teacher[:, 0], student[:, 1] - student[:, 0]
        p = t.sigmoid()
        return (p * (logsigmoid(t) - logsigmoid(s)) + (1 - p) * (logsigmoid(-t) - logsigmoid(-s))).mean()
    return kl(teacher.log_softmax(-1), student.log_softmax(-1))


def squared_error(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared difference; 0 without rows."""
    return (one - other).square().mean() if len(one) else other.sum() * 0.0


def complement(nodes: Int[Tensor, " k"], n: int) -> Int[Tensor, " j"]:
    """All other nodes."""
    others = torch.ones(n, dtype=torch.bool)
    others[nodes] = False
    return others.nonzero()[:, 0]
