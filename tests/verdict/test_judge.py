"""Verdicts of single runs: what they say, what decided, what attacks change, and what they admit."""

import math
from pathlib import Path

import pytest

from interp_unlearn._core import DataError, FileFormatError, write_json
from interp_unlearn.verdict import FEATURES, LABELS, Findings, Verdict, fit, judge, verdict
from interp_unlearn.verdict import _model as model_file

TRUTHS = LABELS


@pytest.mark.parametrize("truth", TRUTHS)
def test_each_kind_of_run_is_told(truth, make_findings, calibration):
    found = judge(make_findings(truth, seed=5, attacked=False, noise=0.3), calibration=calibration)
    assert found.label == truth
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.probability == max(found.probabilities.values()) > 0.5
    assert found.sentence.startswith(truth.capitalize())
    assert found.decided_by and found.decided_by[0].evidence
    assert found.probabilities == found.predicted  # nothing attacked it
    assert "no attack" in found.attacks
    assert any("attacks: relearning" in s for s in found.not_tested)


def test_reasons_are_strongest_first_and_one_for_each_source(make_findings, calibration):
    found = judge(make_findings("hidden", attacked=False), calibration=calibration)
    pushes = [abs(r.push) for r in found.decided_by]
    assert pushes == sorted(pushes, reverse=True)
    assert len({r.evidence for r in found.decided_by}) == len(found.decided_by)
    assert found.decided_by[0].push > 0 and "speaks for hidden" in found.decided_by[0].text


def test_a_successful_attack_overrides_forgotten(make_findings, make_attacks, calibration):
    quiet = make_findings("forgotten", noise=0.3, attacked=False)
    assert judge(quiet, calibration=calibration).label == "forgotten"
    attacked = Findings.of([*quiet.evidence.values(), *make_attacks(0.8)], quiet.tables)
    found = judge(attacked, calibration=calibration)
    assert found.label == "hidden" and found.predicted["forgotten"] > 0.5
    assert found.decided_by[0].evidence == "recovery/relearn_rest"
    assert found.decided_by[0].push > 0 and "attack gets 80%" in found.decided_by[0].text
    assert "overrides the prediction (forgotten)" in found.attacks


def test_an_attack_within_reach_of_its_control_overrides_nothing(make_findings, make_evidence, calibration):
    quiet = make_findings("forgotten", noise=0.3, attacked=False)
    lucky = make_evidence("recovery/sampling", 0.45, control=0.05, interval=(0.0, 0.9))
    found = judge(Findings.of([*quiet.evidence.values(), lucky], quiet.tables), calibration=calibration)
    assert found.label == "forgotten" and found.probabilities == found.predicted


def test_a_failed_attack_proves_nothing(make_findings, make_attacks, calibration):
    hidden = make_findings("hidden", noise=0.3, attacked=False)
    attacked = Findings.of([*hidden.evidence.values(), *make_attacks(0.05)], hidden.tables)
    before, after = (judge(f, calibration=calibration) for f in (hidden, attacked))
    assert after.label == "hidden" and after.predicted == before.predicted
    assert after.probabilities == pytest.approx(before.probabilities, abs=0.02)
    assert "disagrees with the prediction (hidden)" in after.attacks
    assert (
        "agrees with the prediction (forgotten)" in judge(make_findings("forgotten"), calibration=calibration).attacks
    )


def test_side_effects_with_intervals(make_behaviour, make_findings, calibration):
    cheap = make_findings("forgotten", attacked=False)
    tables = make_behaviour({"base": 0.05, "paraphrased": 0.05, "neighbours": 0.85}, loss=1.65)
    found = judge(list(cheap.evidence.values()), tables, calibration=calibration)
    effects = {e.name: e for e in found.side_effects}
    assert set(effects) == {"neighbours", "same_answer", "retained", "text_loss"}
    assert effects["neighbours"].change == pytest.approx(-0.1) and effects["neighbours"].harm == pytest.approx(0.1)
    assert effects["neighbours"].low == pytest.approx(-0.15)
    assert effects["text_loss"].change == pytest.approx(0.1) and effects["text_loss"].low == pytest.approx(0.08)
    assert effects["same_answer"].harm == 0.0
    assert "harmed beside it: neighbours, general text" in found.sentence
    better = judge(list(cheap.evidence.values()), make_behaviour({"base": 0.05}, loss=1.4), calibration=calibration)
    assert "harmed" not in better.sentence


def test_without_tables_the_gap_is_said(make_findings, calibration):
    found = judge(list(make_findings("hidden").evidence.values()), calibration=calibration)
    assert any("still given" in s for s in found.not_tested)
    assert found.side_effects == () and found.label == "hidden"


def test_a_run_outside_the_calibrated_range_is_said(make_findings, make_evidence, calibration):
    found = make_findings("hidden", attacked=False)
    strange = {**found.evidence, "uds.score/unknown": make_evidence("uds.score/unknown", 50.0, control=0.05)}
    result = judge(Findings(strange, found.tables), calibration=calibration)
    assert "uds" in result.outside and "OUTSIDE its range" in result.calibration
    usual = judge(make_findings("hidden", seed=0, attacked=False), calibration=calibration)
    assert calibration.version in usual.calibration and "made-up runs" in usual.calibration


def test_parts_that_were_not_run_are_named(make_findings, calibration):
    found = make_findings("forgotten")
    parts = {
        "stitch": {"kind": "attack", "what": "upper layers", "evidence": ["recovery/stitch"]},
        "noise": {"kind": "attack", "what": "random noise on weights"},
        "uds": {"kind": "probe", "what": "depth"},
    }
    said = judge(Findings(found.evidence, found.tables, (), parts), calibration=calibration).not_tested
    assert any("the attack noise (random noise on weights)" in s for s in said)
    assert not any("stitch" in s for s in said)


def test_a_verdict_survives_its_file(make_findings, calibration, tmp_path):
    found = judge(make_findings("hidden"), calibration=calibration)
    found.save(tmp_path / "verdict.json")
    assert Verdict.load(tmp_path / "verdict.json") == found
    with pytest.raises(FileFormatError, match="not a saved verdict"):
        Verdict.from_json({"kind": "run"})
    with pytest.raises(FileFormatError, match="judge the run again"):
        Verdict.from_json({"kind": "verdict", "label": "hidden"})


def write_run(folder: Path, findings: Findings) -> None:
    write_json(folder / "config.json", {"kind": "run"})
    for i, item in enumerate(findings.evidence.values()):
        item.save(folder / "evidence" / f"{i}.json")
    for name, table in findings.tables.items():
        write_json(folder / "tables" / f"{name}.json", table.to_json())


def test_a_run_folder_is_judged_from_its_files(make_findings, calibration, tmp_path):
    findings = make_findings("hidden")
    write_run(tmp_path, findings)
    expected = judge(findings, calibration=calibration)
    assert verdict(tmp_path, calibration=calibration) == expected
    (tmp_path / "evidence" / "broken.json").write_text("{")
    (tmp_path / "tables" / "behaviour.base.json").write_text('{"kind": "labelled"}')
    assert verdict(tmp_path, calibration=calibration).label == expected.label
    with pytest.raises(FileFormatError, match="not a run folder"):
        verdict(tmp_path / "none")


def test_judge_without_calibration_raises(make_findings, monkeypatch, tmp_path):
    monkeypatch.setattr(model_file, "SHIPPED", tmp_path / "none.json")
    with pytest.raises(DataError, match="no calibration"):
        judge(make_findings("hidden"))


def test_nothing_measured_is_no_certainty(calibration):
    found = judge([], calibration=calibration)
    assert found.probability < 0.99 and not math.isnan(found.probability)
    assert "OUTSIDE" in found.calibration


def test_a_run_that_measured_little_is_judged_by_what_it_measured(
    make_findings, data, calibration, monkeypatch, tmp_path
):
    """Where much of what the calibration reads is missing, the one for the quick level judges, and says so."""
    little = ("alignment.t", "alignment.t.moved", "displaced.early")
    quick = fit(data, features=[f for f in FEATURES if f.name in little], provenance={"where": "x", "level": "quick"})
    for attribute, made in (("SHIPPED", calibration), ("SHIPPED_QUICK", quick)):
        made.save(tmp_path / f"{attribute}.json")
        monkeypatch.setattr(model_file, attribute, tmp_path / f"{attribute}.json")
    whole = make_findings("hidden")
    assert judge(whole) == judge(whole, calibration=calibration)
    few = Findings.of([e for e in whole.evidence.values() if e.name.startswith("alignment")], whole.tables)
    found = judge(few)
    assert quick.version in found.calibration and "for evidence level quick" in found.calibration
    assert found.probabilities == judge(few, calibration=quick).probabilities
    (tmp_path / "SHIPPED_QUICK.json").unlink()
    assert judge(few) == judge(few, calibration=calibration)
