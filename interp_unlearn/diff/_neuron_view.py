"""Neurons for pictures: where the target's answers come from, and which neurons moved."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import Labelled
from interp_unlearn.diff._neuron_overlap import (
    SITE,
    NeuronReading,
    OverlapConfig,
    moved_neurons,
    neuron_norms,
    read_neurons,
    top_neurons,
)
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._parts import Progress
from interp_unlearn.probes._view import view_table

NEURONS, LAYERS = "view.neurons", "view.neuron_layers"
PER_LAYER = 16  # neurons kept of each layer: so many by attribution, and so many by change
MEASURES = ("attribution", "attribution_neighbours", "relative_change", "activation_change", "fact", "moved")
LAYER_MEASURES = ("attribution", "relative_change", "fact", "moved", "both")
NOTE = (
    "attribution: gradient × activation on the log-probability of the target's answers, in the original; "
    "relative_change: norm of the change of a neuron's weights over their norm; activation_change: mean absolute "
    "change on the target's questions; fact, moved: 1 if among those that hold the fact, that moved most"
)


def neuron_tables(
    read: NeuronReading, size: Float[np.ndarray, "layer neuron"], config: OverlapConfig | None = None
) -> dict[str, Labelled]:
    """The neurons worth a look, and sums by layer.

    Args:
        read: Attribution and change of every neuron.
        size: Norm of each neuron's weights in the original.
        config: Which neurons count as holding the fact, and as moved.
    """
    config = config or OverlapConfig()
    score = read.scores.mean(0)
    relative = np.divide(read.weights, size, out=np.zeros_like(size), where=size > 0)
    fact, moved = top_neurons(score, config.fact_share), moved_neurons(read.weights, config.moved_share)
    near = np.full_like(score, np.nan) if read.neighbours is None else read.neighbours
    columns = np.stack([score, near, relative, read.activations, fact, moved], -1)
    kept = [(layer, int(i)) for layer in range(len(score)) for i in _kept(score[layer], relative[layer])]
    facts = {**asdict(config), "prompts": [p.full for p in read.target], "neurons_in_all": int(score.size)}
    by_layer = np.stack(
        [score.clip(min=0).sum(1), relative.mean(1), fact.sum(1), moved.sum(1), (fact & moved).sum(1)], 1
    )
    return {
        NEURONS: view_table(
            "neurons: attribution and change",
            columns[tuple(np.array(kept).T)],
            {"neuron": [f"blocks.{layer}.{SITE}[{i}]" for layer, i in kept], "measure": MEASURES},
            n=len(read.target),
            mask_policy="content",
            config={**facts, "kept": len(kept), "per_layer": PER_LAYER},
            note=NOTE,
        ),
        LAYERS: view_table(
            "neurons by layer",
            by_layer,
            {"layer": range(len(score)), "measure": LAYER_MEASURES},
            n=len(read.target),
            mask_policy="content",
            config=facts,
            note="attribution: sum of positive values; relative_change: mean; fact, moved, both: numbers of neurons",
        ),
    }


def _kept(score: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Neurons of one layer with the largest attribution, then those that changed most, where any did."""
    by_score = np.argsort(-score, kind="stable")[:PER_LAYER]
    by_change = np.argsort(-change, kind="stable")[:PER_LAYER]
    return np.unique(np.concatenate([by_score, by_change[change[by_change] > 0]]))


def look(phases: Phases, progress: Progress) -> Found:
    """Neurons of the target's answers, and those that moved."""
    progress("attributing the target's answers to neurons", 0, 0)
    read = read_neurons(phases)
    with phases.open("before") as model:
        size = neuron_norms(model, dict(model.module.named_parameters()))
    return Found(tables=neuron_tables(read, size))


register_part(Part("neuron_map", "neurons of the answers and neurons that moved, for pictures", "view", "quick", look))
