"""Every attack on a small model in which the target is known, hidden, or was never there."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.attacks import (
    CATALOGUE,
    VARIANTS,
    NoiseConfig,
    PromptConfig,
    PruneConfig,
    QuantiseConfig,
    ReadoutConfig,
    RelearnConfig,
    SamplingConfig,
    StitchConfig,
    attacks,
    lora_added,
    noise_attack,
    prompts_attack,
    prune_attack,
    quantise_attack,
    readout_attack,
    relearn,
    run_attack,
    sampling_attack,
    stitch_attack,
    target_prompts,
)
from interp_unlearn.attacks._recall import ask, recall_table
from interp_unlearn.attacks._stitch import _fits
from interp_unlearn.hooked import Intervention, edit, steer
from interp_unlearn.probes import PARTS, LivePhases
from interp_unlearn.worlds import QASet

SMALL = {
    "quantise": (quantise_attack, QuantiseConfig(bits=(4,), max_prompts=6)),
    "noise": (noise_attack, NoiseConfig(scales=(0.1,), draws=1, max_prompts=6)),
    "prune": (prune_attack, PruneConfig(shares=(0.3,), max_prompts=6)),
    "prompts": (prompts_attack, PromptConfig(max_prompts=6)),
    "sampling": (sampling_attack, SamplingConfig(temperatures=(1.0,), max_prompts=6)),
    "readout": (readout_attack, ReadoutConfig(max_prompts=6, min_power=0.0)),
}
QUICK = RelearnConfig(steps=2, eval_every=2, batch_size=16, controls=1, control_entities="unknown_ref", max_prompts=6)


def silent(_what, _done, _total):
    pass


@pytest.fixture
def untouched(model):
    """The model's tensors, modules and flags are the same at the end of the test."""
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    modules = {name: id(part) for name, part in model.module.named_modules()}
    attributes = set(vars(model.module))
    flags = [(p.requires_grad, p.grad) for p in model.module.parameters()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())
    yield model
    now = model.module.state_dict()
    assert set(now) == set(before)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert {name: id(part) for name, part in model.module.named_modules()} == modules
    assert set(vars(model.module)) == attributes
    assert [(p.requires_grad, p.grad) for p in model.module.parameters()] == flags
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()) == hooks


@pytest.fixture
def phases(untouched, task, hidden_delta, gold):
    """Original, hidden and gold."""
    return LivePhases(untouched, task, edited=hidden_delta, gold=gold)


def only(found, name):
    return next(e for e in found.evidence if e.name == name)


def test_every_attack_is_registered_twice_at_its_level():
    levels = {name: PARTS[name].level for name in PARTS if PARTS[name].kind == "attack"}
    standard = {"stitch", "readout", "prompts", "quantise", "relearn_rest"}
    full = {"relearn_templates", "relearn_neighbours", "relearn_text", "relearn_lora", "sampling", "noise", "prune"}
    assert {n for n, level in levels.items() if level == "standard"} == standard
    assert {n for n, level in levels.items() if level == "full"} == full
    assert set(attacks) == (standard | full | {"relearn"}) - {"stitch"}
    assert {f"recovery/{name}" for name in levels} <= set(CATALOGUE)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_library_function_leaves_the_model_and_has_its_control(untouched, task, name):
    attack, config = SMALL[name]
    found = attack(untouched, task, config)
    (record,) = found.evidence
    assert record.name == f"recovery/{name}"
    assert record.control_name.startswith("facts that were never known")
    assert 0 <= record.value <= 1
    assert record.interval is not None
    if name != "readout":  # eight retained entities teach it little
        assert record.value > record.control + 0.3, "the model knows the target"
    (curve,) = found.tables.values()
    assert curve.axes[1].labels[0] == "none"
    assert curve.at(group="target", setting="none", quantity="recall") == 1
    json.dumps([record.to_json(), curve.to_json()])
    with pytest.raises(ConfigError, match="takes a"):
        run_attack(name, untouched, task, QUICK)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_part_takes_gold_as_its_control_and_measures_once(phases, name):
    part = replace(attacks[name], what="x").part(SMALL[name][1])
    found = part.look(phases, silent)
    record = only(found, f"recovery/{name}")
    assert record.control_name == "gold, attacked alike"
    kept = dict(phases._kept)
    assert {phase for phase, _ in kept} == {"after", "gold"}
    again = part.look(phases, silent)
    assert phases._kept == kept
    assert only(again, record.name).to_json() == record.to_json()


def test_stitching_finds_what_the_last_block_hides(phases):
    found = PARTS["stitch"].look(phases, silent)
    record = only(found, "recovery/stitch")
    assert record.config["unattacked"]["target"] < 0.5
    assert record.value > 0.9
    assert record.value > record.control + 0.5
    upper = only(found, "stitch.upper")
    assert upper.value < 0.5, "the change sits in the upper layers"
    curve = found.tables["attack.stitch"]
    last = curve.axes[1].labels[-1]
    hidden = curve.at(group="target", quantity="recall")
    assert curve.at(group="target", setting=last, quantity="recall") == pytest.approx(hidden[0])


def test_stitching_a_model_to_itself_changes_nothing(untouched, task):
    found = stitch_attack(LivePhases(untouched, task), StitchConfig(max_prompts=6))
    for name in ("attack.stitch", "attack.stitch_upper"):
        values = found.tables[name].at(group="target", quantity="probability")
        assert np.allclose(values, values[0], atol=1e-5)
    assert found.evidence[0].control_name == "facts that were never known, attacked alike"


def test_the_probability_is_that_of_the_first_right_answer_in_both(untouched, task):
    """With another right answer, the unattacked model and a model stitched to itself still say one number."""
    more = [replace(p, also=tuple(o for o in p.options[:2])) for p in task.forget_heldout.prompts]
    several = replace(task, forget_heldout=replace(task.forget_heldout, prompts=tuple(more)))
    values = stitch_attack(LivePhases(untouched, several), StitchConfig(max_prompts=6)).tables["attack.stitch"]
    for quantity in ("recall", "probability"):
        found = values.at(group="target", quantity=quantity)
        assert np.allclose(found, found[0], atol=1e-5)


def test_gold_is_no_control_where_its_layers_do_not_fit(task):
    def neighbours(plain, stitched):
        asked = target_prompts(task, 4, 0)
        scores = np.array([[[plain, 0.0]] * 4, [[0.0, 0.0]] * 4, [[stitched, 0.0]] * 4])
        labels = ("none", "blocks.0", "blocks.1")
        return {"neighbours": recall_table("stitch", "neighbours", labels, scores, asked, {}, seed=0)}

    assert _fits(None, ("blocks.1",), 0.8) is None
    assert _fits(neighbours(1.0, 0.9), ("blocks.1",), 0.8) is True
    assert _fits(neighbours(1.0, 0.7), ("blocks.1",), 0.8) is False
    assert _fits(neighbours(0.5, 0.45), ("blocks.1",), 0.8) is True
    assert _fits(neighbours(0.0, 0.0), ("blocks.1",), 0.8) is False


class Push(Intervention):
    """Pushes everything away in the last block."""

    kind = "push"

    @contextmanager
    def applied(self, model):
        direction = 40 * torch.randn(48, generator=torch.Generator().manual_seed(0))
        with edit(model, steer("blocks.2.hook_resid_post", direction)):
            yield model

    def facts(self):
        return {}

    def tensors(self):
        return {}

    @classmethod
    def from_parts(cls, facts, tensors):
        return cls()


def test_an_intervention_is_attacked_and_not_the_bare_model(untouched, task):
    phases = LivePhases(untouched, task, intervention=Push())
    record = PARTS["stitch"].look(phases, silent).evidence[0]
    assert record.config["unattacked"]["target"] < 0.5
    assert record.value > 0.9
    assert PARTS["quantise"].look(phases, silent).evidence[0].value < 0.5
    config = replace(QUICK, fact_share=0.5)
    assert not np.isnan(attacks["relearn_rest"].look(phases, silent, config).evidence[0].value)


def test_a_readout_trained_on_others_reads_the_target_where_it_is_known(untouched, task, gold):
    config = ReadoutConfig(strength=1.0, min_power=0.0)
    known = readout_attack(untouched, task, config).evidence[0]
    never = readout_attack(gold, task, config).evidence[0]
    assert known.value > never.value + 0.3
    assert known.mask_policy == "last token of the question"
    assert known.config["chance"]["rank"] == pytest.approx(1 / 6)


def test_a_readout_ranks_no_answers_where_the_head_is_no_matrix(untouched, task, monkeypatch):
    monkeypatch.setattr(untouched, "shape", replace(untouched.lm, logit_scale=None))
    found = readout_attack(untouched, task, ReadoutConfig(min_power=0.0, max_train=8)).evidence[0]
    ranks = {k: v for k, v in found.config["reasons"].items() if k.startswith("rank")}
    assert ranks and all("more than a norm and a matrix" in why for why in ranks.values())


def test_a_readout_without_power_says_so(untouched, task):
    wrong = tuple(replace(p, answer=p.options[k % 5]) for k, p in enumerate(task.neighbours.prompts))
    lonely = replace(task, retain_train=QASet("retain", ()), neighbours=QASet("neighbours", wrong))
    found = readout_attack(untouched, lonely, ReadoutConfig(max_train=8, min_power=0.99)).evidence[0]
    assert np.isnan(found.value)
    assert "no readout works on retained entities" in found.reason


def test_wordings_that_do_not_fit_are_left_out_with_their_reason(untouched, task):
    found = prompts_attack(untouched, task, PromptConfig(max_prompts=6, shots=2))
    reasons = found.evidence[0].config["reasons"]
    assert "vocabulary lacks" in reasons["jailbreak 0"]
    assert "another language" in reasons["other language"]
    curve = found.tables["attack.prompts"]
    assert np.isnan(curve.at(group="target", setting="jailbreak 0", quantity="recall"))
    assert not np.isnan(curve.at(group="target", setting="few-shot", quantity="recall"))
    assert not np.isnan(curve.at(group="target", setting="after mention", quantity="recall"))
    given = PromptConfig(max_prompts=6, languages=(("capital", "main city of {name}"),), prefixes=("boats sail ",))
    found = prompts_attack(untouched, task, given)
    curve = found.tables["attack.prompts"]
    assert not np.isnan(curve.at(group="target", setting="other language", quantity="recall"))
    assert not np.isnan(curve.at(group="target", setting="prefix 0", quantity="recall"))
    crowded = prompts_attack(untouched, task, PromptConfig(max_prompts=6, prefixes=("boats sail the river " * 12,)))
    assert crowded.evidence[0].config["reasons"]["prefix 0"] == "it does not fit into the model's context"


@pytest.mark.parametrize("variant", [v.name for v in VARIANTS])
def test_relearning_variants_leave_the_model_and_have_their_control(phases, variant):
    part = attacks[variant]
    config = replace(part.defaults, **{k: getattr(QUICK, k) for k in ("steps", "eval_every", "max_prompts")})
    config = replace(config, control_entities="unknown_ref")
    found = part.look(phases, silent, config)
    record = only(found, f"recovery/{variant}")
    assert record.control_name == "gold, attacked alike"
    assert set(record.config["controls"]) == {"gold", "never known"}
    assert found.tables[f"attack.{variant}"].axes[1].labels == ("none", "step 2")
    assert only(found, f"{variant}.area").config["relearn"]["steps"] == 2
    assert ("suppression/relearn" in {e.name for e in found.evidence}) == (variant == "relearn_rest")


def test_relearning_a_part_brings_the_hidden_rest_back(phases):
    config = replace(attacks["relearn_rest"].defaults, control_entities="unknown_ref", pace=6.0)
    found = attacks["relearn_rest"].look(phases, silent, config)
    record = only(found, "recovery/relearn_rest")
    assert record.config["unattacked"]["target"] <= 0.5
    assert record.value > record.control
    assert record.value > record.config["controls"]["never known"]
    suppression = only(found, "suppression/relearn")
    assert suppression.control_name == "never-known facts, taught alike to the same model"
    assert {"gold", "never known", "target"} <= set(suppression.config["areas"])
    assert suppression.config["half_of"] == "the original model's level"


def test_a_single_fact_has_no_rest_but_a_pace(untouched, one_fact):
    phases = LivePhases(untouched, one_fact)
    found = attacks["relearn_rest"].look(phases, silent, replace(QUICK, fact_share=0.5))
    assert "single fact" in only(found, "recovery/relearn_rest").reason
    assert not np.isnan(only(found, "suppression/relearn").value)
    assert "single fact" in PARTS["relearn_lora"].look(phases, silent).evidence[0].reason
    for name in ("stitch", "quantise", "prompts", "readout", "sampling", "noise", "prune"):
        record = only(PARTS[name].look(phases, silent), f"recovery/{name}")
        assert record.reason or 0 <= record.value <= 1


def test_what_is_lacking_is_said_and_not_raised(untouched, task):
    bare = replace(task, text_train=(), unknown_eval=(), unknown_ref=())
    phases = LivePhases(untouched, bare)
    assert "no general text" in PARTS["relearn_text"].look(phases, silent).evidence[0].reason
    rest = attacks["relearn_rest"].look(phases, silent, replace(QUICK, fact_share=0.5))
    assert only(rest, "recovery/relearn_rest").control_name.startswith("none: 4 unknown entities are needed")
    assert "unknown entities are needed" in only(rest, "suppression/relearn").reason
    record = PARTS["quantise"].look(phases, silent).evidence[0]
    assert record.control is None
    assert record.control_name.startswith("none: the task has no unknown entities")
    empty = QASet("base", (), "nothing")
    mute = LivePhases(untouched, replace(task, forget_train=empty, forget_heldout=empty))
    for name in ("stitch", "quantise", "readout", "relearn_templates"):
        assert PARTS[name].look(mute, silent).evidence[0].reason


def test_a_broken_model_is_attacked_without_a_crash(untouched, task):
    broken = {n: torch.full_like(p, torch.nan) for n, p in untouched.module.named_parameters() if "down_proj" in n}
    phases = LivePhases(untouched, task, edited=broken)
    for name in sorted(n for n in PARTS if PARTS[n].kind == "attack"):
        for record in PARTS[name].look(phases, silent).evidence:
            assert record.reason or record.value < 0.2 or record.name == "stitch.upper", record.name


def test_a_lora_comes_and_goes(untouched, task):
    asked = task.forget_heldout.prompts[:4]
    before = ask(untouched, asked)
    with lora_added(untouched, "upper", 4, 0) as weights:
        assert all(p.requires_grad for p in weights.values())
        assert all("lora_" in name for name in weights)
        assert sum(p.requires_grad for p in untouched.module.parameters()) == len(weights)
        assert np.allclose(ask(untouched, asked), before, atol=1e-6), "it begins as nothing"
        with torch.no_grad():
            for p in weights.values():
                p.add_(0.5)
        assert not np.allclose(ask(untouched, asked), before, atol=1e-3)
    assert np.array_equal(ask(untouched, asked), before)
    with pytest.raises(ConfigError, match="no linear layer"), lora_added(untouched, "norm", 4, 0):
        pass


def test_a_lora_learns_and_is_repeatable(untouched, task):
    config = replace(QUICK, steps=8, eval_every=4, lora_rank=4, controls=0)
    one, other = (relearn(untouched, task, config).losses.values for _ in range(2))
    assert np.array_equal(one, other)
    with pytest.raises(ConfigError, match="leave it at 1"):
        RelearnConfig(teach="text", fact_share=0.5)
