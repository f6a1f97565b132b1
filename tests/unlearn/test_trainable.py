import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn import Recipe, Trainable, Unlearner
from interp_unlearn.unlearn._trainable import select
from interp_unlearn.zoo import open_model


def names(model, **policy):
    return list(select(model, Trainable(**policy)))


def test_choices(model):
    everything = [n for n, _ in model.module.named_parameters()]
    assert names(model) == everything
    assert names(model, layers=(0, 1), modules=("mlp_out",)) == [
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    ]
    assert names(model, layers=(2, 2), modules=("attn_out",)) == ["model.layers.2.self_attn.o_proj.weight"]
    assert len(names(model, layers=(1, 1), modules=("mlp",))) == 3
    assert len(names(model, layers=(1, 1), modules=("attn",))) == 4
    assert names(model, modules=("embed",)) == ["model.embed_tokens.weight"]
    assert names(model, modules=("*.1.*norm.weight",)) == [n for n in everything if ".1." in n and "norm" in n]
    assert all(n.startswith("model.layers.") for n in names(model, layers=(0, 2)))


def test_wrong_choices_name_the_nearest(model):
    with pytest.raises(ConfigError, match="nearest: mlp_out"):
        names(model, modules=("mlp_ou",))
    with pytest.raises(ConfigError, match=r"has 3 blocks \(0…2\)"):
        names(model, layers=(0, 3))


LORA = Recipe("ga", trainable=Trainable(layers=(0, 1), modules=("mlp_out", "attn"), lora_rank=2), steps=4, lr=1e-2)


def test_lora_leaves_the_module_tree_alone_and_merges(model, task, make):
    original = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    modules = dict(model.module.named_modules())
    unlearner = Unlearner(model, task, LORA)
    assert dict(model.module.named_modules()) == modules
    assert not hasattr(model.module, "peft_config")
    while not unlearner.done:
        unlearner.step()
    assert dict(model.module.named_modules()) == modules
    changed = unlearner.changed()
    assert set(changed) == {
        n
        for n in original
        if n.startswith(("model.layers.0.", "model.layers.1.")) and ("down_proj" in n or "self_attn" in n)
    }
    for name, parameter in model.module.named_parameters():
        moved = not torch.equal(parameter, original[name])
        assert moved == (name in changed), name
    delta = changed["model.layers.0.mlp.down_proj.weight"] - original["model.layers.0.mlp.down_proj.weight"]
    assert torch.linalg.matrix_rank(delta, tol=1e-6) <= 2
    other = make.model()
    other.module.load_state_dict(changed, strict=False)
    prompt = ["the colour of Ama is"]
    assert torch.equal(other(prompt), model(prompt))
    unlearner.restore()
    assert all(torch.equal(p, original[n]) for n, p in model.module.named_parameters())


def test_lora_over_everything_takes_the_linear_layers(model, task):
    unlearner = Unlearner(model, task, Recipe("ga", trainable=Trainable(lora_rank=2), steps=1, lr=1e-2))
    unlearner.step()
    changed = {n for n, p in unlearner.changed().items() if not torch.equal(p, unlearner.originals[n])}
    linear = {f"{n}.weight" for n, m in model.module.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(unlearner.originals) == linear
    assert changed
    assert "model.embed_tokens.weight" not in linear


@pytest.mark.parametrize("policy", [{"layers": (0, 1)}, {"modules": ("mlp_out",)}])
def test_blocks_of_what_is_no_language_model_are_refused(policy):
    plain = open_model(torch.nn.Sequential(torch.nn.Linear(3, 3)), language=False)
    with pytest.raises(ConfigError, match=r"trainable\.(layers|modules) = .*decoder language model.*'0\.weight'"):
        names(plain, **policy)


def test_lora_needs_a_linear_layer(model, task):
    with pytest.raises(ConfigError, match="no linear layer"):
        Unlearner(model, task, Recipe("ga", trainable=Trainable(modules=("*norm.weight",), lora_rank=2)))


def test_flags_and_modes_come_back(model, task):
    model.module.train()
    frozen = model.module.model.layers[0].mlp.down_proj.weight
    frozen.requires_grad_(False)
    flags = [p.requires_grad for p in model.module.parameters()]
    unlearner = Unlearner(model, task, Recipe("ga", steps=1, trainable=Trainable(layers=(0, 0), modules=("mlp_out",))))
    before = frozen.detach().clone()
    unlearner.step()
    assert not torch.equal(frozen, before)
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert model.module.training
    assert all(p.grad is None for p in model.module.parameters())
