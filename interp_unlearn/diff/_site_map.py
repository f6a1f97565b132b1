"""Site map: what moved in the residual stream, in attention outputs and in MLP outputs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from interp_unlearn._core import DataError, Labelled
from interp_unlearn.diff._activations import NOTES, compare_activations
from interp_unlearn.hooked import Activations, HookedModel
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._mentions import read_mentions
from interp_unlearn.probes._parts import Progress
from interp_unlearn.probes._view import view_table
from interp_unlearn.worlds import Task

TABLE = "view.site_map"
SITES = {"resid_post": "hook_resid_post", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}
ENTITIES = 4  # of the target, of neighbours and of unknown ones, each


def mapped_sites(model: HookedModel) -> dict[str, list[str]]:
    """The sites of every block, by what they are; those that some block lacks are left out."""
    layers = range(model.lm.n_layers)
    found = {short: [f"blocks.{i}.{name}" for i in layers] for short, name in SITES.items()}
    return {short: names for short, names in found.items() if all(name in model.sites for name in names)}


def site_map(before: Activations, others: Mapping[str, Activations], sites: Mapping[str, list[str]]) -> Labelled:
    """Measures of `compare_activations` as one array.

    Args:
        before: Of the original.
        others: Phase to activations of the same rows.
        sites: What they are to the sites of every block, in order.

    Returns:
        Axes (phase, site, layer, group, measure).
    """
    depth = len(next(iter(sites.values())))
    flat = [name for names in sites.values() for name in names]
    compared = [compare_activations(before, other, sites=flat) for other in others.values()]
    groups = compared[0][0].axes[1].labels
    shape = (len(others), len(NOTES), len(sites), depth, len(groups))
    values = np.stack([np.stack([table.values for table in tables]) for tables in compared]).reshape(shape)
    measures = [name.removeprefix("diff.") for name in NOTES]
    return view_table(
        "what moved, by kind of site and layer",
        values.transpose(0, 2, 3, 4, 1),
        {"phase": tuple(others), "site": tuple(sites), "layer": range(depth), "group": groups, "measure": measures},
        n=compared[0][0].n,
        mask_policy=before.mask_policy,
        config={"rows": compared[0][0].config["rows"], "notes": dict(zip(measures, NOTES.values(), strict=True))},
        note="each phase against the original, on the same mentions",
    )


def look(phases: Phases, progress: Progress) -> Found:
    """The site map of the edited model and of gold, on a few entities of each group."""
    task = _thinned(phases.task)
    with phases.open("before") as model:
        sites = mapped_sites(model)
    if not sites:
        raise DataError("no kind of site is there in every block, so there is no map to draw")
    flat = [name for names in sites.values() for name in names]
    acts: dict[str, Activations] = {}
    for phase in phases.names:
        progress(f"reading every site of every block ({phase})", 0, 0)
        acts[phase] = read_mentions(phases, phase, task, flat)
    before = acts.pop("before")
    return Found(tables={TABLE: site_map(before, acts, sites)})


def _thinned(task: Task) -> Task:
    return replace(
        task,
        target_entities=task.target_entities[:ENTITIES],
        known_eval=task.known_eval[:ENTITIES],
        unknown_eval=task.unknown_eval[:ENTITIES],
        known_ref=(),
        unknown_ref=(),
    )


register_part(Part("site_map", "what moved at every site of every block, for pictures", "view", "quick", look))
