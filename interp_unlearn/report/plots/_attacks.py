"""What attacks bring back, beside the same attack where nothing was ever known."""

from __future__ import annotations

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, has
from interp_unlearn.report.plots._style import ORANGE, PURPLE, SKY, VERMILLION, Style, finish, plain, styles

LOOKS = {
    "target": Style(VERMILLION, "solid", "circle"),
    "never known": Style(PURPLE, "dashdot", "x-thin-open"),
    "neighbours": Style(SKY, "dot", "diamond"),
    "target, gold": Style(ORANGE, "dash", "star"),
}


def attack_levels(table: Labelled, title: str, *, quantity: str = "recall") -> go.Figure:
    """Recall under each setting of one attack, one line for each group of questions, with 95 % intervals.

    Look at the distance between the target and facts that were never known: what an attack brings back of both alike
    is guessing. Gold tells what it finds in a model that never saw the target. An attack that fails shows nothing
    about stronger ones.

    Args:
        table: ``attack.<name>`` of a run, axes group, setting and quantity.
        title: What the attack does.
        quantity: ``"recall"`` or ``"probability"``.
    """
    groups, settings = table.axes[0].labels, table.axes[1].labels
    others = styles([g for g in groups if g not in LOOKS])
    fig = go.Figure()
    for group in groups:
        values = table.at(group=group, quantity=quantity)
        look = LOOKS[group] if group in LOOKS else others[group]
        error = None
        if quantity == "recall" and has(table, "quantity", "low") and has(table, "quantity", "high"):
            low, high = table.at(group=group, quantity="low"), table.at(group=group, quantity="high")
            error = {
                "type": "data",
                "symmetric": False,
                "array": (high - values).clip(min=0),
                "arrayminus": (values - low).clip(min=0),
                "thickness": 1.2,
                "width": 3,
            }
        fig.add_scatter(
            x=[plain(setting) for setting in settings],
            y=values,
            error_y=error,
            name=plain(group),
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 8, "line": {"width": 2, "color": look.colour}},
            hovertemplate=f"<b>{plain(group)}</b>, %{{x}}: %{{y:.3f}}{footer(table)}<extra></extra>",
        )
    finish(fig, title, "Forgotten: the target stays with facts that were never known.", "", quantity, height=360)
    fig.update_xaxes(type="category")
    fig.update_yaxes(range=[-0.04, 1.04])
    return fig
