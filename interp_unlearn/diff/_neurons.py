"""Which neurons changed most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.diff._activations import rank_features, top_features
from interp_unlearn.diff._pairs import group_names, pair
from interp_unlearn.hooked import Activations

NEURONS = "mlp.hook_post"


def compare_neurons(
    before: Activations,
    after: Activations,
    *,
    sites: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    top: int | None = 100,
    lead: str | None = None,
) -> list[Labelled]:
    """Mean, firing frequency (above 0) and effect size of neurons before and after, ranked over all sites.

    Args:
        before: Activations of the original model.
        after: Of the same inputs in the edited model.
        sites: Sites whose features are neurons; default the captured ``mlp.hook_post`` sites.
        groups: Groups compared; default all.
        top: Keep so many neurons; None keeps all.
        lead: Group whose absolute effect ranks the neurons; default the first (the target).

    Returns:
        ``diff.neurons``, axes (neuron, group, statistic) as in `compare_latents`, named ``<site>[<index>]``; and
        ``diff.neuron_sites``, axes (site, group): root mean square effect of all neurons of a site.

    Raises:
        DataError: If no neurons were captured, or the inputs differ.
    """
    sites = [s for s in before.sites if s.endswith(NEURONS)] if sites is None else list(sites)
    if not sites:
        raise DataError(f"no neurons were captured; capture sites such as 'blocks.3.{NEURONS}' in both phases")
    names = group_names(before, groups)
    first = names.index(lead) if lead else 0
    kept: list[np.ndarray] = []
    labels: list[str] = []
    by_site = np.empty((len(sites), len(names)))
    rows: dict[str, int] = {}
    statistics: tuple[str, ...] = ()
    for s, site in enumerate(sites):
        both = pair(before, after, site)
        values, statistics = rank_features(both, names, fires_above=0.0)
        by_site[s] = np.sqrt((values[..., -1] ** 2).mean(0))
        order = top_features(values, first, top)
        kept.append(values[order])
        labels += [f"{site}[{i}]" for i in order]
        rows = {g: len(both.groups[g]) for g in names}
    every = np.concatenate(kept)
    order = top_features(every, first, top)
    config = {"ranked_by": lead or names[0], "rows": rows, "sites": sites}
    note = "effect: shift of the mean over the neuron's standard deviation within groups and phases, pooled"
    count, policy = sum(rows.values()), before.mask_policy
    ranked = (Axis("neuron", tuple(labels[i] for i in order)), Axis("group", names), Axis("statistic", statistics))
    summary = (Axis("site", tuple(sites)), Axis("group", names))
    return [
        Labelled("diff.neurons", every[order], ranked, n=count, mask_policy=policy, config=config, note=note),
        Labelled("diff.neuron_sites", by_site, summary, n=count, mask_policy=policy, config=config, note=note),
    ]
