"""The steps of a run on a graph network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.benchmarks import GRAPHS, load_graph
from interp_unlearn.hooked import HookedModel
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._flow import register_flow
from interp_unlearn.runs._labelled import LabelledFlow
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.worlds import GraphTask, graph_task, labelled_task
from interp_unlearn.zoo import ARCHITECTURES, GNNTraining, graph_model, open_gnn

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
DATA = ("path", "download", "public_split", "graph_seed")


class GraphFlow(LabelledFlow):
    """Graph networks: links or nodes are asked for, and gold is retrained on what remains."""

    modality = "graph"

    def open(self, config: RunConfig, progress: Progress) -> Workbench:
        """Load the graph, split it around the deletion, and train or open the network."""
        _check_options(config)
        progress("loading the graph", 0, 0)
        options = config.world.options
        graph = load_graph(
            config.world.name,
            data_dir=config.world.data_dir,
            path=options.get("path"),
            download=bool(options.get("download", False)),
            seed=int(options.get("graph_seed", 0)),
        )
        task = graph_task(
            graph,
            config.target.entities,
            relations=config.target.relations,
            seed=config.seed,
            public_split=bool(options.get("public_split", False)),
        )
        progress("opening the model", 0, 0)
        return Workbench(self._model(config, task, progress), task)

    def _model(self, config: RunConfig, task: GraphTask, progress: Progress) -> HookedModel:
        if config.model.name in ARCHITECTURES:
            return graph_model(config.model.name, task, _training(config), progress=progress)
        return open_gnn(config.model.name)

    def open_named(self, config: RunConfig, name: str, bench: Workbench | None, progress: Progress) -> HookedModel:
        """A folder written by `save_gnn`."""
        return open_gnn(Path(name))

    def defaults(self, objective: str, bench: Workbench) -> dict[str, Any]:
        """Whole sets in every step, as published; no clipping."""
        task = self.task(bench)
        whole = {"batch_size": max(1, len(task.forget_train)), "retain_batch_size": max(1, len(task.retain_train))}
        return {**whole, "clip": 0.0, **STEPS.get(objective, OTHERS)}

    def makes_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Where the original was trained here."""
        return config.model.name in ARCHITECTURES

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
    return GNNTraining(**{k: v for k, v in config.world.options.items() if k in TRAINING})


def _check_options(config: RunConfig) -> None:
    known = (*DATA, *TRAINING)
    wrong = next((o for o in config.world.options if o not in known), None)
    if wrong is not None:
        raise ConfigError(f"world.options.{wrong} is unknown{nearest(wrong, known)}; of a graph: {', '.join(known)}")


register_flow(GraphFlow(), tuple(GRAPHS))
