"""One run, or several on one target: the verdict, what it rests on, training, and evidence one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.draw import show_figure, show_figures
from explorer.kept import Kept
from explorer.looks import show_views
from explorer.picks import choose, pick
from explorer.words import literal, number, percent
from interp_unlearn.report import (
    BoardRow,
    Comparison,
    EvidenceCard,
    RunView,
    as_text,
    board_row,
    evidence_card,
    evidence_kinds,
    report_json,
    verdict_of,
    views_of,
)

_CARDS: Kept[EvidenceCard] = Kept(100)


def show(root: Path) -> None:
    """Show the page."""
    comparison = pick(root)
    st.subheader(literal(comparison.title))
    for name, run in comparison.runs.items():
        _verdict(run, name if len(comparison.runs) > 1 else "")
    _numbers({name: board_row(run) for name, run in comparison.runs.items()})
    st.header("Answers and training")
    views = views_of(comparison, "run")
    if not views:
        st.info("Nothing was saved yet: neither answers nor a step of training.")
    show_views(comparison, views, "run")
    _evidence(comparison)
    _files(comparison)


def _verdict(run: RunView, name: str) -> None:
    view = verdict_of(run)
    who = f"**{literal(name)}**: " if name else ""
    if view.missing:
        st.info(f"{who}{literal(view.missing[:1].upper() + view.missing[1:])}.")
        return
    chance = "" if math.isnan(view.probability) else f" (probability {view.probability:.2f})"
    st.success(f"{who}**{literal(view.label)}**{chance}. {literal(view.sentence)}", icon=":material/gavel:")
    with st.expander(f"What the verdict {f'on {literal(name)} ' if name else ''}rests on"):
        for heading, lines in (
            ("Decided by", view.decided_by),
            ("Side effects", view.side_effects),
            ("Not tested", view.not_tested),
            ("Attacks", (view.attacks,) if view.attacks else ()),
            ("Calibration", (view.calibration,) if view.calibration else ()),
        ):
            if lines:
                st.markdown(f"**{heading}**\n" + "\n".join(f"- {literal(line)}" for line in lines))


def _numbers(rows: Mapping[str, BoardRow]) -> None:
    for name, row in rows.items():
        if len(rows) > 1:
            st.markdown(f"**{literal(name)}**")
        one, two, three, four = st.columns(4)
        one.metric("Forgetting", percent(row.forgetting), help="share of the target not answered right any more")
        one.caption(f"gold {percent(row.forgetting_gold)}, original {percent(row.forgetting_before)}")
        two.metric("Retention", percent(row.retention), help="share of what must survive that is still answered right")
        two.caption(f"gold {percent(row.retention_gold)}, original {percent(row.retention_before)}")
        three.metric("Largest side effect", percent(row.side_effect))
        three.caption(literal(row.side_effect_of or "none was measured"))
        four.metric("Training", f"{number(row.seconds, 1)} s")
        four.caption(f"seed {literal(row.seed)}")


def _evidence(comparison: Comparison) -> None:
    st.header("Evidence, one by one")
    kinds = evidence_kinds(comparison)
    if not kinds:
        st.info("No evidence was saved yet. Add it to a finished run: interp-unlearn evidence RUN")
        return
    kind = choose("evidence", f"Evidence ({len(kinds)})", kinds)
    _card(_CARDS.get(comparison, kind, lambda: evidence_card(comparison, kind)))


def _card(card: EvidenceCard) -> None:
    st.subheader(literal(card.question))
    control = f" Control: {literal(card.control)}." if card.control else ""
    st.caption(f"{literal(card.direction)}{control}")
    if card.figure is not None:
        show_figure(card.figure, f"evidence-{card.kind}")
    else:
        st.info("It has no value: " + literal("; ".join(sorted({row.reason for row in card.rows}))))
    columns = ("method", "where", "value", "interval", "control", "original", "gold", "n", "reason")
    table = pd.DataFrame([{c: getattr(row, c) for c in columns} for row in card.rows])
    empty = [c for c in columns if not table[c].astype(str).str.strip("–").any()]
    st.dataframe(table.drop(columns=empty), hide_index=True)
    st.markdown(f"**What it does not show:** {literal(card.does_not_show.rstrip('.'))}.")
    if card.details:
        with st.expander(f"Behind the numbers ({len(card.details)})"):
            show_figures(card.details, f"details-{card.kind}")


def _files(comparison: Comparison) -> None:
    st.header("Files")
    for name, run in comparison.runs.items():
        with st.expander(f"Settings of {literal(name)}"):
            st.code(json.dumps(dict(run.config), indent=1, ensure_ascii=False, default=str), language="json")
    left, right = st.columns(2)
    with left:
        st.download_button(
            "Report (JSON)",
            lambda: as_text(report_json([run.path for run in comparison.runs.values()])).encode(),
            "report.json",
            "application/json",
            icon=":material/download:",
        )
    first = next(iter(comparison.runs.values()))
    page = first.path / "report.html"
    if page.is_file():
        with right:
            st.download_button("Report (HTML)", page.read_bytes, "report.html", "text/html", icon=":material/download:")
