"""How far each token's residual stream moved, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, has, pick
from interp_unlearn.report.plots._panels import panels
from interp_unlearn.report.plots._prompts import prompt_slice
from interp_unlearn.report.plots._style import ORANGE, finish, plain
from interp_unlearn.report.plots._words import position_ticks, visible

TOKEN_MEASURES = {
    "cosine_drift": ("change of direction (1 − cosine)", None),
    "norm_drift": ("norm over the original's", 1.0),
    "displacement": ("distance moved over the original's norm", None),
    "norm": ("norm", None),
}
"""Measures of a token map: in words, and the value that means no change where values lie on both sides of it."""


def token_map(
    table: Labelled,
    prompt: int = 0,
    measure: str = "cosine_drift",
    *,
    phases: Sequence[str] = ("after",),
    name: str = "",
) -> go.Figure:
    """Layers by tokens, one panel for each phase, on one scale.

    Look for where the change begins: a method that edits recognition moves the tokens of the name from its layer on;
    one that only suppresses the answer moves the last token in the last layers. It does not show what the change
    means: a large change can leave the fact readable. Gold, if drawn, says something only where it was trained on from
    the same weights: a model trained from scratch has directions of its own.

    Args:
        table: ``view.token_map`` of a run.
        prompt: Which prompt.
        measure: One of `TOKEN_MEASURES`; all but ``norm`` are against the original.
        phases: Phases to draw; those that were not saved are left out.
        name: Method, for the title.
    """
    words, around = TOKEN_MEASURES[measure]
    maps = {}
    for phase in (p for p in phases if has(table, "phase", p)):
        cut = pick(prompt_slice(table, prompt, phase), "measure", measure)
        maps[phase] = _trace(cut, words)
    facts = table.config["prompts"][prompt]
    fig = panels(maps, around=around)
    finish(
        fig,
        f"{words[:1].upper()}{words[1:]}, token by token{f': {name}' if name else ''}",
        f"“{facts['text']}” (answer: {facts['answer']}); the name's tokens are framed",
        height=max(300, 150 + 18 * len(table.axes[2].labels)),
    )
    for column in range(1, len(maps) + 1):
        fig.update_xaxes(**position_ticks(facts["tokens"], len(maps)), row=1, col=column)
        if facts["name"]:
            start, end = facts["name"]
            frame = {"width": 1.5, "color": ORANGE}
            fig.add_vrect(x0=start - 0.5, x1=end + 0.5, line=frame, row=1, col=column)  # type: ignore[arg-type]
    fig.update_yaxes(showgrid=False, type="category")
    fig.update_yaxes(title_text="layer", row=1, col=1)
    fig.update_layout(margin={"t": 96})
    return fig


def _trace(cut: Labelled, words: str) -> go.Heatmap:
    layers, positions = cut.axes
    labels = [visible(label.split(": ", 1)[1]) for label in positions.labels]
    return go.Heatmap(
        z=cut.values,
        x=list(range(len(labels))),
        y=[plain(label) for label in layers.labels],
        customdata=[labels] * len(layers.labels),
        hovertemplate=f"“%{{customdata}}”, layer %{{y}}<br>{words}: %{{z:.3g}}{footer(cut)}<extra></extra>",
    )
