import zlib

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import answer_batch, answer_logprobs
from interp_unlearn.metrics import (
    TokenScores,
    auc_floor,
    auc_interval,
    gradient_norms,
    membership_auc,
    membership_scores,
    privleak,
    reference_scores,
    s_mia,
    token_scores,
)

NONE = torch.full((2,), torch.nan)


def scores(logprob, counts=(4, 1), entropy=0.0, variance=1.0):
    values = torch.tensor(logprob)
    fill = torch.ones_like(values)
    return TokenScores(torch.tensor(counts), values, fill > 0, entropy * fill, variance * fill, fill, NONE)


def test_scores_of_single_examples_by_hand():
    found = scores([-1.0, -3.0, -2.0, -4.0, -5.0])
    assert membership_scores(found, "loss").tolist() == [2.5, 5]
    assert membership_scores(found, "min_k", k=0.5).tolist() == [3.5, 5], "the lowest 2 of 4, at least one"
    assert membership_scores(found, "min_k", k=0.01).tolist() == [4, 5]
    assert membership_scores(found, "min_k", k=1.0).tolist() == [2.5, 5]
    texts = ["Rosa", "New Tula"]
    expected = [2.5 / len(zlib.compress(b"Rosa")), 5 / len(zlib.compress(b"New Tula"))]
    assert membership_scores(found, "zlib", texts=texts).tolist() == expected
    # z = (l - μ)/σ with μ = -entropy = -2 and σ² = 4
    z = membership_scores(scores([-1.0, -3.0, -2.0, -4.0, -5.0], entropy=2.0, variance=4.0), "min_k_pp", k=0.5)
    assert z.tolist() == [0.75, 1.5]
    flat = membership_scores(scores([-1.0] * 5, entropy=1.5, variance=0.0), "min_k_pp")
    assert flat == pytest.approx([-500, -500]), "the variance is at least 1e-6"


def test_wrong_attacks_are_refused():
    found = scores([-1.0] * 5)
    with pytest.raises(ConfigError, match="nearest: min_k"):
        membership_scores(found, "mink")
    with pytest.raises(ConfigError, match="above 0"):
        membership_scores(found, "min_k", k=0.0)
    with pytest.raises(DataError, match="0 texts, 2 scores"):
        membership_scores(found, "zlib")


def test_a_reference_model_is_subtracted():
    assert reference_scores(scores([-1.0] * 5), scores([-3.0] * 5)).tolist() == [-2, -2]
    with pytest.raises(DataError, match="same examples"):
        reference_scores(scores([-1.0] * 5), scores([-1.0] * 5).rows([0]))


def test_auc_is_that_of_scikit_learn_with_holdout_as_the_positive_class():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 6, 40) * 1.0, rng.integers(1, 8, 30) * 1.0
    labels = np.r_[np.zeros(40), np.ones(30)]
    assert membership_auc(members, others) == pytest.approx(roc_auc_score(labels, np.r_[members, others]))
    assert membership_auc(np.array([0.0]), np.array([1.0])) == 1, "a low loss on members: remembered"
    assert membership_auc(np.array([np.inf]), np.array([np.inf])) == 0.5
    assert np.isnan(membership_auc(np.array([np.nan]), np.array([1.0])))
    with pytest.raises(DataError, match="there are 0 and 1"):
        membership_auc(np.array([]), np.array([1.0]))


def test_the_interval_draws_clusters():
    rng = np.random.default_rng(1)
    members, others = rng.normal(0, 1, 20), rng.normal(1, 1, 40)
    each = auc_interval(members, others, [str(i) for i in range(20)], [str(i) for i in range(40)])
    assert each[0] < membership_auc(members, others) < each[1]
    few = auc_interval(np.repeat(members, 5), others, [str(i) for i in range(20) for _ in range(5)], ["a"] * 40)
    many = auc_interval(np.repeat(members, 5), others, [str(i) for i in range(100)], ["a"] * 40)
    assert few[1] - few[0] > many[1] - many[0], "copies of one example bring nothing"
    one = auc_interval(members, others, ["a"] * 20, ["b"] * 40)
    assert one == pytest.approx([membership_auc(members, others)] * 2)


def test_the_floor_says_how_far_from_half_chance_goes():
    rng = np.random.default_rng(2)
    names = [str(i // 4) for i in range(80)]
    per_entity = np.repeat(rng.normal(0, 3, 20), 4) + rng.normal(0, 1, 80)
    single, sets = auc_floor(per_entity, names, 1), auc_floor(per_entity, names, 10)
    assert np.median(sets) == pytest.approx(0.5, abs=0.05)
    assert single.std() > 1.5 * sets.std(), "one entity differs from others though nothing is known of it"
    assert np.array_equal(single, auc_floor(per_entity, names, 1))
    with pytest.raises(DataError, match="at least 2 never-known"):
        auc_floor(per_entity, ["a"] * 80, 1)


def test_privleak_and_bounded_score():
    assert privleak(0.5) == pytest.approx(0)
    assert privleak(1.0) == pytest.approx(-100), "still a member"
    assert privleak(0.0) == pytest.approx(100), "over-unlearned"
    assert privleak(0.8, 0.6) == pytest.approx(-50)
    assert privleak(0.6, 0.6) == 0
    assert s_mia(0.6, 0.6) == 1
    assert s_mia(0.9, 0.6) == pytest.approx(0.5)
    assert s_mia(0.3, 0.6) == pytest.approx(0.5)
    assert s_mia(1.0, 0.4) == 0


def test_gradient_norms_leave_no_trace(make_model):
    model = make_model()
    model.module.requires_grad_(False)
    kept = next(model.module.parameters())
    kept.requires_grad_(True)
    prompts, answers = ["the capital of Avia is", "Fenn has the capital"], ["Rosa", "Old Milo"]
    found = gradient_norms(model, prompts, answers)
    assert [p.requires_grad for p in model.module.parameters()].count(True) == 1
    assert all(p.grad is None for p in model.module.parameters())
    model.module.requires_grad_(True)
    for i in range(2):
        encoded = answer_batch(model, prompts[i : i + 1], answers[i : i + 1])
        (-answer_logprobs(model, encoded).sum() / encoded.answer.sum()).backward()
        norms = [p.grad.norm() for p in model.module.parameters()]
        assert found[i] == pytest.approx(float(torch.stack(norms).mean()), rel=1e-4)
        model.module.zero_grad(set_to_none=True)


def test_members_of_a_taught_model_are_found(knowing, task):
    told = [p for s in task.qa_sets() for p in s.prompts]
    right = token_scores(knowing, [p.text for p in told], [p.answer for p in told])
    wrong = token_scores(knowing, [p.text for p in told], [p.options[0] for p in told])
    for attack in ("loss", "min_k", "min_k_pp"):
        assert membership_auc(membership_scores(right, attack), membership_scores(wrong, attack)) > 0.99
