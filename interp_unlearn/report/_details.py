"""Pictures of arrays that no section knows by name: curves of all models together, heat maps of each.

The axes decide. A ``phase`` axis is taken apart into models. Of an axis of statistics (mean, low, high …) the value is
drawn, and its bounds as an interval. One axis that is left gives lines or dots with all models in one figure; two give
the same for each label of the shorter axis if it is short, else a heat map for each model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison

STATISTICS = ("statistic", "bound", "quantity")
VALUES = ("value", "mean", "estimate", "change", "median", "share")
SHORT = 4
"""So many figures beside each other at most, for the labels of one axis."""
MAX_VALUES = 20_000
"""Larger arrays are named, not drawn: a report must stay a file that a browser opens."""
PHASES = {"before": ORIGINAL, "gold": GOLD}


def by_model(tables: Mapping[str, Labelled], order: Sequence[str]) -> dict[str, Labelled]:
    """Tables of methods with their phase axis taken apart: original, each method, gold.

    Args:
        tables: Method to table.
        order: Names of the methods.
    """
    found: dict[str, Labelled] = {}
    for method, table in tables.items():
        phases = next((a.labels for a in table.axes if a.name == "phase"), None)
        if phases is None:
            found[method] = table
            continue
        for phase in phases:
            who = method if phase == "after" else PHASES.get(phase, phase)
            found.setdefault(who, plots.pick(table, "phase", phase))
    places = {name: i for i, name in enumerate((ORIGINAL, *order, GOLD))}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0], len(places))))


def figures(tables: Mapping[str, Labelled], title: str, methods: Sequence[str]) -> tuple[go.Figure, ...]:
    """Pictures of one array of several models; none where it cannot be drawn."""
    plainer = {who: _value(table) for who, table in tables.items()}
    values = {who: table for who, (table, _) in plainer.items() if _drawable(table)}
    if not values:
        return ()
    bands = {who: bounds for who, (_, bounds) in plainer.items() if who in values and bounds is not None}
    shapes = {tuple((a.name, a.labels) for a in table.axes) for table in values.values()}
    sizes = {len(table.axes) for table in values.values()}
    note = next((table.note for table in values.values() if table.note), "")
    if sizes == {1}:
        return (plots.series(values, title, methods=methods, forgotten=note, bands=bands),)
    if sizes == {2} and len(shapes) == 1:
        first = next(iter(values.values()))
        short = min(first.axes, key=lambda a: len(a.labels))
        if len(short.labels) <= SHORT:
            out = []
            for label in short.labels:
                slices = {who: plots.pick(t, short.name, label) for who, t in values.items()}
                limits = {
                    who: (plots.pick(low, short.name, label), plots.pick(high, short.name, label))
                    for who, (low, high) in bands.items()
                }
                slices = {who: t for who, t in slices.items() if not np.isnan(t.values).all()}
                if slices:
                    name = f"{title}: {short.name} {label}"
                    out.append(plots.series(slices, name, methods=methods, forgotten=note, bands=limits))
            return tuple(out)
    return tuple(plots.generic(t, f"{title}: {who}") for who, t in values.items() if 1 <= len(t.axes) <= 2)


def detail_figures(comparison: Comparison, evidence: str) -> tuple[go.Figure, ...]:
    """Pictures of every array behind one evidence."""
    items = comparison.evidence(evidence)
    names = dict.fromkeys(detail for item in items.values() for detail in item.details)
    _, _, where = evidence.partition("/")
    out: list[go.Figure] = []
    for detail in names:
        tables = {method: item.details[detail] for method, item in items.items() if detail in item.details}
        title = f"{detail}, {where}" if where else detail
        out += figures(by_model(tables, comparison.methods), title, comparison.methods)
    return tuple(out)


def drawable(table: Labelled) -> bool:
    """Whether `figures` draws this table of one method."""
    return any(_drawable(_value(part)[0]) for part in by_model({"method": table}, ("method",)).values())


def _value(table: Labelled) -> tuple[Labelled, tuple[Labelled, Labelled] | None]:
    """The values of a table with an axis of statistics, and their bounds where there are both."""
    axis = next((a for a in table.axes if a.name in STATISTICS), None)
    main = next((v for v in VALUES if axis is not None and v in axis.labels), None)
    if axis is None or main is None:
        return table, None
    low_high = {"low", "high"} <= set(axis.labels)
    bounds = (plots.pick(table, axis.name, "low"), plots.pick(table, axis.name, "high")) if low_high else None
    return plots.pick(table, axis.name, main), bounds


def _drawable(table: Labelled) -> bool:
    size = table.values.size
    return 1 <= len(table.axes) <= plots.MAX_DIMENSIONS and 0 < size <= MAX_VALUES and not np.isnan(table.values).all()
