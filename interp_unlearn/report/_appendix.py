"""Saved arrays that have no picture of their own, so that nothing a run measured stays unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._details import MAX_VALUES, drawable
from interp_unlearn.report._evidence import PARITY
from interp_unlearn.report._kinds import part_of, tables_of
from interp_unlearn.report._pictures import PICTURED_DETAILS, is_pictured


@dataclass(frozen=True)
class Leftover:
    """One array: where it comes from, its figure, or the reason why it is not drawn."""

    name: str
    figure: go.Figure | None
    reason: str


def appendix(comparison: Comparison) -> dict[str, tuple[Leftover, ...]]:
    """For each method the arrays that no other section shows."""
    return {method: tuple(_leftovers(comparison, method)) for method in comparison.methods}


def _leftovers(comparison: Comparison, method: str) -> Iterator[Leftover]:
    run = comparison.runs[method]
    of_parts = {table for _, _, table in tables_of(comparison)}
    for name, table in run.tables.items():
        if name in of_parts and drawable(table):
            continue
        if not is_pictured(name, table):
            yield from _drawn(name, table)
    for name, item in run.evidence.items():
        kind = name.split("/")[0]
        if kind.split(".")[0] == PARITY:
            continue
        own = part_of(comparison, kind) is not None
        for detail, table in item.details.items():
            if own and drawable(table):
                continue
            if detail not in PICTURED_DETAILS.get(kind, ()):
                yield from _drawn(f"{name}: {detail}", table)


def _drawn(name: str, table: Labelled) -> Iterator[Leftover]:
    shape = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in table.axes)
    for part, slice_ in _slices(table):
        title = f"{name}, {part}" if part else name
        if not slice_.axes:
            yield Leftover(title, None, f"{float(slice_.values):.5g} (n = {slice_.n})")
        elif len(slice_.axes) > plots.MAX_DIMENSIONS or slice_.values.size > MAX_VALUES:
            yield Leftover(title, None, f"not drawn: {shape}; open the file to read it")
        elif not slice_.values.size or np.isnan(slice_.values).all():
            yield Leftover(title, None, f"no values ({shape})")
        else:
            yield Leftover(title, plots.generic(slice_, title), "")


def _slices(table: Labelled) -> Iterator[tuple[str, Labelled]]:
    """The table itself; of a larger one its most telling slice, or one slice for each phase."""
    said = []
    for axis, wanted in TELLING.items():
        labels = next((a.labels for a in table.axes if a.name == axis), ())
        if len(table.axes) > plots.MAX_DIMENSIONS and labels:
            label = wanted if wanted in labels else labels[0]
            table = plots.pick(table, axis, label)
            said.append(label)
    phases = next((a.labels for a in table.axes if a.name == "phase"), ())
    if len(table.axes) > plots.MAX_DIMENSIONS and phases:
        for phase in phases:
            yield ", ".join((*said, phase)), plots.pick(table, "phase", phase)
        return
    yield ", ".join(said), table


TELLING = {"statistic": "mean", "quantity": "change"}
"""Axes of which one label is drawn where an array has too many axes for a picture."""
