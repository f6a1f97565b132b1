"""Verdicts by rule: a label with its reason and no probability, or the reason why there is none."""

import math

from interp_unlearn.verdict import Findings, Verdict, ruled
from interp_unlearn.verdict._ruled import BY_RULE

SILENT = {"base": 0.05, "paraphrased": 0.05}


def test_what_the_rules_decide_is_a_verdict_without_a_probability(make_behaviour, make_attacks):
    for recall, best, expected in (
        ({"base": 0.7, "paraphrased": 0.7}, 0.9, "kept"),
        ({**SILENT, "neighbours": 0.4}, 0.9, "broken"),
        (SILENT, 0.6, "hidden"),
        (SILENT, 0.1, "forgotten"),
    ):
        found, label = ruled(Findings.of(make_attacks(best), make_behaviour(recall)))
        assert found is not None
        assert found.label == label.name == expected
        assert found.sentence.startswith(f"{expected.capitalize()}, by rule: ")
        assert label.reason in found.sentence
        assert math.isnan(found.probability)
        assert found.calibration == BY_RULE
        assert Verdict.from_json(found.to_json()) == found


def test_without_attacks_forgotten_is_not_said(make_behaviour):
    found, label = ruled(Findings.of([], make_behaviour(SILENT)))
    assert found is None
    assert "0 attacks with a control were run" in label.reason
