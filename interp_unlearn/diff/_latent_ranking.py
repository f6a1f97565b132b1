"""Every latent of an SAE by how it changed at the target's name and by whether it marks known entities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.diff._latents import compare_latents
from interp_unlearn.hooked import Activations
from interp_unlearn.latents import SAE

MEASURES = (
    "effect", "effect_neighbours", "effect_unknown", "known_score",
    "mean_before", "mean_after", "mean_gold", "frequency_before", "frequency_after", "frequency_gold",
)  # fmt: skip
NOTE = (
    "effect: shift of the mean at the target's mentions, in standard deviations; known_score: share of known less "
    "share of unknown entities at which it fires, in the original; mean and frequency: at the target's mentions"
)
CHANGED, MARKING = 100, 30  # latents kept: those that changed most, those that mark known, and unknown, entities
SHOWN, SHOWN_MARKING = 24, 6  # latents with a dashboard, of them so many that mark known, and unknown, entities


def latent_ranking(acts: Mapping[str, Activations], site: str, sae: SAE) -> Labelled:
    """Every latent's change and known score.

    Args:
        acts: Mention activations by phase: ``"before"``, ``"after"`` and, where it exists, ``"gold"``.
        site: Where the SAE reads.
        sae: The SAE.

    Returns:
        Axes (latent, measure) with `MEASURES`, in the latents' own order.
    """
    before = acts["before"]
    groups = tuple(dict.fromkeys(before.labels["group"]))
    after, gold = (
        _in_order(compare_latents(before, acts[phase], site, sae, top=None)[0]) if phase in acts else None
        for phase in ("after", "gold")
    )
    assert after is not None
    n = len(after.axes[0].labels)

    def read(table: Labelled | None, group: str, statistic: str) -> np.ndarray:
        if table is None or group not in groups:
            return np.full(n, np.nan)
        return np.asarray(table.at(group=group, statistic=statistic))

    known, unknown = (read(after, group, "frequency_before") for group in ("known_ref", "unknown_ref"))
    columns = {
        "effect": read(after, "target", "effect"),
        "effect_neighbours": read(after, "known_eval", "effect"),
        "effect_unknown": read(after, "unknown_eval", "effect"),
        "known_score": known - unknown,
        "mean_before": read(after, "target", "mean_before"),
        "mean_after": read(after, "target", "mean_after"),
        "mean_gold": read(gold, "target", "mean_after"),
        "frequency_before": read(after, "target", "frequency_before"),
        "frequency_after": read(after, "target", "frequency_after"),
        "frequency_gold": read(gold, "target", "frequency_after"),
    }
    return Labelled(
        "latents by change and known score",
        np.stack([columns[name] for name in MEASURES], 1),
        (after.axes[0], Axis("measure", MEASURES)),
        n=after.n,
        mask_policy=before.mask_policy,
        config={**after.config, "sae": sae.name},
        note=NOTE,
    )


def _in_order(table: Labelled) -> Labelled:
    """A table of all latents in the latents' own order instead of ranked."""
    order = np.argsort([int(label) for label in table.axes[0].labels])
    axis = Axis("latent", tuple(table.axes[0].labels[i] for i in order))
    return replace(table, values=table.values[order], axes=(axis, *table.axes[1:]))


def choose(ranking: Labelled) -> tuple[list[int], list[int]]:
    """The latents that are kept, those that changed most first, and those of them that get a dashboard."""
    effect = np.nan_to_num(np.abs(ranking.at(measure="effect")), nan=0.0)
    score = np.nan_to_num(ranking.at(measure="known_score"), nan=0.0)
    changed = [int(i) for i in np.argsort(-effect, kind="stable") if effect[i] > 0][:CHANGED]
    known = [int(i) for i in np.argsort(-score, kind="stable") if score[i] > 0][:MARKING]
    unknown = [int(i) for i in np.argsort(score, kind="stable") if score[i] < 0][:MARKING]
    kept = list(dict.fromkeys([*changed, *known, *unknown]))
    first = changed[: SHOWN - 2 * SHOWN_MARKING]
    marking = [*known[:SHOWN_MARKING], *unknown[:SHOWN_MARKING]]
    return kept, list(dict.fromkeys([*first, *marking, *changed]))[:SHOWN]
