"""What the model would say at each layer: the logit lens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import axis_names, footer, layers_or_labels, pick, set_words
from interp_unlearn.report.plots._layers import layer_curves
from interp_unlearn.report.plots._style import SCALE, finish, plain

CHARACTERS = 64
"""So many characters of cell text fit into one row of a grid at the width of half a page."""


def lens_curves(
    tables: Mapping[str, Labelled],
    what: str,
    *,
    forgotten: bool = True,
    measure: str = "logprob",
    methods: Sequence[str] = (),
) -> go.Figure:
    """How readable the answer is at each layer, as the mean over prompts.

    Args:
        tables: ``"original"``, ``"gold"`` or a method to an array with an axis ``layer`` and, where they exist, the
            axes ``prompt`` (averaged over) and ``measure``.
        what: The question set, for the title.
        forgotten: Whether the set asks about the target; other sets should stay as they were.
        measure: Which measure, where there are several.
        methods: See `styles`.
    """
    curves = {
        name: _over_prompts(pick(t, "measure", measure) if "measure" in axis_names(t) else t)
        for name, t in tables.items()
    }
    return layer_curves(
        curves,
        f"Logit lens: log-probability of the answer ({set_words(what)})",
        "log-probability of the first token, nats",
        forgotten="Forgotten: low at every layer, as in gold; low only in the last layers means hidden."
        if forgotten
        else "Unharmed: as in the original, at every layer.",
        methods=methods,
    )


def _over_prompts(table: Labelled) -> Labelled:
    if "prompt" not in axis_names(table):
        return table
    index = axis_names(table).index("prompt")
    axes = tuple(axis for axis in table.axes if axis.name != "prompt")
    return dataclasses.replace(table, values=table.values.mean(axis=index), axes=axes)


def lens_grid(table: Labelled, name: str = "") -> go.Figure:
    """The most likely next token at each layer and position of one prompt.

    Args:
        table: Probability of the most likely token, axes layer and position (and ``measure``, of which ``top`` is
            drawn); ``config["top_tokens"]`` holds the tokens, layer by position, and ``config["prompt"]`` the prompt.
        name: Phase or method, for the title.
    """
    table = pick(table, "measure", "top") if "measure" in axis_names(table) else table
    rows, columns = table.axes
    tokens = table.config.get("top_tokens", table.config.get("tokens"))
    full = [[_visible(token) for token in row] for row in tokens] if tokens else None
    fits = max(3, CHARACTERS // max(1, len(columns.labels)))
    short = [[_visible(token, fits) for token in row] for row in tokens] if tokens else None
    layers = layers_or_labels(rows.labels)
    words = [label.removeprefix(f"{i}:") for i, label in enumerate(columns.labels)]
    positions = [f"{i}: {_visible(word)}" for i, word in enumerate(words)]
    fig = go.Figure(
        go.Heatmap(
            z=table.values,
            x=list(range(len(positions))),
            y=[str(layer) for layer in layers],
            text=short,
            texttemplate="%{text}" if short else None,
            hovertext=full,
            textfont={"size": 10},
            customdata=[positions] * len(layers),
            zmin=0,
            zmax=1,
            colorscale=SCALE,
            colorbar={"title": {"text": "p", "side": "top"}, "thickness": 10, "len": 0.9},
            hovertemplate=("%{hovertext}<br>" if full else "")
            + f"p = %{{z:.3f}}<br>layer %{{y}}, position %{{customdata}}{footer(table)}<extra></extra>",
        )
    )
    fig = finish(
        fig,
        f"Logit lens on one prompt: {name}" if name else "Logit lens on one prompt",
        "Forgotten: the answer appears at no layer of the last column.",
        "",
        axis_names(table)[0],
        height=max(300, 120 + 20 * len(layers)),
    )
    fig.update_xaxes(
        tickvals=list(range(len(positions))),
        ticktext=[_visible(word, 12) for word in words],
        tickangle=-40,
        tickfont={"size": 11},
        showgrid=False,
    )
    fig.update_yaxes(type="category", showgrid=False)
    return fig


def _visible(token: object, length: int = 24) -> str:
    text = (
        str(token).replace("\n", "↵").replace("\t", "⇥").replace(" ", "·" if str(token).strip() == "" else " ").strip()
    )
    return plain(text if len(text) <= length else text[: length - 1] + "…")
