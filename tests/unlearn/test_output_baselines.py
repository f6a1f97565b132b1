import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import score_answers
from interp_unlearn.unlearn import Draw, Recipe, Trainable, Unlearner, unlearn
from interp_unlearn.unlearn.objectives._answers import answer_tokens, cross_entropy
from interp_unlearn.unlearn.objectives.ceu import ceu_loss
from interp_unlearn.unlearn.objectives.dpo import dpo_loss
from interp_unlearn.unlearn.objectives.pdu import dual_update, flatness
from interp_unlearn.unlearn.objectives.satimp import satimp_weight
from interp_unlearn.unlearn.objectives.simnpo import simnpo_loss
from interp_unlearn.unlearn.objectives.task_vector import negated
from interp_unlearn.unlearn.objectives.undial import undial_loss
from interp_unlearn.unlearn.objectives.wga import wga_loss

LOW = Trainable(layers=(0, 1), modules=("mlp_out",))
TWO_SIDED = ["simnpo", "dpo", "idk", "altpo", "undial", "wga", "satimp"]
LOG2 = math.log(2)


def start(model, task, name, **options):
    return Unlearner(model, task, Recipe(name, options=options, trainable=LOW))


def first(model, task, name, draw=None, **options):
    """Parts and gradients of the first step."""
    unlearner = start(model, task, name, **options)
    trained = list(unlearner._set.trained.values())
    parts = list(unlearner.objective.parts(draw or unlearner.sampler.draw(0)))
    grads = {p.side: torch.autograd.grad(p.loss, trained, allow_unused=True) for p in parts}
    return unlearner, parts, grads


@pytest.mark.parametrize("name", TWO_SIDED)
def test_weights_of_zero_remove_a_side(model, task, name):
    unlearner, parts, _ = first(model, task, name, alpha=0.0)
    assert [p.side for p in parts] == ["forget"]
    assert unlearner.pools.retain == ()
    assert not unlearner.objective.uses_retain
    _, parts, _ = first(model, task, name, gamma=0.0, alpha=1.0)
    assert [p.side for p in parts] == ["retain"]


@pytest.mark.parametrize("name", ["simnpo", "undial", "wga", "satimp", "ceu"])
def test_padding_changes_nothing(model, task, name):
    options = {} if name == "ceu" else {"alpha": 0.0}
    both, one, two = (
        float(first(model, task, name, Draw(f), **options)[1][0].loss.detach()) for f in ((0, 1), (0,), (1,))
    )
    assert both == pytest.approx((one + two) / 2, rel=1e-5)  # one-token answers: token mean = row mean


def test_kl_retain_starts_at_zero_and_is_the_divergence(model, task):
    unlearner, parts, grads = first(model, task, "grad_diff", Draw((0,), (0, 1)), retain_loss="kl")
    assert parts[1].terms["retain_kl"] == pytest.approx(0, abs=1e-6)
    assert all(float(g.abs().max()) < 1e-6 for g in grads["retain"])
    items = [unlearner.objective.retain.items[i] for i in (0, 1)]
    with torch.no_grad():
        before = answer_tokens(model, items).logits.log_softmax(-1)
        for parameter in unlearner._set.trained.values():
            parameter.mul_(0.5)
        now = answer_tokens(model, items).logits.log_softmax(-1)
    expected = float((before.exp() * (before - now)).sum(-1).mean())
    value = list(unlearner.objective.parts(Draw((0,), (0, 1))))[1].terms["retain_kl"]
    assert expected > 1e-4
    assert value == pytest.approx(expected, rel=1e-4)


# -- SimNPO ----------------------------------------------------------------------------------------------------------


def test_simnpo_by_hand(model, task):
    assert float(simnpo_loss(torch.tensor([0.0]), 4.5, 0.0)) == pytest.approx(0.308065, abs=1e-6)
    assert float(simnpo_loss(torch.tensor([0.7, 0.7]), 4.5, 0.7)) == pytest.approx(2 / 4.5 * LOG2, rel=1e-6)
    _, parts, _ = first(model, task, "simnpo", Draw((0, 1)), alpha=0.0, delta=0.5)
    prompts = task.forget_train.prompts
    scores = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts])
    s = -scores.logprob / scores.n_tokens - 0.5
    expected = (-(2 / 4.5) * torch.nn.functional.logsigmoid(4.5 * s)).mean()
    assert parts[0].terms["forget_simnpo"] == pytest.approx(float(expected), rel=1e-4)
    assert float(parts[0].loss.detach()) == pytest.approx(0.125 * float(expected), rel=1e-4)


# -- DPO, IDK, AltPO -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "altpo"])
@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_dpo_starts_at_two_over_beta_log_two(model, task, name, beta):
    _, parts, grads = first(model, task, name, beta=beta)
    assert parts[0].terms["forget_dpo"] == pytest.approx(2 / beta * LOG2, rel=1e-5)
    assert parts[0].terms["win_ratio"] == pytest.approx(0, abs=1e-5)
    assert max(float(g.abs().max()) for g in grads["forget"]) > 0


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.05, 2))
def test_dpo_pulls_both_ways_alike(win, lose, beta):
    ratios = [torch.tensor([r], dtype=torch.float64, requires_grad=True) for r in (win, lose)]
    up, down = torch.autograd.grad(dpo_loss(*ratios, beta), ratios)
    force = 2 / (1 + math.exp(beta * (win - lose)))
    assert (-float(up), float(down)) == pytest.approx((force, force), rel=1e-6)


def test_dpo_measures_against_the_original_weights(make):
    model, task = make.model(), make.task()
    unlearner = Unlearner(model, task, Recipe("dpo", trainable=LOW, lr=1e-2, steps=3, options={"alpha": 0.0}))
    score = lambda items: score_answers(model, [q.prompt for q in items], [q.answer for q in items]).logprob  # noqa: E731
    loses = unlearner.objective.forget
    draw = Draw((0, 1), step=1)
    wins = unlearner.objective.other.draw(draw)
    before = score(wins), score(loses)
    unlearner.step()
    now = score(wins), score(loses)
    assert unlearner.sampler.draw(1).forget in ((0, 1), (1, 0))
    terms = next(unlearner.objective.parts(draw)).terms
    assert terms["win_ratio"] == pytest.approx(float((now[0] - before[0]).mean()), abs=1e-4)
    assert terms["lose_ratio"] == pytest.approx(float((now[1] - before[1]).mean()), abs=1e-4)


def test_idk_is_supervised_training_on_the_other_answer(model, task, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("gold\n")
    _, parts, _ = first(model, task, "idk", Draw((0, 1)), alpha=0.0, gamma=2.0, answers_file=str(path))
    prompts = [p.text for p in task.forget_train.prompts]
    expected = -float(score_answers(model, prompts, ["gold", "gold"]).logprob.mean())
    assert float(parts[0].loss.detach()) == pytest.approx(2 * expected, rel=1e-5)


# -- UNDIAL ----------------------------------------------------------------------------------------------------------


def test_undial_by_hand():
    teacher, ids = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2])
    q = torch.tensor([[1.0, 2.0, -7.0]]).softmax(-1)
    z = torch.tensor([[0.5, 0.0, 1.0]], requires_grad=True)
    loss = undial_loss(z, teacher, ids, 10.0)
    assert float(loss.detach()) == pytest.approx(-float((q * z.detach().log_softmax(-1)).sum()), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, z.detach().softmax(-1) - q, rtol=1e-5, atol=1e-6)
    assert torch.equal(teacher, torch.tensor([[1.0, 2.0, 3.0]]))


def test_undial_without_a_penalty_is_at_rest(model, task):
    _, _, grads = first(model, task, "undial", beta=0.0)
    assert all(float(g.abs().max()) < 1e-6 for g in grads["forget"])
    _, _, grads = first(model, task, "undial")
    assert max(float(g.abs().max()) for g in grads["forget"]) > 1e-4


def test_references_beyond_the_budget_are_refused(model, task):
    with pytest.raises(ConfigError, match=r"reference_gb = 1e-07 GB at 2 of 2 answers; raise it"):
        start(model, task, "undial", reference_gb=1e-7)
    with pytest.raises(ConfigError, match="reference_gb"):
        start(model, task, "npo", retain_loss="kl", reference_gb=1e-9)


# -- WGA and SatImp --------------------------------------------------------------------------------------------------


def test_wga_without_an_exponent_is_gradient_ascent(model, task):
    _, ascent, expected = first(model, task, "ga", Draw((0, 1)))
    _, parts, grads = first(model, task, "wga", Draw((0, 1)), beta=0.0, alpha=0.0)
    assert float(parts[0].loss.detach()) == pytest.approx(float(ascent[0].loss.detach()), rel=1e-6)
    for mine, other in zip(grads["forget"], expected["forget"], strict=True):
        torch.testing.assert_close(mine, other)


@given(st.floats(0.01, 0.99), st.floats(0, 4))
def test_wga_weight_is_a_power_of_the_probability_and_has_no_gradient(p, beta):
    logprob = torch.tensor([math.log(p)], dtype=torch.float64, requires_grad=True)
    loss = wga_loss(logprob, beta)
    (force,) = torch.autograd.grad(loss, logprob)
    assert float(force) == pytest.approx(p**beta, rel=1e-6)
    assert float(loss.detach()) == pytest.approx(p**beta * math.log(p), rel=1e-6)


def test_satimp_weight_by_hand():
    p = torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)
    assert satimp_weight(p, 5.0, 1.0).tolist() == pytest.approx([0.015625, 0.0, 0.0])
    grid = torch.linspace(0, 1, 6001, dtype=torch.float64)
    assert float(grid[satimp_weight(grid, 5.0, 1.0).argmax()]) == pytest.approx(5 / 6, abs=1e-3)


def test_satimp_without_importance_is_wga(model, task):
    _, one, grads = first(model, task, "satimp", Draw((0, 1)), beta1=1.0, beta2=0.0, gamma=1.0, alpha=0.0)
    _, two, others = first(model, task, "wga", Draw((0, 1)), beta=1.0, alpha=0.0)
    assert float(one[0].loss.detach()) == pytest.approx(float(two[0].loss.detach()), rel=1e-5)
    for mine, other in zip(grads["forget"], others["forget"], strict=True):
        torch.testing.assert_close(mine, other)


# -- CE-U ------------------------------------------------------------------------------------------------------------


def test_ceu_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    logits = p.log().requires_grad_()
    loss = ceu_loss(logits, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(-(0.6 * math.log(0.3) + 0.4 * math.log(0.2)), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0].tolist() == pytest.approx([0.5, -0.3, -0.2], abs=1e-6)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-6)


def test_ceu_vanishes_with_the_probability():
    logits = torch.tensor([[-30.0, 0.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(ceu_loss(logits, torch.tensor([0])), logits)
    assert float(gradient.abs().max()) < 1e-6


def test_ceu_skips_the_first_answer_tokens(make):
    """The answers of the hand-made task have one token, those of the sixth entity two."""
    model, task = make.model(), make.task(6)
    objective = start(model, task, "ceu").objective
    two = [i for i, q in enumerate(objective.forget) if q.answer == "dark blue"]
    tokens = answer_tokens(model, [objective.forget[0], objective.forget[two[0]]])
    assert tokens.rows.tolist() == [0, 1, 1]
    assert objective.counted(tokens).tolist() == [True, False, True]
    strict = start(model, task, "ceu", keep_last=False).objective
    assert {q.answer for q in strict.forget} == {"dark blue"}
    whole = start(model, task, "ceu", skip_first=0).objective
    assert whole.counted(tokens).tolist() == [True, True, True]
    with pytest.raises(DataError, match=r"lower options\.skip_first"):
        start(model, make.task(1), "ceu", keep_last=False)


# -- PDU -------------------------------------------------------------------------------------------------------------


def test_pdu_loss_and_dual_step_by_hand():
    assert float(flatness(torch.tensor([[2.0, 0.0, -2.0]]))) == pytest.approx(4.0)
    assert float(flatness(torch.full((3, 7), 1.5))) == pytest.approx(0.0)
    assert dual_update(2.0, 1.5, 1.0, 5.0) == pytest.approx(4.5)
    assert dual_update(2.0, 0.8, 1.0, 5.0) == pytest.approx(1.0)
    assert dual_update(2.0, 0.1, 1.0, 5.0) == 0.0


def test_pdu_bound_is_a_little_above_the_original_retain_loss(model, task):
    objective = start(model, task, "pdu", margin=0.25, alpha=3.0).objective
    whole = float(cross_entropy(model, objective.retain).detach())
    assert objective.eps == pytest.approx(1.25 * whole, rel=1e-5)
    (_, retain) = objective.parts(Draw((0, 1), (0, 1, 2)))
    expected = 3.0 * (retain.terms["retain_nll"] - objective.eps)
    assert float(retain.loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert start(model, task, "pdu", eps=0.3).objective.eps == 0.3


def test_pdu_multiplier_waits_then_follows_the_constraint(model, task):
    objective = start(model, task, "pdu", eps=0.0, alpha=1.0, dual_warmup=1, dual_every=2, dual_step=2.0).objective
    seen = []
    for step in range(5):
        terms = list(objective.parts(Draw((0,), (0,), step)))[1].terms
        seen.append((terms["multiplier"], terms["retain_nll"]))
    assert [m for m, _ in seen[:3]] == [1.0, 1.0, 1.0]
    assert seen[3][0] == pytest.approx(1.0 + 2.0 * (seen[1][1] + seen[2][1]) / 2)
    slack = start(model, task, "pdu", eps=100.0, alpha=1.0, dual_warmup=0).objective
    list(slack.parts(Draw((0,), (0,), 0)))
    assert slack.multiplier == 0.0


def test_pdu_can_read_the_answers_own_positions(model, task):
    _, predicting, _ = first(model, task, "pdu", Draw((0,), (0,)), eps=1.0)
    _, own, _ = first(model, task, "pdu", Draw((0,), (0,)), eps=1.0, positions="answer")
    with torch.no_grad():
        logits = model.forward(model.batch(task.forget_train.prompts[0].full))[0]
    assert predicting[0].terms["forget_pdu"] == pytest.approx(float(flatness(logits[-2:-1])), rel=1e-4)
    assert own[0].terms["forget_pdu"] == pytest.approx(float(flatness(logits[-1:])), rel=1e-4)


# -- task vector -----------------------------------------------------------------------------------------------------


def test_negation_by_hand():
    start_, learned = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0])
    assert negated(start_, learned, 2.0).tolist() == [0.0, 4.0]
    assert torch.equal(negated(start_, learned, 0.0), start_)


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("scale", [0.0, 1.0, 0.5])
def test_task_vector_is_the_negated_change(make, scale, lora):
    def learned(scale, steps):
        trainable = Trainable(layers=(0, 1), modules=("mlp_out",), lora_rank=lora)
        recipe = Recipe("task_vector", options={"scale": scale}, trainable=trainable, steps=steps, lr=1e-2, seed=3)
        return Unlearner(make.model(), make.task(), recipe)

    reinforced = learned(scale, 4)
    for _ in range(3):
        reinforced.step()
    three = reinforced.changed()
    done = learned(scale, 3)
    while not done.done:
        done.step()
    for name, value in done.changed().items():
        original = done.originals[name]
        torch.testing.assert_close(value, original - scale * (three[name] - original), rtol=1e-4, atol=1e-6)
    if scale == 0:
        assert all(torch.allclose(v, done.originals[n], atol=1e-7) for n, v in done.changed().items())


def test_task_vector_forgets_and_a_zero_vector_is_refused(make):
    model, task = make.model(), make.task()
    prompts = task.forget_train.prompts
    score = lambda: score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob.mean()  # noqa: E731
    before = score()
    unlearn(model, task, Recipe("task_vector", trainable=LOW, lr=1e-2, steps=8))
    assert score() < before - 0.5
    stuck = Unlearner(make.model(), task, Recipe("task_vector", trainable=LOW, lr=1e-30, steps=1))
    with pytest.raises(ConfigError, match="no task vector"):
        stuck.step()


# -- all -------------------------------------------------------------------------------------------------------------


TAUGHT = {}


@pytest.fixture
def taught(make):
    """Weights of a model that knows the answers: methods that let go of unlikely tokens need something to forget."""
    if not TAUGHT:
        model = make.model()
        teach = Unlearner(model, make.task(), Recipe("task_vector", trainable=LOW, lr=2e-2, steps=99))
        for _ in range(12):
            teach.step()
        TAUGHT.update(model.module.state_dict())
    return TAUGHT


@pytest.mark.parametrize("name", [*TWO_SIDED, "ceu", "pdu", "flat"])
def test_the_answer_becomes_less_likely(make, taught, name):
    model, task = make.model(), make.task()
    model.module.load_state_dict(taught)
    prompts = task.forget_train.prompts
    score = lambda: score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob.mean()  # noqa: E731
    before = score()
    assert before > math.log(0.5)
    unlearn(model, task, Recipe(name, trainable=LOW, lr=1e-2, steps=6))
    assert score() < before - 0.02
