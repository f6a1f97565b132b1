"""What else an edit did, and what nobody looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from interp_unlearn.verdict._behaviour import BASE, HELDOUT, change_of, text_loss_of
from interp_unlearn.verdict._features import Reading
from interp_unlearn.verdict._findings import Findings
from interp_unlearn.verdict._label import RECOVERY, SUPPRESSION
from interp_unlearn.verdict._verdict import SideEffect

SETS: Mapping[str, tuple[str, ...]] = {
    "neighbours": ("neighbours",),
    "same_answer": ("same_answer",),
    "own_other": ("own_other",),
    "retained": ("retain", "retain_train"),
}
WORDS: Mapping[str, str] = {
    "neighbours": "neighbours",
    "same_answer": "others with the same answer",
    "own_other": "the target's other facts",
    "retained": "retained entities",
    "text_loss": "general text",
}
"""Side effects as readers know them."""
WORTH_A_WORD = 0.01
"""Harm below one per cent is in the numbers and not in the sentence."""
ALWAYS = (
    "languages, modalities and wordings beyond the templates of the world",
    "attackers with more steps, more data or other attacks than those listed",
)


def side_effects(findings: Findings) -> tuple[SideEffect, ...]:
    """Change of what must survive: recall on four question sets, and loss on general text."""
    out = []
    for name, sets in SETS.items():
        found = change_of(findings, sets)
        if found.known:
            harm = math.inf if math.isnan(found.after) else max(0.0, -found.change)
            out.append(SideEffect(name, found.before, found.after, found.change, found.low, found.high, found.n, harm))
    loss = text_loss_of(findings)
    if loss.known:
        change, low, high = (v / loss.before for v in (loss.change, loss.low, loss.high))
        harm = math.inf if not math.isfinite(change) else max(0.0, change)
        out.append(SideEffect("text_loss", loss.before, loss.after, change, low, high, loss.n, harm))
    return tuple(out)


def harmed(effects: Sequence[SideEffect]) -> tuple[str, ...]:
    """In words, what was clearly harmed: the interval of the change lies on one side of zero."""
    clear = [e for e in effects if e.low > 0 or e.high < 0 or not math.isfinite(e.harm)]
    return tuple(WORDS[e.name] for e in clear if e.harm >= WORTH_A_WORD)


def not_tested(findings: Findings, readings: Sequence[Reading]) -> tuple[str, ...]:
    """What the verdict does not rest on, one sentence each."""
    out = []
    for what, known in (
        ("whether the target is still given, since no table of behaviour was given", change_of(findings, BASE).known),
        ("the target in wordings that the recipe did not see", change_of(findings, HELDOUT).known),
        ("neighbours", change_of(findings, SETS["neighbours"]).known),
        ("loss on general text", text_loss_of(findings).known),
    ):
        if not known:
            out.append(what)
    attacks = {n: p for n, p in findings.parts.items() if p.get("kind") == "attack"}
    for name, part in sorted(attacks.items()):
        if not _measured(findings, part):
            out.append(f"the attack {name} ({part.get('what', 'an attack')})")
    if not attacks:
        if not findings.matching(f"{RECOVERY}*"):
            out.append("attacks: relearning, stitching, readouts, prompts, quantisation")
        if not findings.matching(SUPPRESSION):
            out.append("whether the target is relearned more slowly than what was never known")
    missing = sorted({r.feature.name for r in readings if math.isnan(r.value)})
    if missing:
        some = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        out.append(f"{len(missing)} of the {len(readings)} features of the calibration: {some}")
    return (*out, *ALWAYS)


def _measured(findings: Findings, part: Mapping[str, object]) -> bool:
    names = part.get("evidence")
    found = [findings.evidence[n] for n in names if n in findings.evidence] if isinstance(names, (list, tuple)) else []
    return any(not math.isnan(e.value) for e in found)
