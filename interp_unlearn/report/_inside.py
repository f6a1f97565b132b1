"""Pictures of what lies inside: alignment, latents, drift, logit lens by layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import ORIGINAL, Comparison
from interp_unlearn.report._slices import Pictures, details, picked, with_detail

FEATURE_TABLES = ("diff.latents", "diff.neurons")


def by_layer(comparison: Comparison) -> Pictures:
    """Position between known and unknown at every captured layer."""
    figures: list[go.Figure] = []
    for name in with_detail(comparison, "alignment.layers_t", "layers"):
        tables = details(comparison, name, "layers")
        for statistic, title, wanted in LAYER_MEASURES:
            curves = picked(tables, group="target", statistic=statistic)
            if not curves:
                continue
            bands = {}
            for group, word in (("known_eval", "known"), ("unknown_eval", "unknown")):
                middle = picked({word: tables.get(ORIGINAL, next(iter(tables.values())))}, group=group)
                curves |= picked(middle, statistic=statistic)
                spread = picked(middle, statistic=f"{statistic}_sd_entities")
                if word == "unknown" and spread:
                    bands[word] = _around(curves[word], spread[word])
            figures.append(
                plots.layer_curves(
                    curves,
                    f"{title} ({name.split('/')[-1]})",
                    statistic,
                    forgotten=wanted,
                    methods=comparison.methods,
                    bands=bands,
                )
            )
    for name in with_detail(comparison, "probe.unknown_fraction", "layers"):
        tables = picked(details(comparison, name, "layers"), group="target")
        for probe, whose in (("original", "of the original model"), ("fresh", "trained anew on each model")):
            curves = picked(tables, probe=probe)
            if curves:
                figures.append(
                    plots.layer_curves(
                        curves,
                        f"Share of the target's mentions called unknown by the probe {whose}",
                        "share",
                        share=True,
                        forgotten="Forgotten: as high as in gold and for unknown entities (near 1).",
                        methods=comparison.methods,
                    )
                )
    for stem in comparison.stems("layers."):
        curves = {who: _target_only(t) for who, t in comparison.by_model(stem).items()}
        curves = {who: t for who, t in curves.items() if len(t.axes) == 1}
        if curves:
            figures.append(plots.layer_curves(curves, stem.removeprefix("layers."), stem, methods=comparison.methods))
    text = (
        "Where the target's activations lie at each captured layer, also at layers where the recipe had no loss. "
        "The shaded band is one standard deviation over unknown entities."
    )
    return Pictures("Alignment by layer", text, tuple(figures), "No run measured alignment by layer.", "small")


LAYER_MEASURES = (
    ("t", "Position t of the target by layer", "Forgotten: inside the band of unknown entities, at every layer."),
    ("r", "Distance r off the axis by layer", "Forgotten: as far as unknown entities are, not further."),
    ("A", "Alignment ratio A by layer", "Forgotten: near the line of unknown entities; read r beside it."),
)


def _around(middle: Labelled, spread: Labelled) -> tuple[Labelled, Labelled]:
    return _moved(middle, middle.values - spread.values), _moved(middle, middle.values + spread.values)


def _moved(table: Labelled, values: np.ndarray) -> Labelled:
    return dataclasses.replace(table, values=values)


def _target_only(table: Labelled) -> Labelled:
    for axis in ("group", "set"):
        for label in ("target", "forget_heldout", "paraphrased"):
            if plots.has(table, axis, label):
                return plots.pick(table, axis, label)
    return table


def between_known_and_unknown(comparison: Comparison) -> Pictures:
    """T against r, mention by mention."""
    found: dict[str, dict[str, Labelled]] = {}
    for name in with_detail(comparison, "alignment.t", "points"):
        found[name.split("/")[-1]] = details(comparison, name, "points")
    for stem in comparison.stems("axis."):
        found.setdefault(stem.removeprefix("axis."), comparison.by_model(stem))
    figures = [
        plots.alignment_scatter(
            points, methods=comparison.methods, title=f"Target between known and unknown entities ({basis})"
        )
        for basis, points in found.items()
        if points
    ]
    text = (
        "One small mark per mention of a name in templates that no recipe saw, or per edge, node or image; large marks "
        "are means. Residual means no SAE; gold is placed on its own axis."
    )
    return Pictures(
        "Between known and unknown (t, r)", text, tuple(figures), "No run saved positions of single mentions."
    )


def latents(comparison: Comparison) -> Pictures:
    """Firing of known and unknown latents."""
    figures = []
    for side in ("known", "unknown"):
        for name in with_detail(comparison, f"firing.{side}", "latents"):
            tables = picked(details(comparison, name, "latents"), statistic="frequency")
            bars = picked(tables, group="target")
            base = {w: tables[ORIGINAL] for w in ("known", "unknown") if ORIGINAL in tables}
            references = {
                word: plots.pick(table, "group", f"{word}_eval")
                for word, table in base.items()
                if plots.has(table, "group", f"{word}_eval")
            }
            figure = plots.latent_bars(bars, side, references=references, methods=comparison.methods)
            figure.update_layout(
                title_text=plots.plain(f"Latents of {side} entities at the target's name ({name.split('/')[-1]})")
            )
            figures.append(figure)
    text = (
        "How often the latents that tell known from unknown entities fire on the target; marks show real entities in "
        "the original model."
    )
    return Pictures(
        "Latents", text, tuple(figures), "No run measured latents (no SAE was named in its config).", of=("language",)
    )


def drift(comparison: Comparison) -> Pictures:
    """Activations before and after, site by site."""
    figures = []
    for name in comparison.names("tables"):
        tables = comparison.per_method(name)
        usable = {m: t for m, t in tables.items() if {a.name for a in t.axes} == {"site", "group"}}
        if name.startswith("diff.") and usable:
            measure = name.removeprefix("diff.").replace("_", " ").replace("cka", "CKA")
            note = next(iter(usable.values())).note
            figures.append(
                plots.drift_curves(
                    usable,
                    f"{measure[:1].upper()}{measure[1:]}, original against edited",
                    measure,
                    forgotten=note,
                    methods=comparison.methods,
                )
            )
    text = (
        "How far activations moved between the original and the edited model, on the target (solid) and on known "
        "neighbours (dotted), which should not move."
    )
    return Pictures(
        "What moved inside", text, tuple(figures), "No run compared its activations before and after.", "small"
    )


def features(comparison: Comparison) -> Pictures:
    """Single latents and neurons, ranked by change."""
    figures = [
        plots.feature_changes(table, method, methods=comparison.methods)
        for name in FEATURE_TABLES
        for method, table in comparison.per_method(name).items()
        if [a.name for a in table.axes][1:] == ["group", "statistic"] and plots.has(table, "statistic", "effect")
    ]
    text = "Ranked by their effect on the target; marks show how far the same latents or neurons moved on other groups."
    return Pictures(
        "Latents and neurons that moved",
        text,
        tuple(figures),
        "No run compared latents or neurons.",
        "small",
        ("language",),
    )


def lens_by_layer(comparison: Comparison) -> Pictures:
    """The answer through the logit lens."""
    figures: list[go.Figure] = []
    for stem in comparison.stems("lens_"):
        tables = {who: t for who, t in comparison.by_model(stem).items() if _by_layer_only(t)}
        if tables:
            what = stem.removeprefix("lens_")
            about_target = what.startswith("forget")
            figures.append(plots.lens_curves(tables, what, forgotten=about_target, methods=comparison.methods))
    for name in with_detail(comparison, "lens.margin", "layers"):
        about_target = name.split("/")[-1].startswith("forget")
        figures.append(
            plots.layer_curves(
                details(comparison, name, "layers"),
                f"Logit lens: margin over other answers of its type ({plots.set_words(name.split('/')[-1])})",
                "margin, nats",
                forgotten="Forgotten: near 0 at every layer, as in gold."
                if about_target
                else "Unharmed: as in the original, at every layer.",
                methods=comparison.methods,
            )
        )
    text = "What the output head reads at the last position of the question, layer by layer; means over prompts."
    return Pictures(
        "Logit lens by layer", text, tuple(figures), "No run saved the logit lens by layer.", of=("language",)
    )


def _by_layer_only(table: Labelled) -> bool:
    """Whether a lens table has layers and no positions (which runs of an earlier version saved for one prompt)."""
    names = {axis.name for axis in table.axes}
    return "layer" in names and "position" not in names
