import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, ModelError, TrainingDivergedError
from interp_unlearn.attacks import (
    RelearnConfig,
    attacks,
    relearn,
    relearn_evidence,
    run_attack,
    select_weights,
    steps_to_level,
    weights_kept,
)
from interp_unlearn.attacks._relearn import learning_rate_for
from interp_unlearn.metrics import behaviour_by_prompt

QUICK = RelearnConfig(steps=4, eval_every=2, controls=1)


def snapshot(model):
    state = {name: value.clone() for name, value in model.module.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in model.module.parameters()]
    return state, flags, [m.training for m in model.module.modules()]


def assert_untouched(model, before):
    state, flags, modes = before
    now = model.module.state_dict()
    assert all(torch.equal(now[name], value) for name, value in state.items())
    for (flag, grad), p in zip(flags, model.module.parameters(), strict=True):
        assert p.requires_grad == flag
        assert p.grad is grad
    assert [m.training for m in model.module.modules()] == modes


def test_weights_flags_gradients_and_modes_are_as_before(model, task):
    model.module.train()
    model.module.model.layers[1].eval()
    first = next(model.module.parameters())
    first.requires_grad_(False)
    model.module.lm_head.weight.grad = torch.ones_like(model.module.lm_head.weight)
    before = snapshot(model)
    relearn(model, task, QUICK)
    assert_untouched(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_weights_come_back_after_an_interruption(model, task, error):
    before = snapshot(model)
    seen = {}

    def interrupt(_what, done, _total):
        seen[done] = [n for n, v in model.module.state_dict().items() if not torch.equal(v, before[0][n])]
        if done == 4:
            raise error

    with pytest.raises(error):
        relearn(model, task, QUICK, progress=interrupt)
    assert seen[0] == []
    assert seen[4], "the attack should have changed something before it was interrupted"
    assert all(".layers.1." in n or ".layers.2." in n for n in seen[4]), "only the upper two thirds may move"
    assert_untouched(model, before)


def test_weights_come_back_after_divergence(model, task):
    before = snapshot(model)
    with pytest.raises(TrainingDivergedError, match=r"lower relearn\.learning_rate"):
        relearn(model, task, replace(QUICK, steps=30, learning_rate=1e30))
    assert_untouched(model, before)


def test_a_curve_starts_where_behaviour_is(hiding, task):
    curve = relearn(hiding, task, replace(QUICK, controls=0))
    kept = behaviour_by_prompt(hiding, task, sets=("paraphrased",))
    assert curve.target.axes[0].labels == ("0", "2", "4")
    assert curve.target.values[0] == pytest.approx(kept.metric("exact").mean())
    start = curve.target_sets.at(step="0", set="heldout", metric="probability")
    assert start == pytest.approx(kept.metric("probability").mean(), abs=1e-5)
    assert curve.control is None
    assert "relearn.control" not in curve.tables()


def test_curves_are_labelled_and_repeatable(hiding, task):
    curve, again = relearn(hiding, task, QUICK), relearn(hiding, task, QUICK)
    assert np.array_equal(curve.target.values, again.target.values)
    assert np.array_equal(curve.losses.values, again.losses.values)
    assert [a.name for a in curve.target_sets.axes] == ["step", "set", "metric"]
    assert curve.losses.axes[0].labels == ("target", "never known 0")
    assert curve.losses.values.shape == (2, 4)
    assert curve.losses.values[0, -1] < curve.losses.values[0, 0]
    assert curve.target.n == 16
    assert curve.target.config["trained"]["tensors"] == len(select_weights(hiding, "upper"))
    json.dumps({name: table.to_json() for name, table in curve.tables().items()}, allow_nan=True)


def test_batches_smaller_than_the_facts_pass_over_all_of_them(hiding, task):
    curve = relearn(hiding, task, replace(QUICK, batch_size=3, controls=0, learning_rate=3e-3, steps=12, eval_every=6))
    assert curve.target_sets.at(set="relearned", metric="exact")[-1] == 1


def test_hidden_facts_come_back_faster_than_never_known_ones_are_learned(model, hiding, task):
    config = RelearnConfig(steps=24, eval_every=3, controls=1, seed=1)
    curve = relearn(hiding, task, config)
    assert curve.target.values[0] < 0.5, "the fixture should hide the target"
    found = relearn_evidence(curve.target, curve.control)
    assert found.value > found.control
    assert found.config["faster_than_never_known"]
    assert not found.config["slower_than_never_known"]
    assert steps_to_level(curve.target, 0.5) < steps_to_level(curve.control, 0.5) or np.isnan(
        steps_to_level(curve.control, 0.5)
    )


def test_the_rest_is_right_only_where_it_was_known(model, task):
    config = RelearnConfig(steps=24, eval_every=6, controls=1, fact_share=0.5)
    curve = relearn(model, task, config)
    found = relearn_evidence(curve.target, curve.control)
    assert found.name == "relearn.rest"
    assert found.value > found.control + 0.2
    assert found.config["faster_than_never_known"]
    never = curve.control_sets.at(set="rest", metric="exact")
    assert never.max() <= 0.4, "facts that were neither known nor taught cannot be right but by chance"


def test_half_precision_is_refused(model, task):
    model.module.to(torch.bfloat16)
    with pytest.raises(ModelError, match=r"dtype=torch\.float32"):
        relearn(model, task, QUICK)


def test_choice_of_weights(model):
    assert set(select_weights(model, "all")) == {n for n, _ in model.module.named_parameters()}
    assert all(".layers." in n for n in select_weights(model, "blocks"))
    assert not any(".layers.0." in n for n in select_weights(model, "upper"))
    assert all("down_proj" in n for n in select_weights(model, r"layers\.[12]\.mlp\.down_proj"))
    with pytest.raises(ConfigError, match="matches no parameter; nearest: "):
        select_weights(model, "uper")
    with pytest.raises(ConfigError, match="not a regular expression"):
        select_weights(model, "layers.(")


def test_the_learning_rate_follows_width_and_depth(model):
    assert learning_rate_for(model, select_weights(model, "upper")) == pytest.approx(0.115 / (48 * 2))
    assert learning_rate_for(model, select_weights(model, "blocks")) == pytest.approx(0.115 / (48 * 3))
    assert learning_rate_for(model, select_weights(model, "embed_tokens")) == pytest.approx(0.115 / 48)


def test_weights_kept_restores_what_the_body_broke(model):
    before = snapshot(model)
    weights = select_weights(model, "upper")
    with pytest.raises(ZeroDivisionError), weights_kept(model, weights):
        assert {n for n, p in model.module.named_parameters() if p.requires_grad} == set(weights)
        for p in weights.values():
            p.data.fill_(float("nan"))
        raise ZeroDivisionError
    assert_untouched(model, before)


def test_attacks_by_name(hiding, task):
    assert "relearn" in attacks
    before = snapshot(hiding)
    result = run_attack("relearn", hiding, task, QUICK)
    assert result.name == "relearn"
    assert [e.name for e in result.evidence] == ["relearn.heldout"]
    assert set(result.tables) >= {"relearn.target", "relearn.control"}
    assert_untouched(hiding, before)
    assert run_attack("relearn", hiding, task, replace(QUICK, controls=0)).evidence == ()
    with pytest.raises(ConfigError, match="nearest: relearn"):
        run_attack("relern", hiding, task)
    with pytest.raises(ConfigError, match="takes a RelearnConfig, not a dict"):
        run_attack("relearn", hiding, task, {"steps": 3})
