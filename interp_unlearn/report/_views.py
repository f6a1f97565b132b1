"""Pictures from the tables that runs save for views: sites, tokens and lens of one prompt, latents, neurons.

One prompt and one measure of each are shown; the rest is for the explorer, or for `report.plots` in a notebook.
"""

from __future__ import annotations

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison
from interp_unlearn.report._kinds import parts_of
from interp_unlearn.report._slices import Pictures

VIEWS = "view."
"""How the names of these tables begin."""


def _missing(comparison: Comparison, part: str, what: str) -> str:
    """Why there is nothing; empty where the runs' kind of model has no such view at all."""
    parts = parts_of(comparison)
    if parts and part not in parts:
        return ""
    reason = str(parts.get(part, {}).get("reason") or "")
    return f"{what}: {reason}." if reason else f"{what}; interp-unlearn evidence RUN --only {part} adds it."


def sites(comparison: Comparison) -> Pictures:
    """What moved at every site of every block."""
    figures = [
        plots.site_map(table, name=method) for method, table in comparison.per_method(f"{VIEWS}site_map").items()
    ]
    text = "Each kind of site at each layer, at mentions of the target, of neighbours and of unknown entities."
    missing = _missing(comparison, "site_map", "No run saved a site map")
    return Pictures("What moved, site by site", text, tuple(figures), missing, "one")


def tokens(comparison: Comparison) -> Pictures:
    """One prompt token by token: what moved, and what would be said next."""
    figures = []
    for method, table in comparison.per_method(f"{VIEWS}token_map").items():
        figures.append(plots.token_map(table, name=method))
    for method, table in comparison.per_method(f"{VIEWS}next_tokens").items():
        figures.append(plots.next_token_bars(table, top=8, name=method))
    text = "A held-out question about the target: where its tokens moved, and what the models would say next."
    return Pictures(
        "One question, token by token",
        text,
        tuple(figures),
        _missing(comparison, "token_map", "No run saved a token map"),
    )


def lens_on_a_prompt(comparison: Comparison) -> Pictures:
    """The logit lens on one prompt, layer by position."""
    grids: dict[str, Labelled] = {}
    for method, table in comparison.per_method(f"{VIEWS}lens_grid").items():
        for phase, who in (("before", ORIGINAL), ("after", method), ("gold", GOLD)):
            if who not in grids and plots.has(table, "phase", phase):
                grids[who] = plots.prompt_slice(table, 0, phase)
    order = (ORIGINAL, *comparison.methods, GOLD)
    figures = [plots.lens_grid(grids[who], who) for who in order if who in grids]
    prompt = next((str(t.config["prompt"]) for t in grids.values()), "")
    text = "The most likely next token at each layer and position of one held-out question"
    return Pictures(
        "Logit lens on one prompt",
        f"{text}: “{prompt}”" if prompt else f"{text}.",
        tuple(figures),
        _missing(comparison, "lens_grid", "No run saved the logit lens of a prompt"),
    )


def latents_and_neurons(comparison: Comparison) -> Pictures:
    """What the latents mark that changed, and whether the neurons of the answers moved."""
    figures = [
        plots.latent_ranking(table, method) for method, table in comparison.per_method(f"{VIEWS}latents").items()
    ]
    figures += [
        plots.neuron_layers(table, method) for method, table in comparison.per_method(f"{VIEWS}neuron_layers").items()
    ]
    text = "Latents by what they mark and how they changed; neurons of the target's answers, and those that moved."
    return Pictures(
        "Marks of latents, places of neurons",
        text,
        tuple(figures),
        _missing(comparison, "latents", "No run saved its latents"),
    )
