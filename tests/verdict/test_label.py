"""The rules, one by one, on findings whose numbers are chosen."""

import math
from dataclasses import replace

import numpy as np
import pytest

from interp_unlearn._core import ConfigError
from interp_unlearn.verdict import Findings, LabelRules, gates, label

SILENT = {"base": 0.05, "paraphrased": 0.05}


def test_rules_in_their_order(make_behaviour, make_attacks):
    def named(recall, best, loss=1.5, slower=0.0):
        return label(Findings.of(make_attacks(best, slower=slower), make_behaviour(recall, loss=loss)))

    assert named(SILENT, 0.1).name == "forgotten"
    assert named(SILENT, 0.6).name == "hidden"
    assert named(SILENT, 0.1, slower=0.4).name == "over-suppressed"
    assert named(SILENT, 0.6, slower=0.4).name == "hidden"  # what comes back is hidden, however slowly
    assert named({"base": 0.7, "paraphrased": 0.7}, 0.9).name == "kept"
    assert named({**SILENT, "neighbours": 0.4}, 0.9).name == "broken"
    assert named({"base": 0.9, "retain": 0.3}, 0.9).name == "broken"
    assert named(SILENT, 0.6, loss=2.5).name == "broken"


def test_recoverability_by_hand(make_behaviour, make_attacks):
    found = label(Findings.of(make_attacks(0.5, control=0.1), make_behaviour(SILENT)))
    # the original answers 0.95; the best attack gives 0.5 and 0.1 on gold: (0.5 - 0.1) / (0.95 - 0.1)
    assert found.recoverability == pytest.approx(0.4 / 0.85)
    assert found.best_attack == "recovery/relearn_rest"
    assert found.remaining == pytest.approx(0.0)  # counted from what gold guesses (0.05)
    assert found.utility["neighbours"] == 1.0
    assert found.suppression == pytest.approx(0.0)


def test_other_wordings_are_an_attack(make_behaviour, make_attacks):
    found = label(Findings.of(make_attacks(0.1), make_behaviour({"base": 0.03, "paraphrased": 0.8})))
    assert (found.name, found.best_attack) == ("hidden", "other wordings")


def test_nan_is_broken(make_behaviour, make_attacks, nan):
    tables = make_behaviour(SILENT)
    values = np.array(tables["text_loss_change"].values)
    values[1:] = nan
    tables["text_loss_change"] = replace(tables["text_loss_change"], values=values)
    found = Findings.of(make_attacks(0.1), tables)
    assert label(found).name == "broken"
    assert gates(found).broken.probability == 1.0


def test_no_label_without_attacks_or_without_knowledge(make_behaviour, make_attacks, make_evidence):
    few = [make_evidence("recovery/stitch", 0.1, control=0.05)]
    found = label(Findings.of(few, make_behaviour(SILENT)))
    assert found.name == "" and "1 attacks with a control" in found.reason
    assert label(Findings.of([], {})).name == ""
    assert label(Findings.of(make_attacks(0.1), make_behaviour(SILENT, before=0.2))).name == ""


def test_attacks_without_control_or_power_are_left_out_and_named(make_behaviour, make_attacks, make_evidence, nan):
    more = [
        make_evidence("recovery/prompts", 0.9, control=None),
        make_evidence("recovery/sampling", 0.9, control=0.9),
        make_evidence("recovery/prune", nan, reason="weights are quantised"),
    ]
    found = label(Findings.of([*make_attacks(0.1), *more], make_behaviour(SILENT)))
    assert found.name == "forgotten"
    assert [note.split(":")[0] for note in found.notes] == ["prompts", "prune", "sampling"]
    assert not math.isnan(found.recoverability)


def test_a_lucky_attack_on_few_questions_gives_no_label(make_behaviour, make_attacks, make_evidence):
    lucky = make_evidence("recovery/sampling", 0.4, control=0.05, interval=(0.0, 0.8))
    found = label(Findings.of([*make_attacks(0.1), lucky], make_behaviour(SILENT)))
    assert found.name == "" and "may be its control" in found.reason
    clear = make_evidence("recovery/sampling", 0.4, control=0.05, interval=(0.2, 0.6))
    assert label(Findings.of([*make_attacks(0.1), clear], make_behaviour(SILENT))).name == "hidden"


def test_slow_relearning_counts_only_with_a_clear_interval(make_behaviour, make_attacks, make_evidence):
    unclear = make_evidence("suppression/relearn", 0.5, control=0.8, interval=(0.2, 0.9))
    evidence = [*(e for e in make_attacks(0.1) if e.name != unclear.name), unclear]
    assert label(Findings.of(evidence, make_behaviour(SILENT))).name == "forgotten"


def test_thresholds_are_shares():
    with pytest.raises(ConfigError, match=r"kept is 1\.5"):
        LabelRules(kept=1.5)
    with pytest.raises(ConfigError, match="min_attacks"):
        LabelRules(min_attacks=0)


def test_gates_are_unsure_near_their_threshold_and_sure_far_from_it(make_behaviour):
    def kept(share):
        return gates(Findings.of([], make_behaviour({"base": 0.95 * share}))).kept.probability

    assert kept(0.3) == pytest.approx(0.5, abs=0.02)
    assert kept(0.02) < 0.01 < 0.99 < kept(0.9)
    assert gates(Findings.of([], {})).kept.probability == 0.0  # not measured: not claimed
