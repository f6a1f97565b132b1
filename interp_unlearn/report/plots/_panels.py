"""Heat maps side by side on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp_unlearn.report.plots._style import DIVERGING, SCALE, plain


def panels(maps: Mapping[str, go.Heatmap], *, around: float | None = None, unit: str = "") -> go.Figure:
    """Heat maps in one row, with one scale of colours and one y axis.

    Args:
        maps: Title of each to its trace.
        around: The value that means no change, for a scale with two ends around it; None for a scale with one.
        unit: Title of the colour bar.
    """
    fig = make_subplots(
        1,
        max(1, len(maps)),
        shared_yaxes=True,
        subplot_titles=[plain(title) for title in maps],
        horizontal_spacing=0.03,
    )
    for column, trace in enumerate(maps.values(), 1):
        trace.update(coloraxis="coloraxis")
        fig.add_trace(trace, 1, column)
    fig.update_layout(coloraxis={**_scale(maps, around), "colorbar": _bar(unit)})
    fig.update_annotations(font_size=13)
    return fig


def _scale(maps: Mapping[str, go.Heatmap], around: float | None) -> dict[str, Any]:
    values = np.concatenate([np.asarray(trace.z, dtype=float).ravel() for trace in maps.values()] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        return {"colorscale": SCALE, "cmin": 0, "cmax": 1}
    if around is None:
        low, high = float(values.min()), float(values.max())
        return {"colorscale": SCALE, "cmin": low, "cmax": high if high > low else low + 1}
    reach = float(np.abs(values - around).max()) or 1.0
    return {"colorscale": [list(stop) for stop in DIVERGING], "cmin": around - reach, "cmax": around + reach}


def _bar(unit: str) -> dict[str, Any]:
    return {"thickness": 10, "len": 0.9, "tickformat": ".3~g", "title": {"text": plain(unit), "side": "top"}}
