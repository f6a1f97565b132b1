"""Around a deletion: the neighbourhood as a picture of nodes and links, and change by hops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer
from interp_unlearn.report.plots._style import LINE, SCALE, VERMILLION, finish, plain, styles

SYMBOLS = {0: "diamond", 1: "circle"}
"""By hops from the deletion; all others are small circles."""


def neighbourhood(table: Labelled, who: str, *, top: float | None = None) -> go.Figure:
    """Nodes coloured by how far their embeddings turned; deleted links are dashed, in their own colour.

    Args:
        table: Axes (node, column) with the columns ``x``, ``y``, ``hop`` and ``change``; ``config`` has ``edges`` and
            ``deleted``, pairs of places in the node axis, and ``classes``.
        who: The model that was compared with the original.
        top: End of the colour scale, to share it among figures; default the largest change here.
    """
    x, y, hop, change = (table.at(column=name) for name in ("x", "y", "hop", "change"))
    deleted = [tuple(pair) for pair in table.config["deleted"]]
    kept = [tuple(pair) for pair in table.config["edges"] if tuple(pair) not in set(deleted)]
    fig = go.Figure()
    fig.add_scatter(**_links(x, y, kept), line={"color": LINE, "width": 1}, name="kept link")
    fig.add_scatter(
        **_links(x, y, deleted), line={"color": VERMILLION, "width": 1.6, "dash": "dash"}, name="deleted link"
    )
    words = [
        f"node {node}, {cls or 'no class'}<br>{_distance(int(h))}"
        for node, cls, h in zip(table.axes[0].labels, map(plain, table.config["classes"]), hop, strict=True)
    ]
    fig.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "color": change,
            "colorscale": SCALE,
            "cmin": 0.0,
            "cmax": top or float(np.nanmax(change)) or 1.0,
            "symbol": [SYMBOLS.get(int(h), "circle") for h in hop],
            "size": [13 if h == 0 else 8 if h == 1 else 6 for h in hop],
            "line": {"width": 0.6, "color": "rgba(128,128,128,0.8)"},
            "colorbar": {"title": {"text": "1 − cosine"}, "thickness": 12, "len": 0.8},
        },
        text=words,
        hovertemplate=f"%{{text}}<br>turned by %{{marker.color:.3g}}{footer(table)}<extra></extra>",
        showlegend=False,
    )
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False, scaleanchor="x")
    title = f"What moved around the deletion: {who}"
    return finish(fig, title, f"Diamonds: at the deletion. {len(x)} of {table.config['of']} nodes.", height=460)


def _distance(hop: int) -> str:
    return "at the deletion" if hop == 0 else "out of reach" if hop < 0 else f"{hop} hops away"


def _links(x: np.ndarray, y: np.ndarray, pairs: Sequence[tuple[int, ...]]) -> dict[str, object]:
    """One broken line through all pairs."""
    across = [v for one, other in pairs for v in (x[one], x[other], None)]
    up = [v for one, other in pairs for v in (y[one], y[other], None)]
    return {"x": across, "y": up, "mode": "lines", "hoverinfo": "skip"}


def hop_curves(
    curves: Mapping[str, Labelled], title: str, y: str, *, forgotten: str = "", methods: Sequence[str] = ()
) -> go.Figure:
    """One line per model, by hops from the deletion.

    Args:
        curves: Model to an array with one axis, ``hop``.
        title: What is shown.
        y: Title of the y axis.
        forgotten: Which direction means forgotten, as a sentence.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(curves), methods)
    for who, data in curves.items():
        fig.add_scatter(
            x=list(data.axes[0].labels),
            y=data.values,
            name=plain(who),
            mode="lines+markers",
            line={"color": looks[who].colour, "dash": looks[who].dash, "width": 2},
            marker={"symbol": looks[who].symbol, "size": 7},
            hovertemplate=f"<b>{plain(who)}</b>, hop %{{x}}: %{{y:.4g}}{footer(data)}<extra></extra>",
        )
    fig.update_xaxes(type="category")
    fig.update_yaxes(rangemode="tozero")
    return finish(fig, title, forgotten, "hops from the deletion", y)
