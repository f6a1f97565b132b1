"""TransformerLens and nnsight over the same weights; models offloaded by accelerate; PEFT adapters."""

import itertools

import pytest
import torch

from interp_unlearn._core import ModelError
from interp_unlearn.hooked import batch_from_ids, capture, edit, make_nnsight, steer, wrap

from .conftest import hook_count, make_module, make_tokenizer, random_batch, random_ids, shared_model


def test_bridge_shares_weights_and_leaves_the_module_alone(fresh, family):
    model = fresh(family)
    ids = torch.tensor(random_ids([7]))
    names, paths = list(model.module.state_dict()), [n for n, _ in model.module.named_modules()]
    with torch.no_grad():
        before = model(ids)
    bridge = model.bridge
    assert bridge is model.bridge
    theirs = {id(p) for p in bridge.parameters()}
    assert all(id(p) in theirs for p in model.module.parameters())
    with torch.no_grad():
        torch.testing.assert_close(bridge(ids), before, rtol=1e-4, atol=1e-4)
    assert list(model.module.state_dict()) == names and [n for n, _ in model.module.named_modules()] == paths
    assert hook_count(model.module) == 0
    with torch.no_grad():
        assert torch.equal(model(ids), before)
    assert model.parity(ids).identical

    with torch.no_grad():  # training here is seen there
        for parameter in model.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        after = model(ids)
        assert not torch.allclose(after, before, atol=1e-2)
        torch.testing.assert_close(model.bridge(ids), after, rtol=1e-4, atol=1e-4)
    assert (model.bridge is bridge) == ("neox" not in family)  # joint q/k/v are split into copies: made anew
    cache = model.bridge.run_with_cache(ids)[1]
    if family != "opt":  # TransformerLens reads no patterns there
        pattern = cache["blocks.1.attn.hook_pattern"]
        torch.testing.assert_close(pattern.sum(-1), torch.ones(1, 4, 7), rtol=1e-4, atol=1e-4)


def test_bridge_reads_the_same_text_as_the_same_tokens():
    for bos in (False, True):
        tokenizer = make_tokenizer(bos=bos)
        model = wrap(make_module("llama"), tokenizer)
        pad, side = tokenizer.pad_token, tokenizer.padding_side
        text = "The capital of Japan is"
        with torch.no_grad():
            torch.testing.assert_close(model.bridge(text), model(text), rtol=1e-4, atol=1e-4)
        assert (tokenizer.pad_token, tokenizer.padding_side) == (pad, side)


def test_bridge_is_not_taken_inside_an_edit(fresh):
    model = fresh("llama")
    with edit(model, steer("blocks.0.hook_resid_post", torch.ones(32))):
        with pytest.raises(ModelError, match="leave its with block"):
            _ = model.bridge
        with pytest.raises(ModelError, match="leave its with block"):
            _ = model.nnsight
    assert model.bridge is not None


def test_an_architecture_without_adapter_says_so():
    module = make_module("llama")
    type(module)
    Renamed = type("UnheardOfForCausalLM", (type(module),), {})
    module.__class__ = Renamed
    with pytest.raises(ModelError, match="UnheardOf"):
        _ = wrap(module).bridge


@pytest.mark.parametrize("spoken", [True, False])
def test_nnsight_reads_the_same_values(spoken):
    tokenizer = make_tokenizer() if spoken else None
    model = wrap(make_module("llama"), tokenizer)
    ids = torch.tensor(random_ids([6]))
    site = "blocks.1.hook_resid_post"
    sight = model.nnsight
    assert sight is model.nnsight
    with torch.no_grad(), sight.trace(ids):
        hidden = sight.get(model.sites[site].path).output.save()
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    assert torch.equal(hidden, capture(model, ids, [site])[site])
    assert hook_count(model.module) == 0
    shared = {id(p) for p in model.module.parameters()}
    assert shared <= {id(p) for p in sight._module.parameters()}


def test_nnsight_of_a_plain_module():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    sight = make_nnsight(wrap(net))
    x = torch.randn(2, 3)
    with torch.no_grad(), sight.trace(x):
        hidden = sight[0].output.save()
    assert torch.equal(hidden, net[0](x))


def test_accelerate_offload(fresh):
    """Weights that live on the meta device between calls: inputs go to the execution device, the stop leaves order."""
    accelerate = pytest.importorskip("accelerate")
    ids = random_batch([6, 3], "left")
    sites = ["blocks.1.mlp.hook_post", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"]
    plain = capture(shared_model("llama"), ids, sites)
    module = accelerate.cpu_offload(make_module("llama"), execution_device="cpu")
    assert next(module.parameters()).device.type == "meta"
    model = wrap(module)
    assert model.device.type == "cpu"
    for _ in range(3):
        acts = capture(model, ids, sites)
        for site in sites:
            assert torch.equal(acts[site], plain[site])
    assert all(p.device.type == "meta" for p in module.parameters())
    with torch.no_grad():
        assert torch.equal(model(ids), shared_model("llama")(ids))
    v = torch.ones(32)
    with edit(model, steer(sites[1], v)), edit(shared_model("llama"), steer(sites[1], v)):
        assert torch.equal(capture(model, ids, sites)[sites[2]], capture(shared_model("llama"), ids, sites)[sites[2]])


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_adapters_put_in_after_opening(family):
    peft = pytest.importorskip("peft")
    model = wrap(make_module(family))
    batch = random_batch([6, 3], "left")
    site, down = "blocks.1.hook_resid_post", model.lm.mlp_out[1]
    before = capture(model, batch, [site, "blocks.1.hook_mlp_out"])
    config = peft.LoraConfig(r=2, target_modules=["down_proj", "fc2"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model.module, config)
    after = capture(model, batch, [site, "blocks.1.hook_mlp_out", "blocks.1.mlp.hook_post"])
    assert not torch.allclose(after[site], before[site], atol=1e-3)
    total = (
        capture(model, batch, ["blocks.1.hook_resid_mid"])["blocks.1.hook_resid_mid"] + after["blocks.1.hook_mlp_out"]
    )
    torch.testing.assert_close(total, after[site], rtol=1e-4, atol=1e-4)
    assert down is not None and "lora" in type(model.submodule(down)).__module__
    outer = wrap(wrapped.merge_and_unload())
    torch.testing.assert_close(capture(outer, batch, [site])[site], after[site], rtol=1e-4, atol=1e-4)


def test_a_peft_model_opened_from_outside():
    peft = pytest.importorskip("peft")
    module = make_module("llama")
    wrapped = peft.get_peft_model(
        module, peft.LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False)
    ).eval()
    model = wrap(wrapped)
    ids = random_ids([7, 3])
    site = "blocks.2.hook_resid_mid"
    for side, row in itertools.product(("left", "right"), (0, 1)):
        batch = batch_from_ids(ids, padding_side=side)
        got = capture(model, batch, [site])[site][row][batch.attended[row]]
        torch.testing.assert_close(got, capture(model, [ids[row]], [site])[site][0], rtol=1e-5, atol=1e-5)
    assert model.parity(ids).identical
