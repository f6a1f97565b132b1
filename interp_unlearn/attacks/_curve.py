"""Relearning curves: what came back after how many steps, with every prompt's score kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.worlds import Prompt, fact_of

METRICS = ("probability", "exact")


@dataclass
class Trace:
    """Scores of the test prompts as relearning goes on (filled by the loop).

    Attributes:
        prompts: Test prompts by set.
        steps: Steps at which they were asked.
        scores: By set, one (prompt, metric) array per entry of ``steps``.
        losses: Training loss of each step, in nats per answer token.
    """

    prompts: Mapping[str, tuple[Prompt, ...]]
    steps: list[int] = field(default_factory=list)
    scores: dict[str, list[np.ndarray]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def add(self, step: int, scores: Mapping[str, np.ndarray]) -> None:
        """Note the scores at one step."""
        self.steps.append(step)
        for name, values in scores.items():
            self.scores.setdefault(name, []).append(values)

    def array(self, name: str) -> np.ndarray:
        """Scores of one set, (step, prompt, metric)."""
        return np.stack(self.scores[name])


@dataclass(frozen=True)
class RelearnCurve:
    """What relearning brought back, and what the same effort teaches about facts that were never known.

    Attributes:
        target: Axis "step": recall (exact match) of the target on questions that were not relearned. Its
            ``config["by_prompt"]`` has every prompt's probability and exact match, so that `relearn_evidence` needs
            nothing else; save it as ``relearn.after``, ``relearn.before`` or ``relearn.gold``.
        control: The same of never-known facts, all draws together; None where ``config.controls`` is 0.
        target_sets: Axes ("step", "set", "metric"): means of every test set.
        control_sets: The same of the control.
        losses: Axes ("run", "step"): training loss in nats per answer token; runs are "target" and "never known 0" …
        target_heldout: Where the rest of the facts is the headline: the same of the taught facts in templates that are
            not taught.
        control_heldout: The same of the control.
    """

    target: Labelled
    control: Labelled | None
    target_sets: Labelled
    control_sets: Labelled | None
    losses: Labelled
    target_heldout: Labelled | None = None
    control_heldout: Labelled | None = None

    def tables(self) -> dict[str, Labelled]:
        """Every part that is there, by a name for its file."""
        parts = {
            "relearn.target": self.target,
            "relearn.control": self.control,
            "relearn.target_sets": self.target_sets,
            "relearn.control_sets": self.control_sets,
            "relearn.losses": self.losses,
            "relearn.target_heldout": self.target_heldout,
            "relearn.control_heldout": self.control_heldout,
        }
        return {name: table for name, table in parts.items() if table is not None}


def headline(
    traces: Sequence[Trace], who: str, config: Mapping[str, Any], seed: int, name: str | None = None
) -> Labelled:
    """Recall against steps on one test set; by default the rest of the facts if any, else held-out templates."""
    name = name or ("rest" if "rest" in traces[0].prompts else "heldout")
    prompts = [p for t in traces for p in t.prompts[name]]
    scores = np.concatenate([t.array(name) for t in traces], axis=1)
    return Labelled(
        f"relearning recall, {who}",
        scores[:, :, METRICS.index("exact")].mean(1),
        (Axis("step", tuple(str(s) for s in traces[0].steps)),),
        n=len(prompts),
        mask_policy="answer tokens",
        config={
            **config,
            "who": who,
            "set": name,
            "metric": "exact",
            "facts": [list(fact_of(p)) for p in prompts],
            "templates": [p.template for p in prompts],
            "by_prompt": {m: scores[:, :, k].tolist() for k, m in enumerate(METRICS)},
        },
        seed=seed,
        note=f"exact match on the set {name!r}, which is not relearned; config['by_prompt'] has (step, prompt) scores",
    )


def set_means(traces: Sequence[Trace], who: str, config: Mapping[str, Any], seed: int) -> Labelled:
    """Means of every test set at every step."""
    names = tuple(traces[0].prompts)
    joined = {name: np.concatenate([t.array(name) for t in traces], axis=1) for name in names}
    n = {name: int(values.shape[1]) for name, values in joined.items()}
    return Labelled(
        f"relearning by set, {who}",
        np.stack([joined[name].mean(1) for name in names], axis=1),
        (Axis("step", tuple(str(s) for s in traces[0].steps)), Axis("set", names), Axis("metric", METRICS)),
        n=min(n.values()),
        mask_policy="answer tokens",
        config={**config, "who": who, "n": n},
        seed=seed,
        note="'relearned' are the taught questions, 'heldout' the same facts in other words, 'rest' facts not taught",
    )


def loss_table(traces: Mapping[str, Trace], config: Mapping[str, Any], seed: int) -> Labelled:
    """Training loss of each run at each step."""
    steps = len(next(iter(traces.values())).losses)
    return Labelled(
        "relearning loss, nats per answer token",
        np.array([t.losses for t in traces.values()]),
        (Axis("run", tuple(traces)), Axis("step", tuple(str(s) for s in range(steps)))),
        n=1,
        mask_policy="answer tokens",
        config=dict(config),
        seed=seed,
        note="loss of the batch before each step",
    )


def prompt_scores(curve: Labelled, metric: str) -> np.ndarray:
    """Scores of every prompt of a headline curve, (step, prompt)."""
    kept = curve.config.get("by_prompt", {})
    if metric not in kept:
        raise DataError(
            f"{curve.name!r} keeps no {metric!r} by prompt; it has {', '.join(kept) or 'none'}: use relearn()"
        )
    return np.asarray(kept[metric], dtype=np.float64)


def step_numbers(curve: Labelled) -> np.ndarray:
    """The steps of a curve as numbers."""
    return np.array([float(label) for label in curve.axes[0].labels])


def curve_area(curve: Labelled, metric: str = "probability") -> float:
    """Area under the mean curve divided by the number of steps: the mean level over the step budget, 0 to 1."""
    return float(prompt_areas(curve, metric).mean())


def prompt_areas(curve: Labelled, metric: str) -> np.ndarray:
    """The same for each prompt, (prompt,)."""
    steps = step_numbers(curve)
    return np.trapezoid(prompt_scores(curve, metric), steps, axis=0) / (steps[-1] - steps[0])


def steps_to_level(curve: Labelled, level: float, metric: str = "probability") -> float:
    """Steps until the mean curve first reaches ``level``, interpolated between evaluations; NaN if it never does."""
    steps, mean = step_numbers(curve), prompt_scores(curve, metric).mean(1)
    reached = np.flatnonzero(mean >= level)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0:
        return float(steps[0])
    share = (level - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
