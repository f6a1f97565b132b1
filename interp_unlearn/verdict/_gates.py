"""The rule-like first stage: is the model broken, is the target plainly kept, does it answer in other wordings?

Each gate is a threshold of `LabelRules` on a share that was measured on a sample of questions. Its probability is the
one that the share lies on the far side of the threshold, with the share's standard error and a normal approximation:
an answer for certain where many questions say so, near one half at the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from interp_unlearn.verdict._behaviour import BASE, HELDOUT, change_of, text_loss_of
from interp_unlearn.verdict._findings import Findings
from interp_unlearn.verdict._label import LabelRules, why_broken

LEAST_ERROR = 0.02
"""Smallest standard error of a share: no sample of questions is worth more."""


@dataclass(frozen=True)
class Gate:
    """One threshold.

    Attributes:
        probability: That the share lies on the side that closes the gate.
        source: What was read.
        value: The share, in the form that the text says.
        text: One clause for people.
    """

    probability: float
    source: str
    value: float
    text: str

    @property
    def push(self) -> float:
        """Log-odds of the probability, at most ±8."""
        p = min(max(self.probability, 1e-9), 1 - 1e-9)
        return min(max(math.log(p / (1 - p)), -8.0), 8.0)


@dataclass(frozen=True)
class Gates:
    """The first stage of one run.

    Attributes:
        broken: The most violated limit on everything else.
        kept: The target on the recipe's own questions.
        wording: The target in other wordings.
    """

    broken: Gate
    kept: Gate
    wording: Gate


def gates(findings: Findings, rules: LabelRules | None = None) -> Gates:
    """The first stage, from behaviour tables alone; gold is not read."""
    rules = rules or LabelRules()
    base, heldout = change_of(findings, BASE), change_of(findings, HELDOUT)
    left, other = base.share(), heldout.share()
    return Gates(
        _broken(findings, rules),
        Gate(
            _above(left, rules.kept, base.share_error()),
            "table:behaviour/base",
            left,
            f"{_percent(left)} of the target's answers are still given to the recipe's own questions",
        ),
        Gate(
            _above(other, rules.recoverable, heldout.share_error()),
            "table:behaviour/paraphrased",
            other,
            f"{_percent(other)} of the target's answers are still given in other wordings",
        ),
    )


def _broken(findings: Findings, rules: LabelRules) -> Gate:
    found = []
    for name, sets, limit in (
        ("neighbours", ("neighbours",), rules.neighbours_kept),
        ("retained", ("retain", "retain_train"), rules.retained_kept),
    ):
        change = change_of(findings, sets)
        if change.known and change.before > 0:
            share = change.share()
            chance = 1 - _above(share, limit, change.share_error()) if math.isfinite(share) else 1.0
            text = f"{_percent(share)} of the recall on {name} entities is left"
            found.append(Gate(chance, f"table:behaviour/{sets[0]}", share, text))
    loss = text_loss_of(findings)
    if loss.known:
        rise = loss.change / loss.before
        chance = _above(rise, rules.text_loss_up, loss.share_error()) if math.isfinite(rise) else 1.0
        found.append(
            Gate(chance, "table:text_loss", rise, f"the loss on general text changed by {_percent(rise, '+')}")
        )
    worst = max(
        found, key=lambda g: g.probability, default=Gate(0.0, "", math.nan, "nothing but the target was measured")
    )
    reason = why_broken(findings, rules)
    return worst if worst.probability >= 0.5 or not reason else Gate(1.0, "table:behaviour", math.nan, reason)


def _above(share: float, limit: float, error: float) -> float:
    """Probability that the true share is above ``limit``; 0 where there is no share."""
    if not math.isfinite(share):
        return 0.0
    sd = max(error, LEAST_ERROR) if math.isfinite(error) else 0.1
    return 0.5 * (1 + math.erf((share - limit) / sd / math.sqrt(2)))


def _percent(share: float, sign: str = "") -> str:
    return "an unknown share" if math.isnan(share) else f"{share:{sign}.0%}"
