"""Fast attribution against nested loops, and what theory says about both."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, ModelError
from interp_unlearn.hooked import AnswerBatch, Batch, answer_batch, score_answers
from interp_unlearn.neurons import Attribution, AttributionConfig, attribute, attribute_batch
from interp_unlearn.neurons._attention import SharedPrefix
from interp_unlearn.neurons._suffix import Suffix, _Logprob

from .conftest import ANSWERS, CORRUPTED, PROMPTS, make_model, shared
from .reference import PLACES, slow

IG = "integrated_gradients"


def compare(model, config, places, corrupted=None, **kwargs):
    found = attribute(model, PROMPTS, ANSWERS, config, corrupted=corrupted)
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        scores, attributed, removed = slow(
            model,
            prompt,
            answer,
            places=places,
            kind=config.target,
            tokens=config.tokens,
            aggregate=config.aggregate,
            corrupted=None if corrupted is None else corrupted[i],
            **kwargs,
        )
        mine = torch.from_numpy(found.scores.values[i])
        assert float((mine - scores).abs().max()) <= 1e-4 * max(float(scores.abs().max()), 1e-12)
        row = found.completeness.values[i]
        if model.name in ("gemma3", "llama", "qwen2"):  # their norms compute in float32 whatever the weights are
            clean = math.exp(found.scores.config["logprob"][i])
            near = {"rtol": 1e-4, "atol": 1e-4 * max(float(scores.abs().max()), 0.1 * clean)}
        else:
            near = {"rtol": 1e-7, "atol": 1e-9 * float(scores.abs().max())}
        np.testing.assert_allclose(row[:, 0], attributed, **near)
        np.testing.assert_allclose(row[:, 1], removed, **near)
        np.testing.assert_allclose(row[:, 2], row[:, 0] - row[:, 1], atol=1e-15)
    return found


@pytest.mark.parametrize("tokens", ["content", "last"])
def test_gradient_activation_agrees_with_the_reference(family, tokens):
    found = compare(shared(family), AttributionConfig(tokens=tokens), [1.0])
    assert found.scores.config["prefix"] == "run once"


@pytest.mark.parametrize("tokens", ["content", "last"])
def test_integrated_gradients_agree_with_the_reference(family, tokens):
    config = AttributionConfig(method=IG, steps=3, tokens=tokens)
    found = compare(shared(family), config, PLACES["midpoint"](3))
    assert found.scores.config["prefix"] == "run once"


def test_attribution_patching_agrees_with_the_reference(family):
    compare(shared(family), AttributionConfig(method="attribution_patching"), [1.0], CORRUPTED)


@pytest.mark.parametrize("rule", PLACES)
def test_rules(rule):
    config = AttributionConfig(method=IG, steps=4, rule=rule, tokens="last", target="mean_logprob")
    compare(shared(), config, PLACES[rule](4))


@pytest.mark.parametrize("tokens", ["all", "inner", "prompt"])
@pytest.mark.parametrize("aggregate", ["sum", "mean", "abs_sum", "last"])
def test_tokens_and_aggregates(tokens, aggregate):
    compare(shared("gpt2"), AttributionConfig(tokens=tokens, aggregate=aggregate, target="logprob"), [1.0])


def test_other_sites_and_baselines():
    pre = AttributionConfig(method=IG, steps=3, site="transformer.h.{layer}.mlp.c_fc.output", tokens="last")
    compare(shared("gpt2"), pre, PLACES["midpoint"](3), site="transformer.h.{}.mlp.c_fc.output")
    compare(shared("llama"), AttributionConfig(method=IG, steps=3), PLACES["midpoint"](3), CORRUPTED)
    heads = attribute(shared("llama"), PROMPTS, ANSWERS, AttributionConfig(site="attn.hook_z"))
    assert heads.scores.values.shape == (4, 3, 16)


def test_float32_agrees_with_the_reference_in_float64():
    config = AttributionConfig(method=IG, steps=3)
    low = attribute(make_model("llama", dtype=torch.float32), PROMPTS, ANSWERS, config).scores.values
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        high = slow(make_model("llama"), prompt, answer, places=PLACES["midpoint"](3))[0].numpy()
        assert np.abs(low[i] - high).max() <= 1e-4 * np.abs(high).max()


def test_gradient_activation_is_the_right_rule_with_one_point():
    one = attribute(shared(), PROMPTS, ANSWERS)
    right = attribute(shared(), PROMPTS, ANSWERS, AttributionConfig(method=IG, rule="right", steps=1))
    np.testing.assert_allclose(one.scores.values, right.scores.values, atol=1e-9 * np.abs(one.scores.values).max())


def gap(rule, steps, **kwargs):
    config = AttributionConfig(method=IG, rule=rule, steps=steps, **kwargs)
    return attribute(shared(), PROMPTS, ANSWERS, config).gap


def test_midpoint_is_complete_and_its_error_falls_with_the_square_of_the_steps():
    assert gap("midpoint", 20) < 5e-3
    assert gap("midpoint", 40) < 1e-3
    assert 3 < gap("midpoint", 16) / gap("midpoint", 32) < 5
    for rule in ("left", "right"):
        assert 1.6 < gap(rule, 16) / gap(rule, 32) < 2.4
        assert gap(rule, 20) > 10 * gap("midpoint", 20)


def test_joint_path_is_complete_over_all_layers():
    config = AttributionConfig(method=IG, layers="joint", steps=60)
    found = attribute(shared(), PROMPTS, ANSWERS, config)
    assert found.completeness.axes[1].labels == ("all layers",)
    assert found.gap < 2e-3
    each = found.completeness.at(quantity="attributed")[:, 0]
    sums = attribute(
        shared(), PROMPTS, ANSWERS, AttributionConfig(method=IG, layers="joint", steps=60, aggregate="sum")
    )
    np.testing.assert_allclose(sums.scores.values.sum((1, 2)), each, rtol=1e-9)
    coarse = AttributionConfig(method=IG, layers="joint", steps=15)
    assert attribute(shared(), PROMPTS, ANSWERS, coarse).gap > 4 * found.gap


@pytest.mark.parametrize("layers", ["each", "joint"])
@pytest.mark.parametrize("tokens", ["content", "last"])
def test_the_memory_budget_changes_nothing(layers, tokens):
    big, small = (
        attribute(
            shared(),
            PROMPTS,
            ANSWERS,
            AttributionConfig(method=IG, steps=5, layers=layers, tokens=tokens, max_tokens=budget),
        )
        for budget in (100_000, 1)
    )
    np.testing.assert_allclose(big.scores.values, small.scores.values, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(big.completeness.values, small.completeness.values, rtol=1e-9, atol=1e-13)


def test_no_pass_is_larger_than_the_budget(monkeypatch):
    sizes = []
    model = make_model()
    forward = model.module.model.embed_tokens.forward
    monkeypatch.setattr(
        model.module.model.embed_tokens, "forward", lambda ids: sizes.append(ids.numel()) or forward(ids)
    )
    for steps in (4, 40):
        sizes.clear()
        attribute(model, PROMPTS, ANSWERS, AttributionConfig(method=IG, steps=steps, max_tokens=24))
        assert max(sizes) <= 24


def test_probability_and_logprob_rank_the_neurons_of_a_prompt_alike():
    p, logp = (attribute(shared(), PROMPTS, ANSWERS, AttributionConfig(target=t)) for t in ("probability", "logprob"))
    logprob = np.array(p.scores.config["logprob"])
    np.testing.assert_allclose(p.scores.values, np.exp(logprob)[:, None, None] * logp.scores.values, rtol=1e-10)
    np.testing.assert_allclose(logprob, score_answers(shared(), PROMPTS, ANSWERS).logprob, rtol=1e-4)


def test_parameter_times_gradient_identities():
    """Summed over tokens, h dP/dh is a column of W_down times its gradient, and a row of W_up, but not of W_gate."""
    model = make_model()
    found = attribute(model, PROMPTS, ANSWERS, AttributionConfig(aggregate="sum", tokens="all")).scores.values.sum(0)
    encoded = answer_batch(model, PROMPTS, ANSWERS)
    logits = model(encoded.batch)
    rows, columns = encoded.answer.nonzero(as_tuple=True)
    each = logits[rows, columns - 1].log_softmax(-1).gather(1, encoded.batch.tokens[rows, columns][:, None])[:, 0]
    torch.zeros(4, dtype=each.dtype).index_add(0, rows, each).exp().sum().backward()
    for layer, block in enumerate(model.module.model.layers):
        mlp = block.mlp
        down = (mlp.down_proj.weight * mlp.down_proj.weight.grad).sum(0).detach().numpy()
        up = (mlp.up_proj.weight * mlp.up_proj.weight.grad).sum(1).detach().numpy()
        gate = (mlp.gate_proj.weight * mlp.gate_proj.weight.grad).sum(1).detach().numpy()
        scale = np.abs(down).max()
        np.testing.assert_allclose(found[layer], down, atol=1e-5 * scale)
        np.testing.assert_allclose(found[layer], up, atol=1e-5 * scale)
        assert np.abs(found[layer] - gate).max() > 0.01 * scale


def test_padding_changes_nothing():
    model = make_model("llama", dtype=torch.float32)
    together = attribute(model, PROMPTS, ANSWERS).scores.values
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        alone = attribute(model, [prompt], [answer]).scores.values[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-5 * np.abs(alone).max())
    encoded = answer_batch(model, PROMPTS, ANSWERS)
    wide = [
        torch.nn.functional.pad(t, (0, 3))
        for t in (encoded.batch.tokens, encoded.batch.attended, encoded.batch.special, encoded.answer)
    ]
    padded = AnswerBatch(Batch(*wide[:3]), wide[3])
    again = attribute_batch(model, padded, AttributionConfig()).scores.values
    np.testing.assert_allclose(again, together, atol=1e-5 * np.abs(together).max())


def test_dead_neurons_get_exactly_zero():
    model = make_model()
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[:, 3] = 0
        model.module.model.layers[2].mlp.up_proj.weight[5] = 0
    for method in ("gradient_activation", IG):
        values = attribute(model, PROMPTS, ANSWERS, AttributionConfig(method=method)).scores.values
        assert (values[:, 1, 3] == 0).all()
        assert (values[:, 2, 5] == 0).all()
        assert (values[:, 1, 4] != 0).all()


def test_the_model_is_left_as_it_was():
    model = make_model()
    model.module.train()
    before = {n: (p.requires_grad, p.detach().clone()) for n, p in model.module.named_parameters()}
    attribute(model, PROMPTS, ANSWERS, AttributionConfig(method=IG, steps=2, tokens="last"))
    assert model.module.training
    for name, p in model.module.named_parameters():
        assert (p.requires_grad, p.grad) == (before[name][0], None)
        assert torch.equal(p, before[name][1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert not any("forward" in m.__dict__ for m in model.module.modules())


def test_without_a_cache_the_result_is_the_same(monkeypatch):
    model = make_model()
    config = AttributionConfig(method=IG, steps=3, tokens="last")
    fast = attribute(model, PROMPTS, ANSWERS, config)
    monkeypatch.setattr("interp_unlearn.neurons._suffix.Suffix.trial", lambda _: ("asked for", False))
    slow_ = attribute(model, PROMPTS, ANSWERS, config)
    assert slow_.scores.config["prefix"] == "asked for"
    np.testing.assert_allclose(fast.scores.values, slow_.scores.values, atol=1e-9 * np.abs(fast.scores.values).max())


def test_results_are_labelled_and_saved():
    found = attribute(shared(), PROMPTS, ANSWERS)
    assert found.n == 4
    assert found.scores.mask_policy == "content"
    assert [axis.name for axis in found.scores.axes] == ["prompt", "layer", "neuron"]
    assert found.scores.axes[1].labels[2] == "blocks.2.mlp.hook_post"
    assert found.scores.config["method"] == "gradient_activation"
    again = Attribution.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.scores.values, found.scores.values)
    assert again.gap == found.gap
    site, neuron, score = found.top(1)[0]
    assert score == found.over_prompts().at(layer=site, neuron=str(neuron)) == found.over_prompts().values.max()
    assert found.over_prompts().config["completeness_gap"] == found.gap
    few = attribute(shared(), PROMPTS, ANSWERS, AttributionConfig(completeness_prompts=0))
    assert math.isnan(few.gap)


def test_bad_input():
    model = shared()
    with pytest.raises(DataError, match=r"pass corrupted="):
        attribute(model, PROMPTS, ANSWERS, AttributionConfig(method="attribution_patching"))
    with pytest.raises(DataError, match="another number of tokens"):
        attribute(model, PROMPTS[:1], ANSWERS[:1], AttributionConfig(method=IG), corrupted=["the capital of is"])
    with pytest.raises(DataError, match="has no baseline"):
        attribute(model, PROMPTS, ANSWERS, corrupted=CORRUPTED)
    with pytest.raises(ModelError, match="has no site"):
        attribute(model, PROMPTS, ANSWERS, AttributionConfig(site="mlp.hook_nothing"))
    for wrong, message in [
        ({"steps": 0}, "steps is 0"),
        ({"rule": "ends", "steps": 1}, "at least 2"),
        ({"layers": "joint"}, "is a path of integrated gradients"),
        ({"max_tokens": 0}, "max_tokens"),
    ]:
        with pytest.raises(ConfigError, match=message):
            AttributionConfig(**wrong)


def test_nan_weights_are_refused():
    model = make_model()
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(DataError, match="check the model's weights for NaN"):
        attribute(model, PROMPTS, ANSWERS)


def test_all_zero_gradients_are_said_aloud():
    model = make_model()
    with torch.no_grad():
        for block in model.module.model.layers:
            block.mlp.down_proj.weight.zero_()
    with pytest.warns(UserWarning, match="every attribution is exactly zero"):
        attribute(model, PROMPTS, ANSWERS)


@pytest.mark.parametrize("tokens", ["content", "last"])
def test_a_pass_that_rows_join_gives_what_whole_passes_give(family, tokens, monkeypatch):
    config = AttributionConfig(method=IG, steps=3, tokens=tokens, rule="right")
    trial, joined = Suffix.trial, []

    def look(self):
        joined.append(trial(self)[1])
        return trial(self)

    monkeypatch.setattr(Suffix, "trial", look)
    fast = attribute(shared(family), PROMPTS, ANSWERS, config)
    assert all(joined) == (family != "opt"), (
        "OPT flattens rows and positions into one axis, so each row runs every block"
    )
    monkeypatch.setattr(Suffix, "trial", lambda self: (trial(self)[0], False))
    plain = attribute(shared(family), PROMPTS, ANSWERS, config)
    near = 1e-4 if family in ("gemma3", "llama", "qwen2") else 1e-9  # their norms compute in float32
    np.testing.assert_allclose(fast.scores.values, plain.scores.values, atol=near * np.abs(plain.scores.values).max())


def test_blocks_run_only_the_rows_that_have_joined(monkeypatch):
    model, sizes = make_model("gpt2"), {}
    for layer, block in enumerate(model.module.transformer.h):
        forward = block.mlp.forward
        monkeypatch.setattr(
            block.mlp, "forward", lambda x, f=forward, i=layer: sizes.setdefault(i, []).append(tuple(x.shape)) or f(x)
        )
    config = AttributionConfig(method=IG, steps=7, tokens="last", completeness_prompts=0)
    attribute(model, PROMPTS[1:2], ["Blue"], config)
    assert [max(sizes[i])[:2] for i in range(3)] == [(7, 1), (14, 1), (21, 1)], "one position, and the rows so far"


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("new", [1, 3])
def test_attention_to_shared_keys_is_attention(heads, new):
    torch.manual_seed(0)
    q = torch.randn(5, heads[0], new, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(5, heads[1], new, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    old = [torch.randn(1, heads[1], 6, 8, dtype=torch.float64).expand(5, -1, -1, -1) for _ in range(2)]
    mask = torch.ones(new, 6 + new, dtype=torch.bool).tril(6)[None, None]
    mask = mask & (torch.rand(5, 1, 1, 6 + new) > 0.3).index_fill(3, torch.tensor([0]), True)
    weight = torch.randn(5, heads[0], new, 8, dtype=torch.float64)
    found = []
    for mode in (nullcontext(), SharedPrefix()):
        for given in (mask, mask.double().log(), None if new == 1 else mask):
            with mode:
                out = torch.nn.functional.scaled_dot_product_attention(
                    q, torch.cat([old[0], k], 2), torch.cat([old[1], v], 2), given, scale=0.3, enable_gqa=True
                )
            found.append((out, *torch.autograd.grad((out * weight).sum(), (q, k, v))))
    for plain, fast in zip(found[:3], found[3:], strict=True):
        for a, b in zip(plain, fast, strict=True):
            torch.testing.assert_close(a, b)
    with SharedPrefix():  # what it is not made for is left alone
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    torch.testing.assert_close(out, torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True))


def test_the_gradient_of_a_log_probability():
    logits = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    ids, weight = torch.tensor([0, 6, 3, 3]), torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    mine, plain = _Logprob.apply(logits, ids), logits.log_softmax(-1)[torch.arange(4), ids]
    torch.testing.assert_close(mine, plain)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), logits)[0] for x in (mine, plain))
    torch.testing.assert_close(ours, theirs)


def test_few_gauss_points_are_as_complete_as_many_midpoints():
    assert gap("gauss", 4) < 0.1 * gap("midpoint", 20)
    assert gap("gauss", 4, tokens="last") < 0.1 * gap("midpoint", 20, tokens="last")
