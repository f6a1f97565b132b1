"""A verdict by the rules of the labels alone, for models of a kind that no calibration was fitted on.

The rules (`LabelRules`) read what is measured on any model: what is left of the target and of everything else, and what
attacks bring back. They give a label and its reason, and no probability. Where they cannot decide, there is no verdict,
and the reason says what is missing.
"""

from __future__ import annotations

from pathlib import Path

from interp_unlearn.verdict._findings import Findings, read_findings
from interp_unlearn.verdict._judge import MEANS
from interp_unlearn.verdict._label import Label, LabelRules, label
from interp_unlearn.verdict._side_effects import harmed, side_effects
from interp_unlearn.verdict._verdict import Verdict

BY_RULE = "none: decided by rule, since the calibrations are fitted on language models"


def ruled(findings: Findings, rules: LabelRules | None = None) -> tuple[Verdict | None, Label]:
    """What the rules say of one run.

    Args:
        findings: What was measured.
        rules: Thresholds; default those behind the labels of the calibration.

    Returns:
        The verdict, or None where the rules cannot decide; and the label with its reason.
    """
    found = label(findings, rules)
    if not found.name:
        return None, found
    effects = side_effects(findings)
    harm = harmed(effects)
    beside = f"; harmed beside it: {', '.join(harm)}" if harm and found.name != "broken" else ""
    sentence = f"{found.name.capitalize()}, by rule: {MEANS[found.name]} ({found.reason}){beside}."
    return Verdict(
        label=found.name,
        probabilities={},
        sentence=sentence,
        decided_by=(),
        side_effects=effects,
        not_tested=() if found.shares else ("attacks with a control",),
        calibration=BY_RULE,
    ), found


def ruled_folder(folder: str | Path) -> tuple[Verdict | None, Label]:
    """`ruled` of what is saved in a run folder.

    Raises:
        FileFormatError: If it is not a run folder.
    """
    return ruled(read_findings(folder))
