"""Rows in a store come back, in the same bytes however they were appended."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.hooked import ActivationStore, StoreWriter

from .stores import contents, filled


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_come_back(tmp_path, dtype):
    rows = filled(tmp_path / "s", dtype=dtype).to(dtype)
    store = ActivationStore.open(tmp_path / "s")
    assert len(store) == 40 and store.d == 3 and store.site == "s" and store.manifest.dtype in str(dtype)
    assert len(store.manifest.shards) > 1
    assert torch.equal(store[:], rows) and store[0:0].shape == (0, 3)
    assert torch.equal(store[5:23], rows[5:23]) and torch.equal(store[-3:], rows[-3:])
    assert torch.equal(store[39:2:-4], rows.flip(0)[::4][: len(store[39:2:-4])])
    assert torch.equal(store[17], rows[17]) and torch.equal(store[-1], rows[-1])
    picked = [31, 0, 31, -2]
    assert torch.equal(store[picked], rows[picked])
    assert torch.equal(store[torch.tensor(picked)], rows[picked])
    assert torch.equal(store[np.array(picked)], rows[picked])
    assert store.tokens.tolist() == list(range(40))
    assert store.sequences.tolist() == [i // 5 for i in range(40)]
    assert store.positions.tolist() == [i % 5 for i in range(40)]
    assert store.index([3]).tolist() == [[3, 0, 3]]
    with pytest.raises(IndexError, match="0…39"):
        store[40]
    before = store[:].clone()
    store[:].zero_()  # a copy
    assert torch.equal(store[:], before)
    store.verify()
    assert "40 rows of 3" in repr(store)


def test_batches(tmp_path):
    rows = filled(tmp_path / "s")
    store = ActivationStore.open(tmp_path / "s")
    assert torch.equal(torch.cat(list(store.iter_batches(7))), rows)
    assert [len(b) for b in store.iter_batches(7)] == [7] * 5 + [5]
    assert [len(b) for b in store.iter_batches(7, drop_last=True)] == [7] * 5
    assert [len(b) for b in store.iter_batches(8, drop_last=True)] == [8] * 5
    shuffled = list(store.iter_batches(7, seed=1))
    assert not torch.equal(torch.cat(shuffled), rows)
    assert torch.equal(torch.cat(shuffled)[:, 0].sort().values, rows[:, 0])
    again = list(store.iter_batches(7, seed=1, start=2))
    assert all(torch.equal(a, b) for a, b in zip(again, shuffled[2:], strict=True))
    assert not torch.equal(torch.cat(list(store.iter_batches(7, seed=2))), torch.cat(shuffled))
    with pytest.raises(DataError, match="at least one row"):
        next(store.iter_batches(0))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 40),
    shard_bytes=st.integers(1, 300),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    crash=st.integers(0, 6),
)
def test_bytes_do_not_depend_on_how_rows_were_appended(tmp_path, n, shard_bytes, cuts, crash):
    """Any chunks, with a crash after any append: the files are those of one straight run."""
    folder, other = tmp_path / "a", tmp_path / "b"
    for path in (folder, other):
        shutil.rmtree(path, ignore_errors=True)
    rows, ids = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)), torch.arange(n)

    def write(writer, begin, step):
        while begin < n:
            end = min(begin + step, n)
            writer.append(rows[begin:end], ids[begin:end], ids[begin:end], ids[begin:end])
            yield end
            begin = end

    straight = ActivationStore.create(folder, "m", "s", d=3, shard_bytes=shard_bytes)
    for _ in write(straight, 0, n):
        pass
    straight.commit(n)
    straight.finish()

    writer, done = ActivationStore.create(other, "m", "s", d=3, shard_bytes=shard_bytes), 0
    for round_, step in enumerate([*cuts, n]):
        for i, end in enumerate(write(writer, done, step)):
            if round_ < len(cuts) and i == crash:
                break  # appended, never committed
            writer.commit(end)
            done = end
        if done < n:
            writer.close()  # as if the process had died
            writer = StoreWriter.resume(other)
            assert writer.manifest.n_sequences == done == writer.manifest.n_rows
    writer.finish()
    assert contents(folder) == contents(other)


def test_context_manager_finishes_or_leaves_what_was_committed(tmp_path):
    row, one = torch.ones(1, 2), torch.zeros(1, dtype=torch.long)
    with ActivationStore.create(tmp_path / "s", "m", "s", d=2) as writer:
        writer.append(row, one, one, one)
    assert len(ActivationStore.open(tmp_path / "s")) == 1
    with pytest.raises(RuntimeError), ActivationStore.create(tmp_path / "t", "m", "s", d=2) as writer:
        writer.append(row, one, one, one)
        writer.commit(1)
        writer.append(row, one, one, one)
        raise RuntimeError
    with pytest.raises(FileFormatError, match="unfinished"):
        ActivationStore.open(tmp_path / "t")
    assert len(ActivationStore.open(tmp_path / "t", partial=True)) == 1
    with StoreWriter.resume(tmp_path / "t") as writer:
        assert writer.manifest.n_rows == 1
    assert len(ActivationStore.open(tmp_path / "t")) == 1


def test_two_writers_do_not_meet(tmp_path):
    writer = ActivationStore.create(tmp_path / "s", "m", "s", d=2)
    with pytest.raises(DataError, match="another process is writing"):
        StoreWriter.resume(tmp_path / "s")
    writer.close()
    StoreWriter.resume(tmp_path / "s").close()


def test_writer_refuses_what_does_not_fit(tmp_path):
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(DataError, match="float32, float16 or bfloat16"):
        ActivationStore.create(tmp_path / "s", "m", "s", d=2, dtype=torch.float64)
    with ActivationStore.create(tmp_path / "s", "m", "s", d=2, dtype=torch.float16) as writer:
        with pytest.raises(DataError, match="rows of 3 features"):
            writer.append(torch.zeros(1, 3), one, one, one)
        with pytest.raises(DataError, match="not finite as float16"):
            writer.append(torch.full((1, 2), 1e6), one, one, one)
    with pytest.raises(DataError, match="not empty"):
        ActivationStore.create(tmp_path / "s", "m", "s", d=2)
    with pytest.raises(DataError, match="is finished"):
        StoreWriter.resume(tmp_path / "s")
