"""Every latent by what it marks and how far it changed."""

from __future__ import annotations

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer
from interp_unlearn.report.plots._style import GREY, METHOD_COLOURS, ORANGE, finish, plain


def latent_ranking(table: Labelled, name: str = "", *, latent: str | None = None) -> go.Figure:
    """Known score against effect, one mark for each latent; those with a dashboard are filled.

    Look at the corners: a forgotten entity loses latents of known entities (bottom right) and gains those of unknown
    ones (top left). Latents that changed without marking either (top and bottom middle) are the method's own traces.
    Few rows stand behind an effect, so single latents far out may be chance; what one means is in its dashboard.

    Args:
        table: ``view.latents`` of a run.
        name: Method, for the title.
        latent: A latent to point at.
    """
    labels = table.axes[0].labels
    shown = set(table.config.get("dashboards", ()))
    read = {name: table.at(measure=name) for name in ("known_score", "effect", "frequency_before", "frequency_after")}
    fig = go.Figure()
    for word, wanted, colour, symbol in (
        ("other latents", False, GREY, "circle-open"),
        ("with a dashboard", True, METHOD_COLOURS[0], "circle"),
    ):
        rows = [i for i, label in enumerate(labels) if (label in shown) == wanted]
        fig.add_scatter(
            x=read["known_score"][rows],
            y=read["effect"][rows],
            name=word,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.85},
            customdata=[
                [plain(labels[i]), float(read["frequency_before"][i]), float(read["frequency_after"][i])] for i in rows
            ],
            hovertemplate="<b>latent %{customdata[0]}</b><br>known score %{x:.3f}, effect %{y:.3g}<br>fires at the "
            f"target: %{{customdata[1]:.0%}} before, %{{customdata[2]:.0%}} after{footer(table)}<extra></extra>",
        )
    if latent is not None and latent in labels:
        i = labels.index(latent)
        fig.add_scatter(
            x=[read["known_score"][i]],
            y=[read["effect"][i]],
            name=f"latent {plain(latent)}",
            mode="markers",
            marker={"symbol": "circle-open", "size": 18, "color": ORANGE, "line": {"width": 3, "color": ORANGE}},
            hoverinfo="skip",
        )
    return finish(
        fig,
        f"Latents by what they mark and how they changed: {name}"
        if name
        else "Latents by what they mark and how they changed",
        "Forgotten: latents of known entities fall, those of unknown entities rise.",
        "known score (−1 unknown, 1 known)",
        "effect on the target",
        height=420,
    )
