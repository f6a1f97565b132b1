"""The table of methods: one row per model, one column per question, each cell with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from interp_unlearn.report._cells import (
    HELDOUT_SETS,
    TRAIN_SETS,
    Cell,
    behaviour_cell,
    cost_cell,
    evidence_cell,
    relearning_cell,
    seconds_cell,
    text_loss_cell,
)
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison
from interp_unlearn.report.plots import styles

MARKERS = {
    "circle": "●",
    "circle-open": "○",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "x": "✖",
    "triangle-down": "▼",
    "pentagon": "⬟",
    "star": "★",
}


@dataclass(frozen=True)
class Column:
    """One question.

    Attributes:
        group: Heading shared with its neighbours.
        label: Heading of the column.
        forgotten: What a forgotten target, or an unharmed model, looks like.
        cell: Makes the cell of one row.
        ranked: Whether nearness to gold is marked.
        optional: Whether the column is left out where no row has a number.
        wide: Whether the column is for tables of many runs only.
    """

    group: str
    label: str
    forgotten: str
    cell: Callable[[Comparison, str], Cell]
    ranked: bool = True
    optional: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """One model: the original, a method, or gold."""

    name: str
    kind: str
    colour: str
    marker: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Headline:
    """The whole table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    gold_missing: str

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Heading groups with their widths."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return tuple(found)


def headline(comparison: Comparison, *, wide: bool = False) -> Headline:
    """Build the table of one comparison from saved results.

    The only arithmetic is the relative change of the text loss where no saved table has it, and the distance to gold
    that decides which cell is marked.

    Args:
        comparison: Runs side by side.
        wide: Also the columns that are for tables of many runs.
    """
    asked = [c for c in COLUMNS if wide or not c.wide]
    rows = {who: [column.cell(comparison, who) for column in asked] for who in (ORIGINAL, *comparison.methods, GOLD)}
    kept = [i for i, c in enumerate(asked) if not c.optional or any(not cells[i].missing for cells in rows.values())]
    columns = tuple(asked[i] for i in kept)
    rows = {who: [cells[i] for i in kept] for who, cells in rows.items()}
    has_gold = any(not cell.missing for cell in rows[GOLD])
    if has_gold:
        for i, column in enumerate(columns):
            if column.ranked and not rows[GOLD][i].missing:
                _mark_best(rows, comparison.methods, i)
    looks = styles(list(rows), comparison.methods)
    return Headline(
        columns,
        tuple(
            Row(
                who,
                "method" if who in comparison.methods else "reference",
                looks[who].colour,
                MARKERS.get(looks[who].symbol, "●"),
                tuple(cells),
            )
            for who, cells in rows.items()
            if who != GOLD or has_gold
        ),
        ""
        if has_gold
        else "No run here has a gold model (retrained without the target), so no cell is marked as nearest to it.",
    )


def _mark_best(rows: dict[str, list[Cell]], methods: tuple[str, ...], i: int) -> None:
    gold = rows[GOLD][i].value
    gaps = {m: abs(rows[m][i].value - gold) for m in methods if not rows[m][i].missing}
    if len(gaps) < 2:
        return
    for method in nearest(gaps):
        rows[method][i] = replace(rows[method][i], best=True)


def nearest(gaps: Mapping[str, float]) -> list[str]:
    """Methods with the smallest distance to gold; none where all are equally far, or fewer than two have a distance."""
    known = {method: gap for method, gap in gaps.items() if not math.isnan(gap)}
    if len(known) < 2:
        return []
    least, most = min(known.values()), max(known.values())
    return [method for method, gap in known.items() if gap <= least + 1e-9 < most]


LOW = "low, as in gold"
KEPT = "as in the original"
UNKNOWN = "near that of unknown entities"
PROCESSOR = "processor time of training, all threads"
MEMORY = "resident memory at its highest while training, above that before it"
COLUMNS = (
    Column("Target, trained on", "exact", LOW, behaviour_cell(TRAIN_SETS, "exact")),
    Column("Target, trained on", "choice", "at chance, as in gold", behaviour_cell(TRAIN_SETS, "choice")),
    Column("Target, trained on", "prob.", LOW, behaviour_cell(TRAIN_SETS, "probability")),
    Column("Target, held out", "exact", LOW, behaviour_cell(HELDOUT_SETS, "exact"), optional=True),
    Column(
        "Target, held out",
        "choice",
        "at chance, as in gold",
        behaviour_cell(HELDOUT_SETS, "choice"),
        optional=True,
    ),
    Column("Target, held out", "prob.", LOW, behaviour_cell(HELDOUT_SETS, "probability"), optional=True),
    Column(
        "Exact on other sets",
        "multi-hop",
        LOW,
        behaviour_cell(("multi_hop",), "exact", others=("choice", "probability")),
        optional=True,
    ),
    Column(
        "Exact on other sets",
        "backwards",
        LOW,
        behaviour_cell(("backwards",), "exact", others=("choice", "probability")),
        optional=True,
    ),
    Column(
        "Exact on other sets",
        "its other facts",
        KEPT,
        behaviour_cell(("own_other",), "exact", others=("choice", "probability")),
        optional=True,
    ),
    Column(
        "Exact on other sets",
        "neighbours",
        KEPT,
        behaviour_cell(("neighbours",), "exact", others=("choice", "probability")),
    ),
    Column(
        "Exact on other sets",
        "same answer",
        KEPT,
        behaviour_cell(("same_answer",), "exact", others=("choice", "probability")),
        optional=True,
    ),
    Column("Class in its settings", "forget acc.", LOW, evidence_cell(("bias.forget/test",)), optional=True),
    Column("Class in its settings", "gap", LOW, evidence_cell(("bias.gap/test",)), optional=True),
    Column("Class in its settings", "worst group", LOW, evidence_cell(("bias.worst/test",)), optional=True),
    Column(
        "Class in its settings",
        "conflicting rose by",
        "0 or below",
        evidence_cell(("bias.shortcut/test",)),
        optional=True,
    ),
    Column("Linear probes", "class", "as in gold", evidence_cell(("class_probe",)), optional=True),
    Column("Linear probes", "setting", "as in gold", evidence_cell(("bias_probe",)), optional=True),
    Column("Text", "loss change", "0", text_loss_cell, optional=True),
    Column("Deletion", "utility", "as in gold", evidence_cell(("graph.utility",), 3), optional=True),
    Column("Deletion", "AUC of deleted", "as in gold", evidence_cell(("graph.deleted_auc",), 3), optional=True),
    Column("Deletion", "membership", "as in gold", evidence_cell(("graph.membership",), 3), optional=True),
    Column(
        "Alignment",
        "t / unknown",
        UNKNOWN,
        evidence_cell(("alignment.t/residual", "alignment.t"), with_control=True),
    ),
    Column("Alignment", "r", "as for unknown entities", evidence_cell(("alignment.r/residual", "alignment.r"))),
    Column(
        "Alignment in the SAE",
        "t / unknown",
        UNKNOWN,
        evidence_cell(("alignment.t/sae",), with_control=True),
        optional=True,
        wide=True,
    ),
    Column(
        "Alignment in the second SAE",
        "t / unknown",
        UNKNOWN,
        evidence_cell(("alignment.t/sae2",), with_control=True),
        optional=True,
        wide=True,
    ),
    Column(
        "Two-sample",
        "AUC / floor",
        "at its floor",
        evidence_cell(("two_sample.auc", "two_sample.auc_set"), with_control=True),
    ),
    Column(
        "Two-sample",
        "energy distance / unknown",
        "as between unknown entities",
        evidence_cell(("two_sample.energy/residual",), with_control=True),
        wide=True,
        optional=True,
    ),
    Column("Relearned", "level / control", "at its control", relearning_cell),
    Column("Cost", "train, s", "", seconds_cell, ranked=False),
    Column("Cost", "train, CPU s", "", cost_cell("cpu_seconds", PROCESSOR), ranked=False, optional=True, wide=True),
    Column("Cost", "train, peak MB", "", cost_cell("peak_mb", MEMORY), ranked=False, optional=True, wide=True),
)
