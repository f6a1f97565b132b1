"""The parts of the evidence on a tiny model that was taught facts, one that was not, and a broken one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, Evidence
from interp_unlearn.metrics import (
    FluencyConfig,
    MembershipConfig,
    MemorisationConfig,
    never_known,
    why_no_never_known,
)
from interp_unlearn.probes import PARTS, LivePhases
from interp_unlearn.worlds import Entity, QASet

PARTS_HERE = ("memorisation", "mia", "mia_gradnorm", "fluency")


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module")
def wide_task(task):
    """With enough unknown entities to draw from."""
    unknown = tuple(Entity(n.lower(), n, "country", True) for n in ("Xan", "Wim", "Vok", "Uls"))
    return replace(task, unknown_eval=unknown)


@pytest.fixture(scope="module")
def weights(knowing, model):
    """Tensors of the model that was never taught, as an edit of the one that was."""
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


@pytest.fixture(scope="module")
def phases(knowing, model, wide_task, weights):
    """Before: taught. After and gold: never taught."""
    return LivePhases(knowing, wide_task, edited=weights, gold=model)


def look(part, phases):
    found = PARTS[part].look(phases, quiet)
    assert all(e.name.startswith(f"{part}.") for e in found.evidence)
    for e in found.evidence:
        assert Evidence.from_json(e.to_json()).name == e.name
        assert e.does_not_show
        assert math.isnan(e.value) == bool(e.reason)
        assert e.control is not None or e.reason or e.control_name.startswith("none"), e.name
    return {e.name: e for e in found.evidence}, found.tables


def test_they_are_filed_as_cheap_behaviour():
    kinds = {name: (PARTS[name].kind, PARTS[name].level) for name in PARTS_HERE}
    assert kinds == {
        "memorisation": ("behaviour", "quick"),
        "mia": ("behaviour", "standard"),
        "mia_gradnorm": ("behaviour", "full"),
        "fluency": ("behaviour", "standard"),
    }


def test_memorisation_falls_to_gold(phases):
    found, tables = look("memorisation", phases)
    probability = found["memorisation.probability/forget"]
    assert probability.config["before"] > 0.5
    assert probability.value == pytest.approx(probability.config["gold"])
    assert probability.config["relative_difference"] == pytest.approx(0, abs=1e-3)
    assert probability.control == pytest.approx(probability.config["levels"]["neighbours after"])
    assert probability.config["unit"] == "template"
    low, high = probability.interval
    assert low <= probability.value <= high
    assert found["memorisation.extraction_strength/forget"].config["before"] == 1
    ratio = found["memorisation.truth_ratio/forget"]
    assert ratio.config["log_truth_ratio"]["before"] < ratio.config["log_truth_ratio"]["after"]
    assert ratio.control == pytest.approx(ratio.config["levels"]["never_known after"])
    quality = found["memorisation.forget_quality/forget"]
    assert quality.config["p_value"] == 1  # the distance itself turns on rounding where two samples tie
    assert quality.control == 1, "before, every truth ratio lies below gold's"
    table = tables["memorisation"]
    assert table.axes[1].labels == ("base", "paraphrased", "neighbours", "never_known")
    assert table.at(phase="before", set="neighbours", metric="exact_memorisation") == 1
    assert table.at(phase="before", set="never_known", metric="probability") < 0.5


def test_an_edit_that_changes_nothing_stays_remembered(knowing, wide_task):
    phases = LivePhases(knowing, wide_task)
    found, _ = look("memorisation", phases)
    assert found["memorisation.exact_memorisation/forget"].value == 1
    assert "without a gold model" in found["memorisation.forget_quality/forget"].reason
    assert found["memorisation.entropy/forget"].control_name.startswith("never-known")
    mia, _ = look("mia", phases)
    assert mia["mia.auc/loss"].value > 0.95
    assert mia["mia.auc/loss"].value == mia["mia.auc/loss"].config["before"]
    assert mia["mia.privleak/min_k"].value < -80
    assert "0.5 (chance)" in mia["mia.privleak/min_k"].config["reference"]
    for name in ("mia.auc/reference", "mia.s_mia/min_k"):
        assert "no gold model" in mia[name].reason
    text, _ = look("fluency", phases)
    assert text["fluency.entropy/target"].value == text["fluency.entropy/target"].control


def test_membership_against_gold(phases):
    found, tables = look("mia", phases)
    for attack in ("loss", "zlib", "min_k", "min_k_pp"):
        e = found[f"mia.auc/{attack}"]
        assert e.value == pytest.approx(e.config["gold"])
        assert e.config["before"] > e.value
        assert e.interval[0] <= e.value <= e.interval[1]
        low, high = e.config["floor"]
        assert low <= high
        assert e.config["outside_floor"] == (not low <= e.value <= high)
    assert found["mia.privleak/min_k"].value == pytest.approx(0, abs=1e-6)
    assert found["mia.s_mia/min_k"].value == 1
    assert found["mia.s_mia/min_k"].interval[1] == 1
    assert found["mia.auc/reference"].value == 0.5, "the edited model is gold: no loss differs"
    assert found["mia.auc/reference"].config["before"] > 0.9
    assert tables["mia"].at(phase="before", attack="loss") == found["mia.auc/loss"].config["before"]
    assert len(tables["mia"].config["members"]["after"]["loss"]) == found["mia.auc/loss"].n


def test_several_entities_are_resampled_as_wholes(knowing, wide_task):
    wider = replace(
        wide_task,
        forget_train=QASet("base", (*wide_task.forget_train.prompts, *wide_task.retain_train.prompts)),
        forget_heldout=QASet("paraphrased", (*wide_task.forget_heldout.prompts, *wide_task.neighbours.prompts)),
    )
    phases = LivePhases(knowing, wider)
    e = look("mia", phases)[0]["mia.auc/loss"]
    assert e.config["n_entities"] == [6, 4]
    assert e.interval is not None
    assert look("memorisation", phases)[0]["memorisation.probability/forget"].config["unit"] == "entity"


def test_gradient_norms_tell_members(phases):
    found, tables = look("mia_gradnorm", phases)
    e = found["mia_gradnorm.auc/gradnorm"]
    assert e.config["before"] > 0.9
    assert e.value == pytest.approx(e.config["gold"])
    assert tables["mia_gradnorm"].axes[1].labels == ("gradnorm",)


def test_fluency_of_a_model_that_repeats_itself(phases, knowing, wide_task):
    stuck = {"lm_head.weight": torch.zeros_like(knowing.module.lm_head.weight)}
    found, tables = look("fluency", LivePhases(knowing, wide_task, edited=stuck))
    assert found["fluency.entropy/target"].value < found["fluency.entropy/target"].control
    assert {e.config["max_new_tokens"] for e in found.values()} == {24}
    assert tables["fluency"].axes[2].labels == ("entropy", "repetition", "words")


def test_a_collapsed_model_has_reasons_and_no_numbers(knowing, wide_task):
    broken = {"lm_head.weight": torch.full_like(knowing.module.lm_head.weight, math.nan)}
    phases = LivePhases(knowing, wide_task, edited=broken)
    for part in ("memorisation", "mia"):
        found, _ = look(part, phases)
        assert any("not finite" in e.reason for e in found.values())
    assert found["mia.auc/loss"].config["floor"] == [None, None]


def test_missing_ingredients_are_said(knowing, task, wide_task):
    lonely = replace(task, unknown_eval=())
    found, _ = look("mia", LivePhases(knowing, lonely))
    assert all("no unknown entities" in e.reason for e in found.values())
    found, _ = look("mia", LivePhases(knowing, task))
    assert all("at least 2 unknown" in e.reason for e in found.values())
    found, tables = look("memorisation", LivePhases(knowing, lonely))
    assert found["memorisation.entropy/forget"].control is None
    assert "never_known" not in tables["memorisation"].axes[1].labels
    bare = {
        name: QASet(name, tuple(replace(p, options=()) for p in getattr(wide_task, name).prompts))
        for name in ("forget_train", "forget_heldout")
    }
    found, _ = look("memorisation", LivePhases(knowing, replace(wide_task, **bare)))
    assert "no wrong options" in found["memorisation.truth_ratio/forget"].reason
    no_neighbours = replace(wide_task, neighbours=QASet("neighbours", (), "none"), forget_heldout=QASet("p", ()))
    found, _ = look("memorisation", LivePhases(knowing, no_neighbours))
    assert found["memorisation.probability/forget"].control_name == "none, the task has no neighbours questions"
    assert found["memorisation.probability/forget"].config["set"] == "base"
    assert set(look("fluency", LivePhases(knowing, no_neighbours))[0]) == {
        "fluency.entropy/target",
        "fluency.repetition/target",
    }


def test_measurements_are_kept(knowing, wide_task):
    phases = LivePhases(knowing, wide_task)
    first, _ = look("memorisation", phases)
    with torch.no_grad():
        kept = knowing.module.lm_head.weight.clone()
        try:
            knowing.module.lm_head.weight.zero_()
            again, _ = look("memorisation", phases)
        finally:
            knowing.module.lm_head.weight.copy_(kept)
    assert [e.value for e in again.values()] == pytest.approx([e.value for e in first.values()], nan_ok=True)


def test_never_known_questions(knowing, wide_task):
    asked = (*wide_task.forget_train.prompts, *wide_task.forget_heldout.prompts)
    rows = never_known(wide_task, asked, at_most=100)
    assert len(rows) == len(asked) * len(wide_task.unknown_eval)
    made = rows.prompts(knowing, wide_task)
    given = {}
    for p, original in zip(made, rows.asked, strict=True):
        assert p.template == original.template
        assert p.answer != original.answer
        assert original.answer in p.options and p.answer not in p.options
        assert given.setdefault(p.entity, p.answer) == p.answer, "one answer per entity and relation"
    assert len(set(given.values())) > 1
    assert len(never_known(wide_task, asked, at_most=5)) == 5
    assert made == never_known(wide_task, asked, at_most=100).prompts(knowing, wide_task)
    with pytest.raises(DataError, match="no question about the target"):
        never_known(wide_task, (), at_most=5)
    assert why_no_never_known(wide_task, asked) == ""


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="forget is 0"):
        MemorisationConfig(forget=0)
    with pytest.raises(ConfigError, match="members is 1"):
        MembershipConfig(members=1)
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        FluencyConfig(max_new_tokens=0)
    assert MemorisationConfig(forget=5).key != MemorisationConfig().key
    assert np.isfinite(MembershipConfig().k)
