"""`judge`: evidence → verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn._core import Evidence, Labelled
from interp_unlearn.verdict._behaviour import NAN
from interp_unlearn.verdict._combine import combine
from interp_unlearn.verdict._features import Reading, outside, read_features
from interp_unlearn.verdict._findings import Findings, read_findings
from interp_unlearn.verdict._gates import LEAST_ERROR, Gate, Gates, gates
from interp_unlearn.verdict._inferred import inferred
from interp_unlearn.verdict._label import LabelRules, Recovered, attacked, suppression_of
from interp_unlearn.verdict._model import Calibration, load_calibration
from interp_unlearn.verdict._side_effects import harmed, not_tested, side_effects
from interp_unlearn.verdict._verdict import Reason, Verdict

MOST_REASONS = 6
MOST_ABSENT = 0.25
"""Of the features of a calibration; where a run lacks more, one that needs fewer judges it."""
MEANS = {
    "forgotten": "nothing that was measured suggests that the target can be brought back",
    "hidden": "the target is no longer given, but it can still be brought back",
    "over-suppressed": "the target is held down below what was never known, which betrays that it was there",
    "broken": "the model lost too much else for a statement about the target",
    "kept": "the target is still given",
}


def judge(
    evidence: Iterable[Evidence] | Findings,
    tables: Mapping[str, Labelled] | None = None,
    *,
    calibration: Calibration | None = None,
) -> Verdict:
    """What the evidence of one run adds up to.

    The label is predicted from cheap evidence alone (`Verdict.predicted`). Evidence of attacks, where there is any, is
    reported beside the prediction; an attack that brought the target back is direct evidence and overrides
    "forgotten". An attack that did not is no proof of absence and changes nothing. Neither do questions that
    need the target's facts (`inferred`), but where they are still answered, the sentence says so.

    Args:
        evidence: Of one run, or `Findings`.
        tables: Its tables, of which behaviour and text loss decide whether the target is kept and the model broken, and
            give the side effects. Without them these are counted among what was not tested.
        calibration: Which one; default one that is shipped: that for the evidence level ``quick`` where more than a
            quarter of what the other one reads was not measured.

    Raises:
        DataError: If there is no calibration.
    """
    findings = evidence if isinstance(evidence, Findings) else Findings.of(evidence, tables)
    model = calibration or load_calibration()
    readings, values = _read(findings, model)
    if calibration is None and model.absent(values) > MOST_ABSENT:
        model = load_calibration(quick=True)
        readings, values = _read(findings, model)
    stage = gates(findings, model.rules)
    inner = model.predict(values)
    predicted = combine(inner, stage.broken.probability, stage.kept.probability, stage.wording.probability)
    attacks = _attacks(findings, model.rules)
    direct = max(stage.wording.probability, attacks.gate.probability)
    probabilities = combine(inner, stage.broken.probability, stage.kept.probability, direct)
    label = max(probabilities, key=lambda name: probabilities[name])
    effects = side_effects(findings)
    reasons = _reasons(label, inner, stage, attacks, model, values, readings)
    beyond = outside(values, model.scales)
    said = attacks.said(label, max(predicted, key=lambda name: predicted[name]))
    harm = harmed(effects)
    beside = f"; harmed beside it: {', '.join(harm)}" if harm and label != "broken" else ""
    untried = ", and no attack with a control was run" if label == "forgotten" and not attacks.count else ""
    left = ", ".join(map(str, inferred(findings, model.rules))) if label in ("forgotten", "over-suppressed") else ""
    follows = f"; but what follows from it is still answered: {left}" if left else ""
    sure = f"{label.capitalize()} (probability {probabilities[label]:.2f})"
    return Verdict(
        label=label,
        probabilities=probabilities,
        sentence=f"{sure}: {MEANS[label]}{untried}{follows}{beside}.",
        decided_by=reasons,
        side_effects=effects,
        not_tested=not_tested(findings, [r for r in readings if r.feature.name in {s.feature for s in model.scales}]),
        calibration=_calibration(model, beyond),
        predicted=predicted,
        attacks=said,
        outside=beyond,
    )


def _read(findings: Findings, model: Calibration) -> tuple[tuple[Reading, ...], dict[str, float]]:
    readings = read_features(findings, model.features)
    return readings, {r.feature.name: r.value for r in readings}


def verdict(folder: str | Path, *, calibration: Calibration | None = None) -> Verdict:
    """`judge` what is saved in a run folder.

    Raises:
        FileFormatError: If it is not a run folder.
        DataError: If there is no calibration.
    """
    return judge(read_findings(folder), calibration=calibration)


# -- attacks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Attacks:
    """What attacks say.

    Attributes:
        gate: That the best of them brought the target back.
        best: The best of them, None if none with a control was run.
        count: How many have a control.
        slower: How far relearning stays below its control, NaN if not measured.
        limit: The share from which the target counts as brought back.
        suppressed: Whether relearning is slower by the rules.
    """

    gate: Gate
    best: Recovered | None
    count: int
    slower: float
    limit: float
    suppressed: bool

    def said(self, label: str, predicted: str) -> str:
        if self.best is None:
            return "no attack with a control was run, so nothing was tried to bring the target back"
        many = f"{self.count} attack{'s' if self.count > 1 else ''}"
        most = f"the best of {many} ({self.best.evidence}) brings back {max(self.best.share, 0.0):.0%}"
        if self.gate.probability >= 0.5 and label == "hidden":
            agrees = "which agrees" if predicted == "hidden" else f"which overrides the prediction ({predicted})"
        elif self.gate.probability >= 0.5:
            agrees = f"and yet the model is {label}"
        elif predicted == "hidden":
            agrees = "which disagrees with the prediction (hidden): other attacks may succeed, or it is wrong"
        else:
            agrees = f"which agrees with the prediction ({predicted})"
        slow = f"; relearning is {self.slower:.0%} below never-known facts" if self.suppressed else ""
        return f"{most}, {agrees}{slow}"


def _attacks(findings: Findings, rules: LabelRules) -> _Attacks:
    found = attacked(findings, rules)
    slower, clear = suppression_of(findings)
    suppressed = slower >= rules.slower and clear
    if not found:
        return _Attacks(Gate(0.0, "", NAN, ""), None, 0, slower, rules.recoverable, suppressed)
    best = next((a for a in found if a.clear), found[0])
    error = max(best.error, LEAST_ERROR) if math.isfinite(best.error) else 0.1
    chance = 0.5 * (1 + math.erf((best.share - rules.recoverable) / error / math.sqrt(2)))
    chance = chance if best.clear else 0.0  # its interval reaches its control: nothing was seen to come back
    text = f"an attack gets {best.value:.0%} of the answers, and {best.control:.0%} of what was never known"
    gate = Gate(chance, best.evidence, best.share, text)
    return _Attacks(gate, best, len(found), slower, rules.recoverable, suppressed)


# -- reasons -----------------------------------------------------------------------------------------------------------


def _reasons(
    label: str,
    inner: Mapping[str, float],
    stage: Gates,
    attacks: _Attacks,
    model: Calibration,
    values: Mapping[str, float],
    readings: tuple[Reading, ...],
) -> tuple[Reason, ...]:
    """Gates that decided, then what pushed the second stage towards the label, or against it; one for each source."""
    if label == "broken":
        return (_of_gate(stage.broken),)
    if label == "kept":
        return (_of_gate(stage.kept),)
    reasons = []
    if label == "hidden":
        reasons = [_of_gate(g) for g in (attacks.gate, stage.wording) if g.probability >= 0.5]
    sources = {r.feature.name: (r.sources[0] if r.sources else r.feature.source, r.feature.what) for r in readings}
    others = [name for name in model.classes if name != label]
    if label in model.classes and others:
        rival = max(others, key=lambda name: inner[name])
        pushes = model.pushes(values, label, rival)
        by_source: dict[str, list[str]] = {}
        for name in sorted(pushes, key=lambda name: -abs(pushes[name])):
            by_source.setdefault(sources.get(name, (name, name))[0], []).append(name)
        total = {source: sum(pushes[n] for n in names) for source, names in by_source.items()}
        for source in sorted(total, key=lambda source: -abs(total[source]))[: MOST_REASONS - len(reasons)]:
            first = by_source[source][0]
            value, what = values.get(first, NAN), sources.get(first, (first, first))[1]
            side = f"speaks for {label} against {rival}" if total[source] > 0 else f"speaks for {rival} against {label}"
            said = f"{what}: not measured, which {side}" if math.isnan(value) else f"{what}: {side}"
            reasons.append(Reason(source, value, total[source], said))
    return tuple(reasons)


def _of_gate(gate: Gate) -> Reason:
    return Reason(gate.source, gate.value, gate.push, gate.text)


def _calibration(model: Calibration, beyond: tuple[str, ...]) -> str:
    facts = model.provenance
    where = facts.get("where", "an unnamed data set")
    level = f" for evidence level {facts['level']}" if "level" in facts else ""
    said = f"calibration {model.version}{level}, made on {where} ({facts.get('runs_in_all', '?')} runs)"
    if not beyond:
        return f"{said}; this run lies within its range"
    some = ", ".join(beyond[:4]) + (f" and {len(beyond) - 4} more" if len(beyond) > 4 else "")
    return f"{said}; this run lies OUTSIDE its range in {some}: trust the probabilities less"
