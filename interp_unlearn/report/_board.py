"""One run as one row of a list of runs: how much it forgot, what else it lost, its verdict and its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_unlearn._core import Labelled
from interp_unlearn.report._cells import HELDOUT_SETS, TRAIN_SETS
from interp_unlearn.report._compare import compare, group_key
from interp_unlearn.report._read import RunView, read_run
from interp_unlearn.report._side_effects import side_effects
from interp_unlearn.report._verdict import verdict_of
from interp_unlearn.report.plots import set_words

ROW_TABLES = ("behaviour.", "behaviour_change.", "text_loss")
"""Beginnings of the names of the tables behind a row."""
TARGET_SETS = (*HELDOUT_SETS, *TRAIN_SETS)
KEPT_SETS = ("neighbours", "retain", "retain_train", "same_answer")
METRIC = "exact"


@dataclass(frozen=True)
class BoardRow:
    """What a list of runs says of one run. Numbers that were not saved are NaN.

    Attributes:
        name: The run's name.
        model: Of the original.
        world: Of the target.
        target: What was to be forgotten.
        seed: As text.
        state: ``"done"``, ``"running"``, ``"failed"``, ``"stopped"``, or empty where nothing says.
        message: Why it stopped or failed.
        forgetting: Share of the target's questions that are not answered any more.
        forgetting_before: The same of the original.
        forgetting_gold: The same of gold.
        retention: Share of questions that must survive which are still answered.
        retention_before: The same of the original.
        retention_gold: The same of gold.
        asked: Which set the target's questions are, in words.
        kept: Which set must survive, in words.
        side_effect: Size of the largest side effect.
        side_effect_of: Which it is, in words.
        verdict: In a word, or empty.
        probability: Of the verdict.
        seconds: Time of training.
        version: Of the library that wrote the run.
        problems: Files that cannot be read.
        group: Equal for runs that `compare` puts side by side.
    """

    name: str
    model: str
    world: str
    target: str
    seed: str
    state: str
    message: str
    forgetting: float
    forgetting_before: float
    forgetting_gold: float
    retention: float
    retention_before: float
    retention_gold: float
    asked: str
    kept: str
    side_effect: float
    side_effect_of: str
    verdict: str
    probability: float
    seconds: float
    version: str
    problems: tuple[str, ...]
    group: str


def read_board_row(folder: str | Path) -> BoardRow:
    """Read no more of a run folder than its row needs.

    Raises:
        FileFormatError: If it is not a run folder.
    """
    return board_row(read_run(folder, only=ROW_TABLES))


def board_row(run: RunView) -> BoardRow:
    """The row of one run."""
    where = compare([run])[0]
    target = ", ".join(where.target) or "unnamed"
    behaviour = {phase: run.tables.get(f"behaviour.{phase}") for phase in ("before", "after", "gold")}
    asked, kept = (_first(behaviour["after"] or behaviour["before"], sets) for sets in (TARGET_SETS, KEPT_SETS))
    answered = {phase: _share(table, asked) for phase, table in behaviour.items()}
    survived = {phase: _share(table, kept) for phase, table in behaviour.items()}
    losses, verdict = side_effects(run), verdict_of(run)
    return BoardRow(
        name=run.name,
        model=where.model,
        world=where.world,
        target=f"{target} ({', '.join(where.relations)})" if where.relations else target,
        seed=str(where.seed),
        state=str(run.status.get("state") or ""),
        message=str(run.status.get("message") or ""),
        forgetting=1 - answered["after"],
        forgetting_before=1 - answered["before"],
        forgetting_gold=1 - answered["gold"],
        retention=survived["after"],
        retention_before=survived["before"],
        retention_gold=survived["gold"],
        asked=set_words(asked) if asked else "",
        kept=set_words(kept) if kept else "",
        side_effect=losses[0].size if losses else math.nan,
        side_effect_of=losses[0].what if losses else "",
        verdict=verdict.label,
        probability=verdict.probability,
        seconds=_seconds(run.status),
        version=str(run.config.get("version") or ""),
        problems=run.problems,
        group=group_key(run.config),
    )


def _first(table: Labelled | None, sets: tuple[str, ...]) -> str:
    """The first of ``sets`` that was measured, or nothing."""
    own = next((axis.labels for axis in table.axes if axis.name == "set"), ()) if table is not None else ()
    return next((name for name in sets if name in own), "")


def _share(table: Labelled | None, name: str) -> float:
    axes = {axis.name: axis.labels for axis in table.axes} if table is not None else {}
    if table is None or set(axes) != {"set", "metric"} or name not in axes["set"] or METRIC not in axes["metric"]:
        return math.nan
    return float(table.at(set=name, metric=METRIC))


def _seconds(status: Mapping[str, Any]) -> float:
    spent = status.get("seconds")
    value = spent.get("train") if isinstance(spent, Mapping) else spent
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
