"""The cells of the headline table: each a saved number with what it rests on, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from interp_unlearn._core import Evidence, Labelled
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison

TRAIN_SETS = ("forget_train", "base")
HELDOUT_SETS = ("forget_heldout", "paraphrased")


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        text: As shown; an en dash where it is missing.
        tip: What it rests on (n, interval, control), or why it is missing.
        value: The number, for comparing with gold.
        missing: Whether there is none.
        best: Whether this method is the nearest to gold in its column.
        beside: The control or floor shown behind the number, NaN where there is none.
    """

    text: str
    tip: str
    value: float = math.nan
    missing: bool = False
    best: bool = False
    beside: float = math.nan


def none(reason: str) -> Cell:
    """A cell without a number."""
    return Cell("–", reason, missing=True)


# -- behaviour ---------------------------------------------------------------------------------------------------------


def _phase(who: str) -> str:
    return {ORIGINAL: "before", GOLD: "gold"}.get(who, "after")


def _table(comparison: Comparison, name: str, who: str) -> Labelled | None:
    return comparison.table(name, _phase(who), who if who in comparison.methods else None)


def _absent(comparison: Comparison, what: str, who: str) -> str:
    if who == GOLD:
        return f"{what}: not measured on gold"
    run = comparison.runs.get(who)
    if run is not None and not run.done:
        return f"{what}: the run is not finished (state: {run.status.get('state', 'unknown')})"
    return f"{what}: not saved by this run"


def behaviour_cell(
    sets: tuple[str, ...], metric: str, *, others: tuple[str, ...] = ()
) -> Callable[[Comparison, str], Cell]:
    def cell(comparison: Comparison, who: str) -> Cell:
        table = _table(comparison, "behaviour", who)
        if table is None:
            return none(_absent(comparison, "behaviour", who))
        axes = {axis.name: axis.labels for axis in table.axes}
        name = next((s for s in sets if s in axes.get("set", ())), None)
        if name is None or metric not in axes.get("metric", ()):
            return none(_why_empty(comparison, sets) or f"the set {sets[0]!r} was not measured")
        value = float(table.at(set=name, metric=metric))
        if math.isnan(value):
            return none(f"{metric} does not apply to any prompt of {name!r}")
        lines = [
            f"n = {_count(table, name)} prompts",
            _interval(_table(comparison, "behaviour_intervals", who), name, metric),
        ]
        lines += [f"{m}: {float(table.at(set=name, metric=m)):.3f}" for m in others if m in axes["metric"]]
        lines.append(_paired_change(comparison, who, name, metric))
        chance = _of(table.config.get("chance"), name)
        if metric == "choice" and chance is not None:
            lines.append(f"chance: {chance:.2f}")
        return Cell(f"{value:.3f}" if metric == "probability" else f"{value:.2f}", _lines(lines), value)

    return cell


def _paired_change(comparison: Comparison, who: str, name: str, metric: str) -> str:
    run = comparison.runs.get(who)
    table = run.tables.get("behaviour_change") if run else None
    axes = {a.name: a.labels for a in table.axes} if table else {}
    if (
        table is None
        or name not in axes.get("set", ())
        or metric not in axes.get("metric", ())
        or "quantity" not in axes
    ):
        return ""
    change, low, high = (float(table.at(set=name, metric=metric, quantity=q)) for q in ("change", "low", "high"))
    bounds = "" if math.isnan(low) else f", 95 % interval {low:+.3f} to {high:+.3f}"
    return f"change on the same prompts {change:+.3f}{bounds}"


def _why_empty(comparison: Comparison, sets: tuple[str, ...]) -> str:
    for run in comparison.runs.values():
        for name in (*sets, *run.task):
            saved = run.task.get(name)
            if isinstance(saved, Mapping) and saved.get("name", name) in sets and saved.get("why_empty"):
                return str(saved["why_empty"])
    return ""


def _count(table: Labelled, name: str) -> int:
    count = _of(table.config.get("n"), name)
    return int(count) if count is not None else table.n


def _of(saved: Any, name: str) -> float | None:
    value = saved.get(name) if isinstance(saved, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None


def _interval(table: Labelled | None, name: str, metric: str) -> str:
    axes = {a.name: a.labels for a in table.axes} if table is not None else {}
    if table is None or name not in axes.get("set", ()) or metric not in axes.get("metric", ()) or "bound" not in axes:
        return "no interval saved"
    low, high = (float(table.at(set=name, metric=metric, bound=b)) for b in ("low", "high"))
    if math.isnan(low) or math.isnan(high):
        return "no interval: too few independent prompts"
    unit = table.config.get("unit")
    over = f" over {unit[name]}s" if isinstance(unit, Mapping) and name in unit else ""
    return f"95 % interval {low:.3f} to {high:.3f}{over}"


def _lines(lines: list[str]) -> str:
    return "\n".join(line for line in lines if line)


# -- text loss ---------------------------------------------------------------------------------------------------------


def _mean_loss(table: Labelled) -> float:
    mean = table.config.get("mean")
    return float(mean) if isinstance(mean, (int, float)) else float(table.values.mean())


def text_loss_cell(comparison: Comparison, who: str) -> Cell:
    table, before = _table(comparison, "text_loss", who), _table(comparison, "text_loss", ORIGINAL)
    if table is None:
        return none(_absent(comparison, "text loss", who))
    tip = [
        f"{_mean_loss(table):.4f} nats per token",
        f"n = {table.n} tokens, {table.values.size} texts",
        f"tokens: {table.mask_policy}",
    ]
    if who == ORIGINAL:
        return Cell("0", _lines(["the reference of this column", *tip]), 0.0)
    if before is None:
        return none("the original's text loss was not saved, so there is no change to show")
    change = _mean_loss(table) / _mean_loss(before) - 1
    saved = comparison.runs[who].tables.get("text_loss_change") if who in comparison.methods else None
    if saved is not None and "quantity" in [a.name for a in saved.axes]:
        change = float(saved.at(quantity="relative change"))
        low, high = (100 * float(saved.at(quantity=b)) for b in ("low", "high"))
        tip.insert(0, f"95 % interval {low:+.2f} % to {high:+.2f} % over texts")
    return Cell(f"{100 * change:+.1f} %".replace("-", "−"), _lines(tip), change)


# -- evidence ----------------------------------------------------------------------------------------------------------


def evidence_cell(
    kinds: tuple[str, ...], digits: int = 2, *, with_control: bool = False
) -> Callable[[Comparison, str], Cell]:
    """A cell from the first saved evidence of these names; the part after the slash may be anything unless given."""

    def cell(comparison: Comparison, who: str) -> Cell:
        name = first_evidence(comparison, kinds)
        if name is None:
            return none(f"{kinds[0].split('/')[0]} was not measured")
        if who in comparison.methods:
            item = comparison.runs[who].evidence.get(name)
            return none(_absent(comparison, name, who)) if item is None else _from_evidence(item, digits, with_control)
        key = "before" if who == ORIGINAL else "gold"
        for item in comparison.evidence(name).values():
            value = item.config.get(key)
            if isinstance(value, (int, float)) and not math.isnan(value):
                beside = item.config.get("control_before") if who == ORIGINAL else None
                control = [f"control in the original: {beside:.{digits}f}"] if isinstance(beside, (int, float)) else []
                return Cell(_minus(f"{value:.{digits}f}"), _lines([item.name, f"n = {item.n}", *control]), float(value))
        return none(f"{name}: not measured on {'gold' if who == GOLD else 'the original'}")

    return cell


def first_evidence(comparison: Comparison, kinds: tuple[str, ...]) -> str | None:
    """Name of the first saved evidence that is one of ``kinds``, or ``kind/anything``; those with a value first."""
    names = comparison.names("evidence")
    found = [n for kind in kinds for n in names if n == kind or ("/" not in kind and n.split("/")[0] == kind)]
    valued = [n for n in found if any(not math.isnan(e.value) for e in comparison.evidence(n).values())]
    return next(iter([*valued, *found]), None)


def _from_evidence(item: Evidence, digits: int, with_control: bool) -> Cell:
    if math.isnan(item.value):
        return none(f"{item.name}: {item.reason or 'no value'}")
    lines = [item.name, f"n = {item.n}, tokens: {item.mask_policy}"]
    if item.interval:
        lines.append(f"95 % interval {item.interval[0]:.{digits}f} to {item.interval[1]:.{digits}f}")
    text = _minus(f"{item.value:.{digits}f}")
    if item.control is not None and not math.isnan(item.control):
        lines.append(f"control {item.control:.{digits}f}: {item.control_name}")
        if with_control:
            return Cell(f"{text} / {item.control:.{digits}f}", _lines(lines), item.value, beside=item.control)
    return Cell(text, _lines(lines), item.value)


def _minus(text: str) -> str:
    return text.replace("-", "−")


# -- relearning and cost -----------------------------------------------------------------------------------------------


RELEARNING = ("relearn.rest", "relearn.heldout")


def relearning_cell(comparison: Comparison, who: str) -> Cell:
    """Level reached while relearning, beside that of facts that were never known."""
    name = first_evidence(comparison, RELEARNING)
    if name is None:
        return _last_recall(comparison, who)
    if who in comparison.methods:
        item = comparison.runs[who].evidence.get(name)
        if item is None:
            return none(_absent(comparison, name, who))
        cell = _from_evidence(item, 2, with_control=True)
        facts = [
            f"mean {item.config.get('metric', 'level')} over {item.config.get('steps', '?')} steps of relearning",
            _flag(item, "slower_than_never_known", "slower than never known: a mark of over-suppression"),
            _flag(item, "faster_than_never_known", "faster than never known: something was left"),
        ]
        return cell if cell.missing else replace(cell, tip=_lines([cell.tip, *facts]))
    for item in comparison.evidence(name).values():
        areas = item.config.get("areas")
        value = areas.get(who) if isinstance(areas, Mapping) else None
        if isinstance(value, (int, float)):
            return Cell(f"{value:.2f}", _lines([item.name, "the same relearning of this model"]), float(value))
    return none(f"{name}: not measured on {'gold' if who == GOLD else 'the original'}")


def _flag(item: Evidence, key: str, text: str) -> str:
    return text if item.config.get(key) is True else ""


def _last_recall(comparison: Comparison, who: str) -> Cell:
    names = {ORIGINAL: ("original", "before"), GOLD: ("gold",)}.get(who, ("after",))
    runs = [comparison.runs[who]] if who in comparison.methods else list(comparison.runs.values())
    curve = next((run.tables[f"relearn.{n}"] for run in runs for n in names if f"relearn.{n}" in run.tables), None)
    if curve is None or len(curve.axes) != 1 or not curve.values.size:
        return none(_absent(comparison, "relearning", who))
    control = next((run.tables["relearn.control"] for run in runs if "relearn.control" in run.tables), None)
    value, steps = float(curve.values[-1]), curve.axes[0].labels[-1]
    asked = f" on the set {curve.config['set']!r}, which is not taught" if "set" in curve.config else ""
    lines = [
        f"recall after {steps} relearning steps{asked}; {float(curve.values[0]):.2f} before them",
        f"n = {curve.n}",
    ]
    if control is not None and control.values.size and who in comparison.methods:
        taught = float(control.values[-1])
        lines.append(f"control {taught:.2f}: facts that were never known, taught alike")
        return Cell(f"{value:.2f} / {taught:.2f}", _lines(lines), value, beside=taught)
    return Cell(f"{value:.2f}", _lines(lines), value)


def seconds_cell(comparison: Comparison, who: str) -> Cell:
    if who not in comparison.methods:
        return none("not part of this cost: only the methods are timed")
    spent = comparison.runs[who].status.get("seconds")
    if isinstance(spent, (int, float)):
        return Cell(_time(spent), "whole run", float(spent))
    parts = (
        {str(k): float(v) for k, v in spent.items() if isinstance(v, (int, float))}
        if isinstance(spent, Mapping)
        else {}
    )
    if "train" not in parts:
        return none(_absent(comparison, "training time", who))
    return Cell(
        _time(parts["train"]), _lines([f"{part}: {_time(value)} s" for part, value in parts.items()]), parts["train"]
    )


def cost_cell(fact: str, what: str) -> Callable[[Comparison, str], Cell]:
    """A cell from a fact that ``status.json`` has about each part of a run, here training."""

    def cell(comparison: Comparison, who: str) -> Cell:
        if who not in comparison.methods:
            return none("not part of this cost: only the methods are measured")
        parts = comparison.runs[who].status.get(fact)
        value = parts.get("train") if isinstance(parts, Mapping) else None
        if not isinstance(value, (int, float)):
            return none(_absent(comparison, what, who))
        return Cell(_time(value), what, float(value))

    return cell


def _time(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"
