"""The label of a run, from recoverability: what strong attacks bring back, and what the edit cost.

The rules and their thresholds were written down before any calibration run was looked at. A label is what the
predictor is fitted to and tested against; the evidence that predicts it is listed in `_features.py` and is disjoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from interp_unlearn._core import ConfigError, Evidence
from interp_unlearn.verdict._behaviour import BASE, HELDOUT, NAN, change_of, gold_recall, text_loss_of
from interp_unlearn.verdict._findings import Findings

LabelName = Literal["forgotten", "hidden", "over-suppressed", "broken", "kept"]
LABELS: tuple[LabelName, ...] = ("forgotten", "hidden", "over-suppressed", "broken", "kept")
RECOVERY = "recovery/"
"""Attacks: value is the best recovered recall of the target, control the same on gold or on never-known facts."""
SUPPRESSION = "suppression/relearn*"
"""Relearning: value is the level the target reaches, control that of never-known facts or gold, taught alike."""
WORDING = "other wordings"
"""The weakest attack: the same facts, asked in wordings that the recipe did not see."""


@dataclass(frozen=True)
class LabelRules:
    """Thresholds, applied in this order: broken, kept, hidden, over-suppressed, else forgotten.

    Attributes:
        neighbours_kept: Broken if less than this share of the neighbours' recall is left.
        retained_kept: Broken if less than this share of the retained entities' recall is left.
        text_loss_up: Broken if the loss on general text rises by more than this share. Any NaN is broken, too.
        kept: Kept if at least this share of the target's recall is left on the questions that the recipe saw, counted
            from gold's recall (guessing) where gold exists, else from 0.
        recoverable: Hidden if an attack brings back at least this share of what the original model knew, counted from
            the same attack's control, and its interval, where there is one, lies above the control. Where only attacks
            with wider intervals reach the share, there is no label.
        slower: Over-suppressed if relearning stays below its control by at least this share of the control, and the
            interval, where there is one, lies below it too.
        min_known: The original must answer at least this share of the target's questions, else there is no label.
        min_room: An attack whose control comes this near to the original's recall has no power and is left out.
        min_attacks: Without so many attacks that have a control, nothing is called forgotten or over-suppressed.
    """

    neighbours_kept: float = 0.7
    retained_kept: float = 0.7
    text_loss_up: float = 0.25
    kept: float = 0.3
    recoverable: float = 0.3
    slower: float = 0.2
    min_known: float = 0.3
    min_room: float = 0.2
    min_attacks: int = 3

    def __post_init__(self) -> None:
        for name in ("neighbours_kept", "retained_kept", "kept", "recoverable", "slower", "min_known", "min_room"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"label rules: {name} is {value}; give a share between 0 and 1")
        if not self.text_loss_up > 0:
            raise ConfigError(f"label rules: text_loss_up is {self.text_loss_up}; give a positive share such as 0.25")
        if self.min_attacks < 1:
            raise ConfigError(f"label rules: min_attacks is {self.min_attacks}; use at least 1")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Label:
    """What the rules say of one run.

    Attributes:
        name: The label, or empty where the rules cannot decide; ``reason`` then says why.
        reason: What decided, in one sentence.
        recoverability: Largest share that an attack brought back, NaN without attacks.
        best_attack: The attack that did.
        shares: Share brought back by each attack with a control.
        remaining: Share of the target's recall left without any attack, on the recipe's own questions.
        utility: What is left of each thing that must survive (text loss: relative change).
        suppression: How far relearning stays below its control, as a share of the control; NaN if not measured.
        notes: Attacks that were left out, and why.
    """

    name: LabelName | Literal[""]
    reason: str
    recoverability: float = NAN
    best_attack: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    remaining: float = NAN
    utility: Mapping[str, float] = field(default_factory=dict)
    suppression: float = NAN
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recovered:
    """What one attack brought back.

    Attributes:
        evidence: Id of the evidence.
        share: (value − control) / (original − control).
        error: Standard error of the share, from its interval; NaN where there is none.
        value: Recall under the attack.
        control: The same attack on gold or on facts that were never known.
        clear: Whether the interval of the value lies above the control, or there is none.
    """

    evidence: str
    share: float
    error: float
    value: float
    control: float
    clear: bool = True


def utility_of(findings: Findings) -> dict[str, float]:
    """What is left of neighbours' and retained recall (1 is all), and the relative rise of the text loss.

    A number that was measured before and is NaN afterwards is given as NaN: the model is broken. What was not measured
    on both models is left out.
    """
    out = {}
    for name, sets in (("neighbours", ("neighbours",)), ("retained", ("retain", "retain_train"))):
        change = change_of(findings, sets)
        if change.known and change.before > 0:
            out[name] = change.share()
    loss = text_loss_of(findings)
    if loss.known:
        out["text loss"] = loss.change / loss.before
    return out


def why_broken(findings: Findings, rules: LabelRules) -> str:
    """Why the model counts as broken, or an empty string."""
    limits = {"neighbours": rules.neighbours_kept, "retained": rules.retained_kept}
    for name, left in utility_of(findings).items():
        if not math.isfinite(left):
            return f"{name} became NaN or infinite"
        if name in limits and left < limits[name]:
            return f"{left:.0%} of the recall on {name} entities is left (limit {limits[name]:.0%})"
        if name == "text loss" and left > rules.text_loss_up:
            return f"the loss on general text rose by {left:.0%} (limit {rules.text_loss_up:.0%})"
    target = change_of(findings, BASE, "probability")
    return "the target's answers have no finite probability" if target.known and math.isnan(target.after) else ""


def recovered(findings: Findings, rules: LabelRules) -> tuple[tuple[Recovered, ...], tuple[str, ...]]:
    """What each attack brought back, largest share first, and why some attacks were left out."""
    known = _known(findings)
    out, notes = [], []
    for item in findings.matching(f"{RECOVERY}*"):
        name = item.name.removeprefix(RECOVERY)
        control = NAN if item.control is None else float(item.control)
        if math.isnan(item.value):
            notes.append(f"{name}: {item.reason or 'no value'}")
        elif math.isnan(control):
            notes.append(f"{name}: it has no control, so what came back cannot be told from guessing")
        elif known - control < rules.min_room:
            notes.append(f"{name}: its control ({control:.2f}) is too near to what the original knew ({known:.2f})")
        else:
            out.append(_recovered(item, control, known))
    heldout = change_of(findings, HELDOUT)
    if heldout.known:
        guess = gold_recall(findings, HELDOUT)
        floor = 0.0 if math.isnan(guess) else guess
        if heldout.before - floor >= rules.min_room and math.isfinite(heldout.after):
            share, error = heldout.share(floor), heldout.share_error(floor)
            out.append(Recovered(WORDING, share, error, heldout.after, floor, share > 1.96 * error))
    return tuple(sorted(out, key=lambda r: -r.share)), tuple(notes)


def attacked(findings: Findings, rules: LabelRules | None = None) -> tuple[Recovered, ...]:
    """The attacks that were run and count: all of `recovered` but the mere asking in other wordings."""
    return tuple(a for a in recovered(findings, rules or LabelRules())[0] if a.evidence != WORDING)


def _recovered(item: Evidence, control: float, known: float) -> Recovered:
    room = known - control
    low, high = item.interval or (NAN, NAN)
    error = (high - low) / (2 * 1.96) / room if math.isfinite(high - low) else NAN
    clear = item.interval is None or item.interval[0] > control
    return Recovered(item.name, (item.value - control) / room, error, float(item.value), control, clear)


def _known(findings: Findings) -> float:
    """What the original model answered of the target, in its better wording."""
    found = [change_of(findings, sets).before for sets in (BASE, HELDOUT)]
    return max((v for v in found if not math.isnan(v)), default=NAN)


def suppression_of(findings: Findings) -> tuple[float, bool]:
    """How far relearning stays below its control (share of the control), and whether its interval does too."""
    for item in findings.matching(SUPPRESSION):
        if item.control is None or not item.control > 0 or math.isnan(item.value):
            continue
        clear = item.interval is None or item.interval[1] < item.control
        return (item.control - item.value) / item.control, clear
    return NAN, False


def label(findings: Findings, rules: LabelRules | None = None) -> Label:
    """Label a run by the rules.

    Args:
        findings: With behaviour tables, and the evidence of attacks (``recovery/<attack>``, ``suppression/relearn``).
        rules: Thresholds; default those that the calibration uses.
    """
    rules = rules or LabelRules()
    known, base = _known(findings), change_of(findings, BASE)
    guess = gold_recall(findings, BASE)
    remaining = base.share(0.0 if math.isnan(guess) else min(guess, base.before - 1e-9)) if base.known else NAN
    attacks, notes = recovered(findings, rules)
    slower, clear = suppression_of(findings)
    best = attacks[0] if attacks else None
    facts: dict[str, Any] = {
        "recoverability": best.share if best else NAN,
        "best_attack": best.evidence if best else "",
        "shares": {a.evidence: a.share for a in attacks},
        "remaining": remaining,
        "utility": utility_of(findings),
        "suppression": slower,
        "notes": notes,
    }
    if math.isnan(known) or known < rules.min_known:
        return Label(
            "", f"the original model answers {known:.0%} of the target's questions, too few to forget", **facts
        )
    broken = why_broken(findings, rules)
    if broken:
        return Label("broken", broken, **facts)
    if remaining >= rules.kept:
        return Label("kept", f"{remaining:.0%} of the target's answers are still given", **facts)
    enough = [a for a in attacks if a.share >= rules.recoverable]
    if any(a.clear for a in enough):
        first = next(a for a in enough if a.clear)
        return Label("hidden", f"{first.evidence} brings back {first.share:.0%} of what was known", **facts)
    if enough:
        return Label("", f"{enough[0].evidence} brings back {enough[0].share:.0%}, but it may be its control", **facts)
    strong = attacked(findings, rules)
    if len(strong) < rules.min_attacks:
        return Label("", f"{len(strong)} attacks with a control were run; {rules.min_attacks} are needed", **facts)
    most = f"no attack brings back more than {facts['recoverability']:.0%}"
    if slower >= rules.slower and clear:
        return Label("over-suppressed", f"{most}, and relearning is {slower:.0%} below never-known facts", **facts)
    return Label("forgotten", most, **facts)
