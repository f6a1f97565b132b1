"""Any measure against depth: alignment, logit lens, similarity, drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import GROUP_WORDS, footer, layer_of, layers_or_labels, pick, sorted_by_layer
from interp_unlearn.report.plots._style import GREY, finish, plain, styles


def layer_curves(
    curves: Mapping[str, Labelled],
    title: str,
    y: str,
    *,
    forgotten: str = "",
    methods: Sequence[str] = (),
    share: bool = False,
    bands: Mapping[str, tuple[Labelled, Labelled]] | None = None,
) -> go.Figure:
    """One line per name, over layers.

    Args:
        curves: Name (``"before"``, ``"gold"``, a method …) to an array with one axis of sites or layers.
        title: What is shown.
        y: Title of the y axis, with its unit.
        forgotten: Which direction means forgotten, as a sentence.
        methods: See `styles`.
        share: Whether the values are shares, to be shown on a scale from 0 to 1.
        bands: Name to a lower and an upper curve, shaded behind the line of that name.

    Returns:
        The figure; lines are sorted by layer where labels name one.
    """
    fig = go.Figure()
    looks = styles(list(curves), methods)
    for name, (low, high) in (bands or {}).items():
        _add_band(fig, sorted_by_layer(low), sorted_by_layer(high), styles([name], methods)[name].colour)
    for name, data in curves.items():
        data = sorted_by_layer(data)
        labels = data.axes[0].labels
        look = looks[name]
        fig.add_scatter(
            x=layers_or_labels(labels),
            y=data.values,
            customdata=[plain(label) for label in labels],
            name=plain(name),
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 7},
            hovertemplate=f"<b>{plain(name)}</b>: %{{y:.4g}}<br>%{{customdata}}{footer(data)}<extra></extra>",
        )
    if share:
        fig.update_yaxes(range=[-0.03, 1.03])
    return whole_layers(finish(fig, title, forgotten, _depth_title(curves), y), curves.values())


def whole_layers(fig: go.Figure, curves: Iterable[Labelled]) -> go.Figure:
    """Ticks at whole layers only, also where there are few of them."""
    layers = [layer_of(label) for data in curves for axis in data.axes[:1] for label in axis.labels]
    numbers = [layer for layer in layers if layer is not None]
    if numbers and len(numbers) == len(layers):
        span = max(numbers) - min(numbers)
        step = next((s for s in (1, 2, 5, 10, 20) if span / s <= 7), 50)
        fig.update_xaxes(tickmode="linear", tick0=0, dtick=step)
    return fig


def drift_curves(
    diffs: Mapping[str, Labelled],
    title: str,
    y: str,
    *,
    groups: Sequence[str] = ("target", "known_eval"),
    forgotten: str = "",
    methods: Sequence[str] = (),
) -> go.Figure:
    """How far activations moved, by site: one colour per method, one dash per group.

    Args:
        diffs: Method name to an array with the axes ``site`` and ``group``.
        title: What is shown.
        y: Title of the y axis.
        groups: Groups to draw, the first one solid, the others dotted, one legend entry for each.
        forgotten: Which direction means forgotten.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(diffs), methods)
    for name, data in diffs.items():
        shown = [g for g in groups if any(a.name == "group" and g in a.labels for a in data.axes)]
        for group in shown:
            line = sorted_by_layer(pick(data, "group", group))
            first = group == groups[0]
            fig.add_scatter(
                x=layers_or_labels(line.axes[0].labels),
                y=line.values,
                customdata=[plain(label) for label in line.axes[0].labels],
                name=plain(name if first else f"{name}, {GROUP_WORDS.get(group, group)}"),
                legendgroup=name,
                showlegend=first,
                mode="lines+markers" if first else "lines",
                line={"color": looks[name].colour, "dash": "solid" if first else "dot", "width": 2.2 if first else 1.6},
                marker={"symbol": looks[name].symbol, "size": 6},
                hovertemplate=f"<b>{plain(name)}</b>, {plain(group)}: %{{y:.4g}}<br>%{{customdata}}{footer(line)}"
                "<extra></extra>",
            )
    for group in groups[1:]:
        if any(a.name == "group" and group in a.labels for data in diffs.values() for a in data.axes):
            name = GROUP_WORDS.get(group, group)
            fig.add_scatter(x=[None], y=[None], mode="lines", name=name, line={"color": GREY, "dash": "dot"})
    return whole_layers(finish(fig, title, forgotten, "layer", y), diffs.values())


def _depth_title(curves: Mapping[str, Labelled]) -> str:
    for data in curves.values():
        labels = data.axes[0].labels
        endings = {label.split(".", 2)[-1] for label in labels if label.count(".") >= 2}
        if len(endings) == 1:
            return f"layer ({endings.pop().removeprefix('hook_')})"
    return "layer"


def _add_band(fig: go.Figure, low: Labelled, high: Labelled, colour: str) -> None:
    x = layers_or_labels(low.axes[0].labels)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fig.add_scatter(
        x=[*x, *x[::-1]],
        y=np.concatenate([high.values, low.values[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
