"""The part ``memorisation``: output metrics of the target's questions, against neighbours and never-known entities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._behaviour import wrong_options
from interp_unlearn.metrics._evidence import NEIGHBOURS, NEVER_KNOWN, evidence, mean_and_interval, missing
from interp_unlearn.metrics._memorisation import MEMORISATION_METRICS, memorisation_scores
from interp_unlearn.metrics._never_known import never_known, thin, why_no_never_known
from interp_unlearn.metrics._truth import forget_quality, relative_difference, truth_ratio
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import Prompt, Task

LOW = ("probability", "exact_memorisation", "extraction_strength")
NEAR = ("truth_ratio", "entropy", "confidence")
LEAST = 0.01  # a relative difference to less than this says nothing
LEVEL_METRICS = (*MEMORISATION_METRICS, "truth_ratio")


@dataclass(frozen=True)
class MemorisationConfig:
    """How many questions are asked; more are thinned at random.

    Attributes:
        forget: Questions about the target in train templates, and as many in held-out ones.
        neighbours: Questions about neighbours.
        never_known: Questions about unknown entities.
        max_options: Wrong answers per question.
    """

    forget: int = 48
    neighbours: int = 12
    never_known: int = 16
    max_options: int = 4

    def __post_init__(self) -> None:
        for name in ("forget", "never_known", "max_options"):
            if getattr(self, name) < 1:
                raise ConfigError(f"memorisation.{name} is {getattr(self, name)}; use at least 1")

    @property
    def key(self) -> str:
        """Name of the measurement: all settings it depends on."""
        return f"memorisation.{self.forget}.{self.neighbours}.{self.never_known}.{self.max_options}"


def memorisation(phases: Phases, progress: Progress, config: MemorisationConfig | None = None) -> Found:
    """Output metrics before and after (and in gold) of the target's questions, neighbours and never-known entities.

    Evidence ``memorisation.<metric>/forget`` is about held-out templates where there are any. ``config`` of each has
    the same number before, in gold, on train templates, on neighbours and on never-known entities, in both models.
    """
    config = config or MemorisationConfig()
    task = phases.task
    sets = memorisation_sets(task, config, phases.seed)
    values: dict[str, dict[str, np.ndarray]] = {}
    for i, phase in enumerate(phases.names):
        progress(f"scoring answers ({phase})", i, len(phases.names))
        found = phases.once(phase, config.key, lambda m: _measure(m, task, config, phases.seed))
        values[phase] = {name: _with_truth_ratio(t.double().numpy()) for name, t in found.items()}
    applies = {name: np.array([bool(wrong_options(p)) for p in prompts], dtype=bool) for name, prompts in sets.items()}
    measured = _Measured(values, applies)
    table = _levels(measured, sets, phases.seed)
    main = "paraphrased" if sets["paraphrased"] else "base"
    evidences = [_evidence(metric, measured, sets[main], main, table, phases.seed) for metric in (*LOW, *NEAR)]
    return Found((*evidences, _quality(measured, main, phases.seed)), {"memorisation": table})


def memorisation_sets(task: Task, config: MemorisationConfig, seed: int) -> dict[str, tuple[Prompt, ...]]:
    """The questions of each set that need no model to be made: base, paraphrased, neighbours."""
    limits = {"base": config.forget, "paraphrased": config.forget, "neighbours": config.neighbours}
    every = {"base": task.forget_train, "paraphrased": task.forget_heldout, "neighbours": task.neighbours}
    return {
        name: tuple(every[name].prompts[i] for i in thin(len(every[name].prompts), limit, seed, "memorisation", name))
        for name, limit in limits.items()
    }


def _measure(model: HookedModel, task: Task, config: MemorisationConfig, seed: int) -> dict[str, Tensor]:
    sets = memorisation_sets(task, config, seed)
    target = (*sets["paraphrased"], *sets["base"])
    if not why_no_never_known(task, target):
        rows = never_known(task, target, at_most=config.never_known, seed=seed)
        sets["never_known"] = rows.prompts(model, task)
    asked = {name: prompts for name, prompts in sets.items() if prompts}
    scored = memorisation_scores(
        model, [p for prompts in asked.values() for p in prompts], max_options=config.max_options
    )
    cuts = np.cumsum([len(prompts) for prompts in asked.values()])[:-1]
    return {n: torch.tensor(v) for n, v in zip(asked, np.split(scored.values, cuts), strict=True)}


def _with_truth_ratio(values: np.ndarray) -> np.ndarray:
    """A further column: min(TR, 1/TR)."""
    return np.column_stack([values, truth_ratio(values[:, MEMORISATION_METRICS.index("log_truth_ratio")])])


@dataclass(frozen=True)
class _Measured:
    """Scores by phase and set, (question, `LEVEL_METRICS`), and which questions have wrong options (all, if unsaid)."""

    values: Mapping[str, Mapping[str, np.ndarray]]
    applies: Mapping[str, np.ndarray]

    def keep(self, name: str, metric: str) -> np.ndarray:
        """The questions of a set to which a metric applies."""
        n = len(next(iter(self.values.values()))[name])
        needs_options = metric in ("truth_ratio", "log_truth_ratio", "normalised_probability")
        return self.applies.get(name, np.ones(n, dtype=bool)) if needs_options else np.ones(n, dtype=bool)

    def column(self, phase: str, name: str, metric: str) -> np.ndarray:
        """One metric of the questions of a set that it applies to."""
        return self.values[phase][name][self.keep(name, metric), LEVEL_METRICS.index(metric)]

    def mean(self, phase: str, name: str, metric: str) -> float:
        """Its mean, NaN where there is no such question."""
        column = self.column(phase, name, metric)
        return float(column.mean()) if len(column) else math.nan

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets that have questions."""
        return tuple(next(iter(self.values.values())))


def _levels(measured: _Measured, sets: Mapping[str, tuple[Prompt, ...]], seed: int) -> Labelled:
    """Means of every phase, set and metric."""
    names, phases = measured.sets, tuple(measured.values)
    means = np.array([[[measured.mean(p, s, m) for m in LEVEL_METRICS] for s in names] for p in phases])
    counts = {s: len(measured.values[phases[0]][s]) for s in names}
    return Labelled(
        "memorisation",
        means,
        (Axis("phase", phases), Axis("set", names), Axis("metric", LEVEL_METRICS)),
        n=min(counts.values()),
        mask_policy="answer tokens",
        config={"n": counts, "entities": {s: len({p.entity for p in prompts}) for s, prompts in sets.items()}},
        seed=seed,
        note="means over questions; truth_ratio is min(TR, 1/TR), below 0 the log truth ratio prefers the right answer",
    )


def _evidence(
    metric: str, measured: _Measured, prompts: tuple[Prompt, ...], main: str, table: Labelled, seed: int
) -> Evidence:
    kind = f"memorisation.{metric}"
    keep = measured.keep(main, metric)
    if not keep.any():
        return missing(kind, "forget", "the target's questions have no wrong options", seed=seed)
    asked = [p for p, kept in zip(prompts, keep, strict=True) if kept]
    column = measured.column("after", main, metric)
    value, interval, unit = mean_and_interval(column, asked, seed=seed, purpose=kind)
    levels = {f"{s} {phase}": measured.mean(phase, s, metric) for phase in measured.values for s in measured.sets}
    gold = levels.get(f"{main} gold")
    who, control_name = ("neighbours", NEIGHBOURS) if metric in LOW else ("never_known", NEVER_KNOWN)
    control = levels.get(f"{who} after")
    facts = {
        "set": main,
        "levels": levels,
        "before": levels[f"{main} before"],
        "gold": gold,
        "relative_difference": None if gold is None or gold < LEAST else relative_difference(value, gold),
        **unit,
    }
    if metric == "truth_ratio":
        facts["log_truth_ratio"] = {p: measured.mean(p, main, "log_truth_ratio") for p in measured.values}
    return evidence(
        kind,
        "forget",
        value,
        n=len(asked),
        interval=interval,
        control=control,
        control_name=control_name
        if control is not None
        else f"none, the task has no {control_name.split()[0]} questions",
        details={"levels": table} if metric == "probability" else {},
        config=facts,
        seed=seed,
    )


def _quality(measured: _Measured, main: str, seed: int) -> Evidence:
    kind = "memorisation.forget_quality"
    if "gold" not in measured.values:
        return missing(kind, "forget", "forget quality is undefined without a gold model", seed=seed)
    ratios = {phase: measured.column(phase, main, "log_truth_ratio") for phase in measured.values}
    usable = {phase: ratio[np.isfinite(ratio)] for phase, ratio in ratios.items()}
    if min(len(r) for r in usable.values()) < 2:
        return missing(kind, "forget", "fewer than 2 questions have a truth ratio in each model", seed=seed)
    after, before = (forget_quality(usable[phase], usable["gold"]) for phase in ("after", "before"))
    return evidence(
        kind,
        "forget",
        after.statistic,
        n=after.n[0],
        control=before.statistic,
        config={
            "set": main,
            "p_value": after.p_value,
            "log10_p": after.log10_p,
            "before_log10_p": before.log10_p,
            "no_interval": "a distance of two distributions is biased upwards in resamples",
        },
        seed=seed,
    )


register_part(
    Part(
        "memorisation",
        "how likely, how complete and how confident the answers about the target are",
        "behaviour",
        "quick",
        memorisation,
    )
)
