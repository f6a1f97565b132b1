"""All runs at a glance: how much was forgotten, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import has, set_words
from interp_unlearn.report.plots._style import finish, plain, styles

TARGET_SETS = ("forget_heldout", "paraphrased", "forget_train", "base")


def leaderboard(
    tables: Mapping[str, Labelled],
    *,
    metric: str = "exact",
    kept: str = "neighbours",
    methods: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Forgetting against retention, one mark for each run, with the original and gold beside them.

    Look for marks near gold, not near the corner: forgetting more than gold is over-suppression. Both axes rest on
    answers alone; a run at the same place as gold may still hold the fact inside.

    Args:
        tables: ``"original"``, ``"gold"`` or the name of a run to its table of behaviour (set, metric).
        metric: Which metric of answers.
        kept: The question set whose answers should stay.
        methods: See `styles`.
        names: Run to the words shown in hovers, where they differ from its name.
    """
    fig = go.Figure()
    looks = styles(list(tables), methods)
    for name, table in tables.items():
        target = next((s for s in TARGET_SETS if has(table, "set", s)), None)
        if target is None or not has(table, "set", kept) or not has(table, "metric", metric):
            continue
        reserved = name in ("original", "gold")
        fig.add_scatter(
            x=[float(table.at(set=kept, metric=metric))],
            y=[1 - float(table.at(set=target, metric=metric))],
            name=plain(name),
            mode="markers+text" if reserved else "markers",
            text=[plain(name)] if reserved else None,
            textposition="bottom center" if name == "gold" else "top center",
            marker={"color": looks[name].colour, "symbol": looks[name].symbol, "size": 16 if reserved else 12},
            customdata=[plain((names or {}).get(name, name))],
            hovertemplate="<b>%{customdata}</b><br>forgetting %{y:.3f}, retention %{x:.3f}<extra></extra>",
        )
    finish(
        fig,
        "Forgetting against retention",
        "Good: near gold. Left of it is damage, above it over-suppression.",
        f"retention: {metric} on {set_words(kept)}",
        f"forgetting: 1 − {metric} on the target",
        height=440,
    )
    fig.update_xaxes(range=[-0.04, 1.06])
    fig.update_yaxes(range=[-0.08, 1.08])
    return fig
