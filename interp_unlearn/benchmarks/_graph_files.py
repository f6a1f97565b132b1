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
PARTS = ("train", "val", "test")
SPARSE = ("feat_data", "feat_indices", "feat_indptr", "feat_shape")


def read_npz(path: Path, name: str, classes: tuple[str, ...] = (), source: str = "") -> Graph:
    """A graph from an ``.npz`` with ``edge_index`` (2, E), ``labels`` (N,) and features.

    Features are either ``features`` (N, F) or a CSR matrix in ``feat_data``, ``feat_indices``, ``feat_indptr`` and
    ``feat_shape``; ``train_idx``, ``val_idx`` and ``test_idx`` are the published split, if there is one: node ids, or
    masks (N,). ``train_edges``, ``val_edges`` and ``test_edges`` (2, K) are one of the edges, and ``deleted_edges``
    those that another tool deleted.

    Raises:
        FileFormatError: If it is no ``.npz``, or holds pickled objects.
        DataError: If the file or an array is missing, or an array has the wrong length or type.
    """
    arrays = read_arrays(path)
    missing = [key for key in NEEDED if key not in arrays]
    if missing or ("features" not in arrays and any(key not in arrays for key in SPARSE)):
        lacking = missing[0] if missing else f"features (or {', '.join(SPARSE)})"
        raise DataError(f"{path} lacks {lacking}; it needs edge_index (2, E), labels (N,) and features (N, F)")
    edges = arrays["edge_index"]
    if edges.ndim != 2 or edges.shape[0] != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise DataError(f"{path}: edge_index is {edges.dtype} of shape {edges.shape}; give integers of shape (2, E)")
    features = _dense(path, arrays) if "features" not in arrays else arrays["features"]
    if features.ndim != 2 or not _real(features):
        raise DataError(f"{path}: features are {features.dtype} of shape {features.shape}; give real numbers (N, F)")
    labels = arrays["labels"]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; give the number of each node's class, (N,), "
            "of one-hot rows labels.argmax(1)"
        )
    split = {part: _ids(path, part, arrays, len(labels)) for part in PARTS if f"{part}_idx" in arrays}
    listed = {part: arrays[f"{part}_edges"] for part in (*PARTS, "deleted") if f"{part}_edges" in arrays}
    for part, pairs in listed.items():
        if pairs.ndim != 2 or pairs.shape[0] != 2 or not np.issubdtype(pairs.dtype, np.integer):
            raise DataError(
                f"{path}: {part}_edges is {pairs.dtype} of shape {pairs.shape}; give integers of shape (2, K)"
            )
    return make_graph(
        name,
        torch.from_numpy(np.ascontiguousarray(features)).float(),
        torch.from_numpy(edges.astype(np.int64)),
        torch.from_numpy(labels.astype(np.int64)),
        classes,
        split,
        [source or f"read from {path.name}"],
        {part: torch.from_numpy(pairs.astype(np.int64)) for part, pairs in listed.items()},
    )


def _real(array: np.ndarray) -> bool:
    return bool(
        np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    )


def _ids(path: Path, part: str, arrays: dict[str, np.ndarray], n: int) -> Tensor:
    """Node ids of a part of the published split, also from a mask."""
    given = arrays[f"{part}_idx"]
    if given.dtype == bool and given.shape == (n,):
        given = given.nonzero()[0]
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise DataError(
            f"{path}: {part}_idx is {given.dtype} of shape {given.shape}; give node ids (K,), or a mask of shape ({n},)"
        )
    return torch.from_numpy(given.astype(np.int64))


def _dense(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    pointer, indices, data, shape = (arrays[f"feat_{key}"] for key in ("indptr", "indices", "data", "shape"))
    if shape.shape != (2,) or any(not np.issubdtype(a.dtype, np.integer) for a in (shape, pointer, indices)):
        raise DataError(f"{path}: feat_shape must be two whole numbers, feat_indptr and feat_indices whole numbers")
    if any(a.ndim != 1 for a in (pointer, indices, data)) or not _real(data):
        raise DataError(f"{path}: feat_data must be real numbers, and feat_data, feat_indices and feat_indptr lists")
    rows, columns = (int(v) for v in shape)
    if len(pointer) != rows + 1 or len(indices) != len(data) or int(pointer[-1]) != len(data):
        raise DataError(
            f"the sparse features do not fit together: {rows} rows, {len(pointer)} row pointers, {len(indices)} column "
            f"indices and {len(data)} values"
        )
    if int(pointer[0]) != 0 or bool((np.diff(pointer) < 0).any()):
        raise DataError(f"{path}: feat_indptr must begin with 0 and never fall; save the CSR matrix again")
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < columns:
        raise DataError(f"{path}: feat_indices has a column outside 0…{columns - 1}; save the CSR matrix again")
    out = np.zeros((rows, columns), dtype=np.float32)
    out[np.repeat(np.arange(rows), np.diff(pointer)), indices] = data
    return out


DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError),
    *(IndexError, KeyError, OverflowError, MemoryError, RuntimeError, SystemError),
)
"""What an unpickler raises of a file that is none, or is cut."""


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
    try:
        order = np.array([int(word) for word in listed.read_text(encoding="utf-8").split()], dtype=np.int64)
        return _planetoid(folder, name, classes, parts, order)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{folder}: the files ind.{name}.* do not fit together ({error}); copy all of them again"
        ) from error


def _planetoid(folder: Path, name: str, classes: tuple[str, ...], parts: dict[str, Any], order: np.ndarray) -> Graph:
    """The graph of parts that may still be of any kind and size."""
    if not len(order) or not len(parts["graph"]):
        raise DataError(f"{folder}: ind.{name}.{'graph' if len(order) else 'test.index'} is empty; copy it again")
    if parts["ty"].shape[1] != parts["ally"].shape[1]:
        raise ValueError("ty and ally have different numbers of classes")
    if int(order.min()) < 0:
        raise ValueError("test.index has a negative node")
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
    edges = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
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
    except DAMAGED as error:
        raise FileFormatError(f"{path} is not a whole Planetoid file ({error}); copy it again") from error
