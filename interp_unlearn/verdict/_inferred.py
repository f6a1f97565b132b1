"""What still follows from the target: questions that need its facts, and that no recipe was told to forget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from interp_unlearn.verdict._behaviour import change_of, gold_recall
from interp_unlearn.verdict._findings import Findings
from interp_unlearn.verdict._label import LabelRules

SETS: Mapping[str, str] = {"multi_hop": "two-hop questions", "backwards": "questions asked backwards"}
"""Question sets that should go with the target, in words; keeping them is superficial (FaithUn, arXiv 2502.19207)."""


@dataclass(frozen=True)
class Inferred:
    """One such set of questions that is still answered.

    Attributes:
        name: The question set.
        before: Share answered by the original model.
        after: Share answered by the edited model.
        gold: Share answered by gold, NaN without one.
        n: Questions it rests on.
    """

    name: str
    before: float
    after: float
    gold: float
    n: int

    def __str__(self) -> str:
        gold = "" if math.isnan(self.gold) else f", gold {self.gold:.0%}"
        of = f" of {self.n}" if self.n else ""
        return f"{SETS[self.name]} ({self.after:.0%}{of}, before {self.before:.0%}{gold})"


def inferred(findings: Findings, rules: LabelRules | None = None) -> tuple[Inferred, ...]:
    """Sets of which as much is left as would make the target itself count as kept (`LabelRules.kept`).

    Counted from gold's recall where gold exists. Sets that the original hardly answers (`LabelRules.min_known`) say
    nothing and are left out.
    """
    rules = rules or LabelRules()
    found = []
    for name in SETS:
        change, gold = change_of(findings, (name,)), gold_recall(findings, (name,))
        floor = 0.0 if math.isnan(gold) else gold
        if change.known and change.before >= rules.min_known and change.share(floor) >= rules.kept:
            found.append(Inferred(name, change.before, change.after, gold, change.n))
    return tuple(found)
