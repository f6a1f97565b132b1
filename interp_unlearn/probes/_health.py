"""Is the target still in the SAE's domain? Unexplained variance, number of active latents, norms."""

from __future__ import annotations

import numpy as np
import torch

from interp_unlearn._core import Evidence, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._bootstrap import cluster_weights, interval
from interp_unlearn.probes._catalogue import evidence, missing
from interp_unlearn.probes._firing import FIRES_ABOVE
from interp_unlearn.probes._rows import Dictionary, Rows, check_pair, decode, rows_of, why_missing
from interp_unlearn.probes._tables import SHOWN, group_table

MASSIVE = 10  # rows whose norm exceeds so many medians are counted as massive activations


def sae_health(
    before: Activations, after: Activations, site: str, sae: Dictionary, *, basis: str = "sae", seed: int = 0
) -> list[Evidence]:
    """Fraction of variance unexplained and L0 of the SAE, before and after.

    The unexplained fraction of a group is sum |x - x̂|² / sum |x - m|², with m the mean of the original's references,
    so that a group of one name has a denominator.

    Returns:
        ``sae.fvu`` and ``sae.l0``, details ``groups`` (``sae.fvu``'s are mean ratios of single rows).
    """
    check_pair(before, after, site)
    h = {"before": rows_of(before, site), "after": rows_of(after, site)}
    z = {"before": rows_of(before, site, sae), "after": rows_of(after, site, sae)}
    policy = before.mask_policy
    reason = why_missing(h, (*SHOWN, "known_ref", "unknown_ref")) or why_missing(z, SHOWN)
    if reason:
        return [missing(kind, basis, reason, mask_policy=policy) for kind in ("sae.fvu", "sae.l0")]
    middle = h["before"].of("known_ref", "unknown_ref").x.mean(0)
    missed, total = {}, {}
    for phase, rows in h.items():
        back = decode(sae, torch.from_numpy(z[phase].x).float()).numpy().astype(np.float64)
        missed[phase] = ((rows.x - back) ** 2).sum(1)
        total[phase] = np.maximum(((rows.x - middle) ** 2).sum(1), 1e-12)
    rng = numpy_rng(seed, "sae.fvu", basis)
    ratio = {phase: missed[phase] / total[phase] for phase in h}
    fraction = {
        (phase, g): float(missed[phase][h[phase].group == g].sum() / total[phase][h[phase].group == g].sum())
        for phase in h
        for g in SHOWN
    }
    on = h["after"].group == "target"
    target = h["after"].where(on)
    weights = cluster_weights((target.entity, target.template), rng)
    drawn = None
    if weights is not None:
        below = weights @ total["after"][on]
        drawn = (weights @ missed["after"][on])[below > 0] / below[below > 0]
    fvu = evidence(
        "sae.fvu",
        basis,
        fraction["after", "target"],
        n=len(target),
        mask_policy=policy,
        interval=interval(drawn),
        control=fraction["after", "unknown_eval"],
        details={"groups": group_table("unexplained fraction of a row", h, ratio, rng, seed=seed)},
        config={
            "site": site,
            "before": fraction["before", "target"],
            "control_before": fraction["before", "unknown_eval"],
        },
        seed=seed,
    )
    active = {phase: (rows.x > FIRES_ABOVE).sum(1).astype(np.float64) for phase, rows in z.items()}
    return [fvu, _mean_evidence("sae.l0", basis, site, h, active, "active latents", seed)]


def norm_ratio(before: Activations, after: Activations, site: str, *, seed: int = 0) -> Evidence:
    """Norm of each row in the edited model over its norm in the original; a jump means the target left the manifold."""
    check_pair(before, after, site)
    h = {"before": rows_of(before, site), "after": rows_of(after, site)}
    reason = why_missing(h, SHOWN)
    if reason:
        return missing("norm.ratio", site, reason, mask_policy=before.mask_policy)
    norms = {phase: np.linalg.norm(rows.x, axis=1) for phase, rows in h.items()}
    ratio = norms["after"] / np.maximum(norms["before"], 1e-12)
    values = {"before": np.ones_like(ratio), "after": ratio}
    found = _mean_evidence("norm.ratio", site, site, h, values, "norm over the original's", seed)
    massive = int((norms["before"] > MASSIVE * np.median(norms["before"])).sum())
    config = {**found.config, "median_norm_before": float(np.median(norms["before"])), "massive_rows": massive}
    return Evidence(**{**found.__dict__, "config": config})


def _mean_evidence(
    kind: str, where: str, site: str, phases: dict[str, Rows], values: dict[str, np.ndarray], name: str, seed: int
) -> Evidence:
    """Mean over the target's rows after, against unknown_eval's."""
    table = group_table(name, phases, values, numpy_rng(seed, kind, where), seed=seed)
    mean, low, high = table.at(phase="after", group="target")[:3]
    return evidence(
        kind,
        where,
        mean,
        n=int((phases["after"].group == "target").sum()),
        mask_policy=phases["after"].mask_policy,
        interval=None if np.isnan(low) else (float(low), float(high)),
        control=float(table.at(phase="after", group="unknown_eval", statistic="mean")),
        details={"groups": table},
        config={
            "site": site,
            "before": float(table.at(phase="before", group="target", statistic="mean")),
            "control_before": float(table.at(phase="before", group="unknown_eval", statistic="mean")),
        },
        seed=seed,
    )
