import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.unlearn import Draw, Item, Recipe, Trainable, Unlearner
from interp_unlearn.unlearn.objectives._answers import QA, answer_tokens
from interp_unlearn.unlearn.objectives.flat import CONJUGATE, VARIATIONAL, answer_loss, template_loss
from interp_unlearn.worlds._types import QASet

LOW = Trainable(layers=(0, 1), modules=("mlp_out",))
PAPER = ("kl", "js", "pearson", "tv")
DIVERGENCES = sorted(VARIATIONAL)
probability = st.floats(0, 1, allow_subnormal=False)

# (P_e, P_f): KL, JS, Pearson, TV
TABLE = {
    (0.5, 0.5): (0.106531, 0.061860, 0.062500, 0.0),
    (0.2, 0.9): (0.704837, 0.452998, 0.902500, 0.259461),
    (0.9, 0.1): (-0.493430, -0.300744, -0.797500, -0.308315),
    (0.0, 1.0): (1.0, 0.620115, 1.25, 0.380797),
    (1.0, 0.0): (-0.632121, -0.379885, -1.0, -0.380797),
    (0.0, 0.0): (0.367879, 0.0, 0.0, 0.0),
}


def total(p_e, p_f, divergence):
    e, f = (torch.tensor(float(p), dtype=torch.float64) for p in (p_e, p_f))
    return float(template_loss(e, divergence) + answer_loss(f, divergence))


@pytest.mark.parametrize("pair", TABLE)
def test_values_of_the_four_divergences(pair):
    for divergence, expected in zip(PAPER, TABLE[pair], strict=True):
        assert total(*pair, divergence) == pytest.approx(expected, abs=1e-6), divergence


@given(probability, probability)
def test_values_of_the_other_four_by_hand(p_e, p_f):
    expected = {
        "reverse_kl": math.exp(-p_e) - 1 + p_f,
        "jeffrey": -p_e + p_f + p_f**2 / 4 + p_f**3 / 16,
        "squared_hellinger": math.exp(-p_e) - 1 + math.exp(p_f) - 1,
        "neyman": math.exp(-p_e) - 1 + 2 - 2 * math.exp(-p_f / 2),
    }
    for divergence, value in expected.items():
        assert total(p_e, p_f, divergence) == pytest.approx(value, abs=1e-9), divergence


WEIGHTS = {  # of the template and of the answer, as implied by the closed forms
    "kl": (lambda e: 1.0, lambda f: math.exp(f - 1)),
    "js": (lambda e: 1 / (1 + math.exp(e)), lambda f: 1 / (1 + math.exp(-f))),
    "pearson": (lambda e: 1.0, lambda f: 1 + f / 2),
    "tv": (lambda e: (1 - math.tanh(e) ** 2) / 2, lambda f: (1 - math.tanh(f) ** 2) / 2),
}


@given(probability, probability)
def test_the_divergence_sets_both_weights(p_e, p_f):
    for divergence in DIVERGENCES:
        e, f = (torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in (p_e, p_f))
        up, down = torch.autograd.grad(template_loss(e, divergence) + answer_loss(f, divergence), [e, f])
        assert float(up) < 0 < float(down)
        if divergence in WEIGHTS:
            w_e, w_f = WEIGHTS[divergence]
            assert (-float(up), float(down)) == pytest.approx((w_e(p_e), w_f(p_f)), abs=1e-6)


@given(probability, probability)
def test_total_variation_is_antisymmetric(a, b):
    assert total(a, b, "tv") == pytest.approx(-total(b, a, "tv"), abs=1e-12)
    assert total(a, a, "tv") == pytest.approx(0, abs=1e-12)


@given(probability)
def test_composition_for_jensen_shannon(v):
    x = torch.tensor(v, dtype=torch.float64)
    expected = v + math.log1p(math.exp(-v)) - math.log(2)
    assert float(CONJUGATE["js"](VARIATIONAL["js"](x))) == pytest.approx(expected, abs=1e-9)


def flat(model, task, **options):
    return Unlearner(model, task, Recipe("flat", options=options, trainable=LOW))


def test_probability_is_the_mean_over_the_answers_own_tokens(model):
    items = [QA("the colour of Ama is", "dark blue", Item()), QA("what is", "red", Item())]
    with torch.no_grad():
        batch = answer_tokens(model, items)
        together = batch.row_mean(batch.logprobs().exp())
        logits = model.forward(model.batch("the colour of Ama is dark blue"))[0].softmax(-1)
    ids = model.tokenizer("dark blue", add_special_tokens=False)["input_ids"]
    assert float(together[0]) == pytest.approx(float((logits[-3, ids[0]] + logits[-2, ids[1]]) / 2), rel=1e-4)


def test_uniform_predictions_have_probability_one_over_the_vocabulary(model, task):
    torch.nn.init.zeros_(model.submodule(model.lm.unembed).weight)
    unlearner = flat(model, task)
    items = [QA("the colour of Ama is", answer, Item()) for answer in ("red", "dark blue")]
    p = unlearner.objective._probability(items)
    assert p.tolist() == pytest.approx([1 / model.lm.d_vocab] * 2, rel=1e-5)


def test_loss_of_a_batch_is_the_mean_over_its_items(make):
    task = make.task(3)
    for divergence in PAPER:
        unlearner = flat(make.model(), task, divergence=divergence)
        objective = unlearner.objective
        objective.templates.choices = [("blue",)] * len(objective.forget)

        def loss(*forget, objective=objective):
            return sum(float(p.loss.detach()) for p in objective.parts(Draw(forget)))

        whole = loss(0, 2, 5)
        assert whole == pytest.approx((loss(0) + loss(2) + loss(5)) / 3, abs=1e-6)
        assert whole == pytest.approx(loss(5, 0, 2), abs=1e-6)


def test_padded_denominator_is_the_released_codes(make):
    """P over all padded positions and over the batch, before the divergence."""
    unlearner = flat(make.model(), make.task(3), divergence="kl", denominator="padded", padded_length=101)
    objective = unlearner.objective
    objective.templates.choices = [("blue",)] * len(objective.forget)
    template, answer = objective.parts(Draw((0, 2)))
    tokens = answer_tokens(objective.model, [objective.forget[0], objective.forget[2]])
    p = float(tokens.logprobs().exp().sum().detach()) / 100 / 2
    assert float(answer.loss.detach()) == pytest.approx(math.exp(p - 1), rel=1e-5)
    assert answer.terms["p_answer"] == pytest.approx(p, rel=1e-4)
    assert 0 < template.terms["p_template"] < 0.01


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_one_step_raises_the_template_and_lowers_the_answer(make, divergence):
    model, task = make.model(), make.task()
    unlearner = flat(model, task, divergence=divergence)
    objective = unlearner.objective
    objective.templates.choices = [("gold",)] * len(objective.forget)
    trained = list(unlearner._set.trained.values())
    draw = Draw((0, 1))
    with unlearner._set.installed():
        before = [p.terms for p in objective.parts(draw)]
        grads = [torch.autograd.grad(p.loss, trained) for p in objective.parts(draw)]
        with torch.no_grad():
            for parameter, *pair in zip(trained, *grads, strict=True):
                parameter -= 0.05 * sum(pair)
        after = [p.terms for p in objective.parts(draw)]
    assert after[0]["p_template"] > before[0]["p_template"]
    assert after[1]["p_answer"] < before[1]["p_answer"]


def test_neither_retain_data_nor_a_reference_is_touched(make):
    """Everything of the task but the target's own questions may be missing or broken; no pass runs before training."""
    model, whole = make.model(), make.task()
    no_answer = dataclasses.replace(whole.retain_train.prompts[0], answer=" ")  # reading it would fail
    broken = QASet("broken", (no_answer,))
    task = dataclasses.replace(
        whole, known_ref=(), unknown_ref=(), retain_train=broken, text_train=(), mention_train=()
    )
    with pytest.raises(DataError, match="an answer is empty"):
        Unlearner(model, task, Recipe("pdu", trainable=LOW))
    passes = []
    handle = model.module.register_forward_hook(lambda *_: passes.append(1))
    unlearner = flat(model, task)
    assert not passes
    assert not unlearner.objective.uses_retain
    assert unlearner.pools.retain == ()
    unlearner.step()
    handle.remove()
    assert len(passes) == 2  # template and answer, live model both
    normal = flat(make.model(), whole)
    normal.step()
    for name, value in unlearner.changed().items():
        assert torch.equal(value, normal.changed()[name])


def test_templates_are_drawn_afresh_by_seed_and_step(make):
    unlearner = flat(make.model(), make.task())
    drawn = [[q.answer for q in unlearner.objective.templates.draw(Draw((0, 1), step=s))] for s in range(20)]
    assert len({tuple(d) for d in drawn}) > 5
    again = flat(make.model(), make.task()).objective.templates
    assert [q.answer for q in again.draw(Draw((0, 1), step=7))] == drawn[7]
    other = Unlearner(make.model(), make.task(), Recipe("flat", trainable=LOW, seed=1)).objective.templates
    assert [[q.answer for q in other.draw(Draw((0, 1), step=s))] for s in range(20)] != drawn


def test_options():
    with pytest.raises(ConfigError, match="use one of kl, js"):
        Recipe.from_dict({"objective": "flat", "options": {"divergence": "chi"}})
    with pytest.raises(ConfigError, match="unknown field 'alpha'"):
        Recipe.from_dict({"objective": "flat", "options": {"alpha": 1.0}})
    with pytest.raises(ConfigError, match="padded_length is 1"):
        Recipe("flat", options={"padded_length": 1})
