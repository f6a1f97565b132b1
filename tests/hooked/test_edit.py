"""`edit`: what a patch, a steering vector or an ablation does, to every reader of the value, and that it is undone."""

import pytest
import torch

from interp_unlearn._core import DataError, SiteError
from interp_unlearn.hooked import Edit, ablate, capture, edit, patch, steer, wrap

from .conftest import (
    FAMILIES,
    PARALLEL,
    hook_count,
    make_module,
    make_tokenizer,
    random_batch,
    random_ids,
    shared_model,
)

PLACES = [
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "mlp.hook_post",
    "attn.hook_z",
]
SITES = [(f, p) for f in sorted(FAMILIES) for p in PLACES if not (f in PARALLEL and p == "hook_resid_mid")]
LENGTHS = [6, 3, 4]


@pytest.mark.parametrize(("family", "place"), SITES)
def test_patching_a_site_with_another_run_moves_the_output_there(family, place):
    """Patch everything a block hands on with the values of another prompt: the logits become that prompt's."""
    model = shared_model(family)
    site = f"blocks.1.{place}"
    batch, other = random_batch(LENGTHS, seed=1), random_batch(LENGTHS, seed=2)
    theirs = capture(model, other, [site], mask_policy="all")
    with torch.no_grad():
        clean = model(batch)
        with edit(model, patch(site, theirs[site])):
            seen = capture(model, batch, [site])
            patched = model(batch)
        after = model(batch)
    torch.testing.assert_close(seen[site][batch.attended], theirs[site][batch.attended], rtol=1e-5, atol=1e-5)
    assert torch.equal(clean, after) and hook_count(model.module) == 0
    assert (patched - clean)[batch.attended].abs().max() > 1e-3
    if place in (
        "hook_resid_mid",
        "hook_resid_post",
        "hook_resid_pre",
    ):  # the whole stream: nothing of the clean run is left
        torch.testing.assert_close(patched[batch.attended], model(other)[batch.attended], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gemma3"])
def test_an_edit_of_resid_mid_reaches_both_readers(family):
    """The second norm and the block's own residual sum both read resid_mid."""
    model = shared_model(family)
    ids = random_ids([5])
    names = ["blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"]
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    clean = capture(model, ids, names)
    with edit(model, steer(names[0], direction, 3.0, positions=-1)):
        steered = capture(model, ids, names)
    moved = steered[names[0]] - clean[names[0]]
    torch.testing.assert_close(moved[0, -1], 3 * direction, rtol=1e-4, atol=1e-4)
    assert torch.equal(moved[0, :-1], torch.zeros_like(moved[0, :-1]))  # untouched tokens are untouched bit for bit
    assert (steered[names[1]] - clean[names[1]])[0, -1].abs().max() > 1e-4
    total = steered[names[0]] + steered[names[1]]
    torch.testing.assert_close(total, steered[names[2]], rtol=1e-5, atol=1e-4)


def test_edits_upstream_of_resid_mid_are_in_it(llama):
    ids = random_ids([5])
    v = torch.ones(32)
    mid = "blocks.1.hook_resid_mid"
    fixed = torch.full((32,), 0.5)
    edits = [patch(mid, fixed), steer("blocks.1.hook_resid_pre", v), steer("blocks.1.hook_attn_out", v)]
    for order in (edits, edits[::-1]):
        with edit(llama, *order):
            seen = capture(llama, ids, [mid])[mid]
        torch.testing.assert_close(seen, fixed.expand_as(seen), rtol=1e-4, atol=1e-4)
    clean = capture(llama, ids, [mid])[mid]
    with edit(llama, steer(mid, v, 2.0)), edit(llama, steer("blocks.1.hook_resid_pre", v)):
        seen = capture(llama, ids, [mid, "blocks.1.hook_resid_pre", "blocks.1.hook_attn_out"])
    torch.testing.assert_close(
        seen[mid], seen["blocks.1.hook_resid_pre"] + seen["blocks.1.hook_attn_out"], rtol=1e-4, atol=1e-4
    )
    assert (seen[mid] - clean).abs().min() > 0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("place", ["hook_resid_post", "mlp.hook_post", "hook_resid_mid"])
def test_positions_count_attended_tokens(family, side, place):
    model = shared_model(family)
    site = f"blocks.1.{place}"
    batch = random_batch(LENGTHS, side)
    clean = capture(model, batch, [site])
    width = clean[site].shape[-1]
    v = torch.arange(width) * 0.1 + 0.1
    last = batch.index_of(torch.full((3, 1), -1))
    for positions in (-1, "last", [-1], last, last[:, 0]):
        with edit(model, steer(site, v, 2.0, positions)):
            seen = capture(model, batch, [site])
        delta = seen[site] - clean[site]
        for row in range(3):
            for column in range(6):
                if column == int(last[row, 0]):
                    torch.testing.assert_close(delta[row, column], 2 * v, rtol=1e-3, atol=1e-3)
                elif batch.attended[row, column] and column < int(last[row, 0]):
                    assert torch.equal(delta[row, column], torch.zeros(width))
    with pytest.raises(DataError, match="outside its prompt"), edit(model, steer(site, v, positions=4)):
        model(batch)
    assert hook_count(model.module) == 0


def test_patch_shapes(llama):
    site, ids = "blocks.1.hook_resid_post", random_ids([4, 4])
    values = torch.randn(2, 2, 32)
    with edit(llama, patch(site, values, positions=[0, -1])):
        seen = capture(llama, ids, [site])[site]
    assert torch.equal(seen[:, [0, -1]], values)
    with pytest.raises(SiteError, match="do not broadcast"), edit(llama, patch(site, torch.randn(3, 4, 32))):
        llama(ids)
    with pytest.raises(SiteError, match="turned shape"), edit(llama, Edit(site, lambda x: x[:1], "halve")):
        llama(ids)
    before = values.clone()
    with edit(llama, patch(site, values[:, :1].expand(2, 4, 32))):
        llama(ids)
    assert torch.equal(values, before)


def test_ablation_of_units_directions_and_heads(llama):
    ids = random_ids([4, 4])
    z, neurons, post = "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post", "blocks.1.hook_resid_post"
    clean = capture(llama, ids, [z, neurons, post])

    with edit(llama, ablate(neurons, units=[0, 5, -1])):
        seen = capture(llama, ids, [neurons])[neurons]
    assert torch.equal(seen[..., [0, 5, -1]], torch.zeros(2, 4, 3))
    assert torch.equal(seen[..., 1:5], clean[neurons][..., 1:5])

    mean = clean[neurons].mean((0, 1))
    with edit(llama, ablate(neurons, units=[2], value=mean)):
        seen = capture(llama, ids, [neurons])[neurons]
    torch.testing.assert_close(seen[..., 2], mean[2].expand(2, 4))

    with edit(llama, ablate(post, value=1.5)):
        assert torch.equal(capture(llama, ids, [post])[post], torch.full((2, 4, 32), 1.5))

    direction = torch.randn(32)
    with edit(llama, ablate(post, direction=direction)):
        seen = capture(llama, ids, [post])[post]
    unit = direction / direction.norm()
    torch.testing.assert_close(seen @ unit, torch.zeros(2, 4), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen, clean[post] - (clean[post] @ unit)[..., None] * unit, rtol=1e-4, atol=1e-4)

    with edit(llama, ablate(z, heads=[1, 3], positions=-1)):
        seen = capture(llama, ids, [z])[z]
    assert torch.equal(seen[:, -1, [1, 3]], torch.zeros(2, 2, 8))
    assert torch.equal(seen[:, -1, [0, 2]], clean[z][:, -1, [0, 2]])
    assert torch.equal(seen[:, :-1], clean[z][:, :-1])
    with edit(llama, steer(z, torch.ones(8), heads=[2]), patch(z, torch.zeros(8), heads=[0])):
        seen = capture(llama, ids, [z])[z]
    torch.testing.assert_close(seen[:, :, 2], clean[z][:, :, 2] + 1)
    assert torch.equal(seen[:, :, 0], torch.zeros(2, 4, 8))


def test_bad_edits(llama):
    post = "blocks.1.hook_resid_post"
    with pytest.raises(SiteError, match="units or a direction"):
        ablate(post, units=[1], direction=torch.ones(32))
    with pytest.raises(SiteError, match="direction is zero"):
        ablate(post, direction=torch.zeros(32))
    with pytest.raises(SiteError, match="0…31"), edit(llama, ablate(post, units=[32])):
        llama(random_ids([3]))
    with pytest.raises(SiteError, match="no heads"), edit(llama, ablate(post, heads=[0])):
        llama(random_ids([3]))
    with (
        pytest.raises(SiteError, match="nearest"),
        edit(llama, steer(post, torch.ones(32)), steer("blocks.1.resid", torch.ones(32))),
    ):
        pass
    assert hook_count(llama.module) == 0


def test_composition_in_the_order_given(llama):
    site, ids = "blocks.0.hook_mlp_out", random_ids([3])
    one = torch.ones(32)
    with edit(llama, patch(site, one), steer(site, one)):
        assert torch.equal(capture(llama, ids, [site])[site], torch.full((1, 3, 32), 2.0))
    with edit(llama, steer(site, one), patch(site, one)):
        assert torch.equal(capture(llama, ids, [site])[site], torch.full((1, 3, 32), 1.0))
    with edit(llama, patch(site, one)), edit(llama, steer(site, one)):
        assert torch.equal(capture(llama, ids, [site])[site], torch.full((1, 3, 32), 2.0))


def test_undone_after_an_exception(llama):
    ids = random_ids([4])
    with torch.no_grad():
        clean = llama(ids)
    with (
        pytest.raises(RuntimeError, match="inside"),
        edit(llama, steer("blocks.0.hook_resid_mid", torch.ones(32), 9.0)),
    ):
        llama(ids)
        raise RuntimeError("inside")

    def fail(x):
        raise ValueError("a change may fail")

    with pytest.raises(ValueError, match="may fail"), edit(llama, Edit("blocks.0.attn.hook_z", fail)):
        llama(ids)
    assert hook_count(llama.module) == 0
    with torch.no_grad():
        assert torch.equal(llama(ids), clean)


def test_gradient_through_an_edit(llama):
    v = torch.zeros(32, requires_grad=True)
    with edit(llama, steer("blocks.0.hook_resid_mid", v, 1.0, positions=0)):
        llama(random_ids([4]))[0, -1, 7].backward()
    assert v.grad is not None and v.grad.abs().sum() > 0
    llama.module.zero_grad(set_to_none=True)


def test_edit_follows_generation(family):
    """With a key–value cache each pass computes one new token; the edit must be the one of a pass without cache."""
    tokenizer = make_tokenizer()
    model = wrap(make_module(family, pad_token_id=0), tokenizer)
    site = "blocks.1.hook_resid_post"
    v = torch.randn(32, generator=torch.Generator().manual_seed(3)) * 3
    prompts = ["The capital of Japan is", "Marie"]
    everywhere = steer(site, v)
    first = steer(site, v, positions=0)
    for item in (everywhere, first):
        with edit(model, item):
            got = model.generate(prompts, max_new_tokens=3)
            for prompt, text in zip(prompts, got, strict=True):
                ids = tokenizer(prompt)["input_ids"]
                n = len(ids)
                for _ in range(3):
                    ids.append(int(model([ids])[0, -1].argmax()))
                assert tokenizer.decode(ids[n:], skip_special_tokens=True) == text
    calls = []

    def spy(x):
        calls.append(tuple(x.shape))
        return x

    with edit(model, Edit(site, spy, positions=-1)):
        model.generate(prompts, max_new_tokens=3)
    assert len(calls) == 3 and all(c == (2, 1, 32) for c in calls)  # the last token of every pass
    calls.clear()
    with edit(model, Edit(site, spy, positions=0)):
        model.generate(prompts, max_new_tokens=3)
    assert len(calls) == 1  # computed once, then cached


def test_edit_of_a_submodule_called_alone(llama):
    """Without a pass of the whole model there is no mask: every token counts as attended."""
    site = "blocks.0.hook_mlp_out"
    x = torch.randn(1, 3, 32)
    with edit(llama, patch(site, torch.zeros(32), positions=-1)):
        out = llama.submodule("model.layers.0.mlp")(x)
    assert torch.equal(out[:, -1], torch.zeros(1, 32)) and out[:, 0].abs().sum() > 0


def test_a_wrong_head_or_width_is_one_sentence(llama):
    z, site = "blocks.1.attn.hook_z", "blocks.1.hook_resid_post"
    wrong = [
        (ablate(z, heads=[9]), r"heads must lie in 0…3, got \[9\]"),
        (
            steer(site, torch.ones(7)),
            r"steer at .*a direction of shape \(7,\) does not fit \(1, 4, 32\); give 32 features",
        ),
        (ablate(site, direction=torch.ones(7)), "give 32 features"),
        (ablate(site, value=torch.ones(7)), "a value of shape"),
    ]
    for change, says in wrong:
        with pytest.raises(SiteError, match=says), edit(llama, change):
            llama(random_ids([4]))
