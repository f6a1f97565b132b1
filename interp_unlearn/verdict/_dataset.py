"""`Dataset`: the evidence and labels of many runs, as one table that can be saved as CSV and fitted again."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.verdict._features import FEATURES, Feature, vector
from interp_unlearn.verdict._findings import Findings
from interp_unlearn.verdict._gates import gates
from interp_unlearn.verdict._label import LABELS, LabelRules, label

INNER: tuple[str, ...] = ("forgotten", "hidden", "over-suppressed")
"""Labels that the second stage tells apart."""
GATES = ("broken", "kept", "wording")
FEATURE, GATE, PART = "feature.", "gate.", "label."


@dataclass(frozen=True)
class Dataset:
    """Runs × features, with labels and groups.

    Attributes:
        runs: Name of each run.
        features: Names of the features.
        values: (run, feature), NaN where missing.
        labels: Label of each run, empty where the rules could not decide.
        gates: (run, 3) probabilities of broken, kept and answered-in-other-wordings.
        groups: Group of each run by kind of group, at least ``method`` and ``target``.
        parts: Numbers that went into each label (recoverability, remaining …), by name.
    """

    runs: tuple[str, ...]
    features: tuple[str, ...]
    values: np.ndarray
    labels: tuple[str, ...]
    gates: np.ndarray
    groups: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.runs)
        sizes = {len(self.labels), len(self.values), len(self.gates), *(len(g) for g in self.groups.values())}
        if sizes != {n} or self.values.shape != (n, len(self.features)) or self.gates.shape != (n, len(GATES)):
            raise DataError(
                f"a data set of {n} runs needs as many labels, values, gates and groups; got {sorted(sizes)}"
            )
        wrong = sorted({name for name in self.labels if name and name not in LABELS})
        if wrong:
            raise DataError(f"unknown label {wrong[0]!r}; labels are {', '.join(LABELS)}")
        for kind in ("method", "target"):
            if kind not in self.groups:
                raise DataError(f"a data set needs the groups of kind {kind!r}, which keep the halves of a split apart")

    def __len__(self) -> int:
        return len(self.runs)

    def take(self, index: np.ndarray) -> Dataset:
        """The runs of ``index`` (integers or booleans)."""
        rows = np.arange(len(self))[index]
        pick = lambda items: tuple(items[i] for i in rows)  # noqa: E731
        return Dataset(
            pick(self.runs),
            self.features,
            self.values[rows],
            pick(self.labels),
            self.gates[rows],
            {kind: pick(group) for kind, group in self.groups.items()},
            {name: part[rows] for name, part in self.parts.items()},
        )

    def offering(self, names: Collection[str]) -> Dataset:
        """The same runs with those features alone that are named; names that the data set lacks are passed over."""
        kept = [i for i, name in enumerate(self.features) if name in names]
        return replace(self, features=tuple(self.features[i] for i in kept), values=self.values[:, kept])

    def joined(self, newer: Dataset) -> Dataset:
        """The runs of both; of one that both have, what ``newer`` says of it.

        Raises:
            DataError: If the two have other columns: they were made by other versions of the features or labels.
        """
        for what, mine, theirs in (
            ("features", set(self.features), set(newer.features)),
            ("groups", set(self.groups), set(newer.groups)),
            ("parts of the label", set(self.parts), set(newer.parts)),
        ):
            if mine != theirs:
                raise DataError(
                    f"the two tables have different {what} ({', '.join(sorted(mine ^ theirs))} in one of them only); "
                    "collect all runs again with one version"
                )
        seen = set(newer.runs)
        rows = [row for row in self.to_rows() if row["run"] not in seen]
        return Dataset.from_rows([*rows, *newer.to_rows()])

    @property
    def silent(self) -> np.ndarray:
        """Runs that reach the second stage: labelled forgotten, hidden or over-suppressed, mute in other wordings."""
        return np.array([name in INNER for name in self.labels], dtype=bool) & (self.gates[:, 2] < 0.5)

    def row(self, i: int) -> dict[str, float]:
        """Features of one run by name."""
        return dict(zip(self.features, (float(v) for v in self.values[i]), strict=True))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat record per run."""
        out = []
        for i, run in enumerate(self.runs):
            record: dict[str, Any] = {"run": run, "label": self.labels[i]}
            record |= {kind: group[i] for kind, group in self.groups.items()}
            record |= {PART + name: float(part[i]) for name, part in self.parts.items()}
            record |= {GATE + name: float(p) for name, p in zip(GATES, self.gates[i], strict=True)}
            out.append(record | {FEATURE + name: v for name, v in self.row(i).items()})
        return out

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Dataset:
        """Read what `to_rows` gave; empty numbers are NaN.

        Raises:
            FileFormatError: If columns are missing.
        """
        if not rows:
            raise FileFormatError("the table holds no run")
        names = list(rows[0])
        wanted = {"run", "label", *(GATE + g for g in GATES)} - set(names)
        if wanted:
            raise FileFormatError(
                f"the table lacks the columns {', '.join(sorted(wanted))}; write it with Dataset.save"
            )
        features = [n for n in names if n.startswith(FEATURE)]
        parts = [n for n in names if n.startswith(PART)]
        kinds = [n for n in names if n not in ("run", "label") and not n.startswith((FEATURE, PART, GATE))]
        number = lambda columns: np.array([[_number(r.get(c)) for c in columns] for r in rows])  # noqa: E731
        return cls(
            tuple(str(r["run"]) for r in rows),
            tuple(n.removeprefix(FEATURE) for n in features),
            number(features).reshape(len(rows), len(features)),
            tuple(str(r["label"] or "") for r in rows),
            number([GATE + g for g in GATES]),
            {k: tuple(str(r[k]) for r in rows) for k in kinds},
            {n.removeprefix(PART): number([n])[:, 0] for n in parts},
        )

    def save(self, path: str | Path) -> None:
        """Write as CSV (missing numbers are empty)."""
        rows = self.to_rows()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["run", "label"])
            writer.writeheader()
            writer.writerows({k: _plain(v) for k, v in row.items()} for row in rows)
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read a CSV written by `save`.

        Raises:
            FileFormatError: If it is missing or not such a table.
        """
        path = Path(path)
        if not path.exists():
            raise FileFormatError(f"{path} does not exist; make it with benchmarks/verdict/collect.py")
        with path.open(newline="", encoding="utf-8") as file:
            return cls.from_rows(list(csv.DictReader(file)))


def _number(value: Any) -> float:
    return math.nan if value in ("", None) else float(value)


def _plain(value: Any) -> Any:
    return ("" if math.isnan(value) else f"{value:.6g}") if isinstance(value, float) else value


def dataset(
    runs: Iterable[tuple[str, Findings, Mapping[str, str]]],
    *,
    rules: LabelRules | None = None,
    features: Sequence[Feature] = FEATURES,
) -> Dataset:
    """Label runs and read their evidence vectors.

    Args:
        runs: (name, findings, groups) of each run; every one with the same kinds of groups, ``method`` and ``target``
            among them.
        rules: Of the labels.
        features: Of the vectors.
    """
    names, values, labels, gated = [], [], [], []
    groups: dict[str, list[str]] = {}
    parts: dict[str, list[float]] = {"recoverability": [], "remaining": [], "suppression": []}
    for name, findings, kinds in runs:
        found, stage = label(findings, rules), gates(findings, rules)
        names.append(name)
        labels.append(found.name)
        values.append(list(vector(findings, features).values()))
        gated.append([stage.broken.probability, stage.kept.probability, stage.wording.probability])
        for part, numbers in parts.items():
            numbers.append(getattr(found, part))
        for kind, group in kinds.items():
            groups.setdefault(kind, []).append(str(group))
    return Dataset(
        tuple(names),
        tuple(f.name for f in features),
        np.array(values, dtype=np.float64).reshape(len(names), len(features)),
        tuple(labels),
        np.array(gated, dtype=np.float64).reshape(len(names), len(GATES)),
        {kind: tuple(group) for kind, group in groups.items()},
        {part: np.array(numbers) for part, numbers in parts.items()},
    )
