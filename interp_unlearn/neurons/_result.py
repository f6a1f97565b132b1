"""`Attribution`: scores of neurons with what is needed to believe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp_unlearn._core import Axis, FileFormatError, Labelled, check_choice

Over = Literal["mean", "max"]


@dataclass(frozen=True)
class Attribution:
    """Result of `attribute`.

    Attributes:
        scores: Axes (prompt, layer, neuron), in units of the target; ``config`` holds the options, the model, the
            baseline and the answers' log-probabilities.
        completeness: Axes (prompt, layer, quantity): ``attributed``, ``removed`` and their ``gap``, for the prompts
            that were measured.
    """

    scores: Labelled
    completeness: Labelled

    @property
    def n(self) -> int:
        """Number of prompts."""
        return self.scores.n

    @property
    def gap(self) -> float:
        """Completeness gap: summed absolute gap over summed absolute ``removed``; NaN where it was not measured."""
        if not self.completeness.n:
            return float("nan")
        removed = float(np.abs(self.completeness.at(quantity="removed")).sum())
        gap = float(np.abs(self.completeness.at(quantity="gap")).sum())
        return gap / removed if removed else (0.0 if gap == 0 else float("inf"))

    def over_prompts(self, how: Over = "mean") -> Labelled:
        """One score per neuron, axes (layer, neuron): mean or largest over the prompts.

        Raises:
            ConfigError: If ``how`` is neither.
        """
        check_choice("how", how, Over)
        values = self.scores.values.mean(0) if how == "mean" else self.scores.values.max(0)
        return over(self.scores, "neurons.scores", values, over_prompts=how, completeness_gap=self.gap)

    def top(self, k: int = 10, prompt: int | None = None) -> list[tuple[str, int, float]]:
        """Site, neuron and score of the k largest, of one prompt or of the mean."""
        values = self.scores.values.mean(0) if prompt is None else self.scores.values[prompt]
        order = np.argsort(-values, axis=None, kind="stable")[:k]
        where = np.stack(np.unravel_index(order, values.shape), 1).tolist()
        return [(self.scores.axes[1].labels[layer], neuron, float(values[layer, neuron])) for layer, neuron in where]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        return {
            "kind": "attribution",
            "scores": self.scores.to_json(),
            "completeness": self.completeness.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attribution:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: If it is something else.
        """
        if data.get("kind") != "attribution":
            raise FileFormatError("this is not a saved attribution")
        return cls(Labelled.from_json(data["scores"]), Labelled.from_json(data["completeness"]))


def over(source: Labelled, name: str, values: np.ndarray, **config: Any) -> Labelled:
    """Values with the (layer, neuron) axes of ``source``, its facts, and more settings."""
    axes: tuple[Axis, ...] = source.axes[-2:]
    return Labelled(name, values, axes, n=source.n, mask_policy=source.mask_policy, config={**source.config, **config})
