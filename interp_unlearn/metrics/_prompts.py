"""`PromptScores`: every score of every prompt, from which tables, intervals and comparisons are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_unlearn._core import Axis, DataError, FileFormatError, Labelled, nearest
from interp_unlearn.worlds import Prompt

BEHAVIOUR_METRICS = ("probability", "exact", "choice")
PROMPT_METRICS = (*BEHAVIOUR_METRICS, "choice_margin", "logprob", "n_tokens", "chance")
COLUMNS = ("set", "entity", "relation", "template", "text", "answer")


@dataclass(frozen=True)
class PromptScores:
    """Scores of each prompt of each question set.

    It is one `Labelled` and is saved as such: ``write_json(path, scores.table.to_json())``, and read back with
    ``PromptScores(Labelled.from_json(read_json(path)))``.

    Attributes:
        table: Axes ("prompt", "metric"). Metrics: ``probability``, ``exact``, ``choice``, ``choice_margin`` (see
            `metric_facts`), ``logprob`` (nats, summed over the answer's tokens), ``n_tokens``, ``chance`` (of
            ``choice``). ``choice``, its margin and chance are NaN for prompts without options. ``config["columns"]``
            has one list per name in `COLUMNS`.
    """

    table: Labelled

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.table.axes]
        columns = self.table.config.get("columns", {})
        if names != ["prompt", "metric"] or any(len(columns.get(c, ())) != len(self) for c in COLUMNS):
            raise FileFormatError(
                f"{self.table.name!r} is not a table of prompt scores; make one with behaviour_by_prompt"
            )

    def __len__(self) -> int:
        return len(self.table.axes[0].labels)

    def column(self, name: str) -> tuple[str, ...]:
        """A fact about each prompt: one of `COLUMNS`."""
        if name not in COLUMNS:
            raise DataError(
                f"prompt scores have no column {name!r}{nearest(name, COLUMNS)}; columns: {', '.join(COLUMNS)}"
            )
        return tuple(self.table.config["columns"][name])

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the question sets, in order."""
        return tuple(dict.fromkeys(self.column("set")))

    def metric(self, name: str) -> np.ndarray:
        """One metric of every prompt, (prompt,)."""
        if name not in self.table.axes[1].labels:
            known = self.table.axes[1].labels
            raise DataError(f"no metric {name!r} was measured{nearest(name, known)}; measured: {', '.join(known)}")
        return self.table.at(metric=name)

    def rows(self, set_name: str) -> np.ndarray:
        """Indices of the prompts of one set."""
        found = np.array([i for i, s in enumerate(self.column("set")) if s == set_name], dtype=np.int64)
        if not len(found):
            raise DataError(
                f"no prompt of set {set_name!r}{nearest(set_name, self.sets)}; sets: {', '.join(self.sets)}"
            )
        return found

    def summary(self, metrics: Sequence[str] = BEHAVIOUR_METRICS) -> Labelled:
        """Mean over the prompts of each set, axes ("set", "metric").

        Prompts without options are left out of ``choice``. ``config["n"]`` has the number of prompts of each set.
        """
        values = np.array([[mean_of(self.metric(m)[self.rows(s)], m) for m in metrics] for s in self.sets])
        chance = {s: mean_of(self.metric("chance")[self.rows(s)], "chance") for s in self.sets}
        return Labelled(
            "behaviour",
            values,
            (Axis("set", self.sets), Axis("metric", tuple(metrics))),
            n=min(self.counts().values()),
            mask_policy="answer tokens",
            config={**self.settings(), "n": self.counts(), "chance": chance},
            seed=self.table.seed,
            note="mean over prompts; n is the smallest set's, config['n'] has each set's",
        )

    def counts(self) -> dict[str, int]:
        """Number of prompts of each set."""
        return {s: len(self.rows(s)) for s in self.sets}

    def settings(self) -> dict[str, Any]:
        """The configuration without the columns."""
        return {k: v for k, v in self.table.config.items() if k != "columns"}


def mean_of(values: np.ndarray, metric: str) -> float:
    """Mean; prompts to which a choice metric does not apply (NaN) are left out, any other NaN shows."""
    if metric in ("choice", "choice_margin", "chance"):
        values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def columns_of(rows: Sequence[tuple[str, Prompt]]) -> dict[str, list[str]]:
    """The columns of prompts, each with the name of its set."""
    return {
        "set": [name for name, _ in rows],
        "entity": [p.entity for _, p in rows],
        "relation": [p.relation for _, p in rows],
        "template": [p.template for _, p in rows],
        "text": [p.text for _, p in rows],
        "answer": [p.answer for _, p in rows],
    }
