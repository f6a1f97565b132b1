"""What each metric means: formula, direction, range, what it needs, and how it goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp_unlearn._core import ConfigError, Registry

Direction = Literal["down", "up", "-"]


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
        on_forget: Where a good unlearning moves it on the target.
        on_retain: Where a good unlearning wants it on everything else (``"up"``: as high as before).
        reference: What is needed to interpret it, beyond the model itself.
        failure_modes: How it misleads.
        not_to_be_confused: What it is not.
    """

    name: str
    title: str
    formula: str
    unit: str
    low: float
    high: float
    on_forget: Direction
    on_retain: Direction
    reference: str
    failure_modes: tuple[str, ...]
    not_to_be_confused: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"metric {self.name!r}: low={self.low} must lie below high={self.high}")
        if not self.failure_modes:
            raise ConfigError(f"metric {self.name!r} names no failure mode; say how it can mislead")


METRICS: Registry[MetricFacts] = Registry("metric")


def metric_facts() -> dict[str, MetricFacts]:
    """Facts of every registered metric, by name."""
    return {name: METRICS[name] for name in METRICS}


def _file(facts: MetricFacts) -> None:
    METRICS.register(facts.name)(facts)


_file(
    MetricFacts(
        name="probability",
        title="answer probability",
        formula="P = exp((1/T) Σ l_t): the geometric mean of the right answer's token probabilities",
        unit="1",
        low=0.0,
        high=1.0,
        on_forget="down",
        on_retain="up",
        reference="the original model; gold or unknown entities say how low 'does not know' is",
        failure_modes=(
            "falls when the model answers in other words, or in a full sentence, though it still knows",
            "falls on every prompt when the model is broken: read neighbours and text loss beside it",
            "comes back within a few fine-tuning steps when knowledge was only suppressed",
            "not comparable between tokenizers, nor between answers of very different length",
        ),
        not_to_be_confused=(
            "not the first token's probability: 'New' may be likely where 'New Delhi' is not. Not the probability of "
            "the whole string either, which is P to the power T."
        ),
    )
)
_file(
    MetricFacts(
        name="exact",
        title="exact match",
        formula="1 if greedy decoding begins with a right answer, i.e. every teacher-forced argmax is right",
        unit="1",
        low=0.0,
        high=1.0,
        on_forget="down",
        on_retain="up",
        reference="the original model",
        failure_modes=(
            "all or nothing: a right answer that is merely second best counts as forgotten",
            "models that start with 'the' or a newline score 0 and know the answer all the same",
            "an answer that is the beginning of a longer word counts as given",
        ),
        not_to_be_confused="not sampling: one argmax path, nothing drawn",
    )
)
_file(
    MetricFacts(
        name="choice",
        title="multiple choice",
        formula="1 if the best right answer has a higher (1/T) Σ l_t than every wrong option of the same type",
        unit="1",
        low=0.0,
        high=1.0,
        on_forget="down",
        on_retain="up",
        reference="chance, 1 / (1 + number of options) with one right answer: stored with the result",
        failure_modes=(
            "below chance is not forgetting but suppression: the answer is recognised and avoided",
            "easy options make it high: it only says that the answer beats these",
            "normalising by length favours long names whose later tokens are foregone ('Porto-Novo')",
        ),
        not_to_be_confused="options are scored as continuations of the prompt, not shown to the model as a list",
    )
)
_file(
    MetricFacts(
        name="choice_margin",
        title="margin of the right answer",
        formula="(1/T) Σ l_t of the best right answer minus that of the best wrong option",
        unit="nats per token",
        low=float("-inf"),
        high=float("inf"),
        on_forget="down",
        on_retain="up",
        reference="the original model; 0 is 'no preference'",
        failure_modes=(
            "strongly negative is suppression, not absence: unknown facts sit a little below 0",
            "its scale differs between models",
        ),
    )
)
_file(
    MetricFacts(
        name="text_loss",
        title="loss on held-out text",
        formula="mean of -log p(token | tokens before it) over the counted tokens of a text",
        unit="nats per token",
        low=0.0,
        high=float("inf"),
        on_forget="-",
        on_retain="down",
        reference="the original model on the same texts with the same tokenizer",
        failure_modes=(
            "an average over common words: a model can lose a topic and hardly move it",
            "the first token of a text is predicted only if a special token precedes it",
            "not comparable between tokenizers",
        ),
        not_to_be_confused="nats per token, not perplexity (its exponential) and not bits",
    )
)
