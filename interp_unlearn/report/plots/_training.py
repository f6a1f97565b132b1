"""What the recipe's losses did, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from interp_unlearn.report.plots._style import METHOD_COLOURS, finish, plain, styles

_NOT_TERMS = {"kind", "step", "time", "seconds", "epoch", "learning_rate", "lr"}
_ASIDE = {"grad_norm"}  # of another scale: in the legend, drawn when asked for


def training_curves(events: Sequence[Mapping[str, Any]], name: str = "", *, kind: str = "step") -> go.Figure:
    """Every number that a recipe logged, against the step.

    Args:
        events: Records of ``events.jsonl``.
        name: The method, for the title.
        kind: ``"step"`` for training losses, ``"eval"`` for evaluation points.

    Returns:
        One line per logged term, the total loss drawn thicker; no line where nothing was logged.
    """
    points = [e for e in events if e.get("kind") == kind and isinstance(e.get("step"), (int, float))]
    terms = list(dict.fromkeys(k for e in points for k, v in e.items() if k not in _NOT_TERMS and _number(v)))
    fig = go.Figure()
    for i, term in enumerate(sorted(terms, key=lambda t: t != "loss")):
        own = [e for e in points if _number(e.get(term))]
        fig.add_scatter(
            x=[e["step"] for e in own],
            y=[e[term] for e in own],
            name=plain(term),
            mode="lines" if len(own) > 1 else "markers",
            visible="legendonly" if term in _ASIDE else True,
            line={
                "width": 2.5 if term == "loss" else 1.5,
                "color": METHOD_COLOURS[i % len(METHOD_COLOURS)],
                "dash": ("solid", "dash", "dot", "dashdot")[i % 4],
            },
            hovertemplate=f"{plain(term)}: %{{y:.4g}}<br>step %{{x}}<extra></extra>",
        )
    what = "Training loss and its terms" if kind == "step" else "Measured while training"
    return finish(
        fig,
        f"{what}: {name}" if name else what,
        "Losses are not comparable between methods; read whether they settled.",
        "step",
        "loss" if kind == "step" else "value",
        height=340,
    )


def evaluation_curves(
    events: Mapping[str, Sequence[Mapping[str, Any]]], term: str, *, methods: Sequence[str] = ()
) -> go.Figure:
    """One number measured during training, for several methods.

    Args:
        events: Method name to records of its ``events.jsonl``.
        term: Key of the ``"eval"`` records, e.g. ``"base.exact"``.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(events), methods)
    for name, records in events.items():
        own = [e for e in records if e.get("kind") == "eval" and _number(e.get(term))]
        look = looks[name]
        fig.add_scatter(
            x=[e["step"] for e in own],
            y=[e[term] for e in own],
            name=plain(name),
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash},
            marker={"symbol": look.symbol, "size": 7},
            hovertemplate=f"{plain(name)}: %{{y:.4g}}<br>step %{{x}}<extra></extra>",
        )
    return finish(fig, f"{term} while training", "", "step", term, height=340)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
