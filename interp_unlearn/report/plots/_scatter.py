"""Where the target sits between known and unknown entities: axis coordinate t against residual r."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer
from interp_unlearn.report.plots._style import RESERVED, Style, finish, plain, styles


def alignment_scatter(
    points: Mapping[str, Labelled],
    *,
    methods: Sequence[str] = (),
    target: str = "target",
    known: Sequence[str] = ("known_eval", "known_ref"),
    unknown: Sequence[str] = ("unknown_eval", "unknown_ref"),
    title: str = "Target between known and unknown entities (t and r)",
) -> go.Figure:
    """Every mention as a point: t runs from the known mean (0) to the unknown mean (1), r is the distance off the line.

    Known and unknown clouds are drawn from the original model, or from the first entry.

    Args:
        points: ``"original"``, ``"gold"`` or a method to an array with the axes ``mention`` and coordinate (t, r).
            The group of a mention is in ``config["groups"]``, else its label is ``group|entity|template``.
        methods: See `styles`.
        target: Group of the target.
        known: Groups of known entities, the first one present is drawn.
        unknown: Groups of unknown entities, likewise.
        title: What is shown.
    """
    fig = go.Figure()
    base = points.get("original", points.get("before", next(iter(points.values()), None)))
    if base is not None:
        for word, names in (("known", known), ("unknown", unknown)):
            found = next((n for n in names if n in _groups(base)), None)
            if found:
                _cloud(fig, base, found, f"{word} entities", RESERVED[word])
    looks = styles(list(points), methods)
    for name, data in points.items():
        _target(fig, data, target, name, looks[name])
    for at, text in ((0, "known mean"), (1, "unknown mean")):
        fig.add_vline(x=at, line={"width": 1, "dash": "dash", "color": "rgba(128,128,128,0.6)"})
        fig.add_annotation(
            x=at, y=1, yref="paper", text=text, showarrow=False, yanchor="bottom", font={"size": 11}, xanchor="center"
        )
    forgotten = "Forgotten: the target lies inside the cloud of unknown entities, not beyond it and not above it."
    return finish(fig, title, forgotten, "t (0 = known, 1 = unknown)", "r (off the axis)", height=440)


def _groups(data: Labelled) -> list[str]:
    saved = data.config.get("groups")
    if saved is not None:
        return [str(group) for group in saved]
    return [label.split("|")[0] for label in _mentions(data)]


def _mentions(data: Labelled) -> tuple[str, ...]:
    return next(axis.labels for axis in data.axes if axis.name == "mention")


def _rows(data: Labelled, group: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rows = [i for i, g in enumerate(_groups(data)) if g == group]
    mention_first = data.axes[0].name == "mention"
    values = data.values if mention_first else data.values.T
    labels = data.axes[1 if mention_first else 0].labels
    names = [label.removeprefix(f"{group}|").replace("|", ", ") for label in _mentions(data)]
    return values[rows, labels.index("t")], values[rows, labels.index("r")], [names[i] for i in rows]


def _cloud(fig: go.Figure, data: Labelled, group: str, name: str, look: Style) -> None:
    t, r, mentions = _rows(data, group)
    fig.add_scatter(
        x=t,
        y=r,
        customdata=[plain(m) for m in mentions],
        name=name,
        mode="markers",
        marker={
            "color": look.colour,
            "symbol": look.symbol,
            "size": 6,
            "opacity": 0.75,
            "line": {"width": 1.5, "color": look.colour},
        },
        hovertemplate=f"{name}: %{{customdata}}<br>t = %{{x:.3f}}, r = %{{y:.3f}}{footer(data)}<extra></extra>",
    )


def _target(fig: go.Figure, data: Labelled, group: str, name: str, look: Style) -> None:
    t, r, mentions = _rows(data, group)
    if not len(t):
        return
    fig.add_scatter(
        x=t,
        y=r,
        customdata=[plain(m) for m in mentions],
        name=plain(f"target, {name}"),
        legendgroup=name,
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": 8, "opacity": 0.85},
        hovertemplate=f"<b>target, {plain(name)}</b>: %{{customdata}}<br>t = %{{x:.3f}}, r = %{{y:.3f}}{footer(data)}"
        "<extra></extra>",
    )
    fig.add_scatter(
        x=[float(t.mean())],
        y=[float(r.mean())],
        legendgroup=name,
        showlegend=False,
        mode="markers",
        marker={
            "color": look.colour,
            "symbol": look.symbol.removesuffix("-open"),
            "size": 15,
            "line": {"width": 2, "color": "rgba(128,128,128,0.9)"},
        },
        hovertemplate=f"<b>mean of the target, {plain(name)}</b><br>t = %{{x:.3f}}, r = %{{y:.3f}}{footer(data)}"
        "<extra></extra>",
    )
