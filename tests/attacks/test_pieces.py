"""The arithmetic of the attacks, on numbers that can be checked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.attacks import (
    NoiseConfig,
    PromptConfig,
    PruneConfig,
    QuantiseConfig,
    ReadoutConfig,
    SamplingConfig,
    StitchConfig,
    answer_chances,
    prune_smallest,
    round_to_nearest,
    stand_ins,
    target_prompts,
)
from interp_unlearn.attacks._asked import spread
from interp_unlearn.attacks._readout import fit_ranking
from interp_unlearn.attacks._recall import by_setting, pack, recall_interval, recall_table, unpack
from interp_unlearn.attacks._recovery import recovery_evidence
from interp_unlearn.attacks._sampling import sampled_logprobs
from interp_unlearn.worlds import fact_of


def table(recalls, prompts, group="target", **facts):
    """A recall table whose settings have the given recalls, prompt by prompt."""
    recalls = np.asarray(recalls, dtype=float)
    labels = ["none", *(f"s{k}" for k in range(1, len(recalls)))]
    return recall_table("toy", group, labels, np.stack([recalls, recalls], axis=2), prompts, facts, seed=0)


def test_rounding_by_hand():
    weight = torch.tensor([[7.0, -3.4, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0], [1.4, 0.1, -0.7, 0.2]])
    expected = torch.tensor([[7.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.4, 0.2, -0.8, 0.2]])
    rounded = round_to_nearest(weight, 4)
    # Scales are 1, none and 0.2: 0.1 / 0.2 = 0.5 lies between two multiples, so either is right.
    expected[2, 1] = rounded[2, 1]
    expected[2, 2] = rounded[2, 2]
    assert torch.allclose(rounded, expected)
    assert ((rounded[2] / 0.2).round() - rounded[2] / 0.2).abs().max() < 1e-6


def test_rounding_keeps_each_weight_within_half_a_step_and_groups_are_finer():
    weight = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4, 2):
        step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert bool(((round_to_nearest(weight, bits) - weight).abs() <= step / 2 + 1e-6).all())
        assert all(len(row.unique()) <= 2**bits - 1 for row in round_to_nearest(weight, bits))
    errors = [(round_to_nearest(weight, 4, size) - weight).norm() for size in (0, 8)]
    assert errors[1] < errors[0]
    again = round_to_nearest(weight, 4)
    assert torch.allclose(round_to_nearest(again, 4), again, atol=1e-6)


def test_pruning_by_hand():
    weight = torch.tensor([[0.1, -2.0], [3.0, -0.2]])
    assert torch.equal(prune_smallest(weight, 0.5), torch.tensor([[0.0, -2.0], [3.0, 0.0]]))


def test_nucleus_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert torch.allclose(sampled_logprobs(logits, 1.0).exp(), torch.tensor([[0.5, 0.3, 0.2]]))
    assert torch.allclose(sampled_logprobs(logits, 1.0, 0.6).exp(), torch.tensor([[0.625, 0.375, 0.0]]))
    cold = sampled_logprobs(logits, 0.5).exp()
    assert torch.allclose(cold, torch.tensor([[25.0, 9.0, 4.0]]) / 38)


def test_chances_are_what_sampling_comes_to(hiding, task):
    asked = [p for p in task.forget_heldout.prompts if len(p.answer.split()) == 1][:2]
    chances = answer_chances(hiding, asked, (3.0,))[0]
    torch.manual_seed(0)
    for p, chance in zip(asked, chances, strict=True):
        drawn = hiding.generate([p.text] * 600, 1, do_sample=True, temperature=3.0, top_k=0)
        share = np.mean([text.strip() == p.answer for text in drawn])
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / 600) + 1e-3


def test_every_fact_is_asked_once_before_any_is_asked_twice(task):
    asked = spread(task.forget_heldout.prompts, 8, 0, "x")
    assert len({fact_of(p) for p in asked}) == len(asked) == 8
    assert [task.forget_heldout.prompts.index(p) for p in asked] == sorted(
        task.forget_heldout.prompts.index(p) for p in asked
    )
    assert spread(task.forget_heldout.prompts, 8, 1, "x") != asked
    assert len(target_prompts(task, 5, 0)) == 5


def test_stand_ins_have_answers_as_varied_as_the_facts_they_stand_for(model, task):
    asked = target_prompts(task, 48, 0)
    stood = stand_ins(model, task, asked, 0)
    assert stood == stand_ins(model, task, asked, 0)
    unknown = {e.id: e.name for e in task.unknown_eval}
    for p, q in zip(asked, stood, strict=True):
        assert q.answer not in (p.answer, *p.also)
        assert q.text[slice(*q.name_span)] == unknown[q.entity]
        assert q.answer not in q.options
        assert len(q.options) == len(p.options)
    capitals = {fact_of(p): q.answer for p, q in zip(asked, stood, strict=True) if p.relation == "capital"}
    assert len(set(capitals.values())) >= 3
    with pytest.raises(DataError, match="no unknown entities"):
        stand_ins(model, replace(task, unknown_eval=()), asked, 0)


def test_tables_survive_the_way_through_tensors(task):
    asked = target_prompts(task, 4, 0)
    made = table([[0, 1, np.nan, 1], [1, 1, 1, 1]], asked, reasons={"x": "ünknown"})
    back = unpack(pack({"target": made}))["target"]
    assert np.array_equal(back.values, made.values, equal_nan=True)
    assert back.axes == made.axes
    assert back.config == made.config


def test_intervals_of_certain_results_are_binomial(task):
    asked = target_prompts(task, 4, 0)
    made = table([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]], asked)
    entities = len({p.entity for p in asked})
    edge = 0.025 ** (1 / entities)
    assert recall_interval(made, 0) == pytest.approx((0.0, 1 - edge))
    assert recall_interval(made, 1) == pytest.approx((edge, 1.0))
    low, high = recall_interval(made, 2)
    assert low <= by_setting(made)[2] <= high
    assert recall_interval(table([[1.0]], asked[:1]), 0) is None


def test_the_record_takes_the_best_setting_of_target_and_control(task):
    asked = target_prompts(task, 4, 0)
    after = {
        "target": table([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [np.nan] * 4], asked, reasons={"s3": "too long"}),
        "never known": table([[0] * 4, [0, 1, 0, 0], [0] * 4, [np.nan] * 4], asked, "never known"),
        "neighbours": table([[1] * 4, [1] * 4, [1, 1, 0, 0], [np.nan] * 4], asked, "neighbours"),
    }
    found = recovery_evidence("quantise", after)
    assert (found.value, found.control) == (0.75, 0.25)
    assert found.config["best_setting"] == "s2"
    assert found.config["recovered"] == pytest.approx(0.5)
    assert found.config["unattacked"]["target"] == 1
    assert found.config["neighbours"] == 0.5
    assert found.config["reasons"] == {"s3": "too long"}
    assert recovery_evidence("quantise", after, counted=["s1"]).value == 0.25
    gold = {"target": table([[0] * 4, [0] * 4, [0] * 4, [1] * 4], asked)}
    found = recovery_evidence("quantise", after, gold)
    assert (found.control, found.control_name) == (1.0, "gold, attacked alike")
    found = recovery_evidence("quantise", after, gold, control_from="never known")
    assert found.control == 0.25
    assert found.config["controls"]["gold"] == 1.0


def test_no_control_and_no_setting_are_said(task):
    asked = target_prompts(task, 4, 0)
    alone = recovery_evidence("prune", {"target": table([[0] * 4, [0] * 4], asked, why_no_control="no names")})
    assert alone.control is None
    assert alone.control_name == "none: no names"
    nothing = recovery_evidence("prune", {"target": table([[0] * 4, [np.nan] * 4], asked, reasons={"s1": "broken"})})
    assert np.isnan(nothing.value)
    assert nothing.reason == "s1: broken"


@pytest.mark.parametrize("n", [12, 60])
def test_the_ranking_readout_finds_a_linear_map(n):
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(n, 20)), rng.normal(size=(20, 5))
    y = x @ truth + 3.0
    weight, bias = fit_ranking(x, y, 1e-9)
    assert np.allclose(x @ weight + bias, y, atol=1e-5)
    heavy, middle = fit_ranking(x, y, 1e9)
    assert np.allclose(x @ heavy + middle, y.mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("config", "field", "value", "match"),
    [
        (QuantiseConfig, "bits", (1,), "quantise.bits is .*from 2 to 8"),
        (QuantiseConfig, "max_prompts", 0, "at least 1"),
        (QuantiseConfig, "group_size", -1, "one scale per output channel"),
        (NoiseConfig, "scales", (), "positive"),
        (NoiseConfig, "draws", 0, "1 or more"),
        (PruneConfig, "shares", (1.0,), "between 0 and 1"),
        (SamplingConfig, "temperatures", (0.0,), "positive"),
        (SamplingConfig, "samples", (0,), "from 1"),
        (SamplingConfig, "top_p", 0.0, "share"),
        (StitchConfig, "counted_from", 1.0, "share"),
        (ReadoutConfig, "held_out", 0.0, "share"),
        (ReadoutConfig, "ridges", (0.0,), "positive"),
        (PromptConfig, "shots", -1, "no examples"),
        (PromptConfig, "languages", (("capital", "Die Hauptstadt ist"),), "must contain"),
    ],
)
def test_configs_are_checked(config, field, value, match):
    with pytest.raises(ConfigError, match=match):
        config(**{field: value})


def test_configs_from_plain_values():
    config = QuantiseConfig.from_dict({"bits": [8, 3], "seed": 2})
    assert config == QuantiseConfig(bits=(8, 3), seed=2)
    assert QuantiseConfig.from_dict(config.to_dict()) == config
    prompts = PromptConfig.from_dict({"languages": [["capital", "{name} hat"]]})
    assert prompts.languages == (("capital", "{name} hat"),)
    with pytest.raises(ConfigError, match="nearest: bits"):
        QuantiseConfig.from_dict({"bit": 4})


def test_stitched_layers_are_evenly_spaced_and_end_at_the_last():
    assert StitchConfig(layers=8).chosen(4) == (0, 1, 2, 3)
    chosen = StitchConfig(layers=8).chosen(30)
    assert len(chosen) == 8
    assert chosen[-1] == 29
    assert StitchConfig(layers=1).chosen(12) == (11,)
