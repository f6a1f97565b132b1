"""Which latents fire at the target's name: those of known entities, those of unknown ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer
from interp_unlearn.report.plots._style import RESERVED, finish, plain, styles


def latent_bars(
    firing: Mapping[str, Labelled],
    side: str,
    *,
    references: Mapping[str, Labelled] | None = None,
    methods: Sequence[str] = (),
    unit: str = "firing rate",
) -> go.Figure:
    """Firing of one side's latents at the target's mentions, with the levels of known and unknown entities marked.

    Args:
        firing: ``"before"``, ``"gold"`` or a method to an array with one axis of latents.
        side: ``"known"`` or ``"unknown"``: whose latents these are.
        references: ``"known"`` and ``"unknown"`` to the same measure on real entities, drawn as marks.
        methods: See `styles`.
        unit: Title of the y axis.
    """
    fig = go.Figure()
    looks = styles(list(firing), methods)
    for name, data in firing.items():
        fig.add_bar(
            x=[plain(label) for label in data.axes[0].labels],
            y=data.values,
            name=plain(f"target, {name}"),
            marker={"color": looks[name].colour, "line": {"width": 0}},
            hovertemplate=f"<b>target, {plain(name)}</b><br>latent %{{x}}: %{{y:.3f}}{footer(data)}<extra></extra>",
        )
    for name, data in (references or {}).items():
        look = RESERVED.get(name, RESERVED["control"])
        fig.add_scatter(
            x=[plain(label) for label in data.axes[0].labels],
            y=data.values,
            name=plain(f"{name} entities"),
            mode="markers",
            marker={
                "symbol": "line-ew-open" if name == "known" else "diamond-wide-open",
                "size": 18 if name == "known" else 11,
                "color": look.colour,
                "line": {"width": 3 if name == "known" else 2, "color": look.colour},
            },
            hovertemplate=f"<b>{plain(name)} entities</b><br>latent %{{x}}: %{{y:.3f}}{footer(data)}<extra></extra>",
        )
    wanted = {
        "known": "Forgotten: bars fall to the mark of unknown entities, not below it.",
        "unknown": "Forgotten: bars rise to the mark of unknown entities, not above it.",
    }.get(side, "")
    fig = finish(fig, f"Latents of {side} entities at the target's name", wanted, "latent", unit)
    fig.update_layout(barmode="group", bargap=0.25)
    fig.update_xaxes(type="category")
    return fig
