"""`write_store`: rows as `capture` gives them, from any kind of input."""

import pytest
import torch

from interp_unlearn._core import DataError, FileFormatError, ModelError, SiteError
from interp_unlearn.hooked import batch_from_ids, capture, wrap, write_store

from .conftest import make_module, shared_model
from .stores import IDS, SITE, contents, filled


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
