"""Behaviour of a model on a task's question sets, with intervals, and its change between two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.hooked import AnswerScores, HookedModel
from interp_unlearn.metrics._prompts import BEHAVIOUR_METRICS, PROMPT_METRICS, PromptScores, columns_of, mean_of
from interp_unlearn.metrics._resample import bootstrap, cluster_unit, percentile_interval
from interp_unlearn.metrics._scoring import score_candidates
from interp_unlearn.worlds import Prompt, Task


def behaviour(model: HookedModel, task: Task, *, batch_size: int = 32) -> Labelled:
    """Mean answer probability, exact match and multiple choice of each non-empty question set.

    The same as ``behaviour_by_prompt(model, task).summary()``; keep the prompt scores if you want intervals or a paired
    comparison.

    Args:
        model: A language model with a tokenizer.
        task: Its question sets are measured.
        batch_size: Prompts per forward pass.

    Returns:
        Axes ("set", "metric") with metrics "probability", "exact", "choice" (see `metric_facts`). ``config["n"]`` has
        the number of prompts of each set, ``config["chance"]`` the chance level of "choice".

    Raises:
        DataError: If every question set is empty, or an answer has no token.
    """
    return behaviour_by_prompt(model, task, batch_size=batch_size).summary()


def behaviour_by_prompt(
    model: HookedModel, task: Task, *, batch_size: int = 32, sets: Sequence[str] | None = None
) -> PromptScores:
    """Scores of each prompt of each question set; every table and interval is made from these.

    Args:
        model: A language model with a tokenizer.
        task: Its question sets are measured.
        batch_size: Prompts per forward pass.
        sets: Names of the sets to measure; default all that are not empty.
    """
    rows = [(s.name, p) for s in task.qa_sets() if sets is None or s.name in sets for p in s.prompts]
    if not rows:
        why = "; ".join(f"{s.name}: {s.why_empty or 'no prompts'}" for s in task.qa_sets())
        raise DataError(f"there is no question to ask, every set is empty ({why}); choose another target or relation")
    prompts = [p for _, p in rows]
    scored = score_candidates(
        model,
        [p.text for p in prompts],
        [(p.answer, *p.also, *wrong_options(p)) for p in prompts],
        batch_size=batch_size,
    )
    values = np.array([_metrics(p, s) for p, s in zip(prompts, scored.per_prompt, strict=True)])
    numbers: dict[str, int] = {}
    labels = []
    for name, _ in rows:
        numbers[name] = numbers.get(name, -1) + 1
        labels.append(f"{name}/{numbers[name]}")
    table = Labelled(
        "behaviour by prompt",
        values,
        (Axis("prompt", tuple(labels)), Axis("metric", PROMPT_METRICS)),
        n=1,
        mask_policy="answer tokens",
        config={
            "world": task.world,
            "target": list(task.target.entities),
            "relations": list(task.target.relations),
            "scoring": scored.method,
            "columns": columns_of(rows),
        },
        seed=task.seed,
        note="logprob in nats, summed over the answer's tokens; choice is NaN where a prompt has no options",
    )
    return PromptScores(table)


def wrong_options(prompt: Prompt) -> tuple[str, ...]:
    """The options that really are wrong: neither the answer nor another right one, whatever the case."""
    right = {a.strip().casefold() for a in (prompt.answer, *prompt.also)}
    return tuple(o for o in dict.fromkeys(prompt.options) if o.strip().casefold() not in right)


def _metrics(prompt: Prompt, scores: AnswerScores) -> list[float]:
    """One row of `PROMPT_METRICS`; the first candidates are right, the others wrong."""
    n_right = 1 + len(prompt.also)
    mean = (scores.logprob / scores.n_tokens).double()
    choice = margin = chance = float("nan")
    if len(mean) > n_right:
        margin = float(mean[:n_right].max() - mean[n_right:].max())
        choice = float(margin > 0)
        chance = n_right / len(mean)
    exact = float(bool(scores.exact[:n_right].any()) and bool(torch.isfinite(mean[:n_right]).all()))
    return [float(mean[0].exp()), exact, choice, margin, float(scores.logprob[0]), float(scores.n_tokens[0]), chance]


def behaviour_intervals(
    scores: PromptScores,
    *,
    metrics: Sequence[str] = BEHAVIOUR_METRICS,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Labelled:
    """Percentile bootstrap intervals of the means, drawing entities with replacement.

    A set about one entity is resampled by template instead, which says how much the wording matters and nothing about
    other entities; a set of one prompt has no interval (NaN). ``config["unit"]`` names each set's unit and
    ``config["clusters"]`` how many there are; below about five an interval is too narrow.

    Returns:
        Axes ("set", "metric", "bound") with bounds "low" and "high".
    """
    values = np.full((len(scores.sets), len(metrics), 2), np.nan)
    units, clusters = {}, {}
    for i, name in enumerate(scores.sets):
        rows = scores.rows(name)
        unit, groups = _groups(scores, rows)
        units[name], clusters[name] = unit, len(set(groups))
        if unit == "none":
            continue
        data = np.stack([scores.metric(m)[rows] for m in metrics], axis=1)
        drawn = bootstrap(data, groups, draws=draws, seed=seed, purpose=f"behaviour {name}")
        values[i] = [percentile_interval(drawn[:, k], level) for k in range(len(metrics))]
    return Labelled(
        f"behaviour, {level:.0%} interval",
        values,
        (Axis("set", scores.sets), Axis("metric", tuple(metrics)), Axis("bound", ("low", "high"))),
        n=min(scores.counts().values()),
        mask_policy="answer tokens",
        config={
            **scores.settings(),
            "n": scores.counts(),
            "unit": units,
            "clusters": clusters,
            "level": level,
            "draws": draws,
        },
        seed=seed,
        note="percentile bootstrap over whole entities (over templates where a set is about one entity)",
    )


def behaviour_change(
    before: PromptScores,
    after: PromptScores,
    *,
    metrics: Sequence[str] = BEHAVIOUR_METRICS,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Labelled:
    """Change from one model to another on the same prompts, with a paired bootstrap interval.

    Returns:
        Axes ("set", "metric", "quantity") with quantities "before", "after", "change" (after − before), "low", "high".

    Raises:
        DataError: If the two do not hold the same prompts.
    """
    if before.table.config["columns"] != after.table.config["columns"]:
        raise DataError("the two models were asked different prompts; measure both with the same task")
    quantities = ("before", "after", "change", "low", "high")
    values = np.full((len(before.sets), len(metrics), len(quantities)), np.nan)
    units = {}
    for i, name in enumerate(before.sets):
        rows = before.rows(name)
        units[name], groups = _groups(before, rows)
        for k, metric in enumerate(metrics):
            old, new = before.metric(metric)[rows], after.metric(metric)[rows]
            values[i, k, :3] = mean_of(old, metric), mean_of(new, metric), mean_of(new - old, metric)
            if units[name] != "none":
                drawn = bootstrap(new - old, groups, draws=draws, seed=seed, purpose=f"change {name}")
                values[i, k, 3:] = percentile_interval(drawn, level)
    return Labelled(
        "behaviour change",
        values,
        (Axis("set", before.sets), Axis("metric", tuple(metrics)), Axis("quantity", quantities)),
        n=min(before.counts().values()),
        mask_policy="answer tokens",
        config={**after.settings(), "n": before.counts(), "unit": units, "level": level, "draws": draws},
        seed=seed,
        note=f"change = after − before on the same prompts; low and high bound it at {level:.0%}",
    )


def _groups(scores: PromptScores, rows: np.ndarray) -> tuple[str, tuple[str, ...]]:
    entities, templates = scores.column("entity"), scores.column("template")
    return cluster_unit([entities[r] for r in rows], [templates[r] for r in rows])
