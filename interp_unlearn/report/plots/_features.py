"""Which latents or neurons moved most on the target, and whether they moved for its neighbours too."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import GROUP_WORDS, footer, pick
from interp_unlearn.report.plots._style import RESERVED, finish, plain, styles


def feature_changes(
    table: Labelled,
    method: str,
    *,
    groups: Sequence[str] = ("target", "known_eval", "unknown_eval"),
    top: int = 20,
    methods: Sequence[str] = (),
) -> go.Figure:
    """Effect sizes of the features that changed most, best first.

    Args:
        table: Axes (latent or neuron, group, statistic) with the statistic ``effect``, ranked.
        method: Whose run it is, for title and colour.
        groups: Groups to draw; the first as bars, the others as marks.
        top: At most so many features.
        methods: See `styles`.
    """
    effect = pick(table, "statistic", "effect")
    kind, group = effect.axes
    labels = [plain(label) for label in kind.labels[:top]]
    fig = go.Figure()
    for i, name in enumerate(g for g in groups if g in group.labels):
        word = plain(GROUP_WORDS.get(name, name))
        column = effect.values[:top, group.labels.index(name)]
        hover = f"{plain(kind.name)} %{{y}}<br>{word}: %{{x:.3g}}{footer(table)}<extra></extra>"
        if i == 0:
            colour = styles([method], methods)[method].colour
            fig.add_bar(x=column, y=labels, orientation="h", name=word, marker_color=colour, hovertemplate=hover)
            continue
        look = RESERVED["known" if name.startswith("known") else "unknown" if name.startswith("unknown") else "control"]
        marker = {"color": look.colour, "symbol": look.symbol, "size": 8, "line": {"width": 2, "color": look.colour}}
        fig.add_scatter(x=column, y=labels, mode="markers", name=word, marker=marker, hovertemplate=hover)
    finish(
        fig,
        f"{kind.name.capitalize()}s that moved most: {method}",
        "Specific: only the target's bars are long; marks of other groups stay near 0.",
        "effect size (shift over standard deviation)",
        kind.name,
        height=140 + 18 * max(4, len(labels)),
    )
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return fig
