"""Every evidence of this room that parts yield: what it asks, where a forgotten target lies, what it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interp_unlearn._core import Evidence


@dataclass(frozen=True)
class Kind:
    """One kind of evidence.

    Attributes:
        question: What it asks, in one sentence.
        does_not_show: What a reader must not conclude.
        direction: What a forgotten target looks like.
    """

    question: str
    does_not_show: str
    direction: Literal["low", "high", "near control"] = "near control"


_WEAK = "A target that does not come back under one attack may come back under another."
_MORE = f"{_WEAK} More steps, other facts or another optimiser may do what these did not."

CATALOGUE: Mapping[str, Kind] = {
    "recovery/stitch": Kind(
        "How much of the target do the original's upper layers read from the edited model's lower ones?",
        "A representation that was rotated and not emptied is not read by the original's layers; and low layers hold "
        "little of a fact before or after, so only layers past the middle count.",
    ),
    "stitch.upper": Kind(
        "How much of the target do the edited model's upper layers still read from the original's lower ones?",
        "It places the change and shows no knowledge: the original's lower layers bring the fact along.",
    ),
    "recovery/readout": Kind(
        "How many of the target's answers does a linear readout find that was trained on other entities only?",
        "It is linear and reads the last position of the question; what other positions hold, or what is not linear, "
        "goes unseen.",
    ),
    "recovery/prompts": Kind("How many of the target's answers does another wording bring out?", _WEAK),
    "recovery/quantise": Kind(
        "How many of the target's answers come back when weights are rounded?",
        f"{_WEAK} Other rounding schemes (by group, by calibration) differ.",
    ),
    "recovery/sampling": Kind(
        "How likely is a right answer among several samples?",
        f"{_WEAK} A short list of usual answers is hit by chance too: read it beside its control.",
    ),
    "recovery/noise": Kind("How many of the target's answers come back when weights are disturbed at random?", _WEAK),
    "recovery/prune": Kind("How many of the target's answers come back when small weights are removed?", _WEAK),
    "recovery/relearn_rest": Kind("When a part of the target is taught again, does the rest come back?", _MORE),
    "recovery/relearn_lora": Kind(
        "When a part of the target is taught again through a LoRA, does the rest come back?", _MORE
    ),
    "recovery/relearn_templates": Kind(
        "When the target is taught again in some wordings, does it come back in others?",
        f"{_MORE} Facts that were never known are learned too: only the difference to the control tells.",
    ),
    "recovery/relearn_neighbours": Kind(
        "When facts about other entities of the type are taught again, does the target come back?", _MORE
    ),
    "recovery/relearn_text": Kind("When the model is trained on unrelated text, does the target come back?", _MORE),
    "suppression/relearn": Kind(
        "Is the target relearned as fast as facts that were never known, on wordings that are not taught?",
        "Below the control is a mark of over-suppression, not of a better forgetting. As fast as the control does not "
        "prove absence: a model may learn new facts as fast as it recalls old ones.",
    ),
}

GOLD = "gold, attacked alike"
NEVER = "facts that were never known, attacked alike"


def evidence(name: str, value: float, *, n: int, **fields: Any) -> Evidence:
    """An `Evidence` with its catalogue entries filled in."""
    entry = CATALOGUE[name]
    return Evidence(
        name=name,
        question=entry.question,
        value=float(value),
        direction=entry.direction,
        n=n,
        mask_policy=fields.pop("mask_policy", "answer tokens"),
        does_not_show=entry.does_not_show,
        **fields,
    )


def missing(name: str, reason: str, **fields: Any) -> Evidence:
    """An `Evidence` without a value, and the reason why."""
    return evidence(name, float("nan"), n=0, reason=reason, **fields)
