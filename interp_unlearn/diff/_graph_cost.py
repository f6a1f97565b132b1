"""What an edited graph network costs to run, and how far its weights are from the retrained ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._catalogue import Kind
from interp_unlearn.probes._catalogue import evidence as catalogued
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import GraphTask, labelled_task

KINDS: Mapping[str, Kind] = {
    "cost.flops": Kind(
        "How many floating-point operations do the matrix products of one pass over the graph take?",
        "near control",
        "the original",
        "Sums over neighbours, which PyTorch's counter does not see, and memory traffic.",
    ),
    "cost.verification": Kind(
        "How far are the weights from gold's (verification error: sum of L2 distances)?",
        "low",
        "the original's distance from gold",
        "Little: networks that compute the same can have very different weights, and gold's distance from another "
        "retrained one is not 0 either.",
    ),
}


@torch.no_grad()
def count_flops(model: HookedModel, task: GraphTask) -> int:
    """Operations of the matrix products of one pass, as if features were dense."""
    x, edges = task.inputs(model)
    with FlopCounterMode(display=False) as counter:
        model.module(x.to_dense(), edges)
    return counter.get_total_flops()


def _measure(model: HookedModel, task: GraphTask) -> dict[str, Tensor]:
    weights = {name: p.detach().cpu() for name, p in model.module.named_parameters()}
    return {"flops": torch.tensor(float(count_flops(model, task)), dtype=torch.float64), **weights}


def graph_cost(phases: Phases, progress: Progress) -> Found:
    """Operations of a pass, and the distance of the weights from gold's where there is gold."""
    task = labelled_task(phases.any_task, GraphTask, "the cost of a graph network")
    found = {}
    for i, phase in enumerate(phases.names):
        progress(f"cost of {phase}", i, len(phases.names))
        found[phase] = phases.once(phase, "graph_cost", lambda m: _measure(m, task))
    flops = {phase: float(of_phase["flops"]) for phase, of_phase in found.items()}
    shared = {"n": 1, "mask_policy": "-", "catalogue": KINDS, "seed": phases.seed}
    evidence = [catalogued("cost.flops", "pass", flops["after"], control=flops["before"], config=flops, **shared)]
    if "gold" in found:
        away = {phase: _distance(of_phase, found["gold"]) for phase, of_phase in found.items()}
        evidence.append(
            catalogued("cost.verification", "weights", away["after"], control=away["before"], config=away, **shared)
        )
    return Found(tuple(evidence))


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return float(sum((one[name] - other[name]).norm() for name in other if name != "flops"))


register_part(
    Part(
        "graph_cost",
        "operations of one pass, and distance of the weights from gold's",
        "probe",
        "quick",
        graph_cost,
        modalities=("graph",),
    )
)
