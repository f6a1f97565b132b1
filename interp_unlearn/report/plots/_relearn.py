"""How fast the forgotten comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, numbers_or_labels
from interp_unlearn.report.plots._style import finish, plain, styles


def relearn_curves(
    curves: Mapping[str, Labelled],
    *,
    controls: Mapping[str, Labelled] | None = None,
    methods: Sequence[str] = (),
    title: str = "Relearning: recall of the target while a part of it is taught again",
    y: str = "recall",
) -> go.Figure:
    """Recall against relearning steps, beside the controls.

    Args:
        curves: Method, ``"original"`` or ``"gold"`` to an array with one axis of steps.
        controls: Method to the same for facts that were never known, taught to the same model; drawn dotted.
        methods: See `styles`.
        title: What is shown.
        y: Title of the y axis.
    """
    fig = go.Figure()
    looks = styles(list(curves), methods)
    for name, data in curves.items():
        look = looks[name]
        fig.add_scatter(
            **_line(data, plain(name)),
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 7},
        )
    for name, data in (controls or {}).items():
        colour = styles([name], methods)[name].colour
        fig.add_scatter(
            **_line(data, f"control, {plain(name)}"), mode="lines", line={"color": colour, "dash": "dot", "width": 1.6}
        )
    forgotten = "Forgotten: as slow as the control. Faster means hidden; slower means over-suppressed."
    return finish(fig, title, forgotten, "relearning step", y)


def _line(data: Labelled, name: str) -> dict[str, Any]:
    return {
        "x": numbers_or_labels(data.axes[0].labels),
        "y": data.values,
        "name": name,
        "hovertemplate": f"<b>{name}</b>: %{{y:.3f}}<br>step %{{x}}{footer(data)}<extra></extra>",
    }
