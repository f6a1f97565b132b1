"""Graph networks trained here, once each, and cached; the gold model is trained alike on what was not deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from interp_unlearn._core import (
    ConfigError,
    FileFormatError,
    ModelError,
    adamw,
    cache_dir,
    config_hash,
    generator,
    locked,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import EdgeTask, GraphTask, without_deleted
from interp_unlearn.worlds.graphs import draw_non_edges, edge_keys
from interp_unlearn.zoo._gnn import ARCHITECTURES, GNN, GNNShape, seeded_gnn
from interp_unlearn.zoo._manifest import is_valid, new_folder, write_manifest

GRAPHS = "graphs"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 2
"""Of the cache; 2: non-edges that are held out for validation or testing are never trained on."""
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class GNNTraining:
    """How a graph network is trained; the original and gold are trained alike.

    Attributes:
        epochs: Full-graph steps.
        lr: Learning rate of Adam.
        d_hidden: Width between the layers.
        d_out: Width of embeddings for links.
    """

    epochs: int = 250
    lr: float = 1e-2
    d_hidden: int = 128
    d_out: int = 64

    def __post_init__(self) -> None:
        for name in ("epochs", "d_hidden", "d_out"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ConfigError(f"world.options.{name} is {getattr(self, name)!r}; use a whole number of at least 1")
        if not isinstance(self.lr, (int, float)) or not self.lr > 0:
            raise ConfigError(f"world.options.lr is {self.lr!r}; use a positive number such as 0.01")


def graph_model(
    name: str,
    task: GraphTask,
    training: GNNTraining | None = None,
    *,
    gold: bool = False,
    progress: Progress | None = None,
) -> HookedModel:
    """A graph network trained on a task's graph; with ``gold`` on what remains after the deletion.

    Trained once and cached by a hash of the data and the settings.

    Args:
        name: An architecture (``gcn``, ``gat``, ``gin``, ``sage``).
        task: The task.
        training: How.
        gold: Neither learn nor pass messages over what is deleted.
        progress: Told what is going on.

    Raises:
        ConfigError: If there is no such architecture.
    """
    training = training or GNNTraining()
    if name not in ARCHITECTURES:
        raise ConfigError(f"model.name = {name!r}: give one of {', '.join(ARCHITECTURES)}, or a folder with {CONFIG}")
    d_in = task.graph.features.shape[1]
    shape = GNNShape(next(a for a in ARCHITECTURES if a == name), d_in, task.d_out or training.d_out, training.d_hidden)
    data = dict(task.settings() if gold else task.data_settings())
    key = {"shape": shape.to_dict(), "training": asdict(training), "data": data, "gold": gold, "format": FORMAT}
    folder = cache_dir() / GRAPHS / config_hash(key)
    if not is_valid(folder):
        with locked(folder.parent / ".locks" / folder.name):
            if not is_valid(folder):
                module = seeded_gnn(shape, task.seed)
                train_gnn(wrap(module, name=name), task, training, gold=gold, progress=progress)
                with new_folder(folder) as temporary:
                    save_gnn(module, temporary)
                    write_manifest(temporary, {"name": name, "key": key})
    model = open_gnn(folder)
    source = {"kind": "zoo", "model": name, "training": asdict(training), "data": task.data_settings()}
    if gold:
        source["without"] = task.deletion.text
    return wrap(model.module, name=f"{name} (gold)" if gold else name, source=source)


def train_gnn(
    model: HookedModel,
    task: GraphTask,
    training: GNNTraining,
    *,
    gold: bool = False,
    progress: Progress | None = None,
) -> None:
    """Full-graph training in place: links against non-edges drawn anew, never held-out ones; nodes by class."""
    with torch.enable_grad():
        _train(model, task, training, gold, progress or (lambda *_: None))


def _train(model: HookedModel, task: GraphTask, training: GNNTraining, gold: bool, progress: Progress) -> None:
    optimizer = adamw(list(model.module.parameters()), lr=training.lr, weight_decay=0.0)
    what = f"training {model.name}" + (" without what is deleted" if gold else "")
    losses = _losses(model, task, training.epochs, gold)
    if gold:
        with without_deleted(task, model):
            _fit(optimizer, losses, what, training.epochs, progress)
    else:
        _fit(optimizer, losses, what, training.epochs, progress)
    model.module.eval()


def _fit(
    optimizer: torch.optim.Optimizer, losses: Iterator[Tensor], what: str, epochs: int, progress: Progress
) -> None:
    for step, loss in enumerate(losses):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress(what, step + 1, epochs)


def _losses(model: HookedModel, task: GraphTask, epochs: int, gold: bool) -> Iterator[Tensor]:
    """One loss per step, made from the weights at that moment."""
    if isinstance(task, EdgeTask):
        edges = task.retained if gold else task.split.train
        random = generator(task.seed, "training negatives")
        held = edge_keys(torch.cat([task.split.val_negative, task.split.test_negative], 1), task.graph.n_nodes)
        labels = torch.cat([torch.ones(edges.shape[1]), torch.zeros(edges.shape[1])])
        for _ in range(epochs):
            negative = draw_non_edges(task.graph.edges, task.graph.n_nodes, edges.shape[1], random, held)
            logits = task.logits(model, torch.cat([edges, negative], 1).T)
            yield binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], labels)
        return
    nodes = task.retain_train.ids if gold else torch.cat([task.retain_train.ids, task.forget_train.ids])
    for _ in range(epochs):
        yield cross_entropy(task.logits(model, nodes), task.graph.labels[nodes])


def save_gnn(module: GNN, folder: Path) -> None:
    """Write weights and sizes, as `open_gnn` reads them."""
    write_tensors(folder / WEIGHTS, module.state_dict())
    write_json(folder / CONFIG, {"kind": "graph network", **module.shape.to_dict()})


def open_gnn(folder: str | Path, task: GraphTask | None = None) -> HookedModel:
    """A saved graph network.

    Args:
        folder: Written by `save_gnn`.
        task: Whose graph it must fit, where it is known.

    Raises:
        ModelError: If the folder holds none, the weights do not fit, or the network is for another graph.
        FileFormatError: If a file is damaged.
    """
    folder = Path(folder).expanduser()
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{folder} has no {CONFIG}, so it is not a graph network's folder; known names: {', '.join(ARCHITECTURES)}"
        )
    facts: Any = read_json(folder / CONFIG)
    if not isinstance(facts, dict) or facts.get("kind") != "graph network":
        raise ModelError(f"{folder / CONFIG} does not describe a graph network; give a folder written by save_gnn")
    try:
        shape = GNNShape(**{k: v for k, v in facts.items() if k != "kind"})
    except (TypeError, ConfigError) as error:
        raise FileFormatError(f"{folder / CONFIG} lacks sizes of the network ({error}); save it again") from error
    if task is not None and shape.d_in != task.graph.features.shape[1]:
        raise ModelError(
            f"{folder} reads {shape.d_in} features of a node, but {task.world} has {task.graph.features.shape[1]}; "
            "give a network of this graph"
        )
    module = seeded_gnn(shape, 0)
    tensors, own = read_tensors(folder / WEIGHTS), module.state_dict()
    wrong = [n for n in {*own, *tensors} if n not in own or n not in tensors or own[n].shape != tensors[n].shape]
    if wrong:
        raise ModelError(
            f"{folder / WEIGHTS} does not fit its {CONFIG}: {sorted(wrong)[0]} is missing, unknown or of another shape"
        )
    module.load_state_dict(tensors)
    module.eval()
    return wrap(module, name=folder.name, source={"kind": "path", "model": str(folder.resolve())})
