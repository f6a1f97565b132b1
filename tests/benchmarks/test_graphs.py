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


def csr(**change) -> dict[str, np.ndarray]:
    parts = {"data": np.ones(6), "indices": np.arange(6), "indptr": np.arange(7), "shape": [6, 6], **change}
    return {f"feat_{name}": np.array(value) for name, value in parts.items()}


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
        ({"labels": np.eye(6, dtype=int)}, r"labels\.argmax\(1\)"),
        ({"labels": np.zeros(6)}, "labels are float64"),
        ({"features": np.array([["a"]] * 6)}, "give real numbers"),
        ({"features": np.ones((6, 2), dtype=complex)}, "give real numbers"),
        ({"features": np.ones((6, 0))}, "6 nodes and 0 features"),
        ({"test_idx": np.array([9])}, "outside 0…5"),
        ({"test_idx": np.array([-1])}, "outside 0…5"),
        ({"test_idx": np.array([1, 1])}, "list every node once"),
        ({"train_idx": np.array([1]), "test_idx": np.array([1])}, "list every node once"),
        ({"test_idx": np.array([0.5])}, "give node ids"),
        ({"train_edges": np.zeros((3, 2), dtype=int)}, "train_edges is int64 of shape"),
        ({"deleted_edges": np.array([[0], [5]])}, "that are no edges"),
        ({"test_idx": np.array([True, False])}, "give node ids"),
        ({"features": None, **csr(indices=[0, 1, 2, 3, 4, 9])}, "column outside 0…5"),
        ({"features": None, **csr(shape=[6])}, "two whole numbers"),
        ({"features": None, **csr(indptr=[0, 2, 1, 3, 4, 5, 6])}, "never fall"),
        ({"features": None, **csr(data=["a"] * 6)}, "feat_data must be real numbers"),
        (
            {
                "edge_index": np.zeros((2, 0), dtype=int),
                "labels": np.zeros(0, dtype=int),
                "features": np.zeros((0, 3)),
            },
            "0 nodes",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, words):
    np.savez(tmp_path / "g.npz", **{k: v for k, v in {**arrays(), **change}.items() if v is not None})
    with pytest.raises(DataError, match=words):
        read_npz(tmp_path / "g.npz", "g")


def test_a_split_may_be_given_as_masks_and_features_as_csr(tmp_path):
    masks = {f"{part}_idx": np.arange(6) // 2 == i for i, part in enumerate(("train", "val", "test"))}
    np.savez(tmp_path / "g.npz", **{k: v for k, v in {**arrays(), **masks, **csr()}.items() if k != "features"})
    graph = read_npz(tmp_path / "g.npz", "g")
    assert graph.public_split["val"].tolist() == [2, 3]
    assert torch.equal(graph.features, torch.eye(6))


def test_what_is_no_npz_is_not_called_a_pickle(tmp_path):
    (tmp_path / "g.npz").write_text("<html>not found</html>")
    with pytest.raises(FileFormatError, match=r"is no \.npz file"):
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


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("test.index", b"6\n"),
        ("test.index", b"<html>"),
        ("test.index", b""),
        ("allx", pickle.dumps({1: 2})),
        ("graph", pickle.dumps(np.eye(3), protocol=2)),
        ("graph", pickle.dumps({}, protocol=2)),
        ("graph", b"<html>"),
        ("graph", pickle.dumps({0: [1]}, protocol=2)[:8]),
        ("ty", pickle.dumps(np.eye(3, dtype=np.int32)[:2], protocol=2)),
        ("y", pickle.dumps(3, protocol=2)),
    ],
)
def test_damaged_planetoid_files_are_named(tmp_path, part, content):
    planetoid(tmp_path)
    (tmp_path / f"ind.cora.{part}").write_bytes(content)
    with pytest.raises((FileFormatError, DataError), match="cora"):
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
