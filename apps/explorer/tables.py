"""Every table that a run saved, also those that no page draws: to look at, and to take away."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.draw import show_figures
from explorer.picks import choose, pick
from explorer.words import literal
from interp_unlearn._core import Labelled
from interp_unlearn.report import plots

LIMIT = 20_000


def show(root: Path) -> None:
    """Show the page."""
    st.caption("Everything the run saved as a table, with its facts.")
    run = next(iter(pick(root).runs.values()))
    if not run.tables:
        st.info("This run saved no table yet.")
        return
    names = list(run.tables)
    table = run.tables[choose("table", "Table", names)]
    axes = ", ".join(f"{axis.name} ({len(axis.labels)})" for axis in table.axes) or "none: one number"
    st.caption(literal(f"{table.name}. Axes: {axes}. n = {table.n}. Tokens: {table.mask_policy}. {table.note}"))
    part = _slice(table)
    if part.values.size and 1 <= len(part.axes) <= plots.MAX_DIMENSIONS and part.values.size <= LIMIT:
        show_figures([plots.generic(part)], f"table-{run.name}")
    st.dataframe(frame(part), hide_index=True, height=320)
    st.download_button(
        "Whole table (JSON)",
        lambda: json.dumps(table.to_json()).encode(),
        "table.json",
        "application/json",
        icon=":material/download:",
    )
    with st.expander("Settings"):
        st.code(json.dumps(dict(table.config), indent=1, ensure_ascii=False, default=str)[:LIMIT], language="json")


def frame(table: Labelled) -> pd.DataFrame:
    """One row per number, a column for each axis."""
    if not table.axes:
        return pd.DataFrame({"value": [float(table.values)]})
    index = pd.MultiIndex.from_product([axis.labels for axis in table.axes], names=[axis.name for axis in table.axes])
    return pd.DataFrame({"value": table.values.reshape(-1)}, index=index).reset_index()


def _slice(table: Labelled) -> Labelled:
    """The part of a table of many axes that the reader has chosen: the last two axes stay."""
    while len(table.axes) > plots.MAX_DIMENSIONS:
        axis = table.axes[0]
        table = plots.pick(table, axis.name, choose(axis.name, axis.name.capitalize(), axis.labels, page="tables"))
    return table
