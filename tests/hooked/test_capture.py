"""`capture`: the same values padded or alone, an early stop, copies, gradients, files."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError, FileFormatError, SiteError
from interp_unlearn.hooked import Activations, Batch, batch_from_ids, capture, columns_of, tap, wrap

from .conftest import hook_count, make_module, make_tokenizer, random_batch, random_ids, shared_model, untyped

RESID = ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
LENGTHS = [9, 4, 1, 12]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_one_by_one_at_every_site(model, side):
    ids = random_ids(LENGTHS)
    batch = batch_from_ids(ids, pad_id=3, padding_side=side)
    together = capture(model, batch, list(model.sites), mask_policy="all")
    for row, one in enumerate(ids):
        alone = capture(model, [one], list(model.sites))
        for site in model.sites:
            kept = together[site][row][batch.attended[row]]
            torch.testing.assert_close(kept, alone[site][0], rtol=1e-5, atol=1e-5)


def test_padding_inside_a_row(llama):
    """Holes in the mask: what is attended is a text of its own."""
    ids = random_ids([6])[0]
    tokens = torch.tensor([[*ids[:2], 3, *ids[2:]]])
    mask = torch.ones_like(tokens)
    mask[0, 2] = 0
    acts = capture(llama, {"input_ids": tokens, "attention_mask": mask}, RESID)
    alone = capture(llama, [ids], RESID)
    torch.testing.assert_close(acts[RESID[1]][0][mask[0].bool()], alone[RESID[1]][0], rtol=1e-5, atol=1e-5)


def test_positions_in_every_form(llama):
    site = RESID[0]
    for side in ("left", "right"):
        batch = random_batch(LENGTHS, side)
        whole = capture(llama, batch, [site])[site]
        columns = [batch.attended[r].nonzero()[:, 0].tolist() for r in range(4)]
        rows = range(4)
        last = torch.stack([whole[r, columns[r][-1]] for r in rows])
        for form in (-1, "last", [-1], torch.tensor([c[-1] for c in columns])):
            acts = capture(llama, batch, [site], positions=form)
            assert torch.equal(acts[site][:, 0], last)
            assert acts.tokens is not None and acts.positions is not None
            assert acts.tokens[:, 0].tolist() == [int(batch.tokens[r, columns[r][-1]]) for r in rows]
            assert acts.positions[:, 0].tolist() == [c[-1] for c in columns]
        ends = capture(llama, batch, [site], positions=[0, -1])
        assert ends[site].shape[1] == 2
        assert torch.equal(ends[site][:, 0], torch.stack([whole[r, columns[r][0]] for r in rows]))
        table = torch.tensor([[c[0], c[-1]] for c in columns])
        assert torch.equal(capture(llama, batch, [site], positions=table)[site], ends[site])
        assert capture(llama, batch, [site]).positions.tolist() == [list(range(12))] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([5], "outside its prompt"),
        (-2, "outside its prompt"),
        ("first", "not understood"),
        ([], "empty"),
        (torch.tensor([0, 1]), "list of ints"),
        (torch.tensor([99, 0, 0, 0]), "columns 0…11"),
    ],
)
def test_bad_positions(llama, positions, words):
    with pytest.raises(DataError, match=words):
        capture(llama, random_batch(LENGTHS), [RESID[0]], positions=positions)


def test_positions_of_another_type():
    with pytest.raises(DataError, match="not understood"):
        untyped(columns_of)(random_batch([3]), [0.5])


def test_mask_policies_and_flat(tokenizer):
    model = shared_model("llama")
    ids = random_ids([3, 5])
    ids[0][0] = tokenizer.bos_token_id
    batch = batch_from_ids(ids, pad_id=3, special_ids=tokenizer.all_special_ids, padding_side="left")
    site = RESID[0]
    counts = {policy: capture(model, batch, [site], mask_policy=policy) for policy in ("all", "content", "inner")}
    assert [int(a.mask.sum()) for a in counts.values()] == [8, 7, 6]  # type: ignore[union-attr]
    assert [a.mask_policy for a in counts.values()] == ["all", "content", "inner"]
    assert counts["inner"].flat(site).shape == (6, 32)
    z = capture(model, batch, ["blocks.0.attn.hook_z"], mask_policy="inner")
    assert z.flat("blocks.0.attn.hook_z").shape == (6, 32)
    with pytest.raises(DataError, match="unknown mask policy"):
        untyped(Batch.mask)(batch, "most")


def count_calls(module):
    calls = {"n": 0}

    def forward(*args, _inner=module.forward, **kwargs):
        calls["n"] += 1
        return _inner(*args, **kwargs)

    module.forward = forward
    return calls


def test_the_forward_pass_really_stops(fresh, family):
    model = fresh(family)
    blocks = [count_calls(model.submodule(path)) for path in model.lm.blocks]
    head = count_calls(model.submodule(model.lm.unembed))
    ids = random_ids([4])
    capture(model, ids, ["blocks.1.hook_resid_post"])
    assert [c["n"] for c in blocks] == [1, 1, 0] and head["n"] == 0
    capture(model, ids, ["blocks.1.hook_resid_pre"])
    assert [c["n"] for c in blocks] == [2, 1, 0]
    capture(model, ids, ["blocks.2.hook_resid_pre", "blocks.0.hook_mlp_out"])
    assert [c["n"] for c in blocks] == [3, 2, 0]
    capture(model, ids, ["blocks.0.hook_resid_post"], stop=False)
    assert [c["n"] for c in blocks] == [4, 3, 1] and head["n"] == 1
    model(ids)  # the stop leaves nothing behind
    assert head["n"] == 2


def test_results_are_copies(fresh):
    model = fresh("llama")
    ids = random_ids([6, 6])
    before = model(ids).clone()
    names = list(model.sites)
    for positions in (None, -1):
        acts = capture(model, ids, names, positions=positions)
        for name in names:
            value = acts[name]
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), name
            assert not value.requires_grad
            value.fill_(float("nan"))
    assert torch.equal(model(ids), before)


def test_repeated_and_reordered_sites(llama):
    names = [RESID[1], RESID[0], RESID[1]]
    acts = capture(llama, random_ids([3]), names)
    assert set(acts.sites) == set(names)


def test_gradient_equals_autograd_by_hand(fresh):
    model = fresh("llama")
    ids = torch.tensor(random_ids([5, 5]))
    acts = capture(model, ids, ["blocks.1.hook_resid_post"], grad=True, positions=-1)
    acts["blocks.1.hook_resid_post"].pow(2).sum().backward()
    mine = {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}
    model.module.zero_grad(set_to_none=True)
    hidden = model.module.model(ids, output_hidden_states=True).hidden_states[2]
    hidden[:, -1].pow(2).sum().backward()
    by_hand = {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}
    assert set(mine) == set(by_hand) and not any("layers.2" in n for n in mine)
    for name, grad in by_hand.items():
        torch.testing.assert_close(mine[name], grad)


def test_one_site_differentiated_by_another(llama):
    with torch.no_grad():  # grad=True wins over the caller's mode
        acts = capture(llama, random_ids([5]), RESID, grad=True)
    (grad,) = torch.autograd.grad(acts[RESID[1]].sum(), acts[RESID[0]])
    assert grad.shape == acts[RESID[0]].shape and grad.abs().sum() > 0


def test_read_in_evaluation_mode_and_put_back(fresh):
    model = fresh("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    ids = random_ids([8])
    still = capture(model, ids, RESID)
    model.module.train()
    model.module.transformer.h[0].eval()
    noisy = capture(model, ids, RESID)
    assert torch.equal(noisy[RESID[1]], still[RESID[1]])
    assert model.module.training and model.module.transformer.h[1].attn.training
    assert not model.module.transformer.h[0].training
    assert model.parity(ids).identical
    dropped = capture(model, ids, RESID, grad=True)  # a training loss keeps its dropout
    assert not torch.equal(dropped[RESID[1]], still[RESID[1]])


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    size=st.integers(1, 8),
    side=st.sampled_from(["left", "right"]),
    last=st.booleans(),
)
def test_runs_of_rows_equal_one_run(lengths, size, side, last):
    model = shared_model("qwen2")
    batch = random_batch(lengths, side, seed=len(lengths))
    positions = -1 if last else None
    one = capture(model, batch, RESID, positions=positions)
    many = capture(model, batch, RESID, positions=positions, batch_size=size)
    assert one.tokens is not None and many.tokens is not None and one.mask is not None and many.mask is not None
    assert one.positions is not None and many.positions is not None
    assert torch.equal(one.tokens, many.tokens) and torch.equal(one.mask, many.mask)
    assert torch.equal(one.positions, many.positions)
    for site in RESID:
        torch.testing.assert_close(one.flat(site), many.flat(site), rtol=1e-5, atol=1e-5)


def test_dtype_and_batch_size_arguments(llama):
    acts = capture(llama, random_ids([4]), RESID, dtype=torch.float16, device="cpu")
    assert acts[RESID[0]].dtype == torch.float16
    with pytest.raises(DataError, match="at least 1"):
        capture(llama, random_ids([4]), RESID, batch_size=0)


def test_every_kind_of_input(tokenizer):
    model = shared_model("llama")
    spoken = wrap(model.module, tokenizer)
    text = "The capital of Japan is Tokyo"
    ids = tokenizer(text)["input_ids"]
    want = capture(model, [ids], [RESID[1]])[RESID[1]]
    forms = [text, [text], ids, [ids], torch.tensor(ids), torch.tensor([ids]), torch.tensor([ids], dtype=torch.int32)]
    forms += [[torch.tensor(ids)], torch.tensor([ids]).numpy(), {"input_ids": [ids]}, tokenizer(text)]
    forms += [tokenizer([text], return_tensors="pt"), {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}]
    for form in forms:
        assert torch.equal(capture(spoken, form, [RESID[1]])[RESID[1]], want), type(form)
    two = {"input_ids": [ids, ids[:-1]]}
    assert capture(spoken, two, [RESID[1]]).mask.sum() == 2 * len(ids) - 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("hello", "without a tokenizer"),
        ([[1] * 65], "longer than the model's context of 64"),
        (torch.ones(1, 65, dtype=torch.long), "longer than the model's context of 64"),
        (batch_from_ids([[1] * 65]), "longer than the model's context of 64"),
        ([[1, 400]], "token id 400 is not in the vocabulary 0…399"),
        (batch_from_ids([[1, 400]]), "another tokenizer"),
        (torch.tensor([[1, -100]]), "token id -100"),
        ([], "empty list"),
        ([[]], "at least one token"),
        ({}, "needs 'input_ids'"),
        ({"attention_mask": [1]}, "needs 'input_ids'"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "differ in shape"),
        ({"input_ids": [[1, 2], [1]], "attention_mask": [[1, 1], [1, 0]]}, "differ in length"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, "no tokens"),
        (torch.ones(2, 3), "must be integers"),
        (torch.ones(2, 3, 4, dtype=torch.long), "must be integers"),
        (torch.ones(0, 3, dtype=torch.long), "must be integers"),
        (3, "got int"),
        ([1.5, 2.5], "a list of float"),
        ([True, False], "a list of bool"),
        ([["a", "b"]], "a list of list"),
    ],
)
def test_bad_inputs_are_one_sentence(llama, inputs, words):
    with pytest.raises(DataError, match=words):
        capture(llama, inputs, [RESID[0]])
    assert hook_count(llama.module) == 0


def test_a_prompt_longer_than_the_context_is_never_cut(tokenizer):
    model = wrap(shared_model("llama").module, tokenizer)
    with pytest.raises(DataError, match="context of 64"):
        capture(model, "Paris " * 80, [RESID[0]])
    with pytest.raises(DataError, match="no tokens"):
        capture(model, ["Paris", ""], [RESID[0]])
    with pytest.raises(DataError, match="ask for less"):
        model.generate("The capital of Japan is", max_new_tokens=60)
    with pytest.raises(DataError, match="needs a tokenizer"):
        shared_model("llama").generate("a")


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_generate_equals_a_greedy_loop(family):
    tokenizer = make_tokenizer()
    model = wrap(make_module(family, pad_token_id=0), tokenizer)
    prompts = ["The capital of Japan is", "Marie"]
    got = model.generate(prompts, max_new_tokens=4)
    for prompt, text in zip(prompts, got, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        n = len(ids)
        for _ in range(4):
            ids.append(int(model([ids])[0, -1].argmax()))
        assert tokenizer.decode(ids[n:], skip_special_tokens=True) == text


def test_save_and_load(llama, tmp_path):
    acts = capture(
        llama, random_batch([3, 5]), [*RESID, "blocks.0.attn.hook_z"], positions=[0, -1], mask_policy="inner"
    )
    acts = Activations(
        acts.values,
        acts.tokens,
        acts.mask,
        acts.positions,
        acts.mask_policy,
        {"entity": ("a", "b"), "group": ["x", "x"]},
    )
    acts.save(tmp_path)
    back = Activations.load(tmp_path)
    assert back.sites == acts.sites and back.mask_policy == "inner"
    assert {k: list(v) for k, v in back.labels.items()} == {"entity": ["a", "b"], "group": ["x", "x"]}
    for site in acts.sites:
        assert torch.equal(back[site], acts[site])
    for name in ("tokens", "mask", "positions"):
        assert torch.equal(getattr(back, name), getattr(acts, name))
    with pytest.raises(SiteError, match="was not captured"):
        back["blocks.1.hook_resid_post"]

    plain = Activations({"conv.output": torch.randn(2, 3)})
    plain.save(tmp_path / "plain")
    assert Activations.load(tmp_path / "plain").tokens is None
    assert plain.flat("conv.output").shape == (2, 3)


def test_load_refuses_what_is_not_its_own(llama, tmp_path):
    with pytest.raises(DataError, match="label 'entity' has 1 entries for 2 rows"):
        Activations({"x": torch.zeros(2, 3)}, labels={"entity": ["a"]})
    capture(llama, random_ids([3]), RESID).save(tmp_path)
    path = tmp_path / "activations.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "labels": {"entity": ["a", "b"]}}))
    with pytest.raises(FileFormatError, match="do not belong together"):
        Activations.load(tmp_path)
    path.write_text(json.dumps({**facts, "sites": ["other"]}))
    with pytest.raises(FileFormatError, match="do not belong together"):
        Activations.load(tmp_path)
    path.write_text(json.dumps({"kind": "evidence"}))
    with pytest.raises(FileFormatError, match="does not hold saved activations"):
        Activations.load(tmp_path)
    path.write_text(json.dumps(facts))
    whole = (tmp_path / "activations.safetensors").read_bytes()
    (tmp_path / "activations.safetensors").write_bytes(whole[:-5])
    with pytest.raises(FileFormatError, match="truncated"):
        Activations.load(tmp_path)


def test_nested_taps_do_not_disturb_each_other(llama):
    ids = random_ids([4])
    with tap(llama.sites, [RESID[0]]) as outer:
        inner = capture(llama, ids, [RESID[1]])
        with pytest.raises(SiteError, match="not reached"):
            outer[RESID[0]]
        llama(ids)  # a pass of one's own is neither recorded nor stopped
        assert outer.run(lambda: llama(ids)) is None and outer.stopped
        assert outer[RESID[0]].requires_grad
    assert torch.equal(inner[RESID[0 + 1]], capture(llama, ids, [RESID[1]])[RESID[1]])
    assert hook_count(llama.module) == 0


def test_a_site_that_is_not_reached(llama):
    with tap(llama.sites, ["blocks.0.hook_resid_post"]) as taps:
        taps.run(lambda: None)
        with pytest.raises(SiteError, match="not reached"):
            taps["blocks.0.hook_resid_post"]
