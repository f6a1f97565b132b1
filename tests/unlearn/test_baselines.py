import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import capture, score_answers
from interp_unlearn.unlearn import Draw, Recipe, Trainable, Unlearner
from interp_unlearn.unlearn.objectives._answers import cross_entropy, questions, summed_logprobs, text_windows
from interp_unlearn.unlearn.objectives.npo import npo_loss
from interp_unlearn.unlearn.objectives.rmu import masked_mse

LOW = Trainable(layers=(0, 1), modules=("mlp_out",))


def first(model, task, name, draw=None, **options):
    """Parts and gradients of the first step."""
    unlearner = Unlearner(model, task, Recipe(name, options=options, trainable=LOW))
    trained = list(unlearner._set.trained.values())
    parts = list(unlearner.objective.parts(draw or unlearner.sampler.draw(0)))
    grads = {p.side: torch.autograd.grad(p.loss, trained) for p in parts}
    return unlearner, parts, grads


def test_ga_is_the_negated_token_mean(model, task):
    _, (part,), _ = first(model, task, "ga", Draw((0, 1)))
    prompts = task.forget_train.prompts
    scores = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts])
    assert float(part.loss.detach()) == pytest.approx(float(scores.logprob.sum() / scores.n_tokens.sum()), abs=1e-5)
    assert part.terms["forget_nll"] == pytest.approx(-float(part.loss.detach()))


def test_ga_draws_nothing_from_the_retain_side(model, task):
    unlearner, _, _ = first(model, task, "ga")
    assert not unlearner.objective.uses_retain
    assert unlearner.sampler.draw(0).retain == ()


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_npo_starts_at_two_over_beta_log_two(model, task, beta):
    _, parts, _ = first(model, task, "npo", beta=beta)
    assert parts[0].terms["forget_npo"] == pytest.approx(2 / beta * math.log(2), rel=1e-5)
    assert parts[0].terms["log_ratio"] == pytest.approx(0, abs=1e-5)


def test_npo_starts_as_ascent_on_the_summed_log_probability(model, task):
    unlearner, _, grads = first(model, task, "npo", Draw((0, 1), (0,)), alpha=0.0)
    items = [unlearner.objective.forget[i] for i in (0, 1)]
    mean = summed_logprobs(model, items).mean()
    ascent = torch.autograd.grad(mean, list(unlearner._set.trained.values()))
    for mine, expected in zip(grads["forget"], ascent, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@given(st.floats(-50, 50), st.floats(0.01, 5))
def test_npo_force_is_two_sigmoid(r, beta):
    ratio = torch.tensor([r], dtype=torch.float32, requires_grad=True)
    (force,) = torch.autograd.grad(npo_loss(ratio, beta), ratio)
    assert float(force.detach()) == pytest.approx(2 / (1 + math.exp(-beta * r)), rel=1e-3, abs=1e-6)


def test_grad_diff_is_the_difference(model, task):
    _, parts, _ = first(model, task, "grad_diff", Draw((0, 1), (0, 3)), gamma=0.5, alpha=2.0)
    retain = questions(task.retain_train.prompts)
    expected = cross_entropy(model, [retain[0], retain[3]])
    assert [p.side for p in parts] == ["forget", "retain"]
    assert float(parts[1].loss.detach()) == pytest.approx(2 * float(expected.detach()), rel=1e-6)
    assert float(parts[0].loss.detach()) == pytest.approx(-0.5 * parts[0].terms["forget_nll"], rel=1e-6)


@pytest.mark.parametrize("name", ["grad_diff", "npo", "rmu"])
def test_weights_of_zero_remove_a_side(model, task, name):
    unlearner, parts, _ = first(model, task, name, alpha=0.0)
    assert [p.side for p in parts] == ["forget"]
    assert unlearner.pools.retain == ()
    _, parts, _ = first(model, task, name, gamma=0.0)
    assert [p.side for p in parts] == ["retain"]


@pytest.mark.parametrize("name", ["ga", "grad_diff", "npo", "rmu"])
def test_padding_changes_nothing(model, task, name):
    """A short row has the same loss alone and beside a longer one."""
    options = {} if name == "ga" else {"alpha": 0.0}
    both = first(model, task, name, Draw((0, 1)), **options)[1][0].loss.detach()
    one = first(model, task, name, Draw((0,)), **options)[1][0].loss.detach()
    two = first(model, task, name, Draw((1,)), **options)[1][0].loss.detach()
    assert float(both) == pytest.approx(float(one + two) / 2, rel=1e-5)  # one-token answers: token mean = row mean


def test_text_windows_are_whole_words_after_the_first(model):
    windows = text_windows(model, ("we went home early and I like", "now", "the home of"), 5, 4)
    assert [(w.prompt, w.answer) for w in windows] == [("we", "went home"), ("the", "home of")]
    assert {w.item.kind for w in windows} == {"text"}
    assert len(text_windows(model, ("we went", "the home"), 1, 4)) == 1


def test_rmu_loss_by_hand():
    h = torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[0.0, 0.0], [2.0, 0.0]]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    # rows: ((0² + 2²)/2) / 1 = 2; ((1 + 1)/2 + (1 + 1)/2) / 2 = 1
    assert float(masked_mse(h, torch.tensor([1.0, 1.0]), mask)) == pytest.approx(1.5)


def test_rmu_steers_to_a_fixed_positive_vector(model, task):
    unlearner, parts, _ = first(model, task, "rmu", layer=1, coefficient=3.0)
    goal = unlearner.objective.goal
    assert float(goal.norm()) == pytest.approx(3.0, rel=1e-6)
    assert (goal >= 0).all()
    again, _, _ = first(model, task, "rmu", layer=1, coefficient=3.0)
    assert torch.equal(goal, again.objective.goal)
    assert parts[1].terms["retain_rmu"] == pytest.approx(0, abs=1e-8)
    scaled, _, _ = first(model, task, "rmu", layer=1, coefficient=2.0, scale="norm")
    acts = capture(
        model, [p.full for p in task.forget_train.prompts], ["blocks.1.hook_resid_post"], mask_policy="inner"
    )
    median = acts.flat("blocks.1.hook_resid_post").norm(dim=1).median()
    assert float(scaled.objective.goal.norm()) == pytest.approx(2 * float(median), rel=1e-5)


def test_rmu_answer_mask_counts_the_answer_alone(model, task):
    unlearner, parts, _ = first(model, task, "rmu", Draw((0,), (0,)), layer=1, tokens="answer")
    prompt = task.forget_train.prompts[0]
    h = capture(model, prompt.full, ["blocks.1.hook_resid_post"], positions=-1)["blocks.1.hook_resid_post"][0, 0]
    assert float(parts[0].loss.detach()) == pytest.approx(
        float((h - unlearner.objective.goal).square().mean()), rel=1e-5
    )


def test_rmu_layer_must_exist(model, task):
    with pytest.raises(ConfigError, match="blocks 0…2"):
        first(model, task, "rmu", layer=3)


@pytest.mark.parametrize(("name", "lr"), [("ga", 1e-2), ("grad_diff", 1e-2), ("npo", 1e-2)])
def test_it_forgets(make, name, lr):
    model, task = make.model(), make.task()
    prompts = task.forget_train.prompts
    before = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob.mean()
    unlearner = Unlearner(model, task, Recipe(name, trainable=LOW, lr=lr, steps=15))
    while not unlearner.done:
        unlearner.step()
    after = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob.mean()
    assert after < before - 1


def test_reference_is_the_original_model(make):
    """After a step the log-ratio is measured against the weights at the start, not the current ones."""
    model, task = make.model(), make.task()
    prompts = task.forget_train.prompts
    score = lambda: score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob  # noqa: E731
    before = score()
    unlearner = Unlearner(model, task, dataclasses.replace(Recipe("npo", trainable=LOW, lr=1e-2, steps=3)))
    unlearner.step()
    now = score()
    assert unlearner.step()["log_ratio"] == pytest.approx(float((now - before).mean()), abs=1e-4)
