"""A plain picture of any labelled array that has no picture of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, layers_or_labels, numbers_or_labels
from interp_unlearn.report.plots._style import BLUE, SCALE, finish, plain

MAX_DIMENSIONS = 2


def generic(table: Labelled, name: str = "") -> go.Figure:
    """A line (numbers or layers on the axis) or bars for one axis, a heat map for two.

    Args:
        table: Array with one or two axes.
        name: Title; default the array's own name.

    Raises:
        ValueError: If it has no axis or more than two.
    """
    if not 1 <= len(table.axes) <= MAX_DIMENSIONS:
        raise ValueError(f"{table.name!r} has {len(table.axes)} axes; a generic picture needs one or two")
    labels = table.axes[0].labels
    if len(table.axes) == 2:
        table = _upright(table)
        rows = len(table.axes[0].labels)
        height = max(220, 120 + 24 * rows) if rows <= MANY else 440
        return finish(
            _map(table), name or table.name, table.note, table.axes[1].name, table.axes[0].name, height=height
        )
    numbers = numbers_or_labels(labels)
    x = numbers if numbers and not isinstance(numbers[0], str) else layers_or_labels(labels)
    if x and isinstance(x[0], str):
        height = 110 + 18 * max(4, len(labels))
        return finish(_bars(table), name or table.name, table.note, "value", table.axes[0].name, height=height)
    hover = f"%{{x}}: %{{y:.4g}}{footer(table)}<extra></extra>"
    line = go.Scatter(x=x, y=table.values, mode="lines+markers", line={"color": BLUE}, hovertemplate=hover)
    return finish(go.Figure(line), name or table.name, table.note, table.axes[0].name, "value", height=320)


MANY = 40
CELLS_WITH_NUMBERS = 60
LONGEST = 34


def _upright(table: Labelled) -> Labelled:
    """With the axis of the longer labels as rows, where they can be read."""
    rows, columns = (max((len(label) for label in axis.labels), default=0) for axis in table.axes)
    if columns <= max(rows, 14):
        return table
    return dataclasses.replace(table, values=table.values.T, axes=table.axes[::-1])


def _short(labels: Sequence[str]) -> list[str]:
    """Labels that leave room for the picture; the ends tell them apart."""
    return [plain(label if len(label) <= LONGEST else f"…{label[1 - LONGEST :]}") for label in labels]


def _bars(table: Labelled) -> go.Figure:
    labels = table.axes[0].labels
    fig = go.Figure(
        go.Bar(
            x=table.values,
            y=list(range(len(labels))),
            orientation="h",
            marker_color=BLUE,
            customdata=[plain(label) for label in labels],
            hovertemplate=f"%{{customdata}}: %{{x:.4g}}{footer(table)}<extra></extra>",
        )
    )
    shown = list(range(0, len(labels), max(1, len(labels) // MANY)))
    fig.update_yaxes(tickvals=shown, ticktext=_short([labels[i] for i in shown]), autorange="reversed", showgrid=False)
    return fig


def _map(table: Labelled) -> go.Figure:
    rows, columns = table.axes
    few = table.values.size <= CELLS_WITH_NUMBERS
    fig = go.Figure(
        go.Heatmap(
            z=table.values,
            x=[plain(label) for label in columns.labels],
            y=[plain(label) for label in rows.labels],
            texttemplate="%{z:.3g}" if few else None,
            colorscale=SCALE,
            showscale=not few,
            colorbar={"thickness": 10, "len": 0.9},
            hovertemplate=f"%{{y}}, %{{x}}: %{{z:.4g}}{footer(table)}<extra></extra>",
        )
    )
    for update, labels in ((fig.update_xaxes, columns.labels), (fig.update_yaxes, rows.labels)):
        update(type="category", showgrid=False)
        if len(labels) <= MANY:
            update(tickvals=list(range(len(labels))), ticktext=_short(labels))
    fig.update_yaxes(autorange="reversed")
    return fig
