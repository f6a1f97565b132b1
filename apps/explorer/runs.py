"""All runs: a list to filter and sort, forgetting against retention, and what to open or compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from explorer.draw import show_figures
from explorer.folder import Listed
from explorer.picks import RUN, WITH, listed_in
from explorer.words import literal, state_of
from interp_unlearn.report import BoardRow, plots

FILTERS = (("method", "name"), ("target", "target"), ("world", "world"), ("model", "model"))


def show(root: Path) -> None:
    """Show the page."""
    found = listed_in(root)
    rows = [(one, one.row) for one in found]
    readable = [row for _, row in rows if row is not None]
    done = sum(row.state == "done" for row in readable)
    st.caption(
        f"{len(found)} run{'' if len(found) == 1 else 's'}, {done} finished. Select rows to open or compare them."
    )
    shown = _filtered(rows)
    if not shown:
        st.info("No run fits these filters.")
        return
    chosen = _table(shown)
    _links(chosen)
    _scatter([row for _, row in shown if row is not None])
    broken = [one for one, row in shown if row is None]
    if broken:
        with st.expander(f"Cannot be read ({len(broken)})"):
            st.markdown("\n".join(f"- **{literal(one.id)}**: {literal(one.problem)}" for one in broken))


def _filtered(rows: Sequence[tuple[Listed, BoardRow | None]]) -> list[tuple[Listed, BoardRow | None]]:
    shown = list(rows)
    offered = {word: sorted({getattr(row, field) for _, row in rows if row}) for word, field in FILTERS}
    useful = [(word, field) for word, field in FILTERS if len(offered[word]) > 1]
    for column, (word, field) in zip(st.columns(max(1, len(useful))), useful, strict=False):
        with column:
            wanted = st.multiselect(
                word.capitalize(), offered[word], key=f"only-{word}", bind="query-params", placeholder="all"
            )
        if wanted:
            shown = [pair for pair in shown if pair[1] is not None and getattr(pair[1], field) in wanted]
    return shown


def _table(shown: Sequence[tuple[Listed, BoardRow | None]]) -> list[Listed]:
    """The list of runs; returns those that are selected in it."""
    frame = pd.DataFrame([_cells(one, row) for one, row in shown])
    share = st.column_config.NumberColumn(format="percent")
    event = st.dataframe(
        frame,
        hide_index=True,
        height=min(38 + 35 * len(frame), 458),
        selection_mode="multi-row",
        on_select="rerun",
        key="board",
        column_config=dict.fromkeys(("forgetting", "gold forgets", "retention", "side effect"), share)
        | {"training, s": st.column_config.NumberColumn(format="%.1f")},
        alt="List of runs",
    )
    picked = event["selection"]["rows"] if event else []
    return [shown[i][0] for i in picked if i < len(shown)]


def _cells(one: Listed, row: BoardRow | None) -> dict[str, object]:
    if row is None:
        return {"run": one.id, "state": state_of(row)}
    return {
        "run": one.id,
        "target": row.target,
        "verdict": row.verdict or "none",
        "forgetting": row.forgetting,
        "gold forgets": row.forgetting_gold,
        "retention": row.retention,
        "side effect": row.side_effect,
        "state": state_of(row),
        "training, s": row.seconds,
        "model": row.model,
        "world": row.world,
        "seed": row.seed,
    }


def _links(chosen: Sequence[Listed]) -> None:
    """Where to go with what is selected."""
    if not chosen:
        return
    first, rest = chosen[0], [one for one in chosen[1:] if one.group == chosen[0].group]
    if rest:
        label = f"Compare {len(rest) + 1} runs side by side"
        st.page_link(st.Page(_nowhere, url_path="run"), label=label, query_params=_query(first, rest))
    for one in chosen[:6]:
        st.page_link(st.Page(_nowhere, url_path="run"), label=f"Open {literal(one.id)}", query_params=_query(one, ()))
    if len(rest) + 1 < len(chosen):
        st.caption("Pictures side by side need runs of the same model, world, target and seed.")


def _query(first: Listed, rest: Sequence[Listed]) -> list[tuple[str, str]]:
    return [(RUN, first.id), *((WITH, one.id) for one in rest)]


def _nowhere() -> None:
    """Stands for a page whose path is all that a link needs."""


def _scatter(rows: Sequence[BoardRow]) -> None:
    asked = sorted({row.asked for row in rows if row.asked})
    kept = sorted({row.kept for row in rows if row.kept})
    if not asked:
        st.info("No run here has saved its answers yet, so there is no picture of forgetting against retention.")
        return
    show_figures([_figure(tuple(rows))], "board")
    st.caption(literal(f"Questions: {'; '.join(asked)}. Must survive: {'; '.join(kept) or 'nothing was asked'}."))


@lru_cache(maxsize=32)
def _figure(rows: tuple[BoardRow, ...]) -> go.Figure:
    """Each run as a point, with the original and gold of its target."""
    points: dict[str, list[plots.Point]] = {}
    references: dict[str, set[plots.Point]] = {"original": set(), "gold": set()}
    for row in rows:
        where = f"{row.target}, seed {row.seed}"
        points.setdefault(row.name, []).append((row.forgetting, row.retention, where))
        references["original"].add((row.forgetting_before, row.retention_before, where))
        references["gold"].add((row.forgetting_gold, row.retention_gold, where))
    return plots.forgetting_scatter({**points, **{who: list(found) for who, found in references.items()}})
