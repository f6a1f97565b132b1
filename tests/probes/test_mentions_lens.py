from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.hooked import Activations, answer_batch, capture
from interp_unlearn.probes import (
    lens_evidence,
    logit_lens,
    logit_lens_grid,
    mention_activations,
    residual_sites,
)


def test_mentions_are_read_at_the_last_token_of_the_name(model, task):
    sites = residual_sites(model)
    acts = mention_activations(model, task, sites, batch_size=4)
    assert acts.sites == tuple(sites)
    assert len(acts.labels["entity"]) == 9 * 2
    assert acts.labels["group"][:2] == ("target", "target")
    assert acts.labels["template"][:2] == ("m1", "m2")
    assert acts[sites[0]].shape == (18, 1, 32)
    assert acts.mask_policy == "last token of the name"
    for mention, row in (
        (task.mentions(task.known_ref, "heldout")[1], 3),
        (task.mentions(task.target_entities, "heldout")[1], 1),
    ):
        ends = [end for _, end in model.batch([mention.text]).offsets[0]]
        column = next(c for c, end in enumerate(ends) if end >= mention.name_span[1])
        alone = capture(model, mention.text, sites, positions=column)
        for site in sites:
            torch.testing.assert_close(acts[site][row], alone[site][0], rtol=1e-5, atol=1e-5)
        word = model.tokenizer.decode(acts.tokens[row])
        assert word.strip() and mention.text[: mention.name_span[1]].endswith(word)


def test_batches_and_order_change_nothing(model, task):
    site = residual_sites(model)[1]
    one = mention_activations(model, task, [site], batch_size=1)
    many = mention_activations(model, task, [site], batch_size=50)
    torch.testing.assert_close(one[site], many[site], rtol=1e-5, atol=1e-5)
    assert torch.equal(one.tokens, many.tokens)
    assert one.labels == many.labels


def test_positions_after_the_name_and_the_train_split(model, task):
    site = residual_sites(model)[1]
    at_name = mention_activations(model, task, [site])
    later = mention_activations(model, task, [site], after_name=1)
    assert (later.positions - at_name.positions).flatten().tolist() == [1] * 18
    train = mention_activations(model, task, [site], "train", after_name=1)  # these texts end with the name
    assert set(train.labels["template"]) == {"m0"}
    assert torch.equal(train.positions, mention_activations(model, task, [site], "train").positions)
    assert "after the name" in later.mask_policy


def test_mentions_survive_saving(model, task, tmp_path):
    acts = mention_activations(model, task, residual_sites(model)[:1])
    acts.save(tmp_path)
    back = Activations.load(tmp_path)
    assert list(back.labels["group"]) == list(acts.labels["group"])
    assert back.mask_policy == acts.mask_policy


def test_tasks_that_cannot_be_read_are_refused(model, task):
    with pytest.raises(DataError, match="no mention templates"):
        mention_activations(model, replace(task, mention_heldout=()), residual_sites(model))
    with pytest.raises(DataError, match="disjoint"):
        mention_activations(model, replace(task, known_eval=task.known_ref), residual_sites(model))


def test_the_last_layer_of_the_lens_is_the_models_own_prediction(model, task):
    prompts = task.forget_heldout.prompts
    lens = logit_lens(model, prompts, batch_size=1)
    assert lens.axes[0].labels == ("Japan|capital|q1", "São Tomé|capital|q1")
    for row, prompt in enumerate(prompts):
        encoded = answer_batch(model, [prompt.text], [prompt.answer])
        at = int(encoded.answer.int().argmax())
        with torch.no_grad():
            logprob = model.forward(encoded.batch)[0, at - 1].log_softmax(-1)
        right = encoded.batch.tokens[0, at]
        measured = lens.values[row, -1]
        assert measured[0] == pytest.approx(float(logprob[right]), abs=1e-4)
        assert measured[1] == int((logprob > logprob[right]).sum()) + 1
        wrong = {int(model.batch([f"{prompt.text} {o}"]).tokens[0, at]) for o in prompt.options} - {int(right)}
        expected = float(logprob[right] - logprob[sorted(wrong)].mean())
        assert measured[2] == pytest.approx(expected, abs=1e-4)
    batched = logit_lens(model, prompts, batch_size=8)
    np.testing.assert_allclose(batched.values, lens.values, rtol=1e-4, atol=1e-4)


def test_chosen_layers_and_prompts_without_options(model, task):
    prompt = replace(task.forget_heldout.prompts[0], options=())
    lens = logit_lens(model, [prompt], layers=[2])
    assert lens.values.shape == (1, 1, 4)
    assert np.isnan(lens.at(measure="margin")).all()
    with pytest.raises(DataError, match=r"layers \[7\]"):
        logit_lens(model, [prompt], layers=[7])
    with pytest.raises(DataError, match="at least one prompt"):
        logit_lens(model, [])
    assert "no prompt has wrong options" in lens_evidence(lens, lens).reason


def test_the_grid_covers_the_prompt_without_its_answer(model, task):
    prompt = task.forget_heldout.prompts[1]
    grid = logit_lens_grid(model, prompt)
    tokens = model.batch([prompt.text]).tokens[0]
    assert [a.name for a in grid.axes] == ["layer", "position", "measure"]
    assert grid.values.shape == (3, len(tokens), 3)
    assert (grid.at(measure="top") >= grid.at(measure="answer") - 1e-12).all()
    top = grid.config["top_tokens"]
    assert len(top) == 3 and len(top[0]) == len(tokens)
    with torch.no_grad():
        own = model.forward(model.batch([prompt.text]))[0].softmax(-1)
    np.testing.assert_allclose(grid.at(layer="2", measure="top"), own.max(-1).values.numpy(), atol=1e-5)
    assert top[-1] == [model.tokenizer.decode([i]) for i in own.argmax(-1).tolist()]
    assert Labelled.from_json(grid.to_json()).config["top_tokens"] == top


def table(margins):
    values = np.zeros((*np.shape(margins), 3))
    values[..., 2] = margins
    names = tuple(f"e{i % 2}|capital|t{i // 2}" for i in range(len(margins)))
    axes = (Axis("prompt", names), Axis("layer", ("0", "1", "2")), Axis("measure", ("logprob", "rank", "margin")))
    return Labelled("lens", values, axes, n=len(margins), mask_policy="last token of the prompt")


def test_lens_evidence_takes_the_layer_where_the_answer_is_most_readable():
    before, after = table([[0, 2.0, 5.0]] * 6), table([[0, 1.5, -3.0]] * 6)
    found = lens_evidence(before, after, gold=table([[0, 0.1, 0.0]] * 6))
    assert found.name == "lens.margin/forget"
    assert found.value == pytest.approx(1.5)  # hidden: gone at the end, readable in the middle
    assert found.control == pytest.approx(5)
    assert found.config["layer"] == "1"
    assert found.config["gold"] == pytest.approx(0.1)
    assert found.details["layers"].at(phase="after").tolist() == [0, 1.5, -3]
    broken = table([[0, np.nan, 0]] * 6)
    assert "broken" in lens_evidence(before, broken).reason
    with pytest.raises(DataError, match="different prompts"):
        lens_evidence(before, table([[0, 1, 2.0]] * 4))
