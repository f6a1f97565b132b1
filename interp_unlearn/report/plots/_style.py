"""How every figure looks: Okabe–Ito colours, one style per phase and per method, readable on light and on dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

# Okabe & Ito, "Color Universal Design" (2008): tell-apart for all common kinds of colour vision.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"

METHOD_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, SKY, YELLOW)
METHOD_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon")
LINE = "rgba(128,128,128,0.22)"
ZERO = "rgba(128,128,128,0.55)"
INK = "#757575"
SCALE = "Cividis"
"""Sequential colours of heat maps, monotone in lightness and safe for colour-blind readers."""
DIVERGING = ((0.0, BLUE), (0.5, "#B5B5B5"), (1.0, VERMILLION))
"""Colours around a value that means no change."""


@dataclass(frozen=True)
class Style:
    """Colour, line dash and marker of one series; colour never carries a meaning alone."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"


RESERVED = {
    "before": Style(GREY, "dot", "circle-open"),
    "original": Style(GREY, "dot", "circle-open"),
    "after": Style(VERMILLION, "solid", "circle"),
    "gold": Style(ORANGE, "dash", "star"),
    "control": Style(PURPLE, "dashdot", "x-thin-open"),
    "known": Style(SKY, "dot", "circle"),
    "unknown": Style(PURPLE, "dashdot", "x-thin-open"),
}
"""Names that look the same in every figure."""


def styles(labels: Sequence[str], methods: Sequence[str] = ()) -> dict[str, Style]:
    """A style for each label.

    Reserved words (`RESERVED`: before, after, gold, control …) always look the same; all others are methods, coloured
    in the order of ``methods`` and then of appearance. Pass the same ``methods`` to several figures to keep their
    colours.

    Args:
        labels: Names of the series in one figure.
        methods: Names of all methods that are compared, in reporting order.
    """
    order = [m for m in dict.fromkeys([*methods, *labels]) if m not in RESERVED]
    found = {}
    for label in labels:
        if label in RESERVED:
            found[label] = RESERVED[label]
            continue
        i = order.index(label)
        dash = ("solid", "longdash")[(i // len(METHOD_COLOURS)) % 2]
        found[label] = Style(METHOD_COLOURS[i % len(METHOD_COLOURS)], dash, METHOD_SYMBOLS[i % len(METHOD_SYMBOLS)])
    return found


def plain(text: object) -> str:
    """Text that plotly shows as it is: its figures understand a little HTML, and names are not ours."""
    return html.escape(str(text), quote=False)


AXIS = {
    "gridcolor": LINE,
    "zerolinecolor": ZERO,
    "linecolor": ZERO,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12}},
    "tickfont": {"size": 12},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(METHOD_COLOURS),
        "title": {"x": 0, "xref": "paper", "font": {"size": 15}, "automargin": True, "yref": "container", "y": 0.98},
        "margin": {"l": 56, "r": 16, "t": 64, "b": 48},
        "hoverlabel": {"align": "left", "namelength": -1},
        "legend": {
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0,
            "x": 0,
            "xanchor": "left",
            "maxheight": 600,
        },
        "xaxis": AXIS,
        "yaxis": AXIS,
    }
)

THEMES = {
    "clear": {},
    "light": {
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "font": {"color": "#333333"},
        "hoverlabel": {"bgcolor": "#FFFFFF", "font": {"color": "#333333"}},
    },
    "dark": {
        "paper_bgcolor": "#14171C",
        "plot_bgcolor": "#14171C",
        "font": {"color": "#D4D4D4"},
        "hoverlabel": {"bgcolor": "#23272E", "font": {"color": "#E8E8E8"}},
    },
}
"""Grounds of a figure; ``"clear"`` has none of its own, and inks that are readable on light and on dark pages."""


def themed(fig: go.Figure, theme: str) -> go.Figure:
    """The figure on a ground of its own, for pages and files whose ground is known.

    Args:
        fig: Any figure of this package; it is changed and returned.
        theme: One of `THEMES`.

    Raises:
        ValueError: If there is no such theme.
    """
    if theme not in THEMES:
        raise ValueError(f"theme {theme!r} is not one of {', '.join(THEMES)}")
    return fig.update_layout(**THEMES[theme])


def finish(fig: go.Figure, title: str, forgotten: str, x: str = "", y: str = "", height: int = 380) -> go.Figure:
    """Give a figure its title, axis titles and the common look.

    Args:
        fig: Figure with its traces.
        title: What is shown.
        forgotten: Which direction means forgotten, as a sentence (may be empty).
        x: Title of the x axis.
        y: Title of the y axis.
        height: Height in pixels; the width follows the page.
    """
    fig.update_layout(
        template=TEMPLATE,
        height=height,
        title={"text": plain(title), "subtitle": {"text": plain(forgotten)}},
    )
    if x:
        fig.update_xaxes(title_text=plain(x))
    if y:
        fig.update_yaxes(title_text=plain(y))
    return fig
