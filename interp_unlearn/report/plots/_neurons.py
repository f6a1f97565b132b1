"""Which neurons the answers come from, and which of them moved."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, layer_of
from interp_unlearn.report.plots._layers import whole_layers
from interp_unlearn.report.plots._style import GREY, ORANGE, SCALE, SKY, VERMILLION, finish, plain


def neuron_map(table: Labelled, name: str = "") -> go.Figure:
    """Neurons by layer and attribution, coloured by how far their weights moved.

    Look at the highest marks: diamonds hold the fact and moved, circles hold it and did not. Bright marks at the
    bottom moved without carrying the answer. Of each layer only the neurons worth a look were saved. Attribution is
    one gradient step wide: a neuron can matter and have a small one, and neurons that moved prove no forgetting.

    Args:
        table: ``view.neurons`` of a run.
        name: Method, for the title.
    """
    labels = table.axes[0].labels
    layers = np.array([layer_of(label) or 0 for label in labels])
    score, change = table.at(measure="attribution"), table.at(measure="relative_change")
    fact, moved = table.at(measure="fact") > 0, table.at(measure="moved") > 0
    spread = np.linspace(-0.3, 0.3, 7)[np.arange(len(labels)) % 7]
    fig = go.Figure()
    for word, keep, symbol, size in (
        ("neither", ~fact & ~moved, "circle", 5),
        ("moved most", ~fact & moved, "square", 6),
        ("holds the fact", fact & ~moved, "circle", 10),
        ("holds the fact and moved most", fact & moved, "diamond", 11),
    ):
        rows = np.flatnonzero(keep)
        if not len(rows):
            continue
        fig.add_scatter(
            x=layers[rows] + spread[rows],
            y=score[rows],
            name=word,
            mode="markers",
            marker={
                "color": change[rows],
                "coloraxis": "coloraxis",
                "symbol": symbol,
                "size": size,
                "line": {"width": 1.5 if size > 6 else 1, "color": ORANGE if size > 6 else GREY},
            },
            customdata=[[plain(labels[i]), float(change[i])] for i in rows],
            hovertemplate="<b>%{customdata[0]}</b><br>attribution %{y:.3g}, weights moved by %{customdata[1]:.2%}"
            f"{footer(table)}<extra></extra>",
        )
    bar = {"title": {"text": "weights moved", "side": "top"}, "thickness": 10, "len": 0.85, "tickformat": ".2~%"}
    fig.update_layout(coloraxis={"colorscale": SCALE, "cmin": 0, "colorbar": bar})
    finish(
        fig,
        f"Neurons of the target's answers: {name}" if name else "Neurons of the target's answers",
        "Edited where the fact was: the highest marks are bright diamonds.",
        "layer",
        "attribution (nats)",
        height=420,
    )
    return whole_layers(fig, [table])


def neuron_layers(table: Labelled, name: str = "") -> go.Figure:
    """Neurons that hold the fact, by layer, and how many of them are among those that moved most.

    Look for layers where the dark bars fill the light ones. Every layer has the same number of moved neurons, so a
    layer that hardly moved has some too: read the change beside it in `neuron_map`.

    Args:
        table: ``view.neuron_layers`` of a run.
        name: Method, for the title.
    """
    layers = [int(label) for label in table.axes[0].labels]
    fig = go.Figure()
    for measure, word, colour in (("fact", "hold the fact", GREY), ("both", "hold it and moved most", VERMILLION)):
        fig.add_bar(
            x=layers,
            y=table.at(measure=measure),
            name=word,
            marker_color=colour,
            hovertemplate=f"layer %{{x}}: %{{y:.0f}} {word}{footer(table)}<extra></extra>",
        )
    share = float(table.config.get("moved_share", float("nan")))
    fig.add_scatter(
        x=layers,
        y=table.at(measure="fact") * share,
        name="expected by chance",
        mode="lines+markers",
        line={"color": SKY, "dash": "dot"},
        hovertemplate="by chance: %{y:.2f}<extra></extra>",
    )
    fig.update_layout(barmode="overlay")
    finish(
        fig,
        f"Neurons that hold the fact: {name}" if name else "Neurons that hold the fact",
        "Edited where the fact was: far more than by chance.",
        "layer",
        "neurons",
        height=320,
    )
    return whole_layers(fig, [table])
