"""Alignment: where the target lies between known and unknown entities, at one site and at all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._axis import COORDINATES, KnownUnknownAxis
from interp_unlearn.probes._bootstrap import bootstrap_means, entity_means, interval, mean_interval, percentile
from interp_unlearn.probes._catalogue import evidence, missing, with_details
from interp_unlearn.probes._rows import GROUPS, Dictionary, Rows, check_pair, rows_of, why_missing
from interp_unlearn.probes._tables import SHOWN, group_table, point_table

KINDS = {"t": "alignment.t", "r": "alignment.r", "A": "alignment.ratio"}
GOLD_NOTE = "gold has weights of its own, so it is placed on its own known–unknown axis"


def alignment(
    before: Activations,
    after: Activations,
    site: str,
    sae: Dictionary | None = None,
    latents: Sequence[int] | np.ndarray | Tensor | None = None,
    *,
    gold: Activations | None = None,
    basis: str | None = None,
    seed: int = 0,
) -> list[Evidence]:
    """Axis coordinate t, residual r, alignment ratio A, and whether known and unknown are still apart.

    The axis is that of the original model's reference entities; formulas in `KnownUnknownAxis`.

    Args:
        before: Activations of the original model.
        after: The same rows in the edited model.
        site: Where to read.
        sae: Measure in the latent space of this SAE; None measures in residual space.
        latents: Use only these latents.
        gold: The same rows in a model that never knew the target; read in residual space only, since an SAE belongs to
            its model.
        basis: Last part of the evidence names; default ``"residual"`` or ``"sae"``.
        seed: Seed of the intervals.

    Returns:
        ``alignment.t``, ``alignment.r``, ``alignment.ratio`` and ``alignment.separation``, each named with the basis.
    """
    check_pair(before, after, site)
    basis = basis or ("residual" if sae is None else "sae")
    phases = {"before": rows_of(before, site, sae, latents), "after": rows_of(after, site, sae, latents)}
    if gold is not None and sae is None:
        phases["gold"] = rows_of(gold, site)
    policy = before.mask_policy
    reason = why_missing(phases, GROUPS)
    if reason:
        kinds = (*KINDS.values(), "alignment.separation")
        return [missing(kind, basis, reason, mask_policy=policy, config={"site": site}) for kind in kinds]
    axis = KnownUnknownAxis.fit(phases["before"])
    coordinates = {
        phase: (KnownUnknownAxis.fit(rows) if phase == "gold" else axis).coordinates(rows.x)
        for phase, rows in phases.items()
    }
    out = []
    for column, (name, kind) in enumerate(KINDS.items()):
        rng = numpy_rng(seed, kind, basis)
        values = {phase: c[:, column] for phase, c in coordinates.items()}
        table = group_table(name, phases, values, rng, note=GOLD_NOTE if "gold" in phases else "", seed=seed)
        points = point_table("position of each mention", phases, coordinates, COORDINATES) if name == "t" else None
        out.append(_target_evidence(kind, basis, site, table, phases["after"], values["after"], points, seed))
    out.append(_separation(basis, site, phases, {p: c[:, 0] for p, c in coordinates.items()}, seed))
    return out


def _target_evidence(
    kind: str,
    basis: str,
    site: str,
    table: Labelled,
    after: Rows,
    values: Float[np.ndarray, " n"],
    points: Labelled | None,
    seed: int,
) -> Evidence:
    """The target's mean with its interval, against the unknown entities' in the same model."""
    at = {g: table.at(phase="after", group=g) for g in ("target", "unknown_eval")}
    unknown = after.group == "unknown_eval"
    means = entity_means(values[unknown][:, None], after.entity[unknown])[:, 0]
    low, high = at["target"][1:3]
    config = {
        "site": site,
        "before": float(table.at(phase="before", group="target", statistic="mean")),
        "control_before": float(table.at(phase="before", group="unknown_eval", statistic="mean")),
        "control_sd_entities": float(at["unknown_eval"][3]),
        "percentile_among_unknown": percentile(float(at["target"][0]), means),
    }
    if "gold" in table.axes[0].labels:
        config["gold"] = float(table.at(phase="gold", group="target", statistic="mean"))
    return evidence(
        kind,
        basis,
        at["target"][0],
        n=int((after.group == "target").sum()),
        mask_policy=after.mask_policy,
        interval=None if np.isnan(low) else (float(low), float(high)),
        control=float(at["unknown_eval"][0]),
        details=with_details({"groups": table, "points": points}),
        config=config,
        seed=seed,
    )


def _separation(
    basis: str, site: str, phases: dict[str, Rows], t: dict[str, Float[np.ndarray, " n"]], seed: int
) -> Evidence:
    """Mean t of unknown_eval minus that of known_eval, edited against original."""
    rng = numpy_rng(seed, "alignment.separation", basis)
    gaps, samples = {}, {}
    for phase, rows in phases.items():
        means, drawn = {}, {}
        for group in ("known_eval", "unknown_eval"):
            keep = rows.group == group
            means[group] = t[phase][keep].mean()
            drawn[group] = bootstrap_means(t[phase][keep], (rows.entity[keep], rows.template[keep]), rng)
        gaps[phase] = float(means["unknown_eval"] - means["known_eval"])
        u, k = drawn["unknown_eval"], drawn["known_eval"]
        samples[phase] = None if u is None or k is None else u[: min(len(u), len(k))] - k[: min(len(u), len(k))]
    return evidence(
        "alignment.separation",
        basis,
        gaps["after"],
        n=int(np.isin(phases["after"].group, ("known_eval", "unknown_eval")).sum()),
        mask_policy=phases["after"].mask_policy,
        interval=interval(samples["after"]),
        control=gaps["before"],
        config={"site": site, **({"gold": gaps["gold"]} if "gold" in gaps else {})},
        seed=seed,
    )


def alignment_by_layer(
    before: Activations,
    after: Activations,
    sites: Sequence[str] | None = None,
    *,
    gold: Activations | None = None,
    where: str = "residual",
    seed: int = 0,
) -> list[Evidence]:
    """t, r and A at every captured layer, in residual space: what happened where no loss was.

    Args:
        before: Activations of the original model.
        after: The same rows in the edited model.
        sites: Sites in order of depth; default all captured ones.
        gold: The same rows in a model that never knew the target, placed on its own axis.
        where: Last part of the evidence names.
        seed: Seed of the intervals.

    Returns:
        ``alignment.layers_t`` and ``alignment.layers_r``: the largest gap over layers between the target and unknown
        entities, in standard deviations over unknown entities; their details hold the curves, axes
        (site, phase, group, statistic) with t, r, A and the entities' standard deviations of t and r.
    """
    sites = list(sites or before.sites)
    policy, per_site, entities, names = before.mask_policy, [], {}, ()
    for site in sites:
        check_pair(before, after, site)
        phases = {"before": rows_of(before, site), "after": rows_of(after, site)}
        if gold is not None:
            phases["gold"] = rows_of(gold, site)
        reason = why_missing(phases, GROUPS)
        if reason:
            kinds = ("alignment.layers_t", "alignment.layers_r")
            return [missing(kind, where, f"{site}: {reason}", mask_policy=policy) for kind in kinds]
        axis = KnownUnknownAxis.fit(phases["before"])
        names, table = tuple(phases), np.empty((len(phases), len(SHOWN), 5))
        for p, (phase, rows) in enumerate(phases.items()):
            own = KnownUnknownAxis.fit(rows) if phase == "gold" else axis
            for g, group in enumerate(SHOWN):
                part = rows.of(group)
                coordinates = own.coordinates(part.x)
                means = entity_means(coordinates, part.entity)
                spread = means.std(0, ddof=1)[:2] if len(means) > 1 else [np.nan, np.nan]
                table[p, g] = (*coordinates.mean(0), *spread)
                if phase == "after":
                    entities.setdefault(group, []).append(means)
        per_site.append(table)
    curve = Labelled(
        "position by layer",
        np.stack(per_site),
        (
            Axis("site", tuple(sites)),
            Axis("phase", names),
            Axis("group", SHOWN),
            Axis("statistic", ("t", "r", "A", "t_sd_entities", "r_sd_entities")),
        ),
        n=int(np.isin(before.labels["group"], SHOWN).sum()),
        mask_policy=policy,
        note=GOLD_NOTE if gold is not None else "",
    )
    after_rows = rows_of(after, sites[0])
    return [_worst_layer(c, where, sites, entities, after_rows, curve, seed) for c in (0, 1)]


def _worst_layer(
    column: int,
    where: str,
    sites: Sequence[str],
    entities: dict[str, list[np.ndarray]],
    rows: Rows,
    curve: Labelled,
    seed: int,
) -> Evidence:
    """Largest gap over layers, for the target and for each unknown entity left out of the others."""
    kind = ("alignment.layers_t", "alignment.layers_r")[column]
    target = np.stack([m[:, column] for m in entities["target"]])  # (site, entity)
    unknown = np.stack([m[:, column] for m in entities["unknown_eval"]])
    count = unknown.shape[1]
    if count < 3:
        reason = f"{count} unknown entities give no spread; at least 3 are needed"
        return missing(kind, where, reason, mask_policy=rows.mask_policy, details={"layers": curve})
    gaps = np.abs(target - unknown.mean(1, keepdims=True)) / _positive(unknown.std(1, ddof=1, keepdims=True))
    others = (unknown.sum(1, keepdims=True) - unknown) / (count - 1)
    squares = ((unknown**2).sum(1, keepdims=True) - unknown**2) / (count - 1) - others**2
    spread = np.sqrt(np.clip(squares, 0, None) * (count - 1) / (count - 2))
    floor = (np.abs(unknown - others) / _positive(spread)).max(0)
    each = gaps.max(0)  # (target entity,)
    names = np.unique(rows.of("target").entity)
    return evidence(
        kind,
        where,
        each.mean(),
        n=len(names),
        mask_policy=rows.mask_policy,
        interval=mean_interval(each, (names,), numpy_rng(seed, kind)),
        control=float(np.median(floor)),
        details={"layers": curve} if column == 0 else {},
        config={
            "worst_site": sites[int(gaps.mean(1).argmax())],
            "control_p95": float(np.quantile(floor, 0.95)),
            "percentile_among_unknown": float(np.mean([percentile(v, floor) for v in each])),
            "sites": list(sites),
        },
        seed=seed,
    )


def _positive(spread: np.ndarray) -> np.ndarray:
    return np.maximum(spread, 1e-12)
