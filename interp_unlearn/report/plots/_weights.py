"""Where the weights moved."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, split_module
from interp_unlearn.report.plots._style import SCALE, finish, plain


def weight_map(table: Labelled, name: str = "", *, top: float | None = None) -> go.Figure:
    """Relative change of each weight tensor, layer by module.

    Args:
        table: One axis of parameter or module names; values are relative changes.
        name: Method, for the title.
        top: Upper end of the colour scale, to compare several methods; default the largest value.
    """
    split = [split_module(label) for label in table.axes[0].labels]
    outside = "other"
    layers = sorted({layer for layer, _ in split if layer is not None})
    modules = list(dict.fromkeys(module for layer, module in split if layer is not None))
    others = [module for layer, module in split if layer is None]
    rows: list[str] = [str(layer) for layer in layers] + ([outside] if others else [])
    columns = list(dict.fromkeys([*modules, *others]))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (layer, module), value in zip(split, table.values, strict=True):
        grid[rows.index(outside if layer is None else str(layer)), columns.index(module)] = value
    fig = go.Figure(
        go.Heatmap(
            z=grid,
            x=[plain(column) for column in columns],
            y=rows,
            zmin=0,
            zmax=float(np.nanmax(table.values)) if top is None and table.values.size else top,
            colorscale=SCALE,
            xgap=1,
            ygap=1,
            colorbar={"thickness": 10, "len": 0.9, "tickformat": ".2g"},
            hovertemplate=f"layer %{{y}}, %{{x}}<br>change = %{{z:.3g}}{footer(table)}<extra></extra>",
        )
    )
    fig = finish(
        fig,
        f"Weight change by module: {name}" if name else "Weight change by module",
        "Norm of the change over norm of the weights; empty cells did not change.",
        "",
        "layer",
        height=max(280, 150 + 14 * len(rows)),
    )
    fig.update_xaxes(tickangle=-40, tickfont={"size": 11}, showgrid=False)
    fig.update_yaxes(type="category", showgrid=False)
    return fig
