"""Which evidence is behaviour, which is a probe, which an attack: as the run's ``parts.json`` says, else by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interp_unlearn.report._compare import Comparison

GROUPS: Mapping[str, tuple[str, str]] = {
    "behaviour": ("What it answers", "Measured on answers: what a user of the model would see."),
    "probe": ("What it holds inside", "Measured on activations and weights: what answers may not show."),
    "attack": (
        "What brings it back",
        "Attempts to bring the target back, each beside the same attempt where nothing was ever known. They are never "
        "used to predict the verdict.",
    ),
}
ATTACKS = ("relearn",)
"""Attacks of runs that saved no ``parts.json``, by the beginning of their names."""
BEHAVIOUR = ("behaviour",)


def parts_of(comparison: Comparison) -> dict[str, Mapping[str, Any]]:
    """What is known of the registered parts, by name; of several runs the one that ran it counts."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in comparison.runs.values():
        for name, facts in run.parts.items():
            if name not in found or "evidence" in facts:
                found[name] = facts
    return found


def group_of(comparison: Comparison, kind: str) -> str:
    """``"behaviour"``, ``"probe"`` or ``"attack"`` for a kind of evidence."""
    facts = part_of(comparison, kind)
    if facts is not None and facts.get("kind") in GROUPS:
        return str(facts["kind"])
    start = kind.split(".")[0]
    return "attack" if start in ATTACKS else "behaviour" if start in BEHAVIOUR else "probe"


def part_of(comparison: Comparison, kind: str) -> Mapping[str, Any] | None:
    """Facts of the registered part that made a kind of evidence, or None."""
    for facts in parts_of(comparison).values():
        if any(str(name).partition("/")[0] == kind for name in _listed(facts, "evidence")):
            return facts
    return None


def tables_of(comparison: Comparison) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(name of the part, its facts, name of the table) of each table that a registered part saved."""
    seen: set[str] = set()
    for run in comparison.runs.values():
        for name, facts in run.parts.items():
            for table in _listed(facts, "tables"):
                if table not in seen:
                    seen.add(table)
                    yield name, facts, table


def not_run(comparison: Comparison) -> list[tuple[str, Mapping[str, Any]]]:
    """Registered parts that no run here ran."""
    return [(name, facts) for name, facts in parts_of(comparison).items() if "evidence" not in facts]


def _listed(facts: Mapping[str, Any], key: str) -> Iterable[str]:
    value = facts.get(key)
    return [str(v) for v in value] if isinstance(value, list) else []
