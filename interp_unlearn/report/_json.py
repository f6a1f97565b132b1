"""`report_json`: what a report says, as one JSON value with a published schema, so that an audit can be scripted.

The schema is ``report.schema.json`` in this package (`schema`) and below ``docs/schema``. Numbers that are missing are
null, with a reason beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from interp_unlearn._core import Evidence, Labelled, __version__
from interp_unlearn.report._checked import mapping
from interp_unlearn.report._compare import Comparison, compare
from interp_unlearn.report._evidence import PARITY
from interp_unlearn.report._find import read_runs
from interp_unlearn.report._html import write_page
from interp_unlearn.report._kinds import group_of
from interp_unlearn.report._read import RunView
from interp_unlearn.report._untested import untested
from interp_unlearn.report._verdict import VerdictView, verdict_of

SCHEMA_VERSION = 1
PHASES = ("before", "after", "gold")


def schema() -> dict[str, Any]:
    """The JSON Schema of `report_json`."""
    text = (files("interp_unlearn.report") / "schema" / "report.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


def report_json(run_folders: Sequence[str | Path]) -> dict[str, Any]:
    """The verdict, side effects, behaviour and evidence of run folders, from saved files alone.

    Raises:
        FileFormatError: If none of the folders can be read.
    """
    runs, refused = read_runs(run_folders)
    return {
        "kind": "report",
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "comparisons": [_comparison(c) for c in compare(runs)],
        "refused": list(refused),
    }


def write_json_report(run_folders: Sequence[str | Path], out: Path) -> Path:
    """Write `report_json` to a file, or to ``report.json`` in a folder; returns its path."""
    path = Path(out) / "report.json" if Path(out).is_dir() else Path(out)
    write_page(path, as_text(report_json(run_folders)))
    return path


def as_text(report: Mapping[str, Any]) -> str:
    """A report as JSON text."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.title,
        "model": comparison.model,
        "world": comparison.world,
        "target": list(comparison.target),
        "relations": list(comparison.relations),
        "seed": comparison.seed if isinstance(comparison.seed, int) else None,
        "runs": [_run(comparison, name, run) for name, run in comparison.runs.items()],
        "not_tested": list(untested(comparison)),
    }


def _run(comparison: Comparison, name: str, run: RunView) -> dict[str, Any]:
    verdict = verdict_of(run, name)
    edited = mapping(run.config.get("model")).get("edited")
    return {
        "name": name,
        "folder": str(run.path),
        "state": str(run.status.get("state", "unknown")),
        "external": edited is not None,
        "edited": str(edited) if edited is not None else None,
        "problems": list(run.problems),
        "verdict": None if verdict.missing else _verdict(verdict),
        "verdict_missing": verdict.missing or None,
        "side_effects": [
            {
                **asdict(e),
                **{k: _number(getattr(e, k)) for k in ("before", "after", "size")},
                "interval": _pair(e.interval),
            }
            for e in verdict.losses
        ],
        "behaviour": _behaviour(comparison, name),
        "evidence": [
            _evidence(comparison, item)
            for item in run.evidence.values()
            if item.name.partition("/")[0].split(".")[0] != PARITY
        ],
        "seconds": {str(k): _number(v) for k, v in mapping(run.status.get("seconds")).items()},
    }


def _verdict(verdict: VerdictView) -> dict[str, Any]:
    return {
        "label": verdict.label,
        "probability": _number(verdict.probability),
        "sentence": verdict.sentence,
        "probabilities": dict(verdict.probabilities),
        "decided_by": list(verdict.decided_by),
        "side_effects": list(verdict.side_effects),
        "not_tested": list(verdict.not_tested),
        "calibration": verdict.calibration,
        "attacks": verdict.attacks,
    }


def _behaviour(comparison: Comparison, method: str) -> dict[str, dict[str, dict[str, float | None]]]:
    """Question set to metric to phase to mean."""
    tables = {phase: comparison.table("behaviour", phase, method) for phase in PHASES}
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for phase, table in tables.items():
        axes = {a.name: a.labels for a in table.axes} if table is not None else {}
        if not isinstance(table, Labelled) or set(axes) != {"set", "metric"}:
            continue
        for name in axes["set"]:
            for metric in axes["metric"]:
                value = _number(float(table.at(set=name, metric=metric)))
                out.setdefault(name, {}).setdefault(metric, dict.fromkeys(PHASES))[phase] = value
    return out


def _evidence(comparison: Comparison, item: Evidence) -> dict[str, Any]:
    return {
        "name": item.name,
        "group": group_of(comparison, item.name.partition("/")[0]),
        "question": item.question,
        "direction": item.direction,
        "value": _number(item.value),
        "interval": _pair(item.interval),
        "control": _number(item.control),
        "control_name": item.control_name,
        "original": _number(item.config.get("before")),
        "gold": _number(item.config.get("gold")),
        "p_value": _number(item.config.get("p_value")),
        "n": item.n,
        "mask_policy": item.mask_policy,
        "does_not_show": item.does_not_show,
        "reason": item.reason or ("no reason was saved" if math.isnan(item.value) else None),
        "seed": item.seed,
        "version": item.version,
    }


def _number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _pair(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval[0]), _number(interval[1])]
