"""`Findings`: what was measured on one run, as the verdict reads it: evidence and tables, whoever saved them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from interp_unlearn._core import Axis, Evidence, FileFormatError, InterpUnlearnError, Labelled, read_json

GOLD = "gold"
NEED_GOLD = ("mia.auc/reference", "mia.privleak", "mia.s_mia", "memorisation.forget_quality", "fisher.erasure")
"""Beginnings of the names of evidence whose value rests on gold wherever there is gold."""
NEVER_KNOWN = "never_known after"
"""Level of never-known entities in the edited model, among the levels that an evidence notes."""
TABLES = ("behaviour", "text_loss", "weights.", "diff.", "lens_forget.")
"""Beginnings of the names of the tables that the verdict reads."""


@dataclass(frozen=True)
class Findings:
    """What was measured on one run.

    Attributes:
        evidence: By name.
        tables: By name, e.g. ``"behaviour.after"``.
        problems: One sentence for each file that could not be read.
        parts: What is known of each registered part of the evidence: ``what``, ``kind``, ``evidence`` if it was run.
    """

    evidence: Mapping[str, Evidence]
    tables: Mapping[str, Labelled] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: Iterable[Evidence], tables: Mapping[str, Labelled] | None = None) -> Findings:
        """Findings in memory."""
        return cls({item.name: item for item in evidence}, dict(tables or {}))

    def matching(self, pattern: str) -> tuple[Evidence, ...]:
        """Evidence whose name fits an `fnmatch` pattern, by name; alternatives are separated by ``|``."""
        wanted = pattern.split("|")
        return tuple(self.evidence[n] for n in sorted(self.evidence) if any(fnmatchcase(n, p) for p in wanted))

    def at(self, table: str, **labels: str) -> float:
        """One number of a table, NaN where the table or a label does not exist."""
        found = self.tables.get(table)
        if found is None:
            return float("nan")
        axes = {axis.name: axis.labels for axis in found.axes}
        if set(labels) != set(axes) or any(label not in axes[name] for name, label in labels.items()):
            return float("nan")
        return float(found.at(**labels))


def read_findings(folder: str | Path) -> Findings:
    """Read what a run saved, forgiving: a broken file becomes one of ``problems``.

    Raises:
        FileFormatError: If ``folder`` is not a run folder.
    """
    path = Path(folder)
    if not (path / "config.json").exists():
        raise FileFormatError(
            f"{path} is not a run folder (it has no config.json); give one made by: interp-unlearn run"
        )
    evidence: dict[str, Evidence] = {}
    tables: dict[str, Labelled] = {}
    problems: list[str] = []
    for file in sorted((path / "evidence").glob("*.json")):
        try:
            item = Evidence.load(file)
            evidence[item.name] = item
        except (InterpUnlearnError, KeyError, TypeError, ValueError) as error:
            problems.append(f"evidence/{file.name} cannot be read ({error})")
    for file in sorted((path / "tables").glob("*.json")):
        if not file.name.startswith(TABLES):
            continue
        try:
            tables[file.stem] = Labelled.from_json(read_json(file))
        except (InterpUnlearnError, KeyError, TypeError, ValueError) as error:
            problems.append(f"tables/{file.name} cannot be read ({error})")
    return Findings(evidence, tables, tuple(problems), _parts(path / "parts.json", problems))


def _parts(file: Path, problems: list[str]) -> dict[str, Mapping[str, Any]]:
    if not file.exists():
        return {}
    try:
        data = read_json(file)
    except InterpUnlearnError as error:
        problems.append(f"{file.name} cannot be read ({error})")
        return {}
    parts = data.get("parts") if isinstance(data, Mapping) else None
    return {n: p for n, p in parts.items() if isinstance(p, Mapping)} if isinstance(parts, Mapping) else {}


def gold_free(findings: Findings) -> Findings:
    """``findings`` as a user without a gold model would have them; what predicts a verdict is read from these only.

    Tables of gold are left out, and gold's slice of every other table; so are settings about gold, and evidence whose
    value itself was computed with gold (named ``…/gold``, noted so in its settings, or one of `NEED_GOLD`). A control
    that is gold gives way to the never-known entities' level where the evidence notes it, else to none.
    """
    evidence = {n: _without_gold(e) for n, e in findings.evidence.items() if not _rests_on_gold(e)}
    tables = {n: _without_phase(t) for n, t in findings.tables.items() if GOLD not in n.split(".")}
    return Findings(evidence, tables, findings.problems, findings.parts)


def _rests_on_gold(item: Evidence) -> bool:
    parts = item.name.replace("/", ".").replace("_", ".").split(".")
    return GOLD in parts or item.name.startswith(NEED_GOLD) or item.config.get("reference") == GOLD


def _without_gold(item: Evidence) -> Evidence:
    control, control_name = item.control, item.control_name
    if GOLD in control_name.casefold():
        levels = item.config.get("levels")
        level = levels.get(NEVER_KNOWN) if isinstance(levels, Mapping) else None
        control = float(level) if isinstance(level, (int, float)) else None
        control_name = "never-known entities in the edited model" if control is not None else ""
    return replace(
        item,
        control=control,
        control_name=control_name,
        details={n: _without_phase(t) for n, t in item.details.items() if GOLD not in n.casefold()},
        config=_without_keys(item.config),
    )


def _without_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if GOLD not in str(k).casefold()}
    return {k: _without_keys(v) if isinstance(v, Mapping) else v for k, v in kept.items()}


def _without_phase(table: Labelled) -> Labelled:
    """The table without the labels that name gold, on any axis."""
    values, axes = table.values, []
    for number, axis in enumerate(table.axes):
        keep = [i for i, label in enumerate(axis.labels) if label.casefold() != GOLD]
        values = np.take(values, keep, axis=number)
        axes.append(Axis(axis.name, tuple(axis.labels[i] for i in keep)))
    return replace(table, values=values, axes=tuple(axes))
