"""Graph files: ``.npz`` without pickles, and the raw Planetoid files, read by an unpickler that builds arrays only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.benchmarks._npz import read_arrays
from interp_unlearn.worlds.graphs import Graph, make_graph

NEEDED = ("edge_index", "labels")
SPARSE = ("feat_data", "feat_indices", "feat_indptr", "feat_shape")


def read_npz(path: Path, name: str, classes: tuple[str, ...] = (), source: str = "") -> Graph:
    """A graph from an ``.npz`` with ``edge_index`` (2, E), ``labels`` (N,) and features.

    Features are either ``features`` (N, F) or a CSR matrix in ``feat_data``, ``feat_indices``, ``feat_indptr`` and
    ``feat_shape``; ``train_idx``, ``val_idx`` and ``test_idx`` are the published split, if there is one.

    Raises:
        FileFormatError: If it is no ``.npz``, or holds pickled objects.
        DataError: If the file or an array is missing, or an array has the wrong length.
    """
    arrays = read_arrays(path)
    missing = [key for key in NEEDED if key not in arrays]
    if missing or ("features" not in arrays and any(key not in arrays for key in SPARSE)):
        lacking = missing[0] if missing else f"features (or {', '.join(SPARSE)})"
        raise DataError(f"{path} lacks {lacking}; it needs edge_index (2, E), labels (N,) and features (N, F)")
    edges = arrays["edge_index"]
    if edges.ndim != 2 or edges.shape[0] != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise DataError(f"{path}: edge_index is {edges.dtype} of shape {edges.shape}; give integers of shape (2, E)")
    features = _dense(arrays) if "features" not in arrays else arrays["features"]
    if features.ndim != 2 or not np.issubdtype(arrays["labels"].dtype, np.integer):
        raise DataError(f"{path}: features must be (N, F) and labels integers (N,)")
    split = {
        part: torch.from_numpy(arrays[f"{part}_idx"]).long()
        for part in ("train", "val", "test")
        if f"{part}_idx" in arrays
    }
    return make_graph(
        name,
        torch.from_numpy(np.ascontiguousarray(features)).float(),
        torch.from_numpy(edges.astype(np.int64)),
        torch.from_numpy(arrays["labels"].astype(np.int64)),
        classes,
        split,
        [source or f"read from {path.name}"],
    )


def _dense(arrays: dict[str, np.ndarray]) -> np.ndarray:
    rows, columns = (int(v) for v in arrays["feat_shape"])
    pointer, indices, data = arrays["feat_indptr"], arrays["feat_indices"], arrays["feat_data"]
    if len(pointer) != rows + 1 or len(indices) != len(data) or int(pointer[-1]) != len(data):
        raise DataError(
            f"the sparse features do not fit together: {rows} rows, {len(pointer)} row pointers, {len(indices)} column "
            f"indices and {len(data)} values"
        )
    out = np.zeros((rows, columns), dtype=np.float32)
    out[np.repeat(np.arange(rows), np.diff(pointer)), indices] = data
    return out


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays, SciPy CSR matrices and dictionaries of lists; every other class is refused."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("scipy.sparse.csr", "csr_matrix"),
        ("scipy.sparse._csr", "csr_matrix"),
        ("collections", "defaultdict"),
        ("__builtin__", "list"),
        ("__builtin__", "bytes"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise FileFormatError(f"it asks for {module}.{name}, which no Planetoid file needs: it is refused")
        module = {"scipy.sparse.csr": "scipy.sparse._csr", "__builtin__": "builtins"}.get(module, module)
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_planetoid(folder: Path, name: str, classes: tuple[str, ...] = ()) -> Graph:
    """A graph from the raw files ``ind.<name>.*`` of Planetoid.

    These are Python pickles. They are read by an unpickler that can make arrays, sparse matrices and dictionaries of
    lists and nothing else, so that no code of the file runs.

    Raises:
        FileFormatError: If a file is missing, damaged, or asks for anything else.
    """
    parts = {part: _unpickled(folder / f"ind.{name}.{part}") for part in ("allx", "tx", "ally", "ty", "y", "graph")}
    listed = folder / f"ind.{name}.test.index"
    if not listed.is_file():
        raise FileFormatError(f"{listed} is missing; a Planetoid folder holds ind.{name}.x, .allx, .graph and so on")
    order = np.loadtxt(listed, dtype=np.int64)
    known, total = parts["allx"].shape[0], max(int(order.max()) + 1, len(parts["graph"]))
    features = np.zeros((total, parts["allx"].shape[1]), dtype=np.float32)
    labels = np.full(total, -1, dtype=np.int64)
    features[:known], features[order] = parts["allx"].toarray(), parts["tx"].toarray()
    for rows, onehot in ((np.arange(known), parts["ally"]), (order, parts["ty"])):
        labels[rows] = np.where(onehot.sum(1) > 0, onehot.argmax(1), -1)
    pairs = [(node, other) for node, others in parts["graph"].items() for other in others]
    n_train = len(parts["y"])
    split: dict[str, Tensor] = {
        "train": torch.arange(n_train),
        "val": torch.arange(n_train, min(n_train + 500, known)),
        "test": torch.from_numpy(np.sort(order)),
    }
    edges = torch.tensor(pairs, dtype=torch.long).T
    return make_graph(
        name,
        torch.from_numpy(features),
        edges,
        torch.from_numpy(labels),
        classes,
        split,
        [f"Planetoid files in {folder.name}"],
    )


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise FileFormatError(f"{path} is missing; a Planetoid folder holds all of x, y, tx, ty, allx, ally and graph")
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except FileFormatError as error:
        raise FileFormatError(f"{path} is not a Planetoid file: {error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise FileFormatError(f"{path} is not a whole Planetoid file ({error}); copy it again") from error
