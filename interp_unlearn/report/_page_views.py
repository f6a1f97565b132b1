"""The views of every page: the report's groups of pictures, and those in which something is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison
from interp_unlearn.report._graphs import around_deletion
from interp_unlearn.report._images import (
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
from interp_unlearn.report._pages import EVENTS, Choices, Chosen, View, no_choices, register_view
from interp_unlearn.report._pictures import MAKERS, answers, relearning, training, weights
from interp_unlearn.report._slices import Pictures
from interp_unlearn.report._views import latents_and_neurons, lens_on_a_prompt, sites, tokens

NO_SAE = "Name an SAE in the config of the run: [latents] sae = …"
NO_LENS = "Runs save it unless their config says: [evidence] lens = false."
EVERY_LEVEL = "It is part of the evidence of every level."
ADD = "Add it to a finished run: interp-unlearn evidence RUN --only {part}"

Make = Callable[[Comparison], Pictures]
Draw = Callable[[Labelled, str, Chosen], Iterator[go.Figure]]
"""Figures of one table of one method, given what was chosen."""


def _first(comparison: Comparison, table: str) -> Labelled:
    return next(iter(comparison.per_method(table).values()))


def _labels(table: Labelled, axis: str) -> tuple[str, ...]:
    return next(a.labels for a in table.axes if a.name == axis)


# -- one table, one picture at a time ----------------------------------------------------------------------------------


def _drawn(title: str, text: str, name: str, draw: Draw) -> Callable[[Comparison, Chosen], Pictures]:
    def make(comparison: Comparison, chosen: Chosen) -> Pictures:
        tables = comparison.per_method(name)
        return Pictures(
            title, text, tuple(f for method, t in tables.items() for f in draw(t, method, chosen)), "", "one"
        )

    return make


def _prompt_of(table: Labelled, chosen: Chosen) -> int:
    """Number of the chosen prompt; the first where this run has no such prompt."""
    return next((i for i, words in plots.prompt_choices(table).items() if words == chosen.get("prompt")), 0)


def _prompts(name: str, measures: Mapping[str, object] | None = None) -> Callable[[Comparison], Choices]:
    def choices(comparison: Comparison) -> Choices:
        found = {"prompt": tuple(plots.prompt_choices(_first(comparison, name)).values())}
        return {**found, "measure": tuple(measures)} if measures else found

    return choices


def _token_map(table: Labelled, method: str, chosen: Chosen) -> Iterator[go.Figure]:
    phases = _labels(table, "phase") if chosen["measure"] == "norm" else ("after", "gold")
    yield plots.token_map(table, _prompt_of(table, chosen), chosen["measure"], phases=phases, name=method)


def _next_tokens(table: Labelled, method: str, chosen: Chosen) -> Iterator[go.Figure]:
    yield plots.next_token_bars(table, _prompt_of(table, chosen), name=method)


def _site_map(table: Labelled, method: str, chosen: Chosen) -> Iterator[go.Figure]:
    if plots.has(table, "phase", chosen["phase"]):
        yield plots.site_map(table, chosen["measure"], phase=chosen["phase"], name=method)


def _site_choices(comparison: Comparison) -> Choices:
    return {"measure": tuple(plots.SITE_MEASURES), "phase": _labels(_first(comparison, "view.site_map"), "phase")}


def _neurons(table: Labelled, method: str, _chosen: Chosen) -> Iterator[go.Figure]:
    yield plots.neuron_map(table, method)


def _neuron_layers(table: Labelled, method: str, _chosen: Chosen) -> Iterator[go.Figure]:
    yield plots.neuron_layers(table, method)


# -- grids side by side, a latent's dashboard --------------------------------------------------------------------------


def _grids(name: str, lens: str) -> Callable[[Comparison, Chosen], Pictures]:
    """A lens on one prompt: the original, each method, gold."""

    def make(comparison: Comparison, chosen: Chosen) -> Pictures:
        grids: dict[str, Labelled] = {}
        for method, table in comparison.per_method(name).items():
            for phase, who in (("before", ORIGINAL), ("after", method), ("gold", GOLD)):
                if who not in grids and plots.has(table, "phase", phase):
                    grids[who] = plots.prompt_slice(table, _prompt_of(table, chosen), phase)
        measure = chosen["measure"]
        figures = [plots.lens_grid(grid, who, measure=measure, lens=lens) for who, grid in grids.items()]
        text = "What would be said next after each token, read at each layer."
        return Pictures(f"{lens} on one prompt", text, tuple(figures), "")

    return make


def _dashboard(comparison: Comparison, chosen: Chosen) -> Pictures:
    """One latent: rank, how strongly it fires, what it stands for, where it fires."""
    latent, figures = chosen["latent"], []
    for method, run in comparison.runs.items():
        tables = {name: run.tables.get(f"view.{name}") for name in ("latents", *DASHBOARD)}
        if tables["latents"] is not None:
            figures.append(plots.latent_ranking(tables["latents"], method, latent=latent))
        for name, draw in DASHBOARD.items():
            table = tables[name]
            if table is not None and plots.has(table, "latent", latent):
                figures += draw(table, latent)
    text = "Known and unknown scores are of the original model; contexts show the tokens on which it fires most."
    return Pictures(f"Latent {latent}", text, tuple(figures), "No run saved a dashboard of this latent.")


DASHBOARD: Mapping[str, Callable[[Labelled, str], list[go.Figure]]] = {
    "latent_histogram": lambda table, latent: [plots.latent_histogram(table, latent)],
    "latent_contexts": lambda table, latent: [
        plots.latent_contexts(table, latent, phase=phase) for phase in _labels(table, "phase")
    ],
    "latent_logits": lambda table, latent: [plots.latent_logits(table, latent)],
}


def _latents(comparison: Comparison) -> Choices:
    """Those with a dashboard."""
    tables = comparison.per_method("view.latent_contexts").values()
    return {"latent": tuple(dict.fromkeys(label for table in tables for label in _labels(table, "latent")))}


# -- which view is on which page ---------------------------------------------------------------------------------------


_placed: set[Make] = {sites, tokens, lens_on_a_prompt, latents_and_neurons}
"""Groups of the report that have a view. Those here show one prompt and one measure, which views let people choose."""


def _plain(make: Make) -> Callable[[Comparison, Chosen], Pictures]:
    _placed.add(make)
    return lambda comparison, _chosen: make(comparison)


def _of_table(
    name: str,
    page: str,
    title: str,
    text: str,
    draw: Draw,
    *,
    part: str,
    choices: Callable[[Comparison], Choices] = no_choices,
) -> View:
    """A view of the table ``view.<name>``, which a part of the evidence saves."""
    table = f"view.{name}"
    return View(name, page, title, (table,), ADD.format(part=part), _drawn(title, text, table, draw), choices)


def _lens(name: str, lens: str, part: str) -> View:
    """A lens on one prompt, model beside model."""
    table = f"view.{part}"
    choices = _prompts(table, {"top": 0, "answer": 0})
    return View(name, "lens", f"{lens}, side by side", (table,), ADD.format(part=part), _grids(table, lens), choices)


TOKENS_TEXT = "Each token of a question at each layer; measures other than the norm are against the original."
SITES_TEXT = "Each kind of site at each layer, at mentions of the target, of neighbours and of unknown entities."
NEXT_TEXT = "What each model would say next."
NEURONS_TEXT = "Attribution of the target's answers in the original, beside the change of each neuron's weights."

VIEWS_IN_ORDER = (
    View("answers", "run", "Answers", ("behaviour.",), "Every finished run saves its answers.", _plain(answers)),
    View("groups", "run", "In the usual setting and out of it", ("bias.",), "", _plain(groups_of_images)),
    View("partition", "run", "CUPID's partition", ("cupid.partition",), "", _plain(partition_of_images)),
    View("training", "run", "Training", (EVENTS,), "Every run that trains logs its steps.", _plain(training)),
    _of_table("site_map", "inside", "Map of sites", SITES_TEXT, _site_map, part="site_map", choices=_site_choices),
    _of_table(
        "token_map",
        "inside",
        "Tokens of a question",
        TOKENS_TEXT,
        _token_map,
        part="token_map",
        choices=_prompts("view.token_map", plots.TOKEN_MEASURES),
    ),
    View("drift", "inside", "What moved, by layer", ("diff.",), "Every finished run saves it.", _plain(drift)),
    View(
        "alignment",
        "inside",
        "Alignment by layer",
        ("alignment.layers_t", "probe.unknown_fraction", "layers."),
        EVERY_LEVEL,
        _plain(by_layer),
    ),
    View(
        "between",
        "inside",
        "Between known and unknown",
        ("alignment.t", "axis."),
        EVERY_LEVEL,
        _plain(between_known_and_unknown),
    ),
    View("deletion", "inside", "Around the deletion", ("graph.",), "", _plain(around_deletion)),
    View("maps", "inside", "Where the class is seen", ("maps.",), "", _plain(maps_of_images)),
    View(
        "blocks", "inside", "Class and setting by block", ("class_probe.", "bias_probe."), "", _plain(probes_of_images)
    ),
    View("weights", "inside", "Where weights moved", ("weights.relative_change",), "", _plain(weights)),
    View("latent", "latents", "One latent", ("view.latent_contexts",), NO_SAE, _dashboard, _latents),
    View("firing", "latents", "Known and unknown latents", ("firing.",), NO_SAE, _plain(latents)),
    View("moved", "latents", "Those that moved most", FEATURE_TABLES[:1], NO_SAE, _plain(features)),
    _of_table("neurons", "neurons", "Layer by neuron", NEURONS_TEXT, _neurons, part="neuron_map"),
    _of_table("neuron_layers", "neurons", "By layer", NEURONS_TEXT, _neuron_layers, part="neuron_map"),
    View("depth", "lens", "Depth curves", ("lens_forget", "lens.margin"), NO_LENS, _plain(lens_by_layer)),
    _lens("logit_lens", "Logit lens", "lens_grid"),
    _lens("tuned_lens", "Tuned lens", "tuned_lens_grid"),
    _of_table(
        "next_tokens",
        "lens",
        "Next tokens",
        NEXT_TEXT,
        _next_tokens,
        part="lens_grid",
        choices=_prompts("view.next_tokens"),
    ),
    View(
        "relearning",
        "attacks",
        "Relearning",
        ("relearn.",),
        "Runs save it unless their config says: [evidence] relearn = false.",
        _plain(relearning),
    ),
)
for _view in VIEWS_IN_ORDER:
    register_view(_view)

for _make in MAKERS:  # a group of pictures that was added to the report appears here, too
    if _make not in _placed:
        register_view(
            View(_make.__name__, "inside", _make.__name__.replace("_", " ").capitalize(), (), "", _plain(_make))
        )
