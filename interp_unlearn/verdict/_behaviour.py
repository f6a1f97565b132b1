"""What the answers say: the share of the target that is still answered, and the damage to everything else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from interp_unlearn.verdict._findings import Findings

BASE = ("base", "forget_train")
"""The target's questions in the wordings that the recipe saw."""
HELDOUT = ("paraphrased", "forget_heldout")
"""The same facts in wordings that it did not see."""
NAN = float("nan")


@dataclass(frozen=True)
class Change:
    """One number in the original and in the edited model.

    Attributes:
        before: In the original model.
        after: In the edited model.
        low: Lower end of the 95 % interval of the change, NaN where there is none.
        high: Its upper end.
        n: Questions it rests on.
        known: Whether it was measured on both models; then a NaN afterwards is a broken model, not a missing number.
    """

    before: float = NAN
    after: float = NAN
    low: float = NAN
    high: float = NAN
    n: int = 0
    known: bool = False

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before

    def share(self, floor: float = 0.0) -> float:
        """What is left of ``before``, both counted from ``floor``: 1 all of it, 0 nothing; NaN if nothing was there."""
        room = self.before - floor
        return (self.after - floor) / room if room > 0 else NAN

    def share_error(self, floor: float = 0.0) -> float:
        """Standard error of `share`: from the interval, else that of a proportion of ``n`` questions."""
        room = self.before - floor
        if not room > 0:
            return NAN
        if math.isfinite(self.high - self.low) and self.high > self.low:
            return max((self.high - self.low) / (2 * 1.96), 0.5 / max(self.n, 1)) / room
        rate = min(max(self.after, 0.0), 1.0) if math.isfinite(self.after) else 0.5
        return math.sqrt(max(rate * (1 - rate), 0.05) / max(self.n, 1)) / room


def change_of(findings: Findings, sets: tuple[str, ...], metric: str = "exact") -> Change:
    """Before and after of one question set (the first of the names that was measured)."""
    for name in sets:
        before, after = (findings.at(f"behaviour.{phase}", set=name, metric=metric) for phase in ("before", "after"))
        table = findings.tables.get("behaviour.after")
        measured = table is not None and name in table.axes[0].labels
        low = high = NAN
        paired = {
            q: findings.at("behaviour_change", set=name, metric=metric, quantity=q)
            for q in ("before", "after", "low", "high")
        }
        if not math.isnan(paired["before"]):
            before, after, low, high = paired["before"], paired["after"], paired["low"], paired["high"]
            measured = True
        if measured and not math.isnan(before):
            return Change(before, after, low, high, _count(findings, name), known=True)
    return Change()


def _count(findings: Findings, name: str) -> int:
    for key in ("behaviour_change", "behaviour.after", "behaviour.before"):
        table = findings.tables.get(key)
        counts = table.config.get("n") if table is not None else None
        if isinstance(counts, Mapping) and isinstance(counts.get(name), int):
            return int(counts[name])
    return 0


def text_loss_of(findings: Findings) -> Change:
    """Mean loss on general text, nats per token; the interval bounds the relative change, times ``before``."""
    saved = {q: findings.at("text_loss_change", quantity=q) for q in ("before", "after", "low", "high")}
    table = findings.tables.get("text_loss_change")
    if table is not None and not math.isnan(saved["before"]):
        before = saved["before"]
        return Change(before, saved["after"], saved["low"] * before, saved["high"] * before, table.n, known=True)
    before, after = (_mean_loss(findings, phase) for phase in ("before", "after"))
    return Change(before, after, known="text_loss.after" in findings.tables and not math.isnan(before))


def _mean_loss(findings: Findings, phase: str) -> float:
    table = findings.tables.get(f"text_loss.{phase}")
    mean = table.config.get("mean") if table is not None else None
    return float(mean) if isinstance(mean, (int, float)) else NAN


def gold_recall(findings: Findings, sets: tuple[str, ...]) -> float:
    """What gold answers by guessing, NaN without gold. For labels only: a prediction never sees it."""
    found = (findings.at("behaviour.gold", set=name, metric="exact") for name in sets)
    return next((v for v in found if not math.isnan(v)), NAN)
