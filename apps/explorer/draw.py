"""Figures on a page: in the colours of the theme, with their data to download."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from explorer.kept import Kept
from explorer.words import literal
from interp_unlearn.report import Pictures
from interp_unlearn.report.plots import figures_csv

INK = {"light": "#3d4650", "dark": "#c4ccd5"}
FORMAT = "picture_format"
_SHOWN: Kept[go.Figure] = Kept(300)


def choose_format() -> None:
    """What the camera on each picture saves."""
    st.radio("Pictures are saved as", ["PNG", "SVG"], key=FORMAT, horizontal=True)


def show_pictures(pictures: Pictures, key: str) -> None:
    """A group of figures with the sentence on how to read it."""
    if pictures.text:
        st.caption(literal(pictures.text))
    if not pictures.figures:
        st.info(literal(pictures.missing or "Nothing was saved that could be drawn."))
        return
    show_figures(pictures.figures, key, wide=pictures.layout == "one")


def show_figures(figures: Sequence[go.Figure], key: str, *, wide: bool = False) -> None:
    """Figures two beside each other, where there is room, and their data."""
    beside = 1 if wide or len(figures) == 1 else 2
    for start in range(0, len(figures), beside):  # row by row, so that a narrow window keeps their order
        for i, column in enumerate(st.columns(beside)):
            if start + i < len(figures):
                with column:
                    show_figure(figures[start + i], f"{key}-{start + i}")
    _downloads(figures, key)


def show_figure(figure: go.Figure, key: str) -> None:
    """One figure below its title, which wraps here; its camera button saves it under that name."""
    heading: Any = figure.layout["title"]
    title, subtitle = html.unescape(heading.text or ""), html.unescape(heading.subtitle.text or "")
    st.markdown(f"**{literal(title)}**" + (f"  \n:small[{literal(subtitle)}]" if subtitle else ""))
    theme = st.context.theme.type or "light"
    shown = _SHOWN.get(figure, theme, lambda: _themed(figure, theme))
    options = {"format": st.session_state.get(FORMAT, "PNG").lower(), "filename": _file(title), "scale": 2}
    config = {"displaylogo": False, "toImageButtonOptions": options, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
    st.plotly_chart(shown, theme=None, key=key, config=config, alt=title)


def _themed(figure: go.Figure, theme: str) -> go.Figure:
    """A copy without its title, which the page has."""
    margin: Any = figure.layout["margin"]
    return go.Figure(figure).update_layout(font_color=INK[theme], title=None, margin_t=min(24, margin.t or 24))


def _downloads(figures: Sequence[go.Figure], key: str) -> None:
    with st.popover("Download", icon=":material/download:"):
        st.download_button(
            "Numbers (CSV)", lambda: figures_csv(figures).encode(), f"{_file(key)}.csv", "text/csv", key=f"{key}-csv"
        )
        st.download_button(
            "Figures (JSON)",
            lambda: json.dumps([json.loads(str(figure.to_json())) for figure in figures]).encode(),
            f"{_file(key)}.json",
            "application/json",
            key=f"{key}-json",
        )


def _file(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-").lower()[:60] or "figure"
