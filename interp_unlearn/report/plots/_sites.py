"""What moved at each kind of site, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import GROUP_WORDS, footer, has, pick
from interp_unlearn.report.plots._panels import panels
from interp_unlearn.report.plots._style import finish, plain

SITE_WORDS = {"resid_post": "residual stream", "attn_out": "attention output", "mlp_out": "MLP output"}
SITE_MEASURES = {
    "displacement": ("Distance moved over the original's norm", None),
    "cosine_drift": ("Change of direction (1 − cosine)", None),
    "norm_drift": ("Norm over the original's", 1.0),
    "effect_size": ("Effect size (root mean square over features)", None),
    "largest_effect": ("Largest effect of one feature", None),
    "cka": ("Similarity of geometry (CKA)", None),
}
"""Measures of a site map: in words, and the value that means no change where values lie on both sides of it."""


def site_map(
    table: Labelled,
    measure: str = "displacement",
    *,
    phase: str = "after",
    groups: Sequence[str] = ("target", "known_eval", "unknown_eval"),
    name: str = "",
) -> go.Figure:
    """Kinds of sites by layers, one panel for each group of entities, on one scale.

    Look for the first layer where the target's panel changes and the others do not: there the method acts. MLP and
    attention outputs say which of both it changed; the residual stream adds up what came before. Change in the
    neighbours' panel is a side effect. It does not show whether the fact is still there.

    Args:
        table: ``view.site_map`` of a run.
        measure: One of `SITE_MEASURES`.
        phase: ``"after"`` or ``"gold"``, each against the original.
        groups: Groups to draw; those without rows are left out.
        name: Method, for the title.
    """
    words, around = SITE_MEASURES[measure]
    whole = pick(pick(table, "phase", phase), "measure", measure)
    maps = {GROUP_WORDS.get(g, g): _trace(pick(whole, "group", g), words) for g in groups if has(whole, "group", g)}
    fig = panels(maps, around=around)
    finish(
        fig,
        f"{words}: {name}" if name else words,
        "Specific: only the target's panel changes." if phase == "after" else "Gold against the original.",
        height=270,
    )
    fig.update_xaxes(title_text="layer", showgrid=False)
    fig.update_yaxes(showgrid=False)
    fig.update_layout(margin={"t": 96})
    return fig


def _trace(cut: Labelled, words: str) -> go.Heatmap:
    sites, layers = cut.axes
    return go.Heatmap(
        z=cut.values,
        x=[int(label) for label in layers.labels],
        y=[plain(SITE_WORDS.get(label, label)) for label in sites.labels],
        hovertemplate=f"%{{y}}, layer %{{x}}<br>{plain(words)}: %{{z:.3g}}{footer(cut)}<extra></extra>",
    )
