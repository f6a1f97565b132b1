"""What the model answers, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import has, set_words
from interp_unlearn.report.plots._style import finish, plain, styles


def behaviour_dots(
    tables: Mapping[str, Labelled],
    metric: str = "exact",
    *,
    intervals: Mapping[str, Labelled] | None = None,
    methods: Sequence[str] = (),
) -> go.Figure:
    """One metric on every set of questions (or pictures, nodes, edges), one marker per model.

    Args:
        tables: ``"original"``, ``"gold"`` or a method to an array with the axes ``set`` and ``metric``.
        metric: Which metric.
        intervals: The same names to arrays with the axes ``set``, ``metric`` and ``bound`` (low, high).
        methods: See `styles`.
    """
    fig = go.Figure()
    shown = {name: data for name, data in tables.items() if has(data, "metric", metric)}
    looks = styles(list(tables), methods)
    step = 0.7 / max(5, len(shown))
    sets = list(dict.fromkeys(s for data in shown.values() for s in data.axes[0].labels))
    for i, (name, data) in enumerate(shown.items()):
        own = list(data.axes[0].labels)
        values = [float(data.at(set=s, metric=metric)) for s in own]
        offset = (i - (len(shown) - 1) / 2) * step
        low_high = _bounds((intervals or {}).get(name), own, metric)
        error = None
        if low_high is not None:
            error = {
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, high - v) for v, (_, high) in zip(values, low_high, strict=True)],
                "arrayminus": [max(0.0, v - low) for v, (low, _) in zip(values, low_high, strict=True)],
                "thickness": 1.2,
                "width": 0,
            }
        counts = data.config.get("n", {})
        fig.add_scatter(
            x=values,
            y=[sets.index(s) + offset for s in own],
            error_x=error,
            customdata=[
                [plain(set_words(s)), counts.get(s, data.n) if isinstance(counts, Mapping) else data.n] for s in own
            ],
            name=plain(name),
            mode="markers",
            marker={"color": looks[name].colour, "symbol": looks[name].symbol, "size": 10},
            hovertemplate=f"<b>{plain(name)}</b>, %{{customdata[0]}}: %{{x:.3f}}<br>n = %{{customdata[1]}} prompts"
            "<extra></extra>",
        )
    finish(
        fig,
        f"Answers by set ({metric})",
        "Forgotten: target sets move left to where gold is; all other sets stay where they were.",
        metric,
        "",
        height=130 + max(58, 11 * len(shown) + 14) * max(1, len(sets)),
    )
    fig.update_yaxes(
        tickvals=list(range(len(sets))),
        ticktext=[plain(set_words(s)) for s in sets],
        range=[len(sets) - 0.5, -0.5],
        zeroline=False,
    )
    fig.update_xaxes(range=[-0.03, 1.03])
    return fig


def _bounds(table: Labelled | None, sets: Sequence[str], metric: str) -> list[tuple[float, float]] | None:
    if table is None or not has(table, "metric", metric) or not all(has(table, "set", s) for s in sets):
        return None
    return [
        (float(table.at(set=s, metric=metric, bound="low")), float(table.at(set=s, metric=metric, bound="high")))
        for s in sets
    ]
