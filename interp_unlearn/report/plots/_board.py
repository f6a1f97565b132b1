"""Many runs in one picture: how much each forgot, and what it kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn.report.plots._style import RESERVED, finish, plain, styles

Point = tuple[float, float, str]
"""Forgetting, retention, and what it is."""
SIZE = {"gold": 17, "original": 12}


def forgetting_scatter(points: Mapping[str, Sequence[Point]], *, methods: Sequence[str] = ()) -> go.Figure:
    """Forgetting against retention, one marker per run.

    Args:
        points: A method, ``"original"`` or ``"gold"`` to (forgetting, retention, words) of each of its runs; both are
            shares. Points without both numbers are left out.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(points), methods)
    for name, own in points.items():
        shown = [p for p in own if not (math.isnan(p[0]) or math.isnan(p[1]))]
        if not shown:
            continue
        look = looks[name]
        fig.add_scatter(
            x=[p[0] for p in shown],
            y=[p[1] for p in shown],
            customdata=[plain(p[2]) for p in shown],
            name=plain(name),
            mode="markers",
            marker={
                "color": look.colour,
                "symbol": look.symbol,
                "size": SIZE.get(name, 12),
                "opacity": 1 if name in RESERVED else 0.85,
                "line": {"width": 1, "color": "rgba(128,128,128,0.9)"},
            },
            hovertemplate=f"<b>{plain(name)}</b>, %{{customdata}}<br>forgotten %{{x:.0%}}, kept %{{y:.0%}}"
            "<extra></extra>",
        )
    finish(
        fig,
        "Forgetting against retention",
        "Right: the target is not answered any more. Up: the rest still is. Good: near gold, the star.",
        "forgetting",
        "retention",
        height=430,
    )
    fig.update_xaxes(range=[-0.04, 1.06], tickformat=".0%")
    fig.update_yaxes(range=[-0.04, 1.06], tickformat=".0%")
    return fig
