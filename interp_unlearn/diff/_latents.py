"""Which SAE latents changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.diff._activations import rank_features, top_features
from interp_unlearn.diff._pairs import group_names, pair
from interp_unlearn.hooked import Activations
from interp_unlearn.probes import Dictionary, check_dictionary, encode

FIRES_ABOVE = 1e-6


def compare_latents(
    before: Activations,
    after: Activations,
    site: str,
    sae: Dictionary,
    *,
    groups: Sequence[str] | None = None,
    top: int | None = 100,
    lead: str | None = None,
) -> list[Labelled]:
    """Mean, firing frequency and effect size of each latent before and after, ranked.

    Args:
        before: Activations of the original model.
        after: Of the same inputs in the edited model.
        site: Where the SAE reads.
        sae: The SAE.
        groups: Groups compared; default all.
        top: Keep so many latents; None keeps all.
        lead: Group whose absolute effect ranks the latents; default the first (the target).

    Returns:
        One array ``diff.latents``, axes (latent, group, statistic), best first; statistics ``mean_before``,
        ``mean_after``, ``frequency_before``, ``frequency_after`` and ``effect``.

    Raises:
        DataError: If the SAE reads another site or width, or the inputs differ.
    """
    names = group_names(before, groups)
    both = pair(before, after, site)
    check_dictionary(sae, site, both.before.shape[1])
    coded = replace(both, before=encode(sae, both.before), after=encode(sae, both.after))
    values, statistics = rank_features(coded, names, fires_above=FIRES_ABOVE)
    order = top_features(values, names.index(lead) if lead else 0, top)
    return [
        Labelled(
            "diff.latents",
            values[order],
            (
                Axis("latent", tuple(str(i) for i in order)),
                Axis("group", names),
                Axis("statistic", statistics),
            ),
            n=sum(len(both.groups[g]) for g in names),
            mask_policy=before.mask_policy,
            config={
                "site": site,
                "ranked_by": lead or names[0],
                "latents_in_all": int(values.shape[0]),
                "fires_above": FIRES_ABOVE,
                "rows": {g: len(both.groups[g]) for g in names},
            },
            note="effect: shift of the mean over the latent's standard deviation within groups and phases, pooled",
        )
    ]
