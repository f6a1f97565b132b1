"""The same one-axis array of several models in one picture: lines over numbers or layers, else dots by category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, layers_or_labels, numbers_or_labels
from interp_unlearn.report.plots._layers import layer_curves
from interp_unlearn.report.plots._style import finish, plain, styles

Band = tuple[Labelled, Labelled]
LONGEST = 40


def series(
    tables: Mapping[str, Labelled],
    title: str,
    *,
    methods: Sequence[str] = (),
    forgotten: str = "",
    bands: Mapping[str, Band] | None = None,
) -> go.Figure:
    """One series for each model.

    Args:
        tables: Model to an array with one axis, the same for all.
        title: What is shown.
        methods: See `styles`.
        forgotten: A sentence on how to read it.
        bands: Model to a lower and an upper bound.

    Raises:
        ValueError: If there is nothing to show, or an array has not exactly one axis.
    """
    if not tables or any(len(table.axes) != 1 for table in tables.values()):
        raise ValueError("a series needs at least one array, each with one axis")
    first = next(iter(tables.values()))
    labels, axis = first.axes[0].labels, first.axes[0].name
    numbers = numbers_or_labels(labels)
    if numbers and not isinstance(numbers[0], str):
        return _lines(tables, title, forgotten, axis, methods, bands or {})
    layers = layers_or_labels(labels)
    if layers and not isinstance(layers[0], str):
        return layer_curves(tables, title, first.name, forgotten=forgotten, methods=methods, bands=bands)
    return _dots(tables, title, forgotten, axis, methods, bands or {})


def _lines(
    tables: Mapping[str, Labelled],
    title: str,
    forgotten: str,
    axis: str,
    methods: Sequence[str],
    bands: Mapping[str, Band],
) -> go.Figure:
    fig = go.Figure()
    looks = styles(list(tables), methods)
    for name, table in tables.items():
        look = looks[name]
        fig.add_scatter(
            x=numbers_or_labels(table.axes[0].labels),
            y=table.values,
            name=plain(name),
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 7},
            error_y=_errors(table, bands.get(name)),
            hovertemplate=f"<b>{plain(name)}</b>: %{{y:.4g}}<br>{plain(axis)} %{{x}}{footer(table)}<extra></extra>",
        )
    return finish(fig, title, forgotten, axis, next(iter(tables.values())).name, height=340)


def _dots(
    tables: Mapping[str, Labelled],
    title: str,
    forgotten: str,
    axis: str,
    methods: Sequence[str],
    bands: Mapping[str, Band],
) -> go.Figure:
    fig = go.Figure()
    looks = styles(list(tables), methods)
    labels = list(dict.fromkeys(label for table in tables.values() for label in table.axes[0].labels))
    place = {label: i for i, label in enumerate(labels)}
    for name, table in tables.items():
        own = table.axes[0].labels
        fig.add_scatter(
            x=table.values,
            y=[place[label] for label in own],
            name=plain(name),
            mode="markers",
            marker={"color": looks[name].colour, "symbol": looks[name].symbol, "size": 10},
            error_x=_errors(table, bands.get(name)),
            customdata=[plain(label) for label in own],
            hovertemplate=f"<b>{plain(name)}</b>: %{{x:.4g}}<br>%{{customdata}}{footer(table)}<extra></extra>",
        )
    height = 120 + 22 * max(3, len(labels))
    finish(fig, title, forgotten, next(iter(tables.values())).name, axis, height=height)
    shown = range(0, len(labels), max(1, len(labels) // LONGEST))
    texts = [plain(labels[i] if len(labels[i]) <= LONGEST else f"…{labels[i][1 - LONGEST :]}") for i in shown]
    fig.update_yaxes(tickvals=list(shown), ticktext=texts, range=[len(labels) - 0.4, -0.6], zeroline=False)
    return fig


def _errors(table: Labelled, band: Band | None) -> dict[str, object] | None:
    if band is None:
        return None
    low, high = (np.nan_to_num(b.values, nan=0.0) for b in band)
    value = np.nan_to_num(table.values, nan=0.0)
    return {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(high - value, 0),
        "arrayminus": np.maximum(value - low, 0),
        "thickness": 1.2,
        "width": 3,
    }
