"""The stop rule of a recipe, followed step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.unlearn._protocols import Objective
from interp_unlearn.unlearn._recipe import Stop


class StopRule:
    """Follows one loss term and says when its smoothed value has fallen below the level.

    A term that some steps do not log (steps that take turns, draws without one kind of item) is smoothed over the steps
    that do.

    Args:
        stop: The recipe's rule, or None for no rule.
        objective: The objective, which may offer a level of its own; it must have been prepared.

    Attributes:
        level: The level, or None without a rule.

    Raises:
        ConfigError: If neither the rule nor the objective gives a level.
    """

    def __init__(self, stop: Stop | None, objective: Objective) -> None:
        self.stop = stop
        self.level: float | None = None
        self._smoothed, self._seen = 0.0, 0
        self._names: set[str] = set()
        if stop is None:
            return
        self.level = stop.below if stop.below is not None else objective.stop_levels().get(stop.term)
        if self.level is None:
            raise ConfigError(
                f"recipe.stop.below is missing and this objective offers no level of its own for the term "
                f"{stop.term!r}; give a number"
            )

    def follow(self, record: Mapping[str, float], steps: int) -> bool:
        """Take the record of a step; whether to stop now.

        Args:
            record: Terms of the step just taken.
            steps: Steps taken so far.

        Raises:
            ConfigError: If no step has logged the term by the time the rule could first fire.
        """
        stop = self.stop
        if stop is None or self.level is None:
            return False
        self._names |= record.keys()
        if stop.term in record:
            self._seen += 1
            self._smoothed = stop.smoothing * self._smoothed + (1 - stop.smoothing) * record[stop.term]
        if steps < stop.min_steps:
            return False
        if not self._seen:
            raise ConfigError(
                f"recipe.stop.term is {stop.term!r}{nearest(stop.term, self._names)}, but in {steps} steps the "
                f"objective logged only {', '.join(sorted(self._names))}; use one of these"
            )
        return self._smoothed / (1 - stop.smoothing**self._seen) < self.level

    def state(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {"smoothed": self._smoothed, "seen": self._seen}

    def load_state(self, facts: Mapping[str, Any]) -> None:
        """Put back what `state` returned."""
        self._smoothed, self._seen = float(facts["smoothed"]), int(facts.get("seen", facts["step"]))
