"""One evidence as a picture: each method's value with its interval, beside control, original and gold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Evidence
from interp_unlearn.report.plots._style import RESERVED, finish, plain, styles

WANTED = {
    "low": "Forgotten: low.",
    "high": "Forgotten: high.",
    "near control": "Forgotten: as near to the control as the interval allows.",
}


def evidence_dots(
    evidence: Mapping[str, Mapping[str, Evidence]], *, methods: Sequence[str] = (), title: str = ""
) -> go.Figure:
    """Values of one kind of evidence.

    Args:
        evidence: Where it was measured (a basis or site) to method to evidence, all of one kind.
        methods: See `styles`.
        title: Default the evidence's kind.

    Returns:
        One row per place and method; evidence without a value has an empty row.
    """
    fig = go.Figure()
    rows = [(where, method, item) for where, items in evidence.items() for method, item in items.items()]
    looks = styles(list(dict.fromkeys(method for _, method, _ in rows)), methods)
    for shown, key in (("original", "before"), ("gold", "gold")):
        known = [(i, float(e.config[key])) for i, (_, _, e) in enumerate(rows) if _number(e.config.get(key))]
        _marks(fig, known, shown, 9 if shown == "original" else 11)
    controls = [
        (i, float(e.control)) for i, (_, _, e) in enumerate(rows) if e.control is not None and not math.isnan(e.control)
    ]
    _marks(fig, controls, "control", 11)
    for method in looks:
        own = [(i, e) for i, (_, m, e) in enumerate(rows) if m == method and not math.isnan(e.value)]
        if not own:
            continue
        bounds = [e.interval or (e.value, e.value) for _, e in own]
        fig.add_scatter(
            x=[e.value for _, e in own],
            y=[i for i, _ in own],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, high - e.value) for (_, e), (_, high) in zip(own, bounds, strict=True)],
                "arrayminus": [max(0.0, e.value - low) for (_, e), (low, _) in zip(own, bounds, strict=True)],
                "thickness": 1.5,
                "width": 4,
            },
            name=plain(method),
            mode="markers",
            marker={"color": looks[method].colour, "symbol": looks[method].symbol, "size": 11},
            customdata=[f"n = {e.n}<br>tokens: {plain(e.mask_policy)}" for _, e in own],
            hovertemplate=f"<b>{plain(method)}</b>: %{{x:.4g}}<br>%{{customdata}}<extra></extra>",
        )
    first = rows[0][2] if rows else None
    several = len(evidence) > 1
    finish(
        fig,
        title or (first.name.split("/")[0] if first else ""),
        WANTED.get(first.direction, "") if first else "",
        "",
        "",
        height=110 + 26 * max(2, len(rows)),
    )
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[plain(f"{method} · {where}" if several else method) for where, method, _ in rows],
        range=[len(rows) - 0.4, -0.6],
        zeroline=False,
    )
    fig.update_layout(margin={"t": 16, "b": 24})
    return fig


def _marks(fig: go.Figure, points: Sequence[tuple[int, float]], name: str, size: int) -> None:
    if not points:
        return
    look = RESERVED[name]
    fig.add_scatter(
        x=[value for _, value in points],
        y=[i for i, _ in points],
        name=name,
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": size, "line": {"width": 2, "color": look.colour}},
        hovertemplate=f"{name}: %{{x:.4g}}<extra></extra>",
    )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
