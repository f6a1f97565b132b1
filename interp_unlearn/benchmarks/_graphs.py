"""Graphs by name: citation networks from files or torch-geometric, a small club, and a generated graph."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp_unlearn._core import ConfigError, DataError, cache_dir, nearest, numpy_rng, optional_import
from interp_unlearn.benchmarks._graph_files import read_npz, read_planetoid
from interp_unlearn.worlds.graphs import Graph, Normalise, make_graph

GRAPHS = {
    "citations": "generated: 600 papers in 6 fields that cite within their field, with words of their field",
    "karate": "Zachary's karate club: 34 members, 78 friendships, built into torch-geometric",
    "cora": "Cora citations: 2,708 papers, 7 topics (Planetoid)",
    "citeseer": "CiteSeer citations: 3,327 papers, 6 topics (Planetoid)",
    "pubmed": "PubMed citations: 19,717 papers on diabetes, 3 topics (Planetoid)",
    "graph": "your own graph: world.options.path names an .npz",
}
CLASSES = {
    "cora": (
        "Theory",
        "Reinforcement_Learning",
        "Genetic_Algorithms",
        "Neural_Networks",
        "Probabilistic_Methods",
        "Case_Based",
        "Rule_Learning",
    ),
    "citeseer": ("Agents", "AI", "DB", "IR", "ML", "HCI"),
    "pubmed": ("Experimental", "Type 1", "Type 2"),
}
"""Names of the classes in the order of the files' class numbers, as commonly given for Planetoid's copies."""


def load_graph(
    name: str,
    *,
    data_dir: str | Path | None = None,
    path: str | Path | None = None,
    download: bool = False,
    seed: int = 0,
    normalise: Normalise = "auto",
) -> Graph:
    """A graph by name, or your own.

    Citation networks are looked for in the data folder: ``planetoid/<name>.npz`` or ``<name>.npz``, else the raw files
    ``ind.<name>.*``.

    Args:
        name: One of `GRAPHS`.
        data_dir: Data folder; default ``$INTERP_UNLEARN_DATA``.
        path: For ``"graph"``, the ``.npz`` (``data_dir`` does as well); for a citation network, a file or folder in
            place of the data folder.
        download: Let torch-geometric fetch a citation network that is not at hand.
        seed: Of ``"citations"``.
        normalise: Whether a model is given rows of features divided by their sum, see `Graph`.

    Raises:
        ConfigError: If the name is unknown, or ``"graph"`` has no path.
        DataError: If the files are not at hand, or do not fit together.
        FileFormatError: If a file is damaged or pickled.
    """
    return replace(_load(name, data_dir, path, download, seed), normalise=normalise)


def _load(name: str, data_dir: str | Path | None, path: str | Path | None, download: bool, seed: int) -> Graph:
    if name not in GRAPHS:
        raise ConfigError(f"unknown graph {name!r}{nearest(name, GRAPHS)}; known: {', '.join(GRAPHS)}")
    if name == "citations":
        return citations(seed)
    if name == "karate":
        return _karate()
    path = path or (data_dir if name == "graph" else None)
    if name == "graph" and path is None:
        raise ConfigError('world.options.path is missing; name the file: [world.options] path = "graph.npz"')
    for place in _places(name, data_dir, path):
        if place.is_file():
            return read_npz(place, place.stem if name == "graph" else name, CLASSES.get(name, ()))
        if (place / f"ind.{name}.graph").is_file():
            return read_planetoid(place, name, CLASSES.get(name, ()))
    if path is not None:
        raise DataError(f"{path} is neither an .npz nor a folder with the files ind.{name}.*")
    if download:
        return _downloaded(name)
    raise DataError(
        f"{name} is not at hand: put {name}.npz, or Planetoid's files ind.{name}.*, into the folder planetoid of "
        "$INTERP_UNLEARN_DATA or of world.data_dir, or set world.options.download = true to fetch it"
    )


def _places(name: str, data_dir: str | Path | None, path: str | Path | None) -> list[Path]:
    if path is not None:
        given = Path(path).expanduser()
        return [given, given / f"{name}.npz"] if given.is_dir() else [given]
    named = data_dir or os.environ.get("INTERP_UNLEARN_DATA")
    if not named:
        return []
    root = Path(named).expanduser()
    return [root / "planetoid" / f"{name}.npz", root / f"{name}.npz", root / "planetoid", root]


def citations(seed: int = 0, *, nodes: int = 600, fields: int = 6, words: int = 240) -> Graph:
    """A generated citation graph: papers cite mostly within their field, and use words of their field.

    A stochastic block model with a heavy-tailed degree (some papers are cited more), 83 % of citations within a field,
    and bags of words of which half are the field's own. Always at hand, and always the same for a seed.

    Args:
        seed: Decides everything.
        nodes: Papers.
        fields: Classes.
        words: Features.
    """
    random = numpy_rng(seed, "citations", nodes, fields, words)
    labels = random.integers(fields, size=nodes)
    fame = random.pareto(2.5, nodes) + 0.3
    same = labels[:, None] == labels[None, :]
    weight = np.triu(fame[:, None] * fame[None, :] * np.where(same, 25.0, 1.0), 1).ravel()
    chosen = random.choice(nodes * nodes, size=3 * nodes, replace=False, p=weight / weight.sum())
    own = words // fields
    features = np.zeros((nodes, words), dtype=np.float32)
    for node, field in enumerate(labels):
        features[node, field * own + random.choice(own, 6, replace=False)] = 1
        features[node, random.choice(words, 6, replace=False)] = 1
    edges = torch.from_numpy(np.stack([chosen // nodes, chosen % nodes]))
    names = tuple(f"field {chr(ord('A') + i)}" for i in range(fields))
    return make_graph(
        "citations",
        torch.from_numpy(features),
        edges,
        torch.from_numpy(labels),
        names,
        sources=[f"generated with seed {seed}"],
    )


def _karate() -> Graph:
    data: Any = optional_import("torch_geometric.datasets", "graph", "the karate club").KarateClub()[0]
    source = "Zachary, An Information Flow Model for Conflict and Fission in Small Groups, 1977"
    return make_graph("karate", data.x, data.edge_index, data.y, sources=[source])


def _downloaded(name: str) -> Graph:
    """Planetoid's files, fetched by torch-geometric into this package's cache and read as any others are."""
    root = cache_dir() / "planetoid"
    folder = root / {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}[name] / "raw"
    if not (folder / f"ind.{name}.graph").is_file():
        datasets: Any = optional_import("torch_geometric.datasets", "graph", f"fetching {name}")
        try:
            datasets.Planetoid(str(root), folder.parent.name)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"torch-geometric could not fetch {name} ({error}); check the network, or give the files"
            ) from error
    return read_planetoid(folder, name, CLASSES.get(name, ()))
