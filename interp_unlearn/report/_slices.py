"""Groups of figures, and the slices of saved arrays that go into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison


@dataclass(frozen=True)
class Pictures:
    """Figures that belong together.

    Attributes:
        title: Heading.
        text: How to read them.
        figures: In order; empty where nothing was saved.
        missing: What is missing and how to get it, if nothing was saved; empty where its absence need not be said.
        layout: ``"one"`` (full width), ``"small"`` (many per row) or empty (two per row).
        of: What models must read for the group to make sense; empty for any. Elsewhere it is left out without a word.
    """

    title: str
    text: str
    figures: tuple[go.Figure, ...]
    missing: str
    layout: str = ""
    of: tuple[str, ...] = ()


def details(comparison: Comparison, evidence: str, detail: str) -> dict[str, Labelled]:
    """An array behind one evidence, by model: original, each method, gold; its phase axis is taken apart."""
    found: dict[str, Labelled] = {}
    for method, item in comparison.evidence(evidence).items():
        table = item.details.get(detail)
        if table is None or "phase" not in [axis.name for axis in table.axes]:
            continue
        for phase, who in (("before", ORIGINAL), ("after", method), ("gold", GOLD)):
            if who not in found and plots.has(table, "phase", phase):
                found[who] = plots.pick(table, "phase", phase)
    order = (ORIGINAL, *comparison.methods, GOLD)
    return {who: found[who] for who in order if who in found}


def with_detail(comparison: Comparison, kind: str, detail: str) -> Iterator[str]:
    """Names of the evidence of one kind that hold this detail."""
    for name in comparison.names("evidence"):
        if name.split("/")[0] == kind and any(detail in e.details for e in comparison.evidence(name).values()):
            yield name


def picked(tables: Mapping[str, Labelled], **labels: str) -> dict[str, Labelled]:
    """The same slice of each table that has it."""
    found = {}
    for who, table in tables.items():
        for axis, label in labels.items():
            if not plots.has(table, axis, label):
                break
            table = plots.pick(table, axis, label)
        else:
            found[who] = table
    return found
