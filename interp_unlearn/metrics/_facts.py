"""What each metric means: formula, direction, range, what it needs, and how it goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp_unlearn._core import ConfigError, Registry

Direction = Literal["down", "up", "near", "-"]


@dataclass(frozen=True)
class MetricFacts:
    """How to read one metric.

    Attributes:
        name: As on the metric axis of a result.
        title: For people.
        formula: In words and symbols; l_t is the log-probability of answer token t given all before it, T their number.
        unit: Unit of the values (``"1"`` for probabilities and shares).
        low: Smallest possible value.
        high: Largest possible value.
        on_forget: Where a good unlearning moves it on the target; ``"near"``: towards the reference's value.
        on_retain: Where a good unlearning wants it on everything else (``"up"``: as high as before).
        reference: What is needed to interpret it, beyond the model itself.
        failure_modes: How it misleads.
        not_to_be_confused: What it is not.
        missing_when: When it cannot be computed.
    """

    name: str
    title: str
    formula: str
    unit: str = "1"
    low: float = 0.0
    high: float = 1.0
    on_forget: Direction = "down"
    on_retain: Direction = "up"
    reference: str = "the original model"
    failure_modes: tuple[str, ...] = ()
    not_to_be_confused: str = ""
    missing_when: str = "the model has no tokenizer"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"metric {self.name!r}: low={self.low} must lie below high={self.high}")
        if not self.failure_modes:
            raise ConfigError(f"metric {self.name!r} names no failure mode; say how it can mislead")


METRICS: Registry[MetricFacts] = Registry("metric")


def metric_facts() -> dict[str, MetricFacts]:
    """Facts of every registered metric, by name."""
    return {name: METRICS[name] for name in METRICS}


def register_metric(facts: MetricFacts) -> MetricFacts:
    """File the facts of a metric under its name."""
    return METRICS.register(facts.name)(facts)
