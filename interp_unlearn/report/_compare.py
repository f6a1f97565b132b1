"""Which runs belong side by side: those of the same model, world, target and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_unlearn._core import Evidence, Labelled
from interp_unlearn.report._checked import mapping
from interp_unlearn.report._read import RunView

ORIGINAL, GOLD = "original", "gold"


@dataclass(frozen=True)
class Comparison:
    """Runs on one target, methods side by side.

    Attributes:
        model: The model's name or path.
        world: The world's name.
        target: Names of the target's entities.
        relations: Relations to forget; none means the whole entity.
        seed: Seed of the runs.
        runs: The runs, by unique name, in the order given.
    """

    model: str
    world: str
    target: tuple[str, ...]
    relations: tuple[str, ...]
    seed: Any
    runs: Mapping[str, RunView]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(self.runs)

    @property
    def modality(self) -> str:
        """What the models read, as the runs' tasks say."""
        return next((str(run.task["modality"]) for run in self.runs.values() if "modality" in run.task), "language")

    @property
    def title(self) -> str:
        """What was forgotten, in a few words."""
        what = ", ".join(self.target[:3]) + (f" and {len(self.target) - 3} more" if len(self.target) > 3 else "")
        which = f" ({', '.join(self.relations)})" if self.relations else ""
        return f"Forgetting {what or 'an unnamed target'}{which} in {self.model}"

    def table(self, name: str, phase: str, method: str | None = None) -> Labelled | None:
        """Table ``<name>.<phase>`` of one method, or of the first run that has it."""
        runs = [self.runs[method]] if method else list(self.runs.values())
        return next((run.tables[f"{name}.{phase}"] for run in runs if f"{name}.{phase}" in run.tables), None)

    def by_model(self, name: str, *, original: str = ORIGINAL) -> dict[str, Labelled]:
        """Table ``name`` of the original, of each method after forgetting, and of gold, where saved."""
        found = {original: self.table(name, "before")}
        found |= {method: self.table(name, "after", method) for method in self.methods}
        found[GOLD] = self.table(name, "gold")
        return {who: table for who, table in found.items() if table is not None}

    def per_method(self, name: str) -> dict[str, Labelled]:
        """Table ``name`` (one that compares before with after) of each method, where saved."""
        return {method: run.tables[name] for method, run in self.runs.items() if name in run.tables}

    def evidence(self, name: str) -> dict[str, Evidence]:
        """One evidence of each method, where saved."""
        return {method: run.evidence[name] for method, run in self.runs.items() if name in run.evidence}

    def names(self, kind: str) -> tuple[str, ...]:
        """All names of saved ``"tables"`` or ``"evidence"``, each once, in file order."""
        return tuple(dict.fromkeys(name for run in self.runs.values() for name in getattr(run, kind)))

    def stems(self, prefix: str) -> tuple[str, ...]:
        """Table names that start with ``prefix``, without their phase."""
        phases = (".before", ".after", ".gold")
        found = (n.rsplit(".", 1)[0] for n in self.names("tables") if n.startswith(prefix) and n.endswith(phases))
        return tuple(dict.fromkeys(found))

    def doubts(self) -> tuple[str, ...]:
        """Reasons not to read the runs side by side without care."""
        tables = [run.tables["behaviour.before"] for run in self.runs.values() if "behaviour.before" in run.tables]
        same = all(t.values.shape == tables[0].values.shape and _close(t, tables[0]) for t in tables)
        if not same:
            return (
                "The runs do not agree on how the original model behaves, so their rows do not start from the same "
                "point; the row 'original' shows the first run's.",
            )
        return ()


def compare(runs: Iterable[RunView]) -> tuple[Comparison, ...]:
    """Group runs that share model, world, target, relations and seed, in order of appearance."""
    groups: dict[str, list[RunView]] = {}
    for run in runs:
        groups.setdefault(group_key(run.config), []).append(run)
    return tuple(_comparison(group) for group in groups.values())


def group_key(config: Mapping[str, Any], parts: Sequence[str] = ("model", "world", "target", "seed")) -> str:
    """Equal for runs that belong side by side.

    A field that is empty or off is the same as one that an older version did not write. Left out are the model that
    another tool edited, which takes the place of a recipe, and the folder of the world's data, which says where it
    lay and not what it was.

    Args:
        config: ``config.json`` of a run.
        parts: What must be shared.
    """
    left_out = {"model": "edited", "world": "data_dir"}
    key = {}
    for part in parts:
        value = config.get(part)
        if isinstance(value, Mapping):
            value = {k: v for k, v in value.items() if v and k != left_out.get(part)}
        key[part] = value
    return json.dumps(key, sort_keys=True, default=str)


def _comparison(runs: Sequence[RunView]) -> Comparison:
    first = runs[0]
    target = mapping(first.config.get("target"))
    saved = first.task.get("target_entities")
    names = (
        [str(e.get("name", e.get("id", "?"))) for e in saved if isinstance(e, dict)] if isinstance(saved, list) else []
    )
    model = mapping(first.config.get("model"))
    extra = " + ".join(str(model[k]) for k in ("adapter", "delta") if model.get(k))
    return Comparison(
        model=str(model.get("name", "an unnamed model")) + (f" + {extra}" if extra else ""),
        world=str(mapping(first.config.get("world")).get("name", "an unnamed world")),
        target=tuple(names or [str(e) for e in target.get("entities") or ()]),
        relations=tuple(str(r) for r in target.get("relations") or ()),
        seed=first.config.get("seed"),
        runs=_unique(runs),
    )


def _unique(runs: Sequence[RunView]) -> dict[str, RunView]:
    found: dict[str, RunView] = {}
    for run in runs:
        name = run.name if run.name not in (ORIGINAL, GOLD) else f"run {run.name}"
        if name in found:
            path = run.path.resolve()
            name = f"{name} ({path.name if path.name != run.name else f'{path.parent.name}/{path.name}'})"
        number = 2
        while name in found:
            name, number = f"{run.name} ({number})", number + 1
        found[name] = run
    return found


def _close(one: Labelled, other: Labelled) -> bool:
    return bool(np.allclose(one.values, other.values, atol=1e-6, equal_nan=True))
