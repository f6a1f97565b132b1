"""The saved verdict of a run, as text: what a report says first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp_unlearn.report._checked import mapping
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._read import RunView
from interp_unlearn.report._side_effects import SideEffect, side_effects
from interp_unlearn.verdict import CALIBRATED, has_calibration

LABELS = ("forgotten", "hidden", "over-suppressed", "broken", "kept")


@dataclass(frozen=True)
class VerdictView:
    """What one run's verdict says.

    Attributes:
        method: The run.
        label: The verdict in a word; empty where there is none.
        probability: Of the label, NaN where it is not known.
        sentence: The verdict in a sentence.
        probabilities: Every label with its probability, likeliest first.
        decided_by: Reasons.
        side_effects: Sentences of the verdict on side effects, beside the numbers in ``losses``.
        losses: Side effects in numbers.
        not_tested: What the verdict does not rest on.
        calibration: What its probabilities were calibrated on.
        attacks: What attacks say beside the prediction.
        missing: Why there is no verdict, if there is none.
    """

    method: str
    label: str
    probability: float
    sentence: str
    probabilities: tuple[tuple[str, float], ...]
    decided_by: tuple[str, ...]
    side_effects: tuple[str, ...]
    losses: tuple[SideEffect, ...]
    not_tested: tuple[str, ...]
    calibration: str
    missing: str = ""
    attacks: str = ""


def verdicts(comparison: Comparison) -> tuple[VerdictView, ...]:
    """One for each run."""
    return tuple(verdict_of(run, method) for method, run in comparison.runs.items())


def verdict_of(run: RunView, method: str = "") -> VerdictView:
    """Read one run's verdict."""
    saved = run.verdict
    method = method or run.name
    label = str(saved.get("label") or "")
    if not label:
        why = f"no verdict was saved; add it with: interp-unlearn evidence {run.path}"
        read = str(run.task.get("modality", "language"))
        if read not in CALIBRATED:
            reason = f" ({saved['undecided']})" if saved.get("undecided") else ""
            fitted = " and ".join(CALIBRATED)
            why = f"no verdict: the rules cannot decide{reason}, and calibrations are of {fitted} models only"
        elif not has_calibration():
            why = "no verdict was saved: no calibration is installed, and without one none is guessed (docs/verdict.md)"
        return VerdictView(method, "", math.nan, "", (), (), (), side_effects(run), (), "", why)
    chances = {str(k): float(v) for k, v in mapping(saved.get("probabilities")).items() if _is_number(v)}
    return VerdictView(
        method=method,
        label=label,
        probability=chances.get(label, math.nan),
        sentence=str(saved.get("sentence") or f"{label[:1].upper()}{label[1:]}."),
        probabilities=tuple(sorted(chances.items(), key=lambda item: -item[1])),
        decided_by=_sentences(saved.get("decided_by")),
        side_effects=_sentences([e for e in _listed(saved.get("side_effects")) if not _in_numbers(e)]),
        losses=side_effects(run),
        not_tested=_sentences(saved.get("not_tested")),
        calibration=str(saved.get("calibration") or ""),
        attacks=str(saved.get("attacks") or ""),
    )


def _listed(items: Any) -> Sequence[Any]:
    return items if isinstance(items, Sequence) and not isinstance(items, str) else []


def _in_numbers(item: Any) -> bool:
    """Whether a side effect was saved in the fields that `side_effects` gives too."""
    return isinstance(item, Mapping) and {"name", "before", "after"} <= set(item)


def _sentences(items: Any) -> tuple[str, ...]:
    if isinstance(items, str):
        return (items,)
    return tuple(_said(item) for item in items) if isinstance(items, Sequence) else ()


def _said(item: Any) -> str:
    """A reason as text, whether it was saved as a sentence or in fields."""
    if not isinstance(item, Mapping):
        return str(item)
    for key in ("sentence", "text", "says", "why"):
        if isinstance(item.get(key), str) and item[key]:
            source = item.get("evidence")
            return f"{item[key]} ({source})" if isinstance(source, str) and source else str(item[key])
    return "; ".join(f"{key}: {_short(value)}" for key, value in item.items() if value not in (None, ""))


def _short(value: Any) -> str:
    return f"{value:.3g}" if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
