"""Graph files: plain arrays are read, pickled objects are refused, Planetoid's pickles build arrays only."""

import pickle
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse
import torch

from interp_unlearn._core import ConfigError, DataError, FileFormatError
from interp_unlearn.benchmarks import citations, load_graph, read_npz, read_planetoid


def arrays(n: int = 6) -> dict[str, np.ndarray]:
    edges = np.stack([np.arange(n - 1), np.arange(1, n)])
    return {"edge_index": edges, "labels": np.arange(n) % 2, "features": np.eye(n, dtype=np.float32)}


def test_a_file_of_ones_own(tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays())
    graph = load_graph("graph", path=tmp_path / "mine.npz")
    assert (graph.name, graph.n_nodes, graph.edges.shape[1], graph.classes) == ("mine", 6, 5, ("class 0", "class 1"))


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", **{**arrays(), "labels": np.array([{}] * 6, dtype=object)})
    with pytest.raises(FileFormatError, match="pickled objects"):
        read_npz(tmp_path / "bad.npz", "bad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.zeros(5, dtype=int)}, "5 labels"),
        ({"edge_index": np.zeros((3, 2), dtype=int)}, "shape"),
        ({"edge_index": np.array([[0], [9]])}, "edge to node 9"),
        ({"labels": None}, "lacks labels"),
        ({"features": None}, "lacks features"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, words):
    np.savez(tmp_path / "g.npz", **{k: v for k, v in {**arrays(), **change}.items() if v is not None})
    with pytest.raises(DataError, match=words):
        read_npz(tmp_path / "g.npz", "g")


def test_a_cut_file_is_named(tmp_path):
    np.savez(tmp_path / "g.npz", **arrays())
    whole = (tmp_path / "g.npz").read_bytes()
    (tmp_path / "g.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"is not a whole \.npz file"):
        read_npz(tmp_path / "g.npz", "g")
    with pytest.raises(DataError, match="does not exist; give the path"):
        read_npz(tmp_path / "other.npz", "g")


def planetoid(folder, **extra):
    """Three training nodes, two more known ones, and two test nodes 6 and 5 of which 7 is missing from the index."""
    x = np.eye(7, 4, dtype=np.float32)
    onehot = np.eye(2, dtype=np.int32)[np.arange(7) % 2]
    graph = defaultdict(list, {0: [1, 1, 0], 1: [0, 5], 5: [1, 6], 6: [5]})
    parts = {
        "x": scipy.sparse.csr_matrix(x[:3]),
        "y": onehot[:3],
        "allx": scipy.sparse.csr_matrix(x[:5]),
        "ally": onehot[:5],
        "tx": scipy.sparse.csr_matrix(x[[6, 5]]),
        "ty": onehot[[6, 5]],
        "graph": graph,
        **extra,
    }
    for name, value in parts.items():
        (folder / f"ind.cora.{name}").write_bytes(pickle.dumps(value, protocol=2))
    (folder / "ind.cora.test.index").write_text("6\n5\n")


def test_raw_planetoid_files(tmp_path):
    planetoid(tmp_path)
    graph = load_graph("cora", path=tmp_path)
    assert graph.edges.T.tolist() == [[0, 1], [1, 5], [5, 6]]
    assert graph.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert torch.equal(graph.features, torch.eye(7, 4))
    assert graph.public_split["test"].tolist() == [5, 6]


def test_a_planetoid_file_that_asks_for_anything_else_is_refused(tmp_path):
    planetoid(tmp_path, graph=pytest.raises)
    with pytest.raises(FileFormatError, match="it is refused"):
        read_planetoid(tmp_path, "cora")


def test_names_and_missing_files(tmp_path, monkeypatch):
    monkeypatch.delenv("INTERP_UNLEARN_DATA", raising=False)
    with pytest.raises(ConfigError, match="nearest: cora"):
        load_graph("corra")
    with pytest.raises(DataError, match="not at hand"):
        load_graph("cora")
    with pytest.raises(DataError, match="not at hand"):
        load_graph("cora", data_dir=tmp_path)
    with pytest.raises(ConfigError, match="path is missing"):
        load_graph("graph")


def test_the_generated_graph_is_the_same_for_a_seed_and_cites_within_fields():
    one, again, other = citations(0), citations(0), citations(1)
    assert one.checksum() == again.checksum() != other.checksum()
    same = (one.labels[one.edges[0]] == one.labels[one.edges[1]]).float().mean()
    assert 0.75 < float(same) < 0.9


def test_the_karate_club():
    graph = load_graph("karate")
    assert (graph.n_nodes, graph.edges.shape[1]) == (34, 78)


@pytest.mark.parametrize(("name", "nodes", "edges"), [("cora", 2708, 5278), ("citeseer", 3327, 4552)])
def test_published_sizes(need_data, name, nodes, edges):
    graph = load_graph(name, data_dir=need_data("planetoid", f"{name}.npz").parents[1])
    assert (graph.n_nodes, graph.edges.shape[1]) == (nodes, edges)
