"""KLUE's score on planted neurons, mismatched questions, choosing, and the weights of a neuron."""

import json
import math

import numpy as np
import pytest
import torch

from interp_unlearn._core import Axis, ConfigError, DataError, FileFormatError, Labelled, ModelError
from interp_unlearn.hooked import ablate, capture, edit, score_answers
from interp_unlearn.neurons import (
    AttributionConfig,
    NeuronSet,
    Regularised,
    attribute,
    attribution_change,
    draw_contexts,
    klue_scores,
    matched_random,
    neuron_masks,
    select_neurons,
    shared_neurons,
)
from interp_unlearn.worlds import Prompt

from .conftest import ANSWERS, PROMPTS, make_model, shared

POOL_TEXTS = [
    "the capital of Cor is",
    "what city is the capital of Cor",
    "in Bel we did see",
    "now the big city of Bel is",
]
EVERYWHERE, CONTEXTUAL = 1, 0


def ask(text, answer, entity="", relation="capital", **more):
    return Prompt(text, answer, entity, relation, "t", (0, 1), **more)


FORGET = [ask(PROMPTS[0], "Red", "ama")]
POOL = [ask(text, answer, "other") for text, answer in zip(POOL_TEXTS, ["Blue", "Town", "far", "Lake"], strict=True)]


def planted():
    """OPT whose last MLP has two neurons, both pushing "Red": one on every prompt, one on the forget prompt only."""
    model = make_model("opt", dtype=torch.float64)
    blocks = model.module.model.decoder.layers
    with torch.no_grad():
        for block in blocks:
            block.fc1.weight.zero_(), block.fc1.bias.zero_(), block.fc2.weight.zero_(), block.fc2.bias.zero_()
        last = blocks[-1]
        texts = [f"{p.text} Red" for p in (*FORGET, *POOL)]
        site = f"{model.lm.blocks[-1]}.fc1.input"
        every = [capture(model, t, [site], mask_policy="all")[site].reshape(-1, 16) for t in texts]
        inputs = torch.stack([values[-2] for values in every])  # the last prompt token, which alone the answer sees
        wanted = torch.full((len(inputs),), -1.0, dtype=torch.float64)
        wanted[0] = 1.0
        weight = torch.linalg.lstsq(torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1), wanted[:, None]).solution
        last.fc1.weight[CONTEXTUAL], last.fc1.bias[CONTEXTUAL] = weight[:-1, 0], weight[-1, 0]
        last.fc1.bias[EVERYWHERE] = 1.0
        token = model.tokenizer.convert_tokens_to_ids("Red")
        value = model.module.get_output_embeddings().weight[token]
        value = value - value.mean()
        last.fc2.weight[:, CONTEXTUAL] = last.fc2.weight[:, EVERYWHERE] = value / value.norm()
    return model


def rank(labelled, neuron):
    """Place of a neuron of the last layer among all, 0 being the best."""
    flat = np.argsort(-labelled.values, axis=None, kind="stable").tolist()
    return flat.index((labelled.values.shape[0] - 1) * labelled.values.shape[1] + neuron)


def test_regularisation_sends_the_answer_anywhere_neuron_to_the_bottom():
    model = planted()
    plain = klue_scores(model, FORGET, POOL, regularised=Regularised(alpha=0.0)).score
    assert {rank(plain, CONTEXTUAL), rank(plain, EVERYWHERE)} == {0, 1}
    found = klue_scores(model, FORGET, POOL, regularised=Regularised(alpha=50.0))
    assert rank(found.score, CONTEXTUAL) == 0
    assert rank(found.score, EVERYWHERE) == found.score.values.size - 1
    assert found.superficial.values[-1, EVERYWHERE] > 0
    hard = klue_scores(model, FORGET, POOL, regularised=Regularised(alpha=0.0, exclude=1 / plain.values.size)).score
    assert hard.values[-1, EVERYWHERE] == -math.inf
    assert select_neurons(hard, 1 / plain.values.size).by_layer == {2: (CONTEXTUAL,)}


@pytest.mark.parametrize("aggregate", ["max", "sum", "mean", "abs_sum", "last"])
def test_a_planted_contextual_neuron_is_first_under_every_aggregation(aggregate):
    model = planted()
    with torch.no_grad():
        model.module.model.decoder.layers[-1].fc1.bias[EVERYWHERE] = -1.0
    config = AttributionConfig(aggregate=aggregate)
    assert rank(klue_scores(model, FORGET, POOL, config=config).score, CONTEXTUAL) == 0


def test_alpha_zero_is_plain_attribution_and_needs_no_pool():
    forget = [ask(p, a, str(i)) for i, (p, a) in enumerate(zip(PROMPTS, ANSWERS, strict=True))]
    found = klue_scores(shared(), forget, [], regularised=Regularised(alpha=0.0))
    plain = attribute(shared(), PROMPTS, ANSWERS).over_prompts()
    np.testing.assert_array_equal(found.score.values, plain.values)
    assert found.contexts == ((), (), (), ())
    assert found.score.n == 4
    assert found.score.config["completeness_gap"] == pytest.approx(found.gap)


def test_the_formula_by_hand():
    forget = [*FORGET, ask(PROMPTS[1], "Blue", "bel")]
    options = Regularised(alpha=2.0, contexts=2, clamp=False)
    found = klue_scores(shared(), forget, POOL, regularised=options, seed=3)
    assert all(len(texts) == 2 for texts in found.contexts)
    total = 0
    for sample, texts in zip(forget, found.contexts, strict=True):
        mine = attribute(shared(), [sample.text], [sample.answer]).scores.values[0]
        other = attribute(shared(), list(texts), [sample.answer] * 2).scores.values.mean(0)
        total = total + (mine - 2.0 * other) / 2
    np.testing.assert_allclose(found.score.values, total, atol=1e-6 * np.abs(total).max())
    clamped = klue_scores(shared(), forget, POOL, regularised=Regularised(alpha=2.0, contexts=2), seed=3)
    assert (clamped.score.values <= clamped.plain.values + 1e-15).all()
    scaled = klue_scores(shared(), forget, POOL, regularised=Regularised(alpha=0.0, normalise=True))
    assert np.abs(scaled.score.values).sum() <= 1 + 1e-9


def test_mismatched_questions_ask_another_fact_with_another_answer():
    pool = [
        ask("same fact", "x", "ama", "capital"),
        ask("same answer", "RED", "bel", "capital"),
        ask("also the answer", "x", "cor", "capital", also=("red",)),
        ask("other relation", "Euro", "ama", "currency"),
        ask("other entity", "Blue", "bel", "capital"),
    ]
    for seed in range(5):
        (texts,) = draw_contexts(FORGET, pool, 5, seed)
        assert set(texts) == {"other relation", "other entity"}
    assert draw_contexts(FORGET, POOL, 2, 0) == draw_contexts(FORGET, POOL, 2, 0)
    assert len({draw_contexts(FORGET, POOL, 2, seed) for seed in range(8)}) > 1
    with pytest.raises(DataError, match="no mismatched question"):
        draw_contexts(FORGET, pool[:3], 5, 0)
    with pytest.raises(DataError, match="no forget sample"):
        klue_scores(shared(), [], POOL)


def table(values):
    values = np.asarray(values, dtype=float)
    axes = (Axis("layer", tuple("abc"[: len(values)])), Axis("neuron", tuple(str(i) for i in range(values.shape[1]))))
    return Labelled("scores", values, axes, n=1, mask_policy="content")


def test_choosing_by_hand():
    scores = table([[5, 1, -9, 0], [4, 3, 2, 0], [0, 0, 0, -1]])
    assert select_neurons(scores, 0.25).by_layer == {0: (0,), 1: (0, 1)}
    assert select_neurons(scores, 0.25, sign="absolute").by_layer == {0: (0, 2), 1: (0,)}
    assert select_neurons(scores, 0.25, scope="per_layer").by_layer == {0: (0,), 1: (0,), 2: (0,)}
    everything = select_neurons(scores, 1.0)
    assert len(everything) == 12
    assert everything.ratio == 1


def test_neurons_shared_by_most_prompts_by_hand():
    values = np.array([[[10, 2, 1.9, 0]], [[1, 5, 5, 0]], [[4, 0.9, 4, -9]]])
    axes = (Axis("prompt", ("p", "q", "r")), Axis("layer", ("a",)), Axis("neuron", tuple("0123")))
    scores = Labelled("s", values, axes, n=3, mask_policy="last")
    assert shared_neurons(scores, prompts=1.0).by_layer == {0: (0, 1)}  # 0.9 is above a fifth of 4
    assert shared_neurons(scores, prompts=0.6).by_layer == {0: (0, 1, 2)}
    assert shared_neurons(scores, threshold=0.5, prompts=0.6).by_layer == {0: (0, 2)}
    with pytest.raises(DataError, match="no neuron is strong"):
        shared_neurons(scores, threshold=1.0, prompts=1.0)
    with pytest.raises(ConfigError, match="threshold"):
        shared_neurons(scores, threshold=0.0)


def test_erasing_and_hiding_by_hand():
    before = table([[4, 0, -1, 0]])
    erased, hidden = table([[1, 0, -1, 0]]), table([[4, -2, -2, 0]])
    assert attribution_change(before, erased).values.tolist() == [[3, 0]]
    assert attribution_change(before, hidden).values.tolist() == [[0, 3]]
    with pytest.raises(DataError, match="different prompts"):
        attribution_change(before, table([[1, 2]]))
    logprob = attribute(shared(), PROMPTS, ANSWERS, AttributionConfig(target="logprob")).scores
    with pytest.raises(DataError, match="differ in target"):
        attribution_change(attribute(shared(), PROMPTS, ANSWERS).scores, logprob)


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.333, 0.5, 1.0])
def test_the_count_is_the_rounded_share(ratio):
    values = np.random.default_rng(0).normal(size=(3, 40))
    assert len(select_neurons(table(values), ratio)) == max(1, round(ratio * 120))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, math.nan])
def test_impossible_ratios_are_refused(ratio):
    with pytest.raises(ConfigError, match="use a share of the neurons"):
        select_neurons(table([[1, 2]]), ratio)


def test_scores_that_say_nothing_are_refused():
    with pytest.raises(DataError, match="exactly zero"):
        select_neurons(table([[0, 0]]), 0.5)
    with pytest.raises(DataError, match="holds NaN"):
        select_neurons(table([[math.nan, 1]]), 0.5)
    with pytest.raises(DataError, match="fewer neurons are left"):
        select_neurons(table([[-math.inf, 1]]), 1.0)
    with pytest.raises(DataError, match="axes"):
        select_neurons(attribute(shared(), PROMPTS, ANSWERS).scores, 0.5)
    for wrong in ({"alpha": -1.0}, {"contexts": 0}, {"exclude": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Regularised(**wrong)


def test_the_control_has_the_same_count_in_each_layer_and_other_neurons():
    chosen = select_neurons(table(np.random.default_rng(0).normal(size=(3, 40))), 0.2)
    control = matched_random(chosen, seed=1)
    assert {k: len(v) for k, v in control.by_layer.items()} == {k: len(v) for k, v in chosen.by_layer.items()}
    assert all(not set(control.by_layer[layer]) & set(chosen.by_layer[layer]) for layer in chosen.by_layer)
    assert control == matched_random(chosen, seed=1) != matched_random(chosen, seed=2)
    most = select_neurons(table(np.random.default_rng(0).normal(size=(3, 40))), 0.9)
    assert len(matched_random(most)) == len(most)
    again = NeuronSet.from_json(json.loads(json.dumps(control.to_json())))
    assert again == control
    assert again.to_labelled().values.sum() == len(control)
    with pytest.raises(FileFormatError, match="not a saved set"):
        NeuronSet.from_json({"kind": "labelled"})


def neurons_of(model, by_layer):
    sites = AttributionConfig().sites(model.lm.n_layers)
    return NeuronSet(by_layer, sites, model.lm.d_mlp, "by hand")


def test_the_value_vector_is_the_neurons_contribution_to_the_residual_stream(family):
    """Change the masked entries: only h_i's own contribution to the MLP's output changes, by exactly h_i times that."""
    model = make_model(family)
    masks = neuron_masks(model, neurons_of(model, {1: (3,)}), "down")
    (name,) = masks
    assert int(masks[name].sum()) == 16
    out = name.removesuffix(".weight")
    sites = ["blocks.1.mlp.hook_post", f"{out}.output"]
    before = capture(model, PROMPTS[:1], sites)
    weight = model.module.get_parameter(name)
    shift = torch.randn(16, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weight[masks[name]] += shift
    after = capture(model, PROMPTS[:1], sites)
    h = before[sites[0]].reshape(-1, model.lm.d_mlp)[:, 3:4]
    change = (after[sites[1]] - before[sites[1]]).reshape(-1, 16)
    torch.testing.assert_close(change, h * shift, atol=1e-6, rtol=1e-6)
    assert torch.equal(after[sites[0]], before[sites[0]])


def test_the_key_side_changes_that_neuron_alone(family):
    model = make_model(family)
    masks = neuron_masks(model, neurons_of(model, {1: (3,)}), "up")
    gated = family in ("llama", "qwen2", "gemma3")
    assert len([n for n in masks if n.endswith(".weight")]) == (2 if gated else 1)
    assert len([n for n in masks if n.endswith(".bias")]) == (0 if gated else 1)
    site = "blocks.1.mlp.hook_post"
    before = capture(model, PROMPTS[:1], [site])[site].reshape(-1, model.lm.d_mlp)
    with torch.no_grad():
        for name, mask in masks.items():
            model.module.get_parameter(name)[mask] += 0.5
    after = capture(model, PROMPTS[:1], [site])[site].reshape(-1, model.lm.d_mlp)
    changed = (before != after).any(0).nonzero()[:, 0].tolist()
    assert changed == [3]
    assert set(neuron_masks(model, neurons_of(model, {1: (3,)}), "full")) > set(masks)


def test_rows_of_the_layer_whose_output_is_scored():
    model = make_model("gpt2")
    sites = AttributionConfig(site="transformer.h.{layer}.mlp.c_fc.output").sites(3)
    masks = neuron_masks(model, NeuronSet({0: (2, 5)}, sites, 64, "by hand"), "rows")
    assert set(masks) == {"transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_fc.bias"}
    assert masks["transformer.h.0.mlp.c_fc.weight"].nonzero()[:, 1].unique().tolist() == [2, 5]
    with pytest.raises(ConfigError, match="output of a linear layer"):
        neuron_masks(model, neurons_of(model, {0: (1,)}), "rows")
    with pytest.raises(ModelError, match="neurons were scored"):
        neuron_masks(model, NeuronSet({0: (2,)}, sites, 16, "by hand"), "down")


def test_scores_rank_neurons_like_ablation():
    """First-order scores of single neurons against their true effect, on a model with smooth activations."""
    model = shared("gpt2")
    config = AttributionConfig(aggregate="sum", target="logprob", tokens="content")
    scores = attribute(model, PROMPTS[:1], ANSWERS[:1], config).scores.values[0]
    clean = float(score_answers(model, PROMPTS[:1], ANSWERS[:1]).logprob[0])
    effects, mine = [], []
    for layer in range(3):
        for unit in range(0, 64, 4):
            with edit(model, ablate(f"blocks.{layer}.mlp.hook_post", units=[unit])):
                effects.append(clean - float(score_answers(model, PROMPTS[:1], ANSWERS[:1]).logprob[0]))
            mine.append(scores[layer, unit])
    order = lambda x: np.argsort(np.argsort(x))  # noqa: E731
    assert np.corrcoef(order(effects), order(mine))[0, 1] > 0.7
