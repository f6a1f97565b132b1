"""A plain picture of any labelled array that has no picture of its own."""

from __future__ import annotations

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
    fig = _line(table) if len(table.axes) == 1 else _map(table)
    y = plain(table.name) if len(table.axes) == 1 else table.axes[0].name
    return finish(fig, name or table.name, table.note, table.axes[-1].name, y, height=340)


def _line(table: Labelled) -> go.Figure:
    labels = table.axes[0].labels
    x = numbers_or_labels(labels)
    if x and isinstance(x[0], str):
        x = layers_or_labels(labels)
    hover = f"%{{x}}: %{{y:.4g}}{footer(table)}<extra></extra>"
    if x and isinstance(x[0], str):
        return go.Figure(
            go.Bar(x=[plain(label) for label in labels], y=table.values, marker_color=BLUE, hovertemplate=hover)
        )
    return go.Figure(go.Scatter(x=x, y=table.values, mode="lines+markers", line={"color": BLUE}, hovertemplate=hover))


def _map(table: Labelled) -> go.Figure:
    rows, columns = table.axes
    return go.Figure(
        go.Heatmap(
            z=table.values,
            x=[plain(label) for label in columns.labels],
            y=[plain(label) for label in rows.labels],
            colorscale=SCALE,
            colorbar={"thickness": 10, "len": 0.9},
            hovertemplate=f"%{{y}}, %{{x}}: %{{z:.4g}}{footer(table)}<extra></extra>",
        )
    )
