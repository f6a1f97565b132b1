"""Indistinguishability: can anything tell the target from unknown entities better than these from each other?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._bootstrap import mean_interval, percentile
from interp_unlearn.probes._catalogue import evidence, missing, with_details
from interp_unlearn.probes._distances import (
    Statistic,
    TwoSampleResult,
    block_sums,
    distance_of,
    pair_matrix,
    permutation_test,
)
from interp_unlearn.probes._rows import Dictionary, Rows, check_pair, rows_of, why_missing
from interp_unlearn.probes._separability import (
    ENTITY_FOLDS,
    TEMPLATE_FOLDS,
    compact,
    deal,
    separate_names,
    separate_sets,
)

MIN_UNKNOWN = 8
MIN_SET = 4  # target entities needed for a classifier to be tested on unseen ones
RANDOM_SETS = 20
KINDS = ("two_sample.auc", "two_sample.auc_set", "two_sample.energy", "two_sample.mmd")


def indistinguishability(
    before: Activations,
    after: Activations,
    site: str,
    sae: Dictionary | None = None,
    latents: Sequence[int] | np.ndarray | Tensor | None = None,
    *,
    gold: Activations | None = None,
    basis: str | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> list[Evidence]:
    """Two-sample tests of the target against held-out unknown entities of the same (edited) model.

    The mean of each template over all entities is removed first. One target is one name, whose tokens alone may set it
    apart; so each result is read against its floor, the same for every unknown entity.

    Args:
        before: Activations of the original model.
        after: The same rows in the edited model.
        site: Where to read.
        sae: Test in the latent space of this SAE; None tests in residual space.
        latents: Use only these latents.
        gold: The same rows in a model that never knew the target; residual space only.
        basis: Last part of the evidence names; default ``"residual"`` or ``"sae"``.
        n_permutations: Relabellings where not all can be tried.
        seed: Seed of folds and relabellings.

    Returns:
        ``two_sample.auc``, ``two_sample.energy``, ``two_sample.mmd``, and ``two_sample.auc_set`` for 4 or more target
        entities. Without a value (and with the reason) below 8 unknown entities. ``config`` of the distances has
        ``p_value``, from exchanging whole entities.
    """
    check_pair(before, after, site)
    basis = basis or ("residual" if sae is None else "sae")
    phases = {"before": rows_of(before, site, sae, latents), "after": rows_of(after, site, sae, latents)}
    if gold is not None and sae is None:
        phases["gold"] = rows_of(gold, site)
    policy = before.mask_policy
    targets = len(np.unique(phases["after"].of("target").entity))
    unknown = len(np.unique(phases["after"].of("unknown_eval").entity))
    kinds = [k for k in KINDS if k != "two_sample.auc_set" or targets >= MIN_SET]
    reason = why_missing(phases, ("target", "unknown_eval"))
    if not reason and unknown < MIN_UNKNOWN:
        reason = f"{unknown} held-out unknown entities; at least {MIN_UNKNOWN} are needed for a floor"
    if reason:
        return [missing(kind, basis, reason, mask_policy=policy, config={"site": site}) for kind in kinds]
    pooled = {phase: _centred(rows.of("target", "unknown_eval")) for phase, rows in phases.items()}
    facts = {"site": site, "n_unknown": unknown, "n_targets": targets, "templates_centred": True}
    features = {phase: compact(rows.x) for phase, rows in pooled.items()}
    out = [_name_auc(basis, pooled, features, facts, seed)]
    if targets >= MIN_SET:
        out.append(_set_auc(basis, pooled, features, facts, seed))
    for statistic in ("energy", "mmd"):
        out.append(_distance(statistic, basis, pooled, facts, n_permutations, seed))
    return out


def _centred(rows: Rows) -> Rows:
    """Remove the mean of each template, over all its rows alike."""
    names, codes = np.unique(rows.template, return_inverse=True)
    sums = np.zeros((len(names), rows.x.shape[1]))
    np.add.at(sums, codes, rows.x)
    x = rows.x - (sums / np.bincount(codes)[:, None])[codes]
    return Rows(x, rows.entity, rows.group, rows.template, rows.mask_policy)


def _name_auc(
    basis: str, pooled: dict[str, Rows], features: dict[str, np.ndarray], facts: dict[str, object], seed: int
) -> Evidence:
    """Each target entity against unknown entities, and each unknown entity against the others."""
    kind = "two_sample.auc"
    rows = pooled["after"]
    targets, unknown = (np.unique(rows.of(g).entity) for g in ("target", "unknown_eval"))
    if len(np.unique(rows.template)) < 2:
        reason = "one template: a name seen once cannot be trained on and tested; use more templates"
        return missing(kind, basis, reason, mask_policy=rows.mask_policy, config=facts)
    tables, placement = {}, np.empty(0)
    for phase, part in pooled.items():
        rng = numpy_rng(seed, kind)  # the same folds in every phase
        is_unknown = part.group == "unknown_eval"
        template_fold = deal(part.template, TEMPLATE_FOLDS, rng)
        entity_fold = np.full(len(part), -1)
        entity_fold[is_unknown] = deal(part.entity[is_unknown], ENTITY_FOLDS, rng)
        x, u = features[phase], is_unknown
        floor = separate_names(x[u], part.entity[u], template_fold[u], entity_fold[u], unknown)
        values = [np.stack([floor.auc, floor.d_prime], 1)]
        placed = []
        for name in targets:
            keep = u | (part.entity == name)
            one = separate_names(x[keep], part.entity[keep], template_fold[keep], entity_fold[keep], np.array([name]))
            values.append(np.array([[one.auc[0], one.d_prime[0]]]))
            placed.append(one.placement[part.entity[keep] == name, 0])
        tables[phase] = np.concatenate(values)
        if phase == "after":
            placement = np.concatenate(placed)
    table = Labelled(
        "one entity against unknown entities",
        np.stack(list(tables.values())),
        (
            Axis("phase", tuple(tables)),
            Axis("entity", (*(f"unknown_eval|{e}" for e in unknown), *(f"target|{e}" for e in targets))),
            Axis("statistic", ("auc", "d_prime")),
        ),
        n=len(rows),
        mask_policy=rows.mask_policy,
        config={"template_folds": TEMPLATE_FOLDS, "entity_folds": ENTITY_FOLDS},
        seed=seed,
        note="d_prime: distance of mean scores in standard deviations of the others' scores",
    )
    count = len(unknown)
    after = tables["after"]
    order = [rows.where(rows.entity == e) for e in targets]
    clusters = tuple(np.concatenate([getattr(r, k) for r in order]) for k in ("entity", "template"))
    tested = np.isfinite(placement)
    ranks = {
        f"{s}percentile_among_unknown": float(
            np.mean([percentile(float(v), after[:count, c]) for v in after[count:, c]])
        )
        for c, s in enumerate(("", "d_prime_"))
    }
    return evidence(
        kind,
        basis,
        float(after[count:, 0].mean()),
        n=int(tested.sum()),
        mask_policy=rows.mask_policy,
        interval=mean_interval(
            placement[tested], tuple(c[tested] for c in clusters), numpy_rng(seed, kind, "interval")
        ),
        control=float(np.median(after[:count, 0])),
        details={"entities": table},
        config={
            **facts,
            **ranks,
            **_other_phases(tables, lambda t: float(t[count:, 0].mean())),
            "control_p95": float(np.quantile(after[:count, 0], 0.95)),
        },
        seed=seed,
    )


def _set_auc(
    basis: str, pooled: dict[str, Rows], features: dict[str, np.ndarray], facts: dict[str, object], seed: int
) -> Evidence:
    """The target set against unknown entities, tested on entities of both sides that were not trained on."""
    kind = "two_sample.auc_set"
    rows = pooled["after"]
    targets, unknown = (np.unique(rows.of(g).entity) for g in ("target", "unknown_eval"))
    values, floors, placement = {}, np.empty(0), np.empty(0)
    for phase, part in pooled.items():
        rng = numpy_rng(seed, kind)
        template_fold = deal(part.template, TEMPLATE_FOLDS, rng)
        entity_fold = deal(part.entity, ENTITY_FOLDS, rng, strata=part.group)
        found = separate_sets(features[phase], (part.group == "target")[:, None], template_fold, entity_fold)
        values[phase] = float(found.auc[0])
        if phase != "after":
            continue
        placement = found.placement[:, 0]
        u = part.group == "unknown_eval"
        size = min(len(targets), len(unknown) // 2)
        drawn = np.stack([rng.choice(unknown, size, replace=False) for _ in range(RANDOM_SETS)])
        members = np.stack([np.isin(part.entity[u], names) for names in drawn], 1)
        floors = separate_sets(features[phase][u], members, template_fold[u], entity_fold[u]).auc
        floors = floors[np.isfinite(floors)]
    tested = np.isfinite(placement)
    return evidence(
        kind,
        basis,
        values["after"],
        n=int(tested.sum()),
        mask_policy=rows.mask_policy,
        interval=mean_interval(
            placement[tested], (rows.entity[tested], rows.template[tested]), numpy_rng(seed, kind, "interval")
        ),
        control=float(np.median(floors)),
        config={
            **facts,
            **_other_phases(values, float),
            "control_p95": float(np.quantile(floors, 0.95)),
            "percentile_among_unknown": percentile(values["after"], floors),
        },
        seed=seed,
    )


def _other_phases(values: dict[str, Any], read: Callable[[Any], float]) -> dict[str, float]:
    return {phase: read(v) for phase, v in values.items() if phase != "after"}


def _distance(
    statistic: Statistic,
    basis: str,
    pooled: dict[str, Rows],
    facts: dict[str, object],
    n_permutations: int,
    seed: int,
) -> Evidence:
    """Energy distance or MMD with the p-value of exchanging entities."""
    kind = f"two_sample.{statistic}"
    results: dict[str, TwoSampleResult] = {}
    span = None
    for phase, rows in pooled.items():
        matrix = pair_matrix(rows.x, statistic)
        names, codes = np.unique(rows.entity, return_inverse=True)
        first = np.isin(names, np.unique(rows.of("target").entity))
        results[phase] = permutation_test(
            *block_sums(matrix, codes), first, statistic, n_permutations, numpy_rng(seed, kind)
        )
        if phase == "after":
            span = _jackknife(matrix, rows, statistic, results[phase].statistic)
    after = results["after"]
    null = Labelled(
        "distance under exchange of entities",
        np.sort(after.null),
        (Axis("relabelling", tuple(str(i) for i in range(len(after.null)))),),
        n=len(pooled["after"]),
        mask_policy=pooled["after"].mask_policy,
        config={"exact": after.exact},
        seed=seed,
    )
    return evidence(
        kind,
        basis,
        after.statistic,
        n=int((pooled["after"].group == "target").sum()),
        mask_policy=pooled["after"].mask_policy,
        interval=span,
        control=float(np.median(after.null)),
        details=with_details({"null": null}),
        config={
            **facts,
            "p_value": after.p_value,
            "p_value_before": results["before"].p_value,
            "smallest_p": 1 / (len(after.null) + (not after.exact)),
            "permutations": len(after.null),
            **_other_phases({k: v.statistic for k, v in results.items()}, float),
            "interval": "jackknife",
        },
        seed=seed,
    )


def _jackknife(
    matrix: Float[np.ndarray, "n n"], rows: Rows, statistic: Statistic, value: float
) -> tuple[float, float] | None:
    """95 % interval by leaving out one template at a time (entities where there are fewer than 3 templates).

    Resampling with replacement would put copies at distance 0 of each other and so enlarge the distance.
    """
    target = rows.group == "target"
    if len(np.unique(rows.template)) >= 3:
        left_out = [rows.template]
    elif len(np.unique(rows.entity[target])) >= 3:
        left_out = [np.where(target, rows.entity, ""), np.where(target, "", rows.entity)]
    else:
        return None
    variance = 0.0
    for labels in left_out:
        units = [u for u in np.unique(labels) if u]
        again = []
        for unit in units:
            keep = labels != unit
            blocks, sizes = block_sums(matrix[np.ix_(keep, keep)], target[keep].astype(np.int64))
            again.append(float(distance_of(blocks, sizes, np.array([[False, True]]), statistic)[0]))
        variance += (len(again) - 1) ** 2 / len(again) * float(np.var(again, ddof=1))
    half = 1.96 * np.sqrt(variance)
    return max(value - float(half), 0.0), value + float(half)
