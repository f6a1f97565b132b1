"""One latent: how strongly it fires, which tokens it promotes, and where it fires most."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import axis_names, footer, pick
from interp_unlearn.report.plots._style import ORANGE, SCALE, SKY, finish, plain, styles
from interp_unlearn.report.plots._words import visible


def _place(table: Labelled, latent: str) -> int:
    return table.axes[axis_names(table).index("latent")].labels.index(latent)


def latent_histogram(table: Labelled, latent: str) -> go.Figure:
    """Tokens by activation, before and after, of those where the latent fires.

    Look for a shape that moved: fewer tokens is a latent that was switched off, a shift to the left is one that was
    weakened. Most tokens do not fire and are not drawn; the legend counts those that do.

    Args:
        table: ``view.latent_histogram`` of a run.
        latent: Its number, as labelled in the table.
    """
    i = _place(table, latent)
    counts, edges = pick(table, "latent", latent), np.asarray(table.config["edges"][i])
    middles = (edges[:-1] + edges[1:]) / 2
    phases = counts.axes[0].labels
    looks = styles(phases)
    fig = go.Figure()
    for row, phase in enumerate(phases):
        fired = table.config["fired"][i][row]
        fig.add_scatter(
            x=middles,
            y=counts.values[row],
            name=f"{plain(phase)} ({fired} of {table.config['tokens']} tokens)",
            mode="lines",
            line={"color": looks[phase].colour, "dash": looks[phase].dash, "shape": "hvh", "width": 2.2},
            fill="tozeroy" if row == 0 else None,
            fillcolor="rgba(138,138,138,0.25)",
            hovertemplate=f"{plain(phase)}: %{{y:.0f}} tokens at %{{x:.2f}}{footer(table)}<extra></extra>",
        )
    return finish(
        fig, f"Activation of latent {latent}", "Only tokens where it fires.", "activation", "tokens", height=300
    )


def latent_logits(table: Labelled, latent: str, *, phase: str = "before") -> go.Figure:
    """The tokens that a latent's direction promotes and suppresses most.

    Look at what the promoted tokens have in common. Only order and relative size mean something: the direction is read
    straight through the head, and layers between may turn it into something else.

    Args:
        table: ``view.latent_logits`` of a run.
        latent: Its number, as labelled in the table.
        phase: Whose head reads.
    """
    i = _place(table, latent)
    cut = pick(pick(table, "latent", latent), "phase", phase)
    p = table.axes[axis_names(table).index("phase")].labels.index(phase)
    words = table.config["tokens"][i][p]
    fig = go.Figure()
    places = len(words[0])
    labels: list[str] = []
    for row, (side, word, colour) in enumerate((("suppressed", "suppresses", SKY), ("promoted", "promotes", ORANGE))):
        which = cut.axes[0].labels.index(side)
        order = range(places) if side == "suppressed" else range(places - 1, -1, -1)
        texts = [visible(words[which][j]) for j in order]
        labels += texts
        fig.add_bar(
            x=[cut.values[which, j] for j in order],
            y=[row * places + k for k in range(places)],
            orientation="h",
            name=word,
            marker_color=colour,
            customdata=texts,
            hovertemplate=f"{word} “%{{customdata}}”: %{{x:.3g}}<extra></extra>",
        )
    finish(
        fig,
        f"Tokens of latent {latent}: {phase}",
        "Read straight through the head.",
        "logit",
        "",
        height=140 + 34 * places,
    )
    fig.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, showgrid=False, tickfont={"size": 11})
    fig.update_layout(bargap=0.2)
    return fig


def latent_contexts(table: Labelled, latent: str, *, phase: str = "after") -> go.Figure:
    """The texts on which a latent fires most, one row for each, coloured by its activation at each token.

    Look for what the coloured tokens have in common, and whether they keep their colour after the edit. The rows come
    from a small sample of text and from the task's own questions, so they show what fires here, not everything that
    would.

    Args:
        table: ``view.latent_contexts`` of a run.
        latent: Its number, as labelled in the table.
        phase: Whose activations; the scale is the same for all phases.
    """
    i = _place(table, latent)
    cut = pick(table, "latent", latent)
    used = [(place, row) for place, row in enumerate(table.config["row"][i]) if row is not None]
    texts = [table.config["rows"][row] for _, row in used]
    width = max((len(text["tokens"]) for text in texts), default=1)
    values = pick(cut, "phase", phase).values[[place for place, _ in used], :width]
    top = float(np.nanmax(cut.values)) if np.isfinite(cut.values).any() else 1.0
    words = [[visible(token, 9) for token in text["tokens"]] + [""] * (width - len(text["tokens"])) for text in texts]
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=list(range(width)),
            y=list(range(len(texts))),
            text=words,
            texttemplate="%{text}",
            textfont={"size": 10},
            colorscale=SCALE,
            zmin=0,
            zmax=top or 1.0,
            xgap=1,
            ygap=4,
            colorbar={"thickness": 10, "len": 0.9},
            hovertemplate=f"“%{{text}}”: %{{z:.3g}}{footer(table)}<extra></extra>",
        )
    )
    finish(
        fig, f"Where latent {latent} fires most: {phase}", "One text in each row.", height=110 + 32 * max(1, len(texts))
    )
    sources = {"text": "text", "forget": "target", "neighbours": "neighbour"}
    fig.update_xaxes(visible=False)
    fig.update_yaxes(
        tickvals=list(range(len(texts))),
        ticktext=[plain(sources.get(text["source"], text["source"])) for text in texts],
        autorange="reversed",
        showgrid=False,
        zeroline=False,
    )
    return fig
