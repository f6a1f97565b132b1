import numpy as np
import pytest
import torch
import transformers

from interp_unlearn._core import Axis, ConfigError, DataError, FileFormatError, Labelled, ModelError
from interp_unlearn.hooked import wrap
from interp_unlearn.probes import (
    LensStates,
    TunedLens,
    TunedLensConfig,
    depth_evidence,
    first_depth,
    fit_tuned_lens,
    half_depth,
    lens_states,
    logit_lens,
    read_lens,
)
from interp_unlearn.probes._tuned_lens import _head, lens_layers


def table(top, logprob=None, options=4):
    """A lens table over prompts of two facts and any number of layers."""
    top = np.array(top, dtype=float)
    values = np.zeros((*top.shape, 4))
    values[..., 0] = -5.0 if logprob is None else logprob
    values[..., 2] = np.where(top == 0, 1.0, -1.0)
    values[..., 3] = top
    names = tuple(f"e{i % 2}|capital|t{i // 2}" for i in range(len(top)))
    layers = Axis("layer", tuple(str(i) for i in range(top.shape[1])))
    axes = (Axis("prompt", names), layers, Axis("measure", ("logprob", "rank", "margin", "top_option")))
    config = {"n_layers": top.shape[1], "options": [options] * len(top)}
    return Labelled("lens", values, axes, n=len(top), mask_policy="last token of the prompt", config=config)


# -- depth ----------------------------------------------------------------------------------------------------------


def test_the_first_depth_by_hand():
    found = table([[1, 0, 1, 0, 0], [1, 1, 1, 1, 0], [1, 2, 3, 1, 2], [0, 0, 0, 0, 0]])
    assert first_depth(found, hold=1).tolist() == [0.2, 0.8, 1, 0]
    assert first_depth(found, hold=2).tolist() == [0.6, 0.8, 1, 0]  # one layer alone does not count, but the last does
    assert first_depth(found).tolist() == first_depth(found, hold=1).tolist()  # few layers
    deep = table([[0] + [1] * 8 + [0, 0]])
    assert first_depth(deep)[0] == pytest.approx(9 / 11)


def test_the_half_depth_is_relative_to_the_originals_last_layer():
    before = table(np.zeros((1, 4)), [[-9.0, -3, -1, -0.5]])
    after = table(np.zeros((1, 4)), [[-9.0, -3, -1.1, -4]])
    assert half_depth(before, before)[0] == 0.5  # -0.5 + log(1/2) = -1.19
    assert half_depth(after, before)[0] == 0.5
    assert half_depth(after, before, share=0.9)[0] == 1
    with pytest.raises(DataError, match="different prompts"):
        half_depth(after, table(np.zeros((3, 4))))


def test_an_answer_hidden_in_the_middle_is_seen():
    before, hidden = table([[1, 0, 0, 0]] * 6), table([[1, 0, 0, 2]] * 6)
    found = {
        e.name: e for e in depth_evidence({"before": before, "after": hidden}, {"before": before, "after": before})
    }
    first, depth = found["lens.first/forget"], found["lens.depth/forget"]
    assert first.value == 1
    assert first.config["last"] == 0
    assert first.control < 0.8
    assert depth.value == depth.control == 0.25
    assert depth.config["never"] == 0
    assert depth.config["control_before"] == 0.25
    assert depth.details["prompts"].at(phase="after").tolist() == [0.25] * 6


def test_a_forgotten_answer_is_first_no_more_often_than_a_wrong_one():
    rng = np.random.default_rng(0)
    before, after = table([[1, 0, 0, 0]] * 40), table(rng.integers(0, 5, size=(40, 4)))
    found = depth_evidence({"before": before, "after": after, "gold": after})
    first = next(e for e in found if e.name == "lens.first/forget")
    assert first.value <= first.config["control_p95"] + 0.1
    assert first.control == pytest.approx(0.28, abs=0.08)  # the largest of four shares of 1 in 5
    assert first.config["gold"] == first.value
    depth = next(e for e in found if e.name == "lens.depth/forget")
    assert depth.control is None and depth.config["no_control"]


def test_what_cannot_be_measured_says_why():
    good = table([[1, 0, 0, 0]] * 4)
    bare = table(np.full((4, 4), np.nan))
    found = {e.name: e for e in depth_evidence({"before": bare, "after": bare})}
    assert "no prompt has wrong options" in found["lens.first/forget"].reason
    assert np.isfinite(found["lens.half_depth/forget"].value)
    broken = table([[1, 0, 0, 0]] * 4, np.nan)
    assert all("broken" in e.reason for e in depth_evidence({"before": good, "after": broken}))
    with pytest.raises(DataError, match="different prompts"):
        depth_evidence({"before": good, "after": table([[1, 0, 0, 0]] * 3)})


# -- states and the tuned lens --------------------------------------------------------------------------------------


TEXTS = [
    f"People speak of {n} and of {m} in the spring" for n in ("Japan", "France", "Peru", "Gabon") for m in "abcdef"
]


def test_states_decoded_later_are_the_logit_lens(model, task):
    prompts = task.forget_heldout.prompts
    states = LensStates.from_tensors(lens_states(model, prompts, layers=[0, 2]).tensors())
    direct = logit_lens(model, prompts, layers=[0, 2])
    np.testing.assert_array_equal(read_lens(model, states, prompts).values, direct.values)
    top = direct.at(measure="top_option")
    for row in range(len(prompts)):
        for layer in range(2):
            logprob = model.unembed(states.states[row, layer]).log_softmax(-1)
            ids = [int(states.answer[row]), *[i for i in states.options[row].tolist() if i >= 0]]
            assert top[row, layer] == int(logprob[ids].argmax())


def test_a_tuned_lens_reads_the_models_own_prediction_better(model):
    lens = fit_tuned_lens(model, TEXTS, TunedLensConfig(steps=12, vocabulary=400, lr=0.01))
    assert lens.layers == (0, 1)  # the last layer needs none
    assert lens.weight.shape == (2, 32, 32)
    assert (lens.kl[:, 1] < 0.8 * lens.kl[:, 0]).all()
    assert (lens.kl[:, 2] <= lens.kl[:, 1]).all()
    again = fit_tuned_lens(model, TEXTS, TunedLensConfig(steps=12, vocabulary=400, lr=0.01))
    assert torch.equal(lens.weight, again.weight)


def test_the_lens_moves_only_the_layers_it_was_fitted_on(model, task):
    lens = fit_tuned_lens(model, TEXTS, TunedLensConfig(steps=0, max_layers=1))
    assert lens.layers == (0,)
    hidden = torch.randn(3, 32)
    assert torch.equal(lens.translate(2, hidden), hidden)
    torch.testing.assert_close(lens.translate(0, hidden), hidden + hidden @ lens.weight[0].T + lens.bias[0])
    prompts = task.forget_heldout.prompts
    found = read_lens(model, lens_states(model, prompts), prompts, lens)
    assert found.axes[1].labels == ("0", "2")  # layer 1 has no translator
    np.testing.assert_allclose(found.at(layer="2"), logit_lens(model, prompts).at(layer="2"))


def test_a_lens_survives_saving(model, tmp_path):
    lens = fit_tuned_lens(model, TEXTS, TunedLensConfig(steps=0))
    lens.save(tmp_path)
    back = TunedLens.load(tmp_path)
    assert back.layers == lens.layers
    assert torch.equal(back.weight, lens.weight) and torch.equal(back.kl, lens.kl)
    assert back.config["steps"] == 0
    with pytest.raises(FileFormatError, match="do not fit"):
        TunedLens.from_tensors({**lens.tensors(), "bias": lens.bias[:1]})
    with pytest.raises(FileFormatError, match="not the tensors"):
        TunedLens.from_tensors({"weight": lens.weight})
    (tmp_path / "tuned_lens.json").write_text('{"kind": "other"}')
    with pytest.raises(FileFormatError, match="does not hold"):
        TunedLens.load(tmp_path)


def test_bad_settings_and_too_little_text_are_refused(model):
    with pytest.raises(ConfigError, match="held_out"):
        TunedLensConfig(held_out=1.0)
    with pytest.raises(DataError, match="give more texts"):
        fit_tuned_lens(model, ["France and Peru", "Gabon"])


def test_layers_are_evenly_spaced_and_end_with_the_last():
    assert lens_layers(4, 10) == [0, 1, 2, 3]
    assert lens_layers(30, 10)[0] == 0 and lens_layers(30, 10)[-1] == 29 and len(lens_layers(30, 10)) == 11


def test_fitting_a_lens_leaves_no_gradient_in_the_model(model):
    norm = model.submodule(model.lm.final_norm).weight
    assert norm.requires_grad and norm.grad is None
    fit_tuned_lens(model, TEXTS, TunedLensConfig(steps=2, vocabulary=100, max_layers=1))
    assert all(p.grad is None for p in model.module.parameters())


def test_a_lens_reads_scaled_logits_and_refuses_a_head_that_is_no_matrix(model):
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.3}
    config = transformers.GraniteConfig(**sizes, **heads, num_key_value_heads=2, logits_scaling=8.0)
    granite = wrap(transformers.GraniteForCausalLM(config).eval(), model.tokenizer)
    hidden = torch.randn(5, 32)
    tokens = torch.tensor([3, 30, 300])
    torch.testing.assert_close(_head(granite, tokens)(hidden), granite.unembed(hidden)[:, tokens])
    bert = transformers.BertLMHeadModel(transformers.BertConfig(**{**sizes, **heads}, is_decoder=True)).eval()
    with pytest.raises(ModelError, match="no lens can read it"):
        fit_tuned_lens(wrap(bert, model.tokenizer), TEXTS, TunedLensConfig(steps=0))
