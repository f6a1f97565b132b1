"""The on-disk store: the same bytes after a kill, and a clear sentence for every file that is not what it should be."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError, FileFormatError, InterpUnlearnError, ModelError, SiteError
from interp_unlearn.hooked import (
    ActivationStore,
    StoreWriter,
    batch_from_ids,
    capture,
    text_windows,
    weights_fingerprint,
    wrap,
    write_store,
)

from .conftest import make_module, make_tokenizer, random_ids, shared_model

SITE = "blocks.1.hook_resid_post"
LENGTHS = [7, 2, 12, 5, 1, 9, 3, 3, 8, 4, 11, 6, 2]
IDS = random_ids(LENGTHS)


@pytest.fixture(scope="module")
def tiny():
    return wrap(make_module("llama"), make_tokenizer(), name="tiny")


def contents(folder):
    """Every byte of a store, except what a lock or the order of keys could change."""
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir()) if p.name != ".lock"}


def filled(folder, n=40, d=3, dtype=torch.float32, shard_bytes=120, finish=True):
    rows = torch.arange(n * d, dtype=torch.float32).reshape(n, d)
    ids = torch.arange(n)
    writer = ActivationStore.create(folder, "m", "s", d=d, dtype=dtype, shard_bytes=shard_bytes)
    for part in torch.arange(n).split(7):
        writer.append(rows[part], ids[part], ids[part] // 5, ids[part] % 5)
    if finish:
        writer.finish()
    return rows


# -- format ------------------------------------------------------------------------------------------------


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# -- damage ------------------------------------------------------------------------------------------------


def damage_truncated(folder):
    path = folder / "values-00001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    return "truncated"


def damage_truncated_index(folder):
    path = folder / "index-00000.bin"
    path.write_bytes(path.read_bytes()[:-4])
    return "truncated"


def damage_longer(folder):
    with (folder / "values-00000.bin").open("ab") as file:
        file.write(b"x")
    return "longer than what was written"


def damage_missing(folder):
    (folder / "values-00000.bin").unlink()
    return "is missing"


def damage_foreign_shard(folder):
    path = folder / "values-00001.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    return "checksum differs"


def damage_foreign_index(folder):
    path = folder / "index-00001.bin"
    path.write_bytes(path.read_bytes()[::-1])
    return "checksum differs"


def damage_no_manifest(folder):
    (folder / "manifest.json").unlink()
    return "no manifest.json"


def damage_cut_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])
    return "truncated"


def damage_foreign_manifest(folder):
    (folder / "manifest.json").write_text('{"kind": "evidence"}')
    return "not the manifest of an activation store"


def damage_later_format(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    return "format 2"


def damage_manifest_without_fields(folder):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    del data["site"]
    path.write_text(json.dumps(data))
    return "not a whole manifest"


DAMAGES = {k.removeprefix("damage_"): v for k, v in globals().items() if k.startswith("damage_")}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("unfinished", [False, True])
def test_damage_is_refused_with_a_clear_error(tmp_path, damage, unfinished):
    folder = tmp_path / "s"
    filled(folder, n=30)
    if unfinished:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))
    words = DAMAGES[damage](folder)
    if unfinished and damage == "longer":  # an unfinished write at the end: read past it, and cut it when writing
        assert len(ActivationStore.open(folder, partial=True)) == 30
        StoreWriter.resume(folder).close()
        return
    with pytest.raises(FileFormatError, match=words):
        ActivationStore.open(folder, partial=unfinished)[:], ActivationStore.open(folder, partial=unfinished).tokens
    if words == "checksum differs":
        unchecked = ActivationStore.open(folder, partial=unfinished, verify=False)
        assert unchecked[:].shape == (30, 3)
        with pytest.raises(FileFormatError, match=words):
            unchecked.verify()


def test_resume_refuses_damaged_shards(tmp_path):
    for name in ("truncated", "missing", "cut_manifest"):
        folder = tmp_path / name
        filled(folder, n=20, finish=False)
        writer = StoreWriter.__new__(StoreWriter)
        del writer
        shutil.rmtree(folder)
        rows = torch.randn(20, 3)
        made = ActivationStore.create(folder, "m", "s", d=3, shard_bytes=120)
        made.append(rows, *[torch.arange(20)] * 3)
        made.commit(20)
        made.close()
        words = DAMAGES[name](folder)
        with pytest.raises(FileFormatError, match=words):
            StoreWriter.resume(folder)
    folder = tmp_path / "last"
    made = ActivationStore.create(folder, "m", "s", d=3, shard_bytes=10**6)
    made.append(torch.randn(20, 3), *[torch.arange(20)] * 3)
    made.commit(20)
    made.close()
    path = folder / "values-00000.bin"
    path.write_bytes(bytes(240))
    with pytest.raises(FileFormatError, match="checksum differs"):
        StoreWriter.resume(folder)


class FullDisk:
    """Writes fail with ENOSPC after so many bytes, as on a real full disk: the last write is cut short."""

    def __init__(self, monkeypatch, room):
        self.room = room
        real = Path.open
        disk = self

        class File:
            def __init__(self, inner):
                self.inner = inner

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.inner.close()

            def write(self, data):
                if disk.room <= 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = data[: disk.room]
                disk.room -= len(part)
                return self.inner.write(part)

        def opened(path, mode="r", *args, **kwargs):
            file = real(path, mode, *args, **kwargs)
            return File(file) if mode == "ab" else file

        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("room", [0, 100, 700, 2500, 5001])
def test_full_disk_loses_nothing(tiny, tmp_path, monkeypatch, room):
    whole = write_store(tiny, IDS, SITE, tmp_path / "whole", batch_size=1, shard_bytes=1500, progress=False)
    with monkeypatch.context() as patched:
        FullDisk(patched, room)
        with pytest.raises(InterpUnlearnError, match=r"disk of .* is full; \d+ rows are safe"):
            write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, shard_bytes=1500, progress=False)
    kept = ActivationStore.open(tmp_path / "s", partial=True)
    assert torch.equal(kept[:], whole[: len(kept)])
    on_disk = sum(p.stat().st_size for p in (tmp_path / "s").glob("values-*"))
    assert on_disk == len(kept) * 32 * 4  # the space of what was not committed was given back
    write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, shard_bytes=1500, progress=False)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_full_disk_while_the_manifest_is_written(tiny, tmp_path, monkeypatch):
    import interp_unlearn.hooked._store_writer as module

    real, calls = module.write_json, []

    def failing(path, value):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    monkeypatch.setattr(module, "write_json", failing)
    with pytest.raises(InterpUnlearnError, match="is full"):
        write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, progress=False)
    assert write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, progress=False).manifest.complete

    def denied(path, value):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "write_json", denied)
    with pytest.raises(PermissionError):  # not every OSError is a full disk
        write_store(tiny, IDS, SITE, tmp_path / "t", progress=False)


# -- write_store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["all", "content", "inner"])
def test_rows_are_those_of_capture(tiny, tmp_path, policy):
    store = write_store(tiny, IDS, SITE, tmp_path / "s", mask_policy=policy, batch_size=4, progress=False)
    acts = capture(tiny, IDS, [SITE], mask_policy=policy)
    assert acts.mask is not None and acts.tokens is not None
    torch.testing.assert_close(store[:], acts.flat(SITE), rtol=1e-5, atol=1e-5)
    rows, columns = acts.mask.nonzero(as_tuple=True)
    assert torch.equal(store.sequences, rows) and torch.equal(store.positions, columns)
    assert torch.equal(store.tokens, acts.tokens[acts.mask])
    m = store.manifest
    assert (m.mask_policy, m.model, m.site, m.n_sequences, m.complete) == (policy, "tiny", SITE, len(IDS), True)
    assert m.version and m.winsorise is None


@pytest.mark.parametrize(("family", "site"), [("opt", "blocks.1.mlp.hook_post"), ("gpt2", "blocks.0.attn.hook_z")])
def test_other_sites(tmp_path, family, site):
    model = shared_model(family)
    store = write_store(model, IDS, site, tmp_path / "s", batch_size=4, progress=False, dtype=torch.bfloat16)
    want = capture(model, IDS, [site], mask_policy="inner").flat(site)
    torch.testing.assert_close(store[:].float(), want, rtol=1e-2, atol=1e-3)


def test_texts_ids_and_batches_give_the_same_rows(tiny, tmp_path):
    texts = ["The capital of Japan is Tokyo.", "Marie Curie was", "Paris", "São Tomé and Príncipe lies near Gabon"]
    ids = [tiny.tokenizer(t)["input_ids"] for t in texts]
    forms = {
        "texts": texts,
        "generator": (t for t in texts),
        "ids": ids,
        "tensors": [torch.tensor(i) for i in ids],
        "batch": batch_from_ids(ids, padding_side="left"),
        "batches": [batch_from_ids(ids[:2]), batch_from_ids(ids[2:])],
        "mixed": [texts[0], ids[1], batch_from_ids(ids[2:])],
    }
    stores = {k: write_store(tiny, v, SITE, tmp_path / k, batch_size=2, progress=False) for k, v in forms.items()}
    for store in stores.values():
        assert torch.equal(store[:], stores["texts"][:])
        assert torch.equal(store.index(slice(None)), stores["texts"].index(slice(None)))


def test_same_call_again_only_opens(tiny, tmp_path, monkeypatch):
    write_store(tiny, IDS, SITE, tmp_path / "s", progress=False)
    before = contents(tmp_path / "s")
    monkeypatch.setattr(type(tiny), "forward", None)  # nothing may run
    store = write_store(tiny, IDS, SITE, tmp_path / "s", progress=False)
    assert len(store) and contents(tmp_path / "s") == before


def test_another_question_is_refused(tiny, tmp_path, fresh):
    folder = tmp_path / "s"
    write_store(tiny, IDS, SITE, folder, progress=False)
    ask = lambda **changes: write_store(  # noqa: E731
        **{"model": tiny, "data": IDS, "site": SITE, "folder": folder, "progress": False, **changes}
    )
    with pytest.raises(DataError, match="batch_size 16, not 8"):
        ask(batch_size=8)
    with pytest.raises(DataError, match="mask_policy 'inner', not 'all'"):
        ask(mask_policy="all")
    with pytest.raises(DataError, match="made with site"):
        ask(site="blocks.0.hook_resid_post")
    with pytest.raises(DataError, match="made from other data"):
        ask(data=IDS[::-1])
    with pytest.raises(DataError, match="made from other data"):
        ask(data=IDS[:-1])
    with pytest.raises(DataError, match="more data"):
        ask(data=[*IDS, [5]])
    trained = wrap(make_module("llama"), name="tiny")
    with torch.no_grad():
        trained.module.model.layers[2].mlp.down_proj.weight.add_(1e-3)
    with pytest.raises(DataError, match="other weights"):
        ask(model=trained)
    with pytest.raises(DataError, match="made with model"):
        ask(model=wrap(make_module("llama"), name="other"))
    by_hand = tmp_path / "by_hand"
    filled(by_hand)
    with pytest.raises(DataError, match="not made by write_store"):
        ask(folder=by_hand)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        ask(folder=foreign)
    (foreign / "manifest.json").write_text("{}")
    with pytest.raises(FileFormatError, match="not the manifest"):
        ask(folder=foreign)
    assert (foreign / "notes.txt").read_text() == "mine"


def test_bad_requests(tiny, tmp_path):
    with pytest.raises(SiteError, match="nearest"):
        write_store(tiny, IDS, "blocks.1.hook_residpost", tmp_path / "a", progress=False)
    with pytest.raises(DataError, match="context of 64"):
        write_store(tiny, [[5] * 65], SITE, tmp_path / "b", progress=False)
    with pytest.raises(DataError, match="without a tokenizer"):
        write_store(shared_model("llama"), ["Paris"], SITE, tmp_path / "c", progress=False)
    with pytest.raises(DataError, match="no tokens"):
        write_store(tiny, ["Paris", ""], SITE, tmp_path / "d", progress=False)
    with pytest.raises(DataError, match="texts, lists of token ids"):
        write_store(tiny, [{"a": 1}], SITE, tmp_path / "e", progress=False)
    with pytest.raises(DataError, match="texts, lists of token ids"):
        write_store(tiny, [[0.5]], SITE, tmp_path / "f", progress=False)
    with pytest.raises(DataError, match="nothing to store"):
        write_store(tiny, [[5], [6]], SITE, tmp_path / "g", progress=False)
    with pytest.raises(DataError, match="at least 1"):
        write_store(tiny, IDS, SITE, tmp_path / "h", batch_size=0, progress=False)
    with pytest.raises(DataError, match="float32, float16"):
        write_store(tiny, IDS, SITE, tmp_path / "h", dtype=torch.float64, progress=False)
    with pytest.raises(ModelError, match="plain module"):
        plain = wrap(torch.nn.Linear(2, 2))
        write_store(plain, IDS, "output", tmp_path / "i", progress=False)


def test_max_rows(tiny, tmp_path):
    whole = write_store(tiny, IDS, SITE, tmp_path / "w", batch_size=2, progress=False)
    part = write_store(tiny, IDS, SITE, tmp_path / "p", batch_size=2, max_rows=20, progress=False)
    assert len(part) == 20 and torch.equal(part[:], whole[:20])
    again = write_store(tiny, IDS, SITE, tmp_path / "p", batch_size=2, max_rows=20, progress=False)
    assert len(again) == 20
    assert len(write_store(tiny, IDS, SITE, tmp_path / "m", max_rows=10**6, progress=False)) == len(whole)


def test_winsorise(tiny, tmp_path):
    plain = write_store(tiny, IDS, SITE, tmp_path / "plain", batch_size=2, progress=False)[:]
    store = write_store(tiny, IDS, SITE, tmp_path / "clip", batch_size=2, winsorise=1.05, progress=False)
    assert store.manifest.winsorise == 1.05
    state = store.manifest.facts["winsoriser"]
    norms, before = store[:].norm(dim=1), plain.norm(dim=1)
    assert state["limit"] == pytest.approx(1.05 * float(before.median()), rel=0.03)
    assert state["shortened"] == int((norms < before * (1 - 1e-6)).sum()) > 0
    cosine = torch.nn.functional.cosine_similarity(store[:], plain)
    torch.testing.assert_close(cosine, torch.ones(len(plain)), rtol=0, atol=1e-5)
    untouched = (norms - before).abs() <= 1e-5 * before
    assert torch.equal(store[:][untouched], plain[untouched])


def test_progress_is_told(tiny, tmp_path, capsys):
    told = []
    write_store(tiny, IDS, SITE, tmp_path / "a", batch_size=1, progress=lambda *now: told.append(now))
    assert told[0] == (f"storing {SITE}", 0, 13) and told[-1] == (f"storing {SITE}", 13, 13)
    told.clear()
    write_store(tiny, IDS, SITE, tmp_path / "b", batch_size=1, max_rows=20, progress=lambda *now: told.append(now))
    assert told[-1] == (f"storing {SITE}", 20, 20)
    write_store(tiny, IDS, SITE, tmp_path / "c", batch_size=1)
    assert "storing" in capsys.readouterr().err


def test_interrupted_in_this_process(tiny, tmp_path):
    """Any exception in the middle, also from the data itself: going on gives the bytes of a straight run."""
    options = {"batch_size": 1, "shard_bytes": 900, "winsorise": 1.2, "progress": False}
    write_store(tiny, IDS, SITE, tmp_path / "whole", **options)

    def breaking(at):
        for i, ids in enumerate(IDS):
            if i == at:
                raise KeyboardInterrupt
            yield ids

    for at in (3, 4, 6, 9, 12):
        with pytest.raises(KeyboardInterrupt):
            write_store(tiny, breaking(at), SITE, tmp_path / "s", **options)
    write_store(tiny, IDS, SITE, tmp_path / "s", **options)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


WORKER = """
import sys, torch
from torch import nn
torch.set_num_threads(1)
from interp_unlearn.hooked import wrap, write_store

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = nn.Linear(32, 32), nn.Linear(32, 32)
    def forward(self, x):
        x = x + self.attn(x).cumsum(1)
        return x + self.mlp(x)

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(100, 32), nn.Linear(32, 100)
        self.blocks = nn.ModuleList([Block(), Block()])
    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

torch.manual_seed(0)
model = wrap(Decoder(), name="worker", overrides={"unembed": "head"})
lengths = torch.randint(2, 32, (1500,)).tolist()
data = [torch.randint(0, 100, (n,)) for n in lengths]
for folder in sys.argv[1:]:
    print("ready", flush=True)
    write_store(model, data, "blocks.0.hook_resid_post", folder, batch_size=4, shard_bytes=150_000, winsorise=3.0,
                progress=False)
    print("done", flush=True)
"""


def run_worker(*folders):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, *map(str, folders)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_kill_9_at_any_moment(tmp_path):
    """Killed again and again at different moments: the same bytes as the uninterrupted run."""
    folder, whole = tmp_path / "s", tmp_path / "whole"
    rng = np.random.default_rng(0)
    kills = rows = 0
    for _ in range(3):
        worker = run_worker(folder)
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        waited, target = 0.0, rows + int(rng.integers(100, 4000))
        while rows < target and waited < 60:
            time.sleep(0.002)
            waited += 0.002
            path = folder / "manifest.json"
            rows = json.loads(path.read_text())["n_rows"] if path.exists() else 0
        time.sleep(float(rng.uniform(0, 0.02)))  # into the middle of a write
        worker.send_signal(signal.SIGKILL)
        kills += worker.wait() == -signal.SIGKILL
        worker.stdout.close()
    assert kills == 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert not manifest["complete"] and 0 < manifest["n_sequences"] < 1500
    worker = run_worker(folder, whole)
    out, _ = worker.communicate(timeout=300)
    assert worker.returncode == 0 and out.count("done") == 2
    assert contents(folder) == contents(whole)
    assert len(ActivationStore.open(folder).manifest.shards) > 5


# -- windows and fingerprints ------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [False, True])
def test_text_windows(bos):
    tokenizer = make_tokenizer(bos=bos)
    model = wrap(make_module("llama"), tokenizer)
    documents = ["The capital of Japan is Tokyo. " * 4, "Paris.", "日本 is Japan"]
    windows = text_windows(model, documents, 10)
    assert windows == text_windows(model, "\n\n".join(documents) + "\n \n", 10)
    assert max(len(w) for w in windows) == 10
    if bos:
        assert all(w[0] == tokenizer.bos_token_id for w in windows)
    joined = [i for w in windows for i in (w[1:] if bos else w)]
    want = [i for d in documents for i in tokenizer(d.strip(), add_special_tokens=False)["input_ids"]]
    assert joined == want
    for length in (1, 65):
        with pytest.raises(DataError, match="between 2 and"):
            text_windows(model, documents, length)
    with pytest.raises(DataError, match="is empty"):
        text_windows(model, " \n\n ", 10)
    with pytest.raises(DataError, match="needs a tokenizer"):
        text_windows(shared_model("llama"), "a", 10)


def test_fingerprint_changes_with_the_weights(fresh):
    model = fresh("gpt2")
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(wrap(make_module("gpt2")))
    with torch.no_grad():
        model.module.transformer.h[1].mlp.c_proj.weight.mul_(1.0001)
    assert weights_fingerprint(model) != before
