"""The steps of a run on a graph network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from interp_unlearn._core import ConfigError, NothingToForgetError, nearest
from interp_unlearn.benchmarks import GRAPHS, load_graph
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics import auc, graph_scores
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._flow import register_flow
from interp_unlearn.runs._labelled import LabelledFlow
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.unlearn import Recipe
from interp_unlearn.unlearn._fields import build
from interp_unlearn.worlds import EdgeTask, GraphTask, graph_task, labelled_task
from interp_unlearn.zoo import ARCHITECTURES, GNNTraining, graph_model, open_gnn
from interp_unlearn.zoo._changes import apply_delta

STEPS: Mapping[str, Mapping[str, Any]] = {
    "utu": {},
    "d2dgn": {"lr": 5e-3, "steps": 50},
    "gnndelete": {"lr": 1e-2, "steps": 100},
    "descent_to_delete": {"lr": 1e-3, "steps": 10},
    "ga": {"lr": 1e-3, "steps": 10},
}
"""Budgets of objectives on graphs, found on Cora; every other objective gets `OTHERS`."""
OTHERS: Mapping[str, Any] = {"lr": 1e-3, "steps": 20}
TRAINING = tuple(f.name for f in fields(GNNTraining))


@dataclass(frozen=True)
class GraphData:
    """Options of a graph world that say which data are meant.

    Attributes:
        path: Of an ``.npz``, or of a folder with a citation network's files.
        download: Let torch-geometric fetch what is not at hand.
        public_split: Use the published split, of nodes or edges.
        graph_seed: Of the generated graph.
        normalise: See `Graph`.
    """

    path: str | None = None
    download: bool = False
    public_split: bool = False
    graph_seed: int = 0
    normalise: Literal["auto", "rows", "none"] = "auto"


DATA = tuple(f.name for f in fields(GraphData))


class GraphFlow(LabelledFlow):
    """Graph networks: links or nodes are asked for, and gold is retrained on what remains."""

    modality = "graph"

    def open(self, config: RunConfig, progress: Progress) -> Workbench:
        """Load the graph, split it around the deletion, and train or open the network."""
        _check(config)
        progress("loading the graph", 0, 0)
        given = {k: v for k, v in config.world.options.items() if k in DATA}
        options = build(GraphData, given, "world.options")
        graph = load_graph(
            config.world.name,
            data_dir=config.world.data_dir,
            path=options.path,
            download=options.download,
            seed=options.graph_seed,
            normalise=options.normalise,
        )
        task = graph_task(
            graph,
            config.target.entities,
            relations=config.target.relations,
            seed=config.seed,
            public_split=options.public_split,
        )
        training = _training(config)
        progress("opening the model", 0, 0)
        model = self._model(config, task, training, progress)
        if config.model.delta is not None:
            apply_delta(model.module, config.model.delta)
            model.source["delta"] = config.model.delta
        if config.evidence.require_known:
            _check_known(model, task)
        return Workbench(model, task)

    def _model(self, config: RunConfig, task: GraphTask, training: GNNTraining, progress: Progress) -> HookedModel:
        if config.model.name in ARCHITECTURES:
            return graph_model(config.model.name, task, training, progress=progress)
        return open_gnn(config.model.name, task)

    def open_named(self, config: RunConfig, name: str, bench: Workbench | None, progress: Progress) -> HookedModel:
        """A folder written by `save_gnn`."""
        return open_gnn(
            Path(name), None if bench is None else labelled_task(bench.any_task, GraphTask, "opening a network")
        )

    def recipe(self, config: RunConfig, bench: Workbench, given: Mapping[str, Any]) -> Recipe:
        """The modality's defaults; plain SGD with the transform ``cupid``, whose step another optimiser would undo."""
        names = [t.get("name") if isinstance(t, Mapping) else t for t in given.get("transforms") or ()]
        return super().recipe(config, bench, {"optimizer": "sgd", **given} if "cupid" in names else given)

    def defaults(self, objective: str, bench: Workbench) -> dict[str, Any]:
        """Whole sets in every step, as published; no clipping."""
        task = self.task(bench)
        whole = {"batch_size": max(1, len(task.forget_train)), "retain_batch_size": max(1, len(task.retain_train))}
        return {**whole, "clip": 0.0, **STEPS.get(objective, OTHERS)}

    def makes_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Where the original was trained here."""
        return config.model.name in ARCHITECTURES and config.model.delta is None

    def retrain(self, config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
        """The same network, trained alike on what remains, passing messages over what remains.

        Raises:
            ConfigError: If the original was not trained here.
        """
        task = labelled_task(bench.any_task, GraphTask, "retraining")
        if not self.makes_gold(config, bench):
            raise ConfigError(f"{bench.model.name} cannot be retrained here; name a gold model (model.gold)")
        return graph_model(config.model.name, task, _training(config), gold=True, progress=progress)


def _training(config: RunConfig) -> GNNTraining:
    return build(GNNTraining, {k: v for k, v in config.world.options.items() if k in TRAINING}, "world.options")


@torch.no_grad()
def _check_known(model: HookedModel, task: GraphTask) -> None:
    """Refuse a network that knows the deletion no better than chance."""
    scores = graph_scores(model, task)
    if isinstance(task, EdgeTask):
        known, chance = auc(scores.sets["deleted"], scores.sets["absent"]), 0.5
        what = f"tells the edges to delete from test non-edges with an AUC of {known:.2f}"
    else:
        logits = task.logits(model, task.forget_train.ids)
        known, chance = float((logits.argmax(1) == task.forget_train.labels).double().mean()), 1 / len(task.classes)
        what = f"classifies {known:.0%} of the nodes to delete rightly"
    if not known > chance:
        raise NothingToForgetError(
            f"{model.name} {what}, no more than chance: there is nothing to forget; train it longer, use another "
            "network, or set evidence.require_known = false"
        )


def _check(config: RunConfig) -> None:
    if config.model.adapter is not None or config.latents.sae or config.latents.second:
        raise ConfigError("graph networks are opened without adapters and SAEs; leave these fields out")
    known = (*DATA, *TRAINING)
    wrong = next((o for o in config.world.options if o not in known), None)
    if wrong is not None:
        raise ConfigError(f"world.options.{wrong} is unknown{nearest(wrong, known)}; of a graph: {', '.join(known)}")


register_flow(GraphFlow(), tuple(GRAPHS))
