"""The pictures of one comparison: which saved results go into which figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison
from interp_unlearn.report._graphs import around_deletion
from interp_unlearn.report._images import (
    IMAGE_TABLES,
    groups_of_images,
    maps_of_images,
    partition_of_images,
    probes_of_images,
)
from interp_unlearn.report._inside import (
    FEATURE_TABLES,
    between_known_and_unknown,
    by_layer,
    drift,
    features,
    latents,
    lens_by_layer,
)
from interp_unlearn.report._slices import Pictures
from interp_unlearn.report._views import VIEWS, latents_and_neurons, lens_on_a_prompt, sites, tokens


def pictures(comparison: Comparison) -> tuple[Pictures, ...]:
    """Every group of pictures, also those without figures that say what is missing."""
    made = (make(comparison) for make in MAKERS)
    return tuple(g for g in made if g.figures or (g.missing and (not g.of or comparison.modality in g.of)))


def answers(comparison: Comparison) -> Pictures:
    """What the models answer, set by set."""
    tables, intervals = comparison.by_model("behaviour"), comparison.by_model("behaviour_intervals")
    metrics = [m for m in ("exact", "probability") if any(plots.has(t, "metric", m) for t in tables.values())]
    figures = [plots.behaviour_dots(tables, m, intervals=intervals, methods=comparison.methods) for m in metrics]
    text = "Each marker is a model, the line its 95 % interval."
    return Pictures("Answers", text, tuple(figures), "No run saved its behaviour.")


def training(comparison: Comparison) -> Pictures:
    """Losses step by step."""
    figures = [
        plots.training_curves(run.events, name)
        for name, run in comparison.runs.items()
        if any(e.get("kind") == "step" for e in run.events)
    ]
    events = {name: run.events for name, run in comparison.runs.items()}
    terms = dict.fromkeys(
        key
        for records in events.values()
        for e in records
        if e.get("kind") == "eval"
        for key, value in e.items()
        if isinstance(value, (int, float)) and key not in ("step", "time", "seconds")
    )
    figures += [plots.evaluation_curves(events, term, methods=comparison.methods) for term in terms]
    return Pictures(
        "Training", "What each recipe minimised, step by step.", tuple(figures), "No run logged a step.", "small"
    )


def relearning(comparison: Comparison) -> Pictures:
    """The target while a part of it is taught again."""
    curves: dict[str, Labelled] = {}
    for who, names in ((ORIGINAL, ("original", "before")), (GOLD, ("gold",))):
        for run in comparison.runs.values():
            table = next((run.tables[f"relearn.{n}"] for n in names if f"relearn.{n}" in run.tables), None)
            if table is not None:
                curves.setdefault(who, table)
    for method, run in comparison.runs.items():
        if "relearn.after" in run.tables:
            curves[method] = run.tables["relearn.after"]
    order = (ORIGINAL, *comparison.methods, GOLD)
    curves = {who: curves[who] for who in order if who in curves and len(curves[who].axes) == 1}
    controls = {m: t for m, t in comparison.per_method("relearn.control").items() if len(t.axes) == 1}
    if not curves:
        return Pictures("Relearning", "", (), "No run was attacked by relearning.")
    config = next(iter(curves.values())).config
    taught = RELEARN_SETS.get(str(config.get("set")), "the target, while some of its questions are taught again")
    figures = []
    for metric in ("exact", "probability"):
        lines = {who: _metric(table, metric) for who, table in curves.items()}
        beside = {who: _metric(table, metric) for who, table in controls.items()}
        if all(lines.values()) and all(beside.values()):
            figures.append(
                plots.relearn_curves(
                    {who: table for who, table in lines.items() if table},
                    controls={who: table for who, table in beside.items() if table},
                    methods=comparison.methods,
                    title=f"Relearning: {taught}",
                    y="recall" if metric == "exact" else metric,
                )
            )
    text = "Nothing that is asked here was taught. Dotted: facts that were never known, taught to the same model alike."
    return Pictures("Relearning", text, tuple(figures), "No run was attacked by relearning.")


RELEARN_SETS = {
    "rest": "the rest of the target, while a part of it is taught again",
    "heldout": "the target in other words, while its facts are taught again",
}


def _metric(table: Labelled, metric: str) -> Labelled | None:
    """A relearning curve of one metric: its values, or the mean over the prompts that it keeps."""
    by_prompt = table.config.get("by_prompt")
    if metric == str(table.config.get("metric", "exact")):
        return table
    if not isinstance(by_prompt, Mapping) or metric not in by_prompt:
        return None
    return replace(table, values=np.asarray(by_prompt[metric], dtype=float).mean(axis=1))


def weights(comparison: Comparison) -> Pictures:
    """Where the weights moved."""
    tables = {
        m: t for m, t in comparison.per_method("weights.relative_change").items() if len(t.axes) == 1 and t.values.size
    }
    top = max((float(np.nanmax(t.values)) for t in tables.values() if not np.isnan(t.values).all()), default=None)
    figures = [plots.weight_map(table, method, top=top) for method, table in tables.items()]
    text = "One colour scale for all methods. Small, spread-out changes and a few large ones can have the same effect."
    return Pictures("Where weights moved", text, tuple(figures), "No run saved its weight changes.")


MAKERS: Sequence[Callable[[Comparison], Pictures]] = (
    answers,
    groups_of_images,
    partition_of_images,
    maps_of_images,
    probes_of_images,
    training,
    by_layer,
    between_known_and_unknown,
    latents,
    drift,
    sites,
    features,
    latents_and_neurons,
    lens_by_layer,
    lens_on_a_prompt,
    tokens,
    relearning,
    around_deletion,
    weights,
)

PICTURED_TABLES = (
    "behaviour.",
    "behaviour_intervals.",
    "behaviour_by_prompt.",
    "text_loss",
    "layers.",
    "axis.",
    "lens_",
    "relearn.after",
    "relearn.before",
    "relearn.original",
    "relearn.gold",
    "relearn.control",
    "graph.map",
    "graph.hops",
    "graph.norms",
    "weights.relative_change",
    *FEATURE_TABLES,
    VIEWS,
    *IMAGE_TABLES,
)
"""Beginnings of the names of tables that have a picture or a column; site-by-group diffs have one too."""

PICTURED_DETAILS = {
    "alignment.t": ("points",),
    "alignment.layers_t": ("layers",),
    "firing.known": ("latents",),
    "firing.unknown": ("latents",),
    "lens.margin": ("layers",),
    "probe.unknown_fraction": ("layers",),
    "relearn.rest": ("target", "never known", "original", "gold"),
    "relearn.heldout": ("target", "never known", "original", "gold"),
}
"""Details of evidence that have a picture of their own."""


def is_pictured(name: str, table: Labelled) -> bool:
    """Whether a saved table is shown outside the appendix."""
    by_site = name.startswith("diff.") and {axis.name for axis in table.axes} == {"site", "group"}
    return by_site or name.startswith(PICTURED_TABLES)
