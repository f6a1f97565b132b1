import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig, MixtralForCausalLM

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import wrap
from interp_unlearn.unlearn import OBJECTIVES, Recipe, Stop, Trainable, default_recipe
from interp_unlearn.unlearn._trainable import select


def test_round_trip_through_json():
    recipe = Recipe(
        "npo",
        options={"beta": 0.2, "alpha": 2},
        transforms=({"name": "clip_by_module", "norm": 0.5}, {"name": "mask", "rows": [0, 1]}),
        sampler_options={"by_kind": True},
        trainable=Trainable(layers=(0, 1), modules=("mlp_out",)),
        stop=Stop("forget_npo", below=1.0),
    )
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.options.alpha == 2.0
    assert again.transforms[1][1].rows == (0, 1)


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(OBJECTIVES)),
    steps=st.integers(1, 1000),
    lr=st.floats(1e-7, 1.0),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)),
    lora=st.integers(0, 8),
)
def test_every_objective_round_trips(name, steps, lr, betas, lora):
    recipe = Recipe(name, steps=steps, lr=lr, betas=betas, trainable=Trainable(lora_rank=lora))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "recipe.objective is missing"),
        ({"objective": "nop"}, "unknown objective 'nop'; nearest: npo"),
        ({"objective": "npo", "stpes": 3}, "unknown field 'stpes'; nearest: steps"),
        ({"objective": "npo", "steps": 0}, "recipe.steps is 0; use at least 1"),
        ({"objective": "npo", "steps": 2.5}, "recipe.steps must be a whole number"),
        ({"objective": "npo", "lr": "high"}, "recipe.lr must be a number"),
        ({"objective": "npo", "lr": -1}, "recipe.lr is -1"),
        ({"objective": "npo", "options": {"betta": 1}}, "unknown field 'betta'; nearest: beta"),
        ({"objective": "npo", "options": {"beta": 0}}, "options.beta is 0"),
        ({"objective": "npo", "options": {"alpha": True}}, "must be a number"),
        ({"objective": "npo", "betas": [0.9]}, "recipe.betas needs 2 values"),
        ({"objective": "npo", "betas": [0.9, 1.0]}, "beta < 1"),
        ({"objective": "npo", "schedule": "cosine"}, "use one of constant, linear"),
        ({"objective": "npo", "sampler": "pair"}, "unknown sampler 'pair'; nearest: paired"),
        ({"objective": "npo", "transforms": [{"name": "msk"}]}, "unknown transform 'msk'; nearest: mask"),
        ({"objective": "npo", "transforms": ["mask"]}, "write a table with a name"),
        ({"objective": "npo", "transforms": [{"name": "mask", "row": [1]}]}, "unknown field 'row'; nearest: rows"),
        ({"objective": "npo", "trainable": {"layers": [3, 1]}}, "give the first and the last block"),
        ({"objective": "npo", "trainable": {"layer": [0, 1]}}, "unknown field 'layer'; nearest: layers"),
        ({"objective": "npo", "trainable": "all"}, "recipe.trainable must be a table"),
        ({"objective": "npo", "stop": {"below": 1.0}}, "recipe.stop.term is missing"),
        ({"objective": "npo", "stop": {"term": "x", "smoothing": 1.0}}, "stop.smoothing is 1.0"),
        ({"objective": "ga", "options": {"alpha": 1.0}}, "known fields: none"),
        ({"objective": "sae_guided", "options": {"distance": "l3"}}, "use one of l2, cosine, l1"),
        ({"objective": "sae_guided", "options": {"lambda_": -0.5}}, "options.lambda_ is -0.5"),
        ({"objective": "sae_guided", "options": {"loss": "push", "basis": "pca"}}, "'push' selects latents"),
        ({"objective": "sae_guided", "options": {"loss": "literal", "target": "mmd"}}, "has no 'mmd' version"),
        ({"objective": "rmu", "options": {"layer": -1}}, "options.layer is -1"),
        ({"objective": "npo", "optimizer": "adam"}, "recipe.optimizer is 'adam'; nearest: adamw"),
        ({"objective": "npo", "lr": float("inf")}, "recipe.lr is inf"),
        ({"objective": "npo", "options": {"gamma": 0.0, "alpha": 0.0}}, "nothing is trained"),
        (
            {"objective": "sae_guided", "options": {"latents": "selected", "basis": "pca"}},
            "'selected' goes by how often",
        ),
    ],
)
def test_errors_name_the_field_and_the_fix(data, said):
    with pytest.raises(ConfigError, match=r"recipe|options|stop|trainable|objective|sampler|transform") as caught:
        Recipe.from_dict(data)
    assert said in str(caught.value)


@pytest.mark.parametrize("sampler", ["random", "sequential", "cyclic", "modular", "balanced"])
def test_another_sampler_brings_its_own_options(sampler, model):
    """The tuned table of ``sae_guided`` has options of the sampler ``paired``."""
    assert default_recipe("sae_guided", model).sampler_options.by_kind
    made = default_recipe("sae_guided", model, overrides={"sampler": sampler})
    assert made.sampler == sampler


def test_learning_rate_schedule():
    recipe = Recipe("ga", steps=10, lr=1.0, warmup=2, schedule="linear")
    assert [recipe.learning_rate(s) for s in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    assert Recipe("ga", lr=1.0).learning_rate(99) == 1.0


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_default_recipes_fit_the_model(name, model):
    recipe = default_recipe(name, model)
    assert recipe.objective == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    changed = default_recipe(name, model, overrides={"steps": 3, "trainable": {"lora_rank": 2}})
    assert changed.steps == 3
    assert changed.trainable.lora_rank == 2
    assert changed.trainable.layers == recipe.trainable.layers
    assert changed.lr == recipe.lr


@pytest.mark.parametrize("name", ["rmu", "sae_guided", "crisp"])
def test_default_recipes_train_whole_blocks_of_a_mixture_of_experts(name):
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    model = wrap(MixtralForCausalLM(config).eval(), None, name="experts")
    recipe = default_recipe(name, model)
    assert any("experts" in parameter for parameter in select(model, recipe.trainable))


def test_default_recipe_refuses_a_layer_that_is_not_there(model):
    with pytest.raises(ConfigError, match=r"blocks 0…2"):
        default_recipe("sae_guided", model, layer=3)
