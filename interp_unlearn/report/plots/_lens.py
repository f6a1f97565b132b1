"""What the model would say at each layer: the logit lens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import axis_names, footer, layers_or_labels, pick, set_words
from interp_unlearn.report.plots._layers import layer_curves
from interp_unlearn.report.plots._style import SCALE, finish
from interp_unlearn.report.plots._words import position_ticks, visible

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


def lens_grid(table: Labelled, name: str = "", *, measure: str = "top", lens: str = "Logit lens") -> go.Figure:
    """The most likely next token at each layer and position of one prompt.

    Look for the answer (bold) in the last column: it appears at some layer where the model can read it, and at none in
    gold. It does not show what other readers would find: early layers may use another basis than the head, and an
    answer that the lens does not read may still be there.

    Args:
        table: Probabilities, axes layer and position (and ``measure``), as `prompt_slice` gives them;
            ``config["top_tokens"]`` holds the likeliest tokens, layer by position.
        name: Phase or method, for the title.
        measure: What colours the cells: ``top`` (probability of the token shown) or ``answer`` (of the answer).
        lens: Whose reading it is, for the title.
    """
    table = pick(table, "measure", measure) if "measure" in axis_names(table) else table
    rows, columns = table.axes
    tokens = table.config.get("top_tokens", table.config.get("tokens"))
    full = [[visible(token) for token in row] for row in tokens] if tokens else None
    fits = max(3, CHARACTERS // max(1, len(columns.labels)))
    answer = table.config.get("answer_token")
    short = [[_cell(token, fits, token == answer) for token in row] for row in tokens] if tokens else None
    layers = layers_or_labels(rows.labels)
    words = [label.removeprefix(f"{i}:") for i, label in enumerate(columns.labels)]
    positions = [f"{i}: {visible(word)}" for i, word in enumerate(words)]
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
        f"{lens} on one prompt: {name}" if name else f"{lens} on one prompt",
        "Forgotten: the answer appears at no layer of the last column.",
        "",
        axis_names(table)[0],
        height=max(300, 120 + 20 * len(layers)),
    )
    fig.update_xaxes(**position_ticks(words))
    fig.update_yaxes(type="category", showgrid=False)
    return fig


def _cell(token: object, length: int, is_answer: bool) -> str:
    return f"<b>{visible(token, length)}</b>" if is_answer else visible(token, length)
