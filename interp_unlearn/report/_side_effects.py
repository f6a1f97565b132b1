"""Side effects in one number each: what else the model lost, as a share, read from saved tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from interp_unlearn._core import Labelled
from interp_unlearn.report._read import RunView
from interp_unlearn.report.plots import set_words

SETS = {"neighbours": "neighbours", "same_answer": "same_answer", "own_other": "own_other", "retained": "retain"}
"""Question sets that must survive, by the name of the side effect."""


@dataclass(frozen=True)
class SideEffect:
    """One loss beside the target.

    Attributes:
        name: A question set, or ``"text_loss"``.
        what: In words.
        before: Share of questions answered exactly, or loss in nats per token, in the original.
        after: The same in the edited model.
        size: How much was lost: the drop of the share, or the rise of the loss relative to the original's; 0 where
            nothing was lost, infinite where the edited model gives no number any more.
        interval: 95 % interval of the size, or None.
        n: Prompts or tokens.
    """

    name: str
    what: str
    before: float
    after: float
    size: float
    interval: tuple[float, float] | None
    n: int


def side_effects(run: RunView) -> tuple[SideEffect, ...]:
    """Every side effect that the run's tables tell, the largest first."""
    found = [effect for name, where in SETS.items() if (effect := _answers(run, name, where)) is not None]
    loss = _text(run)
    return tuple(sorted([*found, *([loss] if loss else [])], key=lambda e: -e.size))


def untold(run: RunView) -> tuple[str, ...]:
    """What was asked of the original, or was to be asked, and has no number in the edited model, in words."""
    before, after = (run.tables.get(f"behaviour.{phase}") for phase in ("before", "after"))
    if before is None:
        asked = [s for s in SETS.values() if s in _in_task(run)]
    else:
        asked = [s for s in SETS.values() if not math.isnan(_at(before, set=s, metric="exact"))]
    said = [f"answered right: {set_words(s)}" for s in asked if math.isnan(_at(after, set=s, metric="exact"))]
    text = run.task.get("text_eval") or "text_loss.before" in run.tables
    return (*said, *(["loss on general text"] if text and _text(run) is None else []))


def _in_task(run: RunView) -> set[str]:
    """Names of the task's question sets that hold a question."""
    sets = [value for value in run.task.values() if isinstance(value, Mapping)]
    return {str(found.get("name")) for found in sets if found.get("prompts")}


def _answers(run: RunView, name: str, where: str) -> SideEffect | None:
    tables = [run.tables.get(f"behaviour.{phase}") for phase in ("before", "after")]
    values = [_at(table, set=where, metric="exact") for table in tables]
    if tables[1] is None or any(math.isnan(v) for v in values):
        return None
    change = run.tables.get("behaviour_change")
    low, high = (_at(change, set=where, metric="exact", quantity=q) for q in ("low", "high"))
    interval = None if math.isnan(low) or math.isnan(high) else (-high, -low)
    counts = tables[1].config.get("n")
    n = int(counts[where]) if isinstance(counts, Mapping) and where in counts else tables[1].n
    what = f"answered right: {set_words(where)}"
    return SideEffect(name, what, values[0], values[1], max(0.0, values[0] - values[1]), interval, n)


def _text(run: RunView) -> SideEffect | None:
    tables = [run.tables.get(f"text_loss.{phase}") for phase in ("before", "after")]
    if tables[0] is None or tables[1] is None:
        return None
    means = [_mean(table) for table in tables if table is not None]
    change = run.tables.get("text_loss_change")
    rise = _at(change, quantity="relative change")
    rise = means[1] / means[0] - 1 if math.isnan(rise) else rise
    low, high = (_at(change, quantity=q) for q in ("low", "high"))
    interval = None if math.isnan(low) or math.isnan(high) else (low, high)
    if math.isnan(means[0]):
        return None
    size = math.inf if not math.isfinite(rise) else max(0.0, rise)
    return SideEffect("text_loss", "loss on general text", means[0], means[1], size, interval, tables[1].n)


def _mean(table: Labelled) -> float:
    mean = table.config.get("mean")
    return float(mean) if isinstance(mean, (int, float)) else float(table.values.mean())


def _at(table: Labelled | None, **labels: str) -> float:
    """One number of a table, NaN where it has no such axis or label."""
    axes = {a.name: a.labels for a in table.axes} if table is not None else {}
    if table is None or set(axes) != set(labels) or any(v not in axes[k] for k, v in labels.items()):
        return math.nan
    return float(table.at(**labels))
