"""Every name must mean what it says: arithmetic, the model's own hidden states, and TransformerLens' own reading."""

import pytest
import torch
import transformers
from torch import nn

from interp_unlearn._core import ModelError, SiteError
from interp_unlearn.hooked import Site, capture, edit, patch, wrap
from interp_unlearn.hooked._prove import adds_up

from .conftest import PARALLEL, make_module, random_batch, random_ids

BLOCK = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "mlp.hook_post", "hook_resid_post"]


def read_all(model, batch):
    return capture(model, batch, list(model.sites), stop=False)


def test_every_family_offers_every_site(model, family):
    block = BLOCK if family in PARALLEL else [*BLOCK, "hook_resid_mid"]
    wanted = {f"blocks.{layer}.{name}" for layer in range(3) for name in block}
    wanted |= {"hook_embed", "ln_final.hook_in", "ln_final.hook_out", "unembed.hook_out"}
    assert set(model.sites) == wanted
    assert model.sites.at_layer(1) == [n for n in model.sites if n.startswith("blocks.1.")]


def test_residual_stream_adds_up(model, family):
    acts = read_all(model, random_ids([7]))
    for layer in range(3):
        at = lambda name, layer=layer: acts[f"blocks.{layer}.{name}"]  # noqa: E731
        pre, attn, mlp, post = (at(f"hook_{n}") for n in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)
        if family not in PARALLEL:
            mid = at("hook_resid_mid")
            torch.testing.assert_close(pre + attn, mid, rtol=1e-6, atol=1e-6)
            assert (mid - pre).abs().max() > 1e-3
        if layer:
            assert torch.equal(acts[f"blocks.{layer - 1}.hook_resid_post"], pre)


def test_against_the_models_own_hidden_states_and_logits(model):
    ids = torch.tensor(random_ids([7]))
    acts = read_all(model, ids)
    with torch.no_grad():
        own = model.module(ids, output_hidden_states=True)
    for layer in range(3):
        assert torch.equal(acts[f"blocks.{layer}.hook_resid_pre"], own.hidden_states[layer])
    assert torch.equal(acts["unembed.hook_out"], own.logits)
    assert torch.equal(acts["ln_final.hook_in"], acts["blocks.2.hook_resid_post"])
    assert torch.equal(model.unembed(acts["blocks.2.hook_resid_post"]), own.logits)
    assert torch.equal(acts["hook_embed"], model.submodule(model.lm.embed)(ids))


def test_neurons_and_heads_reach_the_residual_through_their_projections(model):
    acts = read_all(model, random_ids([6, 6]))
    shape = model.lm
    for layer in range(3):
        z = acts[f"blocks.{layer}.attn.hook_z"]
        assert z.shape == (2, 6, shape.n_heads, shape.d_head)
        neurons = acts[f"blocks.{layer}.mlp.hook_post"]
        assert neurons.shape == (2, 6, shape.d_mlp)
        path = shape.mlp_out[layer]
        assert path is not None
        written = model.submodule(path)(neurons)
        raw = capture(model, random_ids([6, 6]), [f"{path}.output"], stop=False)[f"{path}.output"]
        torch.testing.assert_close(written, raw, rtol=1e-5, atol=1e-6)
        attn = model.sites[f"blocks.{layer}.attn.hook_z"].path
        raw = capture(model, random_ids([6, 6]), [f"{attn}.output"])[f"{attn}.output"]
        torch.testing.assert_close(model.submodule(attn)(z.flatten(2)), raw, rtol=1e-5, atol=1e-6)


def test_transformer_lens_means_the_same_places(model):
    ids = torch.tensor(random_ids([8]))
    acts = read_all(model, ids)
    _, cache = model.bridge.run_with_cache(ids)
    compared = 0
    for name in model.sites:
        if not name.startswith("blocks.") and name != "hook_embed":
            continue
        if name == "hook_embed" and name not in cache:
            continue
        theirs = cache[name].reshape(acts[name].shape)
        torch.testing.assert_close(theirs, acts[name], rtol=1e-4, atol=1e-4)
        compared += 1
    assert compared >= 3 * 6


def test_massive_residual_does_not_fool_the_proof():
    """A stream so large that a loose tolerance would call the block's input its resid_mid."""
    module = make_module("llama")
    with torch.no_grad():
        module.get_input_embeddings().weight[:, 5] += 3e4
        for layer in module.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
    model = wrap(module)
    paths = {model.sites[f"blocks.{i}.hook_resid_mid"].path.rpartition(".")[2] for i in range(3)}
    assert paths == {"post_attention_layernorm"}


def test_adds_up_needs_a_visible_summand():
    big = torch.full((4, 8), 1e6)
    small = torch.full((4, 8), 1e-3)
    assert not adds_up(big, big, small)
    assert adds_up(big + 10, big, torch.full((4, 8), 10.0))
    assert not adds_up(big, big, torch.full((4, 8), 10.0))
    assert not adds_up(big, big, torch.zeros(4, 8))
    assert not adds_up(None, big, small)
    assert not adds_up(big, big[:2], small)
    bf = torch.randn(4, 8, dtype=torch.bfloat16)
    other = torch.randn(4, 8, dtype=torch.bfloat16)
    assert adds_up(bf + other, bf, other)
    assert not adds_up(bf, bf, other)


def test_unknown_site_shows_the_nearest_names(llama):
    with pytest.raises(SiteError, match=r"blocks\.1\.hook_resid_post"):
        capture(llama, random_ids([3]), ["blocks.1.hook_residpost"])
    with pytest.raises(SiteError, match=r"model\.layers\.1\.mlp\.output"):
        capture(llama, random_ids([3]), ["model.layers.1.mlpp.output"])
    with pytest.raises(SiteError, match="list"):
        capture(llama, random_ids([3]), "blocks.1.hook_resid_post")
    with pytest.raises(SiteError, match="name the sites"):
        capture(llama, random_ids([3]), [])
    assert "blocks.9.hook_resid_post" not in llama.sites
    assert "model.norm.input" in llama.sites
    with pytest.raises(SiteError, match="self_attn"):
        llama.submodule("model.layers.0.self_atn")


def test_layer_parameters(llama):
    names = [n for n, _ in llama.layer_parameters([1])]
    assert names and all(n.startswith("model.layers.1.") for n in names)
    assert [n for n, _ in llama.layer_parameters([])] == []
    assert next(n for n, _ in llama.layer_parameters([-1])).startswith("model.layers.2.")
    with pytest.raises(SiteError, match="0…2"):
        list(llama.layer_parameters([3]))


def test_a_module_replaced_after_opening_is_seen(fresh):
    model = fresh("llama")
    ids = random_ids([4])
    before = capture(model, ids, ["blocks.1.mlp.hook_post"])["blocks.1.mlp.hook_post"]
    old = model.module.model.layers[1].mlp.down_proj

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = old

        def forward(self, x):
            return 2 * self.base(x)

    model.module.model.layers[1].mlp.down_proj = Doubled()
    name = "model.layers.1.mlp.down_proj.output"
    acts = capture(model, ids, ["blocks.1.mlp.hook_post", name])
    assert torch.equal(acts["blocks.1.mlp.hook_post"], before)
    torch.testing.assert_close(acts[name], 2 * old(before))
    del model.module.model.layers[1].mlp.down_proj
    with pytest.raises(ModelError, match="open the model again"):
        capture(model, ids, ["blocks.1.mlp.hook_post"])


def test_repeated_blocks_are_refused():
    module = make_module("llama")
    module.model.layers = nn.ModuleList([module.model.layers[0]] * 3)
    with pytest.raises(ModelError, match="repeats the same block"):
        wrap(module)
    assert not wrap(module, language=False).is_language_model


def test_overrides_are_checked():
    module = make_module("gpt2")
    model = wrap(module, overrides={"blocks": "transformer.h", "mlp_proj": "mlp.c_proj"})
    assert model.lm.n_layers == 3
    with pytest.raises(ModelError, match=r"transformer\.h"):
        wrap(module, overrides={"blocks": "transformer.hh"})
    with pytest.raises(ModelError, match="not a ModuleList"):
        wrap(module, overrides={"blocks": "transformer"})
    with pytest.raises(ModelError, match="unknown override"):
        wrap(module, overrides={"layers": "transformer.h"})
    with pytest.raises(ModelError, match="not a module"):
        wrap(module, overrides={"mlp_proj": "mlp.down"})


def test_post_norm_models_offer_only_what_holds():
    """OPT with norms after the sums (as OPT-350m): nothing adds up inside a block, so nothing is claimed there."""
    model = wrap(make_module("opt", do_layer_norm_before=False, _remove_final_layer_norm=True))
    assert "blocks.1.hook_resid_post" in model.sites
    assert "blocks.1.hook_mlp_out" not in model.sites
    assert "ln_final.hook_in" not in model.sites
    assert model.lm.final_norm is None
    acts = capture(model, random_ids([5]), ["blocks.2.hook_resid_post", "unembed.hook_out"])
    torch.testing.assert_close(model.unembed(acts["blocks.2.hook_resid_post"]), acts["unembed.hook_out"])


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3"])
def test_bfloat16_models_have_all_sites(family):
    model = wrap(make_module(family).to(torch.bfloat16))
    assert len(model.sites) == 3 * 7 + 4
    acts = capture(model, random_batch([5, 3]), ["blocks.1.hook_resid_mid"])
    assert acts["blocks.1.hook_resid_mid"].dtype == torch.bfloat16
    wide = capture(model, random_batch([5, 3]), ["blocks.1.hook_resid_mid"], dtype=torch.float32)
    assert wide["blocks.1.hook_resid_mid"].dtype == torch.float32
    assert model.parity(random_batch([5, 3])).identical


def test_shape_in_splits_heads_and_positions():
    site = Site("z", "", "input", heads=2)
    assert site.shape_in(torch.zeros(6, 8), (2, 3)).shape == (2, 3, 2, 4)
    assert site.shape_in(torch.zeros(1, 8), (1, 1)).shape == (1, 1, 2, 4)
    assert Site("x", "", "input").shape_in(torch.zeros(6, 8), None).shape == (6, 8)


def test_opening_leaves_the_module_as_it_was():
    module = make_module("gpt2").train()
    module.transformer.h[0].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    wrap(module)
    assert module.training and not module.transformer.h[0].training and module.transformer.h[1].training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "pad_token_id": 0}
NO_LENS = "more than a norm and a matrix, so no lens"


def built(kind, config, **fields):
    """A tiny random model of a class of transformers."""
    torch.manual_seed(0)
    return getattr(transformers, kind)(getattr(transformers, config)(**fields)).eval()


@pytest.mark.parametrize(("name", "scale"), [("Cohere", {"logit_scale": 0.25}), ("Granite", {"logits_scaling": 4.0})])
def test_the_lens_reads_scaled_logits_as_the_model_does(name, scale):
    model = wrap(built(f"{name}ForCausalLM", f"{name}Config", **{**GROUPED, **scale}))
    assert model.lm.logit_scale == pytest.approx(0.25, rel=1e-5)
    acts = capture(model, [[1, 2, 3, 4]], ["blocks.1.hook_resid_post", "unembed.hook_out"])
    logits = model([[1, 2, 3, 4]])
    torch.testing.assert_close(model.unembed(acts["blocks.1.hook_resid_post"]), logits)
    assert not torch.allclose(acts["unembed.hook_out"], logits)


def test_a_soft_cap_and_a_plain_head_have_no_factor():
    gemma = wrap(built("Gemma2ForCausalLM", "Gemma2Config", **GROUPED, head_dim=8, final_logit_softcapping=0.5))
    ids = [[1, 2, 3, 4]]
    last = capture(gemma, ids, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    assert gemma.lm.logit_scale == 1.0
    torch.testing.assert_close(gemma.unembed(last), gemma(ids))
    assert wrap(make_module("llama")).lm.logit_scale == 1.0


@pytest.mark.parametrize(
    "module",
    [
        lambda: built("BertLMHeadModel", "BertConfig", **SMALL, is_decoder=True),
        lambda: make_module("opt", do_layer_norm_before=False, word_embed_proj_dim=16),
    ],
    ids=["bert", "opt-350m"],
)
def test_a_head_that_is_more_than_a_matrix_is_read_by_no_lens(module):
    model = wrap(module())
    assert model.lm.logit_scale is None
    with pytest.raises(ModelError, match=NO_LENS):
        model.unembed(torch.zeros(1, 32))


def test_neurons_are_named_only_where_they_reach_the_residual_alone():
    """BERT keeps its MLP in two parts and Qwen2-MoE beside its experts; neither has one matrix from all neurons."""
    bert = wrap(built("RobertaForCausalLM", "RobertaConfig", **SMALL, is_decoder=True))
    experts = built(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        **GROUPED,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    mamba = built("MambaForCausalLM", "MambaConfig", vocab_size=64, hidden_size=32, num_hidden_layers=2)
    for model in (bert, wrap(experts), wrap(mamba, overrides={"blocks": "backbone.layers"})):
        assert not [name for name in model.sites if name.endswith("mlp.hook_post")]
        assert model.lm.mlp_out == (None, None) and model.lm.d_mlp == 0


def test_models_that_are_no_decoders_are_refused():
    with pytest.raises(ModelError, match=r"reads later tokens too.*language=False"):
        wrap(built("BertForMaskedLM", "BertConfig", **SMALL))
    with pytest.raises(ModelError, match="reads later tokens too"):  # the change is small where numbers are coarse
        wrap(built("BertForMaskedLM", "BertConfig", **SMALL, initializer_range=0.1).to(torch.bfloat16))
    t5 = built("T5ForConditionalGeneration", "T5Config", vocab_size=64, d_model=32, d_ff=48, num_layers=2, num_heads=4)
    with pytest.raises(ModelError, match=r"an encoder and a decoder.*language=False"):
        wrap(t5)
    assert not wrap(t5, language=False).is_language_model


def test_a_hybrid_needs_attention_in_some_block_only():
    module = built(
        "JambaForCausalLM",
        "JambaConfig",
        **GROUPED | {"num_hidden_layers": 4},
        attn_layer_period=2,
        attn_layer_offset=1,
        use_mamba_kernels=False,
        num_experts=2,
        num_experts_per_tok=1,
    )
    model = wrap(module)
    assert "blocks.1.attn.hook_z" in model.sites and "blocks.0.attn.hook_z" not in model.sites
    assert "blocks.0.mlp.hook_post" in model.sites and model.lm.d_head == 8
    assert model.parity([[1, 2, 3]]).identical
    assert "blocks.1.hook_resid_mid" in wrap(module, overrides={"attn": "self_attn"}).sites
    with pytest.raises(ModelError, match="not a module"):
        wrap(module, overrides={"attn": "self_atn"})


def test_norms_after_the_parts_leave_the_middle_to_the_mlp():
    """OLMo2 normalises what attention and MLP give; the MLP itself reads the middle of the block."""
    model = wrap(built("Olmo2ForCausalLM", "Olmo2Config", **GROUPED))
    names = ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"]
    acts = capture(model, [[1, 2, 3]], [f"blocks.1.{n}" for n in names], stop=False)
    pre, attn, mid, mlp, post = (acts[f"blocks.1.{n}"] for n in names)
    torch.testing.assert_close(pre + attn, mid)
    torch.testing.assert_close(mid + mlp, post)
    zeros = torch.zeros_like(mid)
    with edit(model, patch("blocks.1.hook_resid_mid", zeros)):
        after = capture(model, [[1, 2, 3]], ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"])
    torch.testing.assert_close(after["blocks.1.hook_mlp_out"], after["blocks.1.hook_resid_post"])


def test_the_context_is_read_by_either_name_and_only_if_it_is_a_limit():
    fields = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 48}
    assert wrap(built("MptForCausalLM", "MptConfig", **fields)).lm.n_ctx == 48
    module = make_module("llama")
    module.config.max_position_embeddings = -1
    assert wrap(module).lm.n_ctx is None


def test_sites_lost_to_numbers_that_are_not_finite_are_named():
    module = make_module("llama")
    with torch.no_grad():
        module.model.layers[1].self_attn.o_proj.weight.fill_(float("nan"))
    with pytest.warns(UserWarning, match=r"2 blocks from model\.layers\.1 on .*hook_attn_out, hook_resid_mid"):
        model = wrap(module)
    assert "blocks.0.hook_mlp_out" in model.sites and "blocks.1.hook_mlp_out" not in model.sites
    assert model.lm.mlp_out[2] == "model.layers.2.mlp.down_proj" and model.lm.final_norm == "model.norm"
    assert model.unembed(torch.zeros(1, 32)).shape == (1, 400)
