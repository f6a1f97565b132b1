"""Evidence one by one: what was asked, what came out beside its control, and what it does not show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from interp_unlearn._core import Evidence
from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._details import by_model, detail_figures, figures
from interp_unlearn.report._kinds import GROUPS, group_of, part_of, tables_of

PARITY = "parity"
DIRECTIONS = {
    "low": "Forgotten looks low.",
    "high": "Forgotten looks high.",
    "near control": "Forgotten looks like its control: neither below nor above.",
}


@dataclass(frozen=True)
class EvidenceRow:
    """One evidence of one method, as text."""

    method: str
    where: str
    value: str
    interval: str
    p: str
    control: str
    original: str
    gold: str
    n: int
    mask_policy: str
    reason: str
    settings: str


@dataclass(frozen=True)
class EvidenceCard:
    """One kind of evidence over methods and places.

    Attributes:
        kind: Stable identifier, e.g. ``"alignment.t"``.
        question: What it asks.
        direction: What forgotten looks like.
        control: What the control is.
        does_not_show: What must not be concluded.
        rows: One per place and method.
        figure: The values as a picture, or None where there is no value.
        details: Pictures of the arrays behind them that no other section shows.
    """

    kind: str
    question: str
    direction: str
    control: str
    does_not_show: str
    rows: tuple[EvidenceRow, ...]
    figure: go.Figure | None
    details: tuple[go.Figure, ...] = ()


@dataclass(frozen=True)
class EvidenceGroup:
    """Evidence of one group: behaviour, probes or attacks.

    Attributes:
        name: ``"behaviour"``, ``"probe"`` or ``"attack"``.
        title: Heading.
        text: What the group is.
        curves: Part of the evidence, in words, with the pictures of the tables it saved.
        cards: One for each kind of evidence.
    """

    name: str
    title: str
    text: str
    curves: tuple[tuple[str, tuple[go.Figure, ...]], ...]
    cards: tuple[EvidenceCard, ...]


def evidence_groups(comparison: Comparison) -> tuple[EvidenceGroup, ...]:
    """The cards in their groups, with the curves that registered parts saved; empty groups are left out."""
    cards: dict[str, list[EvidenceCard]] = {name: [] for name in GROUPS}
    for card in evidence_cards(comparison):
        cards[group_of(comparison, card.kind)].append(card)
    curves: dict[str, dict[str, list[go.Figure]]] = {name: {} for name in GROUPS}
    for part, facts, table in tables_of(comparison):
        drawn = figures(by_model(comparison.per_method(table), comparison.methods), table, comparison.methods)
        if drawn and facts.get("kind") in GROUPS:
            what = str(facts.get("what") or part)
            curves[str(facts["kind"])].setdefault(what[:1].upper() + what[1:], []).extend(drawn)
    return tuple(
        EvidenceGroup(name, title, text, tuple((w, tuple(d)) for w, d in curves[name].items()), tuple(cards[name]))
        for name, (title, text) in GROUPS.items()
        if cards[name] or curves[name]
    )


def evidence_cards(comparison: Comparison) -> tuple[EvidenceCard, ...]:
    """A card for each kind of evidence that any run saved, in reporting order."""
    return tuple(evidence_card(comparison, kind) for kind in evidence_kinds(comparison))


def evidence_kinds(comparison: Comparison) -> tuple[str, ...]:
    """Kinds of evidence that any run saved, in reporting order; the parity check is none of them."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in comparison.names("evidence"))
    order = {kind: i for i, kind in enumerate(ORDER)}
    return tuple(
        sorted(
            (kind for kind in kinds if kind.split(".")[0] != PARITY),
            key=lambda kind: order.get(kind, order.get(kind.split(".")[0], len(order))),
        )
    )


def evidence_card(comparison: Comparison, kind: str) -> EvidenceCard:
    """One kind of evidence that a run saved, over methods and places."""
    names = [name for name in comparison.names("evidence") if name.partition("/")[0] == kind]
    return _card(kind, {name.partition("/")[2]: comparison.evidence(name) for name in names}, comparison)


ORDER = (
    "alignment.t",
    "alignment.r",
    "alignment.ratio",
    "alignment.layers_t",
    "alignment.layers_r",
    "two_sample",
    "firing",
    "probe",
    "lens",
    "relearn",
    "alignment.separation",
    "sae",
    "norm",
)
"""Kinds or families of evidence in reporting order; others follow."""


def parity(comparison: Comparison) -> dict[str, Evidence]:
    """The parity check of each run: wrapped against bare logits."""
    found = {}
    for method, run in comparison.runs.items():
        for name, item in run.evidence.items():
            if name.partition("/")[0].split(".")[0] == PARITY:
                found[method] = item
    return found


def number(value: float | None) -> str:
    """A number as text, an en dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:.3f}" if 0.01 <= size < 1000 or value == 0 else f"{value:.3g}"
    return text.replace("-", "−")


def _card(kind: str, places: Mapping[str, Mapping[str, Evidence]], comparison: Comparison) -> EvidenceCard:
    items = [item for by_method in places.values() for item in by_method.values()]
    first = next((item for item in items if not math.isnan(item.value)), items[0])
    rows = [_row(method, where, item) for where, by_method in places.items() for method, item in by_method.items()]
    has_value = any(not math.isnan(item.value) for item in items)
    return EvidenceCard(
        kind=kind,
        question=first.question,
        direction=DIRECTIONS.get(first.direction, first.direction),
        control=first.control_name,
        does_not_show=first.does_not_show,
        rows=tuple(rows),
        figure=plots.evidence_dots(places, methods=comparison.methods, title=kind) if has_value else None,
        details=_details(kind, places, comparison),
    )


def _details(kind: str, places: Mapping[str, Mapping[str, Evidence]], comparison: Comparison) -> tuple[go.Figure, ...]:
    """Pictures of the arrays behind evidence of registered parts; the other kinds have theirs in other sections."""
    if part_of(comparison, kind) is None:
        return ()
    names = [next(iter(by_method.values())).name for by_method in places.values() if by_method]
    return tuple(figure for name in names for figure in detail_figures(comparison, name))


def _row(method: str, where: str, item: Evidence) -> EvidenceRow:
    return EvidenceRow(
        method=method,
        where=where,
        value=number(item.value),
        interval=f"{number(item.interval[0])} to {number(item.interval[1])}" if item.interval else "",
        p=_p_value(item),
        control=number(item.control),
        original=number(_config_number(item, "before")),
        gold=number(_config_number(item, "gold")),
        n=item.n,
        mask_policy=item.mask_policy,
        reason=(item.reason or "no value, and no reason was saved") if math.isnan(item.value) else "",
        settings=json.dumps(
            {**item.config, "seed": item.seed, "version": item.version}, ensure_ascii=False, default=str
        ),
    )


def _p_value(item: Evidence) -> str:
    value = _config_number(item, "p_value")
    return "" if value is None or math.isnan(value) else f"{value:.2g}"


def _config_number(item: Evidence, key: str) -> float | None:
    value = item.config.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
