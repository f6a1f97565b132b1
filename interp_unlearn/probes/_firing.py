"""Firing of the latents that mark known and unknown entities (S_K and S_U), before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.latents import separation_scores
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._catalogue import evidence, missing
from interp_unlearn.probes._rows import Dictionary, Rows, check_pair, index_array, rows_of, why_missing
from interp_unlearn.probes._tables import SHOWN

FIRES_ABOVE = 1e-6
Latents = Sequence[int] | np.ndarray | Tensor


def separating_latents(rows: Rows, k: int = 10) -> dict[str, np.ndarray]:
    """The k latents that tell known from unknown references best, each way, by `latents.separation_scores` of one type.

    Generic latents are not excluded, since that needs a rate on random words.

    Returns:
        ``{"known": indices, "unknown": indices}``, best first, scores above 0 only.
    """
    known, unknown = (torch.from_numpy(rows.of(g).x).float() for g in ("known_ref", "unknown_ref"))
    scores = separation_scores(known, unknown, ["-"] * len(known), ["-"] * len(unknown), eps=FIRES_ABOVE)
    return {"known": index_array(scores.top_known(k)), "unknown": index_array(scores.top_unknown(k))}


def firing(
    before: Activations,
    after: Activations,
    site: str,
    sae: Dictionary,
    known: Latents | None = None,
    unknown: Latents | None = None,
    *,
    basis: str = "sae",
    seed: int = 0,
) -> list[Evidence]:
    """How often and how strongly the chosen latents fire on target, known and unknown entities.

    Args:
        before: Activations of the original model.
        after: The same rows in the edited model.
        site: Where the SAE reads.
        sae: The SAE.
        known: Indices of the latents that mark known entities (S_K); default `separating_latents`.
        unknown: Indices of the latents that mark unknown entities (S_U); default likewise.
        basis: Last part of the evidence names.
        seed: Seed of the intervals.

    Returns:
        ``firing.known`` and ``firing.unknown``: mean firing frequency on the target after. Details: ``latents``, axes
        (latent, phase, group, statistic), statistics ``frequency`` and ``mean``.
    """
    check_pair(before, after, site)
    phases = {"before": rows_of(before, site, sae), "after": rows_of(after, site, sae)}
    policy = before.mask_policy
    reason = why_missing(phases, (*SHOWN, "known_ref", "unknown_ref"))
    if reason:
        return [missing(f"firing.{s}", basis, reason, mask_policy=policy) for s in ("known", "unknown")]
    default = separating_latents(phases["before"])
    chosen = {
        "known": default["known"] if known is None else index_array(known),
        "unknown": default["unknown"] if unknown is None else index_array(unknown),
    }
    return [_one_side(side, index, basis, site, phases, seed) for side, index in chosen.items()]


def _one_side(side: str, index: np.ndarray, basis: str, site: str, phases: dict[str, Rows], seed: int) -> Evidence:
    kind = f"firing.{side}"
    after = phases["after"].of("target")
    if not len(index):
        reason = f"no latent fires more often on {side} references than on the others"
        return missing(kind, basis, reason, mask_policy=after.mask_policy)
    values = np.empty((len(index), len(phases), len(SHOWN), 2))
    for p, rows in enumerate(phases.values()):
        for g, group in enumerate(SHOWN):
            z = rows.of(group).x[:, index]
            values[:, p, g, 0], values[:, p, g, 1] = (z > FIRES_ABOVE).mean(0), z.mean(0)
    table = Labelled(
        f"firing of {side} latents",
        values,
        (
            Axis("latent", tuple(str(i) for i in index)),
            Axis("phase", tuple(phases)),
            Axis("group", SHOWN),
            Axis("statistic", ("frequency", "mean")),
        ),
        n=int(np.isin(phases["after"].group, SHOWN).sum()),
        mask_policy=after.mask_policy,
        config={"fires_above": FIRES_ABOVE, "site": site},
    )
    each = (after.x[:, index] > FIRES_ABOVE).mean(1)
    average = values[..., 0].mean(0)  # (phase, group)
    target, unknown_eval = SHOWN.index("target"), SHOWN.index("unknown_eval")
    return evidence(
        kind,
        basis,
        each.mean(),
        n=len(each),
        mask_policy=after.mask_policy,
        interval=mean_interval(each, (after.entity, after.template), numpy_rng(seed, kind, basis)),
        control=float(average[1, unknown_eval]),
        details={"latents": table},
        config={
            "site": site,
            "latents": [int(i) for i in index],
            "before": float(average[0, target]),
            "control_before": float(average[0, unknown_eval]),
        },
        seed=seed,
    )
